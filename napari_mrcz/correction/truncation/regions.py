"""Which pixels of a diffraction pattern count alike: rings about the beam, and where that is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

Labels = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]

# The centre is looked for in an image of about so many pixels a side, with so many rings.
_SIDE, _RINGS = 64, 48
# Share of the image's size, on each side of its middle, where the beam is tried.
_AWAY, _STEPS = 0.3, 13


def annuli(
    shape: tuple[int, int],
    center: tuple[float, float],
    n_annuli: int = 10,
    mask: npt.ArrayLike | None = None,
) -> Labels:
    """Divide a pattern into concentric annuli that have the same number of valid pixels.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.
    center : tuple of float
        Where the beam is, (y, x) in pixels; 0 is the middle of the first one.
    n_annuli : int
        How many. There are fewer where there are fewer distances from the centre.
    mask : array_like of bool, shape (y, x), optional
        True where a pixel is not valid, such as behind the beam stop.

    Returns
    -------
    ndarray of uint16, shape (y, x)
        1 for the innermost annulus and so on; 0 where pixels are not valid.

    Raises
    ------
    ValueError
        If shapes differ, or there is no annulus or no such centre.
    """
    if n_annuli < 1:
        raise ValueError(f"a pattern has one annulus or more, not {n_annuli}")
    valid = _valid(shape, mask)
    squares = _squares(shape, center)
    # Rings are made of whole circles of pixels, so that no circle is cut by its pixels' order.
    radii, numbers = np.unique(squares[valid], return_counts=True)
    labels = np.zeros(shape, np.uint16)
    if len(radii):
        before = np.cumsum(numbers) - numbers / 2
        ring = np.floor(before * n_annuli / numbers.sum()).astype(np.uint16)
        _, ring = np.unique(ring, return_inverse=True)
        labels[valid] = 1 + ring[np.searchsorted(radii, squares[valid])]
    return labels


def region_labels(
    regions: npt.ArrayLike, shape: tuple[int, int], mask: npt.ArrayLike | None = None
) -> Labels:
    """Take any label image as regions: 1 ... k in the order of its labels, 0 where not valid.

    Raises
    ------
    ValueError
        If shapes differ, or these are no labels.
    """
    labels = np.asarray(regions)
    if labels.dtype.kind not in "biu" or labels.shape != tuple(shape):
        raise ValueError(
            f"regions are whole numbers of the shape {tuple(shape)}, "
            f"not {labels.dtype} of {labels.shape}"
        )
    labels = np.where(_valid(shape, mask) & (labels > 0), labels, 0)
    names, numbered = np.unique(labels, return_inverse=True)
    if len(names) > np.iinfo(np.uint16).max:
        raise ValueError(f"{len(names)} regions are more than can be fitted")
    first = 0 if names[0] == 0 else 1
    return (numbered.reshape(shape) + first).astype(np.uint16)


def find_center(image: npt.NDArray[Any], mask: npt.ArrayLike | None = None) -> tuple[float, float]:
    """Find the beam: the point about which the pattern is most nearly the same all around.

    The sum of absolute deviations from each ring's median is least there. A beam stop and Bragg
    spots deviate from it wherever it is, and so matter little. To about a pixel in 150, which is
    as well as annuli need it.

    Parameters
    ----------
    image : ndarray, shape (y, x)
        A frame, or better the sum of them.
    mask : array_like of bool, shape (y, x), optional
        True where a pixel is not valid.

    Returns
    -------
    tuple of float
        (y, x) in pixels; the middle of a pattern that says nothing.

    Raises
    ------
    ValueError
        If shapes differ.
    """
    shape = image.shape
    valid = _valid(shape, mask)
    step = max(1, round(max(shape) / _SIDE))
    small, weight = _binned(np.where(valid, image, 0), step), _binned(valid, step)
    good = weight > 0
    middle = (np.array(good.shape) - 1) / 2
    values = np.sqrt(np.maximum(small[good] / weight[good], 0))
    if len(values) >= 4 * _RINGS and np.ptp(values) > 0:
        places = np.argwhere(good).astype(np.float64)
        offsets = np.linspace(-_AWAY, _AWAY, _STEPS)
        tried = [middle + (y, x) * np.array(good.shape) for y in offsets for x in offsets]
        start = min(tried, key=lambda at: _asymmetry(at, places, values))
        near = start + np.array([[0, 0], [2, 0], [0, 2]])
        found = scipy.optimize.minimize(
            _asymmetry,
            start,
            (places, values),
            method="Nelder-Mead",
            options={"initial_simplex": near, "xatol": 0.02, "fatol": 0},
        )
        middle = found.x
    y, x = (middle + 0.5) * step - 0.5
    return float(y), float(x)


def _asymmetry(center: Any, places: npt.NDArray[Any], values: npt.NDArray[Any]) -> float:
    squares = ((places - center) ** 2).sum(axis=1)
    used = len(values) // _RINGS * _RINGS
    rings = values[np.argsort(squares, kind="stable")[:used]].reshape(_RINGS, -1)
    return float(np.abs(rings - np.median(rings, axis=1, keepdims=True)).sum())


def _binned(image: npt.NDArray[Any], step: int) -> npt.NDArray[np.float64]:
    y, x = (max(n // step, 1) for n in image.shape)
    cells = image[: y * step, : x * step].astype(np.float64)
    return np.add.reduceat(
        np.add.reduceat(cells, np.arange(0, len(cells), step), axis=0),
        np.arange(0, cells.shape[1], step),
        axis=1,
    )


def _squares(shape: tuple[int, int], center: tuple[float, float]) -> npt.NDArray[np.float64]:
    y, x = center
    if not np.isfinite([y, x]).all():
        raise ValueError(f"the centre is (y, x) in pixels, not {center}")
    rows, columns = np.arange(shape[0]) - y, np.arange(shape[1]) - x
    squares: npt.NDArray[np.float64] = np.add.outer(rows**2, columns**2)
    return squares


def _valid(shape: tuple[int, int], mask: npt.ArrayLike | None) -> Mask:
    if mask is None:
        return np.ones(shape, np.bool_)
    invalid = np.asarray(mask)
    if invalid.shape != tuple(shape):
        raise ValueError(f"a mask of {invalid.shape} does not fit frames of {tuple(shape)}")
    valid: Mask = np.equal(invalid, 0)
    return valid
