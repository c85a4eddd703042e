"""Integrated intensities before and after, after fig. 4 of Hattne et al. (2016), simulated.

Doi:10.1107/S1600576716007196.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import PercentFormatter

from benchmarks.drawing import panels, save
from benchmarks.microed import WEAK, integrated

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["intensities"]

_SERIES = (
    ("recorded", "negative counts cut off", "black", "o"),
    ("corrected", "corrected", "tab:orange", "s"),
)


def intensities(path: Path) -> None:
    """Draw bias and noise of weak intensities by resolution, against frames never cut off.

    Both are differences of the same spots in the same frames, so that the electrons' noise, which
    would hide the bias, is in neither.
    """
    found = integrated(80)
    by = "distance from the beam / largest"
    figure, bias, noise = panels(
        (by, "bias of weak intensities / mean"), (by, "noise of weak intensities"), size=(9, 3.8)
    )
    ends = np.linspace(0.25, 1, 10)
    shell = np.where(found.true < WEAK, np.digitize(found.resolution, ends), 0)
    middles = (ends[1:] + ends[:-1]) / 2
    shells = [shell == i for i in range(1, len(ends))]
    for name, label, color, marker in _SERIES:
        values = getattr(found, name)
        pairs = [((values - found.whole)[s], found.true[s].mean()) for s in shells]
        means = [off.mean() / true for off, true in pairs]
        errors = [off.std() / np.sqrt(len(off)) / true for off, true in pairs]
        bias.errorbar(middles, means, errors, marker=marker, ms=4, label=label, color=color)
        ratios = [
            (values - found.true)[s].std() / (found.whole - found.true)[s].std() for s in shells
        ]
        noise.plot(middles, ratios, marker=marker, ms=4, label=label, color=color)
    bias.axhline(0, color="0.5", lw=0.8, ls=":", label="never cut off")
    noise.axhline(1, color="0.5", lw=0.8, ls=":")
    bias.yaxis.set_major_formatter(PercentFormatter(1, 0))
    noise.yaxis.set_major_formatter(PercentFormatter(1, 0))
    save(figure, path, bias)
