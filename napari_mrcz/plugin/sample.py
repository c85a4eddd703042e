"""Sample data, simulated: written once and then opened like any files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mrcz.naming import cache_folder
from napari_mrcz.plugin.hooks import read
from napari_mrcz.simulation import (
    Camera,
    simulate_microed,
    simulate_movie,
    simulate_raw,
    simulate_session,
)
from napari_mrcz.stack import Stack, write

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_mrcz.plugin.layers import LayerData
    from napari_mrcz.simulation import Movie

# The numbers go up when the simulation changes, so that no old file is shown for the new.
_NAME = "sample-movie-1.mrcz"
_SWEEP = "sample-sweep-1.mrcz"
_RAW = "sample-raw-1.mrcz"
_SWEEP_FRAMES, _SWEEP_SHAPE = 20, (512, 512)
_RAW_FRAMES, _RAW_SHAPE = 20, (512, 512)
# Å.
_RAW_PIXEL = 1.35
_N_FRAMES = 40
_SHAPE = (1024, 1024)
_VOLTAGE_KV = 300.0
_N_MOVIES = 8
_SESSION_FRAMES = 60
_SESSION_SHAPE = (256, 256)
_ETCHING = 0.15
# What the session's gain reference was recorded with, in e⁻/pix: few, so that it is noisy.
_FLAT_DOSE = 400.0


def sample_movie() -> list[LayerData]:
    """Return the sample movie as a layer; its file is kept in the cache folder."""
    path = cache_folder() / _NAME
    write_sample_movie(path)
    return _opened(path, "simulated movie")


def sample_sweep() -> list[LayerData]:
    """Return diffraction patterns of a rotating crystal as a layer.

    The camera has cut negative counts off at zero, and a beam stop throws its shadow.
    """
    path = cache_folder() / _SWEEP
    if not path.exists():
        sweep = simulate_microed(_SWEEP_FRAMES, _SWEEP_SHAPE, seed=1)
        _write_stack(path, Stack.from_array(sweep.frames, metadata={"simulated": True}))
    return _opened(path, "simulated sweep")


def sample_raw() -> list[LayerData]:
    """Return raw frames, whose electrons can be counted, as a layer."""
    path = cache_folder() / _RAW
    if not path.exists():
        raw = simulate_raw(_RAW_FRAMES, _RAW_SHAPE, seed=1)
        size = (0.0, _RAW_PIXEL, _RAW_PIXEL)
        stack = Stack.from_array(raw.frames, pixel_size=size, metadata={"simulated": True})
        _write_stack(path, stack)
    return _opened(path, "simulated raw frames")


def write_sample_movie(path: Path) -> None:
    """Write the sample movie, unless it is there.

    Forty frames of a counting camera at 1 electron a pixel, in about two seconds; with hot, dark
    and dead pixels, an uneven gain, and particles in ice that drift.
    """
    if path.exists():
        return
    _write(path, simulate_movie(_N_FRAMES, _SHAPE, dose=1.0, seed=1))


def write_sample_session(folder: Path) -> None:
    """Write a session of eight movies and their camera's gain reference, unless it is there.

    movie_1.mrcz to movie_8.mrcz, sixty frames each, from a camera with more hot pixels every time,
    and gain.mrc, whose noise all movies get in common: KOMA takes it away.
    """
    if folder.exists():
        return
    camera = Camera(_SESSION_SHAPE, etching=_ETCHING, seed=2)
    session = simulate_session(_N_MOVIES, _SESSION_FRAMES, camera=camera, dose=2.0, seed=2)
    # Renamed when it is whole: what was interrupted is not taken for a session.
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent) as unfinished:
        whole = Path(unfinished, folder.name)
        for number, movie in enumerate(session.iter_movies(), 1):
            _write(whole / f"movie_{number}.mrcz", movie)
        write(whole / "gain.mrc", _recorded(camera))
        whole.rename(folder)


def _recorded(camera: Camera) -> npt.NDArray[np.float32]:
    """Return the gain reference recorded from a flat illumination; 0 where nothing comes."""
    gain = camera.gain_reference
    response = np.divide(1, gain, out=np.zeros_like(gain), where=gain > 0)
    flat = np.random.default_rng(camera.seed).poisson(_FLAT_DOSE * response)
    recorded = np.divide(flat.mean(), flat, out=np.zeros(flat.shape), where=flat > 0)
    return recorded.astype(np.float32)


def _opened(path: Path, name: str) -> list[LayerData]:
    ((data, attributes, kind),) = read(str(path))
    return [(data, {**attributes, "name": name}, kind)]


def _write(path: Path, movie: Movie) -> None:
    size = (0.0, movie.pixel_size, movie.pixel_size)
    _write_stack(path, Stack.from_array(movie.frames, pixel_size=size, metadata=movie.describe()))


def _write_stack(path: Path, stack: Stack) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, stack.described(voltage=_VOLTAGE_KV), overwrite=True)
