"""How the figures look: one place for axes, legends and files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

__all__ = ["panels", "save"]


def panels(*labels: tuple[str, str], size: tuple[float, float] = (6, 4), **grid: Any) -> Any:
    """Return a figure and its axes side by side, one for each pair of axis names (x, y)."""
    figure = Figure(figsize=size, layout="constrained")
    every: list[Axes] = figure.subplots(1, len(labels), squeeze=False, **grid)[0].tolist()
    for axes, (x, y), letter in zip(every, labels, "abc", strict=False):
        axes.set(xlabel=x, ylabel=y)
        axes.spines[["top", "right"]].set_visible(False)
        if len(labels) > 1:
            axes.set_title(f"({letter})", loc="left", fontsize="medium")
    return figure, *every


def save(figure: Figure, path: Path, *legends: Axes) -> None:
    """Write a figure as PNG, with a legend in each of the axes named."""
    for axes in legends:
        axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150, metadata={"Software": None})
