"""The exponent of the gain reference, and how it depends on the dose rate.

McLeod et al., preprint doi:10.1101/116533, section 5.1, eqs. 10 and 11. The preprint prints one of
eq. 11's coefficients twice under the same name; here they are a1, b1, a2, a3.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import numpy.typing as npt
import scipy

from napari_mrcz.correction.noise import SCALES, Detail
from napari_mrcz.correction.orientation import middle
from napari_mrcz.correction.sums import frame_sum, ordinary_pixels, shows_nothing, spread_over
from napari_mrcz.errors import MrczError, warn

if TYPE_CHECKING:
    from os import PathLike

_PATCH = 64
# Means of 64 x 64 pixels hardly differ from one pixel to the next: every eighth will do.
_STEP = 8
_SLACK = 1.1
# Standard error above which a gamma is not determined: curves of cameras span a few tenths.
_VAGUE = 0.04
# A gamma closer to 0 than this many standard errors, and than that of any camera, shows that the
# flat does not have the reference's pattern; so does one that is closer than another limit.
_SEEN, _NONE, _NEVER = 4.0, 0.3, 0.1
# Unevenness over that of counting noise above which something else is in the flat.
_UNEVEN = 3.0
# Frames that are looked at, and fewest that show a pedestal; side of the square in their middle.
_FRAMES, _FEWEST, _SIDE = 48, 4, 512
# A smaller part of the counts, and a smaller change of gamma, are not warned of.
_LEAST_PEDESTAL, _SHIFT = 0.02, 0.01


class FittedGamma(float):
    """A fitted exponent: a float with its standard `error`, and `warnings` not to trust it."""

    error: float
    warnings: tuple[str, ...]

    def __new__(cls, value: float, error: float = 0.0, warnings: tuple[str, ...] = ()) -> Self:
        """Take a value with its error."""
        made = super().__new__(cls, value)
        made.error, made.warnings = float(error), tuple(warnings)
        return made

    def __getnewargs__(self) -> tuple[float, float, tuple[str, ...]]:  # type: ignore[override]
        return float(self), self.error, self.warnings


def fit_gamma(
    flat: Any, reference: npt.ArrayLike, *, bounds: tuple[float, float] = (-3.0, 3.0)
) -> FittedGamma:
    """Fit the exponent that flattens a flat best (eq. 10).

    Minimises std(uniform(flat * gain ** gamma, 64)), over its mean, as the mean of gain ** gamma
    changes with gamma where a reference is not normalised. Hot pixels, and those that the
    reference marks as defective, do not count.

    Parameters
    ----------
    flat : Stack or array_like, shape (n, y, x) or (y, x)
        Illuminated evenly, at one dose rate, dark subtracted.
    reference : array_like, shape (y, x)
        In the orientation of the flat.
    bounds : tuple of float
        Least and largest gamma.

    Returns
    -------
    FittedGamma
        A float with its `error` and `warnings`; within 0.01 for patterns of 3 % and 400 electrons
        on 1024 x 1024 pixels.

    Raises
    ------
    ValueError
        If shapes differ, the flat holds no counts, the reference has no pattern, or the best gamma
        lies at a bound: the reference is another camera's, or turned.

    Warns
    -----
    MrczWarning
        Each of the result's warnings: too few counts to determine gamma, a flat without the
        reference's pattern, or with something else in it, a pedestal (which only frames show, not
        their sum), or a reference of too few electrons.
    """
    fitted = Roughness(flat, reference).fit(bounds)
    for doubt in fitted.warnings:
        warn(doubt)
    return fitted


class Roughness:
    """Unevenness of a normalised flat by the exponent: the criterion of eq. 10.

    `flat`, `reference`: see `fit_gamma`, as for the errors; `frames` (n, y, x): those summed, where
    `flat` is their sum.
    """

    def __init__(self, flat: Any, reference: npt.ArrayLike, frames: Any = None) -> None:
        counts = frame_sum(flat)
        self._frames = flat if frames is None else frames
        if np.iscomplexobj(reference):
            raise ValueError("a reference has real values, not complex ones")
        gain = np.asarray(reference, np.float64)
        if gain.shape != counts.shape:
            raise ValueError(f"a reference of {gain.shape} does not fit a flat of {counts.shape}")
        self._good = np.isfinite(gain) & (gain > 0) & ordinary_pixels(counts)
        self._logarithm = np.log(np.where(self._good, gain, 1))
        self._counts = np.where(self._good, counts, 0)
        share = _patches(self._good.astype(np.float64))
        self._filled = share > 1e-6
        if not self._filled.any() or np.ptp(self._logarithm[self._good]) == 0:
            raise ValueError("the reference has no pattern that could be scaled")
        if not self._counts.mean() > 0:
            raise ValueError("the flat holds no counts")
        self._share = share[self._filled]

    def __call__(self, gamma: float) -> float:
        """Return the standard deviation of the means of 64 x 64 pixels, over their mean."""
        smooth = _patches(self._normalised(gamma))[self._filled] / self._share
        return float(smooth.std() / smooth.mean())

    def fit(self, bounds: tuple[float, float]) -> FittedGamma:
        """Return the exponent that flattens best; `ValueError` if it lies at a bound."""
        found = scipy.optimize.minimize_scalar(
            self, bounds=bounds, method="bounded", options={"xatol": 1e-4}
        )
        gamma = float(found.x)
        if min(gamma - bounds[0], bounds[1] - gamma) < 1e-2:
            raise ValueError(
                f"no gamma between {bounds[0]:g} and {bounds[1]:g} flattens this flat; "
                "the reference may be turned (find_orientation) or another camera's, or the flat "
                f"has too few counts ({self.counts:.3g} per pixel)"
            )
        return FittedGamma(gamma, self.error(gamma), self.doubts(gamma))

    def noise(self, gamma: float) -> float:
        """Return the unevenness of counting noise alone, which neighbours do not share."""
        flat = self._normalised(gamma)
        steps = np.diff(flat, axis=1)[self._good[:, 1:] & self._good[:, :-1]]
        if not steps.size:
            return 0.0
        return float(steps.std() / 2**0.5 / _PATCH / flat[self._good].mean())

    @property
    def counts(self) -> float:
        """The mean counts of a good pixel."""
        return float(self._counts[self._good].mean())

    def error(self, gamma: float) -> float:
        """Return the standard error of the exponent that flattens best.

        The unevenness that is left is as likely to lie along the reference's pattern as along any
        other in so many squares of 64 x 64 pixels.
        """
        log = np.where(self._good, self._logarithm, 0)
        pattern = float((_patches(log)[self._filled] / self._share).std())
        n_squares = max(np.count_nonzero(self._good) / _PATCH**2, 1.0)
        return self(gamma) / pattern / float(n_squares) ** 0.5 if pattern > 0 else np.inf

    def doubts(self, gamma: float) -> tuple[str, ...]:
        """Return why the exponent that flattens best should not be trusted."""
        error, noise, left = self.error(gamma), self.noise(gamma), self(gamma)
        found = f"γ {gamma:.2f} ± {error:.2g}"
        said = []
        if error > _VAGUE:
            why = (
                "The flat is uneven: use vacuum, evenly illuminated"
                if left > _UNEVEN * noise
                else f"The flat has {self.counts:.3g} counts per pixel, about "
                f"{(error / _VAGUE) ** 2:.2g} times as many are needed"
            )
            said.append(f"{found} is not determined. {why}.")
        elif left > _UNEVEN * noise:
            said.append(
                f"{found}: the normalised flat is uneven by {100 * left:.2g} %, where counting "
                f"noise makes {100 * noise:.2g} %. A specimen or uneven illumination may have "
                "changed γ."
            )
        if abs(gamma) < max(min(_SEEN * error, _NONE), _NEVER):
            said.append(
                f"{found} is not far from 0: the flat may not have the reference's pattern. The "
                "reference may be turned, another camera's, or applied already, or the flat is "
                "saturated."
            )
        else:
            said += self._doubts_of_fine(gamma)
        return tuple(said)

    def _doubts_of_fine(self, gamma: float) -> list[str]:
        """Return what single pixels and frames show against the reference and the flat."""
        said = []
        window = middle(self._counts.shape, _SIDE)
        good, counts, log = (a[window] for a in (self._good, self._counts, self._logarithm))
        detail = Detail(counts, good, SCALES[0])
        fine = detail.share(detail.pattern(np.exp(-gamma * log), good))
        # By as much the mean of gain ** gamma rises more where there were fewer electrons.
        shift = (1 - fine.value) * fine.pattern**2 * (abs(gamma) + 1) / max(2 * abs(gamma), _NEVER)
        if fine.hurts and shift > _SHIFT:
            said.append(
                f"The reference is noisy: only {100 * fine.value:.0f} % of its fine pattern "
                f"({100 * fine.pattern:.2g} %) is in the flat. γ may be wrong by {shift:.1g}. "
                "Make the reference of more electrons."
            )
        share, error = self._pedestal(window)
        if share > max(_SEEN * error, _LEAST_PEDESTAL):
            said.append(
                f"About {100 * share:.0f} ± {100 * error:.1g} % of the flat's counts are a "
                f"pedestal, without which γ would be {gamma / (1 - share):.2f}. Subtract a dark "
                "reference."
            )
        return said

    def _pedestal(self, window: tuple[slice, ...]) -> tuple[float, float]:
        """Return the share of a pedestal in the counts, and its error; 0 and 0 of few frames.

        A pedestal weakens the pattern of the counts, not that of their variance between frames.
        """
        good, frames = self._good[window], []
        if len(getattr(self._frames, "shape", ())) == 3:
            for index in spread_over(len(self._frames), _FRAMES):
                frame = np.asarray(self._frames[index])[window][good].astype(np.float32)
                if not shows_nothing(frame) and frame.mean() > 0:
                    frames.append(frame / frame.mean())
        if len(frames) < _FEWEST:
            return 0.0, 0.0
        log = self._logarithm[window][good]
        log -= log.mean()
        variance = np.var(frames, axis=0, dtype=np.float64)
        slopes = [values @ log / values.mean() for values in (self._counts[window][good], variance)]
        error = float(variance.std() / variance.mean() * (log @ log) ** 0.5)
        return float(1 - slopes[0] / slopes[1]), error / abs(float(slopes[1]))

    def _normalised(self, gamma: float) -> npt.NDArray[np.float64]:
        return self._counts * np.exp(gamma * self._logarithm)


@dataclass(frozen=True)
class GammaCurve:
    """Gamma as a function of the dose rate: a1 d^b1 + a2 d + a3 (eq. 11).

    Attributes
    ----------
    a1, b1, a2, a3 : float
        Coefficients, for d in e-/pix/s.
    lowest, highest : float
        Dose rates between which it was measured; it is valid up to a tenth beyond.
    warnings : tuple of str
        Why it should not be trusted; empty if all is well.
    """

    a1: float
    b1: float
    a2: float
    a3: float
    lowest: float
    highest: float
    warnings: tuple[str, ...] = ()

    @classmethod
    def fit(cls, dose_rates: npt.ArrayLike, gammas: npt.ArrayLike) -> Self:
        """Fit the curve to gammas measured at several dose rates.

        Parameters
        ----------
        dose_rates : array_like, shape (n,)
            In e-/pix/s, positive; at least five different ones, better a dozen.
        gammas : array_like, shape (n,)
            As `fit_gamma` returns them.

        Raises
        ------
        ValueError
            If they are too few, not finite, not positive, or no such curve fits.
        """
        rates = np.asarray(dose_rates, np.float64).ravel()
        values = np.asarray(gammas, np.float64).ravel()
        if rates.shape != values.shape or not np.isfinite([rates, values]).all():
            raise ValueError("a finite gamma for each dose rate is needed")
        # A curve of four coefficients goes through any four points.
        if len(np.unique(rates)) < 5 or rates.min() <= 0:
            raise ValueError("four coefficients need at least five different, positive dose rates")
        fit = scipy.optimize.least_squares(
            lambda best: _gamma(rates, *best) - values,
            _start(rates, values),
            method="lm",
            max_nfev=10_000,
        )
        if not fit.success or not np.isfinite(fit.x).all():
            raise ValueError(f"no curve of eq. 11 fits these gammas: {fit.message}")
        a1, b1, a2, a3 = fit.x.tolist()
        curve = cls(a1, b1, a2, a3, float(rates.min()), float(rates.max()))
        return replace(curve, warnings=_doubts_of_curve(curve, fit, gammas))

    def at(self, dose_rate: float) -> float:
        """Return gamma at a dose rate; `ValueError` beyond the measured range."""
        if not self.lowest / _SLACK <= dose_rate <= self.highest * _SLACK:
            raise ValueError(
                f"gamma was measured from {self.lowest:g} to {self.highest:g} e-/pix/s; "
                f"at {dose_rate:g} the curve means nothing"
            )
        return float(_gamma(np.float64(dose_rate), self.a1, self.b1, self.a2, self.a3))

    def __call__(self, dose_rate: float) -> float:
        """Return gamma at a dose rate, as `at` does."""
        return self.at(dose_rate)

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as JSON, all or nothing, over an existing file; `MrczError` if that fails."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_text(f"{json.dumps(asdict(self), indent=2)}\n", "utf-8")
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise MrczError(path, f"cannot be written: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a file that `save` wrote; `MrczError` if it cannot be read, or is another one."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            numbers = {f.name: float(content[f.name]) for f in fields(cls) if f.name != "warnings"}
            return cls(**numbers, warnings=tuple(map(str, content.get("warnings", ()))))
        except OSError as error:
            raise MrczError(path, f"it cannot be read ({error.strerror})") from error
        except (KeyError, TypeError, ValueError) as error:
            raise MrczError(path, f"it holds no curve of gamma ({error!r})") from error


PREPRINT_GAMMA = GammaCurve(0.12035633, -1.04171635, -0.03363192, 1.03902726, 0.25, 9.0)
"""The preprint's curve, of a K2 Summit (fig. 9)."""


