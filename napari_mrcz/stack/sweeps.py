"""Which files are the images of one rotation series, and opening them as one movie."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mrcz.errors import listed, warn
from napari_mrcz.naming import SMV_SUFFIXES, without_packing
from napari_mrcz.stack.opening import open
from napari_mrcz.stack.smv import merged, open_smv
from napari_mrcz.stack.stack import Stack
from napari_mrcz.stack.tvips import first_part

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

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
        if first_part(path) is None:
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


def open_sweep(paths: Sequence[str | PathLike[str]]) -> Stack:
    """Open files as one movie, one after the other, such as the images of a rotation series.

    Parameters
    ----------
    paths : sequence of path-like
        One or more, in order; see `sweeps`.

    Returns
    -------
    Stack
        What their metadata have in common is as in each of them; where they differ, it is a list
        with one value per file.

    Raises
    ------
    MrczError
        If one cannot be read.
    ValueError
        If there is none, or their frames differ in shape or type.

    Warns
    -----
    MrczWarning
        If numbers are missing in the series.
    """
    if len(paths) == 1:
        return open(paths[0])
    files = [Path(path).absolute() for path in paths]
    if missing := _gaps(files):
        warn(f"{files[0]}: images {missing} are missing")
    if files and all(path.suffix.lower() in SMV_SUFFIXES for path in files):
        return open_smv(files)
    parts = [open(path) for path in files]
    return Stack.joined(parts).described(
        metadata=merged([dict(part.description.metadata) for part in parts])
    )


def sweep_name(path: Path) -> str:
    """Return what the names of a series have in common: without number and suffix."""
    stem = without_packing(path).stem
    return _NUMBER.sub("", stem) or stem


def _number(path: Path) -> tuple[int, str]:
    digits = re.search(r"\d+$", without_packing(path).stem)
    return int(digits[0]) if digits else 0, path.name


def _gaps(paths: Sequence[Path]) -> str:
    """Return which numbers are missing among the files of one series, in words; "" for none."""
    if len({(path.parent, sweep_name(path)) for path in paths}) != 1:
        return ""
    numbers = sorted({_number(path)[0] for path in paths})
    pairs = itertools.pairwise(numbers)
    missing = [
        f"{one + 1}" if other == one + 2 else f"{one + 1} to {other - 1}"
        for one, other in pairs
        if other > one + 1
    ]
    return listed(missing)


def _is_single(path: Path) -> bool:
    if without_packing(path).suffix.lower() in SMV_SUFFIXES:
        return True
    with open(path) as movie:
        return len(movie) == 1
