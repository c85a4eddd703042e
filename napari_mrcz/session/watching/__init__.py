"""Following a session: movies compressed, verified and corrected as they are finished."""

from napari_mrcz.session.watching.arrival import Arrivals
from napari_mrcz.session.watching.correcting import Corrections
from napari_mrcz.session.watching.journal import Journal
from napari_mrcz.session.watching.ledger import Ledger
from napari_mrcz.session.watching.waking import woken
from napari_mrcz.session.watching.work import Ending, Step, Watch

__all__ = ["Arrivals", "Corrections", "Ending", "Journal", "Ledger", "Step", "Watch", "woken"]
