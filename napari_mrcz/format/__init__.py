"""MRC and MRCZ files, byte by byte: header, chunks, footer; reading, writing, verifying."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
