"""Stepping reads ahead in the direction of the steps, keeps few frames, and keeps errors apart.

The frames come from a source that notes what is read, and waits where it is told to.
"""

import os
import queue
import random
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.format import Description
from napari_mrcz.format.machine import Abandoned, go_on_if_wanted

PATIENCE = 20.0
N = 120


class Source:
    """Frames full of their own number; notes who reads what, and when."""

    def __init__(self, shape=(N, 3, 4)):
        self.shape, self.dtype = shape, np.dtype(np.int16)
        self.reads = []
        self.failing = set()
        self.alive = []
        self.closed = 0
        self.abandoned = []
        self._gates = {}
        self._pieces = {}
        self._changed = threading.Condition()

    def read_frame(self, frame, out=None):
        with self._changed:
            self.reads.append((frame, threading.current_thread()))
            self._changed.notify_all()
        if frame in self._gates:
            assert self._gates[frame].wait(PATIENCE)
        if frame in self._pieces and not self._pieces[frame].is_set():
            self._read_in_pieces(frame)
        if frame in self.failing:
            raise nm.MrczError("a.mrc", "is broken", frame=frame)
        # Nominally as large as it is said to be, but without taking the memory.
        number = np.array(frame, np.int16)
        pixels = np.broadcast_to(number, self.shape[1:])
        if out is not None:
            out[...] = pixels
            return out
        self.alive.append(weakref.ref(number))
        return pixels

    def read_window(self, frame, window):
        return np.asarray(self.read_frame(frame)[window])

    def close(self):
        self.closed += 1

    def _read_in_pieces(self, frame):
        finished = self._pieces[frame]
        try:
            while not finished.is_set() and go_on_if_wanted():
                pass
        except Abandoned:
            with self._changed:
                self.abandoned.append(frame)
                self._changed.notify_all()
            raise

    def frames(self):
        return [frame for frame, _ in self.reads]

    def wait_for(self, *frames):
        """Wait until these have been begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: set(frames) <= set(self.frames()), PATIENCE)

    def hold(self, frame):
        """Make all readers of this frame wait for the event that is returned."""
        self._gates[frame] = threading.Event()
        return self._gates[frame]

    def in_pieces(self, frame):
        """Read this frame in pieces, without end unless `finish` is called."""
        self._pieces[frame] = threading.Event()

    def finish(self, frame):
        """End the pieces of this frame."""
        self._pieces[frame].set()

    def wait_until_abandoned(self, frame):
        """Wait until the reading of this frame was given up."""
        with self._changed:
            assert self._changed.wait_for(lambda: frame in self.abandoned, PATIENCE)


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def stack(source):
    with nm.Stack(source, Description()) as stack:
        yield stack


def value(frame):
    return int(frame[0, 0])


@pytest.mark.parametrize(
    ("steps", "ahead"),
    [
        ([0, 1], {2, 3}),
        ([10, 9], {8, 7}),
        ([20, 21], {22, 23}),
        ([0, 5, 10], {15, 20}),
        ([39, 36, 33], {30, 27}),
        ([0, 16, 32], {48, 64}),
        ([117, 118], {119}),
        ([0], set()),
        ([7], set()),
        ([0, 7, 3, 11, 30, 2], set()),
        ([0, 5], set()),
        ([0, 17, 34], set()),
        ([5, 5, 5], set()),
    ],
)
def test_steps_alike_announce_the_next_two(source, stack, steps, ahead):
    for frame in steps:
        assert value(stack[frame]) == frame
    source.wait_for(*ahead)
    stack.close()  # waits for what is being read
    assert set(source.frames()) == set(steps) | ahead
    assert len(source.frames()) == len(set(steps) | ahead)
    others = {t for frame, t in source.reads if frame in ahead}
    assert threading.main_thread() not in others


def test_stepping_through_decodes_every_frame_once_and_mostly_ahead(source, stack):
    for frame in range(N):
        assert value(stack[frame]) == frame
        source.wait_for(*range(min(frame + 3, N) if frame else 1))
    assert sorted(source.frames()) == list(range(N))
    in_front = [frame for frame, thread in source.reads if thread is threading.main_thread()]
    assert in_front == [0, 1]


def test_turning_round_reads_ahead_the_other_way(source, stack):
    for frame in (10, 11, 12, 13):
        _ = stack[frame]
        source.wait_for(frame)
    source.wait_for(14, 15)
    for frame in (12, 11):
        _ = stack[frame]
    source.wait_for(10, 9)


def test_without_read_ahead_only_what_is_asked_for_is_read(source):
    with nm.Stack(source, Description(), read_ahead=False) as stack:
        for frame in (0, 1, 2, 3, 2, 1):
            _ = stack[frame]
    assert source.frames()[:4] == [0, 1, 2, 3]
    assert {thread for _, thread in source.reads} == {threading.main_thread()}


def test_a_frame_on_its_way_is_waited_for_and_not_read_twice(source, stack):
    gate = source.hold(2)
    _ = stack[0], stack[1]
    source.wait_for(2)
    result = []
    asking = threading.Thread(target=lambda: result.append(value(stack[2])))
    asking.start()
    gate.set()
    asking.join()
    assert result == [2]
    assert source.frames().count(2) == 1


def test_a_frame_that_waits_its_turn_is_read_by_who_asks_for_it(source, stack):
    gate = source.hold(2)
    _ = stack[0], stack[1]
    source.wait_for(2)  # 3 waits behind it
    assert value(stack[3]) == 3
    assert dict(source.reads)[3] is threading.main_thread()
    gate.set()
    assert value(stack[2]) == 2
    stack.close()
    assert source.frames().count(3) == 1


def test_reading_ahead_never_holds_up_who_asks_for_something_else(source, stack):
    gate = source.hold(2)
    _ = stack[0], stack[1]
    source.wait_for(2)
    for frame in (30, 10, 20, 1):
        assert value(stack[frame]) == frame
    gate.set()
    assert value(stack[2]) == 2
    assert source.frames().count(2) == 1  # it was still held when all the others were there


def test_an_error_ahead_concerns_its_own_frame_only_and_is_tried_again(source, stack):
    source.failing = {2, 3}
    _ = stack[0], stack[1]
    source.wait_for(2, 3)
    assert value(stack[1]) == 1
    for _ in range(2):
        with pytest.raises(nm.MrczError, match="frame 2"):
            _ = stack[2]
    assert value(stack[4]) == 4
    source.failing = set()
    assert value(stack[2]) == 2
    assert value(stack[3]) == 3


def test_frames_dropped_before_their_turn_are_read_when_asked_for(source, stack):
    gate = source.hold(2)
    _ = stack[0], stack[1]
    source.wait_for(2)  # 3 waits
    for frame in (20, 30, 10, 25):
        _ = stack[frame]
    gate.set()
    assert value(stack[3]) == 3
    assert value(stack[2]) == 2


def test_closing_does_not_wait_for_what_is_read_ahead_and_leaves_nothing_open(source, stack):
    gate = source.hold(2)
    _ = stack[0], stack[1]
    source.wait_for(2)
    stack.close()  # would never end if it waited
    assert source.closed == 1
    gate.set()
    dict(source.reads)[2].join(PATIENCE)
    assert source.closed == 2  # what that read may have opened again
    assert 3 not in source.frames()
    before = len(source.frames())
    assert value(stack[1]) == 1  # forgotten, and read anew
    assert len(source.frames()) > before


def test_a_jump_abandons_what_is_read_ahead_and_later_it_is_read_anew(source, stack):
    source.in_pieces(2)
    _ = stack[0], stack[1]
    source.wait_for(2)  # 3 waits behind it
    assert value(stack[50]) == 50
    source.wait_until_abandoned(2)
    assert 3 not in source.frames()
    assert value(stack[2]) == 2
    assert source.frames().count(2) == 2


def test_stepping_on_abandons_nothing_that_is_still_wanted(source, stack):
    source.in_pieces(3)
    _ = stack[0], stack[1]
    source.wait_for(3)
    for frame in (2, 2, 1):  # the second read of 3 is for another direction
        assert value(stack[frame]) == frame
        if frame == 2:
            assert source.abandoned == []
    source.wait_until_abandoned(3)


def test_a_frame_that_is_waited_for_is_not_abandoned_by_another_threads_jump(source, stack):
    source.in_pieces(2)
    _ = stack[0], stack[1]
    source.wait_for(2)
    asked = stack._cache._kept[2]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: value(stack[2]))
        while asked.is_ahead:  # until it was asked for
            pass
        assert value(stack[50]) == 50
        source.finish(2)
        assert waiting.result(PATIENCE) == 2
    assert source.frames().count(2) == 1


@pytest.mark.parametrize("name", ["a.mrcz", "a.mrc"])
def test_a_file_is_read_ahead_in_pieces_and_no_further_than_it_is_wanted(
    tmp_path, monkeypatch, name
):
    """Each piece waits for its own permission, as on a disk that is slow without end."""
    pixels = np.random.default_rng(0).integers(0, 2**16, (4, 1024, 1536), np.uint16)  # 3 MB each
    nm.write(tmp_path / name, pixels)
    main, read, asked, permit = threading.main_thread(), [], threading.Event(), queue.SimpleQueue()
    preadv = os.preadv

    def slow(number, buffers, offset):
        got = preadv(number, buffers, offset)
        if threading.current_thread() is not main:
            read.append(got)
            asked.set()
            permit.get(timeout=PATIENCE)
        return got

    with nm.open(tmp_path / name) as stack:
        _ = stack[0]
        monkeypatch.setattr(os, "preadv", slow)
        _ = stack[1]
        assert asked.wait(PATIENCE)
        reading = stack._cache._kept[2]
        np.testing.assert_array_equal(stack[0], pixels[0])
        np.testing.assert_array_equal(stack[3], pixels[3])
        stack.close()
        permit.put("the first piece")
        reading.exception(PATIENCE)
    assert read == [2**20]


def test_eight_threads_that_want_one_frame_read_it_once(source, stack):
    gate = source.hold(7)
    threads = [threading.Thread(target=stack.__getitem__, args=(7,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    source.wait_for(7)
    gate.set()
    for thread in threads:
        thread.join()
    assert source.frames().count(7) == 1


def test_what_is_kept_serves_windows_selections_and_corrections_too(source, stack):
    class Negative:
        def __call__(self, frame, index):
            return -frame

        def describe(self):
            return {}

        def output_dtype(self, dtype):
            return dtype

    _ = stack[5]
    assert int(stack[5, 0, 0]) == 5
    assert int(stack[5, 1:, ::2][0, 0]) == 5
    assert int(stack[5:6].max()) == 5
    assert value(stack.apply(Negative())[5]) == -5
    assert source.frames() == [5]


# Memory -----------------------------------------------------------------------------------------


def alive(source):
    return sum(ref() is not None for ref in source.alive)


@pytest.mark.parametrize("way", ["forwards", "backwards", "strides", "to and fro", "random"])
def test_of_large_frames_no_more_than_four_are_in_memory(way):
    source = Source((200, 4096, 4096))  # nominally 32 MB each
    chance = random.Random(1)
    walk = {
        "forwards": range(200),
        "backwards": range(199, -1, -1),
        "strides": [f for start in range(5) for f in range(start, 200, 5)],
        "to and fro": [f for k in range(60) for f in (k, k + 1, k + 2, k + 1)],
        "random": [chance.randrange(200) for _ in range(300)],
    }[way]
    most = 0
    with nm.Stack(source, Description()) as stack:
        for frame in walk:
            shown = stack[frame]  # the viewer holds one
            most = max(most, alive(source))
            assert value(shown) == frame
        assert most <= 4
    del shown
    for thread in {thread for _, thread in source.reads} - {threading.main_thread()}:
        thread.join(PATIENCE)  # closing does not wait for it
    assert alive(source) == 0


def test_many_small_frames_are_kept():
    source = Source((100, 64, 64))
    with nm.Stack(source, Description(), read_ahead=False) as stack:
        for _ in range(3):
            for frame in range(100):
                _ = stack[frame]
    assert len(source.reads) == 100


def test_medium_frames_are_kept_up_to_16_mb():
    source = Source((100, 512, 1024))  # 1 MB each
    with nm.Stack(source, Description(), read_ahead=False) as stack:
        for frame in range(100):
            _ = stack[frame]
        assert alive(source) == 16
