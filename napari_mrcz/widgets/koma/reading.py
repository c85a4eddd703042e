"""Reading a session for KOMA: which stacks can be used, their sums, and how alike those are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.rolling import repeated_step
from napari_mrcz.errors import MrczError, error_text
from napari_mrcz.session import Session
from napari_mrcz.session.averages import kept_out, usual_shape
from napari_mrcz.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from napari_mrcz.session import Koma
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.koma.outlier_fits import OutlierFits

# Up to which radius the noise is computed without being asked: beyond, little is gained.
COMPARED = 50
# What a file that is damaged or is none of a movie can end in.
BAD_STACK = (MrczError, OSError, ValueError)


@dataclass(eq=False)
class Entry:
    """A stack in the list; known by itself, not by its name.

    Attributes
    ----------
    name : str
        Of the file or layer.
    source : str or Stack
        The file's path, or the frames themselves.
    """

    name: str
    source: str | Stack

    @property
    def path(self) -> str | None:
        """The file that its frames come from, if any."""
        return self.source.path if isinstance(self.source, Stack) else self.source


@dataclass(frozen=True, eq=False)
class Reading:
    """What reading a session has told.

    Attributes
    ----------
    entries : tuple of Entry
        Those that can be used, in order of acquisition.
    session : Session
        The same, with their sums.
    step : float
        Height of the steps of structure at the same place in all of them; 0 where there is none.
    high_contrast, cut_short, without_numbers, unusable : dict of str
        Of entries of high contrast, of those with too few frames, of those with pixels that are no
        numbers, and of those that cannot be used at all: why.
    """

    entries: tuple[Entry, ...]
    session: Session
    step: float
    high_contrast: Mapping[Entry, str]
    cut_short: Mapping[Entry, str]
    without_numbers: Mapping[Entry, str]
    unusable: Mapping[Entry, str]

    @cached_property
    def kept_out(self) -> Mapping[Entry, str]:
        """Entries that should enter no average, and why; `Koma` leaves out the same."""
        return {**self.cut_short, **self.high_contrast, **self.without_numbers}

    def covers(self, entries: Iterable[Entry]) -> bool:
        """Return whether all of them have been read."""
        return {*self.entries, *self.unusable}.issuperset(entries)

    def of(self, entries: Sequence[Entry]) -> Reading:
        """Return the same for some of the entries, one usable at least, in their order."""
        kept = set(entries)
        usable = [entry for entry in entries if entry not in self.unusable]
        at = {entry: index for index, entry in enumerate(self.entries)}
        indices = [at[entry] for entry in usable]
        return Reading(
            tuple(usable),
            self.session.chosen(indices),
            self.step,
            *(
                {entry: why for entry, why in found.items() if entry in kept}
                for found in (
                    self.high_contrast,
                    self.cut_short,
                    self.without_numbers,
                    self.unusable,
                )
            ),
        )


@dataclass(frozen=True, eq=False)
class NoiseCurve:
    """The correlated noise after KOMA by its radius (fig. 12 of the preprint).

    Attributes
    ----------
    radii : ndarray of int
        In stacks.
    noise : ndarray
        Mean R over the stacks that enter averages.
    limit : ndarray
        1/(2 a n): what an average of 2 a stacks of n frames leaves at the least.
    before : float
        Mean R without KOMA.
    """

    radii: npt.NDArray[np.int64]
    noise: npt.NDArray[np.float64]
    limit: npt.NDArray[np.float64]
    before: float

    def at(self, radius: int) -> tuple[float, float]:
        """Return noise and limit at a radius, between those computed on a straight line."""
        return tuple(  # type: ignore[return-value]
            float(np.interp(radius, self.radii, values)) for values in (self.noise, self.limit)
        )


def read_session(entries: Sequence[Entry], fits: OutlierFits | None, report: Report) -> Reading:
    """Read the sums of all stacks; those that cannot be used are named, and the rest goes on.

    Parameters
    ----------
    entries : sequence of Entry
        In order of acquisition.
    fits : OutlierFits, optional
        Filters the outliers of each stack first.
    report : callable
        Told of every frame; what it raises ends the reading.

    Raises
    ------
    MrczError
        If not a single stack can be used.
    """
    sources = [entry.source for entry in entries]
    lengths, unusable = _lengths(entries, Session(sources), report)
    session = Session(sources, prepare=None if fits is None else fits.filtered)
    # Frames are read once more where outliers are to be found.
    passes = 1 if fits is None else 2
    total, before = passes * sum(lengths.values()), 0
    for index, n_frames in lengths.items():
        entry = entries[index]
        last = before + (passes - 1) * n_frames
        told = _teller(report, "Reading", index, len(entries), last, total)
        try:
            if fits is not None:
                finding = _teller(report, "Finding outliers of", index, len(entries), before, total)
                with fits.followed(finding):
                    session.summary(index, progress=told)
            else:
                session.summary(index, progress=told)
        except BAD_STACK as error:
            unusable[entry] = _why(entry, error)
        before += passes * n_frames
        report(f"Reading stack {index + 1} of {len(entries)}", before, total)
    usable = [index for index in lengths if entries[index] not in unusable]
    if not usable:
        raise MrczError(
            None, "none of these stacks can be used", advice=next(iter(unusable.values()))
        )
    session = session.chosen(usable)
    session.covariances(  # which are kept, for the noise by the radius
        range(len(session)),
        reach=2 * COMPARED,
        progress=lambda done, rows: report("Comparing the sums", done, rows),
    )
    kept = tuple(entries[index] for index in usable)
    summaries = {i: session.summary(i) for i in range(len(session))}
    out = kept_out(
        {i: summary.n_frames for i, summary in summaries.items()},
        {i: summary.thumbnail for i, summary in summaries.items()},
    )
    return Reading(
        entries=kept,
        session=session,
        step=_step(session, [i for i in range(len(session)) if i not in out.all]),
        high_contrast={kept[i]: why for i, why in out.high_contrast.items()},
        cut_short={kept[i]: why for i, why in out.cut_short.items()},
        without_numbers={kept[i]: why for i, why in out.without_numbers.items()},
        unusable=unusable,
    )


def noise_curve(koma: Koma, radii: Sequence[int], report: Report) -> NoiseCurve:
    """Compute the noise by the radius from sums that were read.

    Parameters
    ----------
    koma : Koma
        The session, and which of its stacks enter averages.
    radii : sequence of int
        At least 1.
    report : callable
        Called while sums are compared; what it raises ends it.
    """
    told = partial(report, "Comparing the sums")
    before, *noise = koma.noise_curve([0, *radii], progress=told)
    members = (i for i in range(len(koma)) if i not in koma.left_out)
    n_frames = np.mean([koma.session.summary(i).n_frames for i in members])
    at = np.asarray(radii, np.int64)
    return NoiseCurve(at, np.array(noise), 1 / (2 * at * n_frames), float(before))


def _step(session: Session, members: Sequence[int]) -> float:
    """Find structure that is at the same place in all stacks that enter averages."""
    if len(members) < 2:
        return 0.0
    total = np.zeros(session.total(members[0]).shape)
    for index in members:
        total += session.total(index)
    return repeated_step(total)


def _lengths(
    entries: Sequence[Entry], session: Session, report: Report
) -> tuple[dict[int, int], dict[Entry, str]]:
    """Return the frames of each stack that is like most, and why others are no use."""
    shapes: dict[int, tuple[int, int, int]] = {}
    unusable: dict[Entry, str] = {}
    for index, entry in enumerate(entries):
        try:
            with session.opened(index) as stack:
                if stack.dtype.kind == "c":
                    unusable[entry] = "has complex pixels, which are no counts"
                else:
                    shapes[index] = stack.shape
        except BAD_STACK as error:
            unusable[entry] = _why(entry, error)
        report("Opening the files", index + 1, len(entries))
    rows, columns = usual_shape((y, x) for _, y, x in shapes.values())
    for index, (_, y, x) in list(shapes.items()):
        if (y, x) != (rows, columns):
            unusable[entries[index]] = (
                f"has frames of {y} × {x}, where most stacks have {rows} × {columns}"
            )
            del shapes[index]
    return {index: shape[0] for index, shape in shapes.items()}, unusable


def _teller(
    report: Report, what: str, index: int, n_stacks: int, before: int, total: int
) -> Callable[[int, int], None]:
    stage = f"{what} stack {index + 1} of {n_stacks}"
    return lambda done, of: report(stage, before + done, total)


def _why(entry: Entry, error: Exception) -> str:
    """Return why a stack cannot be read; its name stands beside it already."""
    return f"cannot be read: {error_text(error).removeprefix(f'{entry.name}: ')}"
