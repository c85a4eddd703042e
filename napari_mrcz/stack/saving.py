"""Reading, verifying and saving whole stacks: the functions that scripts call."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from os import fspath
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import AnyPath, MrczError, NotEnoughMemory, collected_warnings, warn
from napari_mrcz.format import Description, Encoding, Progress, write_frames
from napari_mrcz.format.atomic import check_target
from napari_mrcz.format.files import open_file
from napari_mrcz.format.header import CODECS
from napari_mrcz.format.machine import in_order, processors, reported, start_to_the_end
from napari_mrcz.format.reader import FrameFault, FrameReader
from napari_mrcz.naming import (
    COMPRESSED_SUFFIX,
    FOREIGN_SUFFIXES,
    PLAIN_SUFFIXES,
    SUFFIXES,
    WRITTEN_TIFF_SUFFIXES,
    RemotePath,
    path_of,
    size_zyx,
    software,
    without_packing,
)
from napari_mrcz.stack.keeping import Keeping
from napari_mrcz.stack.kept import is_kept, problem_of
from napari_mrcz.stack.opening import HEAD_NBYTES, open, opener_of
from napari_mrcz.stack.sources import FlattenedArray, FrameMaker, unmasked
from napari_mrcz.stack.stack import Stack

Result = TypeVar("Result")
_Frames = tuple[Iterable[Any], Iterable[Any], int | None, Description]


def read(path: AnyPath) -> npt.NDArray[Any]:
    """Read a whole movie into memory.

    Parameters
    ----------
    path : path-like
        As for `open`.

    Returns
    -------
    ndarray, shape (frames, rows, columns)

    Raises
    ------
    MrczError
        If the file or one of its frames cannot be used.
    """
    with open(path) as stack:
        return np.asarray(stack)


def write(
    path: AnyPath,
    frames: Any,
    *,
    metadata: Mapping[str, Any] | None = None,
    pixel_size: float | Sequence[float] | None = None,
    codec: str | None = "auto",
    level: int = 1,
    filter: str = "auto",
    block_size: int | str = "auto",
    dtype: npt.DTypeLike | None = None,
    threads: int | None = None,
    footer: bool = True,
    keep: str = "values",
    progress: Progress | None = None,
    overwrite: bool = False,
) -> None:
    """Save frames, all or nothing: a crash or a full disk leaves what was there before.

    Parameters
    ----------
    path : path-like
        The file; its suffix decides whether it is compressed (`.mrcz`) or plain (`.mrc`, `.mrcs`,
        `.map`, `.st`, `.rec`, `.ali`, `.preali`). `.tif` and `.tiff` are TIFF, or BigTIFF beyond
        4 GB, compressed by LZW: the last row is the top one there. They hold metadata and history
        as text, which `open` does not read back into `history`.
    frames : Stack, ndarray, dask array or iterable of ndarray
        Shape (n, y, x), or (y, x) for one frame, or (v, z, y, x) for a stack of volumes; or frames
        (y, x) one by one, as many as will come. All kinds are streamed.
    metadata : dict, optional
        Kept with the file, added to what the stack already carries.
    pixel_size : float or sequence of float, optional
        One number, (y, x) or (z, y, x), in Å; the stack's own by default.
    codec : {"auto", "zstd", "lz4", "lz4hc", "zlib", "blosclz", "none"}
        "auto" is zstd for `.mrcz` and none for the others; a codec that contradicts the suffix is
        refused.
    level : int
        1 (fast) to 9 (small).
    filter : {"auto", "none", "shuffle", "bitshuffle"}
        "auto" tries them on a few frames.
    block_size : int or "auto"
        Bytes; "auto" tries.
    dtype : dtype-like or "uint4", optional
        Pixel type to save as; values are rounded into it, and refused where they do not fit.
        Without it nothing is lost: what MRC cannot hold is widened and comes back as it was.
        Frames of uint8 from a generator are stored as uint16 from the start, since a later one
        may go beyond 127, unless this is int8.
    threads : int, optional
        Frames compressed at once; as many as there are processors by default.
    footer : bool
        Write frame index, checksums, metadata and history after the pixels.
    keep : {"values", "counts"}
        "counts" writes a corrected `Stack` (gain, KOMA) as the integers under these, which take an
        eighth of the room. What is to be applied to them is in the footer, the gain reference in a
        file beside it that all movies of a folder share; `open` returns the normalised frames.
    progress : callable, optional
        Called with (frames done, frames or None); what it raises stops the writing.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    MrczError
        If the frames cannot be stored without loss, pixels are masked, codec and suffix contradict
        each other, the file exists, or the disk refuses.
    ValueError
        If an option is none of those listed.

    Warns
    -----
    MrczWarning
        If there are metadata or a history, and no footer to keep them in.
    """
    path = path_of(path)
    if isinstance(path, RemotePath):
        raise MrczError(path, "is a URL, to which nothing is written", advice="Save it here first")
    is_tiff = path.suffix.lower() in WRITTEN_TIFF_SUFFIXES
    if is_tiff and (codec not in ("auto", "lzw") or keep != "values"):
        found = f"the codec {codec}" if keep == "values" else f'keep="{keep}"'
        raise MrczError(path, f"TIFF is written by LZW, and {found} is asked for")
    encoding = Encoding("none" if is_tiff else _codec(path, codec), level, filter, block_size)
    check_target(path, overwrite=overwrite)
    more = None
    if keep == "counts":
        keeping = _keeping(path, frames, compressed=footer and bool(encoding.number), dtype=dtype)
        frames, more = keeping.counts, keeping.footer
    elif keep != "values":
        raise ValueError(f'keep is "values" or "counts", not {keep!r}')
    makers, samples, total, description = _frames_of(path, frames)
    metadata = {**description.metadata, **(metadata or {})}
    description = replace(description, metadata=metadata, writer=software())
    if pixel_size is not None:
        along = size_zyx(pixel_size)
        description = replace(description, pixel_size=along, axis_order=(1, 2, 3))
    options: dict[str, Any] = {"description": description, "dtype": dtype, "total": total}
    options |= {"threads": threads, "footer": footer, "progress": progress, "overwrite": overwrite}
    if is_tiff:
        from napari_mrcz.stack.tiff_saving import write_tiff

        write_tiff(path, makers, **options)
        return
    write_frames(path, makers, samples, encoding=encoding, more=more, **options)
    # Those of compressed files are in the extended header as well, as JSON.
    metadata = {} if encoding.number else description.metadata
    said = {"metadata": metadata, "history": description.history}
    if not footer and (lost := [name for name, content in said.items() if content]):
        warn(f"{path}: {' and '.join(lost)} left out, as they take a footer")


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes
    ----------
    path : str
        The file.
    error : str
        Why the file cannot be opened; empty if it can.
    frames : int
        Frames checked.
    checksums : bool
        Whether frames were compared with checksums. Without them a flipped bit may go unnoticed:
        most damaged chunks decode to a wrong picture without an error.
    faults : tuple of FrameFault
        The bad frames.
    warnings : tuple of str
        What else is wrong, such as frames that are missing.
    announced : int
        Frames that there should be; more than were checked where the file is cut off.
    reference : str
        What is wrong with the reference of a movie kept as counts, which lies beside it.
    """

    path: str
    error: str = ""
    frames: int = 0
    checksums: bool = False
    faults: tuple[FrameFault, ...] = ()
    warnings: tuple[str, ...] = ()
    announced: int = 0
    reference: str = ""

    @property
    def ok(self) -> bool:
        """Every frame that the header announces is there and decodes."""
        return not (self.error or self.faults or self.warnings or self.reference)

    def __bool__(self) -> bool:
        """Return whether the file is good."""
        return self.ok

    def __str__(self) -> str:
        if self.error:
            return self.error
        verdict = f"{self.path}: {self.verdict}"
        faults = (f"{self.path}: frame {f.frame}: {f.found}" for f in self.faults)
        reference = [f"{self.path}: {self.reference}"] if self.reference else []
        return "\n".join([verdict, *self.warnings, *reference, *faults])

    @property
    def verdict(self) -> str:
        """How good the file is, in words."""
        how = "checksums match" if self.checksums else "they decode; the file has no checksums"
        good = self.frames - len(self.faults)
        if not (self.faults or self.warnings):
            but = ", but its reference is not" if self.reference else ""
            return f"{good} {'frame is' if good == 1 else 'frames are'} good ({how}){but}"
        if self.announced > self.frames:
            which = f"{good} of these are" if self.faults else "these are"
            there = f"{self.frames} of {self.announced} frames are there"
            return f"damaged: {there}, and {which} good ({how})"
        if self.faults:
            return f"damaged: {good} of {self.frames} frames are good ({how})"
        return f"damaged, but all {good} frames are good ({how})"


