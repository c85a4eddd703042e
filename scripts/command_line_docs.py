"""Write docs/command-line.md, the manual page, from the commands themselves: `make docs`."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from napari_mrcz.cli.commands import program as program_of

PAGE = Path(__file__).parents[1] / "docs" / "command-line.md"

_INTRODUCTION = """\
<!-- Made of the commands by `make docs`; changes made here are lost. -->

# napari-mrcz on the command line

{help}

```sh
napari-mrcz [OPTIONS] COMMAND ...
```

| command | what it does |
|---|---|
{commands}

`-h` or `--help` explains each command. A folder in place of a file stands for all movies within, in
natural order (2 before 10) or, where all files have one, in the order of acquisition. Data goes to
the standard output, all else to the standard error; on a terminal a bar shows the progress. What
`--json`, `--manifest`, `--table` and `--events` write: [tables and JSON](results.md). The keys of
recipes: [settings](settings.md).

| exit status | meaning |
|---|---|
| 0 | all was done |
| 1 | a file could not be used, or is damaged; the others were done all the same |
| 2 | the command line is wrong |
| 130 | interrupted |
"""
EXAMPLES = {
    "compress": "napari-mrcz compress movies -o archive --verify",
    "convert": "napari-mrcz convert archive -o lz4 --codec lz4",
    "info": "napari-mrcz info archive/a.mrcz --frames",
    "verify": "napari-mrcz verify archive",
    "repair": "napari-mrcz repair archive/a.mrcz -o whole.mrcz",
    "recipe new": "napari-mrcz recipe new recipe.toml",
    "recipe show": "napari-mrcz recipe show recipe.toml",
    "recipe check": "napari-mrcz recipe check recipe.toml",
    "correct": "napari-mrcz correct archive -o corrected --gain gain.mrc --koma 12 --keep counts",
    "decompress": "napari-mrcz decompress corrected -o plain --suffix .mrcs",
    "sum": "napari-mrcz sum archive -o sums --frames 1:5",
    "drift": "napari-mrcz drift archive/a.mrcz --group 2 --aligned aligned.mrc",
    "restore": "napari-mrcz restore corrected -o raw",
    "microed": "napari-mrcz microed sweep -o sweep-corrected",
    "count": "napari-mrcz count raw-frames -o counted --super-resolution 2",
    "watch": "napari-mrcz watch movies -o watched --once",
    "session": "napari-mrcz session archive -o session.html --table session.csv",
    "bench": "napari-mrcz bench archive/a.mrcz --rounds 1",
    "open": "napari-mrcz open archive/a.mrcz",
    "demo": "napari-mrcz demo --story",
}
"""An example for each command, in an order in which they can be run."""
_VALUES = {Path: "PATH", int: "N", float: "X", str: "TEXT"}


def document() -> str:
    """Return the page."""
    program = typer.main.get_command(program_of())
    commands = dict(_commands(program, "napari-mrcz"))
    table = "\n".join(
        f"| [`{name.removeprefix('napari-mrcz ')}`](#{name.replace(' ', '-')}) "
        f"| {_paragraphs(command)[0]} |"
        for name, command in commands.items()
    )
    parts = [_INTRODUCTION.format(help=program.help, commands=table), _options(program)]
    parts += [_section(name, command) for name, command in commands.items()]
    return "\n".join(parts)


def _commands(group: Any, prefix: str) -> list[tuple[str, Any]]:
    """List the commands of a group, and of the groups within, in the order of the help."""
    found = []
    for name, command in group.commands.items():
        path = f"{prefix} {name}"
        found += _commands(command, path) if hasattr(command, "commands") else [(path, command)]
    return found


def _section(name: str, command: Any) -> str:
    arguments = [_argument(p) for p in _shown(command) if p.param_type_name == "argument"]
    needed = [
        f"{min(p.opts, key=len)} PATH"
        for p in _shown(command)
        if p.param_type_name == "option" and p.required
    ]
    usage = " ".join([name, "[OPTIONS]", *needed, *arguments])
    text = "\n\n".join(_paragraphs(command))
    lines = "\n".join(filter(None, (usage, EXAMPLES.get(name.removeprefix("napari-mrcz ")))))
    return f"## {name}\n\n{text}\n\n```sh\n{lines}\n```\n\n{_options(command)}"


def _options(command: Any) -> str:
    # What typer makes of them says no more what type they are; that is read where they are written.
    hints = get_type_hints(command.callback, include_extras=True)
    rows = [
        f"| {_names(p, hints.get(p.name))} | {_meaning(p, hints.get(p.name))} |\n"
        for p in _shown(command)
    ]
    return f"| argument or option | meaning |\n|---|---|\n{''.join(rows)}"


def _shown(command: Any) -> list[Any]:
    return [p for p in command.params if not p.hidden and "--help" not in p.opts]


def _paragraphs(command: Any) -> list[str]:
    return [" ".join(part.split()) for part in command.help.split("\n\n")]


def _argument(parameter: Any) -> str:
    name = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _names(parameter: Any, hint: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_argument(parameter)}`"
    value = ""
    if not parameter.is_flag:
        kinds = _kinds(hint)
        value = "".join(f" {_VALUES.get(kind, 'NAME')}" for kind in kinds)
    return ", ".join(f"`{name}{value}`" for name in sorted(parameter.opts, key=len))


def _kinds(hint: Any) -> list[Any]:
    """Return the types of an option's values: int twice of `tuple[int, int] | None`."""
    within = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    if not within:
        return [hint]
    return [kind for part in within if part is not type(None) for kind in _kinds(part)]


def _meaning(parameter: Any, hint: Any) -> str:
    said = [_as_sentence(parameter.help or "")]
    (kind, *_), declared = _kinds(hint), getattr(hint, "__metadata__", (None,))[0]
    if isinstance(kind, type) and issubclass(kind, Enum):
        said.append(f"One of {', '.join(str(choice.value) for choice in kind)}.")
    low, high = (getattr(declared, bound, None) for bound in ("min", "max"))
    if high is not None:
        said.append(f"{low} to {high}.")
    elif low:
        said.append(f"At least {low}.")
    if parameter.required and parameter.param_type_name == "option":
        said.append("Must be given.")
    if default := _default(parameter):
        said.append(f"Default: {default}.")
    return " ".join(said).replace("|", r"\|")


def _as_sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if re.search(r"[.!?]$", text) else f"{text}."


def _default(parameter: Any) -> str:
    value = getattr(parameter.default, "value", parameter.default)
    if isinstance(parameter.show_default, str):
        value = parameter.show_default
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, str | int) and value is not False else ""


if __name__ == "__main__":
    PAGE.write_text(document(), encoding="utf-8")
    print(f"{PAGE} is written")
