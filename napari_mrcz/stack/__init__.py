"""The lazy stack of frames: opening one of any format, correcting frame by frame, and saving it.

May import errors, naming, format and correction (to which it lends threads). Begin with stack.py;
sources.py is where its frames come from, opening.py finds the format of a file, saving.py writes.
Rows come in the order of MRC files, so that a movie and its gain reference, whatever their formats,
lie on each other: those of TIFF, DM, SMV and TVIPS begin at the top and are turned upside down, as
IMOD does; those of EER are not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
