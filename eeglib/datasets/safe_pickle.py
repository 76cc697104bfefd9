"""Run a pickle in an interpreter that knows a dozen harmless stand-ins and nothing else.

A pickle is a program: it may name any function of the machine and call it. Here a name that is not
in `ALLOWED` ends the reading, and what the allowed names stand for is defined in this module. Large
byte strings are not read: arrays come as `FileArray`, which knows where in the file they lie.
`eeglib.datasets.safe_files` reads the formats of chapter 1 with it.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from eeglib.datasets import DatasetError

LARGE = 2**16
"""Byte strings from this size on stay in the file."""

LIMIT = 2**27
"""No single piece of a pickle that must be in memory may be larger, bytes."""

STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""Torch's names of the number types, and NumPy's."""


class UnsafeFileError(DatasetError):
    """A file that asks for a function to be run; it was not."""


@dataclass
class Span:
    """Bytes of a file that were not read: from ``offset``, ``size`` of them."""

    path: Path
    offset: int
    size: int


@dataclass(eq=False)
class FileArray:
    """An array that is still in its file.

    Attributes
    ----------
    span : Span
        Where the numbers lie.
    dtype : np.dtype
    start : int
        Elements of ``span`` before the first one.
    shape, strides : tuple of int
        Strides in elements.
    """

    span: Span
    dtype: np.dtype
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the numbers, bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def check(self) -> None:
        """Raise `DatasetError` if the numbers do not lie where the file says."""
        last = self.start + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        outside = (last + 1) * self.dtype.itemsize > self.span.size and math.prod(self.shape) > 0
        if self.start < 0 or min((*self.strides, 0)) < 0 or min((*self.shape, 0)) < 0 or outside:
            raise damaged(self.span.path, f"an array of shape {self.shape} lies outside its bytes")
        if self.nbytes > self.span.size:
            raise damaged(self.span.path, f"an array of shape {self.shape} overlaps itself")

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Read the numbers, or those from ``start`` to before ``stop`` along the first axis."""
        self.check()
        shape, first, strides = self.shape, self.start, self.strides
        if shape:
            start, stop, _ = slice(start, stop).indices(shape[0])
            shape, first = (max(0, stop - start), *shape[1:]), first + start * strides[0]
        if not math.prod(shape):
            return np.empty(shape, self.dtype)
        count = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        offset = self.span.offset + first * self.dtype.itemsize
        flat = np.fromfile(self.span.path, self.dtype, count, offset=offset)
        if len(flat) < count:
            raise damaged(self.span.path, "it ends before its numbers do")
        in_bytes = tuple(s * self.dtype.itemsize for s in strides)
        return np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, shape, in_bytes))


@dataclass
class StorageKind:
    code: str

    def dtype(self, little: bool) -> np.dtype:
        return np.dtype(self.code).newbyteorder("<" if little else ">")


@dataclass(eq=False)
class Storage:
    span: Span
    dtype: np.dtype


class _Dtype:
    def __init__(self, name: str, *_: Any):
        self.dtype = np.dtype(str(name))
        if self.dtype.fields or self.dtype.subdtype:
            raise ValueError("it holds an array of records")

    def __setstate__(self, state: tuple) -> None:
        if state[1] in "<>":
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """What NumPy's ``_reconstruct`` makes, before and after its state is known."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, raw = state
        self.value = _array(tuple(shape), kind.dtype, bool(fortran), raw)


@dataclass
class _ObjectArray:
    shape: tuple[int, ...]
    items: list


