"""Reading bytes of a file from many threads at once, the file open only while it is needed.

A file is on this machine or, read by `remote`, at a URL. What is packed with gzip or bzip2,
whatever its suffix, is unpacked into a temporary file that lives as long as the reader: no more of
it than was asked for.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import io
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
import zlib
from copy import copy
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from napari_mrcz.errors import AnyPath, MrczError, NotEnoughMemory, is_out_of_memory, size_text
from napari_mrcz.format.header import HEADER_NBYTES, parse_header
from napari_mrcz.format.machine import go_on_if_wanted
from napari_mrcz.naming import RemotePath, path_of

if TYPE_CHECKING:
    from collections.abc import Callable

# By their first bytes; no MRC file is so large that it begins so.
_GZIP = b"\x1f\x8b\x08"
_BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
_MAGIC_NBYTES = 10
_UNPACK_STEP = 2**20
_MOST_AT_ONCE = 2**30
_LARGEST_SURPLUS = 2**26
# Of other formats than MRC, whose headers are not known here; gzip reaches 1032.
_MOST_EXPANDED = 1000
# Pixels hardly ever pack as well as this.
_MOST_PACKED = 20
# Unpacking leaves so much of the disk free for others, or a part of it if the disk is small.
_STAYS_FREE = 2**30
_PART_THAT_STAYS_FREE = 20
_CHECK_STEP = 2**26
_MORE_ROOM = "Make room there, or set TMPDIR to a larger disk"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Of what is read ahead of need: it is dropped between two pieces if something else is asked for.
_PIECE = 2**20


class _Descriptor:
    """An open file that closes when no thread uses it any more."""

    def __init__(self, path: Path) -> None:
        # Without waiting for someone to write to it, should it be a pipe.
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
        self.number = os.open(path, flags)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class RandomAccessFile:
    """A file that is read at any place, from any thread, and reopened when it was closed.

    `path`: the file. Raise `MrczError` if it cannot be opened.
    """

    is_packed = False
    piece_nbytes = _PIECE
    """Most bytes that are worth asking for at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._descriptor: _Descriptor | None = None
        # Length and time of change, which show whether the file was replaced meanwhile.
        self._identity: tuple[int, int] | None = None
        self._use()

    @property
    def nbytes(self) -> int:
        """Length of the file in bytes, when it was first opened."""
        return self._identity[0] if self._identity else 0

    def read(self, offset: int, nbytes: int) -> bytes:
        """Read `nbytes` at `offset`, or fewer where the file ends."""
        buffer = bytearray(max(0, min(nbytes, self._end(offset + nbytes) - offset)))
        return bytes(buffer[: self.read_into(offset, memoryview(buffer))])

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset` on; return how many bytes there were."""
        go_on_if_wanted()  # before a file that was closed meanwhile is opened again
        descriptor = self._use(offset + len(buffer))
        done = 0
        try:
            while done < len(buffer):
                in_pieces = go_on_if_wanted()
                if hasattr(os, "preadv"):
                    # macOS refuses more than 2 GB at once.
                    piece = buffer[done : done + (_PIECE if in_pieces else _MOST_AT_ONCE)]
                    got = os.preadv(descriptor.number, [piece], offset + done)
                else:
                    with self._lock:  # no longer than another thread's frame can wait for it
                        os.lseek(descriptor.number, offset + done, os.SEEK_SET)
                        data = os.read(descriptor.number, min(_PIECE, len(buffer) - done))
                    got = len(data)
                    buffer[done : done + got] = data
                if not got:
                    break
                done += got
        except OSError as error:
            if is_out_of_memory(error):
                raise NotEnoughMemory(self.path, "reading", offset=offset) from error
            found = f"cannot be read: {error.strerror}"
            raise MrczError(self.path, found, offset=offset) from error
        return done

    def stream(self) -> io.BufferedReader:
        """Return the file as one that is read and sought in, for the readers of other libraries.

        It is closed with this file, and opens it again when it is read.
        """
        return io.BufferedReader(_Stream(self))

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        with self._lock:
            self._descriptor = None

    def _use(self, end: int = 0) -> _Descriptor:
        """Return the descriptor from which all bytes up to `end` can be read."""
        with self._lock:
            if self._descriptor is None:
                self._descriptor = self._open()
            return self._descriptor

    def _end(self, wanted: int) -> int:
        """Return the length of the file, or anything beyond `wanted` if it is not known yet."""
        return self.nbytes

    def _open(self) -> _Descriptor:
        try:
            descriptor = _Descriptor(self.path)
            status = os.fstat(descriptor.number)
        except OSError as error:
            raise _cannot_be_opened(self.path, error) from error
        identity = status.st_size, status.st_mtime_ns
        if self._identity not in (None, identity):
            del descriptor  # which the error's traceback would keep open
            found = "the file was changed by another program since it was first opened"
            raise MrczError(self.path, found, advice="Open it again")
        self._identity = identity
        return descriptor


class _Stream(io.RawIOBase):
    """A position in a file that is read at any place."""

    def __init__(self, file: RandomAccessFile) -> None:
        self.name = str(file.path)
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        got = self._file.read_into(self._position, view)
        self._position += got
        return got

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        position = (self._file.nbytes if start is None else start) + offset
        if position < 0:
            raise OSError(errno.EINVAL, "a place before the file's first byte")
        self._position = position
        return position

    def tell(self) -> int:
        return self._position


class _RemoteFile(RandomAccessFile):
    """A file at a URL; it is asked for as much at once as is wanted."""

    piece_nbytes = sys.maxsize

    def __init__(self, path: Path) -> None:
        from napari_mrcz.format.remote import RemoteBytes  # few files need it

        self.path = path
        self._bytes = RemoteBytes(str(path))

    @property
    def nbytes(self) -> int:
        """Length of the file in bytes, when it was first opened."""
        return self._bytes.nbytes

    def read_into(self, offset: int, buffer: memoryview) -> int:
        go_on_if_wanted()
        return self._bytes.read_into(offset, buffer)

    def close(self) -> None:
        pass  # connections are fsspec's


class _UnpackedFile(RandomAccessFile):
    """A packed file, unpacked into a temporary file while it is in use, as far as it is read."""

    is_packed = True

    def __init__(self, path: Path, opener: Callable[..., IO[bytes]]) -> None:
        self._opener = opener
        self._unpacking: _Unpacking | None = None
        super().__init__(path)

    @property
    def nbytes(self) -> int:
        """Length of what is packed: all of it is unpacked to learn it."""
        self._use(sys.maxsize)
        return self._end(0)

    def close(self) -> None:
        super().close()
        with self._lock:
            self._unpacking = None

    def _use(self, end: int = 0) -> _Descriptor:
        with self._lock:
            if self._unpacking is None:
                self._open()  # looks whether it is still the same
                self._unpacking = _Unpacking(self.path, self._opener)
            self._unpacking.go_on(end)
            return self._unpacking.content

    def _end(self, wanted: int) -> int:
        self._use(wanted)
        unpacking = self._unpacking
        return 0 if unpacking is None else unpacking.nbytes


class _Unpacking:
    """The content of a packed file in a temporary file, as far as it was needed yet."""

    def __init__(self, path: Path, opener: Callable[..., IO[bytes]]) -> None:
        self._path = path
        self._temporary: Path | None = None
        self._error: MrczError | None = None
        self.nbytes = 0
        self._packed: IO[bytes] | None = opener(path, "rb")
        self._most: int | None = None  # bytes that there may be
        self._next_check = 0  # of the room on the disk
        number, name = tempfile.mkstemp(prefix="napari-mrcz-")
        self._target = os.fdopen(number, "wb", buffering=0)
        self._temporary = Path(name)
        self.content = _Descriptor(self._temporary)
        if os.name != "nt":
            # Open, it needs no name, and without one it is not left behind by a crash.
            self._remove()

    def go_on(self, end: int) -> None:
        """Unpack up to `end`, or all there is.

        Raise `MrczError` if it is damaged, unpacks to far more than it can be, or would fill the
        disk; then again whenever it is called.
        """
        if self._error is not None:
            raise copy(self._error)
        try:
            while self._packed is not None and self.nbytes < end:
                wanted = max(HEADER_NBYTES, min(_UNPACK_STEP, end - self.nbytes))
                piece = self._packed.read(wanted)
                if not piece:
                    self._end()
                    break
                self._check(piece)
                self._target.write(piece)
                self.nbytes += len(piece)
        except MrczError as error:
            self._error = error.with_traceback(None)
        except (OSError, EOFError, zlib.error) as error:
            if is_out_of_memory(error):
                raise NotEnoughMemory(self._path, "unpacking it") from error
            why, advice = str(error), "The archive is truncated or damaged"
            if isinstance(error, OSError) and error.errno in _FULL:
                why, advice = f"{error.strerror} in {tempfile.gettempdir()}", _MORE_ROOM
            self._error = MrczError(self._path, f"cannot be unpacked: {why}", advice=advice)
        if self._error is not None:
            self._end()
            raise copy(self._error)  # not what is kept: its traceback would keep the file open

    def _check(self, piece: bytes) -> None:
        """Raise `MrczError` if the next piece fills the disk, or is more than there can be."""
        if self._most is None:
            self._most = self._expected(piece)
        if self.nbytes + len(piece) > self._most:
            found = f"unpacked it is more than {size_text(self._most)}"
            advice = "It was damaged, or made to fill the disk"
            raise MrczError(self._path, f"{found}, far more than such a file has", advice=advice)
        if self.nbytes + len(piece) >= self._next_check:
            self._check_room(0)
            self._next_check += _CHECK_STEP

    def _expected(self, head: bytes) -> int:
        """Return how many bytes there may be, by the header, and check that there is room."""
        packed_nbytes = self._path.stat().st_size
        any_other = packed_nbytes * _MOST_EXPANDED + _LARGEST_SURPLUS
        if head[208:212] != b"MAP ":
            return any_other  # numbers of other formats could be taken for those of a header
        try:
            header = parse_header(head[:HEADER_NBYTES], self._path)
        except MrczError:
            return any_other
        pixels = max(0, header.nz) * header.frame_nbytes
        if header.codec:
            # blosc's chunks hardly compress again.
            return 4 * packed_nbytes + _LARGEST_SURPLUS
        self._check_room(pixels)
        # A footer may follow the pixels, and NZ may be too small; anything far longer than them
        # was made to fill the disk.
        return max(2 * pixels, _MOST_PACKED * packed_nbytes) + _LARGEST_SURPLUS

    def _check_room(self, nbytes: int) -> None:
        usage = shutil.disk_usage(tempfile.gettempdir())
        free = max(0, usage.free - min(_STAYS_FREE, usage.total // _PART_THAT_STAYS_FREE))
        if nbytes > free or not free:
            takes = f"{size_text(nbytes)}, and {size_text(free)} are" if nbytes else "more than is"
            found = f"unpacked it takes {takes} free in {tempfile.gettempdir()}"
            raise MrczError(self._path, found, advice=_MORE_ROOM)

    def _end(self) -> None:
        """Close what is no longer needed."""
        if self._packed is not None:
            self._packed.close()
            self._packed = None
        self._target.close()

    def _remove(self) -> None:
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink()
            self._temporary = None

    def __del__(self) -> None:
        if hasattr(self, "_target"):
            self._end()
        if hasattr(self, "content"):
            del self.content  # where an open file cannot be removed
        self._remove()


def open_file(path: AnyPath) -> RandomAccessFile:
    """Open a file for reading at any place, unpacking what gzip or bzip2 packed.

    Raise `MrczError` if it cannot be opened, or is a folder, a pipe or a device.
    """
    path = path_of(path)
    if isinstance(path, RemotePath):
        remote = _RemoteFile(path)
        if _is_packed(remote.read(0, _MAGIC_NBYTES)):
            found = "is packed: no frame can be read without those before it"
            raise MrczError(path, found, advice="Copy the file here first")
        return remote
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _cannot_be_opened(path, error) from error
    except ValueError as error:
        raise MrczError(path, f"is not a file name: {error}") from error
    if stat.S_ISDIR(mode) and not os.access(path, os.R_OK | os.X_OK):
        raise MrczError(path, "is a folder that may not be read", advice="Ask for the right to")
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
        raise MrczError(path, f"is {kind}, where a file is expected")
    file = RandomAccessFile(path)
    magic = file.read(0, _MAGIC_NBYTES)
    if not _is_packed(magic):
        return file
    file.close()
    opener: Any = gzip.open if magic.startswith(_GZIP) else bz2.open
    return _UnpackedFile(path, opener)


def file_nbytes(path: AnyPath) -> int:
    """Return the length of a file as it is stored, packed or not, here or at a URL."""
    path = path_of(path)
    return open_file(path).nbytes if isinstance(path, RemotePath) else path.stat().st_size


def _is_packed(magic: bytes) -> bool:
    return magic.startswith(_GZIP) or _BZIP2.match(magic) is not None


def _cannot_be_opened(path: Path, error: OSError) -> MrczError:
    if is_out_of_memory(error):
        return NotEnoughMemory(path, "opening it")
    hint = "Check the name and the folder" if isinstance(error, FileNotFoundError) else ""
    return MrczError(path, f"cannot be opened: {error.strerror}", advice=hint)
