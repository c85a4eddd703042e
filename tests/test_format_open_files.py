"""What is no file is refused at once; what changes while it is open never gives wrong pixels."""

import gc
import os
import pickle
import subprocess
import sys
import tempfile
import threading

import numpy as np
import psutil
import pytest
from good_files import assert_same_pixels, good_file, gzipped, movie

import napari_mrcz as nm

POSIX = os.name == "posix"
PIXELS = movie((6, 40, 50), "int16", 1)


@pytest.fixture(params=["movie.mrc", "movie.mrcz", "peer.mrc", "peer.mrcz", "peer.mrc.gz"])
def path(request, tmp_path):
    """Return a movie with and without checksums, plain and compressed, and a packed one."""
    name = request.param
    plain = tmp_path / name.removesuffix(".gz")
    metadata = {"footer": "yes"} if name.startswith("movie") else None
    nm.write(plain, PIXELS, footer=name.startswith("movie"), metadata=metadata)
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzipped(plain.read_bytes()))
    return tmp_path / name


# What is no file --------------------------------------------------------------------------------


@pytest.mark.parametrize("open_", [nm.open, nm.read, lambda p: nm.verify(p).error])
def test_what_is_not_there_or_no_file_is_said(tmp_path, open_):
    def refusal(path):
        try:
            return open_(path)
        except nm.MrczError as error:
            return str(error)

    (tmp_path / "folder.mrc").mkdir()
    (tmp_path / "folder.mrc.gz").mkdir()
    assert "folder" in refusal(tmp_path / "folder.mrc")
    assert "folder" in refusal(tmp_path / "folder.mrc.gz")
    assert "No such file" in refusal(tmp_path / "none.mrc")
    assert "No such file" in refusal(tmp_path / "none.mrc.bz2")
    assert "name" in refusal("nul\0.mrc")
    assert refusal(tmp_path / ("n" * 5000))
    if POSIX:
        (tmp_path / "a.mrc").symlink_to(tmp_path / "b.mrc")
        (tmp_path / "b.mrc").symlink_to(tmp_path / "a.mrc")
        assert refusal(tmp_path / "a.mrc")
        for device in ("/dev/zero", "/dev/null"):
            assert "device" in refusal(device)


@pytest.mark.skipif(not POSIX, reason="needs named pipes")
@pytest.mark.parametrize("name", ["pipe.mrc", "pipe.mrcz", "pipe.mrc.gz", "pipe.mrc.bz2"])
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(nm.MrczError, match="pipe"):
        nm.open(tmp_path / name)


@pytest.mark.skipif(not POSIX, reason="needs named pipes")
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for_and_not_replaced(tmp_path):
    path = tmp_path / "movie.mrc"
    nm.write(path, PIXELS)
    with nm.open(path) as stack:
        stack.close()
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(nm.MrczError):
            _ = stack[0]
    with pytest.raises(nm.MrczError, match="pipe"):
        nm.write(path, PIXELS, overwrite=True)
    assert path.is_fifo()


# What changes while it is open -------------------------------------------------------------------


def read_all(stack):
    """Return each frame, or the error that came instead."""
    found = []
    for frame in range(len(stack)):
        for key in (frame, (frame, slice(5, 30, 3), 7), (frame, 39, 49)):
            try:
                found.append((key, stack[key]))
            except nm.MrczError as error:
                assert error.frame in (frame, None)
                found.append((key, error))
    return found


