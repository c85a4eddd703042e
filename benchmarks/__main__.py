"""Print the budget table: ``python -m benchmarks [--readme] [files ...]``."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

from benchmarks.measure import Row, table

GROUPS = ("files", "outliers", "regimes", "dragging", "session", "scaling", "microed", "counting")
README = Path(__file__).parents[1] / "README.md"


def main(arguments: list[str]) -> None:
    """Measure the groups that are named, all by default, and print their rows.

    With ``--readme`` each group's table also goes into the README, between its two marks.
    """
    wanted = [argument for argument in arguments if argument != "--readme"]
    if unknown := set(wanted) - set(GROUPS):
        sys.exit(f"no such measurements: {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    for group in wanted or GROUPS:
        rows: list[Row] = []
        for row in import_module(f"benchmarks.{group}").rows():
            print(row, flush=True)
            rows.append(row)
        if "--readme" in arguments:
            into_readme(group, table(rows))


def into_readme(group: str, text: str) -> None:
    """Put a table between the README's marks for its group."""
    marks = re.compile(rf"(<!-- bench {group} -->\n).*?(<!-- end -->)", re.DOTALL)
    README.write_text(
        marks.sub(lambda m: f"{m[1]}\n{text}\n\n{m[2]}", README.read_text("utf-8")), "utf-8"
    )


main(sys.argv[1:])
