"""``session``: what is told of a session is what the library finds in it."""

import csv
import io
import os
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

import mrcz
import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.correction import correlated_noise
from napari_mrcz.correction.koma import KomaOptions, contrast_scores
from napari_mrcz.correction.outliers.thresholds import OutlierStep
from napari_mrcz.session import Koma, Session, count_outliers, cumulative_dose
from napari_mrcz.session.page import page
from napari_mrcz.session.recipe import Recipe
from napari_mrcz.session.report import Measurements
from napari_mrcz.session.run import run_all
from napari_mrcz.session.tasks import Outcome
from napari_mrcz.simulation import CARBON_EDGE, simulate_session

pytest.importorskip("matplotlib")

N_STACKS, SHAPE, CARBON = 9, (8, 96, 128), 5
RECIPE = Recipe(OutlierStep(seed=3), koma=KomaOptions(radius=2))


@pytest.fixture(scope="module")
def movies(tmp_path_factory) -> list[str]:
    """Return the movies of a session; over one of them lies the edge of a carbon film."""
    folder = tmp_path_factory.mktemp("session")
    simulated = simulate_session(
        N_STACKS, SHAPE[0], SHAPE[1:], hot=(2e-3, 6e-3), exceptions={CARBON: CARBON_EDGE}, seed=1
    )
    paths = [str(folder / f"movie {i}.mrcz") for i in range(N_STACKS)]
    for i, path in enumerate(paths):
        nm.write(path, simulated.movie(i).frames, pixel_size=1.35)
    RECIPE.save(folder / "recipe.toml")
    return paths


@pytest.fixture(scope="module")
def findings(movies):
    """Return what is found in them."""
    return measured(movies)


def measured(movies, recipe=RECIPE):
    measurements = Measurements(movies, recipe)
    for outcome in run_all(measurements.tasks()):
        measurements.take(outcome)
    return measurements.findings()


def fitted(stack):
    return nm.OutlierFilter.fit(stack, seed=3)


def test_every_movie_is_told_of_as_the_library_finds_it(movies, findings):
    """Shape, dose, outliers, noise."""
    session = Session(movies, prepare=lambda stack: stack.apply(fitted(stack)))
    before = cumulative_dose(session)
    for i, (movie, row) in enumerate(zip(movies, findings.movies, strict=True)):
        with nm.open(movie) as stack:
            found = fitted(stack)
            corrected = stack.apply(found)
            assert (row.number, row.movie, row.error, row.remark) == (i + 1, movie, "", "")
            assert (row.frames, row.rows, row.columns) == SHAPE
            assert (row.hot, row.dark) == (found.n_hot, found.n_dark)
            assert row.noise_raw == correlated_noise(stack)
            assert row.noise_corrected == correlated_noise(corrected)
            assert row.dose == pytest.approx(np.mean(corrected) * SHAPE[0])
            assert row.dose_before == pytest.approx(before[i])
    # What was simulated: 1 electron per pixel and frame, of which the camera counts most.
    assert 6 < findings.movies[0].dose < 9
    assert findings.movies[-1].hot > findings.movies[0].hot > 5
    assert all(row.noise_raw > row.noise_corrected for row in findings.movies)


def test_the_carbon_is_found_and_enters_no_average(movies, findings):
    """R(a) is that of KOMA without it."""
    session = Session(movies, prepare=lambda stack: stack.apply(fitted(stack)))
    koma = Koma(session, 2)
    assert list(koma.left_out) == [CARBON]
    assert [row.number - 1 for row in findings.movies if row.high_contrast] == [CARBON]
    assert findings.movies[CARBON].reason == koma.left_out[CARBON]
    assert "not beyond the limit of 5" in findings.movies[0].reason
    contrasts, scores = contrast_scores([session.summary(i).thumbnail for i in range(N_STACKS)])
    np.testing.assert_allclose([row.contrast for row in findings.movies], contrasts)
    np.testing.assert_allclose([row.score for row in findings.movies], scores)
    assert findings.radii == (1, 2, 3)
    curve = koma.noise_curve([0, *findings.radii])
    np.testing.assert_allclose([findings.noise_without, *findings.noise_by_radius], curve)
    assert findings.noise_limits == [1 / 16, 1 / 32, 1 / 48]


