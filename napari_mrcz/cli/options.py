"""Arguments and options that several commands have, with their help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

MANIFEST_SUFFIXES = (".csv", ".jsonl")


class Codec(StrEnum):
    """Codecs of the chunks."""

    zstd = "zstd"
    lz4 = "lz4"
    lz4hc = "lz4hc"
    zlib = "zlib"
    blosclz = "blosclz"


class Filter(StrEnum):
    """How bits are rearranged before they are compressed."""

    auto = "auto"
    none = "none"
    shuffle = "shuffle"
    bitshuffle = "bitshuffle"


_Given = TypeVar("_Given", int, str)


def path(text: str) -> Path:
    """Take a path from the command line; whether it can be read is found out when its turn comes.

    Raises
    ------
    typer.BadParameter
        If it is empty: it would be the current folder, with all that is in it.
    """
    if not text:
        raise typer.BadParameter("an empty name, maybe of a variable that is not set")
    return Path(text)


def not_both(context: typer.Context, given: _Given) -> _Given:
    """Refuse a number of workers besides a scheduler, which would do nothing.

    Raises
    ------
    typer.BadParameter
        If the other of the two was given before.
    """
    if given and (context.params.get("workers") or context.params.get("scheduler")):
        raise typer.BadParameter(
            "--workers and --scheduler exclude each other: a scheduler has workers of its own"
        )
    return given


def pixel_type(name: str | None) -> str | None:
    """Refuse what is no type of pixels before anything is read."""
    if name is not None:
        import numpy as np

        try:
            known = np.dtype(name).kind in "biufc"
        except TypeError:
            known = False
        if not known:
            raise typer.BadParameter(f"{name} is not a pixel type, such as int16")
    return name


def _table_of_files(manifest: Path | None) -> Path | None:
    if manifest is not None and manifest.suffix.lower() not in MANIFEST_SUFFIXES:
        raise typer.BadParameter(f"a file of {' or '.join(MANIFEST_SUFFIXES)}")
    return manifest


Files = Annotated[
    list[Path],
    typer.Argument(help="Files, or folders: all movies within.", parser=path, show_default=False),
]


class Keep(StrEnum):
    """What is saved of a corrected movie."""

    values = "values"
    counts = "counts"


Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Folder for the results; beside each file without it.", parser=path
    ),
]
Folder = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for the results.", parser=path)
]
Level = Annotated[int, typer.Option(min=1, max=9, help="1 is fast, 9 small.")]
FilterOption = Annotated[Filter, typer.Option("--filter", help='"auto" tries on three frames.')]
CodecOption = Annotated[Codec, typer.Option(help="Every MRCZ reader knows all.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Pixel type, such as int16; values are rounded, and refused if too large.",
        callback=pixel_type,
    ),
]
Group = Annotated[int, typer.Option(min=1, help="Frames summed into one, e.g. of EER.")]
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
