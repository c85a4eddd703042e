"""The exponent of the gain reference, and how it depends on the dose rate.

McLeod et al., preprint doi:10.1101/116533, section 5.1, eqs. 10 and 11. The preprint prints one of
eq. 11's coefficients twice under the same name; here they are a1, b1, a2, a3.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter
from scipy.optimize import curve_fit, minimize_scalar

from napari_mrcz.correction.sums import frame_sum, ordinary_pixels
from napari_mrcz.errors import MrczError
from napari_mrcz.format.atomic import AtomicFile

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["PREPRINT_GAMMA", "GammaCurve", "Roughness", "fit_gamma"]

_PATCH = 64
# Means of 64 x 64 pixels hardly differ from one pixel to the next: every eighth will do.
_STEP = 8
_SLACK = 1.1


def fit_gamma(
    flat: Any, reference: npt.ArrayLike, *, bounds: tuple[float, float] = (-3.0, 3.0)
) -> float:
    """Find the exponent that flattens a flat best (eq. 10).

    Minimises std(uniform(flat * gain ** gamma, 64)), over its mean, as the mean of gain ** gamma
    changes with gamma where a reference is not normalised. Hot pixels, and those that the
    reference marks as defective, do not count.

    Parameters
    ----------
    flat : Stack or array_like, shape (n, y, x) or (y, x)
        Illuminated evenly, at one dose rate, dark subtracted.
    reference : array_like, shape (y, x)
        Lies as the flat does.
    bounds : tuple of float
        Between which gamma is searched.

    Returns
    -------
    float
        Within 0.01 for patterns of 3 % and 400 electrons on 1024 x 1024 pixels.

    Raises
    ------
    ValueError
        If shapes differ, the flat holds no counts, the reference has no pattern, or the best gamma
        lies at a bound: the reference is another camera's, or turned.
    """
    roughness = Roughness(flat, reference)
    found = minimize_scalar(roughness, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    gamma = float(found.x)
    if min(gamma - bounds[0], bounds[1] - gamma) < 1e-2:
        raise ValueError(
            f"no gamma between {bounds[0]:g} and {bounds[1]:g} flattens this flat; "
            "the reference may be turned (find_orientation) or another camera's"
        )
    return gamma


class Roughness:
    """How uneven a flat is when it is normalised, by the exponent: the criterion of eq. 10.

    Parameters
    ----------
    flat : Stack or array_like, shape (n, y, x) or (y, x)
        Illuminated evenly, at one dose rate, dark subtracted.
    reference : array_like, shape (y, x)
        Lies as the flat does.

    Raises
    ------
    ValueError
        If shapes differ, the flat holds no counts, or the reference has no pattern.
    """

    def __init__(self, flat: Any, reference: npt.ArrayLike) -> None:
        counts = frame_sum(flat)
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
        """Give the standard deviation of the means of 64 x 64 pixels, over their mean."""
        smooth = _patches(self._normalised(gamma))[self._filled] / self._share
        return float(smooth.std() / smooth.mean())

    def noise(self, gamma: float) -> float:
        """Give what counting noise alone, which neighbours do not share, would leave of it."""
        flat = self._normalised(gamma)
        steps = np.diff(flat, axis=1)[self._good[:, 1:] & self._good[:, :-1]]
        if not steps.size:
            return 0.0
        return float(steps.std() / 2**0.5 / _PATCH / flat[self._good].mean())

    def _normalised(self, gamma: float) -> npt.NDArray[np.float64]:
        flat: npt.NDArray[np.float64] = self._counts * np.exp(gamma * self._logarithm)
        return flat


@dataclass(frozen=True)
class GammaCurve:
    """Gamma as a function of the dose rate: a1 d^b1 + a2 d + a3 (eq. 11).

    Attributes
    ----------
    a1, b1, a2, a3 : float
        Coefficients, for d in e-/pix/s.
    lowest, highest : float
        Dose rates between which it was measured. The power runs away below, the line above: it
        is not trusted beyond a tenth more at either end.
    """

    a1: float
    b1: float
    a2: float
    a3: float
    lowest: float
    highest: float

    @classmethod
    def fit(cls, dose_rates: npt.ArrayLike, gammas: npt.ArrayLike) -> Self:
        """Fit the curve to gammas measured at several dose rates.

        Parameters
        ----------
        dose_rates : array_like, shape (n,)
            In e-/pix/s, positive; at least five different ones, better a dozen.
        gammas : array_like, shape (n,)
            As `fit_gamma` gives them.

        Raises
        ------
        ValueError
            If they are too few, not finite, not positive, or no such curve fits.
        """
        rates = np.asarray(dose_rates, np.float64).ravel()
        values = np.asarray(gammas, np.float64).ravel()
        if rates.shape != values.shape or not np.isfinite([rates, values]).all():
            raise ValueError("a finite gamma for each dose rate is needed")
        # Through four points a curve of four coefficients goes whatever they are.
        if len(np.unique(rates)) < 5 or rates.min() <= 0:
            raise ValueError("four coefficients need at least five different, positive dose rates")
        try:
            best, _ = curve_fit(_gamma, rates, values, p0=_start(rates, values), maxfev=10_000)
        except RuntimeError as error:
            raise ValueError(f"no curve of eq. 11 fits these gammas: {error}") from error
        a1, b1, a2, a3 = (float(value) for value in best)
        return cls(a1, b1, a2, a3, float(rates.min()), float(rates.max()))

    def at(self, dose_rate: float) -> float:
        """Give gamma at a dose rate.

        Raises
        ------
        ValueError
            If it lies beyond what was measured.
        """
        if not self.lowest / _SLACK <= dose_rate <= self.highest * _SLACK:
            raise ValueError(
                f"gamma was measured from {self.lowest:g} to {self.highest:g} e-/pix/s; "
                f"at {dose_rate:g} the curve means nothing"
            )
        return float(_gamma(np.float64(dose_rate), self.a1, self.b1, self.a2, self.a3))

    def __call__(self, dose_rate: float) -> float:
        """Give gamma at a dose rate, as `at` does."""
        return self.at(dose_rate)

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as JSON, all or nothing; what is there is replaced.

        Raises
        ------
        MrczError
            If the disk refuses.
        """
        with AtomicFile(path, overwrite=True) as file:
            file.write(f"{json.dumps(asdict(self), indent=2)}\n".encode())
            file.commit()

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        MrczError
            If it cannot be read, or is something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(**{name: float(content[name]) for name in cls.__dataclass_fields__})
        except OSError as error:
            raise MrczError(path, f"it cannot be read ({error.strerror})") from error
        except (KeyError, TypeError, ValueError) as error:
            raise MrczError(path, f"it holds no curve of gamma ({error!r})") from error


