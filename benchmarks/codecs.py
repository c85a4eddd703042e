"""Ratio and speed of ways to compress frames: ``python -m benchmarks.codecs``.

One thread each, in memory, frames of 1024 × 1024 pixels: counted electrons as int8 and as uint16,
and what an integrating camera makes of them. The table goes into docs/benchmarks.md, between its
two marks, the picture into docs/figures.
"""

from __future__ import annotations

import io
import lzma
import math
import re
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blosc
import numcodecs.blosc
import numpy as np
import numpy.typing as npt
import tifffile

from benchmarks.measure import stamp
from napari_mrcz.format.encoding import Encoding, choose_encoding, shannon_fraction

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable

Frame = npt.NDArray[Any]

DOSES = (0.02, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)
SIDE = 1024
DOCS = Path(__file__).parents[1] / "docs"
MARKS = re.compile(r"(<!-- bench codecs -->\n).*?(<!-- end -->)", re.DOTALL)
# An electron in an integrating camera: counts, their relative spread; read noise and pedestal.
PER_ELECTRON, SPREAD, NOISE, PEDESTAL = 32.0, 0.5, 6.0, 200.0
# EER: so many bits for the empty pixels before an electron, again for every 127 of them, and for
# its place within the pixel; a camera's own frame has about so many electrons in a pixel.
EER_RUN, EER_SUBPIXEL, EER_DOSE = 7, 4, 0.02


def counted(dose: float, dtype: str) -> Frame:
    """Return a frame of counted electrons."""
    return np.random.default_rng(4).poisson(dose, (SIDE, SIDE)).astype(dtype)


def integrated(dose: float) -> Frame:
    """Return a frame of an integrating camera: charges of electrons, read noise, a pedestal."""
    rng = np.random.default_rng(5)
    electrons = rng.poisson(dose, (SIDE, SIDE))
    shape = electrons / SPREAD**2
    charge = rng.gamma(shape, PER_ELECTRON * SPREAD**2)
    return np.rint(charge + rng.normal(PEDESTAL, NOISE, charge.shape)).astype(np.uint16)


KINDS: dict[str, Callable[[float], Frame]] = {
    "counted, int8": partial(counted, dtype="int8"),
    "counted, uint16": partial(counted, dtype="uint16"),
    "integrating, uint16": integrated,
}


def own(frame: Frame, level: int) -> Callable[[], int]:
    """Return what compresses a frame as `nm.write` does."""
    encoding = choose_encoding(Encoding(level=level), [frame])
    return lambda: len(encoding.compress(frame))


def as_mrcz(frame: Frame) -> Callable[[], int]:
    """Return what compresses a frame as `mrcz` does."""
    options = {"clevel": 1, "shuffle": blosc.BITSHUFFLE, "cname": "zstd"}
    return lambda: len(blosc.compress(frame, frame.itemsize, **options))


def as_tiff(frame: Frame, codec: str) -> Callable[[], int]:
    """Return what writes a TIFF to memory."""

    def write() -> int:
        file = io.BytesIO()
        tifffile.imwrite(file, frame, compression=codec, maxworkers=1, photometric="minisblack")
        return file.tell()

    return write


WAYS: dict[str, Callable[[Frame], Callable[[], int]]] = {
    "MRCZ, ours, level 1": partial(own, level=1),
    "MRCZ, ours, level 5": partial(own, level=5),
    "MRCZ, ours, level 9": partial(own, level=9),
    "`mrcz` 0.6, zstd-1": as_mrcz,
    "TIFF, LZW": partial(as_tiff, codec="lzw"),
    "TIFF, deflate": partial(as_tiff, codec="zlib"),
    "zstd -1": lambda frame: lambda: len(zstd.compress(frame.tobytes(), 1)),
    "zstd -19": lambda frame: lambda: len(zstd.compress(frame.tobytes(), 19)),
    "xz": lambda frame: lambda: len(lzma.compress(frame.tobytes())),
}
SLOW = ("MRCZ, ours, level 9", "zstd -19", "xz")


def measured(frame: Frame, way: str) -> tuple[float, float]:
    """Return ratio and speed (MB/s of one thread, the best of three) of a way."""
    compress = WAYS[way](frame)
    times = []
    for _ in range(1 if way in SLOW else 3):
        start = time.process_time()
        nbytes = compress()
        times.append(time.process_time() - start)
    return frame.nbytes / nbytes, frame.nbytes / min(times) / 1e6


def eer_ratio(dose: float) -> float:
    """Return bytes of int8 over those of EER, whose size follows from the electrons alone."""
    empty = math.exp(-127 * EER_DOSE)
    bits = EER_RUN / (1 - empty) + EER_SUBPIXEL
    return 8 / (bits * dose)


def main() -> None:
    """Measure, write the table and draw the picture."""
    blosc.set_nthreads(1)
    numcodecs.blosc.use_threads = False
    points: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    lines = [
        f"| frames | way | {' | '.join(f'{dose:g} e⁻' for dose in DOSES)} |",
        f"|---|---|{'---|' * len(DOSES)}",
    ]
    for kind, make in KINDS.items():
        frames = [make(dose) for dose in DOSES]
        bounds = [1 / (shannon_fraction([frame]) or math.nan) for frame in frames]
        lines.append(f"| {kind} | Shannon's bound | {' | '.join(f'{b:.3g}' for b in bounds)} |")
        for way in WAYS:
            found = [measured(frame, way) for frame in frames]
            cells = [f"{ratio:.3g} ({speed:.0f})" for ratio, speed in found]
            lines.append(f"| {kind} | {way} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
            points.setdefault(kind, {})[way] = [
                (ratio, speed, ratio / bound)
                for (ratio, speed), bound in zip(found, bounds, strict=True)
            ]
        if kind == "counted, int8":
            cells = [f"{eer_ratio(dose):.3g}" for dose in DOSES]
            lines.append(f"| {kind} | EER, computed | {' | '.join(cells)} |")
    page = DOCS / "benchmarks.md"
    text = "\n".join(lines)
    text += f"\n\n{stamp()}"
    page.write_text(MARKS.sub(lambda m: f"{m[1]}\n{text}\n\n{m[2]}", page.read_text("utf-8")))
    draw(points, DOCS / "figures" / "codecs.png")


def draw(points: dict[str, dict[str, list[tuple[float, float, float]]]], path: Path) -> None:
    """Draw the share of Shannon's ratio that is reached, against speed; one panel for each kind."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, len(points), sharey=True)
    for panel, (kind, ways) in zip(panels, points.items(), strict=True):
        for number, (way, found) in enumerate(ways.items()):
            marker = "o" if "ours" in way else "s" if "mrcz" in way else "^"
            speeds, shares = [f[1] for f in found], [100 * f[2] for f in found]
            name = way.replace("`", "")
            panel.semilogx(speeds, shares, marker, color=f"C{number}", label=name, markersize=5)
        panel.axhline(100, color="black", linestyle="--", label="Shannon's bound")
        panel.set_title(kind)
        panel.set_xlabel("speed of one thread (MB/s)")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("ratio reached (% of the bound's)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
