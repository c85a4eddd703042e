"""A specimen under the beam that drifts: its image at any sub-pixel position.

The image is kept as its Fourier transform, so that drift is a phase ramp: exact to any fraction of
a pixel, and one inverse transform a frame.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from napari_mrcz.simulation.specimen import Specimen, transmission

_MARGIN = 64  # Pixels of the torus beyond the frame: half on each side, more than a drift.


class Scene:
    """The moving image of a specimen, relative to the incident dose.

    Parameters
    ----------
    specimen
        What is in the beam.
    shape
        Pixels (y, x) of the frame.
    pixel_size
        In angstrom.
    seed
        Of the specimen's random parts.
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

    def averaged(self, drift: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the mean image (y, x) over the displacements `drift`, (n, 2) as (y, x) pixels.

        What is at p without drift is at p + drift.
        """
        y, x = self._torus
        ramp_y = np.exp(-2j * np.pi * drift[:, :1] * fft.fftfreq(y)) / len(drift)
        ramp_x = np.exp(-2j * np.pi * drift[:, 1:] * fft.rfftfreq(x))
        ramp = ramp_y.astype(np.complex64).T @ ramp_x.astype(np.complex64)
        image = fft.irfft2(self._spectrum * ramp, s=self._torus)
        top, left = (y - self.shape[0]) // 2, (x - self.shape[1]) // 2
        frame: NDArray[np.float32] = image[top : top + self.shape[0], left : left + self.shape[1]]
        return frame.clip(min=0)  # A steep edge rings a little; a beam is never negative.


def drift_path(n_frames: int, length: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return where a specimen moves under the beam: fast at first, then slower, slightly bent.

    Parameters
    ----------
    n_frames
        Number of positions.
    length
        Of the whole path, in pixels.
    rng
        Draws the direction and the bend.

    Returns
    -------
    array (n_frames, 2)
        Displacements (y, x) in pixels; the first is (0, 0).
    """
    if n_frames == 1:
        return np.zeros((1, 2))
    progress = np.linspace(0, 1, n_frames)[1:]
    speed = 0.25 + np.exp(-progress / 0.2)
    angle = rng.uniform(0, 2 * np.pi) + rng.uniform(-1.5, 1.5) * progress
    steps = speed[:, np.newaxis] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    return path * (length / float(speed.sum()))
