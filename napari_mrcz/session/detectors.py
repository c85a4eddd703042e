"""Frames of other detectors, one movie per task: electrons counted, MicroED zeros replaced.

Frames to be counted are sent as the compressed chunks of the file; workers decompress and count
them, and return compressed counts (McLeod et al. 2018, doi:10.1016/j.jsb.2017.11.012, section 2.4).
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction import Pedestal, TruncationModel
from napari_mrcz.correction.conversions import pedestal_names
from napari_mrcz.correction.counting import CountingOptions, ElectronCounting, count_electrons
from napari_mrcz.correction.counting.events import Events
from napari_mrcz.correction.truncation import TruncationOptions
from napari_mrcz.errors import collected_warnings, size_text
from napari_mrcz.format import Encoding, FrameReader, write_frames
from napari_mrcz.format.atomic import check_target
from napari_mrcz.format.chunks import compress, decompress
from napari_mrcz.format.header import FOUR_BIT
from napari_mrcz.format.machine import in_order, limit_threads, processors
from napari_mrcz.naming import software
from napari_mrcz.session.page import EventTable
from napari_mrcz.session.run import ANSWER_S, SchedulerLost, ask, result_of, watched
from napari_mrcz.session.source_files import SourceFiles
from napari_mrcz.session.tasks import Making, Outcome, Report, check_paths, staged
from napari_mrcz.stack import Stack, open_sweep
from napari_mrcz.stack import open as open_stack
from napari_mrcz.stack.raw_frames import frame_header, write_smv
from napari_mrcz.stack.references import read_defects, read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_ATTEMPTS = 3
# Frames sent ahead, for each thread of the workers.
_QUEUED = 2
_NO_EVENTS = Events(*np.empty((3, 0), np.float32))

# Counts, electrons, and how many spots were too bright for one.
_Counted = tuple["npt.NDArray[np.uint8]", Events, int]


@dataclass(frozen=True)
class CountElectrons(Making):
    """Counts the electrons of raw frames, of any format that is read, and writes MRC or MRCZ."""

    counting: CountingOptions = field(default_factory=CountingOptions)  # How electrons are counted
    events: str = ""  # Table of all electrons, .csv or .parquet; empty for none
    client: Any = field(default=None, repr=False)  # Whose workers count
    corrects: ClassVar[bool] = True

    def make(
        self, files: SourceFiles, record: Mapping[str, Any], report: Report | None, *, there: bool
    ) -> Outcome:
        """Count and write; raise `ValueError` if these are not raw frames of single electrons."""
        overwrite = self.overwrite or there
        check_target(Path(self.target), overwrite=overwrite)
        if self.client is not None:
            ask(self.client)  # one that is lost is known before a fit is made
        with ExitStack() as opened:
            table = None
            if self.events:
                table = opened.enter_context(EventTable(self.events, overwrite=self.overwrite))
            movie = opened.enter_context(open_stack(self.source))
            staged(report, "fitting")(0, len(movie))
            counting = ElectronCounting.fit(movie, **asdict(self.counting))
            counts = count_electrons(movie, counting=counting)
            run = _Run(movie, self.source, counting, self.client, table)
            other = {**counts.description.other, "source": record}
            write_frames(
                self.target,
                run,
                counts.sample_makers(),
                description=replace(counts.description, writer=software(), other=other),
                encoding=Encoding("zstd" if self.target.endswith(".mrcz") else "none"),
                total=len(movie),
                progress=files.watched(staged(report, "counting")),
                overwrite=overwrite,
            )
            files.check()
            if table is not None:
                table.commit()
        notes = (*_notes(counting, run.n_electrons, movie.size), *run.notes())
        result = {
            "electrons": run.n_electrons,
            "bright": run.n_bright,
            "sent": run.n_sent,
            "raw": movie.nbytes,
        }
        return Outcome(self.source, notes=notes, warnings=counting.warnings, result=result)

    def options(self) -> dict[str, Any]:
        """Return what the counts depend on, where it was chosen."""
        options = {**asdict(self.counting), "force": self.counting.force or None}
        return {name: value for name, value in options.items() if value is not None}

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the counts."""
        with open_stack(self.source) as movie:
            n, y, x = movie.shape
        s = self.counting.super_resolution
        return n, y * s, x * s

    @property
    def works_on_results(self) -> bool:
        """Whether the table of electrons is to be made, for which they are counted again."""
        return bool(self.events) and not os.path.exists(self.events)


