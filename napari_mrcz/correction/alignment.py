"""Shifts between noisy images of one drifting specimen, and how well they are known.

Each group of frames is taken for d (S moved by its shift + P) + noise: a specimen S and a fixed
pattern P, Gaussian, whose powers are measured by rings of spatial frequency, and a dose d. First
neighbours are merged two by two, as in a binary tree, by cross-correlation: where two of them are
too noisy, the correlations of neighbouring pairs are added. Then the likelihood of each shift,
given all other groups, and a prior of smooth paths are maximised in turns. How smooth is measured,
too: the result is averaged over many priors, by their evidence (C. E. Rasmussen and C. K. I.
Williams, Gaussian Processes for Machine Learning, MIT Press 2006, chapter 5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2
from scipy.ndimage import maximum_filter, uniform_filter1d

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Transform = npt.NDArray[np.complex64]
Floats = npt.NDArray[np.float64]

# Periods of the image below which frequencies are left out: there, thickness and beam vary.
HIGH_PASS = 6
# Of 1 - c², where c is the mean cosine of the phases between groups: below it the specimen and a
# fixed pattern look the same.
APART = 0.05
# Standard deviations above which power that stays in place is a fixed pattern.
SIGNIFICANT = 3.0
# Height or width in pixels of the images whose frequencies are tried first, and the error in pixels
# of the camera that is small enough to leave it at that.
_COARSEST, _ENOUGH = 1024, 0.1
# Widths of the Gaussian low-passes that neighbours are merged by, in 1/pixel of the camera, and
# pixels within which shifts are looked for.
_LOW_PASSES, _REACH = (0.05, 0.1, 0.2), 96
# Standard deviations of a peak that is not noise's, and pixels that neighbours differ by as a rule.
_CLEAR, _NEAR = 6.0, 4.0
# Neighbouring pairs whose correlations are added where one has no clear peak.
_WIDTHS = (0, 1, 3, math.inf)
# Rounds of moving all groups at most, and the largest change, in pixels, after which no more
# follows; distances at which likelihoods are computed, in the first rounds and after them.
_ROUNDS, _SETTLED = 8, 0.02
_COARSE, _FINE = np.arange(-4, 5) * 0.5, np.arange(-2, 3) * 0.25
# The prior of paths, in pixels per group: standard deviations of steps, of changes of steps, and of
# positions, to be combined; of the mean step; of the length of a decaying part of the path.
_STEPS, _BENDS, _JITTERS = (0, 0.03, 0.1, 0.3, 1, 3), (0, 0.01, 0.03, 0.1, 0.5), (0, 0.1, 0.3, 1)
_SPEED, _DECAYING, _ANYWHERE = 3.0, 10.0, 100.0
# Pixels that one round moves a group by, beyond where its likelihood is computed, at most.
_FARTHEST = 3.0
# Standard deviations that the curvature of the likelihood has where noise alone is aligned.
_BY_CHANCE = 3.6
# Part of the likelihood expected of a group below which its shift is doubted.
_UNLIKE = 0.4


@dataclass(frozen=True, eq=False)
class Spectra:
    """Transforms (`rfft2`) of the groups' sums in a window, in counts.

    `shape`: of the images (y, x); `doses` (k,): of the groups, 1 on average; `scale`: pixels of the
    camera, along y and x, in one of these; `independent`: the part of frequencies that the window
    leaves independent.
    """

    groups: list[Transform]
    shape: tuple[int, int]
    doses: Floats
    scale: Floats
    independent: float

    @property
    def frequencies(self) -> tuple[Floats, Floats]:
        """Frequencies along y, as a column, and x, as a row, in 1/pixel."""
        fy, fx = np.fft.fftfreq(self.shape[0]), np.fft.rfftfreq(self.shape[1])
        return np.asarray(fy[:, None], np.float64), np.asarray(fx[None], np.float64)


@dataclass(frozen=True, eq=False)
class Alignment:
    """Shifts of the groups, in pixels, with their mean at 0, and how well they are known.

    `error`: expected RMS distance from the truth, of shifts against the first group; `evidence`:
    logarithm of how much more likely groups are with a specimen than as noise; `unlike`: groups
    that do not correlate with the others as they should; `pattern`: whether something stays;
    `repeats`: how high the likelihood of shifts rises again away from its peak, over the peak.
    """

    shifts: Floats
    error: float
    evidence: float
    unlike: list[int]
    pattern: bool
    repeats: float


def align(spectra: Spectra, say: Callable[[str, int, int], None]) -> Alignment:
    """Estimate the shift of each group; `say` is called with (stage, groups done, groups).

    Of large images, low frequencies are enough where they show the shifts well.
    """
    coarse = _cropped(spectra)
    alignment = _refined(coarse, _merged(coarse, say), say)
    if alignment.pattern:
        # It may have held neighbours together; without what stays, only what moves can.
        still = _total(coarse.groups) / coarse.doses.sum()
        shares = zip(coarse.groups, coarse.doses, strict=True)
        moving = replace(coarse, groups=[one - np.float32(dose) * still for one, dose in shares])
        other = _refined(coarse, _merged(moving, say), say)
        alignment = max(alignment, other, key=lambda found: found.evidence)
    if coarse.shape == spectra.shape or alignment.error < _ENOUGH:
        return alignment
    return _refined(spectra, alignment.shifts / spectra.scale, say)


def _cropped(spectra: Spectra) -> Spectra:
    """Return the low frequencies: as many as an image of 1024 pixels has along its longer side."""
    share = _COARSEST / max(spectra.shape)
    if share >= 1:
        return spectra
    height, width = (2 * round(share * length / 2) for length in spectra.shape)
    rows = np.r_[0 : height // 2, spectra.shape[0] - height // 2 : spectra.shape[0]]
    groups = [one[rows, : width // 2 + 1] for one in spectra.groups]
    scale = spectra.scale * spectra.shape / np.array([height, width])
    return replace(spectra, groups=groups, shape=(height, width), scale=scale)


def phases(shift: npt.NDArray[Any], fy: npt.NDArray[Any], fx: npt.NDArray[Any]) -> Transform:
    """Return factors by which a transform becomes that of the image moved by a shift."""
    along_y = np.exp(-2j * np.pi * shift[0] * fy).astype(np.complex64)
    along_x = np.exp(-2j * np.pi * shift[1] * fx).astype(np.complex64)
    return along_y * along_x


class Rings:
    """Means over rings of frequencies as wide as one step of the image's shorter side."""

    def __init__(self, shape: tuple[int, int], fy: Floats, fx: Floats) -> None:
        self.index = np.rint(np.hypot(fy, fx) * min(shape)).astype(np.intp)
        # Frequencies that are not stored are the conjugates of those that are.
        self.weight = np.full(self.index.shape, 2, np.float32)
        self.weight[:, 0] = 1
        number = np.bincount(self.index.ravel(), self.weight.ravel())
        self.number = np.asarray(number, np.float64)
        self.inside = (np.hypot(fy * shape[0], fx * shape[1]) >= HIGH_PASS) & (
            np.hypot(fy, fx) < 0.5
        )
        number = np.bincount(self.index.ravel(), (self.weight * self.inside).ravel())
        self.inner = number / self.number  # the part of each ring that is used

    def mean(self, power: npt.NDArray[Any]) -> Floats:
        """Return the mean of each ring."""
        total = np.bincount(self.index.ravel(), (self.weight * power).ravel())
        return np.asarray(total / self.number)


