"""A flipped bit is found and its frame named; a report is given however bad the file is."""

import threading

import numpy as np
import pytest
from good_files import KINDS, good_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import napari_mrcz as nm
from napari_mrcz.format import FrameFault, FrameReader
from napari_mrcz.stack import VerifyReport

WITH_CHECKSUMS = ["ours", "ours, uint8", "ours, small blocks", "ours, plain"]


@pytest.fixture(scope="module", params=WITH_CHECKSUMS)
def good(request, tmp_path_factory):
    return good_file(request.param, tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("flipped")


@pytest.fixture(scope="module")
def places(good, folder):
    """Return where each frame lies: first byte and length."""
    (folder / good.name).write_bytes(good.content)
    with FrameReader(folder / good.name) as reader:
        return list(zip(reader.index.offsets.tolist(), reader.index.sizes.tolist(), strict=True))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_anywhere_in_a_frame_is_found_and_the_frame_named(good, folder, places, data):
    frame = data.draw(st.integers(0, len(places) - 1))
    start, nbytes = places[frame]
    raw = bytearray(good.content)
    raw[start + data.draw(st.integers(0, nbytes - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = folder / good.name
    path.write_bytes(raw)

    report = nm.verify(path)
    assert not report
    assert report.checksums
    assert [fault.frame for fault in report.faults] == [frame]
    assert report.faults[0].offset == start
    assert f"frame {frame}" in str(report)

    with nm.open(path) as stack:
        for key in (frame, (frame, 0, 0), (frame, slice(2, 5)), slice(frame, frame + 1)):
            with pytest.raises(nm.MrczError) as refusal:
                _ = stack[key]
            assert refusal.value.frame == frame
            assert refusal.value.offset == start
            assert str(path) in str(refusal.value)
        for reading in (np.asarray, nm.Stack.sum, lambda s: s[:], lambda s: s[:, 1, 1]):
            with pytest.raises(nm.MrczError, match=f"frame {frame}"):
                reading(stack)
        for other in set(range(len(stack))) - {frame}:
            np.testing.assert_array_equal(stack[other], good.pixels[other])


@pytest.mark.parametrize("kind", KINDS)
def test_good_files_are_found_good_and_it_is_said_whether_by_checksums(tmp_path, kind):
    good = good_file(kind, tmp_path)
    seen = []
    report = nm.verify(tmp_path / good.name, progress=lambda *p: seen.append(p))
    assert report
    assert report.ok
    assert report.frames == len(good.pixels)
    assert report.checksums == good.checksums
    assert not (report.error or report.faults or report.warnings)
    assert "good" in str(report)
    assert ("checksums match" in str(report)) == good.checksums
    assert seen == [(k, len(good.pixels)) for k in range(1, len(good.pixels) + 1)]


def test_several_bad_frames_are_all_named(good, folder, places):
    raw = bytearray(good.content)
    for frame in (1, 3):
        raw[places[frame][0] + places[frame][1] - 1] ^= 1
    (folder / good.name).write_bytes(raw)
    report = nm.verify(folder / good.name)
    assert [fault.frame for fault in report.faults] == [1, 3]
    n = len(places)
    assert f"{report.path}: damaged: {n - 2} of {n} frames are good" in str(report).splitlines()[0]


def test_missing_frames_are_said(tmp_path):
    good = good_file("mrcz", tmp_path)
    path = tmp_path / good.name
    path.write_bytes(good.content[:-1])
    report = nm.verify(path)
    assert not report
    assert report.frames == 3
    assert report.announced == 4
    first, *others = str(report).splitlines()
    assert first.startswith(f"{path}: damaged: 3 of 4 frames are there, and these are good (they")
    assert "3 of the 4 frames" in others[0]


def test_missing_and_damaged_frames_are_both_said(tmp_path):
    faults = (FrameFault(1, 2000, "it is damaged"),)
    report = VerifyReport("a.mrcz", "", 3, False, faults, ("a.mrcz: cut",), 4)
    first, *others = str(report).splitlines()
    assert first.startswith("a.mrcz: damaged: 3 of 4 frames are there, and 2 of these are good")
    assert others == ["a.mrcz: cut", "a.mrcz: frame 1: it is damaged"]


def test_what_costs_no_frame_is_damage_all_the_same(tmp_path):
    report = VerifyReport("a.mrcz", "", 4, True, (), ("a.mrcz: its footer is damaged",), 4)
    assert str(report).startswith("a.mrcz: damaged, but all 4 frames are good (checksums match)")


def test_a_file_that_is_none_is_reported(tmp_path):
    (tmp_path / "a.mrc").write_bytes(b"nothing")
    for path in (tmp_path / "a.mrc", tmp_path / "none.mrc", tmp_path):
        report = nm.verify(path)
        assert not report
        assert report.error
        assert str(report) == report.error


@pytest.mark.parametrize(("n", "said"), [(1, "1 frame is good"), (2, "2 frames are good")])
def test_how_many_are_good_is_said(tmp_path, n, said):
    nm.write(tmp_path / "a.mrcz", np.ones((n, 4, 4), np.uint8))
    assert f"a.mrcz: {said} (checksums match)" in str(nm.verify(tmp_path / "a.mrcz"))


def test_what_progress_raises_ends_the_checking(tmp_path):
    good = good_file("ours", tmp_path)
    seen = []

    def progress(done, _):
        seen.append(done)
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        nm.verify(tmp_path / good.name, progress=progress)
    assert seen == [1]
    assert threading.active_count() == before