@dataclass
class _Run:
    """The counts of all frames in order, and numbers that are added up on the way.

    Iterate over it once: the writer begins again only if values do not fit a byte, as counts do.
    """

    movie: Stack
    source: str
    counting: ElectronCounting
    client: Any
    table: EventTable | None
    n_electrons: int = 0
    n_bright: int = 0  # Spots that were too bright for electrons
    n_sent: int = 0  # Bytes sent to workers, and returned by them
    n_returned: int = 0

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        here = self.client is None
        for frame, (counts, events, bright) in enumerate(self._here() if here else self._there()):
            self.n_electrons += int(counts.sum())
            self.n_bright += bright
            if self.table is not None:
                self.table.add(frame, events)
            yield counts

    def notes(self) -> tuple[str, ...]:
        """Return how much was set aside, and what was sent."""
        aside: tuple[str, ...] = ()
        if self.n_bright:
            aside = (f"{self.n_bright} spots too bright for electrons, such as X-rays, set aside",)
        if not self.n_sent:
            return aside
        ratio = self.movie.nbytes / self.n_sent
        sent = f"{size_text(self.movie.nbytes)} of raw frames sent as {size_text(self.n_sent)}"
        back = f"{size_text(self.n_returned)} came back"
        return (*aside, f"{sent} ({ratio:.3g} to 1), {back}")

    def _here(self) -> Iterator[_Counted]:
        def count(frame: Callable[[], npt.NDArray[Any]]) -> _Counted:
            events, bright = self.counting.events_and_bright(frame())
            return self.counting.counts(events), events, bright

        makers = self.movie.frame_makers()
        with in_order(count, makers, processors(), "napari-mrcz-count") as counted:
            yield from counted

    def _there(self) -> Iterator[_Counted]:
        client = self.client
        with closing(Parcels(self.movie, self.source)) as parcels:
            # What all frames need is sent once to every worker.
            what = self.counting, parcels, self.table is not None
            most = max(1, ask(client)) * _QUEUED
            work = watched(
                client, lambda: client.scatter(what, broadcast=True, hash=False, timeout=ANSWER_S)
            )
            pending: deque[Any] = deque()
            try:
                for parcel in parcels:
                    self.n_sent += len(parcel.chunk)
                    pending.append(
                        client.submit(_count, work, parcel, retries=_ATTEMPTS, pure=False)
                    )
                    if len(pending) >= most:
                        yield self._received(pending.popleft())
                while pending:
                    yield self._received(pending.popleft())
            finally:
                with suppress(SchedulerLost):
                    watched(client, lambda: client.cancel([*pending, work]))

    def _received(self, future: Any) -> _Counted:
        counts, events, bright = result_of(self.client, future)
        future.release()
        self.n_returned += len(counts) + len(events)
        return unpack(counts), Events(*unpack(events)) if events else _NO_EVENTS, bright


def _count(
    work: tuple[ElectronCounting, Parcels, bool], parcel: Parcel
) -> tuple[bytes, bytes, int]:
    """Count a frame on a worker, which is one of many and takes one processor."""
    limit_threads(1)
    counting, parcels, with_events = work
    events, bright = counting.events_and_bright(parcels.pixels(parcel))
    counts = pack(counting.counts(events))
    return counts, pack(np.stack(events)) if with_events else b"", bright


def _notes(counting: ElectronCounting, n_electrons: int, n_pixels: int) -> tuple[str, ...]:
    background = counting.background
    notes = [
        f"{n_electrons} electrons, {n_electrons / n_pixels:.3g} e⁻/pixel/frame",
        f"threshold {counting.threshold:.1f} grey values of charge, noise {background.noise:.2f},"
        f" spread {counting.spread:.2f} pixels",
    ]
    if counting.expected_f1 is not None:
        notes.append(f"expected F1 {counting.expected_f1:.3f}")
    if background.common_mode:
        notes.append(f"common mode of {background.common_mode} removed")
    if background.noisy is not None:
        notes.append(f"{int(background.noisy.sum())} noisy pixels set aside")
    return tuple(notes)


