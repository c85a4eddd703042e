"""One movie written anew: compressed, decompressed, grouped, decimated, in another format."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.batch.outcome import Outcome
from napari_mrcz.batch.task import check_paths, staged
from napari_mrcz.doctor import SURPLUS, diagnose
from napari_mrcz.errors import MrczError, MrczWarning
from napari_mrcz.stack import Stack, write
from napari_mrcz.stack import open as open_stack
from napari_mrcz.stack.grouping import grouped
from napari_mrcz.threads import in_order, processors

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_mrcz.batch.task import Report

__all__ = ["Recode"]

Frame = npt.NDArray[Any]


@dataclass(frozen=True)
class Recode:
    """Reads one file and writes another. Call it, here or on another machine.

    Attributes
    ----------
    source, target : str
        The files.
    codec, level, filter, block_size, dtype, threads, overwrite
        As `napari_mrcz.write` takes them.
    group : int
        Frames that are summed into one.
    decimate : str
        Gain reference by which a gain-normalised float movie is divided to get its counts back;
        empty for none.
    verify : bool
        Read the result back and compare every pixel with the source.
    delete : bool
        Delete the source, if what was verified is the same and all that the source has: one that
        was cut off, or holds more than its header says, is kept.
    """

    source: str
    target: str
    codec: str = "auto"
    level: int = 1
    filter: str = "auto"
    block_size: int | str = "auto"
    dtype: str | None = None
    group: int = 1
    decimate: str = ""
    threads: int | None = None
    overwrite: bool = False
    verify: bool = False
    delete: bool = False

    def __call__(self, report: Report | None = None) -> Outcome:
        """Read one file and write the other.

        Parameters
        ----------
        report : callable, optional
            Called with (stage, frames done, frames).

        Raises
        ------
        MrczError
            If it cannot be done; the source is as it was.
        """
        start = time.perf_counter()
        if self.delete and (self.group > 1 or not self.verify):
            raise ValueError(
                "a source is deleted only where the result was verified to be the same"
            )
        check_paths(self.source, self.target)
        movie, odd = _opened(self.source)
        with movie:
            wanted = self._wanted(movie)
            write(
                self.target,
                wanted,
                codec=self.codec,
                level=self.level,
                filter=self.filter,
                block_size=self.block_size,
                dtype=self.dtype,
                threads=self.threads,
                overwrite=self.overwrite,
                progress=staged(report, "writing"),
            )
            notes = []
            if self.verify:
                _compare(self.target, wanted, staged(report, "verifying"))
                notes.append("verified: every pixel is the same")
        before = Path(self.source).stat().st_size
        if self.delete and odd:
            notes.append(f"source kept, as it is not whole: {odd}")
        elif self.delete:
            try:
                os.remove(self.source)
            except OSError as error:
                found = f"cannot be deleted: {error.strerror}"
                advice = f"It was verified and is whole in {self.target}"
                raise MrczError(self.source, found, advice=advice) from error
            notes.append("source deleted")
        after = Path(self.target).stat().st_size
        seconds = time.perf_counter() - start
        return Outcome(self.source, self.target, "", before, after, seconds, tuple(notes))

    def _wanted(self, movie: Stack) -> Stack:
        if self.decimate:
            from napari_mrcz.correction import decimate
            from napari_mrcz.correction.gain import fitted_gain
            from napari_mrcz.references import read_reference

            reference = read_reference(self.decimate)
            try:
                gain = fitted_gain(reference, movie.shape[1:])
            except ValueError as error:
                advice = "Name the one that this movie was multiplied by, lying as its frames do"
                raise MrczError(self.decimate, str(error), advice=advice) from error
            movie = decimate(movie, gain)
        return grouped(movie, self.group) if self.group > 1 else movie


def _opened(source: str) -> tuple[Stack, str]:
    """Open a movie, and say what is in the file that will not be in a copy, or should have been."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        movie = open_stack(source)
    for warning in caught:
        warnings.warn(warning.message, warning.category, stacklevel=3)
    ours = (warning.message for warning in caught if issubclass(warning.category, MrczWarning))
    odd = [str(message).removeprefix(f"{movie.path}: ") for message in ours]
    if not odd and movie.header is not None:
        odd = [finding.sentence for finding in diagnose(source) if finding.field == SURPLUS]
    return movie, "; ".join(odd)


def _compare(path: str, wanted: Stack, report: Callable[[int, int], None]) -> None:
    """See that a file holds what was meant to be written: its checksums, and pixel by pixel.

    Raises
    ------
    MrczError
        If a frame differs; says which.
    """
    with open_stack(path) as written:
        if written.shape != wanted.shape:
            raise MrczError(path, f"{written.shape} was written, where {wanted.shape} was meant")
        pairs = zip(wanted.frame_makers(), written.frame_makers(), strict=True)
        threads = processors()
        with in_order(_same_pixels, pairs, threads, "napari-mrcz-compare") as compared:
            for index, same in enumerate(compared):
                if not same:
                    advice = "Values were rounded, or the file is damaged; the source is kept"
                    raise MrczError(path, "differs from its source", frame=index, advice=advice)
                report(index + 1, len(wanted))


def _same_pixels(makers: tuple[Callable[[], Frame], Callable[[], Frame]]) -> bool:
    one, other = (maker() for maker in makers)
    return np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
