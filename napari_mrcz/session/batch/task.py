"""What tasks have in common: how they are called, what they report, which files they refuse."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from napari_mrcz.errors import MrczError

if TYPE_CHECKING:
    from napari_mrcz.session.batch.outcome import Outcome

Report: TypeAlias = Callable[[str, int, int], None]
"""Called with the stage of the work, the frames that are done, and how many there are."""


class Task(Protocol):
    """Something to be done with one file. Pickled, where it is done elsewhere."""

    @property
    def source(self) -> str:
        """The file."""

    def __call__(self, report: Report | None = None) -> Outcome:
        """Do it, and give how it went."""


def staged(report: Report | None, stage: str) -> Callable[[int, int | None], None]:
    """Give what takes (frames done, frames or None) and reports them as those of a stage."""

    def tell(done: int, total: int | None) -> None:
        if report is not None:
            report(stage, done, total or 0)

    return tell


def check_paths(source: str, target: str) -> None:
    """See that a file is not written over itself.

    Raises
    ------
    MrczError
        If it is.
    """
    if os.path.exists(source) and os.path.exists(target) and os.path.samefile(source, target):
        raise MrczError(target, "is the file that is read", advice="Choose another name or folder")
