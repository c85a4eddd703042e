"""What is said of a fit that should not be trusted without a look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mrcz.correction.outliers.suspects import MANY_SPOTS

if TYPE_CHECKING:
    from napari_mrcz.correction.outliers.counts import SummedCounts
    from napari_mrcz.correction.outliers.scale import PixelScale

# Part of the image with lattice fringes that is worth a word.
_STRUCTURED = 0.1
# Good pixels vary so much more than counts do where there is a fixed pattern.
_WIDE = 1.25
# Part of the pixels beyond the thresholds, and part of these expected by chance, that no sound
# detector has.
_MANY, _BY_CHANCE = 0.03, 0.25
# Fewer pixels than these are not worth a word.
_FEW = 20
# Standard deviations beyond which a single pixel is nearly always told from noise; hot pixels that
# count so many times as much as good ones are not weak.
_TOLD, _WEAK = 4.0, 3.0


def doubts_of_counts(counts: SummedCounts) -> list[str]:
    """Return what is doubtful of a movie's sum."""
    said = []
    if counts.left_out:
        number = len(counts.left_out)
        some = ", ".join(map(str, counts.left_out[:5])) + (", …" if number > 5 else "")
        frames = f"Frame {some} was" if number == 1 else f"{number} frames ({some}) were"
        said.append(f"{frames} left out of the fit: saturated or damaged, unlike the others.")
    if counts.pedestal_is_unknown:
        said.append(
            "The frames seem to have a pedestal (counts without electrons) that could not be "
            "measured: give it, or subtract a dark reference."
        )
    return said


def doubts_of_fit(
    counts: SummedCounts, scale: PixelScale, width: float, found: int, by_chance: float
) -> list[str]:
    """Return what is doubtful of a fit.

    Parameters
    ----------
    counts : SummedCounts
        The movie's sum.
    scale : PixelScale
        The pixels' deviates.
    width : float
        Of good pixels, 1 if they were nothing but counts.
    found : int
        Outliers.
    by_chance : float
        How many of them good pixels are expected to be.
    """
    said = []
    if scale.n_spots >= MANY_SPOTS:
        said.append(
            f"{scale.n_spots} spots are bright in a few frames only, as in a diffraction sweep; "
            "they were left as they are. The filter is made for images."
        )
    if scale.structured > _STRUCTURED:
        said.append(
            f"{100 * scale.structured:.0f} % of the image has lattice fringes; they are left as "
            "they are, but weak outliers may be missed there."
        )
    if width > _WIDE:
        said.append(
            f"Good pixels vary {width:.2g} times as much as counts do: a fixed pattern hides "
            "weak outliers. A gain reference takes it away."
        )
    if found > max(_MANY * counts.n_usable, _FEW):
        said.append(
            f"{100 * found / counts.n_usable:.1f} % of the pixels are outliers, more than a "
            "detector has."
        )
    # On the scale of square roots a Poisson count varies by 1/2, whatever its mean (Anscombe).
    typical = max(scale.origin, 1e-9)
    told = (typical**0.5 + _TOLD / 2) ** 2 / typical
    if told > _WEAK and found:
        said.append(
            f"The movie has {typical:.2g} electrons per pixel in all: dead pixels, and hot ones "
            f"that count less than {told:.2g} times as much as good ones, cannot be told from "
            "noise."
        )
    if found > _FEW and by_chance > _BY_CHANCE * found:
        said.append(
            f"Of {found} pixels beyond the thresholds about {by_chance:.0f} are good ones: the "
            "summed dose is low."
        )
    return said
