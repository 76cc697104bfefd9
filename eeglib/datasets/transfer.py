"""Fetch one file over HTTP, patiently: stalls, breaks and wrong answers end in a clear error.

pooch checks sums and puts a finished file in its place at once, but begins every download anew. The
downloader here, which pooch calls, goes on where the last attempt stopped.
"""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import requests
from tqdm import tqdm

from eeglib.datasets import DatasetError

CHUNK = 2**16
ATTEMPTS = 4
PAUSE = 1.0
"""Seconds before the second attempt; twice as long before each further one."""

TEMPORARY = (408, 425, 429, 500, 502, 503, 504)


class TransferError(DatasetError):
    """One address that did not give the file."""


class Interrupted(TransferError):
    """A transfer that broke off; another attempt may go on from there."""


class ResumingDownloader:
    """Downloader for `pooch.retrieve` that keeps what has arrived in a ``.part`` file.

    Parameters
    ----------
    part : Path
        Where the unfinished file is kept, between runs as well.
    n_bytes : int | None
        Size that the file must have, where it is known exactly.
    timeout : float
        Seconds without a byte after which a connection counts as stalled.
    progress : bool
        Show a progress bar.
    """

    def __init__(
        self, part: Path, n_bytes: int | None = None, timeout: float = 30, progress: bool = True
    ):
        self.part, self.n_bytes, self.timeout, self.progress = part, n_bytes, timeout, progress
        self.tag = part.with_name(part.name + ".tag")

    def __call__(self, url: str, output_file: str, pooch: Any = None) -> None:
        """Fetch ``url`` and move it to ``output_file``; called by pooch.

        Raises
        ------
        TransferError
            If the address does not give the file after several attempts.
        DatasetError
            If it cannot be written here.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._attempt(url)
                break
            except Interrupted as error:
                if attempt == ATTEMPTS:
                    raise TransferError(f"{error} ({ATTEMPTS} attempts)") from None
                time.sleep(PAUSE * 2 ** (attempt - 1))
        self.part.replace(output_file)
        self.tag.unlink(missing_ok=True)

    def discard(self) -> None:
        """Forget what has arrived."""
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)

    def _attempt(self, url: str) -> None:
        have = self.part.stat().st_size if self.part.exists() else 0
        # The server's own name of this version: a part of another version must not be continued.
        tag = self.tag.read_text(encoding="utf-8") if have and self.tag.exists() else ""
        headers = {"Accept-Encoding": "identity"}
        if have and tag:
            headers |= {"Range": f"bytes={have}-", "If-Range": tag}
        try:
            with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as response:
                self._receive(response, have)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise Interrupted(_reason(error)) from None
        except requests.exceptions.ChunkedEncodingError as error:
            raise Interrupted(_reason(error)) from None
        except requests.RequestException as error:
            raise TransferError(_reason(error)) from None

    def _receive(self, response: requests.Response, have: int) -> None:
        if response.status_code == 416:
            self.discard()
            raise Interrupted("the server does not know the rest of the file")
        if response.status_code in TEMPORARY:
            raise Interrupted(f"the server answers {response.status_code} {response.reason}")
        if response.status_code not in (200, 206):
            raise TransferError(f"the server answers {response.status_code} {response.reason}")
        resumed = response.status_code == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            self.discard()
            raise Interrupted("the server sends another part of the file than was asked for")
        have = have if resumed else 0
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        if "text/html" in response.headers.get("Content-Type", ""):
            raise TransferError("the server sends an HTML page instead of the file")
        if self.n_bytes is not None and total is not None and total != self.n_bytes:
            raise TransferError(f"the file there has {total} bytes instead of {self.n_bytes}")
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified", "")
        if not resumed:
            self.discard()
            if tag and not tag.startswith("W/"):
                self.tag.write_text(tag, encoding="utf-8")
        self._write(response, have, total)
        size = self.part.stat().st_size
        expected = self.n_bytes if total is None else total
        if expected is not None and size != expected:
            raise Interrupted(f"the connection broke after {size} of {expected} bytes")

    def _write(self, response: requests.Response, have: int, total: int | None) -> None:
        bar = tqdm(
            total=total, initial=have, unit="B", unit_scale=True, disable=not self.progress,
            desc=self.part.name.removesuffix(".part").lstrip("."),
        )  # fmt: skip
        try:
            with bar, open(self.part, "ab" if have else "wb") as file:
                for chunk in response.iter_content(CHUNK):
                    if not have and chunk[:256].lstrip().lower().startswith(_HTML):
                        file.close()
                        self.discard()
                        raise TransferError("the server sends an HTML page instead of the file")
                    file.write(chunk)
                    have += len(chunk)
                    bar.update(len(chunk))
        except OSError as error:
            if isinstance(error, requests.RequestException):
                raise
            raise DatasetError(cannot_write(self.part.parent, error)) from None


_HTML = (b"<!doctype html", b"<html")


def cannot_write(folder: Path, error: OSError) -> str:
    """Message for a folder that takes no file."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"No space left for the download in {folder}. Free some, or choose another folder."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{folder} may not be written to. Give yourself the permission or choose another."
    return f"{folder} cannot be written to: {error.strerror or error}."


def _reason(error: Exception) -> str:
    text = str(error).lower()
    if isinstance(error, requests.Timeout) or "timed out" in text:
        return "the connection stalled"
    if isinstance(error, requests.exceptions.ChunkedEncodingError) or "incompleteread" in text:
        return "the connection broke before the end of the file"
    if isinstance(error, requests.ConnectionError):
        return "the server cannot be reached"
    return f"the request failed ({type(error).__name__})"
