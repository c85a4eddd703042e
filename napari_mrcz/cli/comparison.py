"""MRCZ compared with other ways to store a movie: Table 1, figures 2 and 3 of the article.

McLeod et al. (2018), doi:10.1016/j.jsb.2017.11.012. The table: sizes, and times relative to copying
the file. The figures: size and speed by dose, level, threads, block and metadata.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError
from napari_mrcz.format.chunks import compress
from napari_mrcz.format.encoding import (
    COUNT_CODER,
    Encoding,
    choose_encoding,
    excerpt,
    shannon_fraction,
)
from napari_mrcz.format.machine import in_order, processors
from napari_mrcz.stack import read, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Frames = npt.NDArray[Any]

_FOUR_BITS = 15
_COPYING = "copying the plain file"
# What `mrcz` stores as it is given.
_MRCZ = [np.dtype(name) for name in ("i1", "i2", "u2", "i4", "u4", "f4", "c8")]
# Packers read a plain file and write another; the levels are those of the article's Table 1.
_PACKERS = {
    "pigz": (["pigz", "--fast", "--keep", "--force"], ["pigz", "-d"], ".gz"),
    "lbzip2": (["lbzip2", "-9", "--keep", "--force"], ["lbzip2", "-d"], ".bz2"),
    "xz": (["xz", "-6", "--threads=0", "--keep", "--force"], ["xz", "-d"], ".xz"),
}
_write = partial(write, overwrite=True)


@dataclass(frozen=True)
class Contestant:
    """One way to store a movie."""

    name: str  # Program, codec and level
    suffix: str  # Of its file
    # Called with (path, frames), and with (path); files are flushed to the disk
    write: Callable[[Path, Frames], None]
    read: Callable[[Path], Frames]


def contestants(frames: Frames, *, slow: bool = False) -> Iterator[Contestant]:
    """Yield the ways that can store these frames and whose programs are installed.

    `frames` (n, y, x): integer counts; `slow`: also those that take minutes.
    """
    small = frames.dtype.kind in "iu" and 0 <= frames.min() and frames.max() <= _FOUR_BITS
    yield Contestant("MRC, uncompressed", ".mrc", partial(_write, codec="none"), read)
    if small:
        yield Contestant("MRC, 4 bits", ".mrc", partial(_write, codec="none", dtype="uint4"), read)
    for codec, level in (("lz4", 9), ("zstd", 1), ("zstd", 5)):
        wanted = partial(_write, codec=codec, level=level)
        yield Contestant(f"MRCZ, {codec}-{level}", ".mrcz", wanted, read)
    if find_spec("mrcz") is not None and _signed(frames).dtype in _MRCZ:
        yield Contestant(
            "mrcz, zstd-1", ".mrcz", _write_mrcz,
            lambda path: np.asarray(import_module("mrcz").readMRC(str(path))[0]),
        )  # fmt: skip
    for name, codec in (("deflate", "zlib"), ("LZW", "lzw")):
        if codec == "zlib" or find_spec("imagecodecs") is not None:
            wanted = partial(_write_tiff, codec=codec)
            yield Contestant(f"TIFF, {name}", ".tif", wanted, import_module("tifffile").imread)
    for name, (pack, unpack, suffix) in _PACKERS.items():
        if shutil.which(name) and (slow or name != "xz"):
            yield Contestant(
                f"MRC + {name}",
                f".mrc{suffix}",
                partial(_pack, command=pack),
                partial(_unpack, command=unpack),
            )


def flush(path: Path) -> None:
    """Flush a file to the disk, as `write` does by itself."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _write_mrcz(path: Path, frames: Frames) -> None:
    import mrcz  # type: ignore[import-untyped]

    mrcz.writeMRC(_signed(frames), str(path), compressor="zstd", clevel=1)
    flush(path)


def _write_tiff(path: Path, frames: Frames, codec: str) -> None:
    import tifffile

    tifffile.imwrite(path, frames, compression=codec, photometric="minisblack")
    flush(path)


def _pack(path: Path, frames: Frames, command: list[str]) -> None:
    plain = path.with_suffix("")
    _write(plain, frames, codec="none")
    subprocess.run([*command, str(plain)], check=True, capture_output=True)  # noqa: S603
    flush(path)


def _unpack(path: Path, command: list[str]) -> Frames:
    plain = path.with_name(f"unpacked-{path.stem}")
    with path.open("rb") as packed, plain.open("wb") as file:
        subprocess.run(command, stdin=packed, stdout=file, check=True)  # noqa: S603
    return read(plain)


def _signed(frames: Frames) -> Frames:
    """Return uint8 as the int8 that `mrcz` has, where it fits."""
    fits = frames.dtype == np.uint8 and frames.max() <= np.iinfo(np.int8).max
    return frames.view(np.int8) if fits else frames


