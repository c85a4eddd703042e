"""Write docs/settings.md and docs/results.md from where things are declared: `make docs`."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mrcz.cli.comparison import Result
from napari_mrcz.cli.looking import INFO_KEYS
from napari_mrcz.correction import CountingOptions, TruncationOptions
from napari_mrcz.correction.options import options_of
from napari_mrcz.session import journal
from napari_mrcz.session.recipe import Coding, tables
from napari_mrcz.session.report import MovieRow
from napari_mrcz.session.tables import EVENT_COLUMNS
from napari_mrcz.session.tasks import Outcome
from napari_mrcz.stack import VerifyReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DOCS = Path(__file__).parents[1] / "docs"

_MADE = (
    "<!-- Made of the declarations in the code by `make docs`; changes made here are lost. -->\n"
)
_SETTINGS = """
# Settings

Every option of the corrections and of how results are saved: the key of a recipe, the label in
napari, what it means, its default, and when to change it. **Most need no change.** Thresholds,
counts per electron, pedestal and beam centre are measured anew for each movie.

`napari-mrcz recipe new recipe.toml` writes a recipe with these tables, `napari-mrcz recipe check
recipe.toml` checks one, `napari-mrcz recipe show recipe.toml` says in words what it does. Steps are
done in the order of this page. A table that is left out is not done; a key that is left out takes
its default. Options with a flag are options of the command line too. How the fields of the widgets
are found: [widgets](widgets.md).
"""
_RESULTS = """
# Tables and JSON

What the command line writes for other programs. Sizes are in bytes, times in seconds, pixel sizes
in Å, doses in electrons per pixel. In CSV an unknown value is an empty field, and the entries of
lists are joined by "; ".
"""
_HEAD = "| key | in napari | meaning | default | change it? |\n|---|---|---|---|---|\n"


def settings() -> str:
    """Return the page of settings."""
    parts = [_MADE, _SETTINGS.lstrip("\n")]
    titles = {"outliers": "Outlier pixels", "gain": "Gain", "koma": "KOMA", "output": "Results"}
    for name, cls in tables().items():
        said = (cls.__doc__ or "").splitlines()[0]
        parts.append(f"## {titles[name]}: `[{name}]`\n\n{said}\n\n{_HEAD}{_rows(cls)}")
    others = {
        "Truncated pixels: `napari-mrcz microed`": TruncationOptions,
        "Electron counting: `napari-mrcz count`": CountingOptions,
        "Compression: `compress`, `convert`, `watch`": Coding,
    }
    for title, cls in others.items():
        head = _HEAD.replace("key", "option")
        parts.append(f"## {title}\n\n{head}{_rows(cls, flags=True)}")
    return "\n".join(parts)


def _rows(cls: type, *, flags: bool = False) -> str:
    """Return a row for each option of a dataclass."""
    rows = []
    for name, declared in options_of(cls).items():
        option = declared.option
        key = f"`{option.flag}`" if flags and option.flag else f"`{name}`"
        if option.flag and not flags:
            key += f", `{option.flag}`"
        if flags and not option.flag:
            key = "widget only"
        default = option.unset if declared.default in (None, "") else json.dumps(declared.default)
        cells = key, option.label, declared.note, default, option.advice
        rows.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n")
    return "".join(rows)


def results() -> str:
    """Return the page of tables and JSON."""
    outcome = {**attributes(Outcome), "ok": "Whether it was done."}
    del outcome["result"], outcome["shared"]
    report = {
        **attributes(VerifyReport),
        "ok": "Whether the file is good.",
        "text": "What is printed without --json.",
    }
    events = {
        name: " ".join(said.split())
        for name, said in re.findall(
            r"^``(\w+)``((?:.|\n(?!``))+)", inspect.getdoc(journal) or "", re.M
        )
    }
    sections = {
        "One object per file: `--json`": (
            "`compress`, `decompress`, `convert`, `restore`, `repair`, `correct`, `microed`, "
            "`count` print one line of JSON per file. `watch` adds `step`, what was done.",
            outcome,
        ),
        "One row per file: `--manifest`": (
            "A table, .csv or .jsonl, of the same commands and of `verify`: the keys above, in the "
            "order source, target, ok, skipped, sizes, checksums, seconds, error, kept, notes, "
            "warnings.",
            {},
        ),
        "`info --json`": ("One object per file.", INFO_KEYS),
        "`verify --json`": (
            "One object per file. Each of `faults` has `frame`, `offset` (the byte at which it "
            "begins, or null) and `found`.",
            report,
        ),
        "`bench --json`": ("A list, one object per way to store the movie.", attributes(Result)),
        "`session --table`": (
            "One row per movie, .csv or .parquet, in order of acquisition.",
            {field.name: attributes(MovieRow)[field.name] for field in fields(MovieRow)},
        ),
        "`count --events`": (
            "One row per electron, .csv or .parquet. An electron is in the pixel "
            "floor((y + 0.5) s), floor((x + 0.5) s) of counts of the super-resolution s.",
            EVENT_COLUMNS,
        ),
        "`watch.jsonl`": (
            "The journal of `watch`, one event per line; each has `time` and `event`:",
            {name: f"{said[0].upper()}{said[1:]}." for name, said in events.items()},
        ),
    }
    parts = [_MADE, _RESULTS.lstrip("\n")]
    for title, (said, keys) in sections.items():
        parts.append(f"## {title}\n\n{said}\n" + (f"\n{_table(keys)}" if keys else ""))
    return "\n".join(parts)


def _table(keys: Mapping[str, str]) -> str:
    rows = (
        f"| `{name}` | {said.replace('|', '/').replace('``', '`')} |\n"
        for name, said in keys.items()
    )
    return f"| key | what |\n|---|---|\n{''.join(rows)}"


def attributes(cls: type) -> dict[str, str]:
    """Return what a numpy style docstring says of each attribute."""
    section = (inspect.getdoc(cls) or "").partition("Attributes\n----------\n")[2]
    found: dict[str, str] = {}
    names: Iterable[str] = ()
    for line in section.splitlines():
        if head := re.fullmatch(r"(\w+(?:, \w+)*) : .*", line):
            names = head[1].split(", ")
        elif line.startswith("    "):
            for name in names:
                found[name] = f"{found.get(name, '')} {line.strip()}".strip()
        elif line:
            break
    return found


if __name__ == "__main__":
    for name, page in {"settings": settings, "results": results}.items():
        path = DOCS / f"{name}.md"
        path.write_text(page(), encoding="utf-8")
        print(f"{path} is written")
