"""Independent random streams from one seed: every frame, pattern and specimen has its own.

A stream depends on the seed and on its name only, so frame 599 is drawn without its 599
predecessors, and a new kind of noise leaves every older number as it was.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np


def stream(seed: int, *name: str | int) -> np.random.Generator:
    """Give the generator that belongs to `name` under `seed`.

    Parameters
    ----------
    seed : int
        Not negative.
    *name : str or int
        Words and indices, e.g. ``stream(7, "frame", 12)``.

    Raises
    ------
    ValueError
        If the seed is negative.
    """
    return np.random.default_rng(_sequence(seed, name))


def child_seed(seed: int, *name: str | int) -> int:
    """Give a seed that belongs to `name` under `seed`.

    Parameters
    ----------
    seed : int
        Not negative.
    *name : str or int
        Words and indices.

    Returns
    -------
    int
        Below 2**53, so that it survives JSON readers that know floats only.

    Raises
    ------
    ValueError
        If the seed is negative.
    """
    return int(_sequence(seed, name).generate_state(1, np.uint64)[0] >> np.uint64(11))


def _sequence(seed: int, name: tuple[str | int, ...]) -> np.random.SeedSequence:
    key = [crc32(word.encode()) if isinstance(word, str) else word for word in name]
    return np.random.SeedSequence(seed, spawn_key=key)
