"""Memory that is short is called so: no frame is damaged, left out or blank, no file is shorter.

Allocations fail because the tests make them fail; the slow tests limit a process's address space.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from numcodecs import blosc

import napari_mrcz as nm
from napari_mrcz.errors import NotEnoughMemory, error_text, failure_text, is_out_of_memory
from napari_mrcz.format import Encoding, FrameReader, chunks, estimate, reader
from napari_mrcz.format import machine as allowance
from napari_mrcz.format.doctor import repack
from napari_mrcz.format.machine import in_order

PIXELS = np.random.default_rng(0).poisson(2.0, (6, 40, 50)).astype(np.int16)


@pytest.fixture
def path(tmp_path):
    nm.write(tmp_path / "a.mrcz", PIXELS)
    return tmp_path / "a.mrcz"


def no_array(monkeypatch):
    """Leave numpy no room for a frame."""

    def empty(shape, *_):
        raise MemoryError(f"Unable to allocate an array of {shape}")

    monkeypatch.setattr(reader.np, "empty", empty)


def no_context(monkeypatch):
    """Leave zstd no memory within blosc, whose error is that of a damaged chunk."""

    def decompress(chunk, out):
        raise RuntimeError("error during blosc decompression: -1")

    monkeypatch.setattr(chunks.blosc, "decompress", decompress)
    monkeypatch.setattr(chunks, "has_room", lambda nbytes: False)


def full_in_between(monkeypatch):
    """Show memory when it is looked for before, and none afterwards."""
    no_context(monkeypatch)
    answers = iter([True, False] * 100)
    monkeypatch.setattr(chunks, "has_room", lambda nbytes: next(answers))


SHORTAGES = [no_array, no_context, full_in_between]


@pytest.fixture(params=SHORTAGES)
def shortage(request, monkeypatch, path):
    with FrameReader(path) as opened:  # index and checksums are known already
        opened.read_frame(0)

    def begin():
        request.param(monkeypatch)
        # Opening allocates, too: what fails is reading frames.
        monkeypatch.setattr(FrameReader, "__init__", copy_of(opened))

    return begin


def copy_of(opened):
    def init(self, path, file=None):
        self.__dict__.update(opened.__dict__)

    return init


def test_it_is_an_error_of_ours_and_of_pythons_and_travels():
    error = NotEnoughMemory("a.mrc", "a frame of 67.1 MB", frame=3, advice="Buy more")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, nm.MrczError)
    assert isinstance(again, MemoryError)
    assert type(again) is NotEnoughMemory
    assert (str(again), again.what, again.frame) == (str(error), error.what, 3)
    assert type(pickle.loads(pickle.dumps(nm.MrczError("a", "b")))) is nm.MrczError


def test_every_librarys_way_to_say_so_is_known():
    ways = [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        ImportError("libscipy_openblas.so: failed to map segment from shared object"),
    ]
    for way in ways:
        assert is_out_of_memory(way)
        wrapped = nm.MrczError("a", "cannot be read")
        wrapped.__cause__ = way
        assert is_out_of_memory(wrapped)
    others = [RuntimeError("else"), OSError(28, "No space left"), ImportError("no module"), None]
    assert not any(is_out_of_memory(error) for error in others)


def test_whatever_shows_an_error_shows_it_as_such():
    for error in (MemoryError("Unable to allocate 512. MiB"), MemoryError(), OSError(12, "no")):
        assert "not enough memory" in error_text(error).lower()
        assert "not enough memory" in failure_text(error)
    ours = NotEnoughMemory("a.mrc", "a frame of 67.1 MB")
    assert failure_text(ours) == str(ours)
    assert error_text(ours) == "a.mrc: not enough memory for a frame of 67.1 MB."


def test_reading_verifying_and_repairing_call_no_frame_damaged(path, tmp_path, shortage):
    shortage()
    with nm.open(path) as movie, pytest.raises(NotEnoughMemory) as caught:
        _ = movie[2]
    assert caught.value.frame == 2
    with pytest.raises(NotEnoughMemory):
        nm.verify(path)
    with pytest.raises(NotEnoughMemory):
        repack(path, tmp_path / "b.mrcz", writer="test", leave_out_damaged=True)
    assert not (tmp_path / "b.mrcz").exists()


def test_the_command_line_says_so_in_a_line_and_ends_with_1(path, tmp_path, shortage, napari_mrcz):
    shortage()
    commands = [
        ("verify", path),
        ("repair", path, "-o", tmp_path / "b.mrcz"),
        ("decompress", path, "-o", tmp_path / "c"),
    ]
    for command in commands:
        ran = napari_mrcz(*map(str, command))
        said = ran.out + ran.err
        assert ran.status == 1
        assert "not enough memory" in said
        assert "damaged" not in said
        assert len(said.splitlines()) == 1
    assert [p.name for p in tmp_path.rglob("*.mrc*")] == ["a.mrcz"]


@pytest.mark.parametrize("short", [no_context, full_in_between])
def test_packed_frames_under_a_plain_mode_are_not_taken_for_pixels(tmp_path, monkeypatch, short):
    """What the file is, decoding a frame tells: where that cannot be done, it is not guessed."""
    path = tmp_path / "a.mrcz"
    nm.write(path, PIXELS, footer=False)
    content = bytearray(path.read_bytes())
    content[12:16] = np.int32(1).tobytes()
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(nm.read(path), PIXELS)
        short(monkeypatch)
        with pytest.raises(NotEnoughMemory):
            nm.open(path)


def test_a_result_that_is_there_is_not_written_anew_for_it(tmp_path, napari_mrcz, monkeypatch):
    nm.write(tmp_path / "a.mrc", PIXELS)
    command = ("compress", tmp_path / "a.mrc", "--skip-existing")
    assert napari_mrcz(*command).status == 0
    before = (tmp_path / "a.mrcz").stat()
    no_array(monkeypatch)
    ran = napari_mrcz(*command)
    assert ran.status == 1
    assert "not enough memory" in ran.err
    after = (tmp_path / "a.mrcz").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_damaged_chunk_is_still_damaged(path):
    with FrameReader(path) as opened:
        offset = int(opened.index.offsets[2])
    content = bytearray(path.read_bytes())
    content[offset + 40 : offset + 60] = bytes(20)
    path.write_bytes(content)
    report = nm.verify(path)
    assert [fault.frame for fault in report.faults] == [2]


def test_what_fits_alone_is_verified_alone(path, monkeypatch):
    """Two decode at a time, and there is memory for one."""
    busy = threading.Lock()
    decompress = blosc.decompress

    def one_at_a_time(chunk, out):
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError
        with busy:
            return decompress(chunk, out)

    monkeypatch.setattr("napari_mrcz.stack.saving.processors", lambda: 3)
    monkeypatch.setattr(chunks.blosc, "decompress", one_at_a_time)
    report = nm.verify(path)
    assert report.ok
    assert report.frames == len(PIXELS)


def test_a_viewer_shows_it_blank_as_long_as_it_lasts_and_does_not_call_it_damaged(path):
    from napari_mrcz.plugin.layers import ShownStack

    with nm.open(path) as movie, ShownStack.of(movie) as shown, pytest.MonkeyPatch.context() as m:
        no_array(m)
        with pytest.warns(nm.MrczWarning, match="not enough memory"):
            assert not shown[1].any()
        m.undo()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(shown[1], PIXELS[1])
        assert shown.damaged == set()


def test_koma_leaves_no_stack_out_for_it(path, monkeypatch):
    koma = nm.Koma([path, path, path], radius=1)
    no_array(monkeypatch)
    with pytest.raises(NotEnoughMemory):
        _ = koma.left_out


# Threads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("started", [0, 1, 2])
def test_threads_that_cannot_be_started_are_done_without(monkeypatch, started):
    start, count = threading.Thread.start, iter(range(100))

    def few(thread):
        if next(count) >= started:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", few)
    used = set()

    def work(item):
        used.add(threading.current_thread())
        return item**2

    with in_order(work, range(20), 4, "napari-mrcz-test") as results:
        assert list(results) == [i**2 for i in range(20)]
    assert len(used) <= max(1, started)


def test_stepping_goes_on_without_read_ahead_where_no_thread_starts(path, monkeypatch):
    def none(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    with nm.open(path) as movie:
        for i, frame in enumerate(PIXELS):
            np.testing.assert_array_equal(movie[i], frame)


@pytest.mark.parametrize("short_from", [0, 3, 19])
def test_work_for_which_memory_was_short_is_done_again_alone_and_in_order(short_from):
    main, done = threading.main_thread(), []

    def work(item):
        if item >= short_from and threading.current_thread() is not main:
            raise MemoryError
        done.append(item)
        return item

    with in_order(work, iter(range(20)), 3, "napari-mrcz-test") as results:
        assert list(results) == list(range(20))
    assert sorted(done) == list(range(20))


def test_memory_that_is_short_even_alone_ends_the_work():
    def work(item):
        raise MemoryError(f"for {item}")

    with (
        pytest.raises(MemoryError, match="for 0"),
        in_order(work, range(5), 3, "napari-mrcz-test") as results,
    ):
        next(results)


def test_no_more_threads_than_there_is_memory_for(monkeypatch):
    monkeypatch.setattr(allowance, "available_memory", lambda: 3 * 2**30)
    assert allowance.threads_with_room(2**30) == 3
    assert allowance.threads_with_room(2**40) == 0
    assert allowance.threads_with_room(0) > 1000


# What was lent ----------------------------------------------------------------------------------

KB = 1024
MEMINFO = "MemTotal: 64000 kB\nMemFree: 100 kB\nMemAvailable: 32000 kB\nSwapFree: 1000 kB\n"


def machine(root, cgroup, files):
    content = {"proc/self/cgroup": cgroup, "proc/meminfo": MEMINFO, **files}
    for name, text in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


V1, V2 = "sys/fs/cgroup/{}/", "sys/fs/cgroup/"
MACHINES = {
    "no groups": ("", {}, None, 33000 * KB),
    "version 2": (
        "0::/job/step\n",
        {
            f"{V2}job/cpu.max": "250000 100000\n",
            f"{V2}job/step/cpu.max": "max 100000\n",
            f"{V2}job/memory.max": f"{5000 * KB}\n",
            f"{V2}job/memory.current": f"{4000 * KB}\n",
            f"{V2}job/memory.stat": f"anon 1\nactive_file {KB}\ninactive_file {2 * KB}\n",
            f"{V2}job/step/memory.max": "max\n",
        },
        3,
        2003 * KB,
    ),
    "version 1": (
        "4:memory:/slurm\n2:cpu,cpuacct:/slurm\n",
        {
            f"{V1.format('cpu')}slurm/cpu.cfs_quota_us": "50000\n",
            f"{V1.format('cpu')}slurm/cpu.cfs_period_us": "100000\n",
            f"{V1.format('memory')}slurm/memory.limit_in_bytes": f"{3000 * KB}\n",
            f"{V1.format('memory')}slurm/memory.usage_in_bytes": f"{1000 * KB}\n",
            f"{V1.format('memory')}slurm/memory.stat": "total_active_file 0\n"
            "total_inactive_file 0\n",
        },
        1,
        3000 * KB,
    ),
    "version 1, no limit": (
        "2:cpu:/\n",
        {
            f"{V1.format('cpu')}cpu.cfs_quota_us": "-1\n",
            f"{V1.format('cpu')}cpu.cfs_period_us": "100000\n",
        },
        None,
        33000 * KB,
    ),
    "container, mounted elsewhere": (
        "0::/docker/abc\n",
        {f"{V2}cpu.max": "200000 100000\n"},
        2,
        33000 * KB,
    ),
}


@pytest.mark.parametrize("name", MACHINES)
def test_processors_and_memory_are_those_that_were_lent(name, tmp_path, monkeypatch):
    cgroup, files, processors, memory = MACHINES[name]
    machine(tmp_path, cgroup, files)
    monkeypatch.setattr(allowance, "_ROOT", tmp_path)
    monkeypatch.setattr(allowance, "_LIMITS", {})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(48)), raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 48, raising=False)
    allowance._quota.cache_clear()
    try:
        assert allowance.lent_processors() == (processors or 48)
        assert allowance.available_memory() == memory
    finally:
        allowance._quota.cache_clear()


def test_a_process_tied_to_one_processor_takes_one(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 1, raising=False)
    assert allowance.lent_processors() == 1


# What does not fit ------------------------------------------------------------------------------


class Unread:
    """Frames that are larger than any memory, and that nobody may read."""

    def __init__(self, shape, dtype=np.int16):
        self.shape, self.dtype = shape, np.dtype(dtype)

    @property
    def ndim(self):
        return len(self.shape)

    def __getitem__(self, key):
        raise AssertionError(f"{key} was read")


@pytest.mark.parametrize("key", [None, np.s_[:900], np.s_[:, :-1], np.s_[:, ::2, :4000]])
def test_an_array_that_does_not_fit_is_refused_at_once(key, monkeypatch):
    monkeypatch.setattr(allowance, "available_memory", lambda: 2**30)
    movie = nm.Stack.from_array(Unread((1000, 4096, 4096)))
    with pytest.raises(nm.MrczError, match=r"GB.*1\.07 GB") as caught:
        _ = np.asarray(movie) if key is None else movie[key]
    assert isinstance(caught.value, MemoryError)
    assert caught.value.advice


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is left")
def test_no_machine_has_a_petabyte():
    movie = nm.Stack.from_array(Unread((2**20, 2**14, 2**14)))
    with pytest.raises(NotEnoughMemory):
        np.asarray(movie)


def test_what_fits_is_not_refused(path, monkeypatch):
    assert allowance.new_array((2**27,), np.uint8, None, "", "").nbytes == 2**27
    monkeypatch.setattr(allowance, "available_memory", lambda: None)  # nobody says
    assert allowance.new_array((2**27,), np.uint8, None, "", "").nbytes == 2**27
    np.testing.assert_array_equal(nm.read(path), PIXELS)


TOO_LARGE = (2, 2**15, 2**16)  # 4 GB as int16, and 2 GB as uint8


def too_large():
    import dask.array

    lazy = dask.array.from_array(Unread(TOO_LARGE), chunks=(1, *TOO_LARGE[1:]), asarray=False)
    yield nm.Stack.from_array(Unread(TOO_LARGE))
    yield nm.Stack.from_array(Unread(TOO_LARGE)).select(rows=slice(1, None))
    yield np.broadcast_to(np.int16(1), TOO_LARGE)
    yield lazy
    yield list(lazy)
    yield (frame for frame in lazy)
    yield nm.Stack.from_array(Unread(TOO_LARGE, np.uint8))


def test_a_frame_too_large_for_blosc_is_refused_unread(tmp_path):
    for frames in too_large():
        with pytest.raises(nm.MrczError, match="blosc compresses"):
            nm.write(tmp_path / "a.mrcz", frames)
        if isinstance(frames, nm.Stack):
            with pytest.raises(nm.MrczError, match="blosc compresses"):
                estimate("a.mrcz", frames.sample_makers(), Encoding())
    half = np.broadcast_to(np.uint8(1), (2**15, 2**15 + 1))  # twice as much where it is widened
    with pytest.raises(nm.MrczError, match="blosc compresses"):
        nm.write(tmp_path / "a.mrcz", (frame for frame in [half]))
    assert list(tmp_path.iterdir()) == []


def test_compress_refuses_it_unread_too(tmp_path, napari_mrcz, monkeypatch):
    path = tmp_path / "a.mrc"
    nm.write(path, PIXELS)
    content = bytearray(path.read_bytes()[:1024])
    content[:12] = np.array([2**15 + 8, 2**15 + 8, 2], "<i4").tobytes()
    content[28:40] = content[:8] + np.int32(1).tobytes()
    path.write_bytes(content)
    with contextlib.suppress(OSError):
        os.truncate(path, 1024 + 2 * 2 * (2**15 + 8) ** 2)  # takes no room on most disks
    monkeypatch.setattr(FrameReader, "read_frame", lambda *_: pytest.fail("it was read"))
    ran = napari_mrcz("compress", str(path))
    assert ran.status == 1
    assert "blosc compresses" in ran.err


# Within a limit ---------------------------------------------------------------------------------

LIMITED = """
import resource, sys
limit = int(sys.argv[1]) * 10**6
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.argv[:2] = ["napari-mrcz"]
from napari_mrcz.cli.entry import main
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="no such limit elsewhere")
@pytest.mark.parametrize("limit", [40, 100, 160, 250, 320, 450, 700])
def test_within_any_limit_a_command_is_right_or_says_that_memory_is_short(tmp_path, limit):
    base = np.random.default_rng(0).poisson(1.5, (4096, 8192)).astype(np.uint8)
    pixels = np.stack([np.roll(base, 7 * i, axis=1) for i in range(3)])
    nm.write(tmp_path / "a.mrcz", pixels, codec="lz4")
    nm.write(tmp_path / "a.mrc", pixels)
    commands = {
        ("verify", "a.mrcz"): None,
        ("repair", "a.mrcz", "-o", "b.mrcz"): "b.mrcz",
        ("compress", "a.mrc", "-o", "c"): "c/a.mrcz",
        ("correct", "a.mrcz", "-o", "d"): "d/a.mrcz",
    }
    for command, result in commands.items():
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, str(limit), *command],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip
        if done.returncode:
            assert done.returncode == 1, done.stderr
            said = (done.stdout + done.stderr).splitlines()
            assert len(said) == 1, said
            assert "not enough memory" in said[0]
            assert "damaged" not in said[0]
            assert result is None or not (tmp_path / result).exists()
        elif result is None:
            assert "3 frames are good" in done.stdout
        elif command[0] != "correct":
            np.testing.assert_array_equal(nm.read(tmp_path / result), pixels)
        else:
            assert nm.verify(tmp_path / result).frames == 3
