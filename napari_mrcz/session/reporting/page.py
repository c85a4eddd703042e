"""The report of a session: one HTML file that needs no other, light or dark, on screen or paper."""

from __future__ import annotations

import os
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mrcz.errors import printable, with_minus
from napari_mrcz.naming import software
from napari_mrcz.session.reporting import figures
from napari_mrcz.session.tables import need_matplotlib

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from napari_mrcz.session.reporting.findings import Findings, MovieRow

_UNKNOWN = "\N{EN DASH}"
_STYLE = Path(__file__).with_name("page.css")


def page(findings: Findings, made: datetime) -> str:
    """Return the report as HTML.

    Parameters
    ----------
    findings : Findings
        What was found.
    made : datetime
        When, as the page says.

    Raises
    ------
    MrczError
        If matplotlib is not installed.
    """
    need_matplotlib()
    folder, names = _names(findings.movies)
    title = f"Session of {_number(len(findings.movies), 'movie')}"
    body = [
        f"<header><h1>{title}</h1>",
        f"<p>{_escaped(folder)}<br>{made:%d %B %Y, %H:%M} · {_escaped(software())}</p></header>",
        _tiles(findings),
        _notable(findings, names),
        *_figures(findings),
        _table(findings, names),
        _method(findings),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{_STYLE.read_text('utf-8')}</style>\n</head>\n"
        f"<body>\n{chr(10).join(body)}\n</body>\n</html>\n"
    )


def _names(movies: Iterable[MovieRow]) -> tuple[str, list[str]]:
    """Return the folder that movies have in common, and their names within."""
    paths = [os.path.abspath(movie.movie) for movie in movies]
    try:
        folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # on several drives
        return "", paths
    return folder, [os.path.relpath(path, folder) for path in paths]


def _tiles(findings: Findings) -> str:
    usable = findings.usable
    dose = sum(movie.dose or 0 for movie in usable)
    frames = sum(movie.frames or 0 for movie in usable)
    high = sum(bool(movie.high_contrast) for movie in usable)
    bad = len(findings.movies) - len(usable)
    tiles = [
        (f"{frames:,}", "frames in all"),
        (_figure_text(dose), "e⁻/pix in all"),
        (_figure_text(_median(m.hot for m in usable)), "hot pixels a movie, median"),
        (_figure_text(_median(m.dark for m in usable)), "dark pixels a movie, median"),
        (_figure_text(_median(m.noise_raw for m in usable)), "noise R as recorded, median"),
        (_figure_text(_median(m.noise_corrected for m in usable)), "noise R corrected, median"),
        (str(high), "movies of high contrast"),
        (str(sum(bool(movie.warnings) for movie in usable)), "movies with warnings"),
        (str(bad), "movies not usable"),
    ]
    cells = (f"<div><dt>{said}</dt><dd>{value}</dd></div>" for value, said in tiles)
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _notable(findings: Findings, names: list[str]) -> str:
    """List the movies that the reader should know of."""
    told = [
        f'<li><span class="mark">warning</span> <b>Session</b>: {_escaped(warning)}</li>'
        for warning in findings.warnings
    ]
    for movie, name in zip(findings.movies, names, strict=True):
        remarks = (
            ("not usable", _without_path(movie)),
            ("high contrast", movie.reason if movie.high_contrast else ""),
            ("remark", movie.remark),
            *(("warning", warning) for warning in movie.warnings),
        )
        told += [
            f'<li><span class="mark">{what}</span> <b>{movie.number}. {_escaped(name)}</b>: '
            f"{_escaped(why)}</li>"
            for what, why in remarks
            if why
        ]
    if not told:
        return "<p>All movies can be used, without warnings, and none is of high contrast.</p>"
    return (
        f'<h2>Movies to look at</h2>\n<ul class="notable">{"".join(told)}</ul>\n'
        "<p>Those not usable, cut off or of high contrast enter no average.</p>"
    )


