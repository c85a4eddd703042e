"""What follows a threshold when it comes to rest: the corrected movie, then its noise; and clicks.

All of it in threads; of several requests only the last one's result comes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal, Slot

from napari_mrcz.widgets.base.job import LatestJob
from napari_mrcz.widgets.base.ready import get_labels_ready
from napari_mrcz.widgets.outliers.model import correct
from napari_mrcz.widgets.outliers.reading import measure_noise, read_pixel

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.outliers.model import Corrected, Fit


class Background(QObject):
    """Three jobs of one widget.

    Attributes
    ----------
    corrected : Signal(object)
        `Corrected` is there; the noise follows.
    measured : Signal(object)
        `Noise`, or None where there is one frame only.
    read : Signal(object)
        A `PixelCourse`.
    failed : Signal(object)
        The exception of any of them.
    """

    corrected = Signal(object)
    measured = Signal(object)
    read = Signal(object)
    failed = Signal(object)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._corrections, self._noises, self._pixels = (LatestJob(self) for _ in range(3))
        self._corrections.returned.connect(self._on_corrected)
        self._noises.returned.connect(self.measured)
        self._pixels.returned.connect(self.read)
        for job in self._jobs:
            job.failed.connect(self.failed)

    @property
    def _jobs(self) -> tuple[LatestJob, ...]:
        return self._corrections, self._noises, self._pixels

    @property
    def busy(self) -> bool:
        """Whether something is still to come."""
        return any(job.busy for job in self._jobs)

    def correct(self, fit: Fit, frame: int, with_mask: bool) -> None:
        """Ask for the corrected movie, and its noise."""
        self._noises.drop()
        self._corrections.request(partial(_correct, fit, frame, with_mask))

    def read_pixel(self, fit: Fit, row: int, column: int) -> None:
        """Ask for a pixel's value through the frames."""
        self._pixels.request(partial(read_pixel, fit, row, column))

    def drop(self) -> None:
        """Want nothing any more."""
        for job in self._jobs:
            job.drop()

    @Slot(object)
    def _on_corrected(self, corrected: Corrected) -> None:
        self._noises.request(partial(measure_noise, corrected.fit))
        self.corrected.emit(corrected)


def _correct(fit: Fit, frame: int, with_mask: bool, report: Report) -> Corrected:
    """Correct the movie, and get ready to show the mask."""
    corrected = correct(fit, frame, with_mask, report)
    if with_mask:
        get_labels_ready()
    return corrected
