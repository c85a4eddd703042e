"""What was done to a movie, as readable steps."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.errors import with_minus
from napari_mrcz.stack.inspection.entries import Entry, entries_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_TITLES = {
    "Amplitude": "Amplitude of complex pixels",
    "Decimation": "Back to integer counts",
    "ElectronCounting": "Electrons counted",
    "GainNormalization": "Gain normalised",
    "KomaNormalization": "Normalised by KOMA",
    "OutlierFilter": "Outlier pixels replaced",
    "Pedestal": "Offset added",
    "Phase": "Phase of complex pixels",
    "TruncationModel": "Negative counts restored",
}
# What every step has; the title tells it already.
_TOLD = ("name", "software")
_REGISTRY = "napari_mrcz.correction.history"


def step_entries(history: Sequence[Mapping[str, Any]]) -> tuple[Entry, ...]:
    """Return a history's steps in order: what was done, how, and by which software."""
    return tuple(_step(number, step) for number, step in enumerate(history, 1))


def _step(number: int, step: Mapping[str, Any]) -> Entry:
    name = str(step.get("name", "unknown step"))
    title = _TITLES.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    said = _SAID.get(name)
    try:
        value = said(step) if said is not None else ""
    except (KeyError, TypeError, ValueError, IndexError):
        value = ""  # of another version: its parameters are listed all the same
    if not _is_known(name):
        module = step.get("module")
        of = f" of {module}" if isinstance(module, str) else ""
        value = f"a correction{of} that is not known here, and cannot be done again"
    parameters = {key: item for key, item in step.items() if key not in _TOLD}
    by = f"By {step['software']}" if "software" in step else ""
    return Entry(f"{number}. {title}", value, "", by, entries_of(parameters))


def _is_known(name: str) -> bool:
    """Return whether a step can be built again; what is not imported has registered nothing."""
    history = sys.modules.get(_REGISTRY)
    return name in _TITLES or (history is not None and history.registered(name) is not None)


def _outliers(step: Mapping[str, Any]) -> str:
    thresholds = step["thresholds"]
    hot, dark = (with_minus(f"{thresholds[side]:.2f} σ") for side in ("hot", "dark"))
    return f"{step['n_hot']} hot beyond {hot}, {step['n_dark']} dark beyond {dark}"


def _gain(step: Mapping[str, Any]) -> str:
    exponent = with_minus(f"{step['gamma']:g}")
    said = f"γ {exponent}" if step["gamma"] != 1 else ""
    turned = str(step["orientation"])
    parts = [said, "" if turned == "identity" else turned]
    return ", ".join(part for part in parts if part) or "by a gain reference"


def _koma(step: Mapping[str, Any]) -> str:
    others = f"the mean of {len(step['neighbours'])} other stacks"
    if not (step.get("helps", True) or step.get("even_if_worse")):
        return f"unchanged: {others} is noisier than the pattern"
    finer = f", finer than {step['length']} pixels" if step.get("length") else ""
    return f"less {others}{finer}"


def _truncation(step: Mapping[str, Any]) -> str:
    pixels = int(np.sum(step["zeros"]))
    smallest = int(step["smallest"]) - int(step.get("pedestal", 0))
    return f"{pixels} zeros replaced, down to {with_minus(str(smallest))}"


def _pedestal(step: Mapping[str, Any]) -> str:
    return f"{step['offset']} more in every pixel"


def _counting(step: Mapping[str, Any]) -> str:
    pixels = "detector pixels" if step["super_resolution"] == 1 else "super-resolution pixels"
    return f"charges of {step['threshold']:.4g} grey values or more, in {pixels}"


_SAID: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "OutlierFilter": _outliers,
    "GainNormalization": _gain,
    "KomaNormalization": _koma,
    "TruncationModel": _truncation,
    "Pedestal": _pedestal,
    "ElectronCounting": _counting,
}
