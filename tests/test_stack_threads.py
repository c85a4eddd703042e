"""A stack is read by many threads, closed between, copied, pickled, and leaves nothing behind."""

import copy
import gc
import gzip
import os
import pickle
import random
import subprocess
import sys
import threading
import time

import blosc
import numpy as np
import psutil
import pytest
from good_files import movie

import napari_mrcz as nm

SHAPE = (24, 60, 70)
PIXELS = movie(SHAPE, "int16", 2, smooth=True)
SECONDS = 2.0


class Plus:
    """Add a constant."""

    def __init__(self, constant):
        self.constant = constant

    def __call__(self, frame, index):
        return frame + np.int16(self.constant)

    def describe(self):
        return {"name": "plus", "constant": self.constant}


@pytest.fixture(params=["a.mrcz", "a.mrc", "footer.mrc", "a.mrc.gz"])
def path(request, tmp_path):
    path = tmp_path / request.param.removesuffix(".gz")
    nm.write(path, PIXELS, metadata={"a": 1} if request.param == "footer.mrc" else None)
    if request.param.endswith(".gz"):
        (tmp_path / request.param).write_bytes(gzip.compress(path.read_bytes(), 1))
    return tmp_path / request.param


def run(*workers):
    """Run functions in threads; give what they raised."""
    errors = []

    def guarded(worker):
        try:
            worker()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.parametrize("seconds", [0.3, pytest.param(5, marks=pytest.mark.slow)])
def test_8_threads_read_at_random_while_others_close(path, seconds):
    stack = nm.open(path)
    plus = stack.apply(Plus(5))
    end = time.monotonic() + seconds
    reads = []
    some_reads = threading.Semaphore(0)

    def reader(seed):
        def read():
            chance = random.Random(seed)
            while time.monotonic() < end or len(set(reads)) < len(PIXELS):
                frame = chance.randrange(len(PIXELS))
                key = chance.choice(
                    [frame, (frame, slice(3, 50, 2)), (frame, 1, 2), slice(frame, frame + 3)]
                )
                np.testing.assert_array_equal(stack[key], PIXELS[key])
                np.testing.assert_array_equal(plus[frame], PIXELS[frame] + 5)
                reads.append(frame)
                if chance.random() < 0.02:
                    some_reads.release()

        return read

    def stepper():
        while time.monotonic() < end:
            for frame in range(len(PIXELS)):
                np.testing.assert_array_equal(stack[frame], PIXELS[frame])

    def closer():
        chance = random.Random(9)
        while time.monotonic() < end:
            some_reads.acquire(timeout=0.1)
            chance.choice([stack, plus]).close()

    def copier():
        while time.monotonic() < end:
            for again in (copy.copy(plus), copy.deepcopy(stack), pickle.loads(pickle.dumps(plus))):
                with again:
                    assert again.shape == SHAPE
                    _ = again[3]

    workers = [*(reader(seed) for seed in range(8)), stepper, closer, copier]
    assert run(*workers) == []
    stack.close()
    plus.close()
    assert len(set(reads)) == len(PIXELS)


def test_summing_and_decoding_all_while_others_close(path):
    stack = nm.open(path)
    done = threading.Event()

    def work():
        try:
            for _ in range(5):
                np.testing.assert_array_equal(np.asarray(stack), PIXELS)
                fresh = copy.deepcopy(stack)
                np.testing.assert_array_equal(fresh.sum(), PIXELS.sum(axis=0))
        finally:
            done.set()

    def close():
        while not done.is_set():
            stack.close()

    assert run(work, close) == []
    stack.close()


def test_a_stack_that_is_forgotten_leaves_no_handle_and_no_thread(path):
    def left():
        names = [
            f.path for f in psutil.Process().open_files() if f.path.startswith(str(path.parent))
        ]
        return names, [t.name for t in threading.enumerate() if t.name.startswith("napari-mrcz")]

    stack = nm.open(path)
    for frame in range(5):
        _ = stack[frame]
    corrected = stack.apply(Plus(1))
    _ = corrected[1], corrected[2]
    ahead = [t for t in threading.enumerate() if t.name.startswith("napari-mrcz")]
    assert ahead
    del stack, corrected
    gc.collect()
    for thread in ahead:
        thread.join(10)
    assert left() == ([], [])


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_copies_have_all_that_the_stack_has(path, again):
    with nm.open(path) as stack:
        corrected = stack.apply(Plus(3)).apply(Plus(4))
        _ = corrected[0]
        with again(corrected) as copied:
            np.testing.assert_array_equal(np.asarray(copied), PIXELS + 7)
            assert copied.history == corrected.history
            assert copied.header.notes == stack.header.notes
            assert copied.metadata == stack.metadata
            assert copied.path == str(path)
            stack.close()
            np.testing.assert_array_equal(copied[2], PIXELS[2] + 7)


