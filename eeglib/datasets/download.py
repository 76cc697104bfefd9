"""Download a data set, or say exactly how to get it by hand (chapter 1, ``eeglib download NAME``).

A finished file appears at once under its own name; until then it is ``.<name>.part``. The SHA-256
of every file is checked against the published one or, where none was published, recorded on first
use in ``checksums.json`` and checked ever after.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pooch
from tqdm import tqdm

from eeglib.datasets import DatasetError, DatasetWarning
from eeglib.datasets.remote_files import FILES, RemoteFile
from eeglib.datasets.transfer import ResumingDownloader, TransferError, cannot_write

CHECKSUMS = "checksums.json"
HASH_BAR = 10**9
"""Files above this size show a progress bar while their sum is taken, bytes."""


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(cannot_write(folder, error)) from None
    arrived, missing = [], []
    for file in files:
        path = folder / file.name
        if path.is_dir():
            arrived.append(path)
        elif path.is_file():
            verify(path, file.sha256, folder)
            arrived.append(path)
        elif file.urls:
            try:
                arrived.append(_fetch_file(file, folder, timeout, progress))
            except TransferError as error:
                missing.append((file, str(error)))
        else:
            missing.append((file, "cannot be downloaded by a program"))
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


def files_of(name: str) -> tuple[RemoteFile, ...]:
    """Files of a data set.

    Raises
    ------
    DatasetError
        If nothing is known about a data set of this name.
    """
    if name not in FILES:
        raise DatasetError(f"There is no download named {name!r}; available: {', '.join(FILES)}.")
    return FILES[name]


def known_sha256(name: str, file: str) -> str | None:
    """Published SHA-256 of a file, or None."""
    return next((f.sha256 for f in FILES.get(name, ()) if f.name == file), None)


def how_to_get(name: str, folder: Path, file: str) -> str:
    """Say what is missing and exactly how to get it.

    Parameters
    ----------
    name : str
        Name of the data set.
    folder : Path
        Where it is expected.
    file : str
        Name of the file below ``folder``.
    """
    folder = Path(folder)
    remote = next((f for f in FILES.get(name, ()) if f.name == file), RemoteFile(file))
    beside = sorted(p.name for p in folder.iterdir())[:8] if folder.is_dir() else []
    lines = [f"There is no {file} in {folder}.", _describe(remote, folder)]
    if remote.urls:
        which = "" if remote.subject is None else f" --subjects {remote.subject}"
        lines.append(f"  or let a program do it: eeglib download {name} {folder}{which}")
    lines.append(f"  in the folder now: {', '.join(beside) or 'nothing'}")
    lines.append("  another name or place: dataset.options and dataset.root in the profile")
    return "\n".join(lines)


def verify(path: Path, known: str | None = None, folder: Path | None = None) -> dict[str, Any]:
    """Check a file against its published or recorded SHA-256; record it on first use.

    Parameters
    ----------
    path : Path
    known : str | None
        Published sum.
    folder : Path | None
        Where ``checksums.json`` is kept; the file's own folder where left out.

    Returns
    -------
    dict
        The file's entry in ``checksums.json``; `remember` adds to it.

    Raises
    ------
    DatasetError
        If the file is not the published one, or not what it was when first used.
    """
    folder = path.parent if folder is None else folder
    entry = _entries(folder).get(path.relative_to(folder).as_posix(), {})
    state = path.stat()
    as_before = entry.get("bytes") == state.st_size and entry.get("mtime_ns") == state.st_mtime_ns
    if as_before and known in (None, entry.get("sha256")):
        return entry
    actual = _sha256(path)
    expected = known or entry.get("sha256")
    if expected is not None and actual != expected:
        whose = "the published one" if known else f"the one recorded in {folder / CHECKSUMS}"
        raise DatasetError(
            f"{path} has another content than {whose} (sha256 {actual[:16]}... instead of "
            f"{expected[:16]}...). Delete it and get it again"
            + (
                ", or leave it if it is another version on purpose: chapter 1 checks what it holds."
                if known
                else ", or delete its entry there if you replaced it on purpose."
            )
        )
    if entry.get("sha256") != actual:
        entry = {}
    entry |= {"sha256": actual, "bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
    remember(path, entry, folder)
    return entry


def remember(path: Path, entry: dict[str, Any], folder: Path | None = None) -> None:
    """Write a file's entry in ``checksums.json``; a folder that takes no file is left alone."""
    folder = path.parent if folder is None else folder
    entries = _entries(folder) | {path.relative_to(folder).as_posix(): entry}
    temporary = folder / f".{CHECKSUMS}.part"
    try:
        temporary.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", "utf-8")
        temporary.replace(folder / CHECKSUMS)
    except OSError:
        temporary.unlink(missing_ok=True)


def _fetch_file(file: RemoteFile, folder: Path, timeout: float, progress: bool) -> Path:
    path = folder / file.name
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.n_bytes is not None:
            arrived = part.stat().st_size if part.exists() else 0
            _check_space(folder, file.n_bytes - arrived)
    except OSError as error:
        raise DatasetError(cannot_write(folder, error)) from None
    pooch.get_logger().setLevel("WARNING")  # the bar says it all
    reasons = []
    for url in file.urls:
        exact = file.n_bytes if file.exact else None
        downloader = ResumingDownloader(part, exact, timeout, progress)
        try:
            pooch.retrieve(
                url, _prefixed(file.sha256), path.name, path.parent, downloader=downloader
            )
        except TransferError as error:
            reasons.append(f"{url}: {error}")
        except OSError as error:
            raise DatasetError(cannot_write(path.parent, error)) from None
        except ValueError as error:
            if isinstance(error, DatasetError):
                raise
            reasons.append(f"{url}: the file there has another checksum than the published one")
        else:
            verify(path, file.sha256, folder)
            return path
    raise TransferError("; ".join(reasons))


def _prefixed(sha256: str | None) -> str | None:
    return None if sha256 is None else f"sha256:{sha256}"


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DatasetError(
            f"The download needs {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB left. "
            "Free some, or choose another folder."
        )


def _describe(file: RemoteFile, folder: Path) -> str:
    size = "size not published"
    if file.n_bytes is not None:
        size = f"{'' if file.exact else 'about '}{file.n_bytes / 1e9:.2f} GB"
    use = f"optional: {file.optional}" if file.optional else "needed"
    lines = [f"- {file.name} ({size}; {use})", f"  put it at: {folder / file.name}"]
    lines += [f"  look at: {place}" for place in file.places]
    return "\n".join(lines + ([f"  {file.note}"] if file.note else []))


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


def _sha256(path: Path) -> str:
    import hashlib

    digest, size = hashlib.sha256(), path.stat().st_size
    # Said only where it is so: an explicit False would win over TQDM_DISABLE, as headless runs set.
    quiet = {"disable": True} if size < HASH_BAR else {}
    bar = tqdm(total=size, unit="B", unit_scale=True, desc="checking", **quiet)
    try:
        with bar, open(path, "rb") as file:
            while chunk := file.read(2**22):
                digest.update(chunk)
                bar.update(len(chunk))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from None
    return digest.hexdigest()
