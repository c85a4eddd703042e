"""Sample data: a simulated movie, written once and then opened like any file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from napari_mrcz.plugin.reader import read
from napari_mrcz.simulation import simulate_movie
from napari_mrcz.stack import Stack, write

if TYPE_CHECKING:
    from napari_mrcz.plugin.layers import LayerData

__all__ = ["cache_folder", "sample_movie", "write_sample_movie"]

# The number goes up when the simulation changes, so that no old file is shown for the new.
_NAME = "sample-movie-1.mrcz"
_N_FRAMES = 40
_SHAPE = (1024, 1024)
_VOLTAGE_KV = 300.0


def sample_movie() -> list[LayerData]:
    """Give the layer of the sample movie, which lies in the cache folder."""
    path = cache_folder() / _NAME
    write_sample_movie(path)
    ((data, attributes, kind),) = read(str(path))
    return [(data, {**attributes, "name": "simulated movie"}, kind)]


def cache_folder() -> Path:
    """Give the folder for files that can be made again."""
    return Path(platformdirs.user_cache_dir("napari-mrcz", appauthor=False))


def write_sample_movie(path: Path) -> None:
    """Write the sample movie, unless it is there.

    Forty frames of a counting camera at 1 electron a pixel, in about two seconds; with hot, dark
    and dead pixels, an uneven gain, and particles in ice that drift.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    movie = simulate_movie(_N_FRAMES, _SHAPE, dose=1.0, seed=1)
    size = (0.0, movie.pixel_size, movie.pixel_size)
    stack = Stack.from_array(movie.frames, pixel_size=size, metadata=movie.describe())
    write(path, stack.described(voltage=_VOLTAGE_KV), overwrite=True)
