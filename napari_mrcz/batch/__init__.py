"""The same done to many files, here or on dask workers; a bad file stops nothing."""

from napari_mrcz.batch.outcome import Outcome
from napari_mrcz.batch.recode import Recode
from napari_mrcz.batch.repack import Repack
from napari_mrcz.batch.restore import Restore
from napari_mrcz.batch.run import run_all
from napari_mrcz.batch.task import Task
from napari_mrcz.batch.workers import cluster

__all__ = ["Outcome", "Recode", "Repack", "Restore", "Task", "cluster", "run_all"]
