"""A gain or dark reference: read from a file or a layer, or made from movies; how it is seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.correction import estimate_gain
from napari_mrcz.errors import collected_warnings, counted
from napari_mrcz.stack.references import read_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike

    import numpy.typing as npt

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report

Shape = tuple[int, int]

# Pixels of the longer side of a small picture.
_PICTURE = 96


@dataclass(frozen=True, eq=False)
class Reference:
    """A gain or dark reference.

    Attributes
    ----------
    name : str
        Of its file or layer.
    image : ndarray of float32, shape (y, x)
        As it came.
    warnings : tuple of str
        Why it should not be used, as far as that was found when it was made.
    """

    name: str
    image: npt.NDArray[np.float32]
    warnings: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape:
        """Rows, columns."""
        y, x = self.image.shape
        return y, x

    @cached_property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Pixels whose gain is finite and above 0, (y, x)."""
        usable: npt.NDArray[np.bool_] = np.isfinite(self.image) & (self.image > 0)
        return usable

    @cached_property
    def picture(self) -> npt.NDArray[np.uint8]:
        """A small grey picture, (rows, columns), of the medium values from black to white."""
        step = max(1, -(-max(self.shape) // _PICTURE))
        y, x = (size // step * step for size in self.shape)
        if not min(y, x) or not self.usable.any():
            return np.zeros((1, 1), np.uint8)
        values = np.where(self.usable, self.image, np.median(self.image[self.usable]))[:y, :x]
        cells = values.reshape(y // step, step, x // step, step).mean(axis=(1, 3))
        low, high = np.percentile(cells, (2, 98))
        grey: npt.NDArray[np.uint8] = np.clip(
            255 * (cells - low) / ((high - low) or 1), 0, 255
        ).astype(np.uint8)
        return grey

    @cached_property
    def gain_text(self) -> str:
        """Its shape and values, as those of a gain reference."""
        if not self.usable.any():
            return f"{shape_text(self.shape)}, without any usable gain"
        low, middle, high = np.percentile(self.image[self.usable], (1, 50, 99))
        bad = self.usable.size - np.count_nonzero(self.usable)
        pixels = "pixel" if bad == 1 else "pixels"
        return (
            f"{shape_text(self.shape)}, median {middle:.4g}, most from {low:.3g} to {high:.3g}; "
            f"{bad} {pixels} without usable gain"
        )

    @cached_property
    def dark_text(self) -> str:
        """Its shape and mean, as those of a dark reference."""
        return f"{shape_text(self.shape)}, mean {np.nanmean(self.image):.4g} counts"


def load_reference(path: str | PathLike[str], report: Report) -> Reference:
    """Read a reference, with what is shown of it."""
    report(f"Reading {Path(path).name}", 0, None)
    return _seen(Reference(Path(path).name, read_reference(path)))


def reference_of(stack: Stack, name: str, report: Report) -> Reference:
    """Take the one image of a layer.

    Raises
    ------
    ValueError
        If there are more.
    """
    if len(stack) != 1 or stack.dtype.kind not in "fiub":
        raise ValueError(f"a reference is one image of real numbers; {name} is none")
    report(f"Reading {name}", 0, None)
    return _seen(Reference(name, np.array(stack[0], np.float32)))


def estimate_reference(stacks: Sequence[Stack], report: Report) -> Reference:
    """Make a gain reference from movies; specimens average out, the more movies the better."""

    def sums() -> Iterator[npt.NDArray[Any]]:
        for number, stack in enumerate(stacks, 1):
            stage = f"Movie {number} of {len(stacks)}: summing frame"
            yield stack.sum(progress=partial(report, stage))

    movies = counted(len(stacks), "movie")
    with collected_warnings() as said:
        image = estimate_gain(sums())
    return _seen(Reference(f"gain of {movies}", image, tuple(said)))


def shape_text(shape: Sequence[int]) -> str:
    """Return rows × columns."""
    return " × ".join(str(size) for size in shape)


def _seen(reference: Reference) -> Reference:
    """Compute what is shown of a reference in the thread that makes it, not in the window's."""
    reference.gain_text, reference.dark_text, reference.picture  # noqa: B018
    return reference
