"""What the "Save" widget does, without a window: options, estimate, saving, pace."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mrcz.errors import block_text, size_text, time_text
from napari_mrcz.format import Encoding, Estimate, VerifyReport, estimate, verify
from napari_mrcz.naming import COMPRESSED_SUFFIX, SUFFIXES, cache_folder, legal_stem
from napari_mrcz.stack import Stack, write
from napari_mrcz.stack.keeping import counts_beneath, estimated_sizes, sizes_text
from napari_mrcz.widgets.base.job import Cancelled, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

KEPT = "counts"
"""In the place of a pixel type: the integers beneath gain and KOMA (keep="counts")."""
SAVING = "Saving"
VERIFYING = "Verifying"

_DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32")


@dataclass(frozen=True)
class SaveOptions:
    """What the user has chosen.

    Attributes
    ----------
    path : str
        The file; its suffix decides whether it is compressed.
    codec, level, filter, block_size
        As `napari_mrcz.write` takes them; of no account in an uncompressed file.
    dtype : str or None
        Pixel type; None leaves it as it is, `KEPT` saves the counts beneath gain and KOMA.
    verify : bool
        Read the file back when it is written.
    """

    path: str = ""
    codec: str = "zstd"
    level: int = 1
    filter: str = "auto"
    block_size: int | str = "auto"
    dtype: str | None = None
    verify: bool = False

    @property
    def compressed(self) -> bool:
        """Whether the suffix says so."""
        return self.path.lower().endswith(COMPRESSED_SUFFIX)

    @property
    def encoding(self) -> Encoding:
        """How frames are compressed."""
        if not self.compressed:
            return Encoding("none")
        return Encoding(self.codec, self.level, self.filter, self.block_size)

    def problem(self) -> str:
        """Show what is wrong with the path, or nothing."""
        path = Path(self.path)
        if not self.path.strip() or not path.name:
            return "Choose a file to save to."
        if path.suffix.lower() not in SUFFIXES:
            return f"End the file's name in one of {' '.join(SUFFIXES)}"
        if path.is_dir():
            return "This is a folder; choose a file in it."
        if not path.parent.is_dir():
            return f"There is no folder {path.parent}"
        return ""


@dataclass(frozen=True)
class FileEstimate:
    """What a file will take, in bytes.

    Attributes
    ----------
    frame : Estimate
        Of one frame.
    memory_nbytes, nbytes, bound_nbytes : float
        Of all frames in memory, on disk, and at least (Shannon's bound; None if not known).
    sizes : dict of int
        Of a movie that may be kept as counts, what it takes as each pixel type.
    """

    frame: Estimate
    memory_nbytes: float
    nbytes: float
    bound_nbytes: float | None
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return one sentence or two."""
        parts = [_ratio_text(self.memory_nbytes, self.nbytes)]
        if self.bound_nbytes:
            parts.append(_above_text(self.nbytes / self.bound_nbytes))
        encoding = self.frame.encoding
        if encoding.codec != "none":
            filter_ = "no filter" if encoding.filter == "none" else encoding.filter
            parts.append(
                f"{encoding.coder}, {filter_}, blocks of {block_text(encoding.block_nbytes)}"
            )
        text = "; ".join(parts)
        text = f"{text[0].upper()}{text[1:]}."
        return f"{text}\nAs {sizes_text(self.sizes)}." if self.sizes else text


@dataclass(frozen=True)
class Saved:
    """A file that was written.

    Attributes
    ----------
    path : Path
        The file.
    nbytes, memory_nbytes : int
        Its size, and that of the frames in memory.
    seconds : float
        For writing alone.
    report : VerifyReport or None
        Of reading it back; None if that was not wanted, or cancelled.
    """

    path: Path
    nbytes: int
    memory_nbytes: int
    seconds: float
    report: VerifyReport | None = None

    @property
    def ok(self) -> bool:
        """False if verifying found a fault."""
        return self.report is None or self.report.ok

    def __str__(self) -> str:
        """Show what was written, and what verifying found."""
        said = (
            f"Saved {self.path.name}: {size_text(self.nbytes)}, "
            f"{_ratio_text(self.memory_nbytes, self.nbytes)}, in {time_text(self.seconds)}."
        )
        if self.report is None:
            return said
        if not self.report.ok:
            return f"{said}\nVerifying found a fault. {self.report}"
        how = "match their checksums" if self.report.checksums else "can be decoded"
        return f"{said}\nVerified: all {self.report.frames} frames {how}."


class Pace:
    """How fast frames go by, and how long the rest will take.

    Parameters
    ----------
    frame_nbytes : int
        Of a frame in memory.
    clock : callable
        Gives seconds.
    """

    def __init__(self, frame_nbytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._frame_nbytes = frame_nbytes
        self._clock = clock
        self._stage = ""
        self._first = self._done = 0
        self._start = clock()

    def text(self, stage: str, done: int, total: int) -> str:
        """Show it; a new stage, or one that begins again, is timed anew."""
        now = self._clock()
        if stage != self._stage or done < self._done:
            # The frames reported first were done before the clock starts.
            self._stage, self._start, self._first = stage, now, done
        self._done = done
        said = f"{stage} frame {done} of {total}"
        elapsed = now - self._start
        if done <= self._first or elapsed <= 0:
            return said
        rate = (done - self._first) / elapsed
        speed = f"{rate:.3g} frames/s, {size_text(rate * self._frame_nbytes)}/s"
        return f"{said}\n{speed}, {time_text((total - done) / rate)} left"


def estimate_file(stack: Stack, options: SaveOptions) -> FileEstimate:
    """Compress excerpts of the first, the middle and the last frame.

    Raises
    ------
    MrczError
        If they cannot be stored as wanted.
    """
    frames, chosen = as_saved(stack, options)
    frame = estimate(options.path, frames.sample_makers(), chosen.encoding, chosen.dtype)
    n = len(stack)
    bound = None if frame.bound_nbytes is None else n * frame.bound_nbytes
    sizes = {}
    if options.compressed and counts_beneath(stack) is not None:
        sizes = estimated_sizes(stack, options.encoding)
    return FileEstimate(frame, stack.nbytes, n * frame.frame_nbytes, bound, sizes)


def as_saved(stack: Stack, options: SaveOptions) -> tuple[Stack, SaveOptions]:
    """Return the frames that are stored, and the options with the pixel type of these."""
    if options.dtype != KEPT:
        return stack, options
    return counts_beneath(stack) or stack, replace(options, dtype=None)


def save(stack: Stack, options: SaveOptions, report: Report, *, overwrite: bool = True) -> Saved:
    """Write the file, and read it back if that is wanted.

    Parameters
    ----------
    stack : Stack
        What to save.
    options : SaveOptions
        Where and how.
    report : callable
        Told of every frame.
    overwrite : bool
        Replace what is there.

    Raises
    ------
    MrczError
        If it cannot be written; what was there before is still there.
    Cancelled
        If `report` raised it while writing; the same. While verifying it ends that alone.
    """
    start = time.perf_counter()
    write(
        options.path,
        stack,
        codec=options.encoding.codec,
        level=options.level,
        filter=options.filter,
        block_size=options.block_size,
        dtype=None if options.dtype == KEPT else options.dtype,
        keep="counts" if options.dtype == KEPT else "values",
        progress=lambda done, total: report(SAVING, done, total),
        overwrite=overwrite,
    )
    seconds = time.perf_counter() - start
    checked = None
    if options.verify:
        with contextlib.suppress(Cancelled):
            checked = verify(
                options.path, progress=lambda done, total: report(VERIFYING, done, total)
            )
    path = Path(options.path)
    return Saved(path, path.stat().st_size, stack.nbytes, seconds, checked)


def dtype_choices(
    dtype: np.dtype, compressed: bool, counts: np.dtype | None = None
) -> list[tuple[str, str | None]]:
    """Return pixel types to choose from, as (what is shown, what is meant).

    Parameters
    ----------
    dtype : dtype
        Of the frames.
    compressed : bool
        Whether the file is.
    counts : dtype, optional
        Of the integers beneath gain and KOMA.
    """
    choices: list[tuple[str, str | None]] = [(f"{dtype} (unchanged)", None)]
    if counts is not None and compressed:
        choices.append((f"counts ({counts}), gain beside the file", KEPT))
    if dtype.kind == "c":
        names = ["complex64"]
    else:
        names = list(_DTYPES)
        if not compressed:  # compressed, 8 bits take less than packed 4 bits
            choices.append(("4 bits, 0 to 15", "uint4"))
    return choices + [(name, name) for name in names if name != dtype.name]


def suggest_path(stack: Stack, name: str, folder: Path | None, suffix: str) -> str:
    """Return a path for a layer: in `folder`, else beside its source; not the source itself."""
    source = Path(stack.path).absolute() if stack.path else None
    if folder is None:
        beside = source is not None and not source.is_relative_to(cache_folder())
        folder = source.parent if source is not None and beside else Path.home()
    # No spaces, which shells and other programs trip over; "movie, normalised" has a comma, too.
    stem = re.sub(r"[\s,_]+", "_", legal_stem(name)).strip("_") or "movie"
    path = folder / f"{stem}{suffix}"
    if path.absolute() == source:
        path = path.with_stem(f"{path.stem}-copy")
    return str(path)


def _above_text(ratio: float) -> str:
    least = "the theoretical minimum"
    if ratio > 2:
        return f"{ratio:.3g} times {least}"
    return f"{ratio - 1:.0%} above {least}" if ratio > 1.005 else f"at {least}"


def _ratio_text(memory_nbytes: float, nbytes: float) -> str:
    ratio = memory_nbytes / nbytes
    if 0.995 <= ratio <= 1.005:
        return "as large as in memory"
    if ratio > 1:
        return f"{ratio:.3g} times smaller than in memory"
    return f"{1 / ratio:.3g} times larger than in memory"
