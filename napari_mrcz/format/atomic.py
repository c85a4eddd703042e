"""Writing a file so that its name only ever leads to a whole one.

Bytes go to a file that has no name yet (where the system has such files) or a temporary one
beside the target; it is flushed to disk, then takes the target's name in one step.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
import sys
import threading
import time
from pathlib import Path

from napari_mrcz.errors import AnyPath, MrczError, warn

if sys.platform != "win32":
    import fcntl

_PARTIAL = ".partial"
_OPEN_FILES = "/proc/self/fd"
_FLUSH_STEP = 2**24
# Between making a named temporary file and locking it, another writer must not delete it.
_YOUNGEST_LEFTOVER_S = 10.0


class AtomicFile:
    """A file under construction; nothing is at its name, or the old file is, until `commit`.

    `path`: the target. A symbolic link is followed, so that the file it leads to is replaced;
    `overwrite`: replace what is there. Raise `MrczError` if the target exists and may not be
    replaced, or the folder cannot be written to.
    """

    def __init__(self, path: AnyPath, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        check_target(self.path, overwrite=overwrite)
        self._target = Path(os.path.realpath(self.path))
        self._overwrite = overwrite
        self._partial: Path | None = None
        self._position = 0
        self._flushed = 0
        self._flusher: threading.Thread | None = None
        self._flush_error: OSError | None = None
        try:
            _remove_leftovers(self._target)
            self._descriptor = self._create()
        except OSError as error:
            raise _failed(self.path, error) from error

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`."""
        view = memoryview(data).cast("B")
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise _failed(self.path, error) from error
        self._position += memoryview(data).nbytes
        self._flush_behind()

    def tell(self) -> int:
        """Return the number of bytes appended so far."""
        return self._position

    def write_at(self, offset: int, data: bytes) -> None:
        """Replace bytes that were written before."""
        try:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            os.write(self._descriptor, data)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError as error:
            raise _failed(self.path, error) from error

    def commit(self) -> None:
        """Flush to disk and let the target's name lead here.

        Raise `MrczError` if the disk is full, or the target appeared meanwhile and may not be
        replaced.
        """
        try:
            self._wait_for_flush()
            os.fsync(self._descriptor)
            self._take_name()
            _sync_folder(self._target.parent)
        except FileExistsError:
            raise _exists(self.path) from None
        except OSError as error:
            raise _failed(self.path, error) from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Close and remove everything; the target is as it was, unless `commit` came first."""
        if self._flusher is not None:
            self._flusher.join()
            self._flusher = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._partial is not None:
            with contextlib.suppress(OSError):
                self._partial.unlink()
            self._partial = None

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(self, *raised: object) -> None:
        self.discard()

    def _flush_behind(self) -> None:
        """Send to the disk what was written, in the background, so that `commit` need not wait."""
        if self._position - self._flushed < _FLUSH_STEP:
            return
        if self._flusher is not None and self._flusher.is_alive():
            return
        self._wait_for_flush()
        self._flushed = self._position
        self._flusher = threading.Thread(
            target=self._flush, args=(os.dup(self._descriptor),), name="napari-mrcz-flush"
        )
        self._flusher.start()

    def _flush(self, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:
            # The system reports a failed flush only once: it must not be lost here.
            self._flush_error = error
        finally:
            os.close(descriptor)

    def _wait_for_flush(self) -> None:
        if self._flusher is not None:
            self._flusher.join()
            self._flusher = None
        if self._flush_error is not None:
            raise _failed(self.path, self._flush_error)

    def _create(self) -> int:
        descriptor = None
        if hasattr(os, "O_TMPFILE") and os.path.isdir(_OPEN_FILES):
            # File systems without nameless files (many network ones) refuse; so may containers.
            with contextlib.suppress(OSError):
                descriptor = os.open(self._target.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
        if descriptor is None:
            self._partial = self._partial_name()
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
            descriptor = os.open(self._partial, flags, 0o666)
        if sys.platform != "win32":
            # By this another writer distinguishes a file in the making from a leftover.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor

    def _partial_name(self) -> Path:
        return self._target.with_name(f".{self._target.name}.{os.urandom(4).hex()}{_PARTIAL}")

    def _take_name(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._take_rights(self._target.stat())
        if self._partial is None:
            if not self._overwrite:
                self._link(self._target)
                return
            self._partial = self._partial_name()
            self._link(self._partial)
        if sys.platform == "win32":
            os.close(self._descriptor)  # an open file cannot be renamed there
            self._descriptor = -1
        if self._overwrite:
            os.replace(self._partial, self._target)
        else:
            rename_to_free_name(self._partial, self._target)
        self._partial = None

    def _take_rights(self, old: os.stat_result) -> None:
        """Set owner, group and mode of the new file to those of the one that it replaces."""
        if sys.platform == "win32":
            return
        for owner in ((old.st_uid, -1), (-1, old.st_gid)):
            # Anybody may give a file to another of the own groups, only root to another user.
            with contextlib.suppress(OSError):
                os.fchown(self._descriptor, *owner)
        new = os.fstat(self._descriptor)
        if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
            warn(f"{self.path}: it was replaced, and belongs to you and your group now")
        with contextlib.suppress(OSError):
            os.fchmod(self._descriptor, old.st_mode & 0o7777)

    def _link(self, name: Path) -> None:
        """Name the nameless file, which fails where that name is taken."""
        folder = os.open(name.parent, os.O_RDONLY)
        try:
            # With a folder's descriptor Python respects follow_symlinks; else it ignores it.
            source = f"{_OPEN_FILES}/{self._descriptor}"
            os.link(source, name.name, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)


def write_file(path: AnyPath, content: bytes | memoryview, *, overwrite: bool = False) -> None:
    """Write a whole file as `AtomicFile` does, and raise its errors."""
    with AtomicFile(path, overwrite=overwrite) as file:
        file.write(content)
        file.commit()


def check_target(path: Path, *, overwrite: bool) -> None:
    """Find out whether a file may be written before there is anything to write.

    Raise `MrczError` if something is there that may not be replaced, or the name cannot be one.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failed(path, error) from error
    except ValueError as error:
        raise MrczError(path, f"is not a file name: {error}") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
        raise MrczError(path, f"is {kind}, where a file is to be written")
    if not overwrite:
        raise _exists(path)
    if not os.access(path, os.W_OK):
        # Renaming over it would work: the folder may be written to. But it was protected.
        raise MrczError(path, "is write-protected", advice="Choose another name")