def test_a_file_that_is_cut_off_while_open_gives_errors_and_never_zeros(path):
    whole = path.stat().st_size
    for size in (whole - 1, whole // 2, 1030, 0):
        for used_before in (False, True):
            content = path.read_bytes()
            with nm.open(path) as stack:
                if used_before:
                    _ = stack[0, :3]
                with open(path, "r+b") as file:
                    file.truncate(size)
                found = read_all(stack)
            if path.suffix != ".gz":
                assert size == whole - 1 or any(isinstance(f, nm.MrczError) for _, f in found)
            for key, frame in found:
                if not isinstance(frame, nm.MrczError):
                    np.testing.assert_array_equal(frame, PIXELS[key])
            path.write_bytes(content)


def test_a_file_that_was_replaced_is_not_taken_for_the_one_that_was_opened(path):
    with nm.open(path) as stack:
        _ = stack[0]
        stack.close()
        content = path.read_bytes()
        path.write_bytes(content + b"\0")
        with pytest.raises(nm.MrczError, match="changed by another program"):
            _ = stack[1]
        path.unlink()
        with pytest.raises(nm.MrczError, match="No such file"):
            _ = stack[1]


@pytest.mark.skipif(not POSIX, reason="an open file cannot be replaced there")
def test_a_file_that_is_replaced_while_open_is_read_to_its_end(path):
    with nm.open(path) as stack:
        _ = stack[0]
        other = path.with_name("other")
        other.write_bytes(b"something else altogether")
        os.replace(other, path)
        for frame in range(6):
            np.testing.assert_array_equal(stack[frame], PIXELS[frame])


@pytest.mark.skipif(not POSIX, reason="an open file cannot be replaced there")
def test_a_movie_can_be_saved_over_itself(tmp_path):
    for name in ("self.mrc", "self.mrcz"):
        nm.write(tmp_path / name, PIXELS, metadata={"a": 1})
        with nm.open(tmp_path / name) as stack:
            nm.write(tmp_path / name, stack, metadata={"b": 2}, overwrite=True)
        with nm.open(tmp_path / name) as stack:
            assert_same_pixels(np.asarray(stack), PIXELS)
            assert stack.metadata == {"a": 1, "b": 2}


CUT_WHILE_READING = """
import sys, threading
import napari_mrcz as nm
path = sys.argv[1]
whole = open(path, "rb").read()
done = threading.Event()
def cut_and_mend():
    with open(path, "r+b") as file:
        while not done.is_set():
            file.truncate(2000)
            file.seek(0)
            file.write(whole)
            file.flush()
errors = 0
with nm.open(path) as stack:
    cutter = threading.Thread(target=cut_and_mend)
    cutter.start()
    while errors < 200:
        for frame in range(len(stack)):
            try:
                stack[frame, 3:1000, ::2]
            except nm.MrczError:
                errors += 1
    done.set()
    cutter.join()
"""


@pytest.mark.parametrize("footer", [True, False])
def test_a_file_that_is_cut_off_during_a_read_does_not_kill_the_process(tmp_path, footer):
    path = tmp_path / "cut.mrc"
    metadata = {"a": 1} if footer else None
    nm.write(path, np.zeros((4, 1000, 1000), np.int16), footer=footer, metadata=metadata)
    done = subprocess.run(
        [sys.executable, "-c", CUT_WHILE_READING, str(path)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# Packed files, handles ---------------------------------------------------------------------------


def test_what_is_unpacked_leaves_nothing_behind(tmp_path, monkeypatch):
    def unpacked_files():
        return os.listdir(tmp_path / "temporary")

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    good = good_file("gz", tmp_path)
    path = tmp_path / good.name
    stack = nm.open(path)
    if POSIX:  # nameless from the start, so that a crash leaves nothing behind either
        assert unpacked_files() == []
    assert_same_pixels(np.asarray(stack), good.pixels)
    stack.close()
    assert unpacked_files() == []
    assert_same_pixels(np.asarray(stack), good.pixels)
    del stack
    gc.collect()
    assert unpacked_files() == []
    path.write_bytes(good.content[: len(good.content) // 2])
    with pytest.raises(nm.MrczError, match="unpacked"):
        nm.open(path)
    assert unpacked_files() == []


def test_one_handle_is_open_however_many_threads_read_and_none_after_close(path):
    def handles():
        return [f for f in psutil.Process().open_files() if "peer" in f.path or "movie" in f.path]

    with nm.open(path) as stack:
        threads = [threading.Thread(target=np.asarray, args=(stack,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(handles()) <= 1
        again = pickle.loads(pickle.dumps(stack))
        assert_same_pixels(np.asarray(again), PIXELS)
        again.close()
        stack.close()
        assert not handles()
        assert_same_pixels(stack[2], PIXELS[2])


def test_an_error_while_opening_leaves_no_handle(tmp_path):
    good = good_file("ours", tmp_path)
    path = tmp_path / "bad.mrcz"
    path.write_bytes(good.content[:1110])
    for _ in range(5):
        with pytest.raises(nm.MrczError):
            nm.open(path)
    assert not [f for f in psutil.Process().open_files() if f.path == str(path)]