@dataclass(frozen=True)
class Result:
    """Size and times of one way to store a movie."""

    name: str  # Name of the way to store it.
    nbytes: int  # Size of its file.
    ratio: float  # Bytes in memory over bytes on disk.
    write_s: float  # Median time to write it, until it is on the disk, in seconds.
    read_s: float  # Median time to read it from the system's memory, in seconds.


def race(
    frames: Frames,
    contestants: Sequence[Contestant],
    *,
    rounds: int = 3,
    folder: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Result]:
    """Write and read a movie in several ways, in turns, and compare what comes back.

    The last result is that of copying the uncompressed file, the least a disk takes.

    `frames` (n, y, x): the movie; `rounds`: turns; times are medians over them; `folder`: on the
    disk to be measured; the system's temporary one by default; `progress`: called with (name, done,
    total). Raise `MrczError` if a way does not return the frames that it was given.
    """
    names = [*(contestant.name for contestant in contestants), _COPYING]
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in names}
    sizes = {_COPYING: frames.nbytes}
    steps, done = rounds * len(contestants), 0
    with tempfile.TemporaryDirectory(dir=folder, prefix="napari-mrcz-bench-") as inside:
        for _ in range(rounds):
            for number, contestant in enumerate(contestants):
                path = Path(inside, f"{number}{contestant.suffix}")
                written, found = times[contestant.name]
                write_s, _ = _timed(partial(contestant.write, path, frames))
                read_s, back = _timed(partial(contestant.read, path))
                written.append(write_s)
                found.append(read_s)
                has_nan = frames.dtype.kind in "fc"
                if not np.array_equal(back.reshape(frames.shape), frames, equal_nan=has_nan):
                    raise MrczError(path, f"{contestant.name} gives other pixels than it was given")
                sizes[contestant.name] = path.stat().st_size
                del back
                for leftover in Path(inside).iterdir():
                    leftover.unlink()
                done += 1
                if progress is not None:
                    progress(contestant.name, done, steps)
            _copy(Path(inside), frames, times[_COPYING])
    return [
        Result(
            name,
            sizes[name],
            frames.nbytes / sizes[name],
            statistics.median(written),
            statistics.median(found),
        )
        for name, (written, found) in times.items()
    ]


def as_text(results: Sequence[Result]) -> list[str]:
    """Return results as the lines of a table."""
    head = ("way to store", "MB", "ratio", "write (s)", "read (s)", "write speed", "read speed")
    copy = results[-1]
    rows = [
        (
            r.name,
            _figures(r.nbytes / 1e6),
            f"{r.ratio:.2f}",
            _figures(r.write_s),
            _figures(r.read_s),
            f"{_figures(copy.write_s / r.write_s)} x copying",
            f"{_figures(copy.read_s / r.read_s)} x plain",
        )
        for r in results
    ]
    first, *widths = (max(map(len, column)) for column in zip(head, *rows, strict=True))
    return [
        "  ".join([name.ljust(first), *map(str.rjust, cells, widths)])
        for name, *cells in (head, *rows)
    ]


def _figures(value: float) -> str:
    """Return a number with three figures, all of a large one, without powers of ten."""
    # Rounded first: 9.999 has as many digits as 10.
    digits = 2 - math.floor(math.log10(float(f"{value:.3g}"))) if value > 0 else 0
    return f"{value:.{max(digits, 0)}f}"


def _copy(folder: Path, frames: Frames, times: tuple[list[float], list[float]]) -> None:
    """Time the copying of the plain bytes, and reading them."""
    plain, copy = folder / "plain", folder / "copy"
    frames.tofile(plain)

    def copy_it() -> None:
        shutil.copyfile(plain, copy)
        flush(copy)

    times[0].append(_timed(copy_it)[0])
    times[1].append(_timed(lambda: np.fromfile(copy, frames.dtype))[0])
    plain.unlink()
    copy.unlink()


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that some work takes, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


CODERS = {
    **{codec: Encoding(codec, as_counts=False) for codec in ("blosclz", "lz4", "zlib", "zstd")},
    COUNT_CODER: Encoding("zstd", as_counts=True),
}
DOSES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 10.0)
LEVELS = tuple(range(1, 10))
BLOCKS = tuple(2**k for k in range(14, 24))

_SEED = 1
_ROUNDS = 3


@dataclass(frozen=True)
class Curve:
    """Compression ratio and rate against something."""

    name: str  # Of the curve
    x: tuple[float, ...]  # Dose (e⁻/pix/frame), level, threads or block size (bytes)
    ratio: tuple[float, ...]  # Bytes before over bytes after
    rate: tuple[float, ...]  # GB/s of uncompressed bytes


