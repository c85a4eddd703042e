"""What a file says, in words: header fields, metadata and history as a tree of plain entries.

The metadata inspector shows it in napari, ``napari-mrcz info`` on a terminal.
"""

from napari_mrcz.stack.inspection.entries import Entry, entries_of, entry_of, matching
from napari_mrcz.stack.inspection.header_fields import header_entries
from napari_mrcz.stack.inspection.history_steps import step_entries

__all__ = ["Entry", "entries_of", "entry_of", "header_entries", "matching", "step_entries"]
