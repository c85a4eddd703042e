"""The same done to many files, here or on dask workers; a bad file stops nothing."""

from napari_mrcz.session.batch.outcome import Outcome
from napari_mrcz.session.batch.recode import Recode
from napari_mrcz.session.batch.repack import Repack
from napari_mrcz.session.batch.restore import Restore
from napari_mrcz.session.batch.run import run_all
from napari_mrcz.session.batch.task import Task
from napari_mrcz.session.batch.workers import cluster

__all__ = ["Outcome", "Recode", "Repack", "Restore", "Task", "cluster", "run_all"]