def test_a_pickled_stack_is_small_and_goes_to_another_process_and_another_folder(path):
    with nm.open(path) as stack:
        _ = stack[0]
        pickled = pickle.dumps(stack)
    assert len(pickled) < 10_000
    code = (
        "import pickle, sys; s = pickle.load(sys.stdin.buffer); print(int(s[3].sum())); s.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickled, capture_output=True, check=True, cwd="/"
    )
    assert int(done.stdout) == PIXELS[3].sum()


def test_a_relative_path_is_that_of_the_folder_in_which_it_was_opened(path, monkeypatch, tmp_path):
    monkeypatch.chdir(path.parent)
    with nm.open(path.name) as stack:
        stack.close()
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        np.testing.assert_array_equal(stack[1], PIXELS[1])


# The host's blosc -------------------------------------------------------------------------------


def host_settings():
    """Return what a program has set in python-blosc, read without changing it."""
    nthreads = blosc.set_nthreads(blosc.nthreads)  # gives the one before
    releasegil = blosc.set_releasegil(False)
    blosc.set_releasegil(releasegil)
    return nthreads, blosc.nthreads, blosc.get_blocksize(), releasegil


@pytest.fixture
def host():
    """Set python-blosc as no one else would, and set it back."""
    before = blosc.nthreads, blosc.get_blocksize(), blosc.set_releasegil(False)
    blosc.set_nthreads(3)
    blosc.set_blocksize(12_288)
    blosc.set_releasegil(True)
    yield host_settings()
    blosc.set_nthreads(before[0])
    blosc.set_blocksize(before[1])
    blosc.set_releasegil(before[2])


def test_the_host_programs_blosc_settings_stay_as_they_are(host, tmp_path):
    assert host == (3, 3, 12_288, True)
    for codec in ("zstd", "lz4"):
        nm.write(tmp_path / "a.mrcz", PIXELS, codec=codec, block_size=4096, overwrite=True)
        with nm.open(tmp_path / "a.mrcz") as stack:
            np.testing.assert_array_equal(np.asarray(stack), PIXELS)
    assert host_settings() == host


def test_others_may_use_blosc_at_the_same_time(tmp_path):
    end = time.monotonic() + SECONDS / 2
    payload = PIXELS.tobytes()
    path = tmp_path / "a.mrcz"
    nm.write(path, PIXELS)

    def host_program():
        while time.monotonic() < end:
            blosc.set_nthreads(random.choice([1, 2, 4]))
            blosc.set_blocksize(random.choice([0, 1024, 2**16]))
            packed = blosc.compress(payload, typesize=2, cname=random.choice(["zstd", "lz4"]))
            assert blosc.decompress(packed) == payload

    def reader():
        with nm.open(path) as stack:
            while time.monotonic() < end:
                np.testing.assert_array_equal(np.asarray(stack), PIXELS)

    def writer():
        own = tmp_path / f"{threading.get_ident()}.mrcz"
        while time.monotonic() < end:
            nm.write(own, PIXELS, overwrite=True)
            np.testing.assert_array_equal(nm.read(own), PIXELS)

    before = blosc.nthreads, blosc.get_blocksize()
    try:
        assert run(host_program, reader, reader, writer, writer) == []
    finally:
        blosc.set_nthreads(before[0])
        blosc.set_blocksize(before[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_reads_on(tmp_path):
    path = tmp_path / "a.mrcz"
    nm.write(path, PIXELS)
    code = """if True:
        import multiprocessing, sys
        import napari_mrcz as nm
        def total(stack): return int(stack[2].sum())
        stack = nm.open(sys.argv[1])
        first = total(stack)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(total, [stack] * 4) == [first] * 4
        print(first)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(path)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == PIXELS[2].sum()
