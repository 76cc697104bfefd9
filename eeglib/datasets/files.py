"""Read downloaded ``.pth`` and pickled ``.npy`` files without running what is in them (chapter 1).

Pickles name functions to be called: only the few that arrays need are known here.
"""

import contextlib
import os
import pickle
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from eeglib.datasets import DatasetError

LARGE = 2**16  # bytes from which on an array stays in its file

OTHER_FILES = {
    "an HTML page": rb"(?i)\s*<(!doctype )?html",
    "a pointer of Git LFS, not the data": rb"version https://git-lfs",
    "empty": rb"$",
    "damaged or another file": rb"",
}


def load_torch(path: Path) -> Any:
    """Read a file that ``torch.save`` wrote; one in the zip form is mapped into memory."""
    import torch

    core = np._core.multiarray
    allowed = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in "fdil?hqUO")]
    for function, name in ((core._reconstruct, "_reconstruct"), (core.scalar, "scalar")):
        allowed += [(function, f"numpy.{place}.multiarray.{name}") for place in ("core", "_core")]
    with _one_error(path), torch.serialization.safe_globals(allowed):
        return torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def load_numpy(path: Path) -> Any:
    """Read an object that ``np.save`` or ``pickle.dump`` wrote; large arrays stay in the file."""
    with _one_error(path), open(path, "rb") as file:
        if file.read(6) == b"\x93NUMPY":
            file.seek(8)
            np.lib.format.read_array_header_1_0(file)
        else:
            file.seek(0)
        content = _ArrayUnpickler(file).load()
        return content.item() if isinstance(content, np.ndarray) else content


def _array(shape: tuple, dtype: np.dtype, fortran: bool, content: Any) -> np.ndarray:
    if dtype.hasobject:
        array = np.empty(len(content), object)
        array[:] = content
    else:
        content = content.encode("latin1") if isinstance(content, str) else content
        array = np.frombuffer(content, dtype)
    return array.reshape(shape, order="F" if fortran else "C")


# What NumPy puts behind these names trusts its arguments, so that a stand-in takes its place.
_NAMES = {
    "numpy.ndarray": None,
    "numpy.dtype": lambda name, *_: np.dtype(str(name)),
    "numpy.core.multiarray._reconstruct": lambda *_: np.empty(0),
    "numpy.core.multiarray.scalar": lambda dtype, raw: _array((1,), dtype, False, raw)[0],
    "numpy.core.numeric._frombuffer": lambda raw, dtype, shape, order: _array(
        shape, dtype, order == "F", raw
    ),
    "_codecs.encode": lambda text, _: text.encode("latin1"),
}


# Python's own unpickler, because the one in C cannot leave bytes in the file.
class _ArrayUnpickler(pickle._Unpickler):
    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="latin1")
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        key = f"{module.replace('numpy._core', 'numpy.core')}.{name}"
        if key not in _NAMES:
            raise pickle.UnpicklingError(f"unsupported GLOBAL {module}.{name}")
        return _NAMES[key]

    def _set_state(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, np.ndarray):
            array = self.stack[-1] = _array(*state[1:])
            self.memo.update({key: array for key, value in self.memo.items() if value is target})
        elif not isinstance(target, np.dtype) or state[1] == ">":
            raise ValueError("it changes an object that is no array, or is big-endian")

    def _leave_bytes(self, width: int) -> None:
        size = int.from_bytes(self.read(width), "little")
        # Writers put large byte strings outside the frames, so that the file stands where they are.
        frame = self._unframer.current_frame
        if size < LARGE or (frame is not None and frame.tell() < len(frame.getbuffer())):
            self.append(self.read(size))
            return
        start = self._file.tell()
        self.append(np.memmap(self._file, np.uint8, "r", start, (size,)))
        self._file.seek(start + size)

    dispatch[pickle.BUILD[0]] = _set_state
    dispatch[pickle.BINBYTES[0]] = lambda self: self._leave_bytes(4)
    dispatch[pickle.BINBYTES8[0]] = lambda self: self._leave_bytes(8)
    dispatch[pickle.BYTEARRAY8[0]] = lambda self: self._leave_bytes(8)


@contextlib.contextmanager
def _one_error(path: Path) -> Iterator[None]:
    """Turn whatever another kind of file or a damaged one may cause into one error."""
    try:
        with open(path, "rb") as file:
            start = file.read(512)
        yield
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from None
    except Exception as error:  # a damaged pickle may raise anything
        asked = re.search(r"(?i:unsupported) (?:global: )?(?:GLOBAL|class) ([\w.]+)", str(error))
        if asked:
            text = f"{path.name} asks for {asked[1]} to be run when it is opened. Data need no such"
            how = "Open it with no other program; get it from its page."
            raise DatasetError(f"{text} thing, and nothing was run. {how}") from None
        kind = next(kind for kind, pattern in OTHER_FILES.items() if re.match(pattern, start))
        text = f"{path.name} is {kind} ({str(error)[:200]}). Is it the file you meant?"
        raise DatasetError(f"{text} If so, download it again.") from None


@contextlib.contextmanager
def structure(path: Path, allowed: str) -> Iterator[None]:
    """Turn whatever a file of another structure causes into one error, with what is allowed."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        text = f"{path.name} does not have the structure of this data set: {type(error).__name__}"
        how = "Check that it is the file that the data set's page names."
        raise DatasetError(f"{text} {error}; allowed: {allowed}. {how}") from None


def cannot_write(folder: Path, error: OSError) -> DatasetError:
    text = f"{folder} cannot be written to: {error.strerror or error}. Free some space, get the"
    return DatasetError(f"{text} permission, or choose another folder.")


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write that gets its name when it is complete; it is hidden until then."""
    hidden, parent = f".{target.name.lstrip('.')}-", target.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory("", hidden, parent, ignore_cleanup_errors=True) as folder:
            partial = Path(folder) / target.name
            partial.mkdir()
            yield partial
            partial.rename(target)
    except OSError as error:
        if not target.is_dir():  # else another process was quicker
            raise cannot_write(parent, error) from None
    for left in target.parent.glob(f"{hidden}*"):  # by one that was killed
        shutil.rmtree(left, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a small file whole, unless it holds this text already."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
