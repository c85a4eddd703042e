"""Movies of other formats as lazy stacks: TIFF, EER, DM3, DM4, SMV, TVIPS; a module for each.

Rows come in the order of MRC files, so that a movie and its gain reference, whatever their formats,
lie on each other: those of TIFF, DM, SMV and TVIPS begin at the top and are turned upside down, as
IMOD does, those of EER not.
"""

from napari_mrcz.foreign.opening import FOREIGN_SUFFIXES, open_movie, open_sweep
from napari_mrcz.foreign.sweeps import sweeps

__all__ = ["FOREIGN_SUFFIXES", "open_movie", "open_sweep", "sweeps"]
