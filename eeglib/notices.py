"""What a chapter must say about its data, and how it ends early (every chapter)."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eeglib.results import Chapter


class Notice:
    """A boxed note that stands out in the book, in Jupyter and as plain text.

    Parameters
    ----------
    title : str
    text : str
        Plain text.
    kind : str
        Class of the box in the book: ``note``, ``warning`` or ``important``.
    """

    def __init__(self, title: str, text: str, kind: str = "note"):
        self.title, self.text, self.kind = title, text, kind

    def _repr_html_(self) -> str:
        return (
            f'<div class="admonition {self.kind}"><p class="admonition-title">'
            f"{escape(self.title)}</p><p>{escape(self.text)}</p></div>"
        )

    def __repr__(self) -> str:
        return f"{self.title}. {self.text}"


def data_notice(chapter: Chapter) -> Notice:
    """Say where the data of this run come from; simulated data are announced as such."""
    profile = chapter.profile
    whose = "" if chapter.subject is None else f" Subject {chapter.subject}."
    if chapter.dataset.simulated:
        options = chapter.dataset.options
        return Notice(
            "Simulated data",
            "Every signal on this page was simulated; no person was recorded. The design is "
            f"{options.design}, the stimulus-driven part has strength "
            f"{options.stimulus_strength:g} and the slow drift {options.drift_strength:g}. "
            "The scores show how the method works, not what brains do. "
            f"Profile {profile.name}.{whose}",
            "warning",
        )
    title = chapter.dataset.card().get("title", profile.dataset.name)
    return Notice("Data", f"{title}. Profile {profile.name}.{whose}")


def stop_chapter(chapter: Chapter, reason: str) -> None:
    """End a chapter here: the cells below are shown but not run.

    For chapters that a data set cannot support. ``metrics.json`` is written with the fact
    ``skipped``, so that a run goes on and the group page can say why.

    Parameters
    ----------
    chapter : Chapter
    reason : str
        Shown to the reader.
    """
    chapter.finish(facts={"skipped": reason})
    from IPython import get_ipython
    from IPython.display import display

    text = f"{reason} The cells below were not run."
    display(Notice("This chapter ends here", text, "important"))
    shell = get_ipython()
    if shell is not None:
        shell.input_transformers_post.append(lambda lines: [])
