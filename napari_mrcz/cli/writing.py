"""Commands that write each movie again: compress to restore, sum, repair, count and microed."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_mrcz import correction, session
from napari_mrcz.cli import arguments
from napari_mrcz.cli.arguments import Running, Working, with_options
from napari_mrcz.cli.paths import movies_in, prepare, references, target_of, tell_of_interrupted
from napari_mrcz.cli.progress import bar, recorded, say, tell_outcomes
from napari_mrcz.correction.options import options_of
from napari_mrcz.errors import MrczError
from napari_mrcz.naming import (
    COMPRESSED_SUFFIX,
    FOREIGN_SUFFIXES,
    PLAIN_SUFFIXES,
    SMV_SUFFIXES,
    WRITTEN_TIFF_SUFFIXES,
    without_packing,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_mrcz.session.convert import Recode, Repack
    from napari_mrcz.session.tasks import Outcome


@with_options
def compress(
    files: arguments.Files,
    output: arguments.Output = None,
    given: Annotated[arguments.Given, options_of(session.Coding)] = arguments.NOTHING,
    chosen: Annotated[arguments.Given, options_of(session.Selection)] = arguments.NOTHING,
    decimate: arguments.Decimate = None,
    verify: arguments.Verify = False,
    delete: arguments.Delete = False,
    *,
    how: Running,
) -> None:
    """Compress movies as MRCZ: MRC, TIFF, EER, DM3, DM4, TVIPS or SMV.

    --frames, --crop and --group select a part, in this order.
    """
    from napari_mrcz.session.convert import Recode

    if delete and not verify:
        raise typer.BadParameter("--delete needs --verify")
    selection = session.Selection(**chosen)
    if delete and selection.chosen:
        asked = ", ".join(f"--{name}" for name in selection.chosen)
        raise typer.BadParameter(f"--delete excludes {asked}: what is left out would be lost")
    excluded = [*references(None, decimate), *([output] if output else [])]
    tell_of_interrupted(files, delete=delete and not how.dry_run)
    sources = movies_in(
        files,
        (*PLAIN_SUFFIXES, *FOREIGN_SUFFIXES),
        excluded,
        leave_references=True,
        leave_done=True,
    )
    tasks = [
        Recode(
            str(source),
            str(target_of(source, output, ".mrcz", files)),
            **session.Coding(**given).arguments,
            selection=selection,
            decimate=str(decimate or ""),
            **how.making,
            verify=verify,
            delete=delete,
        )
        for source in sources
    ]
    how.run(tasks, "compressed")


@with_options
def decompress(
    files: arguments.Files,
    output: arguments.Output = None,
    suffix: Annotated[
        str, typer.Option(help="Suffix: .mrc, .mrcs, .map, .st ..., .tif or .tiff.")
    ] = ".mrc",
    given: Annotated[arguments.Given, arguments.only(session.Coding, "dtype")] = arguments.NOTHING,
    chosen: Annotated[arguments.Given, options_of(session.Selection)] = arguments.NOTHING,
    verify: arguments.Verify = False,
    no_footer: arguments.NoFooter = False,
    *,
    how: Running,
) -> None:
    """Write MRCZ as plain MRC or as TIFF, for programs that read no other.

    --frames, --crop and --group select a part, in this order. TIFF files are compressed by LZW, as
    RELION and MotionCor read them; their first row is the top one, which is the last of MRC.
    """
    from napari_mrcz.session.convert import Recode

    _check_suffix(suffix, (*PLAIN_SUFFIXES, *WRITTEN_TIFF_SUFFIXES), how)
    selection = session.Selection(**chosen)
    if how.skip_existing and no_footer and selection.chosen:
        raise typer.BadParameter(
            "--skip-existing, --no-footer: without a footer, files do not say which part they are"
        )
    sources = _movies(files, output)
    tasks = [
        Recode(
            str(source),
            str(target_of(source, output, suffix, files)),
            codec="auto" if suffix in WRITTEN_TIFF_SUFFIXES else "none",
            **given,
            selection=selection,
            footer=not no_footer,
            **how.making,
            verify=verify,
        )
        for source in sources
    ]
    how.run(tasks, "decompressed")


@with_options
def convert(
    files: arguments.Files,
    output: arguments.Folder,
    given: Annotated[
        arguments.Given, arguments.only(session.Coding, codec="chunks are copied unchanged")
    ] = arguments.NOTHING,
    *,
    how: Running,
) -> None:
    """Write MRCZ as MRCZ: with another codec, or with footer, index and checksums added."""
    from napari_mrcz.session.convert import Recode, Repack

    is_coded = "codec" in given or "dtype" in given
    if given and not is_coded:
        raise typer.BadParameter(
            "--level and --filter need --codec: without it chunks are copied unchanged"
        )
    sources = _movies(files, output)
    pairs = [(str(source), str(target_of(source, output, ".mrcz", files))) for source in sources]
    tasks: list[Recode | Repack] = [
        Repack(source, target, **how.making)
        if not is_coded
        else Recode(source, target, **session.Coding(**given).arguments, **how.making)
        for source, target in pairs
    ]
    how.run(tasks, "converted")


@with_options
def restore(files: arguments.Files, output: arguments.Folder, *, how: Running) -> None:
    """Write the raw movies of results that are kept as counts, as they were before correction.

    An MRC file comes back byte for byte, an MRCZ file where the same encoder wrote it; of other
    formats the frames are written as MRCZ. Every frame is compared with its checksum.
    """
    from napari_mrcz.session.convert import Restore, restored_name
    from napari_mrcz.stack.kept import is_kept_file

    tasks = []
    for source in _movies(files, output):
        target = target_of(source, output, ".mrcz", files)
        try:
            target = target.with_name(restored_name(source))
        except MrczError:
            if source not in files and not is_kept_file(source):
                say(f"{source}: not kept as counts, left out")
                continue
        tasks.append(Restore(str(source), str(target), **how.making))
    if not tasks:
        raise typer.BadParameter("no movie that is kept as counts")
    how.run(tasks, "restored")


@with_options
def sum_(
    files: arguments.Files,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Output folder, or output file of one movie (default: next to each input).",
            parser=arguments.path,
        ),
    ] = None,
    average: Annotated[
        bool, typer.Option("--average", help="Divide by the number of frames.")
    ] = False,
    suffix: Annotated[str, typer.Option(help="Suffix: .mrc, .mrcz, .tif ...")] = ".mrc",
    given: Annotated[arguments.Given, arguments.only(session.Coding, "dtype")] = arguments.NOTHING,
    chosen: Annotated[
        arguments.Given, arguments.only(session.Selection, group="one sum of all frames")
    ] = arguments.NOTHING,
    *,
    how: Running,
) -> None:
    """Sum the frames of movies of any format, or average them: one image, or one per group.

    The history of corrections, pixel size and metadata are kept. Results are named after their
    movie: movie_sum.mrc. --frames, --crop and --group select a part, in this order.
    """
    from napari_mrcz.session.convert import SumFrames

    allowed = (*PLAIN_SUFFIXES, COMPRESSED_SUFFIX, *WRITTEN_TIFF_SUFFIXES)
    is_file = output is not None and output.suffix.lower() in allowed and not output.is_dir()
    if is_file and output is not None:
        suffix = output.suffix.lower()
    elif output is not None and output.suffix[1:2].isalpha() and not output.is_dir():
        found = f"unsupported suffix {output.suffix!r} of {output}"
        raise typer.BadParameter(
            f"{found}: use {' '.join(allowed)}, or name a folder that is there"
        )
    _check_suffix(suffix, allowed, how)
    results = [output] if output and not is_file else []
    sources = movies_in(files, excluded=results, leave_references=True)
    if is_file and len(sources) > 1:
        raise typer.BadParameter(f"{output} is one file, for {len(sources)} movies: name a folder")
    ending = f"_{'average' if average else 'sum'}{suffix}"
    tasks = [
        SumFrames(
            str(source),
            str(output if is_file else target_of(source, output, ending, files)),
            session.Selection(**chosen),
            average=average,
            **given,
            **how.making,
        )
        for source in sources
    ]
    how.run(tasks, "summed")


@with_options
def repair(
    file: Annotated[
        Path, typer.Argument(help="The damaged file.", parser=arguments.path, show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write.", parser=arguments.path)
    ],
    pixel_size: Annotated[
        float, typer.Option(min=0, max=1e6, help="Pixel size in Å, for files without.")
    ] = 0.0,
    overwrite: arguments.Overwrite = False,
    *,
    how: Working,
) -> None:
    """Save the whole frames of a file that was cut off or damaged, and fix its header."""
    from napari_mrcz.session.convert import Repack
    from napari_mrcz.session.run import run_all

    task = Repack(
        str(file),
        str(output),
        repair=True,
        pixel_size=pixel_size,
        overwrite=overwrite,
        checksums=how.manifest is not None,
    )
    with bar() as advance, recorded(how.manifest) as take:
        outcomes = map(take, run_all([task], report=advance))
        status = tell_outcomes(outcomes, "repaired", as_json=how.as_json)
    if status:
        raise typer.Exit(status)


def _check_suffix(suffix: str, allowed: Sequence[str], how: Running) -> None:
    if suffix not in allowed:
        raise typer.BadParameter(f"--suffix is one of {' '.join(allowed)}")
    if how.skip_existing and suffix in WRITTEN_TIFF_SUFFIXES:
        raise typer.BadParameter("--skip-existing: TIFF files do not say what they were made of")


def _movies(files: list[Path], results: Path | None) -> list[Path]:
    """Return MRCZ files, of folders without the references of movies that are kept as counts.

    `results`: folder of the results, in which no movies are looked for.
    """
    from napari_mrcz.stack.kept import is_reference_name

    found = movies_in(files, (COMPRESSED_SUFFIX,), [results] if results else [])
    return [file for file in found if file in files or not is_reference_name(file.name)]


@with_options
def count(
    files: arguments.Files,
    output: arguments.Folder,
    given: Annotated[arguments.Given, options_of(correction.CountingOptions)] = arguments.NOTHING,
    events: Annotated[
        Path | None,
        typer.Option(
            help="Table of one movie's electrons (frame, y, x, charge), .csv or .parquet."
        ),
    ] = None,
    *,
    how: Running,
) -> None:
    """Count single electrons in raw frames of a fast detector; background and spots are fitted."""
    from napari_mrcz.session.detectors import CountElectrons
    from napari_mrcz.session.run import run_all

    sources = movies_in(files, excluded=[output], leave_references=True)
    targets = [target_of(source, output, ".mrcz", files) for source in sources]
    if events is not None and len(sources) > 1:
        raise typer.BadParameter("--events takes the electrons of one movie")
    tasks = [
        CountElectrons(
            str(source),
            str(target),
            correction.CountingOptions(**given),
            events=str(events or ""),
            **how.making,
        )
        for source, target in zip(sources, targets, strict=True)
    ]

    def work(*, client: Any, report: Any) -> Iterator[Outcome]:
        # One movie after the other: the workers share the frames of each.
        return run_all((replace(task, client=client) for task in tasks), report=report)

    how.run(tasks, "counted", work)


class Format(StrEnum):
    """What is written."""

    mrcz = "mrcz"
    mrc = "mrc"
    smv = "smv"


_SMV_SUFFIX = ".img"


@with_options
def microed(
    files: arguments.Files,
    output: arguments.Folder,
    given: Annotated[arguments.Given, options_of(correction.TruncationOptions)] = arguments.NOTHING,
    file_format: Annotated[
        Format | None,
        typer.Option("--format", help="Output format (default: SMV for SMV, else MRCZ)."),
    ] = None,
    no_footer: arguments.NoFooter = False,
    *,
    how: Running,
) -> None:
    """Replace truncated zeros of MicroED patterns by likely negative values: MRC, SMV, TVIPS, TIFF.

    Numbered files of one image each are taken as one rotation series. (Hattne et al. 2016)
    """
    from napari_mrcz.session.detectors import RestoreNegatives
    from napari_mrcz.stack import sweeps

    if "regions" in given and ("n_annuli" in given or "center" in given):
        raise typer.BadParameter("--regions excludes --annuli and --center")
    tasks = []
    for sweep in sweeps(movies_in(files, excluded=[output])):
        task = RestoreNegatives(
            tuple(str(path.absolute()) for path in sweep),
            tuple(str(path.absolute()) for path in _targets(sweep, output, file_format, files)),
            correction.TruncationOptions(**given),
            footer=not no_footer,
            **how.making,
        )
        tasks.append(task)
    pairs = [(Path(task.source), Path(target)) for task in tasks for target in task.targets]
    smv = any(target.suffix == _SMV_SUFFIX for _, target in pairs)
    if how.skip_existing and smv:
        raise typer.BadParameter("--skip-existing: SMV images do not say what they were made of")
    if no_footer and any(target.suffix != ".mrc" for _, target in pairs):
        raise typer.BadParameter("--no-footer is for --format mrc")
    prepare(*zip(*pairs, strict=True), dry_run=how.dry_run)
    how.run(tasks, "corrected")


def _targets(
    sweep: list[Path], folder: Path, wanted: Format | None, named: list[Path]
) -> list[Path]:
    """Return what is written of a sweep: its images again, or one file of them all."""
    from napari_mrcz.session.detectors import FIRST
    from napari_mrcz.stack.opening import sweep_name

    images = all(without_packing(path).suffix.lower() in SMV_SUFFIXES for path in sweep)
    suffix = _SMV_SUFFIX
    if wanted is not Format.smv and not (wanted is None and images):
        suffix = f".{(wanted or Format.mrcz).value}"
    if suffix == _SMV_SUFFIX and (images or len(sweep) > 1):
        return [target_of(path, folder, suffix, named) for path in sweep]
    name = sweep_name(sweep[0]) if len(sweep) > 1 else without_packing(sweep[0]).stem
    within = target_of(sweep[0], folder, suffix, named).parent
    return [within / f"{name}{FIRST if suffix == _SMV_SUFFIX else ''}{suffix}"]
