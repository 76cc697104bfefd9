"""Read downloaded ``.pth`` and pickled ``.npy`` files without running their code (chapter 1).

The numbers stay in the file until they are asked for, so that one subject of a file of many
gigabytes costs one subject's memory.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from eeglib.datasets import DatasetError
from eeglib.datasets.safe_pickle import AGAIN, LIMIT, Span, Storage, damaged, load, unwrap

TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""First number of a file that torch wrote before version 1.6."""


def read_torch(path: str | Path) -> Any:
    """Read a file that ``torch.save`` wrote, in the zip form or in the one before torch 1.6.

    Parameters
    ----------
    path : str | Path

    Returns
    -------
    object
        Lists, dicts, numbers and strings, with a `FileArray` in place of every tensor.

    Raises
    ------
    DatasetError
        If it is no such file or is damaged.
    UnsafeFileError
        If it asks for a function other than those that rebuild tensors.

    Notes
    -----
    Equal to ``torch.load(path, weights_only=True)`` but for three things: the tensors are not
    read, which ``torch.load(mmap=True)`` offers for the zip form only; torch is not imported;
    and nothing outside this module is ever called.
    """
    path = Path(path)
    _reject_other_kinds(path)
    return unwrap(_guard(path, _read_torch_zip if zipfile.is_zipfile(path) else _read_torch_legacy))


def read_pickled_numpy(path: str | Path) -> Any:
    """Read a pickled object with arrays: from ``np.save`` of a dict, or from ``pickle.dump``.

    Parameters
    ----------
    path : str | Path

    Returns
    -------
    object
        The object itself, without the 0-d array that ``np.save`` puts around it. Arrays above
        `LARGE` bytes come as `FileArray`, others as NumPy arrays.

    Raises
    ------
    DatasetError
        If it is no such file or is damaged.
    UnsafeFileError
        If it asks for a function other than those that rebuild arrays.
    """
    path = Path(path)
    _reject_other_kinds(path)
    return _guard(path, _read_numpy)


def _read_torch_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        records = {info.filename.split("/", 1)[-1]: info for info in archive.infolist()}
        if "data.pkl" not in records:
            raise DatasetError(
                f"{path.name} is a zip archive, but torch.save did not write it. If it is a "
                "packed download, unpack it and point to the file inside."
            )
        little = "byteorder" not in records or archive.read(records["byteorder"]) == b"little"
        storages: dict[str, Storage] = {}

        def persistent_load(reference: Any) -> Storage:
            _, kind, key, _, count = reference
            if key not in storages:
                span = _stored_span(path, file, records[f"data/{key}"])
                storages[key] = Storage(span, kind.dtype(little))
                if count * storages[key].dtype.itemsize != span.size:
                    raise ValueError(f"storage {key} has {span.size} bytes for {count} numbers")
            return storages[key]

        if records["data.pkl"].file_size > LIMIT:
            raise ValueError("its table of contents is larger than any known data set's")
        return load(io.BytesIO(archive.read(records["data.pkl"])), path, persistent_load)


def _stored_span(path: Path, file: BinaryIO, info: zipfile.ZipInfo) -> Span:
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError("its numbers are compressed, which torch.save never does")
    file.seek(info.header_offset)
    header = file.read(30)
    n_name, n_extra = struct.unpack("<HH", header[26:30])
    return Span(path, info.header_offset + 30 + n_name + n_extra, info.file_size)


def _read_torch_legacy(path: Path) -> Any:
    with open(path, "rb") as file:
        if load(file, path) != TORCH_MAGIC:
            raise DatasetError(f"{path.name} is not a file that torch.save wrote. {AGAIN}")
        load(file, path)  # version of the protocol
        little = load(file, path).get("little_endian", True)
        storages: dict[str, Storage] = {}
        counts: dict[str, int] = {}

        def persistent_load(reference: Any) -> Storage:
            tag, kind, key, _, count, view = reference
            if tag != "storage" or view is not None:
                raise ValueError("it holds more than tensors")
            if key not in storages:
                storages[key] = Storage(Span(path, 0, 0), kind.dtype(little))
                counts[key] = count
            return storages[key]

        content = load(file, path, persistent_load)
        position = None
        for key in load(file, path):
            position = file.tell() if position is None else position
            file.seek(position)
            (count,) = struct.unpack("<q" if little else ">q", file.read(8))
            if count != counts[key]:
                raise ValueError(f"storage {key} has {count} numbers instead of {counts[key]}")
            size = count * storages[key].dtype.itemsize
            storages[key].span.offset, storages[key].span.size = position + 8, size
            position += 8 + size
        if position is not None and position > path.stat().st_size:
            raise ValueError("it ends before its numbers do")
    return content


def _read_numpy(path: Path) -> Any:
    with open(path, "rb") as file:
        if file.read(6) == b"\x93NUMPY":
            file.seek(0)
            version, _ = np.lib.format.read_magic(file)
            header = (
                np.lib.format.read_array_header_1_0
                if version == 1
                else (np.lib.format.read_array_header_2_0)
            )
            shape, _, dtype = header(file)
            if not dtype.hasobject:
                raise DatasetError(
                    f"{path.name} holds a plain array of shape {shape}, not a dict. Check that it "
                    "is the file that the data set's page names."
                )
        else:
            file.seek(0)
        return unwrap(load(file, path))


def _reject_other_kinds(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except FileNotFoundError:
        raise DatasetError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise DatasetError(f"{path} is a folder; a file is expected.") from None
    except PermissionError:
        raise DatasetError(f"{path} may not be read: give yourself the permission.") from None
    text = start.lstrip().lower()
    kinds = {
        "an HTML page": text.startswith((b"<!doctype html", b"<html")),
        "empty": not start,
        "a pointer of Git LFS, not the data": text.startswith(b"version https://git-lfs"),
        "packed with gzip": start.startswith(b"\x1f\x8b"),
        "a tar archive": start[257:262] == b"ustar",
        "an HDF5 file": start.startswith(b"\x89HDF"),
    }
    for kind, found in kinds.items():
        if found:
            raise DatasetError(f"{path.name} is {kind}. {AGAIN}")


def _guard(path: Path, read: Callable[[Path], Any]) -> Any:
    """Turn whatever a damaged file may cause into one clear error."""
    try:
        return read(path)
    except DatasetError:
        raise
    except Exception as error:
        raise damaged(path, f"{error}" or type(error).__name__) from None
