"""``watch``: nothing is lost and nothing done twice, whatever happens to the process."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.recipe import KomaStep, OutlierStep, Recipe
from napari_mrcz.watching import Arrivals, Corrections, Ending, Journal, Ledger, Watch, work

# The means of 8 frames are exact, so that sums of them are the same in whatever order.
SHAPE = (8, 40, 48)
RADIUS = 2
# Stacks of noise alone have contrasts of chance: none is to be left out for its own.
RECIPE = Recipe(OutlierStep(order=5.0), koma=KomaStep(RADIUS, limit=1e6))


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def frames_of(i: int, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(i).poisson(2, shape).astype(np.uint8)


def record(folder: Path, i: int, shape=SHAPE) -> Path:
    """Write a movie as a camera does."""
    path = folder / f"movie_{i:02}.mrc"
    nm.write(path, frames_of(i, shape))
    return path


def events(out: Path) -> list[dict]:
    """Give the whole lines of a journal, which may be about to be written."""
    path = out / "watch.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def count(out: Path, kind: str) -> Counter:
    return Counter(line["source"] for line in events(out) if line["event"] == kind)


def contents(folder: Path, pattern: str = "*.mrcz") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob(pattern))}


class Session:
    """A watch in this process, without any waiting: `idle` is called where it would wait."""

    def __init__(self, folder, out, idle, **settings) -> None:
        self.said: list[str] = settings.pop("said", [])
        self.steps = []
        recipe, timeout = settings.pop("recipe", None), settings.pop("timeout", None)
        with Journal(out / "watch.jsonl") as journal:
            ledger = Ledger(journal, folder)
            corrections = recipe and Corrections(ledger, out, recipe, timeout=timeout)
            arrivals = Arrivals(folder, (".mrc",), settle=0)
            self.watch = Watch(
                arrivals,
                ledger,
                out,
                lambda seconds: idle(self),
                self.said.append,
                corrections=corrections,
                **settings,
            )
            for step in self.watch.steps():
                self.steps.append(step)

    def done(self, kind: str) -> list[str]:
        return [Path(s.outcome.source).stem for s in self.steps if s.kind == kind and s.outcome.ok]


def at_once(folder, out, **settings) -> Session:
    def idle(session):
        raise AssertionError("there is nothing to wait for")

    return Session(folder, out, idle, ending=Ending(once=True), **settings)


@contextmanager
def start(*arguments: object) -> Iterator[subprocess.Popen]:
    """Start the program in a process of its own, which does not outlive a test that fails."""
    program = "from napari_mrcz.cli.main import main; main()"
    command = [sys.executable, "-c", program, "watch", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_lines(process: subprocess.Popen, out: Path, n: int, seconds: float = 60) -> None:
    """Wait until a journal has so many lines more, or the process ends."""
    path = out / "watch.jsonl"
    lines = len(events(out)) + n
    deadline = time.monotonic() + seconds
    while process.poll() is None and len(events(out)) < lines:
        assert time.monotonic() < deadline, f"{path} has not grown"
        try:
            process.wait(0.01)
        except subprocess.TimeoutExpired:
            continue


@pytest.mark.slow
def test_killed_ten_times_every_movie_is_there_once(napari_mrcz, folder, out, tmp_path):
    """And verified, and corrected as if nothing had happened; sources are as they were."""
    n, shape = 30, (8, 160, 160)
    RECIPE.save(tmp_path / "r.toml")
    arguments = (folder, "-o", out, "-r", tmp_path / "r.toml", "--settle", 0.3, "--poll", 0.05)
    pause = threading.Event()

    def camera():
        for i in range(n):
            record(folder, i, shape)
            pause.wait(0.15)

    recording = threading.Thread(target=camera)
    recording.start()
    chance = random.Random(3)
    for _ in range(10):
        with start(*arguments) as process:
            wait_for_lines(process, out, chance.randint(1, 11))
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, 0.04))
            process.kill()
    recording.join()
    sources = contents(folder, "*.mrc")
    assert napari_mrcz("watch", *arguments, "--once").status == 0
    assert contents(folder, "*.mrc") == sources
    names = [f"movie_{i:02}" for i in range(n)]
    once = {f"{name}.mrc": 1 for name in names}
    assert count(out, "compressed") == once
    assert count(out, "corrected") == once
    assert sorted(contents(out)) == [f"{name}.mrcz" for name in names]
    for i, name in enumerate(names):
        assert nm.verify(out / f"{name}.mrcz")
        assert (nm.read(out / f"{name}.mrcz") == frames_of(i, shape)).all()
    movies = sorted(out.glob("*.mrcz"))
    ran = napari_mrcz("correct", *movies, "-r", tmp_path / "r.toml", "-o", tmp_path / "whole")
    assert ran.status == 0, ran.err
    assert contents(out / "corrected") == contents(tmp_path / "whole")
    again = napari_mrcz("watch", *arguments, "--once")
    assert "movies compressed: 0, corrected: 0" in again.err


class Killed(BaseException):
    """Ends a process at once."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_each_line_of_the_journal_it_goes_on(
    folder, out, tmp_path, monkeypatch, when
):
    """Every line is the last of one process: each loses only what was not told."""
    n, recipe = 4, Recipe(koma=KomaStep(1, limit=1e6))
    for i in range(n):
        record(folder, i)
    append, chance = Journal.append, random.Random(1)
    left = 0

    def dying(journal, line):
        nonlocal left
        left -= 1
        if left < 0:
            if when == "after":
                append(journal, line)
            raise Killed
        append(journal, line)

    monkeypatch.setattr(Journal, "append", dying)
    killed = 0
    while True:
        left = 0 if when == "after" else chance.randint(1, 3)
        try:
            at_once(folder, out, recipe=recipe, delete=True)
        except Killed:
            killed += 1
            assert killed < 100
        else:
            break
    assert killed >= 5
    assert not count(out, "failed")
    once = {f"movie_{i:02}.mrc": 1 for i in range(n)}
    for kind in ("compressed", "summed", "corrected"):
        assert count(out, kind) == once
    assert not list(folder.iterdir())
    for i in range(n):
        assert (nm.read(out / f"movie_{i:02}.mrcz") == frames_of(i)).all()
    monkeypatch.undo()
    for i in range(n):
        record(folder, i)
    whole = tmp_path / "whole"
    at_once(folder, whole, recipe=recipe)
    for name in contents(out / "corrected"):
        np.testing.assert_array_equal(
            nm.read(out / "corrected" / name), nm.read(whole / "corrected" / name)
        )


