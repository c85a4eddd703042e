"""Corrections: array mathematics on frames and movies, of numpy and scipy alone.

A movie is anything of shape (n, y, x) that gives its frames when iterated. A correction is a small
frozen object: call it with a frame (y, x) and its index, ask it to `describe` itself.
"""

from typing import Any

import lazy_loader

from napari_mrcz.errors import check_room_to_import

# Module that lends threads to corrections: see `sums.in_order`.
lender = ""

_found, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    # Most need some of it; scipy alone, without its parts, takes nothing.
    check_room_to_import("scipy.linalg", 2 * 10**8)
    return _found(name)
