"""Arguments and options that several commands have, with their help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from napari_mrcz.correction.options import Declared, options_of
from napari_mrcz.naming import path_of

MANIFEST_SUFFIXES = (".csv", ".jsonl")

_Value = TypeVar("_Value", int, str)


# By another name, as type checkers want members that they can read.
_enum: Any = StrEnum


class Given(dict[str, Any]):
    """Options that were given on the command line, by their names.

    A command's parameter of ``Annotated[Given, options_of(KomaOptions)]`` is replaced by the
    options of the class that have a flag (`with_options`). What is not given is not in it.
    """


NOTHING = Given()


def declared_options(known: Mapping[str, Declared]) -> dict[str, tuple[Any, Any]]:
    """Return annotation and default, by which typer makes options of those that have a flag."""
    return {name: _hint(one) for name, one in known.items() if one.option.flag}


def _hint(declared: Declared) -> tuple[Any, Any]:
    option, default = declared.option, declared.default
    kind: Any = declared.kind
    said = option.help + (f", in {option.unit}" if option.unit else "")
    said += f", above {option.above:g}" if option.above is not None else ""
    if kind is bool:
        return Annotated[bool, typer.Option(option.flag, help=f"{said}.")], False
    more: dict[str, Any] = {"show_default": option.unset or str(default)}
    if option.choices:
        kind = _enum(declared.name, {str(value): str(value) for value in option.choices})
    elif option.is_file:
        kind, more = Path, {**more, "exists": True, "dir_okay": False}
    elif kind in (int, float):
        more |= {"min": option.least, "max": option.most}
    elif kind is not str:
        more["metavar"] = "Y X"
    return Annotated[kind | None, typer.Option(option.flag, help=f"{said}.", **more)], None


def given_options(known: Mapping[str, Declared], values: dict[str, Any]) -> Given:
    """Take the values of declared options out of those of a command line.

    Raise `typer.BadParameter` if one is out of its range, or does not fit the others of its class.
    """
    found = Given()
    together: dict[type, dict[str, Any]] = {}
    for name, (owner, key, _, _, option) in known.items():
        value = values.pop(name, None)
        if value is None or value is False:
            continue
        if option.choices:
            value = next(choice for choice in option.choices if str(choice) == value)
        found[name] = str(value.absolute()) if isinstance(value, Path) else value
        together.setdefault(owner, {})[key] = found[name]
        try:
            owner(**{key: found[name]})
        except (TypeError, ValueError) as error:
            raise typer.BadParameter(str(error), param_hint=f"'{option.flag}'") from error
    try:
        for owner, chosen in together.items():
            owner(**chosen)
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    return found


def only(cls: type, *names: str, **unset: str) -> dict[str, Declared]:
    """Return some options of a class, or all, with another text of what holds without them."""
    known = options_of(cls)
    return {
        name: known[name]._replace(option=replace(known[name].option, unset=unset[name]))
        if name in unset
        else known[name]
        for name in names or known
    }


def path(text: str) -> Path:
    """Take a path from the command line; whether it can be read is found out when its turn comes.

    Raise `typer.BadParameter` if it is empty: it would be the current folder, with all that is in
    it.
    """
    if not text:
        raise typer.BadParameter("an empty name, maybe of a variable that is not set")
    return path_of(text)


def not_both(context: typer.Context, given: _Value) -> _Value:
    """Refuse a number of workers besides a scheduler, which would do nothing.

    Raise `typer.BadParameter` if the other of the two was given before.
    """
    if given and (context.params.get("workers") or context.params.get("scheduler")):
        raise typer.BadParameter(
            "--workers and --scheduler exclude each other: a scheduler has workers of its own"
        )
    return given


def _table_of_files(manifest: Path | None) -> Path | None:
    if manifest is not None and manifest.suffix.lower() not in MANIFEST_SUFFIXES:
        raise typer.BadParameter(f"a file of {' or '.join(MANIFEST_SUFFIXES)}")
    return manifest


Files = Annotated[
    list[Path],
    typer.Argument(help="Files, or folders: all movies within.", parser=path, show_default=False),
]


Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Folder for the results; beside each file without it.", parser=path
    ),
]
Folder = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for the results.", parser=path)
]
Decimate = Annotated[
    Path | None,
    typer.Option(help="Gain reference: float frames are divided by it, back to whole counts."),
]
With = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        help="Module with corrections of your own that the recipe names: a .py file, or one that "
        "is installed. May be given several times.",
        show_default=False,
    ),
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Read the result back and compare every pixel.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Frames at a time; as many as processors without it.")
]
Workers = Annotated[
    int,
    typer.Option(min=0, help="Processes of dask's that work at a time.", callback=not_both),
]
Scheduler = Annotated[
    str,
    typer.Option(help="Address of a dask scheduler whose workers do it.", callback=not_both),
]
Json = Annotated[bool, typer.Option("--json", help="Write one object per file to standard output.")]
SkipExisting = Annotated[
    bool,
    typer.Option(
        "--skip-existing",
        help="Skip results that are whole and of the same source, codec and pixel type or recipe.",
    ),
]
NoFooter = Annotated[
    bool,
    typer.Option("--no-footer", help="Write plain MRC without metadata and checksums behind it."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be written where; write nothing.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only warnings and errors.")]
Log = Annotated[
    Path | None,
    typer.Option(help="File to which all that is said is appended, with times.", parser=path),
]
Manifest = Annotated[
    Path | None,
    typer.Option(
        help="Table of the files, .csv or .jsonl: sizes, SHA-256 of source and target, errors.",
        parser=path,
        callback=_table_of_files,
    ),
]
