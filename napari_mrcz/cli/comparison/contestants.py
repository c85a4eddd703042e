"""Ways to store a movie: our own, other programs', and command-line packers where installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.stack import read, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Frames = npt.NDArray[Any]

_FOUR_BITS = 15
# What `mrcz` stores as it is given.
_MRCZ = [np.dtype(name) for name in ("i1", "i2", "u2", "i4", "u4", "f4", "c8")]
# Packers read a plain file and write another; the levels are those of the article's Table 1.
_PACKERS = {
    "pigz": (["pigz", "--fast", "--keep", "--force"], ["pigz", "-d"], ".gz"),
    "lbzip2": (["lbzip2", "-9", "--keep", "--force"], ["lbzip2", "-d"], ".bz2"),
    "xz": (["xz", "-6", "--threads=0", "--keep", "--force"], ["xz", "-d"], ".xz"),
}


@dataclass(frozen=True)
class Contestant:
    """One way to store a movie.

    Attributes
    ----------
    name : str
        Program, codec and level.
    suffix : str
        Of its file.
    write, read : callable
        Called with (path, frames), and with (path); what is written is on disk then.
    """

    name: str
    suffix: str
    write: Callable[[Path, Frames], None]
    read: Callable[[Path], Frames]


def contestants(frames: Frames, *, slow: bool = False) -> Iterator[Contestant]:
    """Give the ways that can store these frames and whose programs are installed.

    Parameters
    ----------
    frames : ndarray, shape (n, y, x)
        Integer counts.
    slow : bool
        Also those that take minutes.
    """
    small = frames.dtype.kind in "iu" and 0 <= frames.min() and frames.max() <= _FOUR_BITS
    yield Contestant("MRC, uncompressed", ".mrc", partial(_write, codec="none"), read)
    if small:
        yield Contestant("MRC, 4 bits", ".mrc", partial(_write, codec="none", dtype="uint4"), read)
    for codec, level in (("lz4", 9), ("zstd", 1), ("zstd", 5)):
        wanted = partial(_write, codec=codec, level=level)
        yield Contestant(f"MRCZ, {codec}-{level}", ".mrcz", wanted, read)
    if find_spec("mrcz") is not None and _signed(frames).dtype in _MRCZ:
        yield Contestant("mrcz, zstd-1", ".mrcz", _write_mrcz, _read_mrcz)
    for name, codec in (("deflate", "zlib"), ("LZW", "lzw")):
        if codec == "zlib" or find_spec("imagecodecs") is not None:
            wanted = partial(_write_tiff, codec=codec)
            yield Contestant(f"TIFF, {name}", ".tif", wanted, _read_tiff)
    for name, (pack, unpack, suffix) in _PACKERS.items():
        if shutil.which(name) and (slow or name != "xz"):
            yield Contestant(
                f"MRC + {name}",
                f".mrc{suffix}",
                partial(_pack, command=pack),
                partial(_unpack, command=unpack),
            )


def flush(path: Path) -> None:
    """Have a file on the disk rather than in memory, as `write` does by itself."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, frames: Frames, **options: Any) -> None:
    write(path, frames, overwrite=True, **options)


def _write_mrcz(path: Path, frames: Frames) -> None:
    import mrcz  # type: ignore[import-untyped]

    mrcz.writeMRC(_signed(frames), str(path), compressor="zstd", clevel=1)
    flush(path)


def _read_mrcz(path: Path) -> Frames:
    import mrcz

    return np.asarray(mrcz.readMRC(str(path))[0])


def _write_tiff(path: Path, frames: Frames, codec: str) -> None:
    import tifffile

    tifffile.imwrite(path, frames, compression=codec, photometric="minisblack")
    flush(path)


def _read_tiff(path: Path) -> Frames:
    import tifffile

    return np.asarray(tifffile.imread(path))


def _pack(path: Path, frames: Frames, command: list[str]) -> None:
    plain = path.with_suffix("")
    _write(plain, frames, codec="none")
    subprocess.run([*command, str(plain)], check=True, capture_output=True)  # noqa: S603
    flush(path)


def _unpack(path: Path, command: list[str]) -> Frames:
    plain = path.with_name(f"unpacked-{path.stem}")
    with path.open("rb") as packed, plain.open("wb") as file:
        subprocess.run(command, stdin=packed, stdout=file, check=True)  # noqa: S603
    return read(plain)


def _signed(frames: Frames) -> Frames:
    """Give uint8 as the int8 that `mrcz` has, where it fits."""
    fits = frames.dtype == np.uint8 and frames.max() <= np.iinfo(np.int8).max
    return frames.view(np.int8) if fits else frames
