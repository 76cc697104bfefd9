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
    """One file of a data set.

    Attributes
    ----------
    name : str
        Path below the data set's folder, with slashes.
    url : str
        Where it can be fetched; empty if only a person can get it.
    places : tuple of str
        Where a person finds it.
    n_bytes : int | None
        Size, where it was published; about so where ``exact`` is false.
    sha256 : str | None
        Where one was published. Otherwise it is recorded on first use and checked ever after.
    subject : int | None
        Whose signals it holds, if one subject's.
    note : str
        What to do after the download.
    optional : str
        What it is for, where the chapters run without it; empty if they need it.
    """

    name: str
    url: str = ""
    places: tuple[str, ...] = ()
    n_bytes: int | None = None
    exact: bool = True
    sha256: str | None = None
    subject: int | None = None
    note: str = ""
    optional: str = ""


def _remote_files(table: list[dict[str, Any]]) -> list[RemoteFile]:
    files = []
    for entry in table:
        sums = entry.get("sha256")
        for subject, sha256 in enumerate(sums, 1) if isinstance(sums, list) else ((None, sums),):
            name = entry["name"].format(subject=subject)
            url = entry.get("url", "").format(name=name)
            own = {"name": name, "url": url, "subject": subject, "sha256": sha256}
            files.append(RemoteFile(**entry | own))
    return files


FILES = {
    name: _remote_files(table)
    for name, table in yaml.safe_load(
        Path(__file__).with_name("remote_files.yml").read_text(encoding="utf-8")
    ).items()
}
"""The files of each data set, by the name of its module."""


def fetch(
    name: str,
    folder: str | Path,
    subjects: Sequence[int] | None = None,
    timeout: float = 30,
    progress: bool = True,
) -> list[Path]:
    """Download the files of a data set that can be downloaded.

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
    progress : bool
        Show progress bars.

    Returns
    -------
    list of Path
        Files that are now there and checked.

    Raises
    ------
    DatasetError
        If files that the chapters need are still missing: those that no address gave and those
        that only a person can get, each with its size, the places to look, and where to put it.
        Files that did arrive stay.

    Warns
    -----
    DatasetWarning
        With the same list, where only files that the chapters can do without are missing.
    """
    folder = Path(folder)
    files = [f for f in files_of(name) if subjects is None or f.subject in (None, *subjects)]
    arrived, missing = [], []
    for file in files:
        path = folder / file.name
        try:
            if not path.exists() and file.url:
                _fetch_file(file, path, timeout, progress)
        except requests.RequestException as error:
            missing.append((file, _reason(error)))
            continue
        except OSError as error:
            raise DatasetError(cannot_write(path.parent, error)) from None
        if not path.exists():
            missing.append((file, "cannot be downloaded by a program"))
            continue
        if path.is_file():
            verify(path, folder, file.sha256)
        arrived.append(path)
    if missing:
        lines = [f"{_describe(file, folder)}\n  why not here: {why}" for file, why in missing]
        message = (
            f"{len(arrived)} of {len(files)} files of {name} are in {folder}. Get by hand what you "
            "need:\n" + "\n".join(lines)
        )
        if not all(file.optional for file, _ in missing):
            raise DatasetError(message)
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
    """Say that ``file`` of data set ``name`` is missing in ``folder``, and exactly how to get it."""
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
    """Check a file against its published (``known``) or recorded SHA-256; record it on first use.

    Returns the sum. The record is ``checksums.json`` in ``folder``; a folder that takes no file
    is left alone.

    Raises
    ------
    DatasetError
        If the file is not the published one, or not what it was when first used.
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
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        entries = None
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise DatasetError(f"{path} is damaged. Delete it; the sums are then taken anew.")
    return entries


def _fetch_file(file: RemoteFile, path: Path, timeout: float, progress: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    needed = (file.n_bytes or 0) - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise DatasetError(
            f"The download needs {needed / 1e9:.1f} GB, but {path.parent} has {free / 1e9:.1f} GB "
            "left. Free some, or choose another folder."
        )

    def resume(url: str, output_file: str, _: Any) -> None:
        for attempt in range(ATTEMPTS):
            try:
                # Only a published sum tells whether two parts belong to the same version.
                _receive(url, part, timeout, progress, resume=file.sha256 is not None)
                break
            except (requests.RequestException, TimeoutError) as error:
                answer = getattr(error, "response", None)
                if attempt + 1 == ATTEMPTS or (
                    answer is not None and answer.status_code not in TEMPORARY
                ):
                    raise
                time.sleep(PAUSE * 2**attempt)
        part.replace(output_file)

    known = None if file.sha256 is None else f"sha256:{file.sha256}"
    pooch.get_logger().setLevel("WARNING")  # the bar says it all
    try:
        # pooch itself begins every download anew; it checks the sum and moves the file in place.
        pooch.retrieve(file.url, known, path.name, path.parent, downloader=resume)
    except ValueError as error:
        if isinstance(error, requests.RequestException):
            raise
        raise requests.RequestException(
            "the file there has another checksum than the published one"
        ) from None


def _receive(url: str, part: Path, timeout: float, progress: bool, resume: bool) -> None:
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
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, disable=not progress)
        with bar, open(part, "ab" if have else "wb") as file:
            bar.set_description(part.name.removesuffix(".part").lstrip("."))
            for chunk in response.iter_content(2**16):
                file.write(chunk)
                bar.update(len(chunk))


def _reason(error: requests.RequestException) -> str:
    answer = error.response
    if isinstance(error, requests.HTTPError) and answer is not None and answer.status_code >= 400:
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
