"""A specimen under the beam that drifts: its image at any sub-pixel position.

The image is kept as its Fourier transform, so that drift is a phase ramp: exact to any fraction of
a pixel, and one inverse transform a frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import fft

from napari_mrcz.simulation.specimen import transmission

if TYPE_CHECKING:
    from napari_mrcz.simulation.specimen import Specimen

# Pixels of the torus beyond the frame: half on each side, more than a drift.
_MARGIN = 64


class Scene:
    """The moving image of a specimen, relative to the incident dose.

    Parameters
    ----------
    specimen : Specimen
        What is in the beam.
    shape : tuple of int
        Pixels (y, x) of the frame.
    pixel_size : float
        In Å.
    seed : int
        Of the specimen's random parts; not negative.
    """

    def __init__(
        self, specimen: Specimen, shape: tuple[int, int], pixel_size: float, seed: int
    ) -> None:
        self.shape = shape
        self._torus = (
            fft.next_fast_len(shape[0] + _MARGIN, real=True),
            fft.next_fast_len(shape[1] + _MARGIN, real=True),
        )
        self._spectrum = fft.rfft2(transmission(specimen, self._torus, pixel_size, seed))

    def averaged(self, drift: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Give the mean image over some displacements.

        Parameters
        ----------
        drift : ndarray of float64, shape (n, 2)
            (y, x) in pixels: what is at p without drift is at p + drift.

        Returns
        -------
        ndarray of float32, shape (y, x)
            Share of the incident electrons that arrives: about 1 in bare ice, nowhere negative.
        """
        y, x = self._torus
        ramp_y = np.exp(-2j * np.pi * drift[:, :1] * fft.fftfreq(y)) / len(drift)
        ramp_x = np.exp(-2j * np.pi * drift[:, 1:] * fft.rfftfreq(x))
        ramp = ramp_y.astype(np.complex64).T @ ramp_x.astype(np.complex64)
        image = fft.irfft2(self._spectrum * ramp, s=self._torus)
        top, left = (y - self.shape[0]) // 2, (x - self.shape[1]) // 2
        frame: npt.NDArray[np.float32] = image[
            top : top + self.shape[0], left : left + self.shape[1]
        ]
        # A steep edge rings a little; a beam is never negative.
        return frame.clip(min=0)


def drift_path(n_frames: int, length: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Give where a specimen moves under the beam: fast at first, then slower, slightly bent.

    Parameters
    ----------
    n_frames : int
        Number of positions, at least one.
    length : float
        Of the whole path, in pixels.
    rng : numpy.random.Generator
        Draws the direction and the bend.

    Returns
    -------
    ndarray of float64, shape (n_frames, 2)
        Displacements (y, x) against the first frame, in pixels; the first is (0, 0).
    """
    if n_frames == 1:
        return np.zeros((1, 2))
    progress = np.linspace(0, 1, n_frames)[1:]
    speed = 0.25 + np.exp(-progress / 0.2)
    angle = rng.uniform(0, 2 * np.pi) + rng.uniform(-1.5, 1.5) * progress
    steps = speed[:, np.newaxis] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    return path * (length / float(speed.sum()))
