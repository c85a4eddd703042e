"""Defective pixels as labels that can be painted: from lists, from the reference, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.stack.references import read_defects, write_defects

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.gain.reference import Shape

LISTED, WITHOUT_GAIN = 1, 2

# What a file dialog offers, and what `write_defects` calls it.
KINDS = {
    "SerialEM and IMOD (*.txt)": "serialem",
    "MotionCor and RELION (*.txt)": "motioncor",
    "Map (*.mrc *.mrcz *.tif)": "map",
}
_SUFFIX = {"serialem": ".txt", "motioncor": ".txt", "map": ".mrc"}


def load(path: str, shape: Shape, report: Report) -> npt.NDArray[np.bool_]:
    """Read a list or map of defective pixels, as the frames lie, (y, x)."""
    report(f"Reading {Path(path).name}", 0, None)
    return read_defects(path, shape)


def export(path: str, mask: npt.NDArray[np.bool_], kind: str, report: Report) -> Path:
    """Write a list or map, with the suffix of its kind where the name has none.

    A file of the very name given is replaced: the file dialog has asked about that one.
    """
    given = Path(path)
    target = given if given.suffix else given.with_suffix(_SUFFIX[kind])
    report(f"Writing {target.name}", 0, None)
    write_defects(target, mask, kind, overwrite=target == given)
    return target


def add_listed(
    labels: npt.NDArray[Any] | None, mask: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    """Return labels with the pixels of a list added; those that have one keep it."""
    known = np.zeros(mask.shape, np.uint8) if labels is None else labels.astype(np.uint8)
    known[mask & (known == 0)] = LISTED
    return known


def joined(
    labels: npt.NDArray[Any], without_gain: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.uint8]:
    """Return labels with these pixels without usable gain, and no others.

    Parameters
    ----------
    labels : ndarray of integers, shape (y, x)
        Others than `WITHOUT_GAIN` stay: they are listed, or painted.
    without_gain : ndarray of bool, shape (y, x), or None
        As the frames lie; None for no pixels.
    """
    known = labels.astype(np.uint8)
    known[known == WITHOUT_GAIN] = 0
    if without_gain is not None:
        known[without_gain & (known == 0)] = WITHOUT_GAIN
    return known


def count(labels: npt.NDArray[Any]) -> tuple[int, int]:
    """Count the defective pixels, and those of them without usable gain."""
    return int(np.count_nonzero(labels)), int(np.count_nonzero(labels == WITHOUT_GAIN))


def count_text(bad: int, without: int, size: int) -> str:
    """Return how many of so many pixels are defective."""
    if not bad:
        return "No defective pixels yet: import a list, or paint them."
    pixels = "pixel" if bad == 1 else "pixels"
    return (
        f"{bad} defective {pixels} ({bad / size:.3%}): {bad - without} listed or painted, "
        f"{without} without usable gain."
    )
