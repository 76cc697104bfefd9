"""Download a data set, or say exactly how to get it by hand (chapter 1, ``eeglib download NAME``).

Until it is whole, a file is ``.<name>.part``. Its SHA-256 is checked against the published one or,
where none was published, the one that ``checksums.json`` recorded on first use.
"""

import contextlib
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import pooch
import requests
import yaml
from pydantic import BaseModel
from tqdm import tqdm

from eeglib.datasets import DatasetError, DatasetWarning
from eeglib.datasets.files import cannot_write, write_whole

CHECKSUMS = "checksums.json"
ATTEMPTS = 5
PAUSE = 1.0  # s before the second attempt; twice as long before each further one
TEMPORARY = (408, 416, 425, 429, 500, 502, 503, 504)


class RemoteFile(BaseModel, extra="forbid"):
    """One file of a data set: an entry of ``published.yml``, which says what the fields mean."""

    name: str
    url: str = ""
    places: tuple[str, ...] = ()
    n_bytes: int | None = None
    sha256: str | None = None
    subject: int | None = None
    note: str = ""
    optional: str = ""


TABLE = yaml.safe_load(Path(__file__).with_name("published.yml").read_text(encoding="utf-8"))
CARDS = {name: entry["card"] for name, entry in TABLE.items()}
FILES = {n: [RemoteFile(**f) for f in e["files"]] for n, e in TABLE.items() if "files" in e}


def fetch(
    name: str, folder: str | Path, subjects: Sequence[int] | None = None, timeout: float = 30
) -> list[Path]:
    """Download what a program can download; the files that are now there and checked.

    The others are listed with the way to get them by hand, as an error if a chapter needs one.
    """
    folder = Path(folder)
    files = [f for f in files_of(name) if subjects is None or f.subject in (None, *subjects)]
    arrived, missing = [], []
    for file in files:
        path, why = folder / file.name, "cannot be downloaded by a program"
        try:
            if not path.exists() and file.url:
                _download(file, path, timeout)
        except requests.RequestException as error:
            why = str(error)[:200]
        except OSError as error:
            raise cannot_write(path.parent, error) from None
        if path.exists():
            arrived.append(path)
        else:
            missing.append(f"{_describe(file, folder)}\n  why not here: {why}")
        if path.is_file():
            verify(path, folder, file.sha256)
    here = f"{len(arrived)} of {len(files)} files of {name} are in {folder}"
    message = "\n".join([f"{here}. Get by hand what you need:", *missing])
    if not all(file.optional or (folder / file.name).exists() for file in files):
        raise DatasetError(message)
    if missing:
        warnings.warn(message, DatasetWarning, stacklevel=2)
    return arrived


def files_of(name: str) -> list[RemoteFile]:
    if name not in FILES:
        raise DatasetError(f"There is no download named {name!r}; available: {', '.join(FILES)}.")
    return FILES[name]


def find(name: str, folder: Path, file: str) -> Path:
    """Path of a file of a data set; if it is missing, the error says exactly how to get it."""
    if (folder / file).is_file():
        return folder / file
    remote = next((f for f in FILES.get(name, ()) if f.name == file), RemoteFile(name=file))
    beside = sorted(p.name for p in folder.iterdir())[:8] if folder.is_dir() else []
    which = f" --subjects {remote.subject}" if remote.subject else ""
    program = f"\n  or let a program do it: eeglib download {name} {folder}{which}"
    raise DatasetError(
        f"There is no {file} in {folder}.\n{_describe(remote, folder)}{program * bool(remote.url)}"
        f"\n  in the folder now: {', '.join(beside) or 'nothing'}"
        "\n  another name or place: dataset.options and dataset.root in the profile"
    )


def _describe(file: RemoteFile, folder: Path) -> str:
    size = f"{file.n_bytes / 1e9:.2f} GB" if file.n_bytes else "size not published"
    use = f"optional: {file.optional}" if file.optional else "needed"
    lines = [f"- {file.name} ({size}; {use})", f"  put it at: {folder / file.name}"]
    lines += [f"  look at: {place}" for place in file.places]
    return "\n".join(lines + ([f"  {file.note}"] if file.note else []))


def verify(path: Path, folder: Path, published: str | None = None) -> None:
    """Check a file against its published SHA-256 or the recorded one; at first use record it."""
    record, key = folder / CHECKSUMS, path.relative_to(folder).as_posix()
    sums = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    actual, expected = pooch.file_hash(str(path)), published or sums.get(key)
    if expected not in (None, actual):
        kind, hint = ("published", "") if published else ("recorded", f", or its entry in {record}")
        text = f"{path} has another content than the {kind} one (sha256 {actual[:16]}... instead of"
        raise DatasetError(f"{text} {expected[:16]}...). Delete it{hint}, and get it again.")
    with contextlib.suppress(OSError):  # a folder that takes no file
        write_whole(record, json.dumps(sums | {key: actual}, indent=1, sort_keys=True) + "\n")


def _download(file: RemoteFile, path: Path, timeout: float) -> None:
    """Download one file; pooch and huggingface_hub would begin anew after every break."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    for attempt in range(ATTEMPTS):
        try:
            # Only a published sum tells whether two parts belong to the same version.
            _receive(file.url, part, timeout, resume=file.sha256 is not None)
            break
        except requests.RequestException as error:
            lasting = error.response is not None and error.response.status_code not in TEMPORARY
            if lasting or attempt + 1 == ATTEMPTS:
                raise
            time.sleep(PAUSE * 2**attempt)
    if file.sha256 is not None and pooch.file_hash(str(part)) != file.sha256:
        part.unlink()
        raise requests.RequestException("the file there has another checksum than the published")
    part.replace(path)


def _receive(url: str, part: Path, timeout: float, resume: bool) -> None:
    """Write what an address gives to ``part``, after what is there already if ``resume``."""
    have = part.stat().st_size if resume and part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code == 416:
            part.unlink()
        response.raise_for_status()
        if "text/html" in response.headers.get("Content-Type", ""):
            raise requests.HTTPError("it is an HTML page instead of the file", response=response)
        have = have if response.status_code == 206 else 0
        total = have + int(response.headers.get("Content-Length", 0))
        name = part.name.removesuffix(".part").lstrip(".")
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=name)
        with bar, open(part, "ab" if have else "wb") as file:
            for chunk in response.iter_content(2**16):
                file.write(chunk)
                bar.update(len(chunk))
