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

__all__ = ["sample_movie", "sample_movie_path"]

# The number goes up when the simulation changes, so that no old file is shown for the new.
_NAME = "sample-movie-1.mrcz"
_N_FRAMES = 40
_SHAPE = (1024, 1024)
_VOLTAGE_KV = 300.0


def sample_movie() -> list[LayerData]:
    """Give the layer of the sample movie."""
    ((data, attributes, kind),) = read(str(sample_movie_path()))
    return [(data, {**attributes, "name": "simulated movie"}, kind)]


def sample_movie_path() -> Path:
    """Give the sample movie's file in the cache folder; written unless it is there.

    Forty frames of a counting camera at 1 electron a pixel, in about two seconds; with hot, dark
    and dead pixels, an uneven gain, and particles in ice that drift.
    """
    path = Path(platformdirs.user_cache_dir("napari-mrcz", appauthor=False)) / _NAME
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        movie = simulate_movie(_N_FRAMES, _SHAPE, dose=1.0, seed=1)
        size = (0.0, movie.pixel_size, movie.pixel_size)
        stack = Stack.from_array(movie.frames, pixel_size=size, metadata=movie.describe())
        write(path, stack.described(voltage=_VOLTAGE_KV), overwrite=True)
    return path
