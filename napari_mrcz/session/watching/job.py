"""A step of the work, and a full disk: that is no failure of the movie it was noticed at."""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_mrcz.errors import MrczError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_mrcz.session.tasks import Outcome, Report
    from napari_mrcz.session.watching.ledger import Version

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(BaseException):
    """There was no room for what was to be written. No failure of a movie: `attempt` passes it."""


@dataclass(frozen=True)
class Job:
    """Something to be done with a movie.

    Attributes
    ----------
    kind : str
        "compressed", "deleted", "summed" or "corrected": what it will be.
    movie : str
        Path of the movie within the watched folder.
    version : Version
        Its size and time.
    source : str
        The file that is read.
    work : callable
        Called with the report; gives the outcome.
    """

    kind: str
    movie: str
    version: Version
    source: str
    work: Callable[[Report | None], Outcome]

    def __call__(self, report: Report | None = None) -> Outcome:
        """Do the work.

        Raises
        ------
        DiskFull
            If there was no room.
        """
        try:
            return self.work(report)
        except (MrczError, OSError) as error:
            if is_full(error):
                raise DiskFull from error
            raise


def is_full(error: BaseException | None) -> bool:
    """Tell whether an error, or what led to it, is that of a full disk or a used-up quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__
    return False


def free_nbytes(folder: Path) -> int:
    """Give how much room there is; 0 where it cannot be told."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
