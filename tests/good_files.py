"""Good files of many kinds with their pixels, for tests that damage them or hand them to others."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mrcfile
import mrcz
import numpy as np

import napari_mrcz as nm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

# What MRC modes hold, and what is widened and comes back by our footer.
STORED_DTYPES = "int8 int16 uint16 int32 uint32 float16 float32 complex64".split()
WIDENED_DTYPES = "bool uint8 int64 uint64 float64 complex128".split()
# What the dtypes that are widened or narrowed take their values from, so that nothing is lost.
_VALUES_OF = {
    "int64": "int32",
    "uint64": "uint32",
    "float64": "float32",
    "complex128": "complex64",
}
_REAL_OF_COMPLEX = {"complex64": "float32"}


def movie(shape: tuple[int, ...], dtype: str, seed: int = 0, *, smooth: bool = False) -> NDArray:
    """Return pixels with the extremes of `dtype` among them (or few-valued ones if `smooth`).

    Every value is one that a mode holds: int64 holds int32's, float64 float32's.
    """
    rng = np.random.default_rng(seed)
    values = np.dtype(_VALUES_OF.get(dtype, dtype))
    if values.kind == "b":
        pixels = rng.integers(0, 2, shape).astype(values)
    elif values.kind in "iu":
        low, high = (0, 4) if smooth else (np.iinfo(values).min, np.iinfo(values).max)
        pixels = rng.integers(low, high, shape, values, endpoint=True)
        pixels.reshape(-1)[:: 1 + pixels.size // 3] = high
        pixels.reshape(-1)[-1] = low
    else:
        real = np.dtype(_REAL_OF_COMPLEX.get(values.name, values))
        parts = [_floats(rng, shape, real, smooth) for _ in range(1 + (values.kind == "c"))]
        pixels = parts[0].astype(values)
        if values.kind == "c":
            pixels.imag = parts[1]
    return pixels.astype(dtype)


def _floats(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any], smooth: bool
) -> NDArray:
    if smooth:
        return rng.integers(0, 5, shape).astype(dtype)
    pixels = (rng.standard_normal(shape) * 100).astype(dtype)
    odd = [np.nan, np.inf, -np.inf, -0.0, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal]
    where = rng.integers(0, pixels.size, len(odd))
    pixels.reshape(-1)[where] = odd
    return pixels


def assert_same_pixels(found: NDArray, expected: NDArray) -> None:
    """Fail unless shape, dtype and every value agree, signs of zero and NaNs included."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype.newbyteorder("=")
    expected = expected.astype(found.dtype)
    np.testing.assert_array_equal(found, expected)
    if found.dtype.kind == "f":
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found)[numbers], np.signbit(expected)[numbers])


@dataclass(frozen=True, repr=False)
class GoodFile:
    """A whole file, its pixels, and whether its frames have checksums."""

    name: str
    content: bytes
    pixels: NDArray
    checksums: bool

    def __repr__(self) -> str:
        return f"<{self.name}>"


def _ours(**options: Any) -> Callable[[Path, NDArray], None]:
    def write(path: Path, pixels: NDArray) -> None:
        metadata = {"specimen": "β-gal", "tilts": np.arange(5.0), "n": [1, {"deep": None}]}
        nm.write(path, pixels, pixel_size=(0, 1.5, 1.25), **({"metadata": metadata} | options))

    return write


def _mrcz(**options: Any) -> Callable[[Path, NDArray], None]:
    def write(path: Path, pixels: NDArray) -> None:
        mrcz.writeMRC(pixels, str(path), meta={"a": [1, 2]}, pixelsize=[1.0, 1.5, 1.25], **options)

    return write


def _fei(path: Path, pixels: NDArray) -> None:
    with mrcfile.new(path, pixels) as file:
        record = np.zeros(len(pixels), mrcfile.dtypes.get_ext_header_dtype(b"FEI1"))
        record["Metadata size"], record["HT"] = record.dtype.itemsize, 300e3
        file.set_extended_header(record)
        file.header.exttyp = b"FEI1"


def _gz(path: Path, pixels: NDArray) -> None:
    with mrcfile.new(path, pixels, compression="gzip"):
        pass


def _big_endian(path: Path, pixels: NDArray) -> None:
    with mrcfile.new(path, pixels.astype(pixels.dtype.newbyteorder(">"))):
        pass


# name: (suffix, dtype, writer, has checksums)
_KINDS: dict[str, tuple[str, str, Callable[[Path, NDArray], None], bool]] = {
    "ours": (".mrcz", "int16", _ours(), True),
    "ours, uint8": (".mrcz", "uint8", _ours(codec="lz4", filter="none"), True),
    "ours, small blocks": (".mrcz", "float32", _ours(codec="zlib", block_size=256), True),
    "ours, no footer": (".mrcz", "uint16", _ours(footer=False), False),
    "ours, plain": (".mrc", "int16", _ours(), True),
    "ours, plain, no footer": (".mrc", "int8", _ours(footer=False, metadata=None), False),
    "ours, 4 bit": (".mrc", "uint8", _ours(dtype="uint4", metadata=None), False),
    "mrcz": (".mrcz", "int16", _mrcz(compressor="zstd"), False),
    "mrcz, lz4": (".mrcz", "float32", _mrcz(compressor="lz4", clevel=9), False),
    "mrcz, blosc2": (".mrcz", "int16", _mrcz(compressor="zstd", backend="blosc2"), False),
    "FEI1": (".mrc", "int16", _fei, False),
    "gz": (".mrc.gz", "int16", _gz, False),
    "big-endian": (".mrc", "float32", _big_endian, False),
}
KINDS = tuple(_KINDS)
SHAPE = (4, 16, 20)


def good_file(kind: str, folder: Path) -> GoodFile:
    """Make a file of one of `KINDS`, of `SHAPE`, and read its bytes back."""
    suffix, dtype, write, checksums = _KINDS[kind]
    pixels = movie(SHAPE, dtype, seed=len(kind), smooth=True)
    path = folder / f"{kind.replace(', ', '-').replace(' ', '-')}{suffix}"
    write(path, pixels)
    return GoodFile(path.name, path.read_bytes(), pixels, checksums)


def gzipped(content: bytes) -> bytes:
    """Pack bytes the same way every time."""
    return gzip.compress(content, mtime=0)