def _array(shape: tuple[int, ...], dtype: np.dtype, fortran: bool, raw: Any) -> Any:
    if dtype.hasobject:
        return _ObjectArray(shape, list(raw))
    count = math.prod(shape)
    steps = np.cumprod((1, *(shape if fortran else shape[::-1])))[:-1].tolist()
    strides = tuple(steps if fortran else steps[::-1])
    if isinstance(raw, Span):
        array = FileArray(raw, dtype, 0, shape, strides)
        array.check()
        return array
    raw = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
    if len(raw) != count * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} has {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(raw: Any, kind: _Dtype, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.value = _array(tuple(shape), kind.dtype, order == "F", raw)
    return array


def _scalar(kind: _Dtype, raw: Any) -> Any:
    return _array((), kind.dtype, False, raw).item()


def _rebuild_tensor(
    storage: Storage, start: int, shape: tuple, strides: tuple, *_: Any
) -> FileArray:
    return FileArray(storage.span, storage.dtype, int(start), tuple(shape), tuple(strides))


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


def _ordered(*items: Any) -> OrderedDict:
    return OrderedDict(*items)


ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _ordered,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Dtype,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch", "Size"): tuple,
    **{("torch", name): StorageKind(code) for name, code in STORAGES.items()},
}
"""The names that a file may use, and what stands in for each."""

for _core in ("numpy.core", "numpy._core"):
    ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    ALLOWED[f"{_core}.numeric", "_frombuffer"] = _frombuffer


class _BoundedFile:
    """A file that refuses to hand out more than `LIMIT` bytes at a time."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LIMIT:
            raise ValueError(f"it asks for {size} bytes at once")
        return self._file.read(size)

    def readline(self) -> bytes:
        return self._file.readline(LIMIT)


# The pure-Python unpickler of the standard library, because the fast one cannot leave bytes in
# the file; joblib builds on it for the same reason.
class _SafeUnpickler(pickle._Unpickler):
    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO, path: Path, persistent_load: Callable | None):
        super().__init__(_BoundedFile(file), encoding="latin1")
        self._source, self._path, self._persistent = file, path, persistent_load
        self._allowed_ids = {id(value) for value in ALLOWED.values() if callable(value)}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            if module == "torch" and name.endswith("Storage"):
                raise DatasetError(
                    f"{self._path.name} holds numbers of the kind {name}; allowed: "
                    f"{', '.join(STORAGES)}. Convert them and save the file again."
                ) from None
            raise _unsafe(self._path, f"{module}.{name}") from None

    def persistent_load(self, reference: Any) -> Any:
        if self._persistent is None:
            raise ValueError("it refers to data outside its pickle")
        return self._persistent(reference)

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if id(function) not in self._allowed_ids:
            raise _unsafe(self._path, repr(function))
        self.stack[-1] = function(*arguments)

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Array, _Dtype)):
            raise _unsafe(self._path, "a change to an object")
        self.stack[-1].__setstate__(state)

    def _refuse(self) -> None:
        raise _unsafe(self._path, "an object of a class of its own")

    def _bytes(self, size: int) -> Any:
        if size < LARGE or self._source is None or isinstance(self._source, io.BytesIO):
            return self.read(size)
        # Writers put large byte strings outside the frames, so that the file stands where they are.
        frame = self._unframer.current_frame
        if frame is not None and frame.tell() < frame.getbuffer().nbytes:
            return self.read(size)
        span = Span(self._path, self._source.tell(), size)
        if span.offset + size > self._path.stat().st_size:
            raise EOFError("it ends before its numbers do")
        self._source.seek(size, io.SEEK_CUR)
        return span

    def _bytes4(self) -> None:
        self.append(self._bytes(struct.unpack("<I", self.read(4))[0]))

    def _bytes8(self) -> None:
        self.append(self._bytes(struct.unpack("<Q", self.read(8))[0]))

    dispatch[pickle.BINBYTES[0]] = _bytes4
    dispatch[pickle.BINBYTES8[0]] = _bytes8
    dispatch[pickle.BYTEARRAY8[0]] = _bytes8
    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.BUILD[0]] = _build
    for _code in (
        pickle.INST,
        pickle.OBJ,
        pickle.NEWOBJ,
        pickle.NEWOBJ_EX,
        pickle.EXT1,
        pickle.EXT2,
        pickle.EXT4,
        pickle.NEXT_BUFFER,
        pickle.READONLY_BUFFER,
    ):
        dispatch[_code[0]] = _refuse


def load(file: BinaryIO, path: Path, persistent_load: Callable | None = None) -> Any:
    """Run the pickle that begins where ``file`` stands; `unwrap` makes its result usable.

    Parameters
    ----------
    file : binary file
    path : Path
        Where byte strings that are left in the file are found again.
    persistent_load : callable | None
        Resolves references to data outside the pickle.
    """
    return _SafeUnpickler(file, path, persistent_load).load()


def unwrap(content: Any, depth: int = 0) -> Any:
    """Put arrays in the place of their stand-ins, in dicts, lists and tuples."""
    if depth > 20:
        raise ValueError("it is nested too deeply")
    if isinstance(content, _Array):
        content = content.value
    if isinstance(content, _ObjectArray):
        content = content.items if content.shape else content.items[0]
        return unwrap(content, depth + 1)
    if isinstance(content, dict):
        return {key: unwrap(value, depth + 1) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(unwrap(item, depth + 1) for item in content)
    return content


AGAIN = "Download it again, or check that it is the file you meant."


def damaged(path: Path, what: str) -> DatasetError:
    """Error for a file that is not what it should be."""
    return DatasetError(f"{path.name} is damaged: {what}. {AGAIN}")


def _unsafe(path: Path, what: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"{path.name} asks for {what} to be run when it is opened. A data file has no need of "
        "that, and nothing was run. Do not open this file with other programs; get it from the "
        "data set's own page."
    )
