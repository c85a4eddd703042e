"""A history as readable steps, and doing it again to another movie."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from napari_mrcz.plugin.layers import layer_data
from napari_mrcz.widgets.inspector.entries import Entry, entries_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_mrcz.plugin.layers import LayerData
    from napari_mrcz.stack import Stack

__all__ = ["replayed", "step_entries"]

_TITLES = {
    "Amplitude": "Amplitude of complex pixels",
    "Decimation": "Back to integer counts",
    "GainNormalization": "Gain normalised",
    "KomaNormalization": "Normalised by KOMA",
    "OutlierFilter": "Outlier pixels replaced",
    "Phase": "Phase of complex pixels",
}
# What every step has; the title tells it already.
_TOLD = ("name", "software")


def step_entries(history: Sequence[Mapping[str, Any]]) -> tuple[Entry, ...]:
    """Give a history's steps in order: what was done, how, and by which software."""
    return tuple(_step(number, step) for number, step in enumerate(history, 1))


def replayed(history: Sequence[Mapping[str, Any]], stack: Stack, name: str) -> list[LayerData]:
    """Do a history again to a stack, lazily; give what napari makes a layer of.

    Raises
    ------
    MrczError, ValueError
        If a step cannot be done again, or not to such frames.
    """
    from napari_mrcz.correction import replay

    again = replay(history, stack)
    return layer_data(again, f"{name} replayed")


def _step(number: int, step: Mapping[str, Any]) -> Entry:
    name = str(step.get("name", "unknown step"))
    title = _TITLES.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    said = _SAID.get(name)
    try:
        value = said(step) if said is not None else ""
    except (KeyError, TypeError, ValueError, IndexError):
        value = ""  # of another version: its parameters are listed all the same
    parameters = {key: item for key, item in step.items() if key not in _TOLD}
    by = f"By {step['software']}" if "software" in step else ""
    return Entry(f"{number}. {title}", value, "", by, entries_of(parameters))


def _outliers(step: Mapping[str, Any]) -> str:
    thresholds = step["thresholds"]
    hot, dark = (f"{thresholds[side]:.2f} σ".replace("-", "−") for side in ("hot", "dark"))
    return f"{step['n_hot']} hot beyond {hot}, {step['n_dark']} dark beyond {dark}"


def _gain(step: Mapping[str, Any]) -> str:
    said = f"γ {step['gamma']:g}" if step["gamma"] != 1 else ""
    turned = str(step["orientation"])
    parts = [said, "" if turned == "identity" else turned]
    return ", ".join(part for part in parts if part) or "by a gain reference"


def _koma(step: Mapping[str, Any]) -> str:
    return f"less the mean of {len(step['neighbours'])} other stacks"


_SAID: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "OutlierFilter": _outliers,
    "GainNormalization": _gain,
    "KomaNormalization": _koma,
}
