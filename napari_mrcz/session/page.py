"""What is written of a session for other programs: its report, one HTML page, and tables.

Tables are CSV or Parquet. The page needs no other file; its figures are SVG that takes its colours,
light or dark, from the page around it.
"""

from __future__ import annotations

import csv
import io
import os
import re
from dataclasses import asdict, fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import AnyPath, MrczError, counted, printable, with_minus
from napari_mrcz.format.atomic import AtomicFile, write_file
from napari_mrcz.naming import software

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from napari_mrcz.correction.counting.events import Events
    from napari_mrcz.session.report import Findings, MovieRow

TABLE_SUFFIXES = (".csv", ".parquet")
EVENT_COLUMNS = {
    "frame": "Frame in which the electron struck, from 0.",
    "y": "Row where it struck, in pixels of the detector; the middle of the first pixel is 0.",
    "x": "Column where it struck, in the same way.",
    "charge": "Charge that it left, in grey values.",
}
"""Columns of a table of electrons, and what is in them."""


def check_table(path: AnyPath) -> None:
    """Check that a table of this name can be written, with what is installed; else `MrczError`."""
    suffix = Path(path).suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise MrczError(path, f"a table as {suffix or 'no type'}", advice="Write .csv or .parquet")
    if suffix == ".parquet":
        need_installed("pyarrow.parquet", "Parquet", path, otherwise=", or write a .csv")


def need_installed(
    module: str, what: str, path: AnyPath | None = None, *, otherwise: str = ""
) -> None:
    """Check that a module of the extra ``report`` can be imported.

    `what`: what needs it, for the file `path`; `otherwise`: further advice. Raise `MrczError` if
    it is not installed.
    """
    try:
        import_module(module)
    except ImportError as error:
        found = f"{what} needs {module.partition('.')[0]}"
        advice = f"pip install 'napari-mrcz[report]'{otherwise}"
        raise MrczError(path, found, advice=advice) from error


# Rows that are written together (and compressed, as Parquet); until then they wait in memory.
_ROWS = 2**18


class EventTable:
    """A table that electrons are added to frame by frame; a file only after `commit`.

    Its columns are `EVENT_COLUMNS`. An electron is in the pixel floor((y + 0.5) s),
    floor((x + 0.5) s) of counts of the super-resolution s.

    `path`: the file, .csv or .parquet; `overwrite`: replace an existing one. Raise `MrczError` if
    it cannot be written.
    """

    def __init__(self, path: AnyPath, *, overwrite: bool = False) -> None:
        check_table(path)
        self._file = AtomicFile(path, overwrite=overwrite)
        self._waiting: list[tuple[int, Events]] = []
        self._n_waiting = 0
        self._parquet: Any = None
        if Path(path).suffix.lower() == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            frame, *others = EVENT_COLUMNS
            schema = pa.schema([(frame, pa.int64()), *((name, pa.float32()) for name in others)])
            self._parquet = pq.ParquetWriter(_Sink(self._file), schema)
        else:
            self._file.write(f"{','.join(EVENT_COLUMNS)}\n".encode())

    def add(self, frame: int, events: Events) -> None:
        """Add the electrons of a frame."""
        self._waiting.append((frame, events))
        self._n_waiting += len(events)
        if self._n_waiting >= _ROWS:
            self._write()

    def commit(self) -> None:
        """Finish the file and give it its name."""
        self._write()
        if self._parquet is not None:
            self._parquet.close()
        self._file.commit()

    def __enter__(self) -> EventTable:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.discard()

    def _write(self) -> None:
        """Write the electrons that wait in memory."""
        if not self._waiting:
            return
        frames = [np.full(len(events), frame, np.int64) for frame, events in self._waiting]
        others = zip(*(events for _, events in self._waiting), strict=True)
        columns = [np.concatenate(parts) for parts in (frames, *others)]
        if self._parquet is not None:
            import pyarrow as pa

            self._parquet.write_table(pa.table(columns, schema=self._parquet.schema))
        else:
            rows = zip(*(column.tolist() for column in columns), strict=True)
            text = "".join(f"{t},{y:.3f},{x:.3f},{charge:.1f}\n" for t, y, x, charge in rows)
            self._file.write(text.encode())
        self._waiting, self._n_waiting = [], 0


class _Sink(io.RawIOBase):
    """The file as pyarrow writes to it."""

    def __init__(self, file: AtomicFile) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._file.write(memoryview(data))
        return memoryview(data).nbytes

    def tell(self) -> int:
        return self._file.tell()


