"""Which pixel types the MRC modes hold, and how an array fits into one of them.

Mode 101 packs two 4-bit pixels a byte, the even pixel in the low nibble, every row padded to a
whole byte (IMOD). MRCZ adds 7 (int32) and 8 (uint32), which plain MRC readers refuse.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FOUR_BIT = 101

DTYPE_OF_MODE: dict[int, np.dtype[Any]] = {
    0: np.dtype(np.int8),
    1: np.dtype(np.int16),
    2: np.dtype(np.float32),
    4: np.dtype(np.complex64),
    6: np.dtype(np.uint16),
    7: np.dtype(np.int32),
    8: np.dtype(np.uint32),
    12: np.dtype(np.float16),
    FOUR_BIT: np.dtype(np.uint8),
}

MODE_OF_DTYPE: dict[np.dtype[Any], int] = {
    dtype: mode for mode, dtype in DTYPE_OF_MODE.items() if mode != FOUR_BIT
}

# What a dtype that no mode holds becomes. uint8 fits mode 0 as long as its values do (the writer
# widens it to uint16 when they do not); 64 bits are narrowed only where every value survives.
_STORED_AS: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.bool_): np.dtype(np.int8),
    np.dtype(np.uint8): np.dtype(np.int8),
    np.dtype(np.int64): np.dtype(np.int32),
    np.dtype(np.uint64): np.dtype(np.uint32),
    np.dtype(np.float64): np.dtype(np.float32),
    np.dtype(np.complex128): np.dtype(np.complex64),
}

DTYPE_OF_NAME = {dtype.name: dtype for dtype in (*MODE_OF_DTYPE, *_STORED_AS)}


def storage_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Give the dtype in which frames of `dtype` are stored.

    Parameters
    ----------
    dtype : dtype-like
        Pixel type of the array to be written, of either byte order.

    Returns
    -------
    numpy.dtype
        Native-order dtype that one of the modes holds.

    Raises
    ------
    TypeError
        If no mode can hold such pixels (text, objects, structured types, extended precision).
    """
    native = np.dtype(dtype).newbyteorder("=")
    if native in MODE_OF_DTYPE:
        return native
    try:
        return _STORED_AS[native]
    except KeyError:
        raise TypeError(f"no MRC mode holds pixels of type {native}") from None


def frame_nbytes(mode: int, shape: tuple[int, int]) -> int:
    """Give the bytes that one frame of `shape` (y, x) takes on disk, uncompressed."""
    rows, columns = shape
    if mode == FOUR_BIT:
        return rows * ((columns + 1) // 2)
    return rows * columns * DTYPE_OF_MODE[mode].itemsize


def unpack_four_bit(packed: npt.NDArray[np.uint8], columns: int) -> npt.NDArray[np.uint8]:
    """Unpack rows of 4-bit pixels.

    Parameters
    ----------
    packed : ndarray of uint8, shape (..., ceil(columns / 2))
        Rows as stored, each padded to a whole byte.
    columns : int
        Pixels in a row.

    Returns
    -------
    ndarray of uint8, shape (..., columns)
        Values 0 to 15.
    """
    pixels = np.empty((*packed.shape[:-1], 2 * packed.shape[-1]), np.uint8)
    np.bitwise_and(packed, 0x0F, out=pixels[..., 0::2])
    np.right_shift(packed, 4, out=pixels[..., 1::2])
    return np.ascontiguousarray(pixels[..., :columns])


def pack_four_bit(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pack pixels of 0 to 15 into rows of 4 bits each; the inverse of `unpack_four_bit`.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (..., x)
        Values 0 to 15; larger ones are the caller's mistake and would spill over.

    Returns
    -------
    ndarray of uint8, shape (..., ceil(x / 2))
        The rows, the last byte's high nibble 0 where x is odd.
    """
    packed = pixels[..., 0::2].copy()
    packed[..., : pixels.shape[-1] // 2] |= pixels[..., 1::2] << 4
    return packed