class Parcel(NamedTuple):
    """A frame that is sent: its index, its chunk, and the offset of that in the file."""

    frame: int
    chunk: bytes
    offset: int


class Parcels:
    """The frames of a movie as chunks, and as pixels again where these arrive.

    `movie`: frames that are not stored as chunks are compressed when they are sent; `path`: its
    file, which is not pickled.
    """

    def __init__(self, movie: Stack, path: str) -> None:
        self._path = path
        self._shape = movie.shape[1:]
        self._dtype = movie.dtype
        self._stored = movie.dtype
        self._movie: Stack | None = movie
        self._reader: FrameReader | None = None
        if movie.header is not None:
            reader = FrameReader(path)
            stored = reader.header.codec and reader.header.mode != FOUR_BIT
            if stored and reader.dtype == movie.dtype:  # not of counts that are normalised
                self._reader = reader
                self._stored = reader.header.stored_dtype
            else:
                reader.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_movie": None, "_reader": None}

    def __iter__(self) -> Iterator[Parcel]:
        """Yield the frames in order, each read when it is asked for."""
        if self._reader is not None:
            offsets = self._reader.index.offsets
            for frame in range(self._reader.shape[0]):
                chunk = bytes(self._reader.read_stored(frame))
                yield Parcel(frame, chunk, int(offsets[frame]))
        elif self._movie is not None:
            for frame, maker in enumerate(self._movie.frame_makers()):
                pixels = np.ascontiguousarray(maker(), self._stored)
                yield Parcel(frame, compress(pixels, "zstd", 1, "bitshuffle", 0), 0)

    def pixels(self, parcel: Parcel) -> npt.NDArray[Any]:
        """Decompress a frame, (y, x); raise `MrczError` if its chunk is damaged."""
        out = np.empty(self._shape, self._stored)
        chunk = memoryview(parcel.chunk)
        decompress(chunk, out, path=self._path, frame=parcel.frame, offset=parcel.offset)
        return out.astype(self._dtype, copy=False)

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()


def pack(values: npt.NDArray[Any]) -> bytes:
    """Compress a table or an image for the way back: (k, n) of uint8 or float32."""
    head = np.array((*values.shape, values.itemsize), "<u4").tobytes()
    if not values.size:
        return head
    return head + compress(np.ascontiguousarray(values), "zstd", 1, "bitshuffle", 0)


def unpack(packed: bytes) -> npt.NDArray[Any]:
    """Return the values that `pack` was given."""
    rows, columns, itemsize = np.frombuffer(packed, "<u4", 3).tolist()
    values = np.empty((rows, columns), np.uint8 if itemsize == 1 else np.float32)
    if values.size:
        decompress(memoryview(packed)[12:], values, path="", frame=0, offset=0)
    return values


FIRST = "_0001"
"""End of the name of the first of several SMV files."""

_TOP = int(np.iinfo(np.uint16).max)


