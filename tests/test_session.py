"""Sessions of many stacks: what is read, what is kept, what is left out, how the camera ages."""

import errno
import gc
import itertools
import os
import re
import sys
import tempfile
import tracemalloc
import warnings
from itertools import repeat
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

import napari_mrcz as nm
from napari_mrcz.correction import GainNormalization, OutlierFilter, replay
from napari_mrcz.correction.koma import KomaOptions
from napari_mrcz.correction.outliers.thresholds import OutlierStep
from napari_mrcz.errors import MrczError
from napari_mrcz.session import (
    Koma,
    Session,
    correlation_with,
    count_outliers,
    cumulative_dose,
    noise_within,
    summaries,
    sums_folder,
)
from napari_mrcz.session.correct import Correct, correct_all
from napari_mrcz.session.recipe import Recipe
from napari_mrcz.session.summaries import SummaryStore
from napari_mrcz.simulation import CARBON_EDGE, simulate_session

SHAPE = (6, 32, 40)


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def stacks():
    rng = np.random.default_rng(0)
    rate = rng.uniform(1, 3, SHAPE[1:])
    return [rng.poisson(rate, SHAPE).astype(np.uint8) for _ in range(11)]


@pytest.fixture
def paths(stacks, tmp_path):
    written = []
    for index, stack in enumerate(stacks):
        written.append(tmp_path / f"stack_{index:02}.mrcz")
        nm.write(written[-1], stack)
    return written


@pytest.fixture
def reads(monkeypatch):
    """Collect which stacks are read."""
    read = []
    original = summaries.summarise

    def summarise(stack, progress=None):
        read.append(stack.path)
        return original(stack, progress)

    monkeypatch.setattr("napari_mrcz.session.session.summarise", summarise)
    return read


@pytest.mark.parametrize("kind", ["paths", "arrays", "stacks"])
@pytest.mark.parametrize("keep_mean", [True, False])
def test_each_stack_gets_the_mean_of_those_around_it(kind, keep_mean, paths, stacks):
    given = {"paths": paths, "arrays": stacks, "stacks": map(nm.open, paths)}[kind]
    koma = Koma(given, 3, keep_mean=keep_mean, exclude=[4])
    means = np.array([stack.mean(axis=0) for stack in stacks])
    around = {0: [1, 2, 3, 5, 6, 7], 5: [1, 2, 3, 6, 7, 8], 4: [1, 2, 3, 5, 6, 7],
              -1: [3, 5, 6, 7, 8, 9]}  # fmt: skip
    for index, near in around.items():
        average = means[near].mean(axis=0)
        assert koma[index].neighbours == tuple(koma.session.name(j) for j in near)
        np.testing.assert_allclose(koma[index].average, average, 1e-6)
        average *= means[index].mean() / average.mean()
        level = average.mean() if keep_mean else 0
        corrected = nm.Stack.from_array(stacks[index]).apply(koma[index])
        np.testing.assert_allclose(corrected[2], stacks[index][2] - average + level, 0, 1e-5)
    assert koma.neighbours(5) == around[5]
    assert dict(koma.left_out) == {4: "left out by choice"}
    if kind != "arrays":
        assert koma[0].neighbours[0] == str(paths[1])


def test_each_stack_is_read_once_and_never_again(paths, reads):
    first = Koma(paths, 2, exclude=())
    averages = [first[index].average for index in range(len(paths))]
    assert reads == [str(path) for path in paths]
    second = Koma(paths, 2, exclude=())
    for index in (7, 0, 10, 3):
        np.testing.assert_array_equal(second[index].average, averages[index])
    second.noise_curve(range(4))
    assert len(reads) == len(paths)


def test_the_whole_chain_is_replayed_from_its_file(paths, stacks, tmp_path):
    gain = GainNormalization(np.random.default_rng(2).uniform(0.5, 2, SHAPE[1:]), 0.9)

    def prepare(stack):
        return stack.apply(OutlierFilter.fit(stack)).apply(gain)

    koma = Koma(Session(paths, prepare=prepare), 2)
    with koma.session.opened(4) as prepared:
        clean = prepared.apply(koma[4])
        nm.write(tmp_path / "clean.mrcz", clean)
    with nm.open(tmp_path / "clean.mrcz") as saved:
        names = [step["name"] for step in saved.history]
        assert names == ["OutlierFilter", "GainNormalization", "KomaNormalization"]
        again = replay(saved.history, stacks[4])
        np.testing.assert_array_equal(again, np.asarray(saved))


