"""Arguments and options that several commands have, with their help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from napari_mrcz.cli.paths import path

__all__ = [
    "Codec", "CodecOption", "Decimate", "Dtype", "Files", "Filter", "FilterOption", "Folder",
    "Group", "Json", "Level", "Output", "Overwrite", "Scheduler", "Threads", "Verify", "Workers",
    "not_both",
]  # fmt: skip


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


def _pixel_type(name: str | None) -> str | None:
    """Refuse what is no type of pixels before anything is read."""
    if name is not None:
        import numpy as np

        try:
            known = np.dtype(name).kind in "biufc"
        except TypeError:
            known = False
        if not known:
            raise typer.BadParameter(f"{name} is no pixel type; int16 is one")
    return name


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
Level = Annotated[int, typer.Option(min=1, max=9, help="1 is fast, 9 small.")]
FilterOption = Annotated[Filter, typer.Option("--filter", help='"auto" tries on three frames.')]
CodecOption = Annotated[Codec, typer.Option(help="Every MRCZ reader knows all.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Pixel type, such as int16; values are rounded, and refused if too large.",
        callback=_pixel_type,
    ),
]
Group = Annotated[int, typer.Option(min=1, help="Frames summed into one, e.g. of EER.")]
Decimate = Annotated[
    Path | None,
    typer.Option(help="Gain reference: float frames are divided by it, back to whole counts."),
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
    typer.Option(min=0, help="Files at a time, each in a process of dask's.", callback=not_both),
]
Scheduler = Annotated[
    str,
    typer.Option(help="Address of a dask scheduler whose workers do it.", callback=not_both),
]
Json = Annotated[bool, typer.Option("--json", help="Write an object a file to standard output.")]