PREPRINT_GAMMA = GammaCurve(0.12035633, -1.04171635, -0.03363192, 1.03902726, 0.25, 9.0)
"""The preprint's curve, of a K2 Summit (fig. 9)."""


def _patches(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Give the uniform filter over 64 x 64 pixels, at every eighth pixel each way."""
    y, x = (size // _STEP for size in image.shape)
    cells = image[: y * _STEP, : x * _STEP].reshape(y, _STEP, x, _STEP).mean(axis=(1, 3))
    smooth: npt.NDArray[np.float64] = uniform_filter(cells, _PATCH // _STEP)
    return smooth


def _gamma(rate: Any, a1: float, b1: float, a2: float, a3: float) -> Any:
    return a1 * rate**b1 + a2 * rate + a3


def _start(rates: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Give good start values: for a known power the rest is linear, so some powers are tried."""
    best = (np.inf, (0.0,) * 4)
    for power in np.arange(-3.0, 0.0, 0.1):
        basis = np.stack([rates**power, rates, np.ones_like(rates)], axis=1)
        (a1, a2, a3), *_ = np.linalg.lstsq(basis, values, rcond=None)
        misfit = float(np.sum((basis @ [a1, a2, a3] - values) ** 2))
        if misfit < best[0]:
            best = (misfit, (float(a1), float(power), float(a2), float(a3)))
    return best[1]
