"""What may come of a damaged file: right pixels, an MrczError, or a warning and right pixels."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

import napari_mrcz as nm

if TYPE_CHECKING:
    from pathlib import Path

    from good_files import GoodFile

# What a damaged file may cost.
SECONDS = 1.0


@dataclass
class Outcome:
    """What came of reading a file.

    Attributes
    ----------
    error : str
        Why it was not opened; empty if it was.
    shape, dtype
        As opened.
    warned : list of str
        What was warned of.
    right, wrong, refused : list of int
        Frames that were read and are as they should be, or are not; frames refused by an error.
    """

    error: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    warned: list[str] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)


def judge(path: Path, good: GoodFile) -> Outcome:
    """Read a file that was made of `good`; fail where anything but `MrczError` comes of it."""
    outcome, seconds = _judged(path, good)
    if seconds > SECONDS:  # once may be the garbage collector
        outcome, seconds = _judged(path, good)
    assert seconds < SECONDS, path
    return outcome


def _judged(path: Path, good: GoodFile) -> tuple[Outcome, float]:
    outcome = Outcome()
    started = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            stack = nm.open(path)
        except nm.MrczError as error:
            assert str(path) in str(error)
            outcome.error = error.found
        else:
            with stack:
                _read(stack, good, outcome)
    for warning in caught:
        assert issubclass(warning.category, nm.MrczWarning), warning
    outcome.warned = [str(warning.message) for warning in caught]
    return outcome, time.process_time() - started


def _read(stack: nm.Stack, good: GoodFile, outcome: Outcome) -> None:
    n = len(stack)
    outcome.shape, outcome.dtype = stack.shape, stack.dtype.name
    assert isinstance(stack.metadata, dict)
    assert np.isfinite(stack.pixel_size).all()
    assert min(stack.pixel_size) >= 0
    repr(stack)
    for frame in sorted({*range(min(n, len(good.pixels) + 1)), n // 2, n - 1}):
        try:
            pixels = stack[frame]
        except nm.MrczError as error:
            assert error.frame == frame
            outcome.refused.append(frame)
            continue
        expected = good.pixels[frame] if frame < len(good.pixels) else None
        # Values, not dtype: uint8 may come back as the int8 in which it is stored.
        same = expected is not None and np.array_equal(pixels, expected)
        (outcome.right if same else outcome.wrong).append(frame)
