"""The header doctor: what a file's header says wrongly or not at all, and mending it.

::

    from napari_mrcz.format.doctor import diagnose, mend

    findings = diagnose("movie.mrc")
    for finding in findings:
        print(finding)
    mend("movie.mrc", findings, target="mended.mrc")

The pixels are never touched: a mended file has another header before the same bytes.
"""

from napari_mrcz.format.doctor.diagnosis import diagnose
from napari_mrcz.format.doctor.finding import Finding
from napari_mrcz.format.doctor.mending import Change, mend

__all__ = ["Change", "Finding", "diagnose", "mend"]
