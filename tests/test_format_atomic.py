"""Whatever happens during a write, the old file or the new one is there, whole and alone."""

import errno
import json
import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.format import atomic

POSIX = os.name == "posix"
NAMES = ["movie.mrcz", "movie.mrc"]
OLD = np.full((3, 30, 40), 7, np.int16)
NEW = np.random.default_rng(0).integers(0, 1000, (8, 300, 400)).astype(np.int16)


@pytest.fixture(params=["nameless", "named"])
def way(request, monkeypatch):
    """Write by files without a name until they are whole (where there are such), or with one."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("files without a name are Linux's")
    return request.param


@pytest.fixture(params=NAMES)
def path(request, tmp_path):
    """Return the path of a file that is there already, alone in its folder."""
    path = tmp_path / "folder" / request.param
    path.parent.mkdir()
    nm.write(path, OLD, metadata={"a": "old"})
    return path


def assert_old(path):
    assert os.listdir(path.parent) == [path.name]
    np.testing.assert_array_equal(nm.read(path), OLD)
    assert nm.verify(path)


# Killed -----------------------------------------------------------------------------------------

KILL = """
import json, os, random, signal, sys
import numcodecs.blosc
import numpy as np
import napari_mrcz as nm

numcodecs.blosc.use_threads = False  # its threads would not survive the fork
path, way, moments = sys.argv[1], sys.argv[2], int(sys.argv[3])
folder = os.path.dirname(path)
if way == "named" and hasattr(os, "O_TMPFILE"):
    del os.O_TMPFILE
chance = random.Random(5)
found = {"old": 0, "new": 0, "litter": 0, "bad": []}

def write(value, pipe):
    noise = np.random.default_rng(value).integers(0, 1000, (10, 256, 256)).astype(np.int16)
    noise[:, 0, 0] = value
    nm.write(path, noise, overwrite=True, progress=lambda done, n: os.write(pipe, b"."))
    os.write(pipe, b"!")

value = 1
write(value, os.open(os.devnull, os.O_WRONLY))
for moment in range(moments):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            write(value + 1, writer)
        finally:
            os._exit(0)
    os.close(writer)
    # So many frames, the flushing and renaming after the last among the moments; then a bit more.
    for _ in range(chance.choice([0, 1, 3, 5, 8, 10, 10, 10, 10, 11])):
        os.read(reader, 1)
    for _ in range(chance.randrange(20_000)):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    try:
        report = nm.verify(path)
        pixels = nm.read(path)
        whole = pixels.shape == (10, 256, 256) and len(set(pixels[:, 0, 0])) == 1
        if not (report and whole and pixels[0, 0, 0] in (value, value + 1)):
            found["bad"].append(str(report))
        elif pixels[0, 0, 0] == value + 1:
            found["new"] += 1
            value += 1
        else:
            found["old"] += 1
    except Exception as error:
        found["bad"].append(repr(error))
    litter = [name for name in os.listdir(folder) if name != os.path.basename(path)]
    found["litter"] += bool(litter)
    for name in litter:
        assert name.startswith("." + os.path.basename(path)) and name.endswith(".partial"), name
        os.utime(os.path.join(folder, name), (0, 0))
