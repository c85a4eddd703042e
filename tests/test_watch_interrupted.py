"""``watch``: nothing is lost and nothing done twice, whatever happens to the process."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from watch_session import (
    RECIPE,
    Session,
    at_once,
    contents,
    count,
    events,
    folder,
    frames_in,
    frames_of,
    out,
    record,
)

import napari_mrcz as nm
from napari_mrcz.correction.koma import KomaOptions
from napari_mrcz.session import follow
from napari_mrcz.session.journal import Journal, Ledger
from napari_mrcz.session.recipe import Recipe

# Fixtures, which pytest finds by their names here.
__all__ = ["folder", "out"]


@contextmanager
def start(*arguments: object) -> Iterator[subprocess.Popen]:
    """Start the program in a process of its own, which does not outlive a test that fails."""
    program = "from napari_mrcz.cli.entry import run; run()"
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


@pytest.mark.parametrize(("kills", "n"), [(2, 8), pytest.param(10, 30, marks=pytest.mark.slow)])
def test_however_often_killed_every_movie_is_there_once(
    napari_mrcz, folder, out, tmp_path, kills, n
):
    """And verified, and corrected as if nothing had happened; sources are as they were."""
    shape = (8, 160, 160)
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
    for _ in range(kills):
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
    assert frames_in(out / "corrected") == frames_in(tmp_path / "whole")
    again = napari_mrcz("watch", *arguments, "--once")
    assert "movies compressed: 0, corrected: 0" in again.err


class Killed(BaseException):
    """Ends a process at once."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_each_line_of_the_journal_it_goes_on(
    folder, out, tmp_path, monkeypatch, when
):
    """Every line is the last of one process: each loses only what was not told."""
    n, recipe = 4, Recipe(koma=KomaOptions(1, limit=1e6))
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


BEGUN = {"time": "2026-03-25T13:45:22.123+00:00", "event": "watching", "folder": "/a"}
FIRST = json.dumps(BEGUN, separators=(",", ":")).encode() + b"\n"


class TestJournal:
    def test_a_torn_last_line_was_never_written(self, tmp_path):
        path = tmp_path / "watch.jsonl"
        with Journal(path) as journal:
            journal.append(BEGUN)
        whole = path.read_bytes()
        path.write_bytes(whole + b'{"b": 2')
        with Journal(path) as journal:
            assert journal.lines == [BEGUN]
            journal.append({"c": 3})
        assert path.read_bytes() == whole + b'{"c":3}\n'

    def test_a_damaged_line_is_named(self, tmp_path):
        path = tmp_path / "watch.jsonl"
        path.write_bytes(FIRST + b'zzz\n{"b": 2}\n')
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
            journal.append(BEGUN)
            monkeypatch.setattr(os, "write", half)
            with pytest.raises(OSError, match="No space") as refused:
                journal.append({"b": 2})
            assert refused.value.filename == str(path)
            monkeypatch.setattr(os, "write", write)
            journal.append({"c": 3})
        assert [json.loads(line) for line in path.read_text().splitlines()] == [BEGUN, {"c": 3}]

    @given(st.integers(0, len(FIRST)))
    def test_a_torn_first_line_was_never_written(self, whole):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "watch.jsonl")
            path.write_bytes(FIRST[:whole])
            with Journal(path) as journal:
                assert journal.lines == ([BEGUN] if whole == len(FIRST) else [])

    @given(
        st.binary(min_size=1, max_size=200).filter(lambda content: not FIRST.startswith(content))
        | st.sampled_from([b'{"event":"begun"}\n', FIRST[:40] + b"x", b"no line", b"\n" + FIRST])
    )
    def test_another_file_of_its_name_stays_as_it_is(self, content):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "watch.jsonl")
            path.write_bytes(content)
            with pytest.raises(nm.MrczError, match="is not a journal"):
                Journal(path)
            assert path.read_bytes() == content

    @pytest.mark.parametrize("content", [None, b"", FIRST + b"{"])
    def test_no_link_is_followed(self, tmp_path, content):
        """Neither to a journal nor to what is not there yet."""
        other = tmp_path / "other"
        if content is not None:
            other.write_bytes(content)
        (tmp_path / "watch.jsonl").symlink_to(other)
        with pytest.raises(nm.MrczError, match="is a link"):
            Journal(tmp_path / "watch.jsonl")
        assert content == (other.read_bytes() if other.exists() else None)

    @pytest.mark.skipif(sys.platform == "win32", reason="has no pipes with names")
    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "watch.jsonl")
        with pytest.raises(nm.MrczError, match="is not a file"):
            Journal(tmp_path / "watch.jsonl")

    def test_that_of_another_folder_is_not_gone_on_with(self, folder, out, tmp_path):
        at_once(folder, out)
        (tmp_path / "other").mkdir()
        with pytest.raises(nm.MrczError, match="Choose another output folder"):
            at_once(tmp_path / "other", out)


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
        monkeypatch.setattr(follow, "free_nbytes", lambda folder: state["free"])
        session = Session(folder, out, idle, once=True)
        assert session.done("compressed") == ["movie_00", "movie_01"]
        assert len(session.steps) == 2
        assert state["refused"] == 3
        paused, again = session.said
        assert paused.startswith(f"no room on the disk of {out} (5 B free): paused")
        assert again == "there is room again: it goes on"
        assert (nm.read(out / "movie_00.mrcz") == frames_of(0)).all()
