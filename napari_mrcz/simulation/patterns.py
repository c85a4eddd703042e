"""Fixed patterns of a direct-electron detector, each with mean 0 and standard deviation 1.

McLeod et al., preprint doi:10.1101/116533, fig. 8: the electrons pass the read-out electronics,
then an active layer that was thinned by etching.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import zoom

# Sweeps are smooth: a grid of so many points a side, linearly enlarged, shows no steps.
_GRID = 192


def etching_pattern(shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Give smooth, slightly bent diagonal sweeps, as etching leaves them.

    Parameters
    ----------
    shape : tuple of int
        Physical pixels (y, x).
    rng : numpy.random.Generator
        Draws their direction, bend and fading.

    Returns
    -------
    ndarray of float32, shape (y, x)
        Mean 0, standard deviation 1.
    """
    grid = (min(_GRID, shape[0]), min(_GRID, shape[1]))
    y = np.linspace(0, 1, grid[0])[:, None]
    x = np.linspace(0, 1, grid[1])[None, :]
    angle = rng.uniform(0.6, 1.0)
    bend = 0.08 * np.sin(2 * np.pi * (rng.random() + rng.uniform(0.5, 1.2) * (x - y)))
    across = np.cos(angle) * y + np.sin(angle) * x + bend
    along = np.cos(angle) * x - np.sin(angle) * y
    pattern = np.zeros(grid)
    for waves, strength in ((1.3, 1.0), (3.1, 0.8), (6.7, 0.5), (11.3, 0.25)):
        fading = 1 + 0.6 * np.sin(2 * np.pi * (rng.random() + rng.uniform(0.3, 1.0) * along))
        pattern += strength * fading * np.sin(2 * np.pi * (rng.random() + waves * across))
    factors = (shape[0] / grid[0], shape[1] / grid[1])
    return _standardised(zoom(pattern.astype(np.float32), factors, order=1))


def cmos_pattern(shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Give read-out columns, banks of columns, and rows that differ between the banks.

    Parameters
    ----------
    shape : tuple of int
        Physical pixels (y, x).
    rng : numpy.random.Generator
        Draws each column, row and bank.

    Returns
    -------
    ndarray of float32, shape (y, x)
        Mean 0, standard deviation 1; a single pixel is 0.
    """
    n_banks = min(8, shape[1])
    bank = np.arange(shape[1]) * n_banks // shape[1]
    columns = rng.standard_normal(shape[1]) + rng.standard_normal(n_banks)[bank]
    rows = rng.standard_normal(shape[0])
    strength = rng.uniform(0.1, 1.0, n_banks)[bank]
    pattern = columns[None, :] + rows[:, None] * strength[None, :]
    return _standardised(pattern.astype(np.float32))


def _standardised(pattern: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    pattern = pattern - pattern.mean(dtype=np.float64)
    spread = pattern.std(dtype=np.float64)
    # A single pixel has no pattern.
    return (pattern / spread if spread > 0 else pattern).astype(np.float32)