print(json.dumps(found))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked and killed")
@pytest.mark.parametrize(
    ("moments", "way", "name"),
    [
        (10, "nameless", "movie.mrcz"),
        (10, "named", "movie.mrc"),
        *(
            pytest.param(100, way, name, marks=pytest.mark.slow)
            for way in ("nameless", "named")
            for name in NAMES
        ),
    ],
    indirect=["way"],
)
def test_killed_at_any_moment_the_old_file_or_the_new_one_is_there_whole(
    tmp_path, way, name, moments
):
    path = tmp_path / name
    done = subprocess.run(
        [sys.executable, "-c", KILL, str(path), way, str(moments)],
        capture_output=True, text=True, check=True, timeout=200,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["bad"] == []
    assert found["old"] + found["new"] == moments
    if moments == 100:
        assert found["old"] > 20
        assert found["new"] > 4
    if way == "nameless":
        # Between getting a name and taking the target's there is a moment, which few kills meet.
        assert found["litter"] <= max(5, moments / 10)
    # What may be left then, and of files with a name, the next write takes away.
    nm.write(path, OLD, overwrite=True)
    assert_old(path)


def test_litter_is_taken_away_but_no_file_that_is_being_written(tmp_path, way):
    path = tmp_path / "a[1]*?.mrc" if POSIX else tmp_path / "a[1].mrc"
    others = [tmp_path / ".other.mrc.12345678.partial", tmp_path / "a.partial"]
    litter = tmp_path / f".{path.name}.12345678.partial"
    young = tmp_path / f".{path.name}.87654321.partial"
    for file in (*others, litter, young):
        file.write_bytes(b"x")
    os.utime(litter, (0, 0))
    for other in others:
        os.utime(other, (0, 0))
    nm.write(path, OLD)
    assert sorted(tmp_path.iterdir()) == sorted([path, young, *others])


@pytest.mark.skipif(not POSIX, reason="there an open file cannot be removed anyway")
def test_two_writers_of_one_file_do_not_take_each_other_for_litter(path, way):
    inner_done = []

    def progress(done, _):
        for partial in path.parent.glob(".*.partial"):
            os.utime(partial, (0, 0))  # as if the writing took long
        if done == 4 and not inner_done:
            inner_done.append(True)
            nm.write(path, OLD, overwrite=True)

    nm.write(path, NEW, overwrite=True, progress=progress)
    assert os.listdir(path.parent) == [path.name]
    np.testing.assert_array_equal(nm.read(path), NEW)


# Full disk --------------------------------------------------------------------------------------

FULL = """
import os, resource, signal, sys
import numpy as np
import napari_mrcz as nm
path, way = sys.argv[1], sys.argv[2]
if way == "named" and hasattr(os, "O_TMPFILE"):
    del os.O_TMPFILE
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
pixels = np.random.default_rng(0).integers(0, 1000, (8, 100, 100)).astype(np.int16)
nm.write(path + "-size.mrc", pixels)
whole = os.path.getsize(path + "-size.mrc")
os.unlink(path + "-size.mrc")
for size in (0, 1, 1023, 1024, 1025, 20_000, 50_000, whole // 2, whole // 2 + 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        nm.write(path, pixels, overwrite=True)
    except nm.MrczError as error:
        assert "room" in str(error), error
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)], size
        assert nm.verify(path), size
    else:
        raise AssertionError(size)
"""


@pytest.mark.skipif(not POSIX, reason="needs a limit of file sizes")
@pytest.mark.parametrize(
    ("way", "path"), [("nameless", "movie.mrc"), ("named", "movie.mrcz")], indirect=True
)
def test_on_a_full_disk_the_old_file_stays_and_nothing_else(path, way):
    command = [sys.executable, "-c", FULL, str(path), way]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert_old(path)


@pytest.mark.parametrize(
    ("call", "after"),
    [("write", 0), ("write", 1), ("write", 4), ("fsync", 0), ("fsync", 1), ("replace", 0)],
)
def test_a_disk_that_fails_leaves_the_old_file_and_nothing_else(
    path, way, monkeypatch, call, after
):
    # Flushed after every few bytes, so that also the flushing in the background fails.
    monkeypatch.setattr(atomic, "_FLUSH_STEP", 1000)
    real, calls = getattr(os, call), []
    failing = threading.Event()

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) > after:
            failing.set()
            raise OSError(errno.EIO, "the disk is broken")
        return real(*arguments)

    monkeypatch.setattr(atomic.os, call, fail)
    with pytest.raises(nm.MrczError, match="the disk is broken"):
        nm.write(path, NEW, overwrite=True)
    monkeypatch.undo()
    assert failing.is_set()
    assert_old(path)


