"""Pixels far from their expected value: single outliers, clusters, lines, or parts of an image.

Single outliers are found by thresholds. Groups are judged by what no specimen can cause:

* dark ones that count nothing at all, in a place as narrow as a cluster or a line, are dead; the
  darkest specimen lets some electrons through;
* bright ones far above all of the image, in such a place, are hot; but not those that are bright in
  a few frames only and have a profile, or are peaks like many others, as Bragg spots;
* other groups are an edge, a bead, a corner of something, and left alone.

Areas wider than a line are found by their shape (`find_areas`): nothing but a part of a camera is a
rectangle along rows and columns, of one level, with sharp edges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

from napari_mrcz.correction.outliers.counts import (
    Area,
    SummedCounts,
    frame_reader,
    usual_pixels,
)
from napari_mrcz.correction.outliers.levels import NEIGHBOURS, TOUCHING, neighbours_of
from napari_mrcz.correction.sums import give_back, spread_over

# Fewest pixels of a cluster; most of a narrow place; and fewest of a cluster that affects the
# expected value of pixels beside it.
_CLUSTER, _NARROW, _LARGE = 3, 5, 5
# Part of the electrons that the darkest specimen lets through; part that dead pixels count at most;
# and probability of a darker specimen.
_DARKEST, _DEAD, _IMPROBABLE = 0.15, 0.01, 0.005
# Fringes at an edge are no brighter than so many times the brightest part of the image.
_FRINGE = 1.3
# Bright in few frames: departure of the frames' counts from a constant rate, in standard errors;
# part of the frames that is left out, and part of a constant rate's excess that is then left.
_UNSTEADY, _LEFT_OUT, _LEFT = 4.0, 0.2, 0.3
# Frames that are read, spread over the movie; counts of groups in them looked at at a time.
_SOME, _NEARLY_ALL, _AT_A_TIME = 16, 256, 2**18
MANY_SPOTS = 20
"""So many spots that are bright in a few frames only, or peaks, are not chance."""
# Least height of a peak, less a standard error, over the mean of its pixels.
_PEAK = 1.3
# Pixels beyond so many standard deviations make a group; in a dead one they count no more than this
# part of the expected electrons.
_FAR, _LIKE_DEAD = 2.7, 0.05
# Part of a dead group's pixels that are like dead ones; part of the electrons, more is no noise.
_MOST, _MOST_NOISE = 0.8, 0.15
# Pixels with less than this part of the expected electrons are dark.
_DIM = 0.5
# Places beside a small bead. A group whose surroundings have less than this part of the electrons
# there, by more than so many standard errors, is the middle of one.
_ASIDE = [(dy, dx) for dy in (-5, 0, 5) for dx in (-5, 0, 5) if dy or dx]
_SHADED, _BELOW = 0.85, 2.5
# Excess of the four nearest pixels of a spot, in standard errors; single pixels that have it by
# chance, over those that have not.
_PROFILE, _CHANCE_PROFILES = 1.0, 0.19
# Fewest pixels of a line, part of them that is found, and longest gap between. Odds that one in a
# gap is defective, before it is looked at.
_LINE, _IN_LINE, _LONGEST_GAP, _ODDS = 20, 0.75, 40, 200.0
# No deviate is farther, on either side.
_FARTHEST = 39.0

Pixels = npt.NDArray[np.intp]
Groups = npt.NDArray[np.int32]
Values = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]
Course = Callable[..., tuple[Callable[[Pixels], Values], Values]]
"""Reads pixels in at `most` so many frames, as `read_course`."""


def far_above(brightest: float, errors: float = 4.0) -> float:
    """Return the electrons beyond which a pixel is above the brightest part of an image."""
    return float(_FRINGE * brightest + errors * max(brightest, 1.0) ** 0.5)


class Verdict(NamedTuple):
    """The result of `Suspects.judged`."""

    deviate: Values  # (k,): deviates, of those in a cluster or a line that of the sum of its pixels
    left_alone: Mask  # (k,): those that are not outliers, however far they are
    more: Pixels  # (j,): pixels within clusters that were not suspects, and their deviates
    more_deviate: Values
    clusters: Pixels  # All pixels of large clusters and lines, and of spots
    spots: Pixels
    n_spots: int  # Spots of diffraction: bright in a few frames only, or peaks


@dataclass(frozen=True, eq=False)
class Suspects:
    """Pixels beyond 3 sigma."""

    shape: tuple[int, int]  # Of the image (y, x)
    pixels: Pixels  # (k,): flat indices, ascending
    deviate: Values  # (k,): from the expected value
    electrons: Values  # (k,): counted, and expected from good neighbours
    expected: Values
    company: Mask  # (k,): whether many neighbours are as far out
    profile: Values  # (k,): excess of the four nearest ones, in standard errors

    def judged(self, counts: SummedCounts, brightest: float, course: Course | None) -> Verdict:
        """Distinguish clusters, lines, spots and parts of the image.

        `counts`: the movie's sum; `brightest`: electrons in the brightest part of the image;
        `course`: reads pixels in some frames; without it all spots count as steady.
        """
        group, n_groups = self._groups()
        dark = self.deviate < 0
        size = np.bincount(group, minlength=n_groups)
        # First of all, while there is memory for the frames that are read.
        spot = np.zeros(n_groups, bool)
        if course is not None:
            spot = self._spots(group, n_groups, size, course)
        # Pixels in the shadow of a hot cluster are not part of a dead one.
        part = ~dark | (self.electrons < self.expected / 2)
        # Nor is a dim pixel that touches one.
        empty = self.electrons <= _DEAD * self.expected + self.noise
        most = np.bincount(group, empty, n_groups) >= _MOST * np.bincount(group, part, n_groups)
        part &= ~dark | empty | ~most[group]
        electrons = np.bincount(group, self.electrons * part, n_groups)
        expected = np.bincount(group, self.expected * part, n_groups)
        is_dark = np.zeros(n_groups, bool)
        is_dark[group[dark]] = True
        noise = self.noise * np.sqrt(np.bincount(group, part, n_groups))
        dead = is_dark & (electrons <= _DEAD * expected + noise)
        counted = np.maximum(np.floor(electrons[dead]), 0)
        dead[dead] = scipy.special.pdtr(counted, _DARKEST * expected[dead]) < _IMPROBABLE
        chance = 3 * np.sqrt(max(brightest, 1.0) / size)
        hot = ~is_dark & (electrons / size > _FRINGE * brightest + chance)
        cluster = (size >= _CLUSTER) & (dead | hot)
        cluster &= self._narrow(counts, group, cluster, brightest)
        cluster &= ~spot
        cluster &= self._alone(counts, group, cluster, brightest)
        together = np.bincount(group, self.deviate, n_groups) / np.sqrt(size)
        deviate = self.deviate.copy()
        # Not a good pixel that chance and the shadow of its neighbours have put beside them.
        least = (electrons / size)[group] / 2 + self.expected / 2
        least = np.minimum(least, far_above(brightest, 2.0))
        empty = self.electrons <= _LIKE_DEAD * self.expected + self.noise
        like = np.where(dark, empty, self.electrons > least)
        member = cluster[group] & like
        farther = np.abs(together[group]) > np.abs(deviate)
        deviate[member & farther] = together[group][member & farther]
        np.clip(deviate, -_FARTHEST, _FARTHEST, out=deviate)
        left_alone = ~member & (spot[group] | self.company)
        large = member & (size[group] >= _LARGE)
        # Beside a spot others are as bright.
        inside = member & (dark | (np.count_nonzero(spot) < MANY_SPOTS))
        more, more_deviate = self._within(counts, inside, deviate, brightest)
        # Pixels that were suspects on their own, too.
        at = np.isin(self.pixels, more)
        left_alone[at] = False
        clusters, spots = np.union1d(self.pixels[large], more), self.pixels[spot[group]]
        return Verdict(deviate, left_alone, more, more_deviate, clusters, spots, int(spot.sum()))

    @cached_property
    def noise(self) -> float:
        """Three standard deviations of pixels without electrons: half of them are below 0."""
        below = -self.electrons[self.electrons < 0]
        most = _MOST_NOISE * float(np.median(self.expected))
        return min(3 * float(np.median(below)) / 0.6745, most) if below.size else 0.0

    def _groups(self) -> tuple[Groups, int]:
        """Return each pixel's group, of pixels that touch and lie on one side, and their number."""
        x = self.shape[1]
        column = self.pixels % x
        dark = self.deviate < 0
        far = np.abs(self.deviate) > _FAR
        number = len(self.pixels)
        starts, ends = [], []
        # The next of the sorted pixels may be to the right; one search finds those in the next row.
        following, below = np.arange(number) + 1, np.searchsorted(self.pixels, self.pixels + x - 1)
        for at, dy, dx in ((following, 0, 1), (below, 1, -1), (below, 1, 0), (below, 1, 1)):
            some = np.minimum(at, number - 1)
            touches = self.pixels[some] == self.pixels + dy * x + dx
            at += touches
            touches &= (dark[some] == dark) & far[some] & far
            touches &= (column + dx >= 0) & (column + dx < x)
            starts.append(np.flatnonzero(touches))
            ends.append(some[touches])
        start, end = np.concatenate(starts), np.concatenate(ends)
        graph = scipy.sparse.coo_array(
            (np.ones(len(start), np.int8), (start, end)), (number, number)
        )
        n_groups, group = scipy.sparse.csgraph.connected_components(graph, directed=False)
        return group, int(n_groups)

    def _narrow(self, counts: SummedCounts, group: Groups, asked: Mask, brightest: float) -> Mask:
        """Mark groups with most pixels in a narrow place, along rows or columns."""
        some = np.flatnonzero(asked[group])
        if not some.size:
            return asked
        dark = self.deviate[some] < 0
        own, expected = self.electrons[some], self.expected[some]
        limit = np.where(
            dark,
            np.maximum(0.3 * expected, 0.1 * brightest),
            (own + np.minimum(expected, brightest)) / 2,
        )
        narrow = np.zeros(len(some), bool)
        row, column = np.divmod(self.pixels[some], self.shape[1])
        for axis in (0, 1):
            run = np.ones(len(some), np.intp)
            for direction in (-1, 1):
                steps = direction * np.arange(1, _NARROW + 1)[:, None]
                r, c = row + steps * (axis == 0), column + steps * (axis == 1)
                within = (r >= 0) & (r < self.shape[0]) & (c >= 0) & (c < self.shape[1])
                at = np.where(within, r * self.shape[1] + c, 0)
                beside = counts.raw(at) / counts.per_electron
                like = np.where(dark, beside < limit, beside > limit) & within
                run += np.logical_and.accumulate(like).sum(axis=0)
            narrow |= run <= _NARROW
        share = np.bincount(group[some], narrow, len(asked)) > 0.5 * np.bincount(
            group[some], minlength=len(asked)
        )
        return asked & share

    def _alone(self, counts: SummedCounts, group: Groups, asked: Mask, brightest: float) -> Mask:
        """Mark groups with few like them around, unlike the middle of a bead, or the beam."""
        some = np.flatnonzero(asked[group])
        near, exist = neighbours_of(self.pixels[some], self.shape, NEIGHBOURS[TOUCHING])
        # Each pixel around a group once, without the group itself.
        keys = np.unique((near * len(asked) + group[some])[exist])
        near, number = np.divmod(keys, len(asked))
        at = np.minimum(np.searchsorted(self.pixels, near), len(self.pixels) - 1)
        own = (self.pixels[at] == near) & (group[at] == number)
        near, number = near[~own], number[~own]
        members = np.bincount(group, minlength=len(asked))
        own = (np.bincount(group, self.electrons, len(asked)) / members)[number]
        expected = (np.bincount(group, self.expected, len(asked)) / members)[number]
        value = counts.raw(near) / counts.per_electron
        shade = (value < _DIM * expected) & (value > _DEAD * expected + self.noise)
        like = np.where(own < expected, shade, value > (own + np.minimum(expected, brightest)) / 2)
        of_each = np.bincount(number, minlength=len(asked))
        alone: Mask = np.bincount(number, like, len(asked)) <= of_each / 2
        # A small bead has half a shade around it, dead pixels have none.
        is_dark = np.bincount(number, own < expected, len(asked)) > 0
        row, column = np.divmod(self.pixels[some], self.shape[1])
        levels = []
        for dy, dx in _ASIDE:
            at = np.clip(row + dy, 0, self.shape[0] - 1) * self.shape[1]
            at += np.clip(column + dx, 0, self.shape[1] - 1)
            levels.append(np.bincount(group[some], counts.raw(at), len(asked))[asked])
        level = np.zeros(len(asked))
        level[asked] = np.sort(levels, axis=0)[2].clip(min=0)
        level /= members * counts.per_electron
        usual = level * of_each * is_dark
        around = np.bincount(number, value, len(asked))
        shaded = (around < _SHADED * usual) & (around < usual - _BELOW * np.sqrt(usual))
        return alone & ~shaded

    def _spots(self, group: Groups, n_groups: int, size: Pixels, course: Course) -> Mask:
        """Mark groups that are bright in a few frames only, and have a profile.

        A diffraction sweep has many, also those too faint to have a profile, and spots of a single
        frame: of such a movie (nearly) all frames are read. Of a still crystal all are steady.
        """
        bright = self.deviate > 0
        highest, has_profile = np.zeros(n_groups), np.zeros(n_groups, bool)
        some = np.flatnonzero(bright & (size[group] >= _LARGE))
        np.maximum.at(highest, group[some], self.electrons[some])
        has_profile[group[bright & (self.profile > _PROFILE)]] = True
        asked = bright & ((size > 1) | has_profile)[group]
        spot = self._unsteady(group, n_groups, asked, partial(course, most=_SOME))
        # Of hot pixels that flicker, some have a profile by chance.
        alone = spot & (size == 1)
        if (n_alone := np.count_nonzero(alone)) > 1:
            others = self._unsteady(group, n_groups, bright & ~asked, partial(course, most=_SOME))
            by_chance = _CHANCE_PROFILES * np.count_nonzero(others)
            n_alone -= round(by_chance + 2 * by_chance**0.5)
        if n_alone <= 1:
            spot &= ~alone
        if spot.sum() >= MANY_SPOTS:
            rest = bright & ~spot[group]
            spot |= self._unsteady(group, n_groups, rest, partial(course, most=_NEARLY_ALL))
        mean = np.bincount(group, self.electrons, n_groups) / size
        peak = (size >= _LARGE) & (highest - np.sqrt(highest) > _PEAK * mean)
        if np.count_nonzero(spot | peak) >= MANY_SPOTS:
            spot |= peak
        if np.count_nonzero(peak) >= MANY_SPOTS:
            spot |= (size > 1) & has_profile
        return spot

    def _unsteady(self, group: Groups, n_groups: int, asked: Mask, course: Course) -> Mask:
        """Mark groups, of the pixels asked for, that are bright in a few frames only."""
        some = np.flatnonzero(asked)
        spot = np.zeros(n_groups, bool)
        if not some.size:
            return spot
        electrons_of, share = course(self.pixels[some])
        if not len(share):
            return spot
        numbers, member = np.unique(group[some], return_inverse=True)
        order = np.argsort(member, kind="stable")
        # All groups at once would take memory.
        step = max(1, _AT_A_TIME // len(share))
        for first in range(0, len(numbers), step):
            part = numbers[first : first + step]
            start, stop = np.searchsorted(member, (first, first + step), sorter=order)
            at = order[start:stop]
            here, counted = member[at] - first, electrons_of(at)
            electrons, expected = self.electrons[some[at]], self.expected[some[at]]
            each = _flashes(counted, share, electrons, expected)
            # Spots that overlap shine up at different times.
            most = np.bincount(here, each) > np.bincount(here) / 2
            counted = np.stack([np.bincount(here, frame) for frame in counted])
            own, usual = np.bincount(here, electrons), np.bincount(here, expected)
            spot[part] = most | _flashes(counted, share, own, usual)
        return spot

    def _within(
        self, counts: SummedCounts, member: Mask, deviate: Values, brightest: float
    ) -> tuple[Pixels, Values]:
        """Return pixels beside those of clusters that are like them, though no suspects.

        They may be so deep inside that no good neighbour shows what they are.
        """
        limit = far_above(brightest, 2.0)
        side = np.zeros(0)
        pixels = np.zeros(0, np.intp)
        for sign in (-1, 1):
            some = member & (np.sign(deviate) == sign)
            if not some.any():
                continue
            known = found = self.pixels[some]
            level, own = self.expected[some], self.electrons[some]
            for _ in range(_NARROW):
                near, exist = neighbours_of(found, self.shape, NEIGHBOURS[TOUCHING])
                near, at, number = np.unique(near[exist], return_inverse=True, return_counts=True)
                # Of those that each one touches: the specimen is not the same everywhere.
                level, own = (
                    np.bincount(at, np.broadcast_to(part, exist.shape)[exist]) / number
                    for part in (level, own)
                )
                new = ~np.isin(near, known) & ~np.isin(near, counts.defects)
                near, number, level, own = near[new], number[new], level[new], own[new]
                value = counts.raw(near) / counts.per_electron
                between = np.maximum((level + own) / 2, level + 3 * np.sqrt(np.maximum(level, 1)))
                above = counts.normalised(near) > limit * counts.per_electron
                inside = (number > 1) & (value > between) | above
                empty = value <= _LIKE_DEAD * level + self.noise
                taken = inside if sign > 0 else empty
                found, level, own = near[taken], level[taken], value[taken]
                if not found.size:
                    break
                known = np.union1d(known, found)
            new_ones = np.setdiff1d(known, self.pixels[some], assume_unique=True)
            pixels = np.concatenate([pixels, new_ones])
            side = np.concatenate([side, np.full(len(new_ones), sign * _FARTHEST)])
        return pixels, side


@dataclass(frozen=True, eq=False)
class Gaps:
    """Missing pixels in lines of defective pixels that are all dark, or all bright.

    Where the specimen is thin, or the line weak, a pixel of a line may look like a good one.
    """

    pixels: Pixels  # (k,): flat indices; twice where a row and a column cross
    gap: Pixels  # (k,): number of the gap that each is in
    line: Pixels  # (gaps,): number of the line that each gap is in
    members: Pixels  # (j,): pixels that were found in these lines, and the line of each
    line_of_member: Pixels

    @classmethod
    def of(cls, found: Pixels, shape: tuple[int, int]) -> Gaps:
        """Return the gaps in rows and columns of pixels, flat indices of an image of a shape."""
        parts: list[tuple[Pixels, ...]] = [(np.zeros(0, np.intp),) * 5]
        n_gaps = n_lines = 0
        row, column = np.divmod(found, shape[1])
        for across, along, stride in ((row, column, 1), (column, row, shape[1])):
            order = np.lexsort((along, across))
            step = np.diff(along[order])
            apart = (np.diff(across[order]) != 0) | (step > _LONGEST_GAP)
            line = np.concatenate([[0], np.cumsum(apart)])[: len(order)]
            length = np.bincount(line)
            extent = np.bincount(line[1:], np.where(apart, 0, step), len(length)) + 1
            long = (extent >= _LINE) & (length >= _IN_LINE * extent)
            before = np.flatnonzero(~apart & (step > 1) & long[line[1:]])
            missing = step[before] - 1
            gap = np.repeat(np.arange(len(before)), missing)
            place = np.arange(len(gap)) - np.repeat(np.cumsum(missing) - missing, missing) + 1
            pixels = found[order[before]][gap] + stride * place
            member = long[line]
            parts.append(
                (pixels, gap + n_gaps, line[before] + n_lines,
                 found[order[member]], line[member] + n_lines)
            )  # fmt: skip
            n_gaps += len(before)
            n_lines += len(length)
        return cls(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def like_their_line(self, measured: Suspects) -> Pixels:
        """Return pixels of gaps that count as their line does, rather than as their surroundings.

        `measured`: counts and expected electrons of these pixels and the members. The likelihood
        of a whole gap's Poisson counts decides; hardly any pixel within a defective line is good.
        """

        def sums(pixels: Pixels, number: Pixels, n: int) -> tuple[Any, Any]:
            at = np.minimum(np.searchsorted(measured.pixels, pixels), len(measured.pixels) - 1)
            known = measured.pixels[at] == pixels
            electrons, expected = measured.electrons[at] * known, measured.expected[at] * known
            return np.bincount(number, electrons, n), np.bincount(number, expected, n)

        n_lines = int(self.line_of_member.max()) + 1
        electrons, expected = sums(self.members, self.line_of_member, n_lines)
        ratio = np.maximum(electrons / np.maximum(expected, 1e-9), _DEAD)[self.line]
        electrons, expected = sums(self.pixels, self.gap, len(self.line))
        likelihood = electrons * np.log(ratio) - (ratio - 1) * expected
        return np.unique(self.pixels[(likelihood > -np.log(_ODDS))[self.gap]])


def _flashes(
    values: npt.NDArray[Any], share: Values, electrons: npt.NDArray[Any], expected: npt.NDArray[Any]
) -> Mask:
    """Mark pixels that are bright in a few frames (m, k) only, and not without the brightest."""
    steady = np.maximum(np.outer(share, electrons), 1e-3)
    apart = ((values - steady) ** 2 / steady).sum(axis=0)
    unsteady = (apart - len(share)) / np.sqrt((2 + 1 / steady).sum(axis=0)) > _UNSTEADY
    usual = np.outer(share, expected[unsteady])
    excess = np.sort(values[:, unsteady] - usual, axis=0)
    rest = excess[: len(share) - max(1, round(_LEFT_OUT * len(share)))].mean(axis=0)
    steady_excess = (np.outer(share, electrons[unsteady]) - usual).mean(axis=0)
    unsteady[unsteady] = rest < _LEFT * steady_excess
    return np.asarray(unsteady)


# Fewer frames do not show that a pixel is steady.
_FEWEST = 5
_SAMPLE = 2**16


def read_course(
    movie: Any, counts: SummedCounts, pixels: Pixels, most: int
) -> tuple[Callable[[Pixels], Values], Values]:
    """Read pixels in some frames.

    `movie` (n, y, x): the frames; `counts`: their sum; `pixels` (k,): flat indices; `most`: frames
    that are read, spread over the movie. Returned are a function from indices of some of the pixels
    (j,) to their electrons (m, j), without a pedestal; `share` (m,): part of the sum's electrons
    that each frame has, by its ordinary pixels, empty if the movie has too few frames.
    """
    give_back()  # a frame is read beside the arrays of the fit
    read_frame = frame_reader(movie)
    used = np.setdiff1d(np.arange(len(movie)), counts.left_out)
    chosen = used[spread_over(len(used), most)] if len(used) >= _FEWEST else used[:0]
    # Whole rows: single pixels all over a frame would take as long as half of its pixels.
    step = max(1, counts.total.size // _SAMPLE)
    total = counts.total[::step].astype(np.float64) - counts.n_frames * counts.pedestal
    usual = usual_pixels(total, step, counts.defects)
    whole = max(float(total[usual].sum()), 1e-9)
    # As they are in the frames: electrons of all would take several times the memory.
    values, share = np.empty((len(chosen), len(pixels)), movie.dtype), np.empty(len(chosen))
    # One after the other: several at a time would take memory.
    for number, index in enumerate(chosen.tolist()):
        frame = read_frame(index)
        values[number] = frame.reshape(-1)[pixels]
        level = frame[::step][usual].astype(np.float64) - counts.pedestal
        share[number] = float(level.sum()) / whole
        del frame  # before the next one is read

    def electrons(at: Pixels) -> Values:
        found = values.take(at, axis=1).astype(np.float32)
        found -= np.float32(counts.pedestal)
        found /= np.float32(counts.per_electron)
        return found

    return electrons, np.maximum(share, 0)


# Pixels along the sides of the least area, and of a square around any of its pixels that holds so
# much of it; most places looked at, and fewest electrons of a typical pixel.
_SIDE, _SQUARE, _PLACES, _FEWEST_ELECTRONS = _NARROW + 1, 2 * _NARROW + 1, 64, 4.0
# Dark pixels of a camera with noise of its own, and bright ones, over typical ones; and standard
# errors of the latter.
_NOISY, _BRIGHT, _ERRORS = 0.2, 1.4, 3.0
# Part of a square that is alike, and touching pixels that are, at a corner, too. An area grows by
# lines of which this part is alike, and ends at one of which less than the other is.
_ALIKE, _TOUCH, _GROWS, _ENDS = 0.8, 3, 0.75, 0.3
# Lines outside of an edge that are looked at, and length of their pieces.
_MARGIN, _PIECE = 6, 16
# At a sharp edge the lines inside and outside differ from those further on by no more than these
# parts of the step, and standard errors.
_INSIDE, _OUTSIDE, _SURE = 0.03, 0.1, 3.0
# Least level around an area, over the typical one, and of its dim pieces, over the bright ones;
# level of a hot area over that; part of a dead area, and of a hot one, that is not alike. What is
# bright and wider than this may be a picture of something.
_LIT, _EVEN, _HOT, _NOT_DEAD, _NOT_HOT, _PICTURE = 0.25, 0.4, 1.5, 0.02, 0.1, 32


def find_areas(counts: SummedCounts) -> list[Area]:
    """Find rectangles wider than a line that count nothing, only one value, or far too much.

    Each holds a pixel of a coarse grid; of all others only a few are looked at.
    """
    grid = counts.part(np.s_[::_SIDE, ::_SIDE])
    typical = float(np.median(grid[:, ::4]))
    if typical < _FEWEST_ELECTRONS or min(counts.shape) < 4 * _SIDE:
        return []
    is_noisy = counts.per_electron != 1 or counts.total.dtype.kind == "f"
    dark = max(_DEAD, is_noisy * _NOISY) * typical
    bright = max(_BRIGHT * typical, typical + _ERRORS * typical**0.5)
    found: list[Area] = []
    for sign, limit in ((-1, -dark), (1, bright)):
        at = np.argwhere(sign * grid >= limit) * _SIDE
        for row, column in _squares(counts, at, sign, limit):
            if any(a.top <= row < a.bottom and a.left <= column < a.right for a in found):
                continue
            if area := _area(counts, row, column, typical):
                found.append(area)
    return found


def _squares(counts: SummedCounts, at: Pixels, sign: int, limit: float) -> list[tuple[int, int]]:
    """Return the first pixel of a square of bright (`sign` 1) or dark (-1) ones in each group.

    `at` (k, 2): rows and columns of pixels of the coarse grid that are bright or dark.
    """
    near, exist = neighbours_of(at @ (counts.shape[1], 1), counts.shape, NEIGHBOURS[TOUCHING])
    alike = (sign * counts.normalised(near) >= limit * counts.per_electron) & exist
    at = at[alike.sum(axis=0) >= _TOUCH]
    if not len(at):
        return []
    grid = np.zeros((at // _SIDE).max(axis=0) + 1, np.bool_)
    grid[tuple(at.T // _SIDE)] = True
    group, _ = scipy.ndimage.label(grid, np.ones((3, 3)))
    _, first, size = np.unique(group[grid], return_index=True, return_counts=True)
    found = []
    for place in at[first[np.argsort(-size, kind="stable")]][: 4 * _PLACES]:
        top, left = np.clip(place - _NARROW, 0, np.array(counts.shape) - _SQUARE).tolist()
        square = counts.part(np.s_[top : top + _SQUARE, left : left + _SQUARE])
        windows = np.lib.stride_tricks.sliding_window_view(sign * square >= limit, (_SIDE, _SIDE))
        share = windows.mean(axis=(2, 3))
        if share.max() >= _ALIKE:
            down, right = divmod(int(share.argmax()), share.shape[1])
            found.append((top + down, left + right))
    return found[:_PLACES]


def _area(counts: SummedCounts, row: int, column: int, typical: float) -> Area | None:
    """Return the area that a square of bright or dark pixels is a part of, if it is one."""
    own = float(np.median(counts.part(np.s_[row : row + _SIDE, column : column + _SIDE])))
    around, reach, sign = typical, 32, 1 if own > typical else -1
    while True:
        # As much of the image as it takes: most places soon show that they are something else.
        top, left = max(0, row - reach), max(0, column - reach)
        values = counts.part(np.s_[top : row + _SIDE + reach, left : column + _SIDE + reach])
        like = sign * values > sign * (max(own, 0.0) ** 0.5 + around**0.5) ** 2 / 4
        rows, columns = _grown(like, row - top, column - left)
        sides = list(zip(_sides(values, rows, columns), _sides(like, rows, columns), strict=True))
        below, right = np.subtract(counts.shape, values.shape) - (top, left)
        seen = [
            len(lines) > _MARGIN or not more
            for (lines, _), more in zip(sides, (top, below, left, right), strict=True)
        ]
        free = [side for side, known in zip(sides, seen, strict=True) if known and len(side[0]) > 1]
        pieces = np.concatenate([np.zeros(0), *(_levels(*side) for side in free)])
        if pieces.size and sign * around > sign * 1.2**sign * np.median(pieces):
            around = float(np.median(pieces))
            continue
        inside, part = values[rows, columns], like[rows, columns]
        if not all(_is_sharp(*side, inside, sign) for side in free):
            return None
        if all(seen):
            break
        reach *= 2
    if not pieces.size or around < _LIT * typical:
        return None
    around, level = float(np.median(pieces)), float(inside.mean())
    corners = int(part[[0, 0, -1, -1], [0, -1, 0, -1]].sum())
    missing = -inside[inside < 0]
    noise = 3 * float(np.median(missing)) / 0.6745 * inside.size**0.5 if missing.size else 0.0
    counted, expected = float(inside.sum()), around * inside.size
    others = inside.size - np.count_nonzero(part)
    is_dead = sign < 0 and others <= max(1, _NOT_DEAD * inside.size) and corners == 4
    is_dead &= counted <= _DEAD * expected + noise
    is_dead &= scipy.special.pdtr(max(np.floor(counted), 0), _DARKEST * expected) < _IMPROBABLE
    is_stuck = inside.min() == inside.max() and not is_dead
    is_hot = (
        sign > 0 and level > _HOT * around and others <= _NOT_HOT * inside.size and corners >= 3
    )
    low, high = np.percentile(pieces, [20, 80])
    is_even = low >= _EVEN * high
    open_ = [len(lines) > 1 for lines, _ in sides]
    # What begins at one border may be the shadow of something outside the image.
    is_whole = open_[0] == open_[1] and open_[2] == open_[3]
    is_picture = is_hot and min(inside.shape) > _PICTURE
    if not (is_dead or is_stuck or is_hot) or not (is_even or is_whole):
        return None
    return Area(
        rows.start + top, rows.stop + top, columns.start + left, columns.stop + left,
        level / around, is_even and (is_stuck or (is_whole and not is_picture)),
    )  # fmt: skip


def _grown(like: Mask, top: int, left: int) -> tuple[slice, slice]:
    """Return rows and columns that a square grows to, by lines whose pixels are like it."""

    def steps(share: Values) -> int:
        # One or two lines may differ by chance.
        ends = np.append(share < _GROWS, [True] * 3)
        return int((ends[:-2] & ends[1:-1] & ends[2:]).argmax())

    bottom, right = top + _SIDE, left + _SIDE
    for _ in range(4):
        bottom += steps(like[bottom:, left:right].mean(axis=1))
        top -= steps(like[:top, left:right][::-1].mean(axis=1))
        right += steps(like[top:bottom, right:].mean(axis=0))
        left -= steps(like[top:bottom, :left][:, ::-1].mean(axis=0))
    return slice(top, bottom), slice(left, right)


def _sides(image: npt.NDArray[Any], rows: slice, columns: slice) -> list[npt.NDArray[Any]]:
    """Return lines along each side of a rectangle, from the first inside outward."""
    sides = [image[: rows.start + 1, columns][::-1], image[rows.stop - 1 :, columns]]
    sides += [image[rows, : columns.start + 1].T[::-1], image[rows, columns.stop - 1 :].T]
    return [side[: _MARGIN + 1] for side in sides]


def _levels(lines: Values, like: Mask) -> Values:
    """Return the levels of pieces of the lines beyond an edge, pixels like the area left out."""
    beyond = slice(3 if len(lines) > 3 else -1, None)
    starts = np.arange(0, lines.shape[1], _PIECE)
    other = ~like[beyond]
    total = np.add.reduceat((lines[beyond] * other).sum(axis=0), starts)
    number = np.add.reduceat(other.sum(axis=0), starts)
    return np.asarray(total[number > 0] / number[number > 0])


def _is_sharp(lines: Values, like: Mask, inside: Values, sign: int) -> bool:
    """Return whether the level changes from one line to the next."""
    own, beyond = float(inside.mean()), _levels(lines, like)
    first, near = lines[0][like[0]], lines[1][~like[1]]
    if like[1].mean() >= _ENDS or not (beyond.size and first.size):
        return False
    around = float(np.median(beyond))
    step = abs(around - own)
    error = _SURE * float(inside.std()) / first.size**0.5
    if sign * (own - first.mean()) > _INSIDE * step + error:
        return False
    error = _SURE * (max(around, 1.0) / near.size) ** 0.5
    return bool(sign * (near.mean() - around) <= _OUTSIDE * step + error)
