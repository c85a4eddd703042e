"""Draw the papers' figures from simulated data: ``python -m benchmarks.figures [name ...]``.

Numbers are those of the preprint. They are written to docs/figures; docs/corrections.md says what
they show.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import microed_figure, outlier_figures, quality_figures, session_figures

FIGURES = {
    "5": outlier_figures.figure_5,
    "6": outlier_figures.figure_6,
    "7": outlier_figures.figure_7,
    "9": session_figures.figure_9,
    "11": session_figures.figure_11,
    "12": session_figures.figure_12,
    "microed_intensities": microed_figure.intensities,
    "before-after": quality_figures.before_after,
    "good-and-bad": quality_figures.good_and_bad,
}
FOLDER = Path(__file__).parents[1] / "docs" / "figures"


def main(arguments: list[str]) -> None:
    """Draw the figures that are named, all by default."""
    if unknown := set(arguments) - set(FIGURES):
        sys.exit(f"no such figures: {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in arguments or FIGURES:
        path = FOLDER / (f"figure-{name}.png" if name.isdigit() else f"{name}.png")
        FIGURES[name](path)
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
