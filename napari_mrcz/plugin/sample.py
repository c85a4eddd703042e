"""Sample data, simulated: written once and then opened like any files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from collections.abc import Mapping

    import numpy.typing as npt

    from napari_mrcz.plugin.layers import LayerData

# The numbers go up when the simulation changes, so that no old file is shown for the new.
_NAME = "sample-movie-1.mrcz"
_SWEEP = "sample-sweep-1.mrcz"
_RAW = "sample-raw-1.mrcz"
_SWEEP_FRAMES, _SWEEP_SHAPE = 20, (512, 512)
_RAW_FRAMES, _RAW_SHAPE = 20, (512, 512)
_SIMULATED = {"simulated": True}
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
        _write(path, simulate_microed(_SWEEP_FRAMES, _SWEEP_SHAPE, seed=1).frames)
    return _opened(path, "simulated sweep")


def sample_raw() -> list[LayerData]:
    """Return raw frames, whose electrons can be counted, as a layer."""
    path = cache_folder() / _RAW
    if not path.exists():
        _write(path, simulate_raw(_RAW_FRAMES, _RAW_SHAPE, seed=1).frames, _RAW_PIXEL)
    return _opened(path, "simulated raw frames")


def write_sample_movie(path: Path) -> None:
    """Write the sample movie, unless it exists.

    Forty frames of a counting camera at 1 electron a pixel, in about two seconds; with hot, dark
    and dead pixels, an uneven gain, and particles in ice that drift.
    """
    if not path.exists():
        movie = simulate_movie(_N_FRAMES, _SHAPE, dose=1.0, seed=1)
        _write(path, movie.frames, movie.pixel_size, movie.describe())


def write_sample_session(folder: Path) -> None:
    """Write a session of eight movies and their camera's gain reference, unless it exists.

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
            name = f"movie_{number}.mrcz"
            _write(whole / name, movie.frames, movie.pixel_size, movie.describe())
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


def _write(
    path: Path, frames: Any, pixel: float = 0.0, metadata: Mapping[str, Any] = _SIMULATED
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stack = Stack.from_array(frames, pixel_size=(0.0, pixel, pixel), metadata=metadata)
    write(path, stack.described(voltage=_VOLTAGE_KV), overwrite=True)
