"""The article's figures 2 and 3, drawn from `curves`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_mrcz.session.tables import need_matplotlib

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_mrcz.cli.comparison.curves import Curve, Serialisation

_SIZE_IN = (9.0, 7.0)
_DPI = 110


def draw_compression(
    dose: Sequence[Curve],
    level: Sequence[Curve],
    threads: Sequence[Curve],
    block: Sequence[Curve],
    processors: int,
    path: Path,
) -> None:
    """Draw figure 2: ratio by dose and by level, rate by threads, both by block size.

    Raises
    ------
    MrczError
        If matplotlib is not installed.
    """
    figure, ((a, b), (c, d)) = _axes(2, 2)
    from matplotlib.ticker import MaxNLocator

    for curve in dose:
        style = "k--" if "Shannon" in curve.name else "o-"
        a.loglog(curve.x, curve.ratio, style, label=curve.name, markersize=4)
    _finish(a, "a", "dose (e⁻/pix/frame)", "compression ratio")
    for curve in level:
        b.plot(curve.x, curve.ratio, "o-", label=curve.name, markersize=4)
    _finish(b, "b", "compression level", "compression ratio")
    for curve in threads:
        c.plot(curve.x, curve.rate, "o-", label=curve.name, markersize=4)
    c.axvline(processors, color="grey", linestyle=":", label="processors")
    c.set_ylim(bottom=0)
    _finish(c, "c", "threads", "rate (GB/s)")
    right = d.twinx()
    for curve in block:
        sizes = [x / 1024 for x in curve.x]
        (line,) = d.semilogx(sizes, curve.ratio, "o-", label=curve.name, markersize=4)
        right.semilogx(sizes, curve.rate, ":", color=line.get_color())
    right.set_ylabel("rate (GB/s, dotted)")
    _finish(d, "d", "block size (KiB)", "compression ratio (solid)", legend=False)
    for axis in (a.xaxis, a.yaxis):
        _plain_numbers(axis, (1.0, 2.0, 5.0))
    _plain_numbers(d.xaxis, (1.0,), base=4)
    c.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path, dpi=_DPI)


def draw_serialisation(found: Sequence[Serialisation], path: Path) -> None:
    """Draw figure 3: times and sizes of serialised metadata.

    Raises
    ------
    MrczError
        If matplotlib is not installed.
    """
    figure, ((a, b),) = _axes(1, 2)
    places = range(len(found))
    a.barh([p + 0.2 for p in places], [s.write_s for s in found], 0.4, label="write")
    a.barh([p - 0.2 for p in places], [s.read_s for s in found], 0.4, label="read")
    _finish(a, "a", "time (s)", "")
    b.barh(places, [s.nbytes / 1e6 for s in found], 0.6, color="grey", label="size on disk")
    _finish(b, "b", "size (MB)", "")
    for axes in (a, b):
        axes.set_yticks(places, [s.name for s in found])
        axes.invert_yaxis()
    figure.savefig(path, dpi=_DPI)


def _axes(rows: int, columns: int) -> Any:
    need_matplotlib()
    from matplotlib.figure import Figure

    width, height = _SIZE_IN
    figure = Figure(figsize=(width, height * rows / 2), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _plain_numbers(axis: Any, steps: Sequence[float], base: int = 10) -> None:
    """Have 0.1, 2, 256 along a logarithmic axis rather than powers of ten."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(base, subs=steps))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def _finish(axes: Any, letter: str, x: str, y: str, *, legend: bool = True) -> None:
    axes.set_title(letter, loc="left", fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if legend:
        axes.legend(fontsize=8)
