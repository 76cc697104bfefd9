"""Download a data set, or say exactly how to get it by hand (chapter 1, ``eeglib download NAME``).

A finished file appears at once under its own name; until then it is ``.<name>.part``. The SHA-256
of every file is checked against the published one or, where none was published, recorded on first
use in ``checksums.json`` and checked ever after.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pooch
import requests
import yaml
from pydantic import BaseModel
from tqdm import tqdm

from eeglib.datasets import DatasetError, DatasetWarning

CHECKSUMS = "checksums.json"
ATTEMPTS = 5
PAUSE = 1.0
"""Seconds before the second attempt; twice as long before each further one."""

TEMPORARY = (408, 416, 425, 429, 500, 502, 503, 504)


class RemoteFile(BaseModel, extra="forbid"):
    """One file of a data set: an entry of ``published.yml``, which says what the fields mean."""

    name: str
    url: str = ""
    places: tuple[str, ...] = ()
    n_bytes: int | None = None
    exact: bool = True
    sha256: str | None = None
    subject: int | None = None
    note: str = ""
    optional: str = ""


def _remote_files(entry: dict[str, Any]) -> list[RemoteFile]:
    """One file, or one for each subject where there is a list of sums."""
    if not isinstance(entry.get("sha256"), list):
        return [RemoteFile(**entry)]
    files = []
    for subject, sha256 in enumerate(entry["sha256"], 1):
        name = entry["name"].format(subject=subject)
        own = {"name": name, "url": entry["url"].format(name=name)}
        files.append(RemoteFile(**entry | own | {"subject": subject, "sha256": sha256}))
    return files


TABLE = yaml.safe_load(Path(__file__).with_name("published.yml").read_text(encoding="utf-8"))
CARDS = {name: entry["card"] for name, entry in TABLE.items()}
"""Facts of each published data set, by the name of its module."""
FILES = {
    name: [file for fields in entry["files"] for file in _remote_files(fields)]
    for name, entry in TABLE.items()
}
"""The files of each data set, by the name of its module."""


def fetch(
    name: str, folder: str | Path, subjects: Sequence[int] | None = None, timeout: float = 30
) -> list[Path]:
    """Download the files of a data set that can be downloaded, or those of some subjects.

    Parameters
    ----------
    name : str
        A key of `FILES`, such as ``things_eeg2``.
    folder : str | Path
        Where the data set is kept; made if it is not there.
    subjects : sequence of int | None
        Only these subjects' files; all where left out.
    timeout : float
        Seconds without a byte after which a connection counts as stalled.

    Returns
    -------
    list of Path
        Files that are now there and checked.

    Raises
    ------
    DatasetError
        If files that the chapters need are still missing, each with its size, the places to look,
        and where to put it; a `DatasetWarning` where the chapters can do without. Files that did
        arrive stay.
    """
    folder = Path(folder)
    files = [f for f in files_of(name) if subjects is None or f.subject in (None, *subjects)]
    arrived, missing = [], []
    for file in files:
        path, why = folder / file.name, "cannot be downloaded by a program"
        try:
            if not path.exists() and file.url:
                _fetch_file(file, path, timeout)
        except requests.RequestException as error:
            why = _reason(error)
        except OSError as error:
            raise DatasetError(cannot_write(path.parent, error)) from None
        if not path.exists():
            missing.append(f"{_describe(file, folder)}\n  why not here: {why}")
            continue
        if path.is_file():
            verify(path, folder, file.sha256)
        arrived.append(path)
    needed = [file for file in files if not file.optional and not (folder / file.name).exists()]
    message = f"{len(arrived)} of {len(files)} files of {name} are in {folder}. Get by hand what "
    message = "\n".join([f"{message}you need:", *missing])
    if needed:
        raise DatasetError(message)
    if missing:
        warnings.warn(message, DatasetWarning, stacklevel=2)
    return arrived


def files_of(name: str) -> list[RemoteFile]:
    """Files of a data set; an unknown name is an error."""
    if name not in FILES:
        raise DatasetError(f"There is no download named {name!r}; available: {', '.join(FILES)}.")
    return FILES[name]


def known_sha256(name: str, file: str) -> str | None:
    """Published SHA-256 of a file, or None."""
    return next((f.sha256 for f in FILES.get(name, ()) if f.name == file), None)


def how_to_get(name: str, folder: Path, file: str) -> str:
    """Say that a file of a data set is missing in its folder, and exactly how to get it."""
    remote = next((f for f in FILES.get(name, ()) if f.name == file), RemoteFile(name=file))
    beside = sorted(p.name for p in folder.iterdir())[:8] if folder.is_dir() else []
    lines = [f"There is no {file} in {folder}.", _describe(remote, folder)]
    if remote.url:
        which = "" if remote.subject is None else f" --subjects {remote.subject}"
        lines.append(f"  or let a program do it: eeglib download {name} {folder}{which}")
    lines.append(f"  in the folder now: {', '.join(beside) or 'nothing'}")
    lines.append("  another name or place: dataset.options and dataset.root in the profile")
    return "\n".join(lines)


def verify(path: Path, folder: Path, known: str | None = None) -> str:
    """Check a file against its published (``known``) or recorded SHA-256, which is returned.

    Without either it is recorded in ``checksums.json`` in ``folder``, if that takes a file.
    """
    entries, key, state = _entries(folder), path.relative_to(folder).as_posix(), path.stat()
    now = {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
    recorded = entries.get(key, {}).get("sha256")
    expected = known or recorded
    if recorded is not None and recorded == expected and now.items() <= entries[key].items():
        return recorded
    try:
        actual = pooch.file_hash(str(path))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from None
    if expected is not None and actual != expected:
        whose = "the published one" if known else f"the one recorded in {folder / CHECKSUMS}"
        raise DatasetError(
            f"{path} has another content than {whose} (sha256 {actual[:16]}... instead of "
            f"{expected[:16]}...). Delete it and get it again, or, if it is another version on "
            f"purpose, {'leave it' if known else 'delete its entry there'}."
        )
    entries[key] = {"sha256": actual, **now}
    temporary = folder / f".{CHECKSUMS}.part"
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", "utf-8")
        temporary.replace(folder / CHECKSUMS)
    return actual


def _entries(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / CHECKSUMS
    try:
        entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {name: dict(entry) for name, entry in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        raise DatasetError(f"{path} is damaged. Delete it; the sums are then taken anew.") from None


def _fetch_file(file: RemoteFile, path: Path, timeout: float) -> None:
    """Download one file; pooch and huggingface_hub would begin anew after every break."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    needed = (file.n_bytes or 0) - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise DatasetError(
            f"The download needs {needed / 1e9:.1f} GB, but {path.parent} has {free / 1e9:.1f} GB "
            "left. Free some, or choose another folder."
        )
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


def _reason(error: requests.RequestException) -> str:
    answer = error.response
    if answer is not None and answer.status_code >= 400:
        return f"the server answers {answer.status_code} {answer.reason}"
    if isinstance(error, requests.Timeout) or "timed out" in str(error).lower():
        return "the connection stalled"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke before the end of the file"
    if isinstance(error, requests.ConnectionError):
        return "the server cannot be reached"
    return str(error)


def cannot_write(folder: Path, error: OSError) -> str:
    """Message for a folder that takes no file."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"No space left in {folder}. Free some, or choose another folder."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{folder} may not be written to. Give yourself the permission or choose another."
    return f"{folder} cannot be written to: {error.strerror or error}."


def _describe(file: RemoteFile, folder: Path) -> str:
    size = "size not published"
    if file.n_bytes is not None:
        size = f"{'' if file.exact else 'about '}{file.n_bytes / 1e9:.2f} GB"
    use = f"optional: {file.optional}" if file.optional else "needed"
    lines = [f"- {file.name} ({size}; {use})", f"  put it at: {folder / file.name}"]
    lines += [f"  look at: {place}" for place in file.places]
    return "\n".join(lines + ([f"  {file.note}"] if file.note else []))