def _figures(findings: Findings) -> Iterable[str]:
    n = findings.frames_averaged
    drawn = [
        (
            "Outliers by dose",
            figures.outliers_by_dose(findings),
            "Hot and dark pixels of each movie, by the dose that the camera had received before.",
        ),
        (
            "Correlated noise by dose",
            figures.noise_by_dose(findings),
            "Mean correlation of two frames of a movie, as recorded and "
            f"{figures.after(findings)}. What is in every frame alike, of the camera or of the "
            "specimen, raises it.",
        ),
        (
            "Correlated noise after KOMA",
            figures.noise_after_koma(findings),
            "Mean over the movies that enter averages, when the mean of the 2a movies around each "
            f"is subtracted from it. That mean is noisy itself: of movies of n = {n} frames it "
            "leaves 1/(2an). KOMA is of use where R(a) lies below the noise without it.",
        ),
        (
            "Contrast",
            figures.contrast_by_movie(findings),
            "How far the contrast of a movie at low resolution is from the session's median, in "
            "robust standard deviations. Carbon film and crystalline ice stand out.",
        ),
        (
            "Where outliers are",
            figures.outlier_map(findings),
            "Left: in what part of the movies the pixels of each place on the camera were "
            "outliers. Right: pixels that were one at least once, by how often; those to the "
            "right are defects that last.",
        ),
    ]
    for title, svg, caption in drawn:
        if svg:
            yield (
                f"<section><h2>{title}</h2>\n<figure>{svg}"
                f"<figcaption>{_escaped(caption)}</figcaption></figure></section>"
            )
    if not findings.radii:
        yield (
            "<section><h2>Correlated noise after KOMA</h2><p>It takes at least three movies of two "
            "frames or more that enter averages.</p></section>"
        )


def _table(findings: Findings, names: list[str]) -> str:
    heads = [
        ("", "Movie"),
        ("n", "Frames"),
        ("n", "Dose<br><small>e⁻/pix</small>"),
        ("n", "Hot<br><small>pixels</small>"),
        ("n", "Dark<br><small>pixels</small>"),
        ("n", "Noise<br><small>recorded</small>"),
        ("n", "Noise<br><small>corrected</small>"),
        ("n", "Contrast"),
        ("n", "Score"),
        ("n", "Warnings"),
        ("", "High contrast"),
    ]
    head = "".join(f'<th class="{kind}">{name}</th>' for kind, name in heads)
    rows = (_row(movie, name) for movie, name in zip(findings.movies, names, strict=True))
    return (
        '<h2>Movies</h2>\n<div class="wide"><table><thead><tr><th class="n">#</th>'
        f"{head}</tr></thead>\n<tbody>\n{chr(10).join(rows)}\n</tbody></table></div>"
    )


def _row(movie: MovieRow, name: str) -> str:
    start = f'<td class="n">{movie.number}</td><td class="name">{_escaped(name)}</td>'
    if movie.error:
        said = _escaped(_without_path(movie))
        return f'<tr class="bad">{start}<td colspan="10">not usable: {said}</td></tr>'
    percent = _UNKNOWN if movie.contrast is None else f"{movie.contrast:.2%}"
    values = (
        str(movie.frames),
        _figure_text(movie.dose),
        _figure_text(movie.hot),
        _figure_text(movie.dark),
        _figure_text(movie.noise_raw),
        _figure_text(movie.noise_corrected),
        percent,
        _UNKNOWN if movie.score is None else with_minus(f"{movie.score:z.1f}"),
        str(len(movie.warnings)),
    )
    cells = "".join(f'<td class="n">{value}</td>' for value in values)
    verdict = '<span class="mark">yes</span>' if movie.high_contrast else "no"
    return f'<tr>{start}{cells}<td title="{_escaped(movie.reason)}">{verdict}</td></tr>'


def _method(findings: Findings) -> str:
    # Movies are measured before KOMA.
    sentences = replace(findings.recipe, koma=None).steps()
    done = "".join(f"<li>{_escaped(sentence)}</li>" for sentence in sentences)
    per = findings.counts_per_electron
    return (
        "<footer><h2>How it was measured</h2>\n"
        f"<ul>{done}"
        f"<li>The order of the movies is {_escaped(findings.order)}.</li>"
        f"<li>Doses are what was counted after that, {per:.4g} to an electron; movies that are "
        "not usable count as none.</li>"
        "<li>Correlated noise is the mean correlation R of all pairs of frames of a movie "
        "(eq. 7), that after KOMA the mean covariance of two frames over their mean variance.</li>"
        f"<li>A contrast is high if its score is beyond {findings.limit:g}; such movies enter no "
        "average.</li>"
        "<li>McLeod et al. (2017), preprint doi:10.1101/116533: outliers by dose fig. 7, noise "
        "after KOMA fig. 12.</li></ul></footer>"
    )


def _escaped(text: str) -> str:
    """Return a text as HTML, whatever is in the name of a file or in what a file says."""
    return escape(printable(text))


def _without_path(movie: MovieRow) -> str:
    return movie.error.removeprefix(f"{movie.movie}: ")


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _figure_text(value: float | None) -> str:
    """Return a number as it is read, to three digits: 12,300, 40.1, 0.0213."""
    if value is None:
        return _UNKNOWN
    if abs(value) >= 1000:
        return with_minus(f"{value:,.0f}")
    if float(2 * value).is_integer():  # counts, and medians of counts
        return with_minus(f"{value:g}")
    digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return with_minus(f"{value:.{min(digits, 7)}f}")


def _number(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count:,} {name}s"
