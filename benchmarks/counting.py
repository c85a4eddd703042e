"""Electron counting against known truth and the theory of coincidence; what travels to workers."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

import napari_mrcz as nm
from benchmarks.measure import Row, in_turns
from napari_mrcz.correction import ElectronCounting
from napari_mrcz.session.detectors import Parcels
from napari_mrcz.simulation import simulate_raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_mrcz.correction.counting.events import Events
    from napari_mrcz.simulation import RawMovie

DOSES = (0.002, 0.005, 0.01, 0.02, 0.05)
GOAL_DOSE, GOAL = 0.02, 0.98
# A K2 at 400 frames and one electron a pixel each second; and as many as can be told apart.
SENT_DOSES = (0.0025, 0.02)
THRESHOLDS = (0.0, 3.0, 5.0)
# Pixels: electrons closer than this pass for one, at a noise of 6 and a charge of 200.
RESOLVED = 0.5
# What the papers guess that compression saves (article, section 2.4).
GUESS = 50.0


def rows() -> Iterator[Row]:
    """Measure what is found by dose, what travels, and how fast it is decoded."""
    for dose in DOSES:
        yield from found(dose)
    yield from sent()
    yield from decoding()


def found(dose: float) -> Iterator[Row]:
    """Count electrons at a dose rate."""
    movie = simulate_raw(24, (256, 256), dose=dose, seed=5)
    recall, precision, rms = scores(movie, ElectronCounting.fit(movie.frames))
    goal = GOAL if dose == GOAL_DOSE else None
    what = f"electrons at {dose:g} e⁻/pix in a frame"
    theory = f"theory of coincidence, {RESOLVED:g} pixel: {coincidence(dose):.3f}"
    yield Row(f"{what}: recall", theory, recall, "", least=goal)
    yield Row(f"{what}: precision", "truth", precision, "", least=goal)
    yield Row(f"{what}: RMS error", "truth", rms, "pixel", most=0.25 if goal else None)


def coincidence(dose: float) -> float:
    """Return the part of electrons that is left where those within `RESOLVED` pass for one.

    Poisson: an electron has so many others within that distance, and shares its event with them.
    """
    near = dose * np.pi * RESOLVED**2
    return float(-np.expm1(-near) / near)


def scores(movie: RawMovie, counting: ElectronCounting) -> tuple[float, float, float]:
    """Return recall, precision and the RMS distance of events from their electrons, in pixels."""
    n_true = n_found = 0
    distances = []
    for frame, where in zip(movie.frames, movie.positions, strict=True):
        events = counting.events(frame)
        n_true, n_found = n_true + len(where), n_found + len(events)
        distances.append(matched(where, events))
    apart = np.concatenate(distances)
    return len(apart) / n_true, len(apart) / n_found, float(np.sqrt(np.square(apart).mean()))


def matched(where: npt.NDArray[np.float64], events: Events) -> npt.NDArray[np.float64]:
    """Return the distances of electrons and events within a pixel, each once, nearest first."""
    at = np.stack([events.y, events.x], axis=1)
    apart, other = cKDTree(where).query(at, k=4, distance_upper_bound=1.0)
    taken: tuple[set[int], set[int]] = set(), set()
    distances = []
    for distance, event, electron in sorted(
        (apart[i, j], i, other[i, j]) for i, j in np.argwhere(apart < 1)
    ):
        if event not in taken[0] and electron not in taken[1]:
            taken[0].add(event)
            taken[1].add(electron)
            distances.append(distance)
    return np.array(distances)


def sent() -> Iterator[Row]:
    """Compare bytes that travel with raw ones; the camera may set what is near noise to 0."""
    for dose in SENT_DOSES:
        movie = simulate_raw(8, (512, 512), dose=dose, seed=6)
        for sigmas in THRESHOLDS:
            apart = movie.frames - movie.offset
            quiet = apart < sigmas * movie.noise
            counted = np.where(quiet, 0, np.rint(apart)).astype(np.uint16)
            frames = counted if sigmas else movie.frames
            treated = f"below {sigmas:g} σ set to 0" if sigmas else "as they were read out"
            what = f"sent to workers at {dose:g} e⁻/pix in a frame, pixels {treated}"
            against = f"raw bytes; the papers guess {GUESS:g} : 1"
            yield Row(what, against, frames.nbytes / n_sent(frames), ": 1")


def n_sent(frames: npt.NDArray[np.uint16]) -> int:
    """Return the bytes of all chunks of a movie."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "raw.mrcz"
        nm.write(path, frames)
        with nm.open(path) as stack:
            parcels = Parcels(stack, str(path))
            total = sum(len(parcel.chunk) for parcel in parcels)
            parcels.close()
    return total


def decoding() -> Iterator[Row]:
    """Decode on two cores what travels, beside copying the raw frames."""
    movie = simulate_raw(8, (1024, 1024), dose=GOAL_DOSE, seed=7)
    copy = np.empty_like(movie.frames)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "raw.mrcz"
        nm.write(path, movie.frames)
        with nm.open(path) as stack, ThreadPoolExecutor(2) as pool:
            parcels = Parcels(stack, str(path))
            every = list(parcels)
            parcels.close()
            decoded, copied = in_turns(
                lambda: list(pool.map(parcels.pixels, every)),
                lambda: np.copyto(copy, movie.frames),
            )
    cores = min(2, os.cpu_count() or 1)
    yield Row(
        f"decoding what travels, {cores} cores", "memcpy of it", decoded / copied, "× as long"
    )
    rate = movie.frames.nbytes / decoded / 1e9
    yield Row(
        f"decoding what travels, {cores} cores", "a K2's 5.7 GB/s", rate, "GB/s of raw frames"
    )
