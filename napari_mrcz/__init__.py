"""Open, inspect, correct and save MRCZ movies of electron microscopy.

A movie is opened as a lazy `Stack`, corrections are applied to it frame by frame, and a `Stack` is
what is shown and what is saved::

    import napari_mrcz as nm

    movie = nm.open("movie.mrcz")
    outliers = nm.OutlierFilter.fit(movie)
    nm.write("clean.mrcz", movie.apply(outliers))
"""

import lazy_loader

from napari_mrcz import correction

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

correction.lender = "napari_mrcz.format.machine"