def squared(transform: Transform) -> npt.NDArray[np.float32]:
    """Return the power at each frequency."""
    return np.square(transform.real) + np.square(transform.imag)


def _total(arrays: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return the sum of arrays, without a copy of all of them."""
    first, *others = arrays
    total = first.copy()
    for other in others:
        total += other
    return total


# Merging neighbours --------------------------------------------------------------------------


@dataclass
class _Node:
    """Groups that were merged: their sum, moved to where the specimen was in their middle."""

    transform: Transform
    first: int
    stop: int

    @property
    def middle(self) -> float:
        return (self.first + self.stop - 1) / 2

    def __len__(self) -> int:
        return self.stop - self.first


def _merged(spectra: Spectra, say: Callable[[str, int, int], None]) -> Floats:
    """Return rough shifts: neighbours are merged, then pairs of them, until one is left."""
    k, shape = len(spectra.groups), spectra.shape
    fy, fx = spectra.frequencies
    rings = Rings(shape, fy, fx)
    own = uniform_filter1d(rings.mean(_total(map(squared, spectra.groups))), 9)
    white = rings.inside / np.sqrt(np.maximum(own, 1e-12 * own.max()))[rings.index]
    white = white.astype(np.float32)
    scale = float(spectra.scale.mean())
    passes = [
        np.exp(-(fy**2 + fx**2) / (2 * (width * scale) ** 2)).astype(np.float32)
        for width in _LOW_PASSES
    ]
    reach = [min(length // 4, _REACH) for length in shape]
    places = [np.arange(-length, length + 1) for length in reach]
    far = places[0][:, None] ** 2 + places[1] ** 2
    prior = -1.5 * np.log1p(far / _NEAR**2)  # heavy tails: a stage may jump
    path, speed = np.zeros((k, 2)), np.zeros((k, 2))
    nodes = [_Node(one * white, g, g + 1) for g, one in enumerate(spectra.groups)]
    done = 0
    while len(nodes) > 1:
        pairs = list(zip(nodes[::2], nodes[1::2], strict=False))
        expected, surfaces = [], []
        for a, b in pairs:
            say("Aligning group", done, k)
            done += 1
            expected.append((b.middle - a.middle) * speed[a.first : b.stop].mean(axis=0))
            both = b.transform * phases(-expected[-1], fy, fx) * a.transform.conj()
            correlations = [irfft2(both * low, s=shape) for low in passes]
            surfaces.append([c[np.ix_(*places)] / max(c.std(), 1e-30) for c in correlations])
        found = _peaks(np.array(surfaces), prior)
        merged = []
        for (a, b), peak, guess in zip(pairs, found, expected, strict=True):
            offset = guess + peak - reach
            share = len(b) / (len(a) + len(b))
            path[a.first : a.stop] -= share * offset
            path[b.first : b.stop] += (1 - share) * offset
            speed[a.first : b.stop] = offset / (b.middle - a.middle)
            a.transform *= phases(share * offset, fy, fx)
            a.transform += b.transform * phases((share - 1) * offset, fy, fx)
            merged.append(_Node(a.transform, a.first, b.stop))
        nodes = merged + nodes[2 * len(pairs) :]
    return path - path.mean(axis=0)


def _peaks(surfaces: npt.NDArray[np.float32], prior: Floats) -> list[Floats]:
    """Return where each pair's correlation has its peak, as indices (y, x).

    `surfaces` (pairs, low-passes, y, x): in standard deviations. Where a pair has no clear peak of
    its own, those of more and more neighbouring pairs are added, which are as far apart.
    """
    index = np.arange(len(surfaces))
    peaks = []
    for i in index:
        for width in _WIDTHS:
            if math.isinf(width):
                weight = np.ones(len(index))
            else:
                weight = np.exp(-0.5 * ((index - i) / width) ** 2) if width else 1.0 * (index == i)
            mean = np.tensordot(weight, surfaces, 1) / math.sqrt(np.square(weight).sum())
            posterior = 0.5 * np.square(np.clip(mean, 0, None)) + prior
            low, y, x = np.unravel_index(int(posterior.argmax()), posterior.shape)
            if mean[low, y, x] > _CLEAR or len(index) == 1:
                break
        peaks.append(np.array([y, x]) + _beside(mean[low], int(y), int(x)))
    return peaks


def _beside(surface: npt.NDArray[Any], y: int, x: int) -> Floats:
    """Return how far from a pixel the peak of the parabola through it and its neighbours is."""
    offset = np.zeros(2)
    for axis, line, at in ((0, surface[:, x], y), (1, surface[y], x)):
        if 0 < at < len(line) - 1:
            below, middle, above = line[at - 1 : at + 2]
            bend = below - 2 * middle + above
            offset[axis] = np.clip((below - above) / (2 * bend), -0.5, 0.5) if bend < 0 else 0
    return offset


# Maximum likelihood --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Powers:
    """Powers per unit of dose: of the specimen, of the noise and of a pattern, by ring."""

    specimen: Floats
    noise: Floats
    pattern: Floats


def _powers(
    spectra: Spectra,
    rings: Rings,
    own: Floats,
    moved: Floats,
    stayed: Floats,
    cosine: Floats,
    blur: Floats,
) -> _Powers:
    """Split the power that groups have in common in what moved along and what stayed.

    `own`, `moved`, `stayed`, by ring: power of the groups, of their sum moved back by the shifts,
    and of their sum; `cosine`: mean cosine of the phases between two groups; `blur`: part of the
    specimen's power that each group loses by its own motion.
    """
    dose, pairs = spectra.doses.sum(), _pairs(spectra.doses)
    width = max(5, min(spectra.shape) // 64) | 1
    shared, still = (moved - own) / pairs, (stayed - own) / pairs
    own = uniform_filter1d(own, width) / dose
    # The variance of `shared` by noise alone.
    chance = 2 * np.square(own) / (rings.number * spectra.independent * pairs)
    apart = 1 - cosine**2
    # Groups that move while they are exposed are not alike: some of their power seems to stay.
    blurred = blur * np.abs(cosine * uniform_filter1d(shared, width))
    stayed = still - cosine * shared
    pattern = _pattern(rings.number, stayed, blurred, apart, chance, rings.inner > 0.5)
    shared = uniform_filter1d(shared - cosine * pattern, width)
    # Less what noise makes of it, or rings without a specimen would have one.
    chance /= width
    specimen = shared - chance / np.maximum(shared, np.sqrt(chance))
    specimen = np.clip(specimen, 0, own)
    return _Powers(specimen, np.maximum(own - specimen - pattern, 1e-3 * own.max()), pattern)


def _pattern(
    number: Floats,
    stayed: Floats,
    blurred: Floats,
    apart: Floats,
    chance: Floats,
    inside: npt.NDArray[np.bool_],
) -> Floats:
    """Return the power of what stays, by ring; 0 where noise or motion may have made it.

    It is white but for what many rings together show, as hot pixels are, and gain is nearly.
    """
    known = (inside & (apart > APART)) * number
    found, norm, spread = known @ stayed, known @ apart, np.square(known) @ (chance * apart)
    if found <= SIGNIFICANT * math.sqrt(spread) + known @ blurred:
        return np.zeros(len(number))
    white = found / norm
    smooth = partial(uniform_filter1d, size=len(number) // 12 | 1, mode="constant")
    norm = np.maximum(smooth(known * apart), 1e-9)
    more = smooth(known * (stayed - white * apart)) / norm
    spread = smooth(np.square(known) * chance * apart) / (len(number) // 12 | 1) / np.square(norm)
    sure = np.clip(1 - SIGNIFICANT * spread / np.maximum(np.square(more), 1e-30), 0, 1)
    return np.maximum(white + sure * more, 0.1 * white)


def _pairs(doses: Floats) -> float:
    return float(doses.sum() ** 2 - np.square(doses).sum())


def _refined(spectra: Spectra, path: Floats, say: Callable[[str, int, int], None]) -> Alignment:
    """Return the most likely shifts near rough ones; in each round, of each given all others."""
    doses, k = spectra.doses, len(spectra.groups)
    waves = tuple(2 * np.pi * frequency for frequency in spectra.frequencies)
    rings = Rings(spectra.shape, *spectra.frequencies)
    weight = (rings.weight * rings.inside * spectra.independent).astype(np.float32)
    of_each = _total(map(squared, spectra.groups))
    still = _total(spectra.groups)
    own, stayed = rings.mean(of_each), rings.mean(squared(still))
    each = (own / doses.sum()).astype(np.float32)[rings.index]
    priors = _priors(k)
    smooth: _Smooth | None = None
    for turn in range(_ROUNDS):
        factors = [phases(-shift, *spectra.frequencies) for shift in path]
        moved = [one * factor for one, factor in zip(spectra.groups, factors, strict=True)]
        total = _total(moved)
        turned = _total(np.float32(d) * factor for d, factor in zip(doses, factors, strict=True))
        cosine = (rings.mean(squared(turned)) - np.square(doses).sum()) / _pairs(doses)
        speed = np.square(np.gradient(path, axis=0)).mean()
        ring = 2 * np.pi * np.arange(len(own)) / min(spectra.shape)
        blur = np.minimum(np.square(ring) * speed, 1)
        powers = _powers(spectra, rings, own, rings.mean(squared(total)), stayed, cosine, blur)
        matched = weight * _matched(powers, doses).astype(np.float32)[rings.index]
        # The curvature of the likelihood, by each frequency: along an edge there is none. Along its
        # axes, errors are independent.
        bend = matched * (squared(total) - of_each) / _pairs(doses)
        values, axes = np.linalg.eigh([[(bend * a * b).sum() for b in waves] for a in waves])
        variance = 1 / (np.maximum(doses, 1e-3)[:, None] * doses.sum() * np.maximum(values, 1e-9))
        steps = _COARSE if turn < 3 else _FINE
        offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1)
        wave_y = np.exp(1j * np.outer(steps, waves[0])).astype(np.complex64)
        wave_x = np.exp(1j * np.outer(waves[1], steps)).astype(np.complex64)
        measured, likelihoods = np.empty((k, 2)), np.empty(k)
        for g, (one, factor) in enumerate(zip(moved, factors, strict=True)):
            say("Refining group", turn * k + g, _ROUNDS * k)
            if powers.pattern.any():
                others = total - one, still - spectra.groups[g], turned
                cross = weight * _beside_pattern(one, factor, *others, doses, g, powers, rings)
            else:
                cross = matched * one * (total - one).conj()
            surface = ((wave_y @ cross) @ wave_x).real.astype(np.float64)
            likelihoods[g] = surface[len(steps) // 2, len(steps) // 2]
            posterior = surface
            if smooth is not None:
                away = (path[g] + offsets) @ axes - smooth.others[g]
                posterior = surface - 0.5 * (np.square(away) / smooth.spread[g]).sum(axis=-1)
            at = np.unravel_index(int(posterior.argmax()), posterior.shape)
            y, x = np.clip(at, 1, len(steps) - 2)
            # A step of Newton's method from there; without the prior, which is added below.
            slope = [surface[y + 1, x] - surface[y - 1, x], surface[y, x + 1] - surface[y, x - 1]]
            step = variance[g] * (np.array(slope) / (2 * (steps[1] - steps[0])) @ axes)
            measured[g] = (path[g] + offsets[y, x]) @ axes + np.clip(step, -_FARTHEST, _FARTHEST)
        measured -= measured.mean(axis=0)
        smooth = _smoothed(measured, variance, priors)
        before, path = path, smooth.path @ axes.T
        if turn > 3 and np.abs(path - before).max() < _SETTLED:
            break
    assert smooth is not None  # noqa: S101
    gain = likelihoods.sum() / 2
    evidence = gain + smooth.evidence + 0.5 * np.log(2 * np.pi * variance).sum()
    # The curvature is too large by what it is where noise alone is aligned.
    spread = [np.square(matched * (a * a) * each).sum() / _pairs(doses) for a in waves]
    chance = _BY_CHANCE * math.sqrt(max(spread) / spectra.independent)
    true = np.clip(1 - np.square(chance / np.maximum(values, 1e-9)), 0.1, 1)
    error = spectra.scale.mean() * math.sqrt(_smoothed(measured, variance / true, priors).variance)
    number = rings.number * rings.inner * spectra.independent
    unlike = _unlike(likelihoods, doses, powers, number)
    repeats = _repeats(matched * (squared(total) - of_each), spectra.shape)
    shifts, pattern = path * spectra.scale, bool(powers.pattern.any())
    return Alignment(shifts, float(error), float(evidence), unlike, pattern, repeats)


def _repeats(likelihood: npt.NDArray[Any], shape: tuple[int, int]) -> float:
    """Return the height of the second highest peak of the likelihood of shifts, over the first."""
    surface = irfft2(likelihood, s=shape)
    peaks = surface == maximum_filter(surface, 3, mode="wrap")
    peaks[0, 0] = False
    return float(surface[peaks].max(initial=0) / max(surface[0, 0], 1e-30))


def _matched(powers: _Powers, doses: Floats) -> Floats:
    """Return what a cross-spectrum is weighted by, by ring, to be the logarithm of a likelihood."""
    specimen, noise = powers.specimen, powers.noise
    return specimen / (noise * (noise + doses.sum() * specimen))


def _unlike(likelihoods: Floats, doses: Floats, powers: _Powers, number: Floats) -> list[int]:
    """Return groups whose likelihood is far lower than the others' specimen would make it."""
    specimen, noise = powers.specimen, powers.noise
    others = doses.sum() - doses
    matched = number * _matched(powers, doses)
    expected = doses * others * (matched * specimen).sum()
    by_noise = np.square(matched) / np.maximum(number, 1) * (noise + specimen)
    spread = np.sqrt(
        doses * others * ((by_noise * noise).sum() + others * (by_noise * specimen).sum())
    )
    low = (likelihoods < _UNLIKE * expected) & (expected - likelihoods > _CLEAR / 2 * spread)
    return np.flatnonzero(low).tolist()


def _beside_pattern(
    moved: Transform,
    factor: Transform,
    others: Transform,
    others_still: Transform,
    turned: Transform,
    doses: Floats,
    g: int,
    powers: _Powers,
    rings: Rings,
) -> Transform:
    """Return group g's cross-spectrum with the specimen that all others show, by likelihood.

    Specimen and pattern are what least squares, with the powers known, make of the others: moved
    back by their shifts, `others`, and not moved, `others_still`. `factor`: what moves the group
    back; `turned`: the sum of those of all, times doses.
    """
    noise, pattern, dose = powers.noise, powers.pattern, float(doses[g])
    rest = doses.sum() - dose
    by_specimen = rest + noise / np.maximum(powers.specimen, 1e-6 * noise)
    by_pattern = rest + noise / pattern
    part_s, part_p, part_n = (
        one.astype(np.float32)[rings.index] for one in (by_specimen, by_pattern, noise)
    )
    between = turned - np.float32(dose) * factor
    determinant = part_s * part_p - squared(between)
    specimen = part_p * others - between.conj() * others_still
    fixed = part_s * others_still - between * others
    fixed *= np.float32(dose) * factor / determinant
    # Divided by the determinant, and by the variance of the group about what the others predict.
    specimen /= part_n * (determinant + np.float32(dose) * (part_s + part_p))
    return (moved - fixed) * specimen.conj()


# Smooth paths --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Smooth:
    """A path, averaged over priors: `others` and `spread`, as all other groups predict it.

    `variance`: expected squared distance from the truth, of shifts against the first one.
    """

    path: Floats
    others: Floats
    spread: Floats
    variance: float
    evidence: float


def _priors(k: int) -> Floats:
    """Return covariances (m, k, k) of k positions along an axis, for many kinds of paths."""
    index = np.arange(k, dtype=np.float64)
    steps = np.minimum.outer(index, index)
    low, high = steps, np.maximum.outer(index, index)
    bends = low**2 * (3 * high - low) / 6  # of integrated steps
    # Mean position and mean speed are free: what is left of each.
    line = np.stack([np.ones(k), index - index.mean()], axis=1)
    centred = np.eye(k) - 1 / k
    straight = np.eye(k) - line @ np.linalg.pinv(line)
    steps, bends = centred @ steps @ centred, straight @ bends @ straight
    free = _ANYWHERE**2 + _SPEED**2 * np.outer(line[:, 1], line[:, 1])
    decaying = [straight @ np.exp(-index / length) for length in (k / 10, k / 5)]
    trends = [np.zeros((k, k)), *(_DECAYING**2 * np.outer(one, one) for one in decaying)]
    return np.array(
        [
            free + a**2 * steps + b**2 * bends + c**2 * np.eye(k) + trend
            for a, b, c, trend in product(_STEPS, _BENDS, _JITTERS, trends)
        ]
    )


def _smoothed(measured: Floats, variance: Floats, priors: Floats) -> _Smooth:
    """Return the path (k, 2) by measured positions of known variance, averaged over priors."""
    k = len(measured)
    of_axes, evidence = [], np.zeros(len(priors))
    for position, noise in zip(measured.T, variance.T, strict=True):
        covariance = priors + np.diag(noise)
        inverse = np.linalg.inv(covariance)
        pulled = inverse @ position
        evidence -= 0.5 * (np.linalg.slogdet(covariance)[1] + pulled @ position)
        own = np.einsum("mii->mi", inverse)
        spread = np.maximum(1 / own - noise, 1e-6)
        left = np.diag(noise) - noise[:, None] * inverse * noise
        of_axes.append((position - noise * pulled, position - pulled / own, spread, left))
    weight = np.exp(evidence - evidence.max())
    mean_evidence = float(np.log(weight.mean()) + evidence.max()) - k * math.log(2 * np.pi)
    weight /= weight.sum()
    path, others, spreads = np.empty((k, 2)), np.empty((k, 2)), np.empty((k, 2))
    squared_error = 0.0
    for axis, (paths, predicted, spread, left) in enumerate(of_axes):
        path[:, axis], others[:, axis] = weight @ paths, weight @ predicted
        spreads[:, axis] = weight @ (spread + np.square(predicted - others[:, axis]))
        apart = paths - path[:, axis]
        covariance = np.tensordot(weight, left, 1) + (weight[:, None] * apart).T @ apart
        own = np.diag(covariance)
        squared_error += float((own + own[0] - 2 * covariance[0]).mean())
    centre = path.mean(axis=0)
    return _Smooth(path - centre, others - centre, spreads, squared_error, mean_evidence)