@dataclass(frozen=True)
class Serialisation:
    """Metadata as text or MessagePack, packed or not."""

    name: str  # Serialiser and codec
    nbytes: int  # Size
    write_s: float  # Medians in seconds
    read_s: float


def counts(dose: float, side: int) -> Frames:
    """Return a frame of counted electrons, (side, side) of uint8."""
    return np.random.default_rng(_SEED).poisson(dose, (side, side)).astype(np.uint8)


def by_dose(side: int = 2048, doses: Sequence[float] = DOSES) -> list[Curve]:
    """Return figure 2a: each coder at level 1, and Shannon's bound."""
    frames = [counts(dose, side) for dose in doses]
    curves = [_curve(name, doses, [(f, e) for f in frames]) for name, e in CODERS.items()]
    bounds = tuple(1 / (shannon_fraction([frame]) or 1.0) for frame in frames)
    return [*curves, Curve("Shannon's bound", tuple(doses), bounds, (np.nan,) * len(bounds))]


def by_level(frame: Frames, levels: Sequence[int] = LEVELS) -> list[Curve]:
    """Return figure 2b: each coder at each level."""
    return [
        _curve(name, levels, [(frame, replace(e, level=level)) for level in levels])
        for name, e in CODERS.items()
    ]


def by_block(frame: Frames, blocks: Sequence[int] = BLOCKS) -> list[Curve]:
    """Return figure 2d: each coder at level 1, bitshuffled in blocks of several sizes."""
    fitting = [block for block in blocks if block <= frame.nbytes]
    return [
        _curve(
            name,
            fitting,
            [(frame, replace(e, filter="bitshuffle", block_size=block)) for block in fitting],
        )
        for name, e in CODERS.items()
    ]


def by_threads(frame: Frames, most: int = 0) -> list[Curve]:
    """Return figure 2c: zstd-1 and lz4-9, several frames at a time, up to twice the processors."""
    threads = tuple(range(1, (most or 2 * processors()) + 1))
    curves = []
    for codec, level in (("zstd", 1), ("lz4", 9)):
        encoding = choose_encoding(Encoding(codec, level), [excerpt(frame)], frame.nbytes)
        rates = [_parallel_rate(frame, encoding, n) for n in threads]
        ratio = frame.nbytes / len(encoding.compress(frame))
        curves.append(Curve(f"{codec}-{level}", threads, (ratio,) * len(threads), tuple(rates)))
    return curves


def serialisations(nbytes: int = 25_000_000) -> list[Serialisation]:
    """Return figure 3: JSON and MessagePack of so many bytes of text, bare and packed."""
    content = _metadata(nbytes)
    serialisers: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
        "JSON": (lambda c: json.dumps(c).encode(), json.loads),
        "MessagePack": (msgpack.packb, msgpack.unpackb),
    }
    return [
        _serialised(name, *functions, content, codec)
        for name, functions in serialisers.items()
        for codec in ("", "lz4", "zstd")
    ]


def _serialised(
    name: str, dump: Callable[[Any], bytes], load: Callable[[bytes], Any], content: Any, codec: str
) -> Serialisation:
    packed = _packed(dump(content), codec)
    return Serialisation(
        f"{name}, {codec or 'bare'}",
        len(packed),
        _median(lambda: _packed(dump(content), codec)),
        _median(lambda: load(_unpacked(packed, codec))),
    )


def _curve(name: str, x: Sequence[float], cases: Sequence[tuple[Frames, Encoding]]) -> Curve:
    ratios, rates = [], []
    for frame, wanted in cases:
        encoding = choose_encoding(wanted, [excerpt(frame)], frame.nbytes)
        ratios.append(frame.nbytes / len(encoding.compress(frame)))
        seconds = _median(partial(encoding.compress, frame))
        rates.append(frame.nbytes / seconds / 1e9)
    return Curve(name, tuple(x), tuple(ratios), tuple(rates))


def _parallel_rate(frame: Frames, encoding: Encoding, threads: int) -> float:
    number = 4 * threads

    def all_of_them() -> None:
        with in_order(encoding.compress, [frame] * number, threads, "napari-mrcz-bench") as done:
            for _ in done:
                pass

    return number * frame.nbytes / _median(all_of_them) / 1e9


def _metadata(nbytes: int) -> list[dict[str, Any]]:
    """Make up the log of a microscope: names, numbers, nested lists."""
    rng = np.random.default_rng(_SEED)
    entries: list[dict[str, Any]] = []
    size = 0
    while size < nbytes:
        entry = {
            "time": f"2017-06-{len(entries) % 28 + 1:02}T12:{len(entries) % 60:02}:00",
            "stage": {axis: round(float(rng.normal()), 6) for axis in "xyzab"},
            "lens currents": [round(float(c), 4) for c in rng.normal(size=8)],
            "operator note": f"square {len(entries) // 40}, hole {len(entries) % 40}",
        }
        entries.append(entry)
        size += len(json.dumps(entry)) + 2
    return entries


