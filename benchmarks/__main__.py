"""Print the budget table: ``python -m benchmarks [files ...]``."""

import sys
from importlib import import_module

from benchmarks.measure import Row, table

GROUPS = ("files",)


def main(wanted: list[str]) -> None:
    """Measure the groups that are wanted, all by default, and print their rows."""
    if unknown := set(wanted) - set(GROUPS):
        sys.exit(f"no such measurements: {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    rows: list[Row] = []
    for group in wanted or GROUPS:
        for row in import_module(f"benchmarks.{group}").rows():
            print(row, flush=True)
            rows.append(row)
    print()
    print(table(rows))


main(sys.argv[1:])
