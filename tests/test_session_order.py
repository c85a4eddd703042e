"""The order of a session's movies, and which files of a folder are movies: one rule for all."""

import os
import random
import warnings
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from command_line import CommandLine
from foreign_files import write_tvips
from hypothesis import given
from hypothesis import strategies as st

import napari_mrcz as nm
from napari_mrcz.naming import natural_key
from napari_mrcz.session.survey import GIVEN, NAMES, TIMES, acquired_at, by_acquisition
from napari_mrcz.widgets.koma.reading import movies_in

START = datetime(2021, 3, 25, 9, 0, 0)


@pytest.fixture
def run(capsys):
    return CommandLine(capsys)


def write(path, seed=0, *, n=4, shape=(24, 20), **options):
    rng = np.random.default_rng(seed)
    path.parent.mkdir(exist_ok=True, parents=True)
    nm.write(path, rng.poisson(3, (n, *shape)).astype("i1"), **options)


def number(path):
    return int(os.path.basename(path).split("_")[1].split(".")[0])


def neighbours(path):
    return [number(name) for name in nm.open(path).history[-1]["neighbours"]]


def around(index, count):
    """Numbers of the two movies around one of 1 ... count; at the ends the window shifts."""
    first = min(max(index - 1, 1), count - 2)
    return [i for i in range(first, first + 3) if i != index]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2000)), min_size=2, unique=True))
def test_numbers_are_counted_in_names_and_in_folders(parts):
    names = [f"{letter}_{n}/x{n}.mrc" for letter, n in parts]
    assert sorted(names, key=natural_key) == [f"{a}_{n}/x{n}.mrc" for a, n in sorted(parts)]


@given(st.lists(st.text(alphabet="aB0/1_", min_size=1), min_size=2, unique=True))
def test_all_names_have_one_order(names):
    keys = sorted(map(natural_key, names))
    assert len(set(keys)) == len(names)
    assert sorted(names, key=natural_key) == [name for _, name in keys]


class TestDoors:
    """The same neighbours by the command line, the library and the widget's list."""

    @pytest.fixture
    def folder(self, tmp_path):
        for i in range(1, 13):
            write(tmp_path / f"in/movie_{i}.mrcz", i)
        (tmp_path / "koma.toml").write_text("[koma]\nradius = 1\n")
        return tmp_path / "in"

    def test_command_line_library_and_widget_agree(self, folder, tmp_path, run):
        wanted = {i: around(i, 12) for i in range(1, 13)}
        assert not run("correct", folder, "-o", tmp_path / "a", "-r", tmp_path / "koma.toml").status
        assert {i: neighbours(tmp_path / f"a/movie_{i}.mrcz") for i in wanted} == wanted
        # As a shell names them.
        named = sorted(folder.iterdir())
        assert not run("correct", *named, "-o", tmp_path / "b", "-r", tmp_path / "koma.toml").status
        assert {i: neighbours(tmp_path / f"b/movie_{i}.mrcz") for i in wanted} == wanted
        koma = nm.Koma(folder, 1)
        assert {i: [number(name) for name in koma[i - 1].neighbours] for i in wanted} == wanted
        assert {i: koma[i - 1].order for i in wanted} == dict.fromkeys(wanted, NAMES)
        assert [number(entry.path) for entry in movies_in([folder])] == list(wanted)

    def test_a_list_keeps_the_order_that_it_is_given_in(self, folder):
        paths = sorted(folder.iterdir())
        random.Random(0).shuffle(paths)
        koma = nm.Koma(paths, 1)
        assert [koma.session.name(i) for i in range(12)] == [str(path) for path in paths]
        assert koma[0].order == GIVEN
        assert koma[0].describe()["order"] == GIVEN

    def test_movies_named_in_another_order_keep_it(self, folder, tmp_path, run):
        named = [folder / f"movie_{i}.mrcz" for i in (5, 1, 9)]
        recipe = tmp_path / "koma.toml"
        assert not run("correct", *named, "-o", tmp_path / "a", "-r", recipe).status
        assert neighbours(tmp_path / "a/movie_5.mrcz") == [1, 9]
        assert nm.open(tmp_path / "a/movie_5.mrcz").history[-1]["order"] == GIVEN