def _patches(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the uniform filter over 64 x 64 pixels, at every eighth pixel each way."""
    y, x = (size // _STEP for size in image.shape)
    cells = image[: y * _STEP, : x * _STEP].reshape(y, _STEP, x, _STEP).mean(axis=(1, 3))
    return scipy.ndimage.uniform_filter(cells, _PATCH // _STEP)


def _gamma(rate: Any, a1: float, b1: float, a2: float, a3: float) -> Any:
    return a1 * rate**b1 + a2 * rate + a3


def _doubts_of_curve(curve: GammaCurve, fit: Any, gammas: npt.ArrayLike) -> tuple[str, ...]:
    """Return why a curve should not be trusted: its uncertainty, and gammas with warnings."""
    said = []
    n = fit.fun.size
    per_point = 2 * fit.cost / (n - fit.x.size)
    rates = np.geomspace(curve.lowest, curve.highest, 100)
    steps = 1e-6 * np.maximum(np.abs(fit.x), 1e-3)
    slopes = [(_gamma(rates, *(fit.x + s)) - _gamma(rates, *(fit.x - s))) / (2 * step)
              for s, step in zip(np.diag(steps), steps, strict=True)]  # fmt: skip
    covariance = per_point * np.linalg.pinv(fit.jac.T @ fit.jac)
    error = float(np.sqrt(np.einsum("ir,ij,jr->r", slopes, covariance, slopes).max()))
    if error > _VAGUE:
        said.append(
            f"The curve is uncertain by up to ± {error:.2g}: {n} gammas scatter about it by "
            f"{per_point**0.5:.2g}. Fit it to more dose rates, or to flats of more counts."
        )
    doubtful = sum(bool(getattr(gamma, "warnings", ())) for gamma in cast("Any", gammas))
    if doubtful:
        said.append(f"{doubtful} of {n} gammas are doubtful, as their own warnings say.")
    return tuple(said)


def _start(rates: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Return the best of some powers, for each of which the other coefficients are linear."""
    best = (np.inf, (0.0,) * 4)
    for power in np.arange(-3.0, 0.0, 0.1):
        basis = np.stack([rates**power, rates, np.ones_like(rates)], axis=1)
        (a1, a2, a3), *_ = np.linalg.lstsq(basis, values, rcond=None)
        misfit = float(np.sum((basis @ [a1, a2, a3] - values) ** 2))
        if misfit < best[0]:
            best = (misfit, (float(a1), float(power), float(a2), float(a3)))
    return best[1]
