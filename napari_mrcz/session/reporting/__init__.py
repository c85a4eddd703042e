"""What a session was like: measured movie by movie, reported as a page and as a table."""

from napari_mrcz.session.reporting.findings import Findings, MovieRow
from napari_mrcz.session.reporting.measure import Measure, Measurements
from napari_mrcz.session.reporting.page import page
from napari_mrcz.session.reporting.table import write_table

__all__ = ["Findings", "Measure", "Measurements", "MovieRow", "page", "write_table"]