@dataclass(frozen=True)
class RestoreNegatives(Making):
    """Fits a sweep, redraws its zeros and writes it."""

    source: str = field(init=False)
    target: str = field(init=False)
    sources: tuple[str, ...]  # The files of one sweep, in order
    # One MRC or MRCZ file; or SMV files, one a frame, or the first of them, `name_0001.img`
    targets: tuple[str, ...]
    # How negative counts are restored. Without an offset none is added, or in SMV the smallest by
    # which no value is negative.
    truncation: TruncationOptions = field(default_factory=TruncationOptions)
    footer: bool = True  # Write a footer. Other programs expect none behind plain frames.

    def __post_init__(self) -> None:
        """Take the first of the files."""
        object.__setattr__(self, "source", self.sources[0])
        object.__setattr__(self, "target", self.targets[0])

    def make(
        self, files: SourceFiles, record: Mapping[str, Any], report: Report | None, *, there: bool
    ) -> Outcome:
        """Fit, redraw and write; `ValueError` if nothing was cut off, or an offset is too small."""
        with open_sweep(self.sources) as movie:
            targets = self._targets(len(movie))
            for target in targets:
                check_paths(self.sources, target)
                check_target(Path(target), overwrite=self.overwrite)
            shape = movie.shape[1:]
            model = TruncationModel.fit(
                movie,
                self.truncation.center,
                self.truncation.n_annuli,
                read_defects(self.truncation.mask, shape) if self.truncation.mask else None,
                self.truncation.seed,
                regions=read_image(self.truncation.regions) if self.truncation.regions else None,
                pedestal=self.truncation.pedestal,
                force=self.truncation.force,
                progress=staged(report, "fitting"),
            )
            corrected, added = self._corrected(movie, model)
            offset = model.pedestal + added
            tell = files.watched(staged(report, "writing"))
            if self._is_smv:
                for index, target in enumerate(targets):
                    write_smv(
                        Path(target),
                        corrected[index],
                        _recorded(frame_header(movie.metadata.get("smv", {}), index), offset),
                        overwrite=self.overwrite,
                    )
                    tell(index + 1, len(targets))
            else:
                with collected_warnings() as said:
                    metadata = _kept(movie.metadata, offset)
                    self._write_result(
                        corrected, record, metadata=metadata, footer=self.footer, progress=tell
                    )
        files.check()
        notes = _notes_of_model(model, added, movie.size)
        if not self._is_smv:
            notes = (*notes, *(text.removeprefix(f"{self.target}: ") for text in said))
        if len(targets) > 1:
            notes = (f"{len(targets)} images, the last {Path(targets[-1]).name}", *notes)
        return Outcome(self.source, notes=notes, warnings=model.warnings)

    def options(self) -> dict[str, Any]:
        """Return what the result depends on, where it was chosen."""
        chosen = {**asdict(self.truncation), "force": self.truncation.force or None}
        return {k: v for k, v in chosen.items() if v not in (None, "")}

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the sweep."""
        with open_sweep(self.sources) as movie:
            return movie.shape

    def _files(self) -> SourceFiles:
        return SourceFiles(self.sources)

    def _written(self) -> list[Path]:
        targets = self.targets
        if self._is_smv and len(targets) == 1:
            targets = tuple(self._targets(self.shape()[0]))
        return [Path(target) for target in targets]

    @property
    def _is_smv(self) -> bool:
        return Path(self.target).suffix == ".img"

    def _targets(self, n_frames: int) -> list[str]:
        if not self._is_smv or len(self.targets) == n_frames:
            return list(self.targets)
        first = Path(self.target)
        name = first.stem.removesuffix(FIRST)
        return [str(first.with_stem(f"{name}_{index + 1:04d}")) for index in range(n_frames)]

    def _corrected(self, movie: Stack, model: TruncationModel) -> tuple[Stack, int]:
        corrected = movie.apply(model)
        if self.truncation.offset is None and not self._is_smv:
            return corrected, 0
        offset = model.offset if self.truncation.offset is None else self.truncation.offset
        if offset < model.offset:
            raise ValueError(
                f"an offset of {offset} is too small: values reach down to {model.smallest}"
            )
        if model.largest > _TOP:
            raise ValueError(f"counts of {model.largest}, where 16 bits hold no more than {_TOP}")
        return corrected.apply(Pedestal(offset)), offset


def _recorded(header: Mapping[str, Any], offset: int) -> dict[str, Any]:
    """Return a header whose pedestals, under all names, are the offset of the pixels."""
    names = [*pedestal_names(header), "ADCOFFSET", "IMAGE_PEDESTAL"]
    return {**header, **dict.fromkeys(names, offset)}


def _kept(metadata: Mapping[str, Any], offset: int) -> dict[str, Any]:
    kept = _recorded(metadata, offset)
    if isinstance(smv := kept.get("smv"), dict):
        kept["smv"] = {**smv, **dict.fromkeys(pedestal_names(smv), str(offset))}
    return kept


def _notes_of_model(model: TruncationModel, added: int, n_pixels: int) -> tuple[str, ...]:
    notes = [f"{model.n_changed / n_pixels:.1%} of the pixels changed"]
    if model.center is not None:
        y, x = model.center
        notes.insert(0, f"beam at row {y:.1f} from the bottom, column {x:.1f}")
    if model.n_unfitted:
        notes.append(f"{model.n_unfitted} regions left as they are: too few counts")
    offset = model.pedestal + added
    notes.append(f"ADCOFFSET {offset}" if offset else f"values down to {model.smallest}")
    if model.largest + added > _TOP and added:
        notes.append(f"saturated at {_TOP}")
    return tuple(notes)
