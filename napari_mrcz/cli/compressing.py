"""``compress``, ``decompress`` and ``convert``: movies written anew."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_mrcz.cli.paths import distinct, movies_in, path, target_of
from napari_mrcz.cli.progress import bar, tell_outcomes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_mrcz.batch import Recode, Repack

__all__ = ["PLAIN_SUFFIXES", "add_to"]

PLAIN_SUFFIXES = (".mrc", ".mrcs", ".map", ".st", ".rec", ".ali", ".preali")


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
Level = Annotated[int, typer.Option(min=1, max=9, help="1 is fast, 9 small.")]
FilterOption = Annotated[Filter, typer.Option("--filter", help='"auto" tries on three frames.')]
Dtype = Annotated[
    str | None,
    typer.Option(help="Pixel type, such as int16; values are rounded, and refused if too large."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Frames at a time; all processors.")]
Workers = Annotated[int, typer.Option(min=0, help="Files at a time, each in a process of dask's.")]
Scheduler = Annotated[str, typer.Option(help="Address of a dask scheduler whose workers do it.")]
Json = Annotated[bool, typer.Option("--json", help="Write an object a file to standard output.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(compress)
    app.command()(decompress)
    app.command()(convert)


def compress(
    files: Files,
    output: Output = None,
    codec: Annotated[Codec, typer.Option(help="Every MRCZ reader knows all.")] = Codec.zstd,
    level: Level = 1,
    filter_: FilterOption = Filter.auto,
    dtype: Dtype = None,
    group: Annotated[int, typer.Option(min=1, help="Frames summed into one, e.g. of EER.")] = 1,
    decimate: Annotated[
        Path | None,
        typer.Option(help="Gain reference: float frames are divided by it, back to whole counts."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read the result back and compare every pixel.")
    ] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete a source whose result was verified.")
    ] = False,
    overwrite: Overwrite = False,
    threads: Threads = None,
    workers: Workers = 0,
    scheduler: Scheduler = "",
    as_json: Json = False,
) -> None:
    """Compress MRC, TIFF, EER, DM3 or DM4 movies as MRCZ."""
    from napari_mrcz.batch import Recode
    from napari_mrcz.foreign import FOREIGN_SUFFIXES

    if delete and not verify:
        raise typer.BadParameter("--delete needs --verify: nothing is deleted unseen")
    if delete and group > 1:
        raise typer.BadParameter("--delete and --group exclude each other: frames would be lost")
    sources = movies_in(files, (*PLAIN_SUFFIXES, *FOREIGN_SUFFIXES))
    tasks = [
        Recode(
            str(source),
            str(target_of(source, output, ".mrcz")),
            codec=codec.value,
            level=level,
            filter=filter_.value,
            dtype=dtype,
            group=group,
            decimate=str(decimate or ""),
            threads=threads,
            overwrite=overwrite,
            verify=verify,
            delete=delete,
        )
        for source in sources
    ]
    _run(tasks, output, "compressed", scheduler, workers, as_json)


def decompress(
    files: Files,
    output: Output = None,
    suffix: Annotated[str, typer.Option(help=".mrc, .mrcs, .map, .st ...")] = ".mrc",
    dtype: Dtype = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read the result back and compare every pixel.")
    ] = False,
    overwrite: Overwrite = False,
    threads: Threads = None,
    workers: Workers = 0,
    scheduler: Scheduler = "",
    as_json: Json = False,
) -> None:
    """Write MRCZ as plain MRC, for programs that read no other."""
    from napari_mrcz.batch import Recode

    if suffix not in PLAIN_SUFFIXES:
        raise typer.BadParameter(f"--suffix is one of {' '.join(PLAIN_SUFFIXES)}")
    sources = movies_in(files, (".mrcz",))
    tasks = [
        Recode(
            str(source),
            str(target_of(source, output, suffix)),
            codec="none",
            dtype=dtype,
            threads=threads,
            overwrite=overwrite,
            verify=verify,
        )
        for source in sources
    ]
    _run(tasks, output, "decompressed", scheduler, workers, as_json)


def convert(
    files: Files,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results.", parser=path)
    ],
    codec: Annotated[
        Codec | None, typer.Option(help="Without it chunks are copied as they are.")
    ] = None,
    level: Level = 1,
    filter_: FilterOption = Filter.auto,
    overwrite: Overwrite = False,
    threads: Threads = None,
    workers: Workers = 0,
    scheduler: Scheduler = "",
    as_json: Json = False,
) -> None:
    """Write MRCZ as MRCZ: with another codec, or with footer, index and checksums added."""
    from napari_mrcz.batch import Recode, Repack

    sources = movies_in(files, (".mrcz",))
    pairs = [(str(source), str(target_of(source, output, ".mrcz"))) for source in sources]
    tasks: list[Recode | Repack] = [
        Repack(source, target, overwrite=overwrite)
        if codec is None
        else Recode(
            source,
            target,
            codec=codec.value,
            level=level,
            filter=filter_.value,
            threads=threads,
            overwrite=overwrite,
        )
        for source, target in pairs
    ]
    _run(tasks, output, "converted", scheduler, workers, as_json)


def _run(
    tasks: Sequence[Recode | Repack],
    output: Path | None,
    done: str,
    scheduler: str,
    workers: int,
    as_json: bool,
) -> None:
    from napari_mrcz.batch import cluster, run_all

    distinct([Path(task.target) for task in tasks])
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    with cluster(scheduler, workers) as client, bar() as advance:
        outcomes = run_all(
            tasks,
            client=client,
            report=lambda task, stage, n, of: advance(f"{Path(task.source).name}: {stage}", n, of),
        )
        status = tell_outcomes(outcomes, done, as_json=as_json)
    if status:
        raise typer.Exit(status)
