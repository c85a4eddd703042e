"""``--delete``: whatever happens to a source meanwhile, no pixel is lost that is in no result."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from watch_session import Session, at_once, count, folder, out

import napari_mrcz as nm
from napari_mrcz.session.convert import Recode
from napari_mrcz.session.journal import Journal
from napari_mrcz.session.run import attempt

# Fixtures, which pytest finds by their names here.
__all__ = ["folder", "out"]

SHAPE = (3, 16, 24)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="leases and /proc are Linux's")


def frames(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 30000, SHAPE, np.int16)


FRAMES = frames(0)


@pytest.fixture
def source(folder) -> Path:
    nm.write(folder / "movie.mrc", FRAMES)
    return folder / "movie.mrc"


def compress(source: Path, **options):
    options = {"verify": True, "delete": True, **options}
    return Recode(str(source), str(source.parents[1] / "movie.mrcz"), **options)


# What others may do to a source. Each returns the frames that must not be lost.


def rename(source):
    source.rename(source.with_name("renamed.kept"))
    return FRAMES


def append(source):
    with source.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(frames(1).tobytes())
    return [*FRAMES, *frames(1)]


def truncate(source):
    os.truncate(source, 1024 + FRAMES[0].nbytes)
    return FRAMES[:1]


def replace(source):
    nm.write(source.with_name("other.kept.mrc"), frames(2))
    source.with_name("other.kept.mrc").replace(source)
    return frames(2)


def replace_by_its_like(source):
    """By a file of the same size and time."""
    times = source.stat()
    shown = replace(source)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    return shown


def rewrite_and_hide_it(source):
    times = source.stat()
    with source.open("r+b") as file:
        file.seek(1024)
        file.write(frames(3).tobytes())
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    return frames(3)


def swap_and_swap_back(source):
    away = source.with_name("away.kept")
    source.rename(away)
    nm.write(source, frames(4))
    source.replace(source.with_name("was there.kept"))
    away.rename(source)
    return [*FRAMES, *frames(4)]


ATTACKS = [
    rename,
    append,
    truncate,
    replace,
    replace_by_its_like,
    rewrite_and_hide_it,
    swap_and_swap_back,
]


def lost(folder: Path, wanted) -> list[int]:
    """Return the frames that are in no file as they are, and in no whole result."""
    whole, plain = set(), b""
    for path in folder.rglob("*"):
        if path.suffix == ".mrcz" and nm.verify(path):
            whole |= {frame.tobytes() for frame in nm.read(path)}
        elif path.is_file():
            plain += path.read_bytes()
    return [
        i for i, f in enumerate(wanted) if f.tobytes() not in whole and f.tobytes() not in plain
    ]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("stage", ["writing", "verifying"])
@pytest.mark.parametrize("at", range(1, SHAPE[0] + 1))
def test_at_every_frame_of_compress(source, stage, at, attack):
    kept = []

    def report(now, done, of):
        if (now, done) == (stage, at):
            kept.append(attack(source))

    attempt(compress(source), report)
    assert lost(source.parents[1], kept[0]) == []


@pytest.mark.parametrize("attack", [rename, replace, replace_by_its_like, swap_and_swap_back])
@pytest.mark.parametrize("call", ["rename", "remove"])
def test_at_the_last_moment_of_compress(source, monkeypatch, call, attack):
    """Just before the system moves or deletes the file: that may be another by then."""
    kept, do = [], getattr(os, call)

    def late(path, *more):
        monkeypatch.undo()
        if source.exists():
            kept.append(attack(source))
        else:
            nm.write(source, frames(5))
            kept.append([*FRAMES, *frames(5)])
        return do(path, *more)

    monkeypatch.setattr(os, call, late)
    attempt(compress(source))
    assert kept
    assert lost(source.parents[1], kept[0]) == []


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("event", ["begun", "compressed", "deleting"])
def test_around_each_line_of_watch(source, folder, out, monkeypatch, event, attack):
    """The journal is told before and after each step, and each is a moment to do it."""
    kept, append_line = [], Journal.append

    def late(journal, line):
        append_line(journal, line)
        if line["event"] == event and not kept:
            kept.append(attack(source))

    monkeypatch.setattr(Journal, "append", late)
    Session(folder, out, lambda session: None, once=True, delete=True)
    assert kept
    assert lost(folder.parent, kept[0]) == []


def test_undisturbed_it_is_deleted(source, folder, out):
    assert at_once(folder, out, delete=True).done("deleted") == ["movie"]
    assert not source.exists()
    assert (nm.read(out / "movie.mrcz") == FRAMES).all()


def test_watch_looks_at_the_result_again(source, folder, out):
    """A bit that flipped after it was verified is found before the source is gone."""
    session = at_once(folder, out)
    assert session.done("compressed") == ["movie"]
    raw = bytearray((out / "movie.mrcz").read_bytes())
    raw[1100] ^= 1
    (out / "movie.mrcz").write_bytes(raw)
    again = at_once(folder, out, delete=True)
    assert not again.done("deleted")
    assert source.exists()
    assert count(out, "deleting") == {}


@pytest.mark.parametrize("attack", [Path.unlink, lambda path: path.write_bytes(b"other")])
def test_a_source_is_kept_where_its_result_is_gone(source, monkeypatch, attack):
    """Or another file, after it was verified."""
    rename = os.rename

    def late(path, aside):
        attack(source.parents[1] / "movie.mrcz")
        rename(path, aside)

    monkeypatch.setattr(os, "rename", late)
    outcome = attempt(compress(source))
    assert outcome.kept or outcome.error
    assert source.exists()
    assert lost(source.parents[1], FRAMES) == []


@LINUX
def test_a_file_that_somebody_may_write_to_is_kept(source):
    with source.open("r+b"):
        outcome = compress(source)()
    assert "has it open to write" in outcome.kept
    assert source.exists()
    outcome = compress(source, skip_existing=True)()
    assert outcome.skipped and not outcome.kept
    assert not source.exists()


@LINUX
def test_one_that_somebody_is_about_to_open_is_kept(source, monkeypatch):
    """After it was moved, by a name that it has besides."""
    os.link(source, source.with_name("besides"))
    rename, opened = os.rename, []

    def late(path, aside):
        rename(path, aside)
        try:
            flags = os.O_WRONLY | os.O_NONBLOCK
            opened.append(os.open(source.with_name("besides"), flags))
        except BlockingIOError:
            opened.append(-1)  # it waits for the lease to be given up

    monkeypatch.setattr(os, "rename", late)
    outcome = compress(source)()
    assert "has it open to write" in outcome.kept
    assert source.exists()
    assert [path.name for path in source.parent.iterdir()].count("movie.mrc") == 1
    for descriptor in opened:
        if descriptor >= 0:
            os.close(descriptor)


def test_of_a_link_only_the_link_goes(source):
    link = source.with_name("link.mrc")
    link.symlink_to(source.name)
    outcome = compress(link)()
    assert any(str(source) in note for note in outcome.notes)
    assert source.exists() and not link.is_symlink()


def test_other_names_of_a_file_stay(source):
    os.link(source, source.with_name("other"))
    outcome = compress(source)()
    assert any("another name" in note for note in outcome.notes)
    assert [path.name for path in source.parent.iterdir()] == ["other"]


def test_what_is_said_of_frames_is_compared(source, monkeypatch):
    """Were a text not written, the source would be kept."""
    nm.write(source, FRAMES, metadata={"grid": 3}, overwrite=True)
    described = nm.Stack.described

    def forgetful(stack, **changes):
        return described(stack, **changes, metadata={})

    monkeypatch.setattr(nm.Stack, "described", forgetful)
    outcome = compress(source)()
    assert "metadata" in outcome.kept
    assert source.exists()


def test_a_recording_goes_as_a_whole_or_not_at_all(tmp_path):
    head = np.zeros(64, "<i4")
    head[[0, 1, 2, 3, 4, 12]] = 256, 2, SHAPE[2], SHAPE[1], 16, 40
    own = bytes(40)
    (tmp_path / "in").mkdir()
    parts = [tmp_path / "in" / f"run_{i:03d}.tvips" for i in range(2)]
    for i, part in enumerate(parts):
        pixels = (frame.astype("<u2").tobytes() for frame in frames(i))
        part.write_bytes((b"" if i else head.tobytes()) + b"".join(own + p for p in pixels))

    def come(stage, done, of):
        if (stage, done) == ("verifying", 1):
            shutil.copy(parts[1], tmp_path / "in" / "run_002.tvips")

    outcome = compress(parts[0])(come)
    assert outcome.kept
    assert all(part.exists() for part in parts)
    outcome = compress(parts[0], overwrite=True)()
    assert not outcome.kept
    assert list((tmp_path / "in").iterdir()) == []


def test_a_source_that_changes_leaves_no_result(source):
    """It would be of two files."""

    def report(stage, done, of):
        if (stage, done) == ("writing", 2):
            rewrite_and_hide_it(source)
            os.utime(source)

    with pytest.raises(nm.MrczError, match="written to while it was read"):
        compress(source, delete=False)(report)
    assert not (source.parents[1] / "movie.mrcz").exists()


@pytest.mark.parametrize("command", ["compress", "watch"])
def test_a_deletion_that_was_interrupted_is_told_of_and_ended(
    napari_mrcz, source, monkeypatch, command
):
    """A killed process leaves the movie under another name: it gets its own back."""
    monkeypatch.setattr("napari_mrcz.session.source_files._LEAST_AGE_S", -1.0)
    out = source.parents[1] / "results"
    options = ("-o", out, *{"compress": ("--verify",), "watch": ("--once", "--settle", 0)}[command])
    assert napari_mrcz(command, source.parent, *options).status == 0
    aside = source.with_name("movie.mrc.0123abcd.deleting")
    source.rename(aside)
    nm.write(source.with_name("other.mrc"), frames(7))
    more = ("--skip-existing",) if command == "compress" else ()
    ran = napari_mrcz(command, source.parent, *options, *more)
    assert ran.status == 0 and aside.exists() and not source.exists()
    assert f"warning: {aside}" in ran.err and "rename it to movie.mrc" in ran.err
    ran = napari_mrcz(command, source.parent, *options, *more, "--delete")
    assert f"{source}: its deletion was interrupted" in ran.err
    assert not aside.exists()
    if command == "compress":
        assert ran.status == 0 and not source.exists()
    else:
        assert source.exists()  # its times are others than when it was verified: kept, and said
        assert "kept" in ran.err
    np.testing.assert_array_equal(nm.read(out / "movie.mrcz"), FRAMES)


def test_a_name_that_is_taken_is_not_given_back(napari_mrcz, source, monkeypatch):
    monkeypatch.setattr("napari_mrcz.session.source_files._LEAST_AGE_S", -1.0)
    aside = source.with_name("movie.mrc.0123abcd.deleting")
    shutil.copy(source, aside)
    before = aside.read_bytes()
    ran = napari_mrcz("compress", source.parent, "-o", source.parents[1], "--verify", "--delete")
    assert ran.status == 0 and not source.exists()
    assert aside.read_bytes() == before and f"warning: {aside}" in ran.err
