"""Units of length and voltage, as programs write them, and values that can be true."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["angstroms", "kilovolts", "plausible", "size_zyx"]

# In Å. A scanner's dots per centimetre are none.
_PLAUSIBLE = (0.01, 1000.0)
# In kV, of any microscope; a higher number without a unit is in V.
_VOLTAGES = (1.0, 3000.0)

_ANGSTROMS = {
    "angstrom": 1.0, "Å": 1.0, "A": 1.0, "picometer": 0.01, "pm": 0.01, "nanometer": 10.0,
    "nm": 10.0, "micrometer": 1e4, "micron": 1e4, "um": 1e4, "\N{GREEK SMALL LETTER MU}m": 1e4,
    "millimeter": 1e7, "mm": 1e7, "meter": 1e10, "m": 1e10,
}  # fmt: skip


def angstroms(unit: str) -> float | None:
    """Return the length of a unit in Å.

    Parameters
    ----------
    unit : str
        Its name or symbol. µ may be the Greek letter or the sign that looks like it, and Å the
        letter or the sign.

    Returns
    -------
    float or None
        None if it is no length that is known.
    """
    # Turns U+00B5 into the Greek letter, U+212B and A with a ring into the letter.
    return _ANGSTROMS.get(unicodedata.normalize("NFKC", unit))


def plausible(size: float) -> float:
    """Return a pixel size in Å, or 0.0 for unknown where no micrograph has such a one."""
    least, most = _PLAUSIBLE
    return size if least <= size <= most else 0.0


def kilovolts(voltage: float, unit: str = "") -> float:
    """Return a voltage in kV, or 0.0 for unknown where no microscope has such a one.

    Parameters
    ----------
    voltage : float
        The number.
    unit : str
        "V", "kV" or a name such as "kilovolts"; decided by the number where it is empty.
    """
    least, most = _VOLTAGES
    if unit.lower().startswith("v") or (not unit and voltage > most):
        voltage /= 1000
    return voltage if least <= voltage <= most else 0.0


def size_zyx(pixel_size: float | Sequence[float]) -> tuple[float, float, float]:
    """Return a pixel size as (z, y, x) in Å.

    Parameters
    ----------
    pixel_size : float or sequence of float
        One number for all axes, (y, x) with z unknown, or (z, y, x).

    Raises
    ------
    ValueError
        If it is none of these, negative or not finite.
    """
    sizes = np.atleast_1d(np.asarray(pixel_size, np.float64)).tolist()
    if len(sizes) == 1:
        sizes = sizes * 3
    elif len(sizes) == 2:
        sizes = [0.0, *sizes]
    if len(sizes) != 3 or not all(np.isfinite(s) and s >= 0 for s in sizes):
        raise ValueError(f"pixel size {pixel_size!r} is no size, (y, x) or (z, y, x) in Å")
    return sizes[0], sizes[1], sizes[2]
