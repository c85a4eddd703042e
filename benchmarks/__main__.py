"""Print the budget table: ``python -m benchmarks [--docs] [--repeat=N] [files ...]``."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

from benchmarks.measure import Row, median_of, table

GROUPS = (
    "files",
    "outliers",
    "regimes",
    "dragging",
    "movie",
    "session",
    "scaling",
    "sessions",
    "microed",
    "counting",
)
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"


def main(arguments: list[str]) -> None:
    """Measure the groups that are named, all by default, and print their rows.

    With ``--docs`` each group's table also goes into docs/benchmarks.md, between its two marks.
    With ``--repeat=3`` each group is measured three times: medians, with the lowest and the
    highest in brackets.
    """
    wanted = [argument for argument in arguments if not argument.startswith("--")]
    repeats = [int(a.partition("=")[2]) for a in arguments if a.startswith("--repeat=")]
    if unknown := set(wanted) - set(GROUPS):
        sys.exit(f"no such measurements: {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    for group in wanted or GROUPS:
        runs: list[list[Row]] = []
        for _ in range(max(repeats, default=1)):
            runs.append([])
            for row in import_module(f"benchmarks.{group}").rows():
                print(row, flush=True)
                runs[-1].append(row)
        if "--docs" in arguments:
            into_docs(group, table(median_of(runs)))


def into_docs(group: str, text: str) -> None:
    """Put a table between the marks for its group."""
    marks = re.compile(rf"(<!-- bench {group} -->\n).*?(<!-- end -->)", re.DOTALL)
    PAGE.write_text(
        marks.sub(lambda m: f"{m[1]}\n{text}\n\n{m[2]}", PAGE.read_text("utf-8")), "utf-8"
    )


main(sys.argv[1:])
