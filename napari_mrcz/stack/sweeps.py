"""Which files are the images of one rotation series."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from napari_mrcz.stack.opening import open
from napari_mrcz.stack.tvips import is_continuation
from napari_mrcz.suffixes import SMV_SUFFIXES, without_packing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["sweep_name", "sweeps"]

_NUMBER = re.compile(r"[-_.]?\d+$")


def sweeps(paths: Sequence[Path]) -> list[list[Path]]:
    """Sort files into movies: those of one frame whose names differ by their last number are one.

    Parameters
    ----------
    paths : sequence of Path
        Files of any format that is known. Later files of a TVIPS recording are left out: they
        are opened with the first one.

    Returns
    -------
    list of list of Path
        In the order in which they are first met; within a series by number.

    Raises
    ------
    MrczError
        If a file that may belong to a series cannot be opened.
    """
    groups: dict[tuple[Path, str, str], list[Path]] = {}
    for path in paths:
        if not is_continuation(path):
            suffixes = path.name.removeprefix(without_packing(path).stem)
            key = path.parent, sweep_name(path), suffixes.lower()
            groups.setdefault(key, []).append(path)
    found: list[list[Path]] = []
    for group in groups.values():
        if len(group) > 1 and all(map(_is_single, group)):
            found.append(sorted(group, key=_number))
        else:
            found += ([path] for path in group)
    return found


def sweep_name(path: Path) -> str:
    """Give what the names of a series have in common: without number and suffix."""
    stem = without_packing(path).stem
    return _NUMBER.sub("", stem) or stem


def _number(path: Path) -> tuple[int, str]:
    digits = re.search(r"\d+$", without_packing(path).stem)
    return int(digits[0]) if digits else 0, path.name


def _is_single(path: Path) -> bool:
    if without_packing(path).suffix.lower() in SMV_SUFFIXES:
        return True
    with open(path) as movie:
        return len(movie) == 1
