"""Reading bytes of a file from many threads at once, the file open only while it is needed.

`.gz` and `.bz2` are unpacked once into a temporary file that lives as long as the reader.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import os
import shutil
import stat
import tempfile
import threading
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError
from napari_mrcz.format.header import HEADER_NBYTES
from napari_mrcz.format.header_reading import parse_header
from napari_mrcz.suffixes import PACKED_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RandomAccessFile", "open_file"]

_UNPACK_STEP = 2**20
_MOST_AT_ONCE = 2**30
_LARGEST_SURPLUS = 2**26

_Identity = tuple[int, int]


class _Descriptor:
    """An open file that closes when the last thread using it lets go."""

    def __init__(self, path: Path) -> None:
        # Without waiting for someone to write to it, should it be a pipe.
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
        self.number = os.open(path, flags)

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
        # Length and time of change, by which a file that was replaced meanwhile is told.
        self._identity: _Identity | None = None
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
                    # macOS refuses more than 2 GB at once.
                    piece = buffer[done : done + _MOST_AT_ONCE]
                    got = os.preadv(descriptor.number, [piece], offset + done)
                else:
                    with self._lock:
                        os.lseek(descriptor.number, offset + done, os.SEEK_SET)
                        data = os.read(descriptor.number, len(buffer) - done)
                    got = len(data)
                    buffer[done : done + got] = data
                if not got:
                    break
                done += got
        except OSError as error:
            found = f"cannot be read: {error.strerror}"
            raise MrczError(self.path, found, offset=offset) from error
        return done

    def close(self) -> None:
        """Let the file go; the next read opens it again."""
        with self._lock:
            self._descriptor = None

    def _use(self) -> _Descriptor:
        with self._lock:
            if self._descriptor is None:
                self._descriptor = self._open()
            return self._descriptor

    def _open(self) -> _Descriptor:
        try:
            descriptor = _Descriptor(self.path)
            identity = _identity(os.fstat(descriptor.number))
        except OSError as error:
            raise _cannot_be_opened(self.path, error) from error
        if self._identity not in (None, identity):
            raise _changed(self.path)
        self._identity = identity
        return descriptor


class _UnpackedFile(RandomAccessFile):
    """A `.gz` or `.bz2` file, unpacked into a temporary file while it is in use."""

    def __init__(self, path: Path) -> None:
        self._temporary: Path | None = None
        self._nbytes = 0
        super().__init__(path)

    @property
    def nbytes(self) -> int:
        """Length of what is packed."""
        return self._nbytes

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
        super()._open()  # looks whether it is still the same
        self._temporary = self._unpack()
        descriptor = _Descriptor(self._temporary)
        self._nbytes = os.fstat(descriptor.number).st_size
        if os.name != "nt":
            # Open, it needs no name, and without one it is not left behind by a crash.
            self._remove()
        return descriptor

    def _unpack(self) -> Path:
        number, name = tempfile.mkstemp(prefix="napari-mrcz-", suffix=self.path.suffix)
        try:
            with os.fdopen(number, "wb") as target:
                for piece in _unpacked(self.path):
                    target.write(piece)
        except (OSError, EOFError, zlib.error) as error:
            Path(name).unlink()
            raise MrczError(
                self.path,
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
        left = 2 * header.nz * header.frame_nbytes
        if header.codec:
            left = min(left, 4 * path.stat().st_size)  # blosc's chunks hardly compress again
        left += _LARGEST_SURPLUS
        while piece := packed.read(_UNPACK_STEP):
            yield piece
            left -= len(piece)
            if left < 0:
                raise EOFError("it holds far more than its header announces")


def _free_nbytes() -> int:
    return shutil.disk_usage(tempfile.gettempdir()).free


def open_file(path: str | os.PathLike[str]) -> RandomAccessFile:
    """Open a file for reading at any place, unpacking `.gz` and `.bz2`.

    Raises
    ------
    MrczError
        If it cannot be opened, or is a folder, a pipe or a device.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _cannot_be_opened(path, error) from error
    except ValueError as error:
        raise MrczError(path, f"is no name of a file: {error}") from error
    if stat.S_ISDIR(mode) and not os.access(path, os.R_OK | os.X_OK):
        raise MrczError(path, "is a folder that may not be read", advice="Ask for the right to")
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
        raise MrczError(path, f"is {kind}, where a file is expected")
    packed = path.suffix.lower() in PACKED_SUFFIXES
    return _UnpackedFile(path) if packed else RandomAccessFile(path)


def _cannot_be_opened(path: Path, error: OSError) -> MrczError:
    hint = "Check the name and the folder" if isinstance(error, FileNotFoundError) else ""
    return MrczError(path, f"cannot be opened: {error.strerror}", advice=hint)


def _identity(status: os.stat_result) -> _Identity:
    return status.st_size, status.st_mtime_ns


def _changed(path: Path) -> MrczError:
    return MrczError(
        path,
        "the file was changed by another program since it was first opened",
        advice="Open it again",
    )
