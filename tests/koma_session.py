"""A simulated session on disk, as the KOMA widget and its model read it."""

from pathlib import Path

import pytest

import napari_mrcz as nm
from napari_mrcz.simulation import CARBON_EDGE, simulate_session

N_STACKS, N_FRAMES, SHAPE = 9, 6, (64, 80)
CARBON = 4


@pytest.fixture(scope="module")
def session_folder(tmp_path_factory) -> Path:
    """Return a folder with a session of nine movies, of which one shows carbon."""
    folder = tmp_path_factory.mktemp("session")
    session = simulate_session(
        N_STACKS, N_FRAMES, SHAPE, dose=2.0, exceptions={CARBON: CARBON_EDGE}, seed=4
    )
    for index, movie in enumerate(session.iter_movies(), start=1):
        nm.write(folder / f"movie_{index}.mrc", movie.frames, pixel_size=(0, 1.35, 1.35))
    return folder


@pytest.fixture
def paths(session_folder) -> list[Path]:
    """Return the movies in order."""
    return [session_folder / f"movie_{index}.mrc" for index in range(1, N_STACKS + 1)]