_TYPES = {"int": "int64", "float": "float64", "bool": "bool_", "str": "string", "tuple": "string"}


def write_table(path: AnyPath, movies: Sequence[MovieRow], *, overwrite: bool = False) -> None:
    """Write a table of movies, .csv or .parquet, all or nothing.

    `movies`: the rows; the columns are their attributes. Unknown values are empty, or null;
    warnings are joined. Raise `MrczError` as `check_table` does, or if the file exists and is not
    to be replaced.
    """
    check_table(path)
    content = _parquet(movies) if Path(path).suffix.lower() == ".parquet" else _csv(movies)
    write_file(path, content, overwrite=overwrite)


def _csv(movies: Sequence[MovieRow]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(movies[0])])
    writer.writeheader()
    writer.writerows(map(_table_row, movies))
    return text.getvalue().encode()


def _parquet(movies: Sequence[MovieRow]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Of the annotations: a column of which nothing is known has its type all the same.
    types = {
        f.name: getattr(pa, _TYPES[re.split(r"\W", str(f.type))[0]])() for f in fields(movies[0])
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([*map(_table_row, movies)], pa.schema(types)), sink)
    return sink.getvalue().to_pybytes()


def _table_row(movie: MovieRow) -> dict[str, Any]:
    row = {**asdict(movie), "warnings": " ".join(movie.warnings)}
    # Names of files need not be of the system's encoding.
    return {
        name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }


_FOLDER = Path(__file__).parent
REPORT_MODULES = {"jinja2": "the report", "matplotlib.figure": "drawing figures"}
"""Modules of other packages that `page` needs, and for what."""


def page(findings: Findings, made: datetime) -> str:
    """Return the report as HTML.

    `findings`: what was found; `made`: when, as the page says. It needs `REPORT_MODULES`.
    """
    import jinja2
    import matplotlib
    from markupsafe import Markup

    folder, names = _names(findings.movies)
    errors = [movie.error.removeprefix(f"{movie.movie}: ") for movie in findings.movies]
    drawings = outliers_by_dose, noise_by_dose, noise_after_koma, contrast_by_movie, outlier_map
    with matplotlib.rc_context(_STYLE):
        figures = {draw.__name__: Markup(draw(findings)) for draw in drawings}  # noqa: S704
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        # Names of files may hold control characters; figures are strings that are HTML already.
        finalize=lambda value: printable(value) if type(value) is str else value,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"digits": _digits, "minus": with_minus}
    return environment.get_template("page.html").render(
        title=f"Session of {counted(len(findings.movies), 'movie')}",
        folder=folder,
        made=f"{made:%d %B %Y, %H:%M}",
        software=software(),
        tiles=_tiles(findings),
        movies=list(zip(findings.movies, names, errors, strict=True)),
        figures=figures,
        after=after(findings),
        # Movies are measured before KOMA.
        steps=replace(findings.recipe, koma=None).steps(),
        findings=findings,
    )


def _names(movies: Iterable[MovieRow]) -> tuple[str, list[str]]:
    """Return the folder that movies have in common, and their names within."""
    paths = [os.path.abspath(movie.movie) for movie in movies]
    try:
        folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # on several drives
        return "", paths
    return folder, [os.path.relpath(path, folder) for path in paths]


def _tiles(findings: Findings) -> list[tuple[str, str]]:
    """Return the numbers at the top of the page, and what they are."""
    usable = findings.usable

    def median(name: str) -> str:
        known = [value for m in usable if (value := getattr(m, name)) is not None]
        return _digits(float(np.median(known)) if known else None)

    return [
        (f"{sum(movie.frames or 0 for movie in usable):,}", "frames in all"),
        (_digits(sum(movie.dose or 0 for movie in usable)), "e⁻/pix in all"),
        (median("hot"), "hot pixels per movie, median"),
        (median("dark"), "dark pixels per movie, median"),
        (median("noise_raw"), "noise R as recorded, median"),
        (median("noise_corrected"), "noise R corrected, median"),
        (str(sum(bool(movie.high_contrast) for movie in usable)), "movies of high contrast"),
        (str(sum(bool(movie.warnings) for movie in usable)), "movies with warnings"),
        (str(len(findings.movies) - len(usable)), "movies not usable"),
    ]


def _digits(value: float | None) -> str:
    """Return a number with three digits: 12,300, 40.1, 0.0213; a dash if it is unknown."""
    if value is None:
        return "\N{EN DASH}"
    if abs(value) >= 1000:
        return with_minus(f"{value:,.0f}")
    if float(2 * value).is_integer():  # counts, and medians of counts
        return with_minus(f"{value:g}")
    digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return with_minus(f"{value:.{min(digits, 7)}f}")


