"""Read downloaded ``.pth`` and pickled ``.npy`` files without running what is in them (chapter 1).

Both are pickles, small programs that name the functions to be called. ``torch.load`` with
``weights_only`` and the unpickler below know the few names that arrays need, and refuse others.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from eeglib.datasets import DatasetError

LARGE = 2**16
"""Arrays from this size on stay in their file, bytes."""

AGAIN = "Download it again, or check that it is the file you meant."
OTHER_FILES = {
    "an HTML page": rb"(?i)\s*<(!doctype )?html",
    "a pointer of Git LFS, not the data": rb"version https://git-lfs",
    "packed with gzip": rb"\x1f\x8b",
    "an HDF5 file": rb"\x89HDF",
    "empty": rb"$",
}


def load_torch(path: Path) -> Any:
    """Read a file that ``torch.save`` wrote; one in the zip form is mapped into memory.

    Raises
    ------
    DatasetError
        If it is no such file, is damaged, or asks for a function to be run; none is.
    """
    import torch

    core = np._core.multiarray
    allowed = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in "fdil?hqUO")]
    for function, name in ((core._reconstruct, "_reconstruct"), (core.scalar, "scalar")):
        allowed += [(function, f"numpy.{place}.multiarray.{name}") for place in ("core", "_core")]
    with _one_clear_error(path), torch.serialization.safe_globals(allowed):
        return torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def load_numpy(path: Path) -> Any:
    """Read an object with arrays that ``np.save`` or ``pickle.dump`` wrote.

    Without the 0-d array that ``np.save`` puts around it. Arrays from `LARGE` bytes on come as
    `StoredArray`, so that a file of many gigabytes costs no memory.

    Raises
    ------
    DatasetError
        If it is no such file, is damaged, or asks for a function to be run; none is.
    """
    with _one_clear_error(path), open(path, "rb") as file:
        if file.read(6) == b"\x93NUMPY":
            file.seek(0)
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("its header has another version than 1.0")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if not dtype.hasobject:
                raise ValueError(f"it holds a plain array of shape {shape}, no dict")
        else:
            file.seek(0)
        content = _ArrayUnpickler(file).load()
        return content.item() if isinstance(content, np.ndarray) and content.ndim == 0 else content


@dataclass(frozen=True, eq=False)
class StoredArray:
    """An array that is still in its file, in C order."""

    path: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read from ``start`` to before ``stop`` along the first axis."""
        size = math.prod(self.shape[1:])
        offset = self.offset + start * size * self.dtype.itemsize
        numbers = np.fromfile(self.path, self.dtype, (stop - start) * size, offset=offset)
        return numbers.reshape(stop - start, *self.shape[1:])


class _Span(int):
    """Size of a byte string that was left in its file, and where it lies."""

    path: Path
    offset: int


def _array(shape: tuple, dtype: np.dtype, fortran: bool, content: Any) -> Any:
    order = "F" if fortran else "C"
    if dtype.hasobject:
        array = np.empty(len(content), object)
        array[:] = content
        return array.reshape(shape, order=order)
    content = content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(content, _Span):
        return np.frombuffer(content, dtype).reshape(shape, order=order)
    if fortran or content != math.prod(shape) * dtype.itemsize:
        raise ValueError("its numbers are in Fortran order (save them in C order) or incomplete")
    return StoredArray(content.path, content.offset, dtype, tuple(shape))


# What NumPy puts behind these names trusts its arguments, so that a stand-in takes its place.
_NAMES = {
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): lambda name, *_: np.dtype(str(name)),
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: np.empty(0),
    ("numpy.core.multiarray", "scalar"): lambda dtype, raw: _array((1,), dtype, False, raw)[0],
    ("numpy.core.numeric", "_frombuffer"): lambda raw, dtype, shape, order: _array(
        shape, dtype, order == "F", raw
    ),
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
}


# Python's own unpickler, because the one in C cannot leave bytes in the file.
class _ArrayUnpickler(pickle._Unpickler):
    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="latin1")
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        key = module.replace("numpy._core", "numpy.core"), name
        if key not in _NAMES:
            raise pickle.UnpicklingError(f"unsupported GLOBAL {module}.{name}")
        return _NAMES[key]

    def _set_state(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, np.dtype) and state[1] != ">":
            return
        if not isinstance(target, np.ndarray):
            raise ValueError("it changes an object that is no array, or is big-endian")
        array = self.stack[-1] = _array(*state[1:])
        self.memo.update({key: array for key, value in self.memo.items() if value is target})

    def _leave_bytes(self, width: int) -> None:
        size = _Span(int.from_bytes(self.read(width), "little"))
        # Writers put large byte strings outside the frames, so that the file stands where they are.
        frame = self._unframer.current_frame
        if size < LARGE or (frame is not None and frame.tell() < len(frame.getbuffer())):
            self.append(self.read(size))
            return
        size.path, size.offset = Path(self._file.name), self._file.tell()
        if size.offset + size > os.fstat(self._file.fileno()).st_size:
            raise EOFError("it ends before its numbers do")
        self._file.seek(size, os.SEEK_CUR)
        self.append(size)

    dispatch[pickle.BUILD[0]] = _set_state
    dispatch[pickle.BINBYTES[0]] = lambda self: self._leave_bytes(4)
    dispatch[pickle.BINBYTES8[0]] = lambda self: self._leave_bytes(8)
    dispatch[pickle.BYTEARRAY8[0]] = lambda self: self._leave_bytes(8)


@contextlib.contextmanager
def _one_clear_error(path: Path) -> Iterator[None]:
    """Turn whatever another kind of file or a damaged one may cause into one error."""
    try:
        with open(path, "rb") as file:
            start = file.read(512)
        for kind, pattern in OTHER_FILES.items():
            if re.match(pattern, start):
                raise DatasetError(f"{path.name} is {kind}. {AGAIN}")
        yield
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from None
    except Exception as error:  # a damaged pickle may raise anything
        asked = re.search(r"(?i:unsupported) (?:global: )?(?:GLOBAL|class) ([\w.]+)", str(error))
        if asked:
            raise DatasetError(
                f"{path.name} asks for {asked[1]} to be run when it is opened. A data file has no "
                "need of that, and nothing was run. Do not open this file with other programs; get "
                "it from the data set's own page."
            ) from None
        words = "" if isinstance(error, pickle.UnpicklingError) else f": {error}"[:300]
        raise DatasetError(f"{path.name} is damaged or another file{words}. {AGAIN}") from None
