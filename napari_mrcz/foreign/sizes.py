"""Which pixel sizes of a file are those of a micrograph."""

from __future__ import annotations

__all__ = ["plausible"]

# In Å. A scanner's dots per centimetre are none.
_PLAUSIBLE = (0.01, 1000.0)


def plausible(size: float) -> float:
    """Give a size in Å, or 0.0 for unknown where it is no micrograph's."""
    least, most = _PLAUSIBLE
    return size if least <= size <= most else 0.0
