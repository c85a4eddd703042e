"""What the "Save" widget does, without a window: options, estimate, codecs compared, saving."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from napari_mrcz.correction.options import Option
from napari_mrcz.errors import MrczError, block_text, size_text, time_text
from napari_mrcz.format import Encoding, Estimate, estimate
from napari_mrcz.format.encoding import choose_encoding, compressed_fraction, shannon_fraction
from napari_mrcz.format.header import CODECS
from napari_mrcz.format.writer import choose_storage
from napari_mrcz.naming import (
    COMPRESSED_SUFFIX,
    SUFFIXES,
    RemotePath,
    cache_folder,
    legal_stem,
    path_of,
)
from napari_mrcz.stack import Stack, VerifyReport, verify, write
from napari_mrcz.stack.keeping import counts_below, estimated_sizes, sizes_text
from napari_mrcz.widgets.base.job import Cancelled, Report

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

KEPT = "counts"
"""In the place of a pixel type: the integers under gain and KOMA (keep="counts")."""

_CODECS = {
    "zstd": "zstd, small and fast",
    "lz4": "lz4, fastest",
    "lz4hc": "lz4hc, fast to read",
    "zlib": "zlib, slow",
    "blosclz": "blosclz",
}
_FILTERS = {"auto": "automatic"} | {name: name for name in ("bitshuffle", "shuffle", "none")}
_BLOCKS = {"auto": "automatic"} | {2**k: block_text(2**k) for k in (16, 18, 20, 22)}
_DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32")


@dataclass(frozen=True)
class SaveOptions:
    """What the user has chosen, most of it as `napari_mrcz.write` takes it.

    The suffix of `path` decides whether the file is compressed. The pixel type None leaves it as
    it is; `KEPT` saves the counts under gain and KOMA.
    """

    path: str = ""
    codec: Annotated[
        str, Option("Codec", "Codec of the chunks; every MRCZ reader knows all", choices=_CODECS)
    ] = "zstd"
    level: Annotated[
        int,
        Option("Level", "From fast to small; of counts, high ones gain little", least=1, most=9),
    ] = 1
    filter: Annotated[
        str,
        Option("Filter", "How bits or bytes are rearranged; automatic tries all", choices=_FILTERS),
    ] = "auto"
    block_size: Annotated[
        Any,
        Option("Block size", "What is compressed at a time; automatic tries two", choices=_BLOCKS),
    ] = "auto"
    verify: Annotated[
        bool, Option("Verify", "Read the saved file back, and check every frame's checksum")
    ] = False
    dtype: str | None = None

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
        """Return what is wrong with the path, or nothing. One new folder is made when saving."""
        path = Path(self.path)
        if not self.path.strip() or not path.name:
            return "Choose a file to save to."
        if path.suffix.lower() not in SUFFIXES:
            return f"End the file's name in one of {' '.join(SUFFIXES)}"
        if path.is_dir():
            return "This is a folder; choose a file in it."
        if not (path.parent.is_dir() or path.parent.parent.is_dir()):
            return f"There is no folder {path.parent.parent}"
        return ""


@dataclass(frozen=True)
class FileEstimate:
    """What a file will take, in bytes: one frame; all, in memory, on disk, and at least.

    The bound is Shannon's, None if not known. `sizes` has, of a movie that may be kept as counts,
    what it takes as each pixel type.
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
            ratio = self.nbytes / self.bound_nbytes
            above = f"{ratio - 1:.0%} above" if ratio > 1.005 else "at"
            parts.append(f"{f'{ratio:.3g} times' if ratio > 2 else above} the theoretical minimum")
        if (encoding := self.frame.encoding).codec != "none":
            block = block_text(encoding.block_nbytes)
            parts.append(f"{encoding.coder}, {_filter_text(encoding.filter)}, blocks of {block}")
        text = "; ".join(parts)
        sizes = f"\nAs {sizes_text(self.sizes)}." if self.sizes else ""
        return f"{text[0].upper()}{text[1:]}.{sizes}"