def verify(
    path: AnyPath, *, threads: int | None = None, progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Check that every frame of a file can be read.

    Parameters
    ----------
    path : path-like
        A file of any format that `napari_mrcz.open` takes. Only MRC and MRCZ have checksums; of
        other formats frames are decoded.
    threads : int, optional
        Frames decoded at once; as many as there are processors by default.
    progress : callable, optional
        Called with (frames done, frames); what it raises ends the checking.

    Returns
    -------
    VerifyReport
        True in a condition if all is well.

    Raises
    ------
    NotEnoughMemory
        If a frame does not fit into memory even alone, so that nothing is known of it.
    """
    try:
        return _verified(path, threads, progress)
    except NotEnoughMemory:
        raise
    except MrczError as error:
        return VerifyReport(fspath(path), error=str(error))


def read_async(path: AnyPath) -> Future[npt.NDArray[Any]]:
    """Read as `read` does, in the background.

    Returns
    -------
    concurrent.futures.Future
        Its result is the array; errors come out of ``result()``.
    """
    return _in_background(lambda: read(path))


def write_async(path: AnyPath, frames: Any, **options: Any) -> Future[None]:
    """Write as `write` does, in the background; the frames must not be changed meanwhile.

    Returns
    -------
    concurrent.futures.Future
        Done when the file is on disk; errors come out of ``result()``.
    """
    return _in_background(lambda: write(path, frames, **options))


def _verified(
    path: AnyPath, threads: int | None, progress: Callable[[int, int], None] | None
) -> VerifyReport:
    """Return the report of a file that can be opened; raise `MrczError` for others."""
    with closing(open_file(path)) as file:
        is_mrc = opener_of(file.read(0, HEAD_NBYTES)) is None
    try:
        reader = FrameReader(path) if is_mrc else None
    except NotEnoughMemory:
        raise
    except MrczError:
        if without_packing(Path(path)).suffix.lower() not in FOREIGN_SUFFIXES:
            raise
        reader = None
    if reader is None:
        with collected_warnings() as said:
            movie = open(path, read_ahead=False)
        n = len(movie)
        with movie:
            faults = _faults_of(movie.frame_makers(), n, movie.nbytes // n, threads, progress)
        return VerifyReport(fspath(path), "", n, False, faults, tuple(said), n)
    n, other, warnings = reader.shape[0], reader.footer.other, reader.warnings
    makers = (partial(reader.read_frame, frame) for frame in range(n))
    with reader:
        faults = _faults_of(makers, n, reader.frame_nbytes, threads, progress)
    checksums = reader.index.xxh3 is not None
    reference = problem_of(reader.path, other) if is_kept(other) else ""
    return VerifyReport(
        fspath(path), "", n, checksums, faults, warnings, reader.announced, reference
    )


def _faults_of(
    makers: Iterable[Callable[[], object]],
    n: int,
    frame_nbytes: int,
    threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[FrameFault, ...]:
    """Return which of `n` frames cannot be made, each of so many bytes; see `verify`."""

    def check(numbered: tuple[int, Callable[[], object]]) -> FrameFault | None:
        frame, make = numbered
        try:
            make()
        except NotEnoughMemory:
            raise
        except MrczError as error:
            return FrameFault(frame, error.offset, error.found)
        return None

    threads = min(n, threads or processors())
    room = 2 * frame_nbytes  # with its compressed bytes
    with in_order(check, enumerate(makers), threads, "napari-mrcz-verify", nbytes=room) as checked:
        return tuple(fault for fault in reported(checked, n, progress) if fault is not None)


def _keeping(path: Path, frames: Any, *, compressed: bool, dtype: npt.DTypeLike | None) -> Keeping:
    """Return what writes a corrected stack as counts; raises `MrczError` if that is impossible."""
    stack = getattr(frames, "__wrapped__", frames)
    if not isinstance(stack, Stack):
        found = f"a {type(stack).__name__} cannot be kept as counts, only a corrected Stack"
        raise MrczError(path, found)
    if not compressed:
        found = "plain files and files without a footer cannot be kept as counts"
        advice = f"Other programs would take them for corrected; name it {COMPRESSED_SUFFIX}"
        raise MrczError(path, found, advice=advice)
    if dtype is not None:
        found = f"counts keep their pixel type; they are not saved as {np.dtype(dtype)}"
        raise MrczError(path, found, advice='Choose either dtype or keep="counts"')
    keeping = Keeping(path, stack)
    if keeping.lost:
        warn(f"{path}: the raw movie cannot be restored from it, as it has had {keeping.lost}")
    return keeping


def _frames_of(path: Path, frames: Any) -> _Frames:
    """Return what makes each frame, a few samples, how many there are, and their description."""
    if isinstance(frames, Stack):
        # napari's console and plugins get their layers' data in a proxy, which pretends to be one.
        stack = getattr(frames, "__wrapped__", frames)
    elif hasattr(frames, "shape") and hasattr(frames, "dtype"):
        axes = len(frames.shape)
        if axes not in (2, 3, 4):
            found = f"an array of shape {tuple(frames.shape)}"
            advice = "(n, y, x), (y, x) for one frame or (v, z, y, x) for volumes can be written"
            raise MrczError(path, found, advice=advice)
        stack = Stack.from_array(FlattenedArray(frames) if axes == 4 else frames)
        if axes == 4:
            stack = stack.described(sections_per_volume=int(frames.shape[1]))
    else:
        return _one_by_one(path, frames)
    if not len(stack):
        raise MrczError(path, "no frames to write")
    return _Repeatable(stack.frame_makers), stack.sample_makers(), len(stack), stack.description


def _one_by_one(path: Path, frames: Any) -> _Frames:
    try:
        iterator = iter(frames)
    except TypeError:
        found = f"a {type(frames).__name__}, where frames are expected"
        raise MrczError(path, found) from None
    # Copies: a generator may well put all frames into the same array.
    convert = np.asarray if isinstance(frames, Sequence) else np.array

    def as_frame(frame: Any) -> npt.NDArray[Any]:
        return convert(unmasked(frame))

    first = next(iterator, None)
    if first is None:
        raise MrczError(path, "no frames to write")
    # Iterators drop what they have returned; a list would hold the first frame to the end.
    # One that has to be computed (dask) says its shape and dtype before.
    known = hasattr(first, "shape") and hasattr(first, "dtype")
    make = partial(np.asarray, first)
    samples = iter([FrameMaker(make, tuple(first.shape), first.dtype) if known else make()])
    if iterator is frames:
        all_frames = map(as_frame, itertools.chain([first], iterator))
        return all_frames, samples, None, Description()
    total = len(frames) if hasattr(frames, "__len__") else None
    return _Repeatable(lambda: map(as_frame, frames)), samples, total, Description()


class _Repeatable:
    """An iterable that starts anew each time, from a function that returns an iterator."""

    def __init__(self, start: Callable[[], Iterable[Any]]) -> None:
        self._start = start

    def __iter__(self) -> Any:
        return iter(self._start())


def _codec(path: Path, codec: str | None) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        found = f"unsupported suffix {suffix!r}" if suffix else "no suffix"
        allowed = " ".join((*SUFFIXES, *WRITTEN_TIFF_SUFFIXES))
        raise MrczError(path, found, advice=f"Use one of {allowed}")
    compressed = suffix == COMPRESSED_SUFFIX
    if codec == "auto":
        return "zstd" if compressed else "none"
    codec = codec or "none"
    if compressed and codec == "none":
        found = "is a name for compressed frames, and the codec is none"
        raise MrczError(path, found, advice=f"Name it {PLAIN_SUFFIXES[0]}, or choose a codec")
    if not compressed and codec in CODECS:
        found = f"is a name for plain frames, and the codec is {codec}"
        raise MrczError(path, found, advice=f"Name it {COMPRESSED_SUFFIX}, or choose no codec")
    return codec


def _in_background(work: Callable[[], Result]) -> Future[Result]:
    future: Future[Result] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    # A program that ends does not take a half-saved file with it.
    start_to_the_end(run, "napari-mrcz-background")
    return future
