"""The outlier filter of each stack of a session, fitted once, however often the stack is opened."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_mrcz.correction import OutlierFilter
from napari_mrcz.session.summaries import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_mrcz.stack import Stack


class OutlierFits:
    """Fits and keeps filters; usable from many threads.

    Of a filter only what it replaces is kept, not the images that it was fitted to. Stacks that
    are no file cannot be known again, and are fitted each time.
    """

    def __init__(self) -> None:
        self._kept: dict[str, OutlierFilter] = {}
        self._thread = threading.local()

    @contextmanager
    def followed(self, progress: Callable[[int, int], None]) -> Iterator[None]:
        """Report all fits in this thread by `progress`, called with (frames done, frames).

        What it raises ends the fit.
        """
        self._thread.progress = progress
        try:
            yield
        finally:
            self._thread.progress = None

    def of(self, stack: Stack) -> OutlierFilter:
        """Return the filter of a stack."""
        key = key_of(stack)
        found = self._kept.get(key) if key is not None else None
        if found is None:
            # Summed here because a fit tells no progress; it finds the sum done.
            progress = getattr(self._thread, "progress", None)
            total = stack.sum(dtype="smallest", progress=progress)
            found = OutlierFilter.fit(stack).settled()
            del total
            if key is not None:
                self._kept[key] = found
        return found

    def filtered(self, stack: Stack) -> Stack:
        """Return the lazy stack without its outliers."""
        return stack.apply(self.of(stack))
