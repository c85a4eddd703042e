"""Writing a movie frame by frame: compressed in parallel, in order, in little memory, all or none.

`write_frames` is the whole of it: frames come from any iterable, their statistics, checksums and
places are gathered on the way, and the file takes its name when the last byte is on disk.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.errors import MrczError
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.format.casting import LARGEST_FOUR_BIT, cast_as_asked, cast_lossless
from napari_mrcz.format.chunks import LARGEST_FRAME
from napari_mrcz.format.encoding import Encoding, choose_encoding, excerpt
from napari_mrcz.format.footer import Footer, FrameIndex, pack_footer
from napari_mrcz.format.header import HEADER_NBYTES, build_header
from napari_mrcz.format.metadata import to_json_safe
from napari_mrcz.format.modes import FOUR_BIT, MODE_OF_DTYPE, pack_four_bit, storage_dtype
from napari_mrcz.format.statistics import Statistics, statistics_of

__all__ = ["Description", "Progress", "write_frames"]

# The version of `mrcz` whose files ours are like; readers take label 0 for the format's version.
_FORMAT_LABEL = "MRCZ0.6.0"
_LARGEST_SIGNED_BYTE = 127

Frame = npt.NDArray[Any]
# A frame, or a function that makes it: then it is made in the thread that compresses it.
LazyFrame = Frame | Callable[[], Frame]
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Description:
    """What a file says of its frames, beside the pixels themselves.

    Attributes
    ----------
    pixel_size : tuple of float
        z, y, x in Å; 0.0 for unknown.
    volume : bool
        Sections of a volume rather than frames of a movie.
    sections_per_volume : int or None
        Given for a stack of volumes.
    voltage, c3, gain : float
        kV, mm, counts per electron; 0 for unknown.
    origin : tuple of float
        X, Y, Z in Å.
    labels : tuple of str
        Text labels to be kept from a source.
    extended : tuple of (str, bytes)
        Kind and bytes of a source's extended header, kept as it is; ("", b"") for none.
    metadata : dict
        The user's map.
    history : tuple of dict
        Corrections applied.
    other : dict
        Further keys of the footer.
    writer : str
        Program and version.
    path : str
        The file that the frames come from; "" without one.
    """

    pixel_size: tuple[float, float, float] = (0.0, 0.0, 0.0)
    volume: bool = False
    sections_per_volume: int | None = None
    voltage: float = 0.0
    c3: float = 0.0
    gain: float = 0.0
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    labels: tuple[str, ...] = ()
    extended: tuple[str, bytes] = ("", b"")
    metadata: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    other: Mapping[str, Any] = field(default_factory=dict)
    writer: str = "napari-mrcz"
    path: str = ""


class _TooWideForMode0(Exception):
    """Unsigned bytes beyond 127 turned up, which mode 0 (signed) cannot hold."""


@dataclass(frozen=True)
class _Storage:
    """How one frame becomes bytes."""

    path: str | PathLike[str]
    shape: tuple[int, ...]
    given: np.dtype[Any]
    final: np.dtype[Any]
    stored: np.dtype[Any]
    four_bit: bool
    encoding: Encoding

    @property
    def mode(self) -> int:
        return FOUR_BIT if self.four_bit else MODE_OF_DTYPE[self.stored]

    def fit(self, frame: Frame, index: int) -> Frame:
        """Give the frame in its stored dtype, contiguous and little-endian."""
        native = frame.dtype.newbyteorder("=")
        if frame.shape != self.shape or native != self.given:
            raise MrczError(
                self.path,
                f"{native} of {frame.shape}, where the first frame is {self.given} of {self.shape}",
                frame=index,
                advice="All frames of a stack have one shape and dtype",
            )
        return self.convert(np.ascontiguousarray(frame, native), index)

    def convert(self, frame: Frame, index: int) -> Frame:
        """Give pixels of the dtype that was given in the one that is stored."""
        frame = cast_as_asked(frame, self.final, self.path, index)
        if self.four_bit:
            if frame.max() > LARGEST_FOUR_BIT:
                raise MrczError(
                    self.path,
                    f"values up to {frame.max()}, where 4 bits hold 0 to {LARGEST_FOUR_BIT}",
                    frame=index,
                    advice="Write dtype='uint8'",
                )
            return frame
        if self.final == np.uint8 and self.stored == np.int8:
            if frame.max() > _LARGEST_SIGNED_BYTE:
                raise _TooWideForMode0
            return frame.view(np.int8)
        frame = cast_lossless(frame, self.stored, self.path, index)
        return frame.astype(frame.dtype.newbyteorder("<"), copy=False)


@dataclass(frozen=True)
class _Encoded:
    data: bytes | memoryview
    statistics: Statistics | None
    xxh3: int


@dataclass
class _Written:
    """The frames that are in the file so far."""

    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    xxh3: list[int] = field(default_factory=list)
    statistics: Statistics | None = field(default_factory=Statistics)

    def add(self, offset: int, frame: _Encoded) -> None:
        self.offsets.append(offset)
        self.sizes.append(len(frame.data))
        self.xxh3.append(frame.xxh3)
        if self.statistics is not None:
            more = frame.statistics
            self.statistics = None if more is None else self.statistics + more

    def index(self) -> FrameIndex:
        columns = (self.offsets, self.sizes, self.xxh3)
        return FrameIndex(*(np.array(column, np.uint64) for column in columns))


def write_frames(
    path: str | PathLike[str],
    frames: Iterable[LazyFrame],
    samples: Iterable[LazyFrame],
    *,
    description: Description,
    encoding: Encoding,
    dtype: npt.DTypeLike | None = None,
    total: int | None = None,
    threads: int | None = None,
    footer: bool = True,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> None:
    """Write frames to a file.

    Parameters
    ----------
    path : path-like
        The file.
    frames : iterable of ndarray, shape (y, x), or of functions that make them
        All of one shape and dtype; taken one by one. Where it can be iterated only once, frames
        of uint8 are stored as uint16 (mode 6) from the start, since a later one might not fit
        mode 0.
    samples : iterable of ndarray, shape (y, x), or of functions that make them
        At least one of the frames, better a few: shape, dtype and what is "auto" follow from them.
    description : Description
        What the file says of the frames.
    encoding : Encoding
        How they are compressed.
    dtype : dtype-like or "uint4", optional
        Pixel type asked for; values are rounded into it, never wrapped.
    total : int, optional
        How many frames will come, where that is known.
    threads : int, optional
        Frames compressed at once; as many as there are processors by default.
    footer : bool
        Write our footer; a plain file gets one only where there is something to keep.
    progress : callable, optional
        Called with (frames done, total or None) after each frame; what it raises ends the
        writing and leaves everything as it was.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    MrczError
        If the frames cannot be stored without loss, there are none, or the disk refuses.
    """
    only_once = iter(frames) is frames
    storage = choose_storage(path, samples, dtype, encoding, wide=only_once)
    arguments = (frames, description, footer, threads or os.cpu_count() or 1, progress, total)
    try:
        _write_file(path, overwrite, storage, *arguments)
    except _TooWideForMode0:
        _write_file(path, overwrite, _widened(storage), *arguments)


def _write_file(
    path: str | PathLike[str],
    overwrite: bool,
    storage: _Storage,
    frames: Iterable[LazyFrame],
    description: Description,
    footer: bool,
    threads: int,
    progress: Progress | None,
    total: int | None,
) -> None:
    with AtomicFile(path, overwrite=overwrite) as file:
        kind, extended = _extended_header(description, storage)
        file.write(bytes(HEADER_NBYTES) + extended)
        start = file.tell()
        written = _write_pixels(file, frames, storage, threads, progress, total)
        packed_nbytes = file.tell() - start
        if footer and (content := _footer(description, written, storage, kept=extended)):
            file.write(pack_footer(content))
        header = build_header(
            (len(written.offsets), *storage.shape),  # type: ignore[arg-type]
            storage.mode,
            codec=storage.encoding.number,
            pixel_size=description.pixel_size,
            volume=description.volume,
            sections_per_volume=description.sections_per_volume,
            statistics=written.statistics.for_header() if written.statistics else None,
            extended=(kind, len(extended)),
            voltage=description.voltage,
            c3=description.c3,
            gain=description.gain,
            origin=description.origin,
            packed_nbytes=packed_nbytes if storage.encoding.number else 0,
            labels=_labels(description, storage),
        )
        file.write_at(0, header)
        file.commit()


def _write_pixels(
    file: AtomicFile,
    frames: Iterable[LazyFrame],
    storage: _Storage,
    threads: int,
    progress: Progress | None,
    total: int | None,
) -> _Written:
    """Encode frames in a pool and write them in order, `threads` + 1 of them at a time."""
    written = _Written()
    pending: deque[Future[_Encoded]] = deque()

    def write_next() -> None:
        encoded = pending.popleft().result()
        written.add(file.tell(), encoded)
        file.write(encoded.data)
        if progress is not None:
            progress(len(written.offsets), total)

    with ThreadPoolExecutor(threads, thread_name_prefix="napari-mrcz-write") as pool:
        try:
            for index, frame in enumerate(frames):
                pending.append(pool.submit(_encode, storage, frame, index))
                if len(pending) > threads:
                    write_next()
            while pending:
                write_next()
        finally:
            for future in pending:
                future.cancel()
    return written


def _encode(storage: _Storage, frame: LazyFrame, index: int) -> _Encoded:
    pixels = storage.fit(frame() if callable(frame) else frame, index)
    statistics = statistics_of(pixels)
    if storage.four_bit:
        pixels = pack_four_bit(pixels)
    data: bytes | memoryview
    if storage.encoding.number:
        data = storage.encoding.compress(pixels)
    else:
        data = pixels.reshape(-1).view(np.uint8).data
    return _Encoded(data, statistics, xxhash.xxh3_64_intdigest(data))


def choose_storage(
    path: str | PathLike[str],
    samples: Iterable[LazyFrame],
    dtype: npt.DTypeLike | None,
    encoding: Encoding,
    *,
    wide: bool,
) -> _Storage:
    """Decide dtype, filter and block size before the first byte is written."""
    shape, given, excerpts = _look_at(path, samples)
    four_bit = isinstance(dtype, str) and dtype == "uint4"
    try:
        asked = given if dtype is None else np.dtype(np.uint8 if four_bit else dtype)
        final = asked.newbyteorder("=")
        stored = np.dtype(np.uint8) if four_bit else storage_dtype(final)
    except TypeError as error:
        raise MrczError(path, str(error), advice="Convert the frames to numbers first") from error
    if four_bit and encoding.number:
        raise MrczError(
            path,
            "4-bit packing and compression exclude each other",
            advice="Compressed uint8 takes less room: leave dtype out, or pass codec='none'",
        )
    nbytes = shape[0] * shape[1] * stored.itemsize
    if encoding.number and nbytes > LARGEST_FRAME:
        raise MrczError(
            path,
            f"a frame of {nbytes} bytes, where blosc compresses {LARGEST_FRAME} at most",
            advice="Pass codec='none'",
        )
    storage = _Storage(path, shape, given, final, stored, four_bit, encoding)
    if wide and final == np.uint8 and not four_bit:
        storage = _widened(storage)
    try:
        stored_excerpts = [storage.convert(pixels, 0) for pixels in excerpts]
    except _TooWideForMode0:
        storage = _widened(storage)
        stored_excerpts = [storage.convert(pixels, 0) for pixels in excerpts]
    nbytes = shape[0] * shape[1] * storage.stored.itemsize
    return replace(storage, encoding=choose_encoding(storage.encoding, stored_excerpts, nbytes))


def _look_at(
    path: str | PathLike[str], samples: Iterable[LazyFrame]
) -> tuple[tuple[int, int], np.dtype[Any], list[Frame]]:
    """Give shape, dtype and excerpts of some frames, of which only one is in memory at a time."""
    shape, dtype = (0, 0), np.dtype(np.uint8)
    excerpts: list[Frame] = []
    for sample in samples:
        frame = sample() if callable(sample) else sample
        if frame.ndim != 2 or not frame.size:
            found = f"frames of shape {frame.shape}, where (rows, columns) are expected"
            raise MrczError(path, found)
        if not excerpts:
            shape, dtype = frame.shape, frame.dtype.newbyteorder("=")
        excerpts.append(excerpt(frame))
    if not excerpts:
        raise MrczError(path, "no frames to write")
    return shape, dtype, excerpts


def _widened(storage: _Storage) -> _Storage:
    # High bytes of 0 between the pixels: "none" would no longer be the filter that suits them.
    filter_ = "shuffle" if storage.encoding.filter == "none" else storage.encoding.filter
    encoding = replace(storage.encoding, filter=filter_)
    return replace(storage, stored=np.dtype(np.uint16), encoding=encoding)


def _extended_header(description: Description, storage: _Storage) -> tuple[str, bytes]:
    """Give kind and bytes: JSON in compressed files, as `mrcz` has it, else what the source had."""
    if storage.encoding.number and description.metadata:
        text = json.dumps(to_json_safe(description.metadata), allow_nan=False)
        return "json", text.encode("utf-8")
    kind, raw = description.extended
    return ("", b"") if kind == "json" else (kind, raw)


def _footer(
    description: Description, written: _Written, storage: _Storage, *, kept: bytes
) -> Footer | None:
    """Give the footer, or None for a plain file with nothing to keep."""
    other = dict(description.other)
    other.pop("extended", None)
    kind, raw = description.extended
    if raw and kind != "json" and raw != kept:
        other["extended"] = {"kind": kind, "data": raw}
    reads_as = np.dtype(np.uint8) if storage.four_bit else storage.stored
    dtype = None if storage.final == reads_as else storage.final.name
    nothing = not (description.metadata or description.history or other or dtype)
    if nothing and not storage.encoding.number:
        return None
    return Footer(
        writer=description.writer,
        frames=written.index(),
        dtype=dtype,
        metadata=description.metadata,
        history=description.history,
        other=other,
    )


def _labels(description: Description, storage: _Storage) -> list[str]:
    own = description.writer
    kept = [label for label in description.labels if "MRCZ" not in label.upper()]
    return [f"{_FORMAT_LABEL} {own}" if storage.encoding.number else f"Written by {own}", *kept]