def test_events_tell_of_a_movie_and_an_interrupt_ends_cleanly(folder, out):
    """Without polling, which would be too late; the exit status is 130."""
    with start(folder, "-o", out, "--settle", 0.05) as process:
        wait_for_lines(process, out, 1)
        record(folder, 0)
        # Its own word: the journal has the line before the process has counted the movie.
        assert any("movie_00.mrc -> " in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait() == 130, said
    assert "movies compressed: 1" in said
    assert "Traceback" not in said
    assert (nm.read(out / "movie_00.mrcz") == frames_of(0)).all()


class TestArrivals:
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
        refused = f"{shut} cannot be read (Permission denied): passed over"
        assert [line for line in session.said if "shut" in line] == [refused]


class TestJournal:
    def test_a_torn_last_line_was_never_written(self, tmp_path):
        path = tmp_path / "watch.jsonl"
        with Journal(path) as journal:
            journal.append({"a": 1})
        whole = path.read_bytes()
        path.write_bytes(whole + b'{"b": 2')
        with Journal(path) as journal:
            assert journal.lines == [{"a": 1}]
            journal.append({"c": 3})
        assert path.read_bytes() == whole + b'{"c":3}\n'

    def test_a_damaged_line_is_named(self, tmp_path):
        path = tmp_path / "watch.jsonl"
        path.write_bytes(b'{"a": 1}\nzzz\n{"b": 2}\n')
        with pytest.raises(nm.MrczError, match="its line 2 is damaged"):
            Journal(path)

    def test_two_processes_do_not_share_one(self, tmp_path):
        path = tmp_path / "watch.jsonl"
        with Journal(path), pytest.raises(nm.MrczError, match="another process"):
            Journal(path)
        Journal(path).close()

    def test_a_line_that_finds_no_room_leaves_nothing(self, tmp_path, monkeypatch):
        path = tmp_path / "watch.jsonl"
        write = os.write

        def half(descriptor, data):
            monkeypatch.setattr(os, "write", full)
            return write(descriptor, data[:4])

        def full(descriptor, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        with Journal(path) as journal:
            journal.append({"a": 1})
            monkeypatch.setattr(os, "write", half)
            with pytest.raises(OSError, match="No space") as refused:
                journal.append({"b": 2})
            assert refused.value.filename == str(path)
            monkeypatch.setattr(os, "write", write)
            journal.append({"c": 3})
        assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": 1}, {"c": 3}]

    def test_that_of_another_folder_is_not_gone_on_with(self, folder, out, tmp_path):
        at_once(folder, out)
        (tmp_path / "other").mkdir()
        with pytest.raises(nm.MrczError, match="Choose another output folder"):
            at_once(tmp_path / "other", out)


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


class TestFullDisk:
    @pytest.mark.parametrize("full_for", ["the movie", "the journal"])
    def test_it_pauses_and_goes_on(self, folder, out, monkeypatch, full_for):
        """With one line when it pauses and one when it goes on."""
        record(folder, 0)
        record(folder, 1)
        at_once(folder, out / "before")
        state = {"free": 5, "refused": 0}
        write = os.write

        def refusing(descriptor, data):
            named = os.fstat(descriptor).st_nlink > 0
            if state["free"] < 8 and named == (full_for == "the journal"):
                state["refused"] += 1
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(descriptor, data)

        def idle(session):
            state["free"] += 1

        # Room for the journal's first line.
        with Journal(out / "watch.jsonl") as journal:
            Ledger(journal, folder)
        monkeypatch.setattr(os, "write", refusing)
        monkeypatch.setattr(work, "free_nbytes", lambda folder: state["free"])
        session = Session(folder, out, idle, ending=Ending(once=True))
        assert session.done("compressed") == ["movie_00", "movie_01"]
        assert len(session.steps) == 2
        assert state["refused"] == 3
        paused, again = session.said
        assert paused.startswith(f"no room on the disk of {out} (5 B free): paused")
        assert again == "there is room again: it goes on"
        assert (nm.read(out / "movie_00.mrcz") == frames_of(0)).all()


class TestDeleting:
    def test_sources_go_after_they_were_verified(self, napari_mrcz, folder, out):
        record(folder, 0)
        (folder / "movie_00.mrc.done").touch()
        ran = napari_mrcz("watch", folder, "-o", out, "--once", "--marker", ".done", "--delete")
        assert ran.status == 0, ran.err
        assert not list(folder.iterdir())
        assert [line["event"] for line in events(out)][1:] == ["begun", "compressed", "deleting"]
        assert (nm.read(out / "movie_00.mrcz") == frames_of(0)).all()

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


class TestCorrecting:
    def test_a_window_follows_the_session(self, napari_mrcz, folder, out, tmp_path):
        """Each stack is corrected when its window is complete, as in the finished session."""
        n, corrected_at = 8, []

        def next_movie(session):
            corrected_at.append(len(session.done("corrected")))
            if len(corrected_at) > n:
                raise KeyboardInterrupt
            record(folder, len(corrected_at) - 1)

        with pytest.raises(KeyboardInterrupt):
            Session(folder, out, next_movie, recipe=RECIPE)
        # Stacks 0, 1 and 2 have the first five as their window, the others two to either side.
        assert corrected_at == [0, 0, 0, 0, 0, 3, 4, 5, 6]
        followed = contents(out / "corrected")
        assert at_once(folder, out, recipe=RECIPE).done("corrected") == ["movie_06", "movie_07"]
        RECIPE.save(tmp_path / "r.toml")
        movies = sorted(out.glob("*.mrcz"))
        ran = napari_mrcz("correct", *movies, "-r", tmp_path / "r.toml", "-o", tmp_path / "whole")
        assert ran.status == 0, ran.err
        whole = contents(tmp_path / "whole")
        assert followed == {name: whole[name] for name in followed}
        assert contents(out / "corrected") == whole
        sources = sorted(folder.glob("*.mrc"))
        napari_mrcz("correct", *sources, "-r", tmp_path / "r.toml", "-o", tmp_path / "direct")
        for name in whole:
            direct = nm.read(tmp_path / "direct" / name)
            np.testing.assert_array_equal(nm.read(out / "corrected" / name), direct)

    def test_sums_that_no_window_needs_are_deleted_and_can_be_had_again(self, folder, out):
        n = 12
        for i in range(n):
            record(folder, i)
        at_once(folder, out, recipe=RECIPE)
        kept = sorted(path.name[6:8] for path in (out / "sums").iterdir())
        assert kept == [f"{i:02}" for i in range(n - 1 - 3 * RADIUS, n)]
        before = contents(out / "corrected")
        for path in (out / "sums").iterdir():
            path.write_bytes(b"damaged")
        record(folder, n)
        session = at_once(folder, out, recipe=RECIPE)
        assert session.done("corrected") == [f"movie_{n:02}"]
        assert contents(out / "corrected").items() > before.items()

    def test_a_stack_does_not_wait_for_longer_than_the_timeout(self, folder, out):
        record(folder, 0)
        done = []

        def idle(session):
            done.append(session.done("corrected"))
            if len(done) == 1:
                record(folder, 1)
            else:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Session(folder, out, idle, recipe=RECIPE, timeout=0.0)
        assert done == [[], ["movie_00", "movie_01"]]
        assert [step["name"] for step in nm.open(out / "corrected/movie_00.mrcz").history] == [
            "OutlierFilter",
            "KomaNormalization",
        ]

    def test_all_are_corrected_when_nothing_has_come_for_a_while(self, folder, out, monkeypatch):
        """The silence is waited for once, not before each of them."""
        now, waits = 0, []
        monkeypatch.setattr(work, "time", SimpleNamespace(monotonic=lambda: now))

        def idle(session):
            nonlocal now
            waits.append(len(session.done("corrected")))
            now += 1

        for i in range(6):
            record(folder, i)
        ending = Ending(silence=5)
        assert len(Session(folder, out, idle, recipe=RECIPE, ending=ending).done("corrected")) == 6
        assert waits == 5 * [4]

    def test_a_window_that_is_too_small_is_said_as_elsewhere(self, folder, out):
        """In the words of KOMA in one go, with the same number."""
        for i in range(3):
            record(folder, i)
        session = at_once(folder, out, recipe=RECIPE)
        notes = [step.outcome.notes[-1] for step in session.steps if step.kind == "corrected"]
        said = "KOMA with 2 of the 4 other stacks that a radius of 2 takes"
        assert notes == 3 * [said]
        koma = nm.Koma(sorted(out.glob("*.mrcz")), RADIUS, limit=1e6)
        with pytest.warns(UserWarning, match=said):
            koma.survey()

    def test_a_movie_of_another_shape_is_left_out(self, folder, out):
        for i in range(6):
            record(folder, i, (4, 32, 32) if i == 3 else SHAPE)
        session = at_once(folder, out, recipe=RECIPE)
        assert len(session.done("compressed")) == 6
        assert session.done("corrected") == [f"movie_{i:02}" for i in (0, 1, 2, 4, 5)]
        failed = [step.outcome.error for step in session.steps if not step.outcome.ok]
        assert len(failed) == 1
        assert "frames of (32, 32)" in failed[0]

    def test_another_recipe_corrects_all_again(self, folder, out):
        record(folder, 0)
        first, other = Recipe(OutlierStep()), Recipe(OutlierStep(fill="expectation"))
        assert at_once(folder, out).done("corrected") == []
        assert at_once(folder, out, recipe=first).done("corrected") == ["movie_00"]
        before = contents(out / "corrected")
        assert at_once(folder, out, recipe=first).done("corrected") == []
        session = at_once(folder, out, recipe=other)
        assert session.done("corrected") == ["movie_00"]
        assert session.done("compressed") == []
        assert contents(out / "corrected") != before

    def test_sources_that_are_gone_are_not_needed(self, folder, out):
        for i in range(5):
            record(folder, i)
        at_once(folder, out, delete=True)
        assert not list(folder.iterdir())
        assert len(at_once(folder, out, recipe=RECIPE).done("corrected")) == 5


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
        "import logging, napari_mrcz.watching\n"
        "logging.getLogger('watchdog.inotify').error('called when the thread is inactive')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert ran.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("gone", "-o", "out"), 1, "no folder that can be watched"),
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