def test_a_flush_that_failed_is_not_forgotten_though_the_next_one_succeeds(path, way, monkeypatch):
    # Of data that did not reach the disk the system speaks once, to whoever flushes next.
    monkeypatch.setattr(atomic, "_FLUSH_STEP", 1000)
    real, calls = os.fsync, []

    def fail_once(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(errno.EIO, "the disk is broken")
        real(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", fail_once)
    with pytest.raises(nm.MrczError, match="the disk is broken"):
        nm.write(path, NEW, overwrite=True)
    monkeypatch.undo()
    assert_old(path)


def test_writing_in_small_pieces_is_writing_all(path, way, monkeypatch):
    real = os.write
    monkeypatch.setattr(atomic.os, "write", lambda fd, data: real(fd, data[: 1 + len(data) // 3]))
    nm.write(path, NEW, overwrite=True)
    monkeypatch.undo()
    np.testing.assert_array_equal(nm.read(path), NEW)
    assert nm.verify(path)


# Stopped, and raced ------------------------------------------------------------------------------


class Stop(BaseException):
    """What a cancel button or Ctrl-C raises."""


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("frame", [1, 3, 8])
def test_what_progress_raises_stops_the_writing_and_leaves_the_old_file(path, way, frame, threads):
    seen = []

    def progress(done, total):
        seen.append((done, total))
        if done == frame:
            raise Stop

    with pytest.raises(Stop):
        nm.write(path, NEW, overwrite=True, progress=progress, threads=threads)
    assert seen == [(k, 8) for k in range(1, frame + 1)]
    assert_old(path)


@pytest.mark.parametrize("frame", [0, 1, 4, 7])
def test_what_the_frames_raise_stops_the_writing_and_leaves_the_old_file(path, way, frame):
    def frames():
        for index, pixels in enumerate(NEW):
            if index == frame:
                raise Stop
            yield pixels

    with pytest.raises(Stop):
        nm.write(path, frames(), overwrite=True)
    assert_old(path)


def test_a_source_that_cannot_be_read_leaves_the_old_file(path, way, tmp_path):
    nm.write(tmp_path / "source.mrcz", NEW)
    raw = bytearray((tmp_path / "source.mrcz").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "source.mrcz").write_bytes(raw)
    with nm.open(tmp_path / "source.mrcz") as source, pytest.raises(nm.MrczError) as refusal:
        nm.write(path, source, overwrite=True)
    assert refusal.value.path == str(tmp_path / "source.mrcz")
    assert_old(path)


def test_without_overwrite_nothing_is_ever_replaced(path, way):
    with pytest.raises(nm.MrczError, match="exists already"):
        nm.write(path, NEW)
    assert_old(path)


def test_without_overwrite_a_file_that_appears_meanwhile_stays(tmp_path, way):
    path = tmp_path / "late.mrc"

    def progress(done, _):
        if done == 8:
            path.write_bytes(b"someone else's")

    with pytest.raises(nm.MrczError, match="exists already"):
        nm.write(path, NEW, progress=progress)
    assert path.read_bytes() == b"someone else's"
    assert os.listdir(tmp_path) == [path.name]


def test_of_many_writers_without_overwrite_one_wins(tmp_path, way):
    path = tmp_path / "race.mrcz"
    results = []
    start = threading.Barrier(6)

    def write(value):
        def progress(done, _):
            if done == 2:
                start.wait(30)  # all are about to take the name

        try:
            nm.write(path, np.full((2, 50, 60), value, np.int16), progress=progress)
        except nm.MrczError as error:
            assert "exists already" in str(error)
        else:
            results.append(value)

    threads = [threading.Thread(target=write, args=(value,)) for value in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 1
    assert (nm.read(path) == results[0]).all()
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("broken", [errno.EPERM, errno.ENOTSUP])
@pytest.mark.skipif(not POSIX, reason="Windows needs no links")
def test_where_there_are_no_links_files_are_written_too(tmp_path, monkeypatch, broken):
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)

    def no_links(*_, **__):
        raise OSError(broken, "no links here")

    monkeypatch.setattr(atomic.os, "link", no_links)
    nm.write(tmp_path / "a.mrc", OLD)
    nm.write(tmp_path / "a.mrc", NEW, overwrite=True)
    np.testing.assert_array_equal(nm.read(tmp_path / "a.mrc"), NEW)
    assert os.listdir(tmp_path) == ["a.mrc"]


# What else belongs to a file ---------------------------------------------------------------------


@pytest.mark.skipif(not POSIX, reason="permissions are POSIX's")
def test_a_new_file_has_the_permissions_that_files_get_and_a_replaced_one_keeps_its_own(path, way):
    beside = path.with_name("plain.txt")
    beside.write_text("")
    new = path.with_name("new.mrc")
    nm.write(new, OLD)
    assert stat.S_IMODE(new.stat().st_mode) == stat.S_IMODE(beside.stat().st_mode)
    path.chmod(0o640)
    nm.write(path, NEW, overwrite=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.skipif(not POSIX, reason="links need rights on Windows")
def test_a_link_stays_a_link_to_the_new_file(path, way):
    folder = path.parent.with_name("elsewhere")
    folder.mkdir()
    link = folder / "link.mrc"
    link.symlink_to(path)
    nm.write(link, NEW, overwrite=True)
    assert link.is_symlink()
    np.testing.assert_array_equal(nm.read(path), NEW)
    assert os.listdir(folder) == ["link.mrc"]


def test_where_nothing_can_be_written_it_is_said(tmp_path, way):
    with pytest.raises(nm.MrczError, match="folder"):
        nm.write(tmp_path / "none" / "a.mrc", OLD)
    (tmp_path / "folder.mrc").mkdir()
    with pytest.raises(nm.MrczError, match="is a folder"):
        nm.write(tmp_path / "folder.mrc", OLD, overwrite=True)
    with pytest.raises(nm.MrczError):
        nm.write(tmp_path / ("n" * 300 + ".mrc"), OLD)
    (tmp_path / "file").write_text("")
    with pytest.raises(nm.MrczError):
        nm.write(tmp_path / "file" / "a.mrc", OLD)


def test_in_the_background_errors_and_results_come_out_of_the_future(path):
    nm.write_async(path, NEW, overwrite=True).result(60)
    np.testing.assert_array_equal(nm.read_async(path).result(60), NEW)
    with pytest.raises(nm.MrczError, match="exists already"):
        nm.write_async(path, NEW).result(60)
    with pytest.raises(nm.MrczError, match="No such file"):
        nm.read_async(path.with_name("none.mrc")).result(60)


def test_progress_counts_every_frame_and_starts_anew_where_the_writing_does(tmp_path):
    seen = []
    pixels = np.zeros((5, 8, 9), np.uint8)
    pixels[3, 4, 4] = 200  # does not fit one signed byte, which is found out late
    nm.write(tmp_path / "a.mrc", pixels, progress=lambda *p: seen.append(p), threads=1)
    assert seen == [(k, 5) for k in (1, 2, 3, 1, 2, 3, 4, 5)]
    seen.clear()
    nm.write(tmp_path / "b.mrc", iter(pixels), progress=lambda *p: seen.append(p))
    assert seen == [(k, None) for k in range(1, 6)]
