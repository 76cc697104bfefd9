"""Write ``book/profile_settings.md``: every key of a profile, from the model and its comments.

Run ``python -m tools.profile_settings`` after a change of ``eeglib/profile.py``.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import yaml

from eeglib.profile import ChapterResources, Profile

PAGE = Path(__file__).parents[1] / "book" / "profile_settings.md"
WORDS = {"integer": "whole number", "boolean": "true or false", "string": "text", "null": "empty"}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
INTRODUCTION = """# All settings of a profile

Every key that a profile may have: what it means, what is allowed, and what holds where it is \
left out. The profiles that come with the book, `eeglib profiles`, say less than this; the \
complete profile of a run stands in its folder as `profile.yml`. {doc}`Use your own EEG \
<use_your_own_eeg>` shows how to write one. On the command line a key is written with its section: \
`--set training.max_epochs=5`, or `--set "filtering.band=[1, 40]"`. *Empty* is written `null`.
"""


def settings_page() -> str:
    """Markdown of the page of all keys."""
    schema = Profile.model_json_schema()
    text = INTRODUCTION
    for name, field in Profile.model_fields.items():
        model = ChapterResources if name == "resources" else type(field.default)
        if not hasattr(model, "model_fields"):
            text += _entry(name, Profile, name, schema)
            continue
        about = inspect.getdoc(model).replace("``", "`")
        text += f"\n## {name}\n\n{about}\n"
        prefix = f"{name}.<chapter>" if name == "resources" else name
        for key in model.model_fields:
            text += _entry(f"{prefix}.{key}", model, key, model.model_json_schema())
    return text


def _entry(title: str, model: type, key: str, schema: dict) -> str:
    meaning = re.search(rf"^    {key}: .*?  # (.+)$", inspect.getsource(model), re.MULTILINE)
    field, own = model.model_fields[key], schema["properties"][key]
    default = "must be there"
    if not field.is_required():
        value = own.get("default", field.get_default())
        default = yaml.safe_dump(value, default_flow_style=True, width=10_000)
        default = f"default `{default.removesuffix(chr(10)).removesuffix(chr(10) + '...')}`"
    allowed = _kind(own)
    about = meaning[1][0].upper() + meaning[1][1:]
    return f"\n`{title}`\n: {about}. *{allowed[0].upper()}{allowed[1:]}*; {default}.\n"


def _kind(schema: dict) -> str:
    """What a JSON schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "enum" in schema:
        return "one of " * (len(schema["enum"]) > 1) + ", ".join(
            f"`{value}`" for value in schema["enum"]
        )
    if schema["type"] == "array":
        parts = [_kind(part) for part in schema.get("prefixItems", [schema.get("items")])]
        return f"[{', '.join(parts)}]" if "prefixItems" in schema else f"list; each {parts[0]}"
    if schema["type"] == "object":
        return "keys and values"
    kind = "path" if schema.get("format") == "path" else WORDS.get(schema["type"], schema["type"])
    limits = [f"{sign} {schema[name]:g}" for name, sign in LIMITS.items() if name in schema]
    return " ".join([kind, " and ".join(limits)]).strip()


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
