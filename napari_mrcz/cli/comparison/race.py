"""The article's Table 1 for one movie: sizes and times, taken in turns, beside copying the file."""

from __future__ import annotations

import math
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.cli.comparison.contestants import Contestant, flush
from napari_mrcz.errors import MrczError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Frames = npt.NDArray[Any]


@dataclass(frozen=True)
class Result:
    """How one way to store a movie fared.

    Attributes
    ----------
    name : str
        Which.
    nbytes : int
        Size of its file.
    ratio : float
        Bytes in memory over bytes on disk.
    write_s, read_s : float
        Medians in seconds; written includes being on disk, read is from the system's memory.
    """

    name: str
    nbytes: int
    ratio: float
    write_s: float
    read_s: float


def race(
    frames: Frames,
    contestants: Sequence[Contestant],
    *,
    rounds: int = 3,
    folder: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Result]:
    """Write and read a movie in several ways, in turns, and compare what comes back.

    The last line is that of copying the uncompressed file, the least a disk takes.

    Parameters
    ----------
    frames : ndarray, shape (n, y, x)
        The movie.
    contestants : sequence of Contestant
        The ways.
    rounds : int
        Turns; times are medians over them.
    folder : Path, optional
        On the disk to be measured; the system's temporary one by default.
    progress : callable, optional
        Called with (name, done, of how many).

    Raises
    ------
    MrczError
        If a way does not give back what it was given.
    """
    times: dict[str, tuple[list[float], list[float]]] = {c.name: ([], []) for c in contestants}
    sizes: dict[str, int] = {}
    copying: tuple[list[float], list[float]] = [], []
    steps, done = rounds * len(contestants), 0
    with tempfile.TemporaryDirectory(dir=folder, prefix="napari-mrcz-bench-") as inside:
        for _ in range(rounds):
            for number, contestant in enumerate(contestants):
                path = Path(inside, f"{number}{contestant.suffix}")
                written, found = times[contestant.name]
                written.append(_timed(partial(contestant.write, path, frames)))
                start = time.perf_counter()
                back = contestant.read(path)
                found.append(time.perf_counter() - start)
                if not _equal(back.reshape(frames.shape), frames):
                    raise MrczError(path, f"{contestant.name} gives other pixels than it was given")
                sizes[contestant.name] = path.stat().st_size
                del back
                for leftover in Path(inside).iterdir():
                    leftover.unlink()
                done += 1
                if progress is not None:
                    progress(contestant.name, done, steps)
            _copy(Path(inside), frames, copying)
    results = [
        Result(
            name,
            sizes[name],
            frames.nbytes / sizes[name],
            statistics.median(written),
            statistics.median(found),
        )
        for name, (written, found) in times.items()
    ]
    copy_s, read_s = (statistics.median(t) for t in copying)
    return [*results, Result("copying the plain file", frames.nbytes, 1.0, copy_s, read_s)]


def as_text(results: Sequence[Result], *, markdown: bool = False) -> str:
    """Give results as a table, for people or for a page."""
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
    if markdown:
        lines = [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
        return "\n".join(lines)
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    )


def _figures(value: float) -> str:
    """Give three figures, all of a large number, and no powers of ten."""
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

    times[0].append(_timed(copy_it))
    times[1].append(_timed(lambda: np.fromfile(copy, frames.dtype)))
    plain.unlink()
    copy.unlink()


def _equal(one: Frames, other: Frames) -> bool:
    return np.array_equal(one, other, equal_nan=other.dtype.kind in "fc")


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
