"""How things are measured here: two ways of doing one job, in turns, in one run, by their medians.

Machines are noisy and differ; the ratio of two medians taken in turns is what stays.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
import tracemalloc
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mrcz.format.machine import processors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Row", "in_turns", "median_of", "peak_nbytes", "stamp", "table"]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    what, against : str
        The job, and what it is measured against.
    measured : float
        The ratio.
    unit : str
        What the ratio counts.
    least, most : float, optional
        The budget; neither where a figure is only told.
    spread : tuple of float, optional
        Lowest and highest of several runs, of which `measured` is the median.
    """

    what: str
    against: str
    measured: float
    unit: str
    least: float | None = None
    most: float | None = None
    spread: tuple[float, float] | None = None

    @property
    def holds(self) -> bool:
        """The budget is met."""
        low = self.least is None or self.measured >= self.least
        return low and (self.most is None or self.measured <= self.most)

    def __str__(self) -> str:
        bounds = []
        if self.least is not None:
            bounds.append(f"≥ {self.least:.4g}")
        if self.most is not None:
            bounds.append(f"≤ {self.most:.4g}")
        met = ("yes" if self.holds else "**no**") if bounds else ""
        value, spread, unit = self.measured, self.spread, self.unit
        if unit == "× faster" and value < 1:
            value, unit = 1 / value, "× slower"
            spread = None if spread is None else (1 / spread[1], 1 / spread[0])
        runs = "" if spread is None else " ({:.3g}–{:.3g})".format(*spread)  # noqa: RUF001
        measured = f"{value:.3g}{runs} {unit}"
        return f"| {self.what} | {self.against} | {' '.join(bounds)} | {measured} | {met} |"


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table, with when and on what they were measured."""
    head = "| what | against | budget | measured | met |\n|---|---|---|---|---|"
    return "\n".join([head, *map(str, rows), "", stamp()])


def stamp() -> str:
    """Return a line of date, commit and machine."""
    git = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)  # noqa: S603
    models = [line for line in _lines_of("/proc/cpuinfo") if line.startswith("model name")]
    model = models[0].partition(":")[2].strip() if models else platform.processor()
    return (
        f"*{date.today()}, commit {found.stdout.strip() or 'unknown'}; {processors()} processors "
        f"({model}), {platform.system()}, Python {platform.python_version()}, "
        f"numpy {np.__version__}.*"
    )


def _lines_of(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def median_of(runs: list[list[Row]]) -> list[Row]:
    """Return the rows of several runs as one: their medians, with lowest and highest."""
    if len(runs) == 1:
        return runs[0]
    found = []
    for rows in zip(*runs, strict=True):
        every = sorted(row.measured for row in rows)
        middle = statistics.median(every)
        found.append(replace(rows[0], measured=middle, spread=(every[0], every[-1])))
    return found


def in_turns(
    *jobs: Callable[[], object], rounds: int = 7, before: Callable[[], object] | None = None
) -> list[float]:
    """Run the jobs in turns and return the median time of each, in seconds.

    `before` is called before each job and not timed.
    """
    times: list[list[float]] = [[] for _ in jobs]
    for _ in range(rounds):
        for job, taken in zip(jobs, times, strict=True):
            if before is not None:
                before()
            start = time.perf_counter()
            job()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def peak_nbytes(job: Callable[[], object]) -> int:
    """Return the most memory that a job took at once: what it allocated, or what it filled.

    Allocations are followed by tracemalloc, which does not know of memory mapped from the system;
    what was filled of any memory is known to Linux alone.
    """
    clear, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    filled = 0
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        if clear.exists():
            clear.write_text("5")  # the peak so far is forgotten
            filled = -_nbytes_in(status)
        job()
        if clear.exists():
            filled += _nbytes_in(status)
        return max(filled, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()


def _nbytes_in(status: Path) -> int:
    """Return the peak of the memory that this process has filled."""
    lines = status.read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
