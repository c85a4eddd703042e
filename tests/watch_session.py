"""A folder of movies that is watched, in this process and without any waiting."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.correction.koma import KomaOptions
from napari_mrcz.correction.outliers.thresholds import OutlierStep
from napari_mrcz.session.arrivals import Arrivals
from napari_mrcz.session.follow import Corrections, Watch
from napari_mrcz.session.journal import Journal, Ledger
from napari_mrcz.session.recipe import Recipe

# The means of 8 frames are exact, so that sums of them are the same in whatever order.
SHAPE = (8, 40, 48)
RADIUS = 2
# Stacks of noise alone have contrasts of chance: none is to be left out for its own.
RECIPE = Recipe(OutlierStep(order=5.0), koma=KomaOptions(RADIUS, limit=1e6, even_if_worse=True))


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def frames_of(i: int, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(i).poisson(2, shape).astype(np.uint8)


def record(folder: Path, i: int, shape=SHAPE) -> Path:
    """Write a movie as a camera does."""
    path = folder / f"movie_{i:02}.mrc"
    nm.write(path, frames_of(i, shape))
    return path


def events(out: Path) -> list[dict]:
    """Return the whole lines of a journal, which may be about to be written."""
    path = out / "watch.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def count(out: Path, kind: str) -> Counter:
    return Counter(line["source"] for line in events(out) if line["event"] == kind)


def frames_in(folder: Path) -> dict[str, tuple[bytes, list[str]]]:
    """Frames and neighbours of each result: the same however they were made, as histories are not.

    These say how the order of the movies was known.
    """
    found = {}
    for path in sorted(folder.glob("*.mrcz")):
        with nm.open(path) as stack:
            neighbours = stack.history[-1].get("neighbours", [])
            found[path.name] = np.asarray(stack).tobytes(), list(neighbours)
    return found


def contents(folder: Path, pattern: str = "*.mrcz") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob(pattern))}


class Session:
    """A watch in this process, without any waiting: `idle` is called where it would wait."""

    def __init__(self, folder, out, idle, **settings) -> None:
        self.said: list[str] = settings.pop("said", [])
        self.steps = []
        recipe, timeout = settings.pop("recipe", None), settings.pop("timeout", None)
        with Journal(out / "watch.jsonl") as journal:
            ledger = Ledger(journal, folder)
            corrections = recipe and Corrections(ledger, out, recipe, timeout=timeout)
            arrivals = Arrivals(folder, (".mrc",), settle=0)
            self.watch = Watch(
                arrivals,
                ledger,
                out,
                lambda seconds: idle(self),
                self.said.append,
                corrections=corrections,
                **settings,
            )
            for step in self.watch.steps():
                self.steps.append(step)

    def done(self, kind: str) -> list[str]:
        return [Path(s.outcome.source).stem for s in self.steps if s.kind == kind and s.outcome.ok]


def at_once(folder, out, **settings) -> Session:
    def idle(session):
        raise AssertionError("there is nothing to wait for")

    return Session(folder, out, idle, once=True, **settings)
