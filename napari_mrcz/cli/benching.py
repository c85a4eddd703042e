"""``bench``: how MRCZ fares on this machine, with the user's own movie or a simulated one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from napari_mrcz.cli.progress import bar, say, write
from napari_mrcz.errors import MrczError
from napari_mrcz.format.threads import processors
from napari_mrcz.session.tables import need_matplotlib


def bench(
    movie: Annotated[
        Path | None, typer.Argument(help="A movie; one is simulated without.", show_default=False)
    ] = None,
    dose: Annotated[
        float, typer.Option(min=0, help="Of a simulated one: electrons a pixel and frame.")
    ] = 1.0,
    frames: Annotated[int, typer.Option(min=1, help="Frames that are taken.")] = 20,
    shape: Annotated[tuple[int, int], typer.Option(help="Rows and columns, simulated.")] = (
        3838,
        3710,
    ),
    rounds: Annotated[int, typer.Option(min=1, help="Turns; times are medians.")] = 3,
    slow: Annotated[bool, typer.Option("--slow", help="Also what takes minutes (xz).")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="On the disk to be measured; a temporary one without.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for figures 2 and 3 of the article, as PNG.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the results as JSON.")] = False,
) -> None:
    """Compare ways to store a movie: sizes, times, beside copying the plain file.

    They are those of Table 1 of McLeod et al. (2018), as far as they are installed.
    """
    from dataclasses import asdict

    import numpy as np

    from napari_mrcz.cli.comparison import as_text, contestants, race
    from napari_mrcz.stack import open as open_stack

    if folder is not None and not folder.is_dir():
        raise MrczError(folder, "is not a folder")
    if figures is not None:
        need_matplotlib()
        figures.mkdir(parents=True, exist_ok=True)
    if movie is None:
        say(f"{frames} simulated frames of {shape[0]} x {shape[1]} pixels, {dose:g} e-/pix/frame")
        rng = np.random.default_rng(1)
        pixels = np.empty((frames, *shape), np.uint8)
        for pixels_of_one in pixels:
            pixels_of_one[...] = rng.poisson(dose, shape)
    else:
        with open_stack(movie) as stack:
            pixels = stack[:frames]
    with bar() as advance:
        ways = list(contestants(pixels, slow=slow))
        results = race(pixels, ways, rounds=rounds, folder=folder, progress=advance)
    write(
        *([json.dumps([asdict(r) for r in results])] if as_json else as_text(results).splitlines())
    )
    if figures is not None:
        _draw(pixels[0], figures)


def _draw(frame: object, folder: Path) -> None:
    import numpy as np

    from napari_mrcz.cli.comparison import curves
    from napari_mrcz.cli.comparison.figures import draw_compression, draw_serialisation

    one = np.asarray(frame)
    with bar() as advance:
        advance("figure 2a: doses", 0, 5)
        doses = curves.by_dose()
        advance("figure 2b: levels", 1, 5)
        levels = curves.by_level(one)
        advance("figure 2c: threads", 2, 5)
        threads = curves.by_threads(one)
        advance("figure 2d: blocks", 3, 5)
        blocks = curves.by_block(one)
        advance("figure 3: metadata", 4, 5)
        metadata = curves.serialisations()
    draw_compression(doses, levels, threads, blocks, processors(), folder / "compression.png")
    draw_serialisation(metadata, folder / "serialisation.png")
    say(f"figures are in {folder}")