def test_what_is_hidden_and_later_files_of_a_recording_are_no_movies(tmp_path, run):
    folder = tmp_path / "in"
    for name in ("movie_1.mrc", "movie_2.mrc", ".snapshot/movie_1.mrc"):
        write(folder / name)
    (folder / "._movie_1.mrc").write_bytes(b"of another system")
    frames = np.ones((4, 24, 20), np.uint16)
    write_tvips(folder / "movie.tvips", frames, parts=2)
    session = nm.Session(folder)
    wanted = [str(folder / name) for name in ("movie_1.mrc", "movie_2.mrc", "movie_000.tvips")]
    assert sorted(session.name(i) for i in range(len(session))) == sorted(wanted)
    assert not run("compress", folder, "-o", tmp_path / "out").status
    assert len(list((tmp_path / "out").rglob("*.mrcz"))) == len(wanted)


class TestTimes:
    def test_they_come_before_names_in_all_doors(self, tmp_path, run):
        """The one with the lowest number was acquired last."""
        for i in range(1, 6):
            when = START - timedelta(minutes=i)
            told = {"mdoc": {"DateTime": f"{when:%d}-Mar-{when:%Y  %H:%M:%S}"}}
            write(tmp_path / f"in/movie_{i}.mrcz", i, metadata=told)
        (tmp_path / "koma.toml").write_text("[koma]\nradius = 1\n")
        backwards = [5, 4, 3, 2, 1]
        assert [number(e.path) for e in movies_in([tmp_path / "in"])] == backwards
        session = nm.Session(tmp_path / "in")
        assert [number(session.name(i)) for i in range(5)] == backwards
        assert session.order == TIMES
        recipe = tmp_path / "koma.toml"
        ran = run("correct", tmp_path / "in", "-o", tmp_path / "a", "-r", recipe)
        assert ran.status == 0
        assert "order of the 5 movies: by acquisition time" in ran.err
        assert neighbours(tmp_path / "a/movie_5.mrcz") == [4, 3]
        assert nm.open(tmp_path / "a/movie_5.mrcz").history[-1]["order"] == TIMES

    def test_one_movie_without_a_time_leaves_all_to_their_names(self, tmp_path):
        for i in (2, 10):
            told = {} if i == 2 else {"DateTime": "2021-03-25T08:00:00"}
            write(tmp_path / f"movie_{i}.mrcz", i, metadata=told)
        session = nm.Session(tmp_path)
        assert [number(session.name(i)) for i in range(2)] == [2, 10]
        assert session.order == NAMES

    @pytest.mark.parametrize(
        ("metadata", "when"),
        [
            ({"mdoc": {"DateTime": "25-Mar-21  13:45:22"}}, datetime(2021, 3, 25, 13, 45, 22)),
            (
                {"mdoc": {"frames": [{"DateTime": "25-Mar-2021  13:45:22"}] * 2}},
                datetime(2021, 3, 25, 13, 45, 22),
            ),
            (
                {"xml": {"microscopeData": {"acquisitionDateTime": "2021-03-25T13:45:22.5+01:00"}}},
                datetime(2021, 3, 25, 12, 45, 22, 500000, UTC),
            ),
            (
                {"dm": {"DataBar": {"Acquisition Date": "3/25/2021",
                                    "Acquisition Time": "1:45:22 PM"}}},
                datetime(2021, 3, 25, 13, 45, 22),
            ),
            (
                {"dm": [{"DataBar": {"Acquisition Time (OS)": 1.3261153522e+17}}]},
                datetime(2021, 3, 25, 13, 45, 22, tzinfo=UTC),
            ),
            ({"fei": {"Timestamp": np.array([44280.5, 44281.0])}}, datetime(2021, 3, 25, 12)),
            ({"smv": {"DATE": "Thu Mar 25 13:45:22 2021"}}, datetime(2021, 3, 25, 13, 45, 22)),
            ({"DateTime": "not a time", "Date": 3, "timestamp": True}, None),
            ({"DateTime": "0000:00:00 00:00:00"}, None),
            ({"timestamp": float("nan")}, None),
            ({}, None),
        ],
    )  # fmt: skip
    def test_programs_write_them_in_many_ways(self, metadata, when):
        assert acquired_at(metadata) == when

    def test_clocks_with_and_without_a_zone_are_not_compared(self):
        assert by_acquisition(["b", "a"], [START, START.replace(tzinfo=UTC)]) == (["a", "b"], NAMES)

    @given(st.permutations(range(6)), st.integers(1, 3))
    def test_movies_of_one_time_follow_their_names(self, shuffled, of_one):
        times = [START - timedelta(hours=i // of_one) for i in shuffled]
        movies, order = by_acquisition([f"m{i}" for i in shuffled], times)
        assert order == TIMES
        assert movies == [f"m{i}" for i in sorted(range(6), key=lambda i: (-(i // of_one), i))]


def reference(shape=(24, 20), seed=0):
    return np.random.default_rng(seed).normal(1, 0.05, shape).astype("f4")


class TestReferences:
    """A movie alone in a folder with its gain reference."""

    @pytest.mark.parametrize(
        ("name", "image"),
        [
            ("x.mrc", reference()),
            ("x.mrc", reference((20, 24))),
            ("x.mrc", reference((48, 40))),
            ("x.mrc", reference((40, 48))),
            ("movie_gain.mrc", np.ones((7, 7), "i2")),
            ("SuperRef_2021.mrc", reference((7, 7))),
            ("dark-2.mrc", np.zeros((24, 20), "i2")),
        ],
    )
    def test_it_is_neither_corrected_nor_compressed_and_said(self, name, image, tmp_path, run):
        write(tmp_path / "in/movie.mrc")
        nm.write(tmp_path / "in" / name, image)
        for command in ("correct", "compress"):
            ran = run(command, tmp_path / "in", "-o", tmp_path / command)
            assert ran.status == 0, ran.err
            assert f"{tmp_path / 'in' / name}: taken for a reference" in ran.err
            assert [path.name for path in (tmp_path / command).iterdir()] == ["movie.mrcz"]
        with pytest.warns(nm.MrczWarning, match="taken for a reference"):
            assert len(nm.Session(tmp_path / "in")) == 1

    def test_it_is_taken_where_it_is_named(self, tmp_path, run):
        write(tmp_path / "in/movie.mrc")
        nm.write(tmp_path / "in/gain.mrc", reference())
        run("compress", tmp_path / "in/gain.mrc", tmp_path / "in", "-o", tmp_path / "out")
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["gain.mrcz", "movie.mrcz"]

    @pytest.mark.parametrize(
        ("name", "image"),
        [
            ("sum.mrc", np.random.default_rng(0).poisson(1, (24, 20)).astype("f4")),
            ("prefix_1.mrc", np.random.default_rng(0).normal(40, 6, (24, 20)).astype("f4")),
            ("a_gain_corrected.mrc", np.random.default_rng(0).normal(40, 6, (24, 20)).astype("f4")),
            ("near_one_of_another_shape.mrc", reference((9, 9))),
        ],
    )
    def test_other_single_images_are_compressed_and_not_corrected(self, name, image, tmp_path, run):
        write(tmp_path / "in/movie.mrc")
        nm.write(tmp_path / "in" / name, image)
        assert not run("compress", tmp_path / "in", "-o", tmp_path / "a").status
        assert len(list((tmp_path / "a").iterdir())) == 2
        ran = run("correct", tmp_path / "in", "-o", tmp_path / "b")
        assert ran.status == 0
        assert f"{tmp_path / 'in' / name}: a single image" in ran.err
        assert [path.name for path in (tmp_path / "b").iterdir()] == ["movie.mrcz"]

    @pytest.mark.parametrize(
        "images",
        [
            {"gain.mrc": reference()},
            {"x.mrc": reference(), "gain_2.mrc": reference(), "dark.mrc": np.zeros((9, 9), "i2")},
        ],
    )
    def test_it_stays_where_no_movie_is_left(self, images, tmp_path, run):
        """As on the day after all movies were compressed, and deleted."""
        folder = tmp_path / "in"
        folder.mkdir()
        for name, image in images.items():
            nm.write(folder / name, image)
        ran = run("compress", folder, "-o", tmp_path / "out", "--verify", "--delete")
        assert ran.status == 2
        assert "no movie" in ran.err
        assert {path.name for path in folder.iterdir()} == set(images)

    def test_a_session_of_sums_keeps_them_but_not_its_gain(self, tmp_path):
        for i in range(4):
            write(tmp_path / f"sum_{i}.mrc", i, n=1)
        nm.write(tmp_path / "gain.mrc", reference())
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            session = nm.Session(tmp_path)
        assert [number(session.name(i)) for i in range(4)] == [0, 1, 2, 3]
        assert len(session) == 4
        assert len(said) == 1

    def test_a_watch_leaves_it_where_it_is(self, tmp_path, run):
        write(tmp_path / "in/movie.mrc")
        nm.write(tmp_path / "in/x.mrc", reference())
        ran = run("watch", tmp_path / "in", "-o", tmp_path / "out", "--once", "--settle", "0")
        assert ran.status == 0
        assert "x.mrc: taken for a reference" in ran.err
        assert [path.name for path in (tmp_path / "out").glob("*.mrcz")] == ["movie.mrcz"]
