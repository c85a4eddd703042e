"""``watch``: which movies are taken and when, what becomes of them, and what is said."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from watch_session import (
    RADIUS,
    RECIPE,
    Session,
    at_once,
    contents,
    count,
    events,
    folder,
    frames_of,
    out,
    record,
)

import napari_mrcz as nm
from napari_mrcz.correction.outliers.thresholds import OutlierStep
from napari_mrcz.session.arrivals import Arrivals
from napari_mrcz.session.recipe import Recipe

# Fixtures, which pytest finds by their names here.
__all__ = ["folder", "out"]


class TestArrivals:
    def test_a_link_that_leads_to_itself_stops_nothing(self, folder):
        path = record(folder, 0)
        (folder / "loop.mrc").symlink_to("loop.mrc")
        look = Arrivals(folder, (".mrc",), settle=0.0).look(0.0)
        assert [found.source for found in look.finished] == [path.name]
        assert len(look.unreadable) == 1

    def test_a_growing_movie_is_not_taken(self, folder):
        """It has to rest for as long as is asked, since it last grew."""
        path = record(folder, 0)
        arrivals = Arrivals(folder, (".mrc",), settle=1.0)
        assert arrivals.look(0.0).soonest == 1.0
        with path.open("ab") as file:
            file.write(b"more")
        look = arrivals.look(0.9)
        assert look.unfinished == ("movie_00.mrc",)
        assert look.changed
        look = arrivals.look(1.8)
        assert not look.finished
        assert not look.changed
        assert look.soonest == pytest.approx(0.1)
        assert [found.source for found in arrivals.look(2.0).finished] == ["movie_00.mrc"]

    def test_one_that_is_written_in_place_is_not_taken(self, folder):
        """Its size stays, its time does not."""
        path = record(folder, 0)
        arrivals = Arrivals(folder, (".mrc",), settle=1.0)
        arrivals.look(0.0)
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1000))
        assert not arrivals.look(1.5).finished
        assert arrivals.look(2.5).finished

    def test_a_marker_tells(self, folder):
        """However short it has rested; without one it is never finished."""
        record(folder, 0)
        (folder / "movie_01.mrc.done").touch()
        record(folder, 1)
        look = Arrivals(folder, (".mrc",), marker=".done").look(0.0)
        assert [found.source for found in look.finished] == ["movie_01.mrc"]
        assert look.unfinished == ("movie_00.mrc",)
        assert look.soonest is None

    def test_an_mdoc_is_waited_for_where_other_movies_have_one(self, folder):
        """A few seconds; one that comes meanwhile ends it."""
        first = record(folder, 0)
        arrivals = Arrivals(folder, (".mrc",), settle=1.0)
        arrivals.look(0.0)
        assert [found.source for found in arrivals.look(1.0).finished] == ["movie_00.mrc"]
        first.with_name("movie_00.mrc.mdoc").write_text("Voltage = 300")
        record(folder, 1)
        record(folder, 2)
        arrivals.look(2.0)
        look = arrivals.look(3.5)
        assert [found.source for found in look.finished] == ["movie_00.mrc"]
        assert look.soonest == pytest.approx(4.5)
        (folder / "movie_01.mdoc").write_text("Voltage = 300")
        names = ["movie_00.mrc", "movie_01.mrc"]
        assert [found.source for found in arrivals.look(3.6).finished] == names
        assert len(arrivals.look(8.0).finished) == 3

    def test_they_come_in_order_of_their_times(self, folder):
        """Of those that come at once."""
        for i, seconds in enumerate((30, 10, 20)):
            os.utime(record(folder, i), (seconds, seconds))
        found = Arrivals(folder, (".mrc",), settle=0).look(0.0).finished
        assert [f.source[6:8] for f in found] == ["01", "02", "00"]

    def test_what_is_no_movie_is_not_looked_at(self, folder):
        """References, results, hidden and empty files, other names."""
        (folder / "sub").mkdir()
        (folder / "out").mkdir()
        for path in (folder / "sub", folder / "out", folder):
            record(path, 0)
        nm.write(folder / "gain.mrc", np.ones((4, 4), np.float32))
        for name in ("text.txt", ".hidden.mrc", "empty.mrc"):
            (folder / name).write_text("" if name == "empty.mrc" else "more")
        ignored = [folder / "out", folder / "gain.mrc"]
        look = Arrivals(folder, (".mrc",), settle=0, ignored=ignored).look(0.0)
        assert {f.source for f in look.finished} == {"movie_00.mrc", "sub/movie_00.mrc"}
        assert look.unfinished == ("empty.mrc",)
        picked = Arrivals(folder, (".mrc",), settle=0, pattern="gain*").look(0.0)
        assert [f.source for f in picked.finished] == ["gain.mrc"]

    def test_a_folder_that_may_not_be_read_is_told_of_once(self, folder, out, monkeypatch):
        """The other movies are done."""
        shut = folder / "shut"
        shut.mkdir()
        for path in (shut, folder):
            record(path, 0)
        record(folder, 1)
        scan = os.scandir

        def refuse(path="."):
            if Path(path) == shut:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", refuse)
        session = at_once(folder, out)
        assert session.done("compressed") == ["movie_00", "movie_01"]
        refused = f"{shut} cannot be read (Permission denied): skipped"
        assert [line for line in session.said if "shut" in line] == [refused]


class TestCompressing:
    def test_a_bad_movie_stops_nothing(self, napari_mrcz, folder, out):
        record(folder, 0)
        (folder / "movie_01.mrc").write_bytes(b"no movie")
        record(folder, 2)
        arguments = ("watch", folder, "-o", out, "--once", "--settle", 0)
        ran = napari_mrcz(*arguments)
        assert ran.status == 1
        assert ran.err.splitlines()[-1].endswith("movies compressed: 2; failed: movie_01.mrc")
        assert sorted(contents(out)) == ["movie_00.mrcz", "movie_02.mrcz"]
        (folder / "movie_01.mrc").unlink()
        record(folder, 1)
        ran = napari_mrcz(*arguments, "--json")
        assert ran.status == 0
        assert json.loads(ran.out)["step"] == "compressed"
        assert sorted(contents(out)) == [f"movie_{i:02}.mrcz" for i in range(3)]

    def test_one_without_its_marker_is_left(self, napari_mrcz, folder, out):
        record(folder, 0)
        record(folder, 1)
        (folder / "movie_01.mrc.done").touch()
        arguments = ("watch", folder, "-o", out, "--once", "--marker", ".done")
        ran = napari_mrcz(*arguments)
        assert "left, as they are not finished: movie_00.mrc" in ran.err
        assert list(contents(out)) == ["movie_01.mrcz"]
        (folder / "movie_00.mrc.done").touch()
        assert napari_mrcz(*arguments).status == 0
        assert len(contents(out)) == 2

    def test_options_and_folders_are_kept(self, napari_mrcz, folder, out):
        (folder / "grid").mkdir()
        record(folder / "grid", 0)
        options = ("--codec", "lz4", "--dtype", "int16", "--stop-after", 0.1, "--settle", 0.05)
        ran = napari_mrcz("watch", folder, "-o", out, *options)
        assert ran.status == 0, ran.err
        with nm.open(out / "grid" / "movie_00.mrcz") as stack:
            assert stack.dtype == np.int16
            assert stack.header["codec"] == 2

    def test_a_movie_that_changes_while_it_is_read_is_done_when_it_rests(self, folder, out):
        record(folder, 0)
        changed = []

        def replaced(stage, done, total):
            if not changed:
                changed.append(stage)
                nm.write(folder / "movie_00.mrc", frames_of(7), overwrite=True)

        session = at_once(folder, out, report=replaced)
        assert session.done("compressed") == ["movie_00"]
        assert "written to while it was read" in session.said[0]
        assert (nm.read(out / "movie_00.mrcz") == frames_of(7)).all()

    def test_one_that_grew_after_it_was_done_is_done_anew(self, folder, out):
        record(folder, 0)
        at_once(folder, out)
        nm.write(folder / "movie_00.mrc", frames_of(0, (9, 40, 48)), overwrite=True)
        assert at_once(folder, out).done("compressed") == ["movie_00"]
        assert len(nm.read(out / "movie_00.mrcz")) == 9

    def test_what_is_not_ours_is_not_replaced(self, folder, out):
        record(folder, 0)
        out.mkdir()
        (out / "movie_00.mrcz").write_bytes(b"precious")
        session = at_once(folder, out)
        assert "exists already" in session.steps[0].outcome.error
        assert (out / "movie_00.mrcz").read_bytes() == b"precious"
        assert at_once(folder, out, overwrite=True).done("compressed") == ["movie_00"]

    def test_two_movies_do_not_become_one(self, napari_mrcz, folder, out):
        record(folder, 0)
        nm.write(folder / "movie_00.mrcs", frames_of(5))
        ran = napari_mrcz("watch", folder, "-o", out, "--once", "--settle", 0)
        assert ran.status == 1
        assert "is what movie_00.mrc is written to" in ran.err
        assert (nm.read(out / "movie_00.mrcz") == frames_of(0)).all()

    def test_a_folder_that_goes_away_is_waited_for(self, folder, out, tmp_path):
        """A network disk, say."""
        record(folder, 0)
        waits = []

        def idle(session):
            waits.append(None)
            if len(waits) == 1:
                folder.rename(tmp_path / "away")
            elif len(waits) == 4:
                record(tmp_path / "away", 1)
                (tmp_path / "away").rename(folder)
            elif len(waits) == 6:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Session(folder, out, idle)
        assert len(waits) == 6
        assert sorted(count(out, "compressed")) == ["movie_00.mrc", "movie_01.mrc"]


class TestDeleting:
    def test_sources_go_after_they_were_verified(self, napari_mrcz, folder, out):
        record(folder, 0)
        (folder / "movie_00.mrc.done").touch()
        ran = napari_mrcz("watch", folder, "-o", out, "--once", "--marker", ".done", "--delete")
        assert ran.status == 0, ran.err
        assert not list(folder.iterdir())
        assert [line["event"] for line in events(out)][1:] == ["begun", "compressed", "deleting"]
        assert (nm.read(out / "movie_00.mrcz") == frames_of(0)).all()

    def test_one_that_is_gone_and_still_in_the_last_look_is_not_deleted_again(
        self, folder, out, monkeypatch
    ):
        record(folder, 0)
        look, looks = Arrivals.look, []

        def late(self, now):
            """Return the last look again: the system reports a deletion a moment later."""
            found = look(self, now)
            if looks and looks[-1].finished and not found.finished and looks.count(looks[-1]) < 9:
                found = looks[-1]
            looks.append(found)
            return found

        monkeypatch.setattr(Arrivals, "look", late)
        done = at_once(folder, out, delete=True)
        assert done.done("deleted") == ["movie_00"]
        assert all(step.outcome.ok for step in done.steps)

    def test_one_that_was_about_to_go_goes_the_next_time(self, folder, out, monkeypatch):
        record(folder, 0)

        def killed(path):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(os, "remove", killed)
            at_once(folder, out, delete=True)
        assert (folder / "movie_00.mrc").exists()
        assert at_once(folder, out, delete=True).done("deleted") == ["movie_00"]
        assert not (folder / "movie_00.mrc").exists()
        assert count(out, "compressed") == {"movie_00.mrc": 1}

    def test_one_whose_values_were_rounded_stays(self, folder, out):
        nm.write(folder / "movie_00.mrc", frames_of(0) * np.float32(0.3))
        session = at_once(folder, out, delete=True, options={"dtype": "int16"})
        assert "differs from its source" in session.steps[0].outcome.error
        assert (folder / "movie_00.mrc").exists()

    def test_one_whose_result_is_not_what_was_verified_stays(self, folder, out):
        record(folder, 0)
        at_once(folder, out)
        (out / "movie_00.mrcz").write_bytes(b"cut off")
        session = at_once(folder, out, delete=True)
        assert "The source is kept" in session.steps[0].outcome.error
        assert (folder / "movie_00.mrc").exists()

    def test_the_next_movie_of_that_name_does_not_replace_what_is_left_of_it(self, folder, out):
        record(folder, 0)
        at_once(folder, out, delete=True)
        nm.write(folder / "movie_00.mrc", frames_of(9))
        session = at_once(folder, out, delete=True)
        assert "exists already" in session.steps[0].outcome.error
        assert (nm.read(out / "movie_00.mrcz") == frames_of(0)).all()
        assert (nm.read(folder / "movie_00.mrc") == frames_of(9)).all()

    def test_nor_what_was_corrected_of_it(self, folder, out):
        """Although the compressed one was moved away."""
        recipe = Recipe(OutlierStep())
        record(folder, 0)
        at_once(folder, out, delete=True, recipe=recipe)
        before = contents(out / "corrected")
        (out / "movie_00.mrcz").rename(out / "first.mrcz")
        nm.write(folder / "movie_00.mrc", frames_of(9))
        session = at_once(folder, out, delete=True, recipe=recipe)
        assert session.done("compressed") == ["movie_00"]
        assert session.done("corrected") == []
        assert contents(out / "corrected") == before


class TestSaying:
    def test_what_is_waited_for_is_said_in_words(self, folder, out):
        """Once for each kind of waiting, and always in the bar."""
        shown = []

        def idle(session):
            if len(session.said) == 1:
                for i in range(RADIUS):
                    record(folder, i)
            elif not (folder / "empty.mrc").exists():
                (folder / "empty.mrc").touch()
            else:
                raise KeyboardInterrupt

        def report(what, done, of):
            if what.startswith("waiting"):
                shown.append((what, done, of))

        said = []
        with pytest.raises(KeyboardInterrupt):
            Session(folder, out, idle, said=said, recipe=RECIPE, report=report)
        waiting = "2 compressed, 2 waiting for their KOMA window"
        assert said == [
            "waiting for movies: none seen yet",
            f"waiting for movies: {waiting}",
            f"waiting for movies: 1 seen and resting for 0 s, {waiting}",
        ]
        assert shown == [(said[0], 0, 0), (said[1], 2, 2), (said[2], 2, 3)]

    def test_once_says_at_once_what_it_waits_for(self, napari_mrcz, folder, out):
        for i in range(3):
            record(folder, i)
        ran = napari_mrcz("watch", folder, "-o", out, "--once", "--settle", 0.05)
        first, *others = ran.err.splitlines()
        assert first == "napari-mrcz: waiting for movies: 3 seen and resting for 0.05 s"
        assert len(others) == 4

    def test_on_a_restart_the_journal_is_said(self, folder, out):
        for i in range(3):
            record(folder, i)
        assert not at_once(folder, out).said
        assert at_once(folder, out).said == ["going on: 3 compressed"]
        said = ["going on: 3 compressed, 3 to be corrected"]
        assert at_once(folder, out, recipe=RECIPE).said == said
        said = ["going on: 3 compressed, 0 to be corrected"]
        assert at_once(folder, out, recipe=RECIPE).said == said


def test_what_is_said_while_watching_ends_is_not_shown():
    """It is an error to none but the library that watches."""
    code = (
        "import logging, napari_mrcz.session.arrivals\n"
        "logging.getLogger('watchdog.inotify').error('called when the thread is inactive')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert ran.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("gone", "-o", "out"), 1, "not a folder that can be watched"),
        ((".", "-o", "."), 2, "a folder of their own"),
        ((".", "-o", "out", "--delete", "--group", 2), 2, "exclude each other"),
        ((".", "-o", "out", "--timeout", 2), 2, "of a --recipe"),
        ((".", "-o", "out", "-r", "gone.toml"), 1, "cannot be opened"),
    ],
)
def test_what_makes_no_sense_is_said(napari_mrcz, tmp_path, monkeypatch, arguments, status, said):
    monkeypatch.chdir(tmp_path)
    ran = napari_mrcz("watch", *arguments)
    assert ran.status == status
    assert said in ran.err
    assert not (tmp_path / "out").exists()