@dataclass(frozen=True)
class Saved:
    """A file that was written: sizes on disk and in memory, seconds for writing alone.

    The report is of reading it back; None if that was not wanted, or cancelled.
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


def estimate_file(stack: Stack, options: SaveOptions) -> FileEstimate:
    """Compress excerpts of three frames; MrczError if they cannot be stored as wanted."""
    frames, chosen = as_saved(stack, options)
    frame = estimate(options.path, frames.sample_makers(), chosen.encoding, chosen.dtype)
    n = len(stack)
    bound = None if frame.bound_nbytes is None else n * frame.bound_nbytes
    sizes = {}
    if options.compressed and counts_below(stack) is not None:
        sizes = estimated_sizes(stack, options.encoding)
    return FileEstimate(frame, stack.nbytes, n * frame.frame_nbytes, bound, sizes)


_LEVELS = (1, 3, 5, 9)


@dataclass(frozen=True)
class Trial:
    """What one choice came to.

    It is coded by the codec, or by our own encoder for counts; `ratio` is bytes in memory over
    bytes on disk, `rate` bytes a second in one thread.
    """

    codec: str
    level: int
    filter: str
    coder: str
    ratio: float
    rate: float

    def __str__(self) -> str:
        """Return it in a line."""
        how = f"{self.coder}, level {self.level}, {_filter_text(self.filter)}"
        return f"{how}: {self.ratio:.3g} to 1 at {self.rate / 1e6:.0f} MB/s a thread"


@dataclass(frozen=True)
class Exploration:
    """All choices tried on a movie, and the largest ratio that independent pixels allow."""

    trials: tuple[Trial, ...]
    bound: float | None


def explore(stack: Stack, options: SaveOptions, report: Report) -> Exploration:
    """Try all codecs, levels and filters on excerpts of three frames, as they will be stored."""
    stack, options = as_saved(stack, options)
    plain = Encoding("zstd", 1, "none", "auto")
    path, samples = options.path or "movie", stack.sample_makers()
    storage, excerpts = choose_storage(path, samples, options.dtype, plain, wide=False)
    frame_nbytes = storage.shape[0] * storage.shape[1] * storage.stored.itemsize
    filters = ["bitshuffle", "none", *(["shuffle"] if storage.stored.itemsize > 1 else [])]
    choices = list(product(CODECS, _LEVELS, filters))
    trials, nbytes = [], sum(pixels.nbytes for pixels in excerpts)
    for done, (codec, level, filter_) in enumerate(choices):
        report("Trying compression", done, len(choices))
        wanted = Encoding(codec, level, filter_, options.block_size)
        chosen = choose_encoding(wanted, excerpts, frame_nbytes)
        start = time.perf_counter()
        fraction = compressed_fraction(chosen, excerpts)
        rate = nbytes / (time.perf_counter() - start)
        trials.append(Trial(codec, level, filter_, chosen.coder, 1 / fraction, rate))
    bound = shannon_fraction(excerpts)
    report("Trying compression", len(choices), len(choices))
    return Exploration(tuple(trials), 1 / bound if bound else None)


def as_saved(stack: Stack, options: SaveOptions) -> tuple[Stack, SaveOptions]:
    """Return the frames that are stored, and the options with the pixel type of these."""
    if options.dtype != KEPT:
        return stack, options
    return counts_below(stack) or stack, replace(options, dtype=None)


def save(stack: Stack, options: SaveOptions, report: Report, *, overwrite: bool = True) -> Saved:
    """Write the file, in a new folder if there is none, and read it back if that is wanted.

    Raises
    ------
    MrczError
        If it cannot be written; what was there before is still there.
    Cancelled
        If `report` raised it while writing; the same. While verifying it ends that alone.
    """
    start = time.perf_counter()
    path = Path(options.path)
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise MrczError(path, f"its folder cannot be made: {error.strerror}") from error
    write(
        options.path,
        stack,
        codec=options.encoding.codec,
        level=options.level,
        filter=options.filter,
        block_size=options.block_size,
        dtype=None if options.dtype == KEPT else options.dtype,
        keep="counts" if options.dtype == KEPT else "values",
        progress=partial(report, "Saving frame"),
        overwrite=overwrite,
    )
    seconds = time.perf_counter() - start
    checked = None
    if options.verify:
        with contextlib.suppress(Cancelled):
            checked = verify(path, progress=partial(report, "Verifying frame"))
    return Saved(path, path.stat().st_size, stack.nbytes, seconds, checked)


def dtype_choices(
    dtype: np.dtype, compressed: bool, counts: np.dtype | None = None
) -> list[tuple[str, str | None]]:
    """Return pixel types to choose from, as (what is shown, what is meant).

    Of frames of a type, in a compressed file or not, above counts of another type or not.
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
    source = path_of(stack.path).absolute() if stack.path else None
    if isinstance(source, RemotePath):
        source = None
    if folder is None:
        beside = source is not None and not source.is_relative_to(cache_folder())
        folder = source.parent if source is not None and beside else Path.home()
    # No spaces, which shells and other programs trip over; "movie, normalised" has a comma, too.
    stem = re.sub(r"[\s,_]+", "_", legal_stem(name)).strip("_") or "movie"
    path = folder / f"{stem}{suffix}"
    if path.absolute() == source:
        path = path.with_stem(f"{path.stem}-copy")
    return str(path)


def _filter_text(filter_: str) -> str:
    return "no filter" if filter_ == "none" else filter_


def _ratio_text(memory_nbytes: float, nbytes: float) -> str:
    ratio = memory_nbytes / nbytes
    if 0.995 <= ratio <= 1.005:
        return "as large as in memory"
    if ratio > 1:
        return f"{ratio:.3g} times smaller than in memory"
    return f"{1 / ratio:.3g} times larger than in memory"