# Stand-ins that the page's style sheet gives a colour, light or dark: see `_as_svg`.
_INK, _FAINT, _LINE = "#010101", "#020202", "#030303"
_FIRST, _SECOND, _ALARM, _PAPER = "#040404", "#050505", "#060606", "#070707"
_VARIABLES = {
    _INK: "ink", _FAINT: "faint", _LINE: "line", _FIRST: "first", _SECOND: "second",
    _ALARM: "alarm", _PAPER: "paper",
}  # fmt: skip
_STYLE: dict[Any, Any] = {
    "font.size": 10.0,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.which": "major",
    "grid.color": _LINE,
    "grid.linewidth": 0.7,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.markersize": 4.5,
    "lines.linewidth": 1.3,
}
_SIZE_IN = (7.4, 3.1)
_DOSE = "electrons per pixel received before the movie (e⁻/pix)"
_MAP_CELLS = 96
_THOUSANDS = "{x:,.10g}"


def outliers_by_dose(findings: Findings) -> str:
    """Draw hot and dark pixels of each movie by the dose received before it (fig. 7)."""
    movies = [movie for movie in findings.usable if movie.hot is not None]
    if not movies:
        return ""
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = _figure()
    dose = [movie.dose_before for movie in movies]
    axes.plot(dose, [m.hot for m in movies], "o-", color=_FIRST, label="hot")
    axes.plot(dose, [m.dark for m in movies], "s-", color=_SECOND, label="dark")
    axes.set(xlabel=_DOSE, ylabel="outlier pixels")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(_THOUSANDS)
    axes.xaxis.set_major_formatter(_THOUSANDS)
    axes.legend(**_ABOVE)
    return _as_svg(figure, "outliers", "Outlier pixels by cumulative dose")


def noise_by_dose(findings: Findings) -> str:
    """Draw the correlated noise of each movie, as recorded and corrected, by the dose before it."""
    movies = [m for m in findings.usable if None not in (m.noise_raw, m.noise_corrected)]
    if not movies:
        return ""
    figure, (axes,) = _figure()
    raw = [movie.noise_raw for movie in movies]
    corrected = [movie.noise_corrected for movie in movies]
    dose = [movie.dose_before for movie in movies]
    axes.plot(dose, raw, "o-", color=_FIRST, label="as recorded")
    axes.plot(dose, corrected, "s-", color=_SECOND, label=after(findings))
    _ring(axes, movies, dose, corrected)
    axes.set(xlabel=_DOSE, ylabel="correlated noise R")
    _noise_axis(axes, [*raw, *corrected])
    axes.xaxis.set_major_formatter(_THOUSANDS)
    axes.legend(**_ABOVE)
    return _as_svg(figure, "noise", "Correlated noise by cumulative dose")


def noise_after_koma(findings: Findings) -> str:
    """Draw the correlated noise after KOMA by its radius, with its limit 1/(2an) (fig. 12)."""
    if not findings.radii:
        return ""
    figure, (axes,) = _figure()
    n = findings.frames_averaged
    axes.axhline(findings.noise_without, color=_FAINT, linestyle=":", label="without KOMA")
    axes.plot(findings.radii, findings.noise_by_radius, "o-", color=_FIRST, label="R(a)")
    limit = f"limit 1/(2an), n = {n} frames"
    axes.plot(findings.radii, findings.noise_limits, "--", color=_SECOND, label=limit)
    if (koma := findings.recipe.koma) is not None and koma.radius in findings.radii:
        place = findings.radii.index(koma.radius)
        point = (koma.radius, findings.noise_by_radius[place])
        label = f"radius of the recipe, {koma.radius}"
        axes.plot(*point, "o", markersize=10, mfc="none", mec=_ALARM, label=label)
    axes.set_xscale("log")
    axes.set_xticks(findings.radii, [str(a) for a in findings.radii])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="radius a (movies to either side)", ylabel="correlated noise R(a)")
    _noise_axis(axes, [*findings.noise_by_radius, *findings.noise_limits, findings.noise_without])
    axes.legend(**_ABOVE)
    return _as_svg(figure, "koma", "Correlated noise after KOMA by radius")


