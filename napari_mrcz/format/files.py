"""Reading bytes of a file from many threads at once, the file open only while it is needed.

`.gz` and `.bz2` are unpacked once into a temporary file that lives as long as the reader.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import mmap
import os
import shutil
import tempfile
import threading
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError
from napari_mrcz.format.header import HEADER_NBYTES
from napari_mrcz.format.header_reading import parse_header

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RandomAccessFile", "open_file"]

_UNPACK_STEP = 2**20


class _Descriptor:
    """An open file that closes when the last thread using it lets go."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class RandomAccessFile:
    """A file that is read at any place, from any thread, and reopened when it was closed.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    MrczError
        If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._descriptor: _Descriptor | None = None
        self._map: mmap.mmap | None = None
        # Length and time of change, by which a file that was replaced meanwhile is told.
        self._identity: tuple[int, int] | None = None
        self._use()

    @property
    def nbytes(self) -> int:
        """Length of the file in bytes, when it was first opened."""
        return self._identity[0] if self._identity else 0

    def read(self, offset: int, nbytes: int) -> bytes:
        """Read `nbytes` at `offset`, or fewer where the file ends."""
        buffer = bytearray(max(0, min(nbytes, self.nbytes - offset)))
        return bytes(buffer[: self.read_into(offset, memoryview(buffer))])

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset` on; give how many bytes there were."""
        descriptor = self._use()
        done = 0
        try:
            while done < len(buffer):
                if hasattr(os, "preadv"):
                    got = os.preadv(descriptor.number, [buffer[done:]], offset + done)
                else:
                    with self._lock:
                        os.lseek(descriptor.number, offset + done, os.SEEK_SET)
                        piece = os.read(descriptor.number, len(buffer) - done)
                    got = len(piece)
                    buffer[done : done + got] = piece
                if not got:
                    break
                done += got
        except OSError as error:
            found = f"cannot be read: {error.strerror}"
            raise MrczError(self.path, found, offset=offset) from error
        return done

    def array(self, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Give a read-only array over the memory-mapped file."""
        descriptor = self._use()
        with self._lock:
            if self._map is None:
                self._map = mmap.mmap(descriptor.number, 0, access=mmap.ACCESS_READ)
            mapped = self._map
        count = int(np.prod(shape, dtype=np.int64))
        if os.fstat(descriptor.number).st_size < offset + count * dtype.itemsize:
            # Touching pages that are gone would kill the process.
            raise MrczError(self.path, "the file became shorter while it was open", offset=offset)
        return np.frombuffer(mapped, dtype, count, offset).reshape(shape)

    def close(self) -> None:
        """Let the file go; the next read opens it again."""
        with self._lock:
            self._descriptor = None
            self._map = None

    def _use(self) -> _Descriptor:
        with self._lock:
            if self._descriptor is None:
                self._descriptor = self._open()
            return self._descriptor

    def _open(self) -> _Descriptor:
        try:
            descriptor = _Descriptor(self.path)
            status = os.fstat(descriptor.number)
        except OSError as error:
            hint = "Check the name and the folder" if isinstance(error, FileNotFoundError) else ""
            found = f"cannot be opened: {error.strerror}"
            raise MrczError(self.path, found, advice=hint) from error
        identity = (status.st_size, status.st_mtime_ns)
        if self._identity is not None and identity != self._identity:
            raise MrczError(
                self.path,
                "the file was changed by another program since it was first opened",
                advice="Open it again",
            )
        self._identity = identity
        return descriptor


class _UnpackedFile(RandomAccessFile):
    """A `.gz` or `.bz2` file, unpacked into a temporary file while it is in use."""

    def __init__(self, path: Path) -> None:
        self._temporary: Path | None = None
        self._packed = path
        super().__init__(path)

    def close(self) -> None:
        super().close()
        with self._lock:
            self._remove()

    def __del__(self) -> None:
        self._remove()

    def _remove(self) -> None:
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink()
            self._temporary = None

    def _open(self) -> _Descriptor:
        if self._temporary is None:
            self._temporary = self._unpack()
            self._identity = None
        self.path = self._temporary
        try:
            return super()._open()
        finally:
            self.path = self._packed

    def _unpack(self) -> Path:
        number, name = tempfile.mkstemp(prefix="napari-mrcz-", suffix=self._packed.suffix)
        try:
            with os.fdopen(number, "wb") as target:
                for piece in _unpacked(self._packed):
                    target.write(piece)
        except (OSError, EOFError, zlib.error) as error:
            Path(name).unlink()
            raise MrczError(
                self._packed,
                f"cannot be unpacked: {error}",
                advice="The archive is truncated or damaged",
            ) from error
        except BaseException:
            Path(name).unlink()
            raise
        return Path(name)


def _unpacked(path: Path) -> Iterator[bytes]:
    """Give a packed file's content piece by piece, no more of it than its own header announces."""
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else bz2.open
    packed: IO[bytes]
    with opener(path, "rb") as packed:
        head = packed.read(HEADER_NBYTES)
        header = parse_header(head, path, 2**62)
        if not header.codec and header.nz * header.frame_nbytes > _free_nbytes():
            raise MrczError(
                path,
                f"unpacked it would take {header.nz * header.frame_nbytes / 1e9:.1f} GB, more than "
                f"is free in {tempfile.gettempdir()}",
                advice="Make room there, or set TMPDIR to a larger disk",
            )
        yield head
        # A footer may follow the pixels; anything longer than them was made to fill the disk.
        left = header.nsymbt + 2 * header.nz * header.frame_nbytes + 2**26
        while piece := packed.read(_UNPACK_STEP):
            yield piece
            left -= len(piece)
            if left < 0:
                raise EOFError("it holds far more than its header announces")


def _free_nbytes() -> int:
    return shutil.disk_usage(tempfile.gettempdir()).free


def open_file(path: str | os.PathLike[str]) -> RandomAccessFile:
    """Open a file for reading at any place, unpacking `.gz` and `.bz2`."""
    path = Path(path)
    if path.is_dir():
        raise MrczError(path, "is a folder, where a file is expected")
    packed = path.suffix.lower() in (".gz", ".bz2")
    return _UnpackedFile(path) if packed else RandomAccessFile(path)