def test_chosen_stacks_in_another_order_are_not_read_again(stacks, reads):
    session = Session(stacks)
    means = [session.mean(index) for index in range(len(session))]
    chosen = session.chosen([7, 2, 5])
    del session
    gc.collect()
    for index, old in enumerate([7, 2, 5]):
        np.testing.assert_array_equal(chosen.mean(index), means[old])
    assert len(reads) == len(stacks)
    del chosen
    gc.collect()
    assert not list(sums_folder().iterdir())


def test_reading_and_comparing_can_be_followed_and_stopped(stacks):
    session, told = Session(stacks), []
    session.summary(3, progress=lambda *step: told.append(step))
    assert told == [(done, SHAPE[0]) for done in range(1, SHAPE[0] + 1)]
    session.covariances([3, 4], progress=lambda *step: told.append(step))
    assert told[-1] == (SHAPE[1], SHAPE[1])

    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        session.summary(5, progress=stop)
    assert session.mean(5).mean() == pytest.approx(stacks[5].mean())


def test_a_file_that_changed_is_read_again(paths, stacks, reads):
    Koma(paths, 2, exclude=()).survey()
    reads.clear()
    nm.write(paths[3], stacks[3] + 1, overwrite=True)
    state = paths[5].stat()
    os.utime(paths[5], ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    session = Session(paths)
    assert session.mean(3).mean() == pytest.approx(stacks[3].mean() + 1)
    Koma(session, 2).survey()
    assert reads == [str(paths[3]), str(paths[5])]


def test_corrections_are_part_of_what_is_kept(paths, reads):
    doubled = GainNormalization(np.full(SHAPE[1:], 2.0))
    plain = Session(paths[:1])
    for session in (
        Session([nm.open(paths[0]).apply(doubled)]),
        Session(paths[:1], prepare=lambda stack: stack.apply(doubled)),
    ):
        np.testing.assert_array_equal(session.mean(0), 2 * plain.mean(0))
    assert len(reads) == 2


def test_a_joined_stack_is_not_mistaken_for_its_first_part(paths, stacks):
    alone = Session(paths[:1]).summary(0)
    joined = Session([nm.Stack.joined([nm.open(paths[0]), nm.open(paths[1])])]).summary(0)
    assert (alone.n_frames, joined.n_frames) == (6, 12)
    assert joined.thumbnail.mean() == pytest.approx(np.mean(stacks[:2]), rel=0.01)


def test_nothing_is_left_of_what_is_no_file(stacks):
    koma = Koma(stacks, 2)
    koma.survey()
    assert len(list(sums_folder().iterdir())) == 2 * len(stacks)
    del koma
    gc.collect()
    assert not list(sums_folder().iterdir())


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(stacks, paths, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    koma = Koma(paths, 2, exclude=())
    expected = np.mean([stacks[j].mean(axis=0) for j in (1, 2, 3, 4)], axis=0)
    np.testing.assert_allclose(koma[0].average, expected, rtol=1e-6)


def test_the_cache_holds_what_a_running_session_needs_and_no_more(
    paths, stacks, reads, monkeypatch
):
    """With room for half of the sums: no movie is read twice, and then the rest is deleted."""
    monkeypatch.setattr(summaries, "_LARGEST", 5 * (128 + 32 * 40))
    koma = Koma(paths, 2, exclude=())
    averages = [koma[index].average for index in range(len(paths))]
    assert len(koma.helps) == len(paths)
    koma.noise_curve([0, 1, 2])
    noise_within(koma.session)
    assert reads == [str(path) for path in paths]
    del koma
    gc.collect()
    assert 4 <= len(images_kept()) <= 5
    # What had to go is read again, without fuss; others make room for it.
    koma = Koma(paths, 2, exclude=())
    for index in (0, 7, 3):
        np.testing.assert_array_equal(koma[index].average, averages[index])
    assert len(reads) <= 2 * len(paths)
    other = Session(stacks[:3])
    for index in range(3):
        other.summary(index)
    assert len(images_kept()) == len(paths) + 3


def test_on_a_small_disk_sums_make_room_for_each_other(paths, reads, monkeypatch):
    """A movie is summed when it is first looked at, and once more for all averages."""
    from collections import Counter

    expected = Koma(paths, 2, exclude=())
    expected = [expected[index].average for index in range(len(paths))]
    for path in sums_folder().iterdir():
        path.unlink()
    reads.clear()
    monkeypatch.setattr(
        summaries.shutil,
        "disk_usage",
        lambda folder: SimpleNamespace(free=12 * (128 + 32 * 40) - len(images_kept()) * 1408),
    )
    koma = Koma(paths, 2, exclude=())
    for index, average in enumerate(expected):
        np.testing.assert_array_equal(koma[index].average, average)
    assert len(images_kept()) <= 6
    assert set(Counter(reads).values()) <= {1, 2}


def images_kept():
    return [path for path in sums_folder().iterdir() if path.name.endswith(".sum.npy")]


def test_the_folder_of_sums_is_looked_through_once(stacks, monkeypatch):
    scanned = []
    scan = os.scandir
    monkeypatch.setattr(summaries.os, "scandir", lambda path: scanned.append(path) or scan(path))
    session = Session(stacks)
    for index in range(len(stacks)):
        session.summary(index)
    assert scanned.count(sums_folder()) == 1  # sessions of other tests may end meanwhile


@pytest.mark.parametrize(
    "lost",
    ["cut", *(pytest.param(n, marks=pytest.mark.slow) for n in ("deleted", "empty", "rubbish"))],
)
def test_sums_that_are_lost_meanwhile_are_those_of_corrected_frames_again(lost, stacks, tmp_path):
    """The cache may be emptied at any time, and has less room than a long session needs."""
    rng = np.random.default_rng(4)
    sources = [str(tmp_path / f"{i}.tif") for i in range(6)]
    for source, stack in zip(sources, stacks, strict=False):
        tifffile.imwrite(source, np.where(rng.random(SHAPE[1:]) < 0.003, 90, stack))
    recipe = Recipe(OutlierStep(), koma=KomaOptions(radius=2))

    def corrected(folder, *, losing):
        folder.mkdir()
        targets = [str(folder / f"{i}.mrcz") for i in range(6)]
        for done, outcome in enumerate(correct_all(map(Correct, sources, targets, repeat(recipe)))):
            assert outcome.ok, outcome.error
            for path in sums_folder().iterdir() if losing and not done else ():
                whole = path.read_bytes()
                path.write_bytes({"rubbish": rng.bytes(999), "cut": whole[:-9]}.get(lost, b""))
                if lost == "deleted":
                    path.unlink()
        return [nm.read(target) for target in targets]

    undisturbed = corrected(tmp_path / "undisturbed", losing=False)
    np.testing.assert_array_equal(corrected(tmp_path / "disturbed", losing=True), undisturbed)


def test_a_session_larger_than_the_cache_is_corrected_alike(paths, tmp_path, monkeypatch):
    recipe = Recipe(OutlierStep(), koma=KomaOptions(radius=2))

    def corrected(folder):
        folder.mkdir()
        targets = [str(folder / path.name) for path in paths]
        for outcome in correct_all(map(Correct, map(str, paths), targets, repeat(recipe))):
            assert outcome.ok, outcome.error
        return [nm.read(target) for target in targets]

    expected = corrected(tmp_path / "roomy")
    monkeypatch.setattr(summaries, "_LARGEST", 3 * SHAPE[1] * SHAPE[2])
    np.testing.assert_array_equal(corrected(tmp_path / "narrow"), expected)


def test_a_stack_with_pixels_that_are_no_numbers_spoils_no_other(stacks):
    frames = [stack.astype(np.float32) for stack in stacks]
    frames[3][0, 1, 2], frames[3][1, 1, 2], frames[3][2, 5] = np.inf, -np.inf, np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        koma = Koma(frames, radius=2)
        assert "not numbers" in koma.left_out[3]
        assert list(koma.left_out) == [3]
        corrected = [koma[i](stack[0]) for i, stack in enumerate(frames)]
    assert all(np.isfinite(frame).all() for i, frame in enumerate(corrected) if i != 3)
    assert np.isfinite(corrected[3][8:]).all()


def test_pixels_that_no_stack_has_a_number_of_are_lost_alone(stacks):
    frames = [stack.astype(np.float32) for stack in stacks]
    for stack in frames:
        stack[:, 4, 7] = np.nan
    koma = Koma(frames, radius=2)
    assert not koma.left_out
    normalised = koma[4](frames[4][0])
    assert np.argwhere(np.isnan(normalised)).tolist() == [[4, 7]]


@pytest.mark.parametrize(
    ("dtype", "scale", "said"),
    [
        (np.complex64, 1, "real numbers, not of complex64"),
        (np.float64, 1e300, "e\\+30., more than"),
    ],
)
def test_stacks_without_a_sum_are_told_of_one_by_one(dtype, scale, said, stacks, tmp_path):
    sources = [str(tmp_path / f"{i}.{'mrcz' if scale == 1 else 'tif'}") for i in range(3)]
    for source, stack in zip(sources, stacks, strict=False):
        frames = stack.astype(dtype) * scale
        nm.write(source, frames) if scale == 1 else tifffile.imwrite(source, frames)
    targets = [str(tmp_path / f"out_{i}.mrcz") for i in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe = Recipe(koma=KomaOptions(radius=2))
        outcomes = list(correct_all(map(Correct, sources, targets, repeat(recipe))))
    for outcome, source in zip(outcomes, sources, strict=True):
        assert outcome.error.startswith(f"{source}: ")
        assert re.search(said, outcome.error)


def test_a_stack_without_an_average_fails_alone(paths, tmp_path, monkeypatch):
    """Such as one whose neighbours' sums are lost, and their files too."""
    targets = [str(tmp_path / f"out_{path.name}") for path in paths[:3]]
    broken = Koma.__getitem__

    def average(koma, index):
        if index == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return broken(koma, index)

    monkeypatch.setattr(Koma, "__getitem__", average)
    sources = [str(path) for path in paths[:3]]
    recipe = Recipe(koma=KomaOptions(radius=1))
    tasks = map(Correct, sources, targets, repeat(recipe))
    outcomes = {o.source: o.error for o in correct_all(tasks)}
    assert outcomes.pop(sources[1]) == f"{sources[1]}: No space left on device"
    assert set(outcomes.values()) == {""}


def test_sums_that_no_disk_takes_are_told_of(paths, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(summaries.os, "replace", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(MrczError) as said:
        Session(paths).summary(0)
    assert said.value.path.startswith(str(tmp_path / "napari-mrcz-"))
    assert str(sums_folder()) in str(said.value)
    assert "No space left on device. Make room" in str(said.value)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size there")
def test_a_disk_that_takes_no_more_is_called_so(tmp_path):
    import resource

    found = summaries.summarise(nm.Stack.from_array(np.ones((2, 99, 99), np.uint8)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as said:
            SummaryStore(tmp_path).save("key", found)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert said.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


def test_a_damaged_summary_is_made_again(paths, stacks):
    Session(paths[:1]).summary(0)
    for path in sums_folder().iterdir():
        path.write_bytes(path.read_bytes()[:-200])
    np.testing.assert_array_equal(Session(paths[:1]).total(0), stacks[0].sum(axis=0))


@pytest.mark.parametrize(
    ("frames", "sums", "dtype"),
    [
        (np.array([[[0, 200]], [[0, 55]]], np.uint8), [[0, 255]], np.uint8),
        (np.array([[[0, 200]], [[0, 56]]], np.uint8), [[0, 256]], np.uint16),
        (np.array([[[-1, 9]], [[0, 0]]], np.int16), [[-1, 9]], np.int16),
        (np.array([[[0, 2**39]], [[0, 2**39]]], np.int64), [[0, 2**40]], np.uint64),
        (np.array([[[0.5, 1]], [[0.25, 2]]], np.float32), [[0.75, 3]], np.float32),
    ],
)
def test_sums_are_kept_exactly_and_small(frames, sums, dtype, tmp_path):
    found = summaries.summarise(nm.Stack.from_array(frames))
    store = SummaryStore(tmp_path / "sums")
    for summary in (store.save("key", found), store.load("key")):
        assert summary.sum.tolist() == sums
        assert summary.sum.dtype == dtype
        assert summary.n_frames == 2
        assert summary.variance == sum(frame.var() for frame in frames)
        assert (2 * summary.thumbnail).tolist() == sums
    assert store.load("other") is None


def test_a_movie_that_was_cut_off_enters_no_average_and_is_corrected_itself(stacks):
    stacks[4] = stacks[4][:2]  # of 6 frames
    stacks[7] = stacks[7][:3]  # half of them are enough
    koma = Koma(stacks, radius=2, limit=np.inf)
    assert koma.left_out == {4: "only 2 frames, where the session has 6"}
    assert koma.neighbours(5) == [2, 3, 6, 7]
    assert koma.neighbours(4) == [2, 3, 5, 6]
    others = np.mean([stacks[i].mean(axis=0) for i in (2, 3, 5, 6)], axis=0)
    np.testing.assert_allclose(koma[4].average, others, rtol=1e-6)


def test_of_two_stacks_the_shorter_one_is_averaged(stacks):
    koma = Koma([stacks[0], stacks[1][:1]], radius=1, limit=np.inf)
    with pytest.warns(UserWarning, match="KOMA with 1 of the 2 other stacks"):
        assert koma.neighbours(0) == [1]


def test_high_contrast_and_unreadable_stacks_are_left_out_and_it_is_said_why(tmp_path):
    simulated = simulate_session(14, 10, (256, 256), exceptions={5: CARBON_EDGE}, seed=2)
    paths = [tmp_path / f"{index}.mrcz" for index in range(14)]
    for path, movie in zip(paths, simulated.iter_movies(), strict=True):
        nm.write(path, movie.frames)
    paths[9].write_bytes(b"broken" * 300)
    koma = Koma(paths, 3)
    assert list(koma.left_out) == [5, 9]
    assert "contrast of" in koma.left_out[5]
    assert "robust standard deviations" in koma.left_out[5]
    assert "cannot be read" in koma.left_out[9]
    assert not {5, 9} & set(itertools.chain(*(koma.neighbours(i) for i in range(14))))
    # The one left out is normalised all the same.
    assert koma.neighbours(5) == [2, 3, 4, 6, 7, 8]


@pytest.mark.filterwarnings("ignore:KOMA with 0 of")
def test_where_all_others_are_left_out_it_is_said_why(paths, tmp_path):
    koma = Koma([paths[0], tmp_path / "missing.mrcz", paths[1]], 1, exclude=[2])
    with pytest.raises(ValueError, match=r"2 left out, the first .*missing\.mrcz: cannot be read"):
        koma[0]


def test_a_session_shorter_than_its_window_uses_what_there_is_and_says_so(stacks):
    koma = Koma(stacks[:4], 3, exclude=())
    with pytest.warns(
        UserWarning, match="KOMA with 3 of the 6 other stacks that a radius of 3 takes"
    ):
        first = koma[0]
    assert koma.neighbours(0) == [1, 2, 3]
    np.testing.assert_allclose(first.average, np.mean(stacks[1:4], axis=(0, 1)), rtol=1e-6)


def test_what_makes_no_sense_is_refused(stacks):
    with pytest.raises(ValueError, match="one stack alone"):
        Koma(stacks[:1])
    with pytest.raises(ValueError, match="at least one stack"):
        Session([])
    with pytest.raises(ValueError, match="a folder or a list of movies, not one file"):
        Session("movie.mrcz")
    with pytest.raises(ValueError, match="radius"):
        Koma(stacks, 0)
    with pytest.raises(ValueError, match="auto"):
        Koma(stacks, exclude="none")
    with pytest.raises(ValueError, match=r"\[11\]"):
        Koma(stacks, exclude=[11])
    koma = Koma(stacks, 2)
    for index in (11, -12):
        with pytest.raises(IndexError, match="11"):
            koma[index]
    with pytest.raises(ValueError, match=r"stack 1 has frames of \(3, 4\)"):
        Koma([stacks[0], np.ones((2, 3, 4))]).survey()
    with pytest.raises(nm.MrczError):
        Session(["missing.mrcz"]).summary(0)


def test_a_survey_tells_its_progress_and_can_be_ended(paths, reads):
    koma = Koma(paths, 2)
    seen = []

    def stop_at_three(done, total):
        seen.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        koma.survey(stop_at_three)
    assert seen == [(1, 11), (2, 11), (3, 11)]
    koma.survey()
    assert len(reads) == 11


def test_covariances_are_numpys(stacks, monkeypatch):
    monkeypatch.setattr("napari_mrcz.session.session._STRIP_NBYTES", 5000)
    sums = np.array([stack.sum(axis=0, dtype=float).ravel() for stack in stacks])
    found = Session(stacks).covariances([0, 3, 7])
    np.testing.assert_allclose(found, np.cov(sums[[0, 3, 7]], bias=True), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_noise_within_is_the_mean_r_of_all_pairs(stacks, dtype):
    given = [stack.astype(dtype) for stack in stacks] + [np.ones((1, 32, 40), dtype)]
    found = noise_within(Session(given))
    for stack, noise in zip(stacks, found, strict=False):
        r = np.corrcoef(stack.reshape(6, -1))
        assert noise == pytest.approx((r.sum() - 6) / 30, abs=5e-4)
    assert np.isnan(found[-1])
    curve = Koma(stacks, 2, exclude=()).noise_curve([0])
    assert curve[0] == pytest.approx(found[:-1].mean(), rel=1e-9)


def test_memory_is_a_few_images_however_long_the_session(tmp_path):
    rng = np.random.default_rng(1)
    image_nbytes = 256 * 256 * 8
    paths = []
    for index in range(30):
        paths.append(tmp_path / f"{index}.mrcz")
        nm.write(paths[-1], rng.poisson(1.0, (3, 256, 256)).astype(np.uint8))
    tracemalloc.start()
    koma = Koma(paths, 10)
    for index in range(30):
        koma[index]
    koma.noise_curve([1, 5])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The covariances take strips of 64 MB of everything, here all of it: 30 images twice.
    assert peak < (8 + 60) * image_nbytes


def test_a_camera_ages():
    simulated = simulate_session(12, 20, (128, 128), specimen=None, lifetime=3, hot=(0.01, 0.03))
    movies = list(simulated.iter_movies())
    session = Session([movie.frames for movie in movies])
    np.testing.assert_allclose(cumulative_dose(session), simulated.cumulative_dose, rtol=0.1)
    assert cumulative_dose(session, 2.0)[1] == cumulative_dose(session)[1] / 2
    correlations = correlation_with(session)
    sums = [movie.frames.sum(axis=0).ravel() for movie in movies]
    np.testing.assert_allclose(correlations, np.corrcoef(sums)[0], rtol=1e-9)
    assert correlations[0] == pytest.approx(1)
    assert correlations[1] > 2 * correlations[8:].mean()
    truth = iter(movies)
    progress = []
    census = count_outliers(
        session,
        lambda stack: _known(next(truth).defects),
        progress=lambda done, total: progress.append((done, total)),
    )
    assert census.n_hot.tolist() == simulated.n_hot.tolist()
    assert (census.n_dark == movies[0].defects.response[movies[0].defects.response < 1].size).all()
    masks = np.array([movie.defects.outliers for movie in movies])
    np.testing.assert_allclose(census.share, masks.mean(axis=0), rtol=1e-6)
    assert progress[-1] == (12, 12)


def _known(defects):
    return SimpleNamespace(
        mask=np.where(defects.hot, 1, np.where(defects.outliers, -1, 0)),
        n_hot=int(defects.hot.sum()),
        n_dark=int((defects.dark | defects.dead).sum()),
    )


def test_a_movie_alone_is_told_what_else_there_is(tmp_path):
    """In scripts and by recipes in the same words."""
    movie = str(tmp_path / "alone.mrc")
    nm.write(movie, np.ones((3, 16, 16), np.uint8))
    with pytest.raises(ValueError) as refused:
        nm.Koma([movie])
    target = tmp_path / "corrected.mrcz"
    (outcome,) = correct_all([Correct(movie, str(target), Recipe(koma=KomaOptions()))])
    assert outcome.error == f"{movie}: {refused.value}"
    assert "use a gain reference" in outcome.error and not target.exists()