def contrast_by_movie(findings: Findings) -> str:
    """Draw the contrast score of each movie, with the limit beyond which it is high."""
    movies = findings.usable
    if len(movies) < 2:
        return ""
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = _figure()
    numbers = [movie.number for movie in movies]
    scores = [movie.score for movie in movies]
    axes.plot(numbers, scores, "o", color=_FIRST, label="movie")
    _ring(axes, movies, numbers, scores)
    limit = f"limit, {findings.limit:g}"
    axes.axhline(findings.limit, color=_ALARM, linestyle="--", label=limit)
    axes.set(xlabel="movie, in order of acquisition", ylabel="contrast score")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(**_ABOVE)
    return _as_svg(figure, "contrast", "Contrast score by movie")


def outlier_map(findings: Findings) -> str:
    """Draw where on the camera outliers are, and how constant they are."""
    share = findings.outlier_share
    if share is None:
        return ""
    figure, (where, often) = _figure(2)
    figure.get_layout_engine().set(wspace=0.08)
    step = max(1, -(-max(share.shape) // _MAP_CELLS))
    cells = 100 * _cells(share, step)
    y, x = share.shape
    # A few crowded cells must not leave the rest dark.
    top = float(np.percentile(cells, 99.5)) or float(cells.max()) or 1.0
    image = where.imshow(
        cells, cmap="magma", vmin=0, vmax=top, extent=(0, x, y, 0), interpolation="nearest"
    )
    where.grid(visible=False)
    where.set(xlabel="column (pixels)", ylabel="row (pixels)")
    for axis in (where.xaxis, where.yaxis):
        axis.set_major_formatter(_THOUSANDS)
        axis.get_major_locator().set_params(nbins=4)
    name = "average outlier map (%)" if step == 1 else f"outliers in {step} x {step} pixels (%)"
    colours = figure.colorbar(image, ax=where, label=name, extend="max")
    colours.outline.set_edgecolor(_FAINT)
    ever = 100 * share[share > 0]
    bins = np.linspace(0, 100, min(20, max(1, len(findings.usable))) + 1)
    often.hist(ever, bins, color=_FIRST, edgecolor=_PAPER, linewidth=0.6)
    if ever.size:
        often.set_yscale("log")
        often.set_ylim(bottom=0.7)
        _plain(often.yaxis)
    often.set(xlabel="movies in which it is an outlier (%)", ylabel="pixels", xlim=(0, 100))
    return _as_svg(figure, "map", "Average outlier map")


def after(findings: Findings) -> str:
    """Return after which corrections movies are measured."""
    recipe = findings.recipe
    steps = [("the outlier filter", recipe.outliers), ("the gain", recipe.gain)]
    done = " and ".join(name for name, step in steps if step is not None)
    return f"after {done}" if done else "without corrections"


_ABOVE: dict[str, Any] = {
    "loc": "lower left",
    "bbox_to_anchor": (0.0, 1.0),
    "ncols": 4,
    "borderaxespad": 0.2,
    "handlelength": 1.8,
    "columnspacing": 1.3,
}


def _figure(columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_IN, layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _ring(axes: Any, movies: Iterable[MovieRow], x: Any, y: Any) -> None:
    """Put a ring round the movies of high contrast."""
    high = [k for k, movie in enumerate(movies) if movie.high_contrast]
    if high:
        places = [x[k] for k in high], [y[k] for k in high]
        axes.plot(*places, "o", markersize=10, mfc="none", mec=_ALARM, label="high contrast")


def _noise_axis(axes: Any, values: Iterable[Any]) -> None:
    """Draw noise on a logarithm where there is one; it is negative where nothing is left."""
    if all(value > 0 for value in values):
        axes.set_yscale("log")
        _plain(axes.yaxis)
    else:
        axes.axhline(0, color=_FAINT, linewidth=0.8)


def _plain(axis: Any) -> None:
    """Write 0.001, 0.02, 500 along a logarithmic axis rather than powers of ten."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    steps = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    axis.set_major_locator(LogLocator(10, subs=steps))
    axis.set_major_formatter(_THOUSANDS)
    axis.set_minor_locator(NullLocator())


def _cells(image: npt.NDArray[Any], step: int) -> npt.NDArray[np.float64]:
    """Return the means of cells of step x step pixels; those at the edges may have fewer."""
    sums, counts = image.astype(np.float64), np.ones(image.shape)
    for axis, size in enumerate(image.shape):
        starts = np.arange(0, size, step)
        sums, counts = (np.add.reduceat(a, starts, axis) for a in (sums, counts))
    return sums / counts


def _as_svg(figure: Any, name: str, title: str) -> str:
    """Return a figure as an element of a page: nothing in it leads out of the page."""
    import matplotlib

    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # unlike those of markers, nobody refers to them
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", svg, count=1)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