def test_what_koma_is_warned_of_is_in_the_report(movies, findings):
    """Of the session, and of each movie; a stack whose noise would rise is one."""
    session = Session(movies, prepare=lambda stack: stack.apply(fitted(stack)))
    koma = Koma(session, 2, even_if_worse=False)
    assert not all(koma.helps)
    assert findings.warnings == koma.warnings
    for index, (row, helps) in enumerate(zip(findings.movies, koma.helps, strict=True)):
        own = [said for said in koma[index].warnings if said not in koma.warnings]
        assert bool(own) == (not helps)
        assert set(own) <= set(row.warnings)
    text = Elements(page(findings, datetime.now(UTC))).text
    assert all(f"Session: {said}" in text for said in findings.warnings)


def test_a_movie_of_few_frames_is_named_as_it_enters_no_average(movies, tmp_path):
    """As KOMA says it."""
    short = str(tmp_path / "short.mrcz")
    with nm.open(movies[0]) as stack:
        nm.write(short, stack[:3])
    found = measured([*movies[:3], short], Recipe(OutlierStep(seed=3)))
    remarks = [row.remark for row in found.movies]
    assert remarks[:3] == [""] * 3
    assert remarks[3] == "only 3 frames, where the session has 8: it enters no average"
    assert found.frames_averaged == SHAPE[0]


def test_a_movie_with_nan_is_named_and_changes_nothing_of_the_others(movies, tmp_path):
    """It enters no average, and its contrast cannot be told."""
    paths = []
    for index, movie in enumerate(movies[:6]):
        paths.append(str(tmp_path / Path(movie).name))
        with nm.open(movie) as stack:
            frames = np.asarray(stack, np.float32)
        if index == 2:
            frames[1, 10:20] = np.nan
        nm.write(paths[-1], frames)
    found = measured(paths, Recipe())
    others = measured([*paths[:2], *paths[3:]], Recipe())
    spoilt = found.movies[2]
    said = "pixels that are not numbers (NaN, inf), where most of the session has numbers"
    assert spoilt.remark == f"{said}: it enters no average"
    assert (spoilt.contrast, spoilt.score, spoilt.high_contrast) == (None, None, None)
    rest = [row for row in found.movies if row is not spoilt]
    for row, alone in zip(rest, others.movies, strict=True):
        assert row == replace(alone, number=row.number, dose_before=row.dose_before)
    assert np.isfinite([row.dose_before for row in found.movies]).all()
    np.testing.assert_array_equal(found.noise_by_radius, others.noise_by_radius)


def test_the_outlier_map_is_the_share_of_movies(movies, findings):
    """Of the census of the session."""
    census = count_outliers(Session(movies), fitted)
    np.testing.assert_array_equal(findings.outlier_share, census.share)
    assert 0 < findings.outlier_share.mean() < 0.02


def test_the_order_in_which_movies_are_done_changes_nothing(movies, findings):
    """They come as workers end."""
    measurements = Measurements(movies, RECIPE)
    for task in reversed(list(measurements.tasks())):
        measurements.take(task())
    again = measurements.findings()
    assert again.movies == findings.movies
    np.testing.assert_array_equal(again.noise_by_radius, findings.noise_by_radius)


@pytest.mark.parametrize(("gain", "dose"), [(4.0, 20.0), (1.0, 10.0)])
def test_doses_are_in_electrons(tmp_path, gain, dose):
    """By the header where it tells, or else by the noise: eight counts for each here."""
    frames = 8 * np.random.default_rng(3).poisson(2.0, (5, 64, 64)).astype(np.int16)
    path = str(tmp_path / "movie.mrcz")
    mrcz.writeMRC(frames, path, gain=gain)
    assert measured([path]).movies[0].dose == pytest.approx(dose, rel=0.02)


