"""Many stacks at once: which they are and in which order, their sums, KOMA, how the camera ages."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
