"""Many stacks at once: their sums, KOMA, and how the camera ages."""

from napari_mrcz.session.koma import Koma
from napari_mrcz.session.session import Session
from napari_mrcz.session.summaries import cache_folder

__all__ = ["Koma", "Session", "cache_folder"]
