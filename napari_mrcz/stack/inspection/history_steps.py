"""What was done to a movie, as readable steps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from napari_mrcz.correction.history import registered
from napari_mrcz.stack.inspection.entries import Entry, entries_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What every step has; the title tells it already.
_TOLD = ("name", "software")


def step_entries(history: Sequence[Mapping[str, Any]]) -> tuple[Entry, ...]:
    """Return a history's steps in order: what was done, how, and by which software."""
    return tuple(_step(number, step) for number, step in enumerate(history, 1))


def _step(number: int, step: Mapping[str, Any]) -> Entry:
    name = str(step.get("name", "unknown step"))
    correction = registered(name)
    title = getattr(correction, "title", "") or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    value = ""
    if correction is None:
        module = step.get("module")
        of = f" of {module}" if isinstance(module, str) else ""
        value = f"a correction{of} that is not known here, and cannot be done again"
    elif said := getattr(correction, "said", None):
        try:
            value = said(step)
        except (KeyError, TypeError, ValueError, IndexError):
            pass  # of another version: its parameters are listed all the same
    parameters = {key: item for key, item in step.items() if key not in _TOLD}
    by = f"By {step['software']}" if "software" in step else ""
    return Entry(f"{number}. {title}", value, "", by, entries_of(parameters))