class Elements(HTMLParser):
    """The elements of a page, seen to be closed in the order in which they were opened."""

    EMPTY = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def bad_movies(movies, tmp_path_factory) -> list[Path]:
    """Return the session with a movie that is none, one of other frames, and one cut off."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "no <movie>.mrcz").write_bytes(b"none")
    nm.write(folder / "small.mrcz", np.ones((3, 32, 32), np.uint8))
    whole = Path(movies[3]).read_bytes()
    (folder / "cut.mrcz").write_bytes(whole[: len(whole) // 2])
    some = [Path(movie) for movie in movies]
    return [
        folder / "no <movie>.mrcz",
        *some[:3],
        folder / "cut.mrcz",
        *some[4:],
        folder / "small.mrcz",
    ]


def test_the_report_is_one_page_that_names_every_movie(napari_mrcz, bad_movies, tmp_path):
    """It needs nothing from elsewhere, and says of bad movies what is wrong with them."""
    report = tmp_path / "new" / "report.html"
    recipe = Path(bad_movies[1]).parent / "recipe.toml"
    ran = napari_mrcz("session", *bad_movies, "-r", recipe, "-o", report)
    assert ran.status == 1
    assert "failed: no <movie>.mrcz" in ran.err
    assert "warning: KOMA would raise the correlated noise" in ran.err
    assert ran.out == ""
    text = report.read_text("utf-8")
    html = Elements(text)
    assert not html.open
    for movie in bad_movies:
        assert movie.name in html.text
    assert "frames of 32 x 32 pixels, where most of the session has 96 x 128" in html.text
    assert "frames that the header announces are there" in html.text
    assert "robust standard deviations" in html.text
    assert "://" not in text
    for tag, attributes in html.seen:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    assert text.count("url(") == text.count("url(#")
    titles = [attributes["aria-label"] for tag, attributes in html.seen if tag == "svg"]
    assert len(titles) == 5
    ids = [attributes["id"] for _, attributes in html.seen if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_no_movie_at_all_is_reported_too(napari_mrcz, bad_movies, tmp_path):
    """As one that is not usable."""
    ran = napari_mrcz("session", bad_movies[0], "-o", tmp_path / "report.html")
    assert ran.status == 1
    html = Elements((tmp_path / "report.html").read_text("utf-8"))
    assert bad_movies[0].name in html.text
    assert not any(tag == "svg" for tag, _ in html.seen)


def test_a_movie_of_one_frame_has_no_noise(napari_mrcz, movies, tmp_path):
    """And is no reason to fail."""
    with nm.open(movies[0]) as stack:
        nm.write(tmp_path / "one.mrcz", stack[:1])
    files = tmp_path / "r.html", tmp_path / "t.csv"
    ran = napari_mrcz("session", tmp_path / "one.mrcz", "-o", files[0], "--table", files[1])
    assert ran.status == 0, ran.err
    (row,) = rows_of(files[1])
    assert row["frames"] == "1"
    assert row["noise_raw"] == row["noise_corrected"] == ""


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def no_page(monkeypatch):
    """Leave the page empty where only the table is looked at: its figures take long."""
    monkeypatch.setattr("napari_mrcz.session.page.page", lambda findings, made: "")


@pytest.mark.usefixtures("no_page")
def test_the_table_says_the_same_as_csv_and_as_parquet(napari_mrcz, findings, bad_movies, tmp_path):
    """Numbers to the last bit; what is not known is empty."""
    parquet = pytest.importorskip("pyarrow.parquet")
    recipe = Path(bad_movies[1]).parent / "recipe.toml"
    for suffix in ("csv", "parquet"):
        report, table = tmp_path / f"{suffix}.html", tmp_path / f"table.{suffix}"
        napari_mrcz("session", *bad_movies, "-r", recipe, "-o", report, "--table", table)
    as_csv = rows_of(tmp_path / "table.csv")
    # Given a path, pyarrow's threads may close the file later.
    content = io.BytesIO((tmp_path / "table.parquet").read_bytes())
    as_parquet = parquet.read_table(content).to_pylist()
    assert [row["movie"] for row in as_csv] == [str(movie) for movie in bad_movies]
    texts = [{k: "" if v is None else str(v) for k, v in row.items()} for row in as_parquet]
    assert texts == as_csv
    assert as_parquet[1]["noise_raw"] == findings.movies[0].noise_raw
    assert as_parquet[0]["frames"] is None
    assert as_csv[0]["error"].startswith(str(bad_movies[0]))
    high = [Path(row["movie"]).name for row in as_parquet if row["high_contrast"]]
    assert high == [f"movie {CARBON}.mrcz"]


@pytest.mark.usefixtures("no_page")
def test_workers_give_the_same_table(napari_mrcz, bad_movies, tmp_path, workers):
    """Bit by bit, the bad movies included."""
    tables = []
    for place, more in {"here": (), "there": ("--scheduler", workers.scheduler.address)}.items():
        report, table = tmp_path / f"{place}.html", tmp_path / f"{place}.csv"
        ran = napari_mrcz("session", *bad_movies, "-o", report, "--table", table, *more)
        assert ran.status == 1
        tables.append(table.read_bytes())
    assert tables[0] == tables[1]
    assert tables[0].count(b"\n") == len(bad_movies) + 1


def test_what_would_refuse_the_results_is_found_first(napari_mrcz, movies, tmp_path):
    """Nothing is read, nothing replaced."""
    there = tmp_path / "there.html"
    there.write_text("mine")
    with mock.patch("napari_mrcz.session.report.Measure.__call__") as measure:
        ran = napari_mrcz("session", movies[0], "-o", there)
        assert (ran.status, "exists" in ran.err) == (1, True)
        assert napari_mrcz("session", movies[0], "-o", movies[0]).status == 2
        new = tmp_path / "new.html"
        assert napari_mrcz("session", movies[0], "-o", new, "--table", "t.xlsx").status == 2
        assert not measure.called
    assert there.read_text() == "mine"
    assert os.listdir(tmp_path) == ["there.html"]


@pytest.mark.parametrize("module", ["jinja2", "matplotlib", "pyarrow"])
def test_what_is_not_installed_is_named(napari_mrcz, movies, tmp_path, module):
    """In one line, with what brings it."""
    missing = {name: None for name in ("matplotlib.figure", "pyarrow.parquet") if module in name}
    output, table = tmp_path / "r.html", tmp_path / "t.parquet"
    with mock.patch.dict("sys.modules", {module: None, **missing}):
        ran = napari_mrcz("session", movies[0], "-o", output, "--table", table)
    assert ran.status == 1
    assert ran.err.count("\n") == 1
    assert f"needs {module}" in ran.err
    assert "pip install 'napari-mrcz[report]'" in ran.err
    assert not output.exists()


def test_a_failed_worker_is_a_movie_that_cannot_be_used(movies):
    """As told by what ran it."""
    measurements = Measurements(movies[:2], RECIPE)
    measurements.take(Outcome(movies[1], error="the worker died"))
    measurements.take(next(measurements.tasks())())
    found = measurements.findings()
    assert [row.error for row in found.movies] == ["", "the worker died"]
    assert found.radii == ()


def test_names_are_text_in_the_page(findings):
    movie = replace(findings.movies[0], movie="/<b>&\x1b[31m\u202e.mrc")
    text = page(replace(findings, movies=(movie, *findings.movies[1:])), datetime.now(UTC))
    assert "&lt;b&gt;&amp;\\x1b[31m\\u202e.mrc" in text
    assert not any(bad in text for bad in ("<b>&", "\x1b", "\u202e"))
