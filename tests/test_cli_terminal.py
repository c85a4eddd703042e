"""What stands on a terminal: lines of their own above the bar, nothing else in the end."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pyte
import pytest
from command_line import CommandLine

import napari_mrcz as nm
from napari_mrcz.cli import entry, progress

COLUMNS = 100
NUMBERS = np.random.default_rng(0)


class Terminal(io.StringIO):
    """Both outputs, as a terminal shows them."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        screen = pyte.HistoryScreen(COLUMNS, 50)
        screen.set_mode(pyte.modes.LNM)
        pyte.Stream(screen).feed(self.getvalue())
        assert not screen.cursor.hidden
        return [line.rstrip() for line in screen.display if line.strip()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three movies and a recipe; it is the current folder."""
    (tmp_path / "in").mkdir()
    for name in "abc":
        frames = NUMBERS.poisson(1, (8, 48, 40)).astype(np.uint8)
        nm.write(tmp_path / "in" / f"{name}.mrc", frames)
    (tmp_path / "k.toml").write_text("[outliers]\n[koma]\nradius = 1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_paths_are_written_as_they_would_be_typed(folder):
    """Results keep theirs, which other programs may read elsewhere."""
    here = os.getcwd()
    assert progress.from_here(f"a -> {here}/out/b: {here}/c") == "a -> out/b: c"
    for other in (here, f"/mnt{here}/a", f"{here}-2/a"):
        assert progress.from_here(other) == other


@pytest.mark.parametrize(
    "command",
    [
        "compress in -o out --verify",
        "compress in -o out --json",
        "verify in",
        "verify in --json",
        "correct in -o out -r k.toml",
        "session in -o out/r.html",
        "watch in -o out -r k.toml --once --settle 0",
        "microed in/a.mrc -o out --annuli 1 --force",
        "repair in/a.mrc -o out/a.mrc",
        "bench in/a.mrc --rounds 1",
        "count in -o out",
    ],
)
def test_lines_stand_above_the_bar_and_nothing_is_left_of_it(folder, monkeypatch, command):
    """Whatever is said is on the screen as it was said, wrapped at its edge."""
    if command.startswith("session"):
        pytest.importorskip("matplotlib")
    (folder / "out").mkdir()
    terminal = Terminal()
    said: list[str] = []
    written = progress._write

    def write(line, stream):
        said.append(line)
        written(line, stream)

    monkeypatch.setattr(progress, "_DRAWN", 0.0)
    monkeypatch.setattr(progress, "_SILENT", 0.0)
    monkeypatch.setattr(progress, "_write", write)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "argv", ["napari-mrcz", *command.split()])
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("TERM", "xterm-256color")
    with pytest.raises(SystemExit):
        entry.run()
    assert said
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in terminal.getvalue()
    if command.startswith(("compress in", "correct in")):
        assert "looking for movies in in" in terminal.getvalue()
    wrapped = (line[i : i + COLUMNS] for line in said for i in range(0, len(line), COLUMNS))
    assert terminal.lines() == [line.rstrip() for line in wrapped if line.strip()]


@pytest.mark.skipif(sys.platform == "win32", reason="has no such names")
def test_names_do_not_steer_the_terminal(folder, capsys):
    """Nor are they taken for markup, nor do they end a line."""
    name = "[red]x[bold]\x1b[31m\n\u202e.mrc"
    os.rename("in/a.mrc", Path("in", name))
    run = CommandLine(capsys)
    for command in ("info", "verify", "compress"):
        ran = run(command, Path("in", name))
        assert ran.status == 0
        said = ran.out + ran.err
        assert "[red]x[bold]\\x1b[31m\\n\\u202e.mrc" in said
        assert all(c == "\n" or c.isprintable() for c in said)
    ran = run("info", "--json", Path("in", name))
    assert json.loads(ran.out)["path"] == f"in/{name}"


class Closed(io.StringIO):
    """What cannot be written."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left")]
)
def test_an_output_that_cannot_be_written_is_no_traceback(folder, capsys, monkeypatch, error):
    """Nobody hears what is said; what is asked for is missing, and the status says so."""
    monkeypatch.setattr(sys, "stderr", Closed(error))
    assert CommandLine(capsys)("compress", "in", "-o", "out").status == 0
    assert len(list(Path("out").iterdir())) == 3
    monkeypatch.setattr(sys, "stdout", Closed(error))
    assert CommandLine(capsys)("info", "in/a.mrc").status == 1


@pytest.mark.parametrize("begun", [0, 1, 2])
@pytest.mark.parametrize(
    "command", ["info in/a.mrc", "verify in", "correct in -o out", "bench in/a.mrc"]
)
def test_threads_that_cannot_start_are_no_traceback(folder, capsys, command, begun):
    """However many could be: it goes on with those, or says why not."""
    left = [begun]
    start = threading.Thread.start

    def refuse(thread):
        if left[0] == 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    with mock.patch.object(threading.Thread, "start", refuse):
        ran = CommandLine(capsys)(*command.split())
    assert ran.status == 0 or "thread" in ran.err


COMMANDS = {
    "info": "info in/a.mrc",
    "verify": "verify in",
    "compress": "compress in -o OUT --verify",
    "correct": "correct in -o OUT -r k.toml",
    "session": "session in -o OUT.html",
    "watch": "watch in -o OUT -r k.toml --once --settle 0",
    "microed": "microed in -o OUT",
    "count": "count in -o OUT",
    "bench": "bench in/a.mrc --rounds 1",
    "workers": "correct in -o OUT -r k.toml --workers 1",
}


def interrupt(command: str, after: float, group: bool) -> tuple[int, str]:
    """Run a command and interrupt it, as a terminal does (all its processes) or as `kill` does.

    The time counts from when Python has come to our first line.
    """
    program = "from napari_mrcz.cli.entry import main; print(flush=True); main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    process.stdout.readline()
    try:
        _, said = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.skipif(sys.platform == "win32", reason="has other ways to interrupt")
@pytest.mark.parametrize(
    ("name", "moments"),
    [("verify", 2), *(pytest.param(name, 30, marks=pytest.mark.slow) for name in COMMANDS)],
)
def test_an_interrupt_at_any_moment_is_one_line(folder, name, moments):
    """A process that has done all dies of it without a word."""
    began = time.monotonic()
    done, _ = interrupt(COMMANDS[name].replace("OUT", "whole"), 60, False)
    took = time.monotonic() - began
    chance = random.Random(name)
    for i in range(moments):
        after = 0.01 + chance.random() * took
        status, said = interrupt(COMMANDS[name].replace("OUT", f"out{i}"), after, bool(i % 2))
        assert "Traceback" not in said, said
        assert status in (done, 130, -signal.SIGINT), said
        assert said.count("interrupted") == (status == 130), said
