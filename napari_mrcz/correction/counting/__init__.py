"""Electron counting: where single electrons struck, from raw frames of a fast detector.

McLeod et al. (2018), doi:10.1016/j.jsb.2017.11.012, section 2.4, leaves counting to whoever gets
the frames; here it is done by fitting the spot that each electron leaves.
"""

from napari_mrcz.correction.counting.background import Background
from napari_mrcz.correction.counting.counting import ElectronCounting, count_electrons
from napari_mrcz.correction.counting.events import Events

__all__ = ["Background", "ElectronCounting", "Events", "count_electrons"]
