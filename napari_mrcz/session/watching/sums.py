"""The sums of the stacks around those that wait for KOMA, as files that survive a restart."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgpack

from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.format.metadata import from_tagged, to_plain
from napari_mrcz.session.correct import Surveyed
from napari_mrcz.session.summaries import StackSum

if TYPE_CHECKING:
    from pathlib import Path

    from napari_mrcz.session.watching.ledger import Movie


class Sums:
    """A folder of sums; each can be had again from its movie, so none is irreplaceable.

    Parameters
    ----------
    folder : Path
        Made when it is first needed.
    recipe : str
        Fingerprint of the recipe; sums by another one are not given.
    """

    def __init__(self, folder: Path, recipe: str) -> None:
        self._folder = folder
        self._recipe = recipe

    def save(self, movie: Movie, surveyed: Surveyed) -> None:
        """Keep a sum.

        Raises
        ------
        MrczError, OSError
            If the disk refuses.
        """
        path = self._path(movie)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "of": self._key(movie),
            "outliers": surveyed.outliers,
            "sum": vars(surveyed.sum),
        }
        with AtomicFile(path, overwrite=True) as file:
            file.write(msgpack.packb(to_plain(content)))
            file.commit()

    def load(self, movie: Movie) -> Surveyed | None:
        """Give a sum, if it is there and whole."""
        try:
            content = msgpack.unpackb(self._path(movie).read_bytes(), object_hook=from_tagged)
            if content["of"] != self._key(movie):
                return None
            return Surveyed(content["outliers"], StackSum(**content["sum"]))
        except (OSError, ValueError, KeyError, TypeError, msgpack.UnpackException):
            return None

    def discard(self, movie: Movie) -> None:
        """Delete a sum, if it is there."""
        with contextlib.suppress(OSError):
            self._path(movie).unlink()

    def _key(self, movie: Movie) -> list[str | int]:
        return [self._recipe, movie.version.size, movie.version.mtime_ns]

    def _path(self, movie: Movie) -> Path:
        return self._folder / f"{movie.source}.sum"