def _packed(data: bytes, codec: str) -> bytes:
    if not codec:
        return data
    return compress(np.frombuffer(data, np.uint8), codec, 1, "none", 0)


def _unpacked(data: bytes, codec: str) -> bytes:
    if not codec:
        return data
    from numcodecs import blosc

    return bytes(blosc.decompress(data))


def _median(work: Callable[[], object]) -> float:
    return statistics.median(_timed(work)[0] for _ in range(_ROUNDS))


_SIZE_IN = (9.0, 7.0)
_DPI = 110


def draw_figures(frame: Frames, folder: Path, progress: Callable[[str, int, int], None]) -> None:
    """Measure and draw figures 2 and 3 into a folder.

    `frame`: measured at levels, threads and blocks; `progress`: called with (what, done, total).
    """
    progress("figure 2a: doses", 0, 5)
    doses = by_dose()
    progress("figure 2b: levels", 1, 5)
    levels = by_level(frame)
    progress("figure 2c: threads", 2, 5)
    threads = by_threads(frame)
    progress("figure 2d: blocks", 3, 5)
    draw_compression(doses, levels, threads, by_block(frame), folder / "compression.png")
    progress("figure 3: metadata", 4, 5)
    draw_serialisation(serialisations(), folder / "serialisation.png")


def draw_compression(
    dose: Sequence[Curve],
    level: Sequence[Curve],
    threads: Sequence[Curve],
    block: Sequence[Curve],
    path: Path,
) -> None:
    """Draw figure 2: ratio by dose and by level, rate by threads, both by block size."""
    figure, ((a, b), (c, d)) = _axes(2, 2)
    from matplotlib.ticker import MaxNLocator

    for curve in dose:
        style = "k--" if "Shannon" in curve.name else "o-"
        a.loglog(curve.x, curve.ratio, style, label=curve.name, markersize=4)
    _finish(a, "a", "dose (e⁻/pix/frame)", "compression ratio")
    for curve in level:
        b.plot(curve.x, curve.ratio, "o-", label=curve.name, markersize=4)
    _finish(b, "b", "compression level", "compression ratio")
    for curve in threads:
        c.plot(curve.x, curve.rate, "o-", label=curve.name, markersize=4)
    c.axvline(processors(), color="grey", linestyle=":", label="processors")
    c.set_ylim(bottom=0)
    _finish(c, "c", "threads", "rate (GB/s)")
    right = d.twinx()
    for curve in block:
        sizes = [x / 1024 for x in curve.x]
        (line,) = d.semilogx(sizes, curve.ratio, "o-", label=curve.name, markersize=4)
        right.semilogx(sizes, curve.rate, ":", color=line.get_color())
    right.set_ylabel("rate (GB/s, dotted)")
    _finish(d, "d", "block size (KiB)", "compression ratio (solid)", legend=False)
    for axis in (a.xaxis, a.yaxis):
        _plain_numbers(axis, (1.0, 2.0, 5.0))
    _plain_numbers(d.xaxis, (1.0,), base=4)
    c.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path, dpi=_DPI)


def draw_serialisation(found: Sequence[Serialisation], path: Path) -> None:
    """Draw figure 3: times and sizes of serialised metadata."""
    figure, ((a, b),) = _axes(1, 2)
    places = range(len(found))
    a.barh([p + 0.2 for p in places], [s.write_s for s in found], 0.4, label="write")
    a.barh([p - 0.2 for p in places], [s.read_s for s in found], 0.4, label="read")
    _finish(a, "a", "time (s)", "")
    b.barh(places, [s.nbytes / 1e6 for s in found], 0.6, color="grey", label="size on disk")
    _finish(b, "b", "size (MB)", "")
    for axes in (a, b):
        axes.set_yticks(places, [s.name for s in found])
        axes.invert_yaxis()
    figure.savefig(path, dpi=_DPI)


def _axes(rows: int, columns: int) -> Any:
    from matplotlib.figure import Figure

    width, height = _SIZE_IN
    figure = Figure(figsize=(width, height * rows / 2), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _plain_numbers(axis: Any, steps: Sequence[float], base: int = 10) -> None:
    """Label a logarithmic axis with 0.1, 2, 256 rather than powers of ten."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(base, subs=steps))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def _finish(axes: Any, letter: str, x: str, y: str, *, legend: bool = True) -> None:
    axes.set_title(letter, loc="left", fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if legend:
        axes.legend(fontsize=8)