def _exists(path: Path) -> MrczError:
    advice = "Choose another name, or have it replaced (overwrite)"
    return MrczError(path, "exists already", advice=advice)


def _failed(path: Path, error: OSError) -> MrczError:
    advice = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "Make room or choose another disk; nothing that was there has been changed"
    elif isinstance(error, FileNotFoundError):
        advice = "Make the folder first, or check its name"
    elif error.errno == errno.EROFS:
        advice = "The disk is mounted read-only: choose another"
    elif isinstance(error, PermissionError):
        advice = "Close the file in other programs, or choose another folder"
        if not os.access(os.path.realpath(path.parent), os.W_OK | os.X_OK):
            advice = f"{path.parent} may not be written to: choose another folder"
        elif sys.platform != "win32":
            advice = "Choose another folder"
    return MrczError(path, f"cannot be written: {error.strerror}", advice=advice)


def rename_to_free_name(partial: Path, target: Path) -> None:
    """Rename a file; FileExistsError if the name is taken."""
    if sys.platform == "win32":
        os.rename(partial, target)  # fails there if the name is taken
        return
    try:
        os.link(partial, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: for a moment another program could take it
        if target.exists():
            raise FileExistsError from None
        os.rename(partial, target)
    else:
        partial.unlink()


def _remove_leftovers(target: Path) -> None:
    """Remove temporary files that a killed writer of the same target left behind."""
    for partial in target.parent.glob(f".{glob.escape(target.name)}.*{_PARTIAL}"):
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime < _YOUNGEST_LEFTOVER_S:
                continue
            if sys.platform == "win32":
                partial.unlink()  # fails, as it should, while a writer has it open
                continue
            descriptor = os.open(partial, os.O_RDWR)
            try:
                # Fails while a writer is at it.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                partial.unlink()
            finally:
                os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut, where folders can be flushed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
