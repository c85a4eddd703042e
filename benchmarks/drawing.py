"""How the figures look: one place for axes, legends and files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

__all__ = ["panels", "save"]


# Inches at _DPI: as wide as a page shows it, so that its letters are read as they are.
_WIDTH, _DPI = 8.2, 110


def panels(*labels: tuple[str, str], size: tuple[float, float] = (6, 4), **grid: Any) -> Any:
    """Return a figure and its axes side by side, one for each pair of axis names (x, y).

    `size` is that of the figure in inches, made narrower where no page is so wide.
    """
    width = min(size[0], _WIDTH)
    figure = Figure(figsize=(width, size[1] * (width / size[0]) ** 0.5), layout="constrained")
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
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
