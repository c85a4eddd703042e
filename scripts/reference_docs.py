"""Write the pages that are made of the code, and the README's figures: `make docs`."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mrcz.cli.commands import DRIFT_KEYS
from napari_mrcz.cli.comparison import Result
from napari_mrcz.cli.looking import INFO_KEYS
from napari_mrcz.correction import CountingOptions, TruncationOptions
from napari_mrcz.correction.options import options_of
from napari_mrcz.session import journal
from napari_mrcz.session.page import EVENT_COLUMNS
from napari_mrcz.session.recipe import Coding, tables
from napari_mrcz.session.report import MovieRow
from napari_mrcz.session.tasks import Outcome, Selection
from napari_mrcz.stack import VerifyReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DOCS = Path(__file__).parents[1] / "docs"
README = DOCS.parent / "README.md"

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
its default. Options with a flag are options of the command line too. All
fields of the widgets: [fields](fields.md).
"""
_OWN = """\
## A correction of your own: `["module:Name"]`

The table is named after the module and the class (how to write one: [a
correction of your own](python.md#a-correction-of-your-own)). Its keys are the fields of the class,
with their defaults, and

| key | in napari | meaning | default | change it? |
|---|---|---|---|---|
| `after` | - | Step that it follows: "start", "outliers", "gain" or "koma". | "koma" | \
"start" or "outliers" for what should see counts |
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
    parts.append(_OWN)
    others = {
        "Truncated pixels: `napari-mrcz microed`": TruncationOptions,
        "Electron counting: `napari-mrcz count`": CountingOptions,
        "Compression: `compress`, `convert`, `watch`": Coding,
        "Parts of movies: `compress`, `decompress`, `correct`, `sum`, `drift`": Selection,
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
            key = f"`{name}`, in Python alone"
        default = (
            option.unset or "to be named"
            if declared.default in (None, "")
            else json.dumps(declared.default)
        )
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
        "`drift --json`": ("One object per file.", DRIFT_KEYS),
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
            "The journal of `watch`, one event per line; each has `time` (UTC) and "
            "`event`. Keys that are not named here are for `watch` itself.",
            {name: f"{said[0].upper()}{said[1:]}." for name, said in events.items()},
        ),
    }
    parts = [_MADE, _RESULTS.lstrip("\n")]
    for title, (said, keys) in sections.items():
        parts.append(f"## {title}\n\n{said}\n" + (f"\n{_table(keys)}" if keys else ""))
    return "\n".join(parts)


def readme() -> str:
    """Return the README with what benchmarks.md says of size and speed, in sentences."""
    marks = re.compile(r"(<!-- from docs/benchmarks.md .*?-->\n).*?(<!-- end -->)", re.DOTALL)
    text = README.read_text("utf-8")
    return marks.sub(lambda found: f"{found[1]}{_size_and_speed()}\n{found[2]}", text)


def _size_and_speed() -> str:
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    rows: dict[tuple[str, str], float] = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if line.startswith("| ") and len(cells) > 3 and re.match(r"-?\d", cells[3]):
            value = float(re.split(r"[ (]", cells[3])[0])
            rows[cells[0], cells[1]] = 1 / value if "× slower" in cells[3] else value

    def every(what: str, against: str) -> list[float]:
        found = (value for (w, a), value in rows.items() if w.startswith(what) and a == against)
        return sorted(found)

    plain, peer = every("file, ", "plain int8"), every("file, ", "`mrcz`'s")
    bound = every("file, ", "Shannon's bound")
    writes = [1 / speed for speed in every("write, ", "`mrcz.writeMRC`, on disk")]
    mean = 1 / rows["write, geometric mean of these", "`mrcz.writeMRC`, on disk"]
    reads = every("read, ", "`mrcz.readMRC` of its own")
    opened = rows["open, first frame of 60", "`mrcz.readMRC`"]
    copied = rows[
        "outlier filter: sum, fit, apply, 50 × 4096² uint8", "`astype(float32)` of each frame"
    ]
    ((_, other), score) = next(
        row for row in rows.items() if row[0][0] == "outliers found, uniform, 40 × 1 e⁻"
    )
    workers = rows["session of 60 corrected, 2 workers", "1 worker"]
    memory = rows["memory, open and browse", "one frame"]
    stamps = {
        group: re.search(rf"bench {group} -->.*?^\*(\S+), (.*?)\.\*$", page, re.DOTALL | re.M)
        for group in ("files", "scaling")
    }
    measured, workers_measured = (found for found in stamps.values() if found)
    text = (
        f"Opening a movie of 60 frames and showing the first takes {100 / opened:.1f} % of the "
        f"time that `mrcz` takes, and no longer for 600 frames. From 0.1 to 10 electrons per "
        f"pixel and frame, files have {100 / plain[-1]:.0f} to {100 / plain[0]:.0f} % of the size "
        f"of int8, are "
        f"{_less(peer[-1])} to {_less(peer[0])} % smaller than those of `mrcz`, and "
        f"{100 * bound[0] - 100:.0f} to {100 * bound[-1] - 100:.0f} % larger than the theoretical "
        f"minimum. Writing them to the disk takes {_than(mean)} than with `mrcz` on average, from "
        f"{_than(min(writes))} to {_than(max(writes))} by dose; reading them takes "
        f"{_less(1 / reads[0])} to {_less(1 / reads[-1])} % less time. The outlier filter takes "
        f"{_than(copied)} than copying the frames as float32, and finds hot pixels of 40 frames "
        f"at 1 electron with F1 {score:g}, where the best of RELION's rule, MotionCor3's and a "
        f"median filter reaches {other.split()[-1]}. Browsing takes the memory of {memory:.1f} "
        f"frames, however long the movie. Two workers correct a session in {_than(1 / workers)} "
        f"than one."
    )
    said = (
        "Simulated frames of 3838 × 3710 counted electrons (the filter: 4096 × 4096); "
        f"{measured[1]} (workers: {workers_measured[1]}), {measured[2]}. Times depend on the "
        "machine: on two Intel Xeon processors writing took 15 % longer than with `mrcz` "
        "([spread](docs/benchmarks.md#spread)). All tables: [benchmarks](docs/benchmarks.md); "
        "`make bench` prints them anew."
    )
    return f"{textwrap.fill(text, 120)}\n\n{textwrap.fill(said, 120)}"


def _less(ratio: float) -> int:
    """Return how much smaller a ratio is than 1, in whole per cent, rounded down."""
    return int(100 - 100 * ratio)


def _than(ratio: float) -> str:
    """Return a ratio of times as "23 % longer" or "23 % less time"."""
    per_cent = round(100 * ratio - 100)
    return f"{per_cent} % longer" if per_cent >= 0 else f"{-per_cent} % less time"


def _table(keys: Mapping[str, str]) -> str:
    rows = (
        f"| `{name}` | {said.replace('|', '/').replace('``', '`')} |\n"
        for name, said in keys.items()
    )
    return f"| key | what |\n|---|---|\n{''.join(rows)}"


def attributes(cls: type) -> dict[str, str]:
    """Return what a numpy style docstring, or comments beside the fields, say of each attribute."""
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
    return found or _comments(cls)


def _comments(cls: type) -> dict[str, str]:
    """Return the comment of each field of a dataclass: behind it, or in the lines above it."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in map(str.strip, inspect.getsource(cls).splitlines()):
        if line.startswith("# "):
            above.append(line[2:])
        elif field := re.fullmatch(r"(\w+): [^#]*(?:# (.*))?", line):
            found[field[1]] = field[2] or " ".join(above)
            above = []
    return found


if __name__ == "__main__":
    pages = {DOCS / "settings.md": settings, DOCS / "results.md": results, README: readme}
    for path, page in pages.items():
        path.write_text(page(), encoding="utf-8")
        print(f"{path} is written")
