"""Electron counting, on raw frames in which it is known where each electron struck."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xxhash
from scipy.spatial import cKDTree

import napari_mrcz as nm
from napari_mrcz.correction import ElectronCounting, count_electrons, rebuild
from napari_mrcz.correction.counting import events as finding
from napari_mrcz.correction.counting.background import Background
from napari_mrcz.correction.counting.events import Events, electron_threshold, upper_threshold
from napari_mrcz.correction.noise import CountedAlready, tiles_look_counted
from napari_mrcz.simulation import simulate_raw

SHAPE = (160, 144)


@pytest.fixture(scope="module")
def movie():
    """Return raw frames at the dose of counting detectors."""
    return simulate_raw(24, SHAPE, dose=0.02, seed=1)


@pytest.fixture(scope="module")
def counting(movie):
    """Return the counting that is fitted to them."""
    return ElectronCounting.fit(movie.frames)


def matched(true, events, within=1.0):
    """Return the distances between electrons and events, each taken once, nearest first."""
    found = np.stack([events.y, events.x], axis=1)
    distance, other = cKDTree(true).query(found, k=4, distance_upper_bound=within)
    pairs = sorted((distance[i, j], i, other[i, j]) for i, j in np.argwhere(distance < within))
    distances, taken_events, taken_electrons = [], set(), set()
    for apart, event, electron in pairs:
        if event not in taken_events and electron not in taken_electrons:
            taken_events.add(event)
            taken_electrons.add(electron)
            distances.append(apart)
    return np.array(distances)


def scores(movie, counting):
    """Return recall, precision and the RMS distance in pixels."""
    pairs = [
        (where, counting.events(f)) for f, where in zip(movie.frames, movie.positions, strict=True)
    ]
    distances = np.concatenate([matched(where, events) for where, events in pairs])
    n_true, n_found = (sum(len(pair[k]) for pair in pairs) for k in (0, 1))
    return len(distances) / n_true, len(distances) / n_found, np.sqrt(np.mean(distances**2))


def test_98_of_100_electrons_are_found_and_98_of_100_events_are_electrons(movie, counting):
    recall, precision, rms = scores(movie, counting)
    assert recall >= 0.98
    assert precision >= 0.98
    assert rms <= 0.15


@pytest.mark.parametrize(
    ("dose", "least"),
    [pytest.param(0.002, 0.97), pytest.param(0.01, 0.98, marks=pytest.mark.slow), (0.05, 0.93)],
)
def test_what_is_lost_grows_with_the_dose(dose, least):
    movie = simulate_raw(12 if dose < 0.05 else 5, SHAPE, dose=dose, seed=2)
    recall, precision, rms = scores(movie, ElectronCounting.fit(movie.frames))
    assert recall >= least
    assert precision >= least
    assert rms <= 0.2


@pytest.mark.parametrize(
    "spread", [*(pytest.param(s, marks=pytest.mark.slow) for s in (0.3, 0.4, 0.65)), 0.5]
)
def test_spread_and_background_come_back(spread):
    movie = simulate_raw(40, (112, 112), spread=spread, seed=3)
    counting = ElectronCounting.fit(movie.frames)
    assert counting.spread == pytest.approx(spread, rel=0.04)
    assert counting.background.noise == pytest.approx(movie.noise, rel=0.03)
    off = counting.background.offset - movie.offset
    assert abs(off.mean()) < 0.1 * movie.noise
    assert off.std() < 0.3 * movie.noise  # 40 frames tell a mean to 1/6 of the noise


def test_charges_come_back(movie, counting):
    charges = np.concatenate([counting.events(frame).charge for frame in movie.frames])
    assert np.median(charges) == pytest.approx(200, rel=0.03)


@pytest.mark.parametrize("factor", [2, 4])
def test_super_resolution_puts_electrons_where_they_struck(movie, counting, factor):
    fine = replace(counting, super_resolution=factor)
    counts = fine(movie.frames[0], 0)
    assert counts.shape == (SHAPE[0] * factor, SHAPE[1] * factor)
    assert counts.dtype == np.uint8
    pixels = (np.argwhere(counts) + 0.5) / factor - 0.5
    distance, _ = cKDTree(movie.positions[0]).query(pixels)
    # The error of the position, and that of a point anywhere in a finer pixel.
    assert np.sqrt(np.mean(np.minimum(distance, 1) ** 2)) < 0.2 + 1 / np.sqrt(6) / factor
    assert np.median(distance) < 0.1 + 0.4 / factor
    whole = counting(movie.frames[0], 0)
    blocks = counts.reshape(SHAPE[0], factor, SHAPE[1], factor).sum((1, 3))
    np.testing.assert_array_equal(blocks, whole)


def test_a_single_electron_is_where_it_was_put():
    rng = np.random.default_rng(0)
    frame = rng.normal(0, 1, (40, 40)).astype(np.float32)
    background = Background(np.zeros((40, 40), np.float32), 1.0)
    spot = finding.draw(
        Events(*(np.array([v], np.float32) for v in (20.3, 11.8, 500))), 0.5, (40, 40)
    )
    (y,), (x,), (charge,) = ElectronCounting(background, 0.5, 100.0).events(frame + spot)
    assert (y, x) == (pytest.approx(20.3, abs=0.02), pytest.approx(11.8, abs=0.02))
    assert charge == pytest.approx(500, rel=0.02)


@pytest.mark.parametrize("apart", [0.7, 1.0, 1.6])
def test_two_electrons_close_together_are_two(apart):
    rng = np.random.default_rng(1)
    background = Background(np.zeros((30, 30), np.float32), 1.0)
    both = Events(*np.array([[15, 15], [14.2, 14.2 + apart], [200, 230]], np.float32))
    frame = finding.draw(both, 0.5, (30, 30)) + rng.normal(0, 1, (30, 30))
    events = ElectronCounting(background, 0.5, 60.0).events(frame.astype(np.float32))
    assert len(events) == 2
    np.testing.assert_allclose(np.sort(events.x), both.x, atol=0.1)


def test_the_usual_charge_tells_one_electron_from_two():
    """Two 0.5 pixel apart have nearly the shape of one, but twice its charge."""
    rng = np.random.default_rng(3)
    where = 6 + 10 * np.indices((10, 10)).reshape(2, -1) + rng.uniform(-0.5, 0.5, (2, 100))
    angle, noise = rng.uniform(0, 2 * np.pi, 100), rng.normal(0, 6, (106, 106))
    apart = 0.5 * np.stack([np.cos(angle), np.sin(angle)])
    one = np.concatenate([where, 200 * rng.lognormal(0, 0.3, (1, 100))])
    other = np.concatenate([where + apart, 200 * rng.lognormal(0, 0.3, (1, 100))])
    both = np.concatenate([one, other], axis=1)
    by_shape = ElectronCounting(Background(np.zeros((106, 106), np.float32), 6.0), 0.5, 60.0)
    by_charge = replace(by_shape, usual=(200.0, 65.0))
    pairs, lone = (finding.draw(Events(*v), 0.5, (106, 106)) + noise for v in (both, one))
    assert len(by_charge.events(pairs)) > len(by_shape.events(pairs)) + 15
    assert len(by_charge.events(lone)) <= 103
    assert rebuild(by_charge.describe()).usual == by_charge.usual


def test_a_higher_threshold_gives_fewer_events_all_above_it(movie, counting):
    frame = movie.frames[3]
    numbers = []
    for threshold in (counting.threshold, 150.0, 250.0, 1e6):
        events = counting.with_threshold(threshold).events(frame)
        assert not len(events) or events.charge.min() > threshold
        numbers.append(len(events))
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > numbers[2] > numbers[3] == 0


def test_noise_alone_is_hardly_ever_counted(movie, counting):
    noise = np.random.default_rng(5).normal(movie.offset, movie.noise, (20, *SHAPE))
    numbers = [len(counting.events(np.rint(frame).astype(np.uint16))) for frame in noise]
    # Less than a hundredth of the electrons that there are at 0.02 e/pix.
    assert sum(numbers) <= 0.01 * 0.02 * noise.size


def test_a_threshold_and_a_spread_that_are_given_are_taken(movie):
    few = movie.frames[:4, :64, :64]
    counting = ElectronCounting.fit(few, threshold=90, spread=0.52, super_resolution=2)
    assert (counting.threshold, counting.spread, counting.super_resolution) == (90, 0.52, 2)


def test_integers_and_floats_of_the_same_values_give_the_same_counts(movie, counting):
    frame = movie.frames[1]
    wanted = counting(frame)
    for dtype in (np.int16, np.int32, np.float32, np.float64):
        np.testing.assert_array_equal(counting(frame.astype(dtype)), wanted)


def test_the_frame_is_left_as_it_was(movie, counting):
    frame = movie.frames[1].copy()
    counting(frame)
    np.testing.assert_array_equal(frame, movie.frames[1])


def test_a_frame_found_in_strips_is_the_one_found_whole(monkeypatch):
    movie = simulate_raw(5, (112, 90), dose=0.03, seed=6)
    counting = ElectronCounting.fit(movie.frames)
    whole = [counting.events(frame) for frame in movie.frames]
    monkeypatch.setattr(finding, "_STRIP", 32)
    for frame, events in zip(movie.frames, whole, strict=True):
        strips = counting.events(frame)
        assert len(strips) == len(events)
        one, other = (
            np.stack(e)[:, np.lexsort((e.x.round(2), e.y.round(2)))] for e in (events, strips)
        )
        distance, _ = cKDTree(one[:2].T).query(other[:2].T)
        assert distance.max() < 1e-3


def test_frames_that_do_not_vary_are_refused():
    with pytest.raises(ValueError, match="the frames do not vary"):
        ElectronCounting.fit(np.full((5, 20, 20), 7, np.uint16))
    with pytest.raises(ValueError, match="at least one frame"):
        ElectronCounting.fit(np.empty((0, 20, 20), np.uint16))


def test_noise_without_electrons_is_refused():
    noise = np.random.default_rng(0).normal(100, 6, (8, 64, 64)).astype(np.float32)
    with pytest.raises(ValueError, match="nothing in these frames looks like a single electron"):
        ElectronCounting.fit(noise)


def test_without_electrons_a_given_spread_and_threshold_still_count_none():
    noise = np.random.default_rng(0).normal(100, 6, (8, 64, 64)).astype(np.float32)
    counting = ElectronCounting.fit(noise, spread=0.5, threshold=120)
    assert counting(noise[0]).sum() == 0


def test_one_frame_is_enough_where_its_pixels_are_alike():
    movie = simulate_raw(1, (256, 256), dose=0.01, noise=6, seed=7)
    frame = movie.frames - np.rint(movie.offset).astype(np.int32) + 100
    counting = ElectronCounting.fit(frame)
    events = counting.events(frame[0])
    assert len(matched(movie.positions[0], events)) > 0.95 * len(movie.positions[0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 3), (5, 2)])
def test_tiny_frames_are_counted(shape):
    background = Background(np.zeros(shape, np.float32), 1.0)
    counting = ElectronCounting(background, 0.5, 20.0)
    assert counting(np.zeros(shape, np.float32)).sum() == 0
    middle = tuple(n // 2 for n in shape)
    spot = Events(*(np.array([v], np.float32) for v in (*middle, 300)))
    counts = counting(finding.draw(spot, 0.5, shape).astype(np.float32))
    assert counts[middle] == counts.sum() == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [((0.5, 50.0, 3), "1, 2 or 4, not 3"), ((0.5, 0.0, 1), "a positive charge, not 0")],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        ElectronCounting(Background(np.zeros((4, 4), np.float32), 1.0), *options)


def test_a_frame_of_another_shape_is_refused(counting):
    with pytest.raises(ValueError, match=r"a background of \(160, 144\) for a frame of \(10, 10\)"):
        counting.events(np.zeros((10, 10)))


def test_a_movie_is_counted_lazily_and_its_pixels_become_smaller(movie, counting):
    stack = nm.Stack.from_array(movie.frames, pixel_size=(1.0, 1.2, 1.2))
    fine = ElectronCounting(counting.background, counting.spread, counting.threshold, 2)
    counts = nm.count_electrons(stack, counting=fine)
    assert counts.shape == (24, 320, 288)
    assert counts.dtype == np.uint8
    assert counts.pixel_size == (1.0, 0.6, 0.6)
    np.testing.assert_array_equal(counts[3], fine(movie.frames[3]))
    np.testing.assert_array_equal(counts[3, 100:130, 7:9], fine(movie.frames[3])[100:130, 7:9])
    np.testing.assert_array_equal(counts[2:4, ::2, 5], [fine(f)[::2, 5] for f in movie.frames[2:4]])
    few = nm.Stack.from_array(movie.frames[:6, :64, :80])
    assert count_electrons(few, super_resolution=4).shape == (6, 256, 320)


def test_counts_that_were_saved_are_counted_again_bit_for_bit(movie, tmp_path):
    frames = movie.frames[:6, :96, :80]
    nm.write(tmp_path / "raw.mrcz", frames)
    with nm.open(tmp_path / "raw.mrcz") as raw:
        nm.write(tmp_path / "counts.mrcz", nm.count_electrons(raw, super_resolution=2))
        with nm.open(tmp_path / "counts.mrcz") as counts:
            again = nm.replay(counts.history, raw)
            assert again.shape == counts.shape == (6, 192, 160)
            np.testing.assert_array_equal(again, counts)
            assert np.asarray(counts).sum() > 0
            np.testing.assert_array_equal(nm.replay(counts.history, frames), counts)


def test_a_correction_that_changes_rows_and_columns_unannounced_is_refused(movie):
    class Half:
        def __call__(self, frame, index):
            return frame[::2]

        def describe(self):
            return {"name": "Half"}

    with pytest.raises(ValueError, match=r"made \(80, 144\) of a frame of \(160, 144\)"):
        nm.Stack.from_array(movie.frames).apply(Half())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f + 1j, "real numbers, not of complex64"),
        (lambda f: np.where(f > 150, np.inf, f), "not charges, such as NaN"),
        (lambda f: np.where(f > 150, np.nan, f), "not charges, such as NaN"),
        (lambda f: f * np.float32(1e20), "not charges"),
        (lambda f: f[0], r"\(n, y, x\), not in \(128, 128\)"),
        (lambda f: f[None], r"\(n, y, x\), not in \(1, 4, 128, 128\)"),
        (lambda f: "movie.mrcz", r"\(n, y, x\), not in \(\)"),
    ],
)
def test_what_are_no_raw_frames_is_refused(change, said):
    frames = simulate_raw(4, (128, 128), dose=0.01, seed=7).frames.astype(np.float32)
    with pytest.raises(ValueError, match=said):
        ElectronCounting.fit(change(frames))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1j])
def test_a_bad_frame_among_good_ones_is_refused_when_its_turn_comes(counting, movie, bad):
    frame = movie.frames[0].astype(np.result_type(type(bad), np.float32))
    frame[5, 6] = bad
    with pytest.raises(ValueError, match=r"not charges|real numbers"):
        counting.events(frame)


def one_bin(events, s, shape):
    """Bin positions as whoever reads the table does, in double precision."""
    y, x = (np.floor((np.asarray(v, np.float64) + 0.5) * s).astype(int) for v in events[:2])
    counts = np.zeros((shape[0] * s, shape[1] * s), int)
    np.add.at(counts, (y, x), 1)
    return counts


@pytest.mark.parametrize("s", [1, 2, 4])
def test_positions_and_their_text_give_the_image(movie, counting, s):
    """At every edge of a pixel, too, and those of the frame."""
    fine = ElectronCounting(counting.background, counting.spread, 40.0, s)
    for frame in movie.frames[:3]:
        events = fine.events(frame)
        text = [[float(f"{v:.3f}") for v in column.tolist()] for column in events[:2]]
        wanted = fine.counts(events)
        np.testing.assert_array_equal(one_bin(events, s, SHAPE), wanted)
        np.testing.assert_array_equal(one_bin(text, s, SHAPE), wanted)


def test_spots_on_edges_and_at_corners_stay_in_the_frame():
    shape, edge = (24, 20), []
    for y, x in ((-0.5, 7.2), (23.499, 4.5), (9.5, -0.5), (3.4999, 19.499), (12.12499, 11.87501)):
        edge.append((y, x, 500))
    spots = Events(*np.array(edge, np.float32).T)
    frame = finding.draw(spots, 0.5, shape)
    frame += np.random.default_rng(0).normal(0, 1, shape)
    counting = ElectronCounting(Background(np.zeros(shape, np.float32), 1.0), 0.5, 60.0, 4)
    events = counting.events(frame.astype(np.float32))
    assert len(events) == 5
    at = np.stack(events[:2], 1)
    distance, _ = cKDTree(np.array(edge)[:, :2]).query(at)
    # Half of a spot on the edge is lost: it is somewhere in the outermost pixel.
    assert distance.max() < 0.5
    assert distance.min() < 0.01
    np.testing.assert_array_equal(one_bin(events, 4, shape), counting.counts(events))


TROUBLED = {"row_wander": 12.0, "noisy": 0.004, "hot": 0.002, "x_rays": 2e-4}


@pytest.fixture(scope="module")
def troubled():
    """Return frames with all that goes wrong in a detector at a time, and their counting."""
    movie = simulate_raw(20, (112, 128), **TROUBLED, seed=8)
    return movie, ElectronCounting.fit(movie.frames)


def test_wander_noisy_and_hot_pixels_and_x_rays_do_little_harm(troubled):
    movie, counting = troubled
    recall, precision, rms = scores(movie, counting)
    assert recall >= 0.95  # X-rays and pixels that are set aside hide some
    assert precision >= 0.975
    assert rms <= 0.15
    background = counting.background
    assert background.noise == pytest.approx(movie.noise, rel=0.04)
    assert background.common_mode == "rows"
    assert background.wander == pytest.approx(12, rel=0.1)
    assert background.noisy[movie.noisy].mean() > 0.97
    assert background.noisy[~movie.noisy].mean() < 0.001
    bright = sum(counting.events_and_bright(frame)[1] for frame in movie.frames)
    assert bright == pytest.approx(sum(map(len, movie.x_rays)), rel=0.15)


def test_dead_pixels_are_set_aside():
    """Of a constant value they would pull the electrons beside them."""
    movie = simulate_raw(12, (96, 104), seed=15)
    dead = np.random.default_rng(0).random((96, 104)) < 0.01
    movie.frames[:, dead] = 0
    noisy = Background.fit(movie.frames).noisy
    assert noisy[dead].all()
    assert noisy[~dead].mean() < 0.002


def test_little_noise_makes_no_electrons_beside_others():
    movie = simulate_raw(5, (80, 88), noise=2.0, seed=16)
    recall, precision, _ = scores(movie, ElectronCounting.fit(movie.frames))
    assert recall >= 0.98
    assert precision >= 0.975


def test_wide_spots_are_found_though_noise_gives_them_several_brightest_pixels():
    movie = simulate_raw(8, (112, 112), spread=0.9, noise=8.0, dose=0.005, seed=18)
    recall, precision, _ = scores(movie, ElectronCounting.fit(movie.frames))
    assert recall >= 0.92
    assert precision >= 0.94


def test_offsets_of_three_frames_are_those_of_pixels_that_were_not_struck():
    movie = simulate_raw(3, (144, 152), seed=18)
    counting = ElectronCounting.fit(movie.frames)
    recall, precision, _ = scores(movie, counting)
    assert recall >= 0.975
    assert precision >= 0.98
    assert "from 3 frames" in counting.warnings[0]


def test_noisy_pixels_that_three_frames_do_not_reveal_are_said():
    hot = ElectronCounting.fit(simulate_raw(3, (144, 152), hot=0.005, seed=18).frames)
    assert "strike the same pixels again" in " ".join(hot.warnings)


def test_noise_of_single_pixels_is_not_taken_for_electrons_without_a_warning():
    rng = np.random.default_rng(0)
    own = 6 * np.exp(0.6 * rng.standard_normal((96, 96)))
    counting = ElectronCounting.fit(rng.normal(100, own, (8, 96, 96)).astype(np.float32))
    assert "single pixels" in " ".join(counting.warnings)


def test_pixels_of_a_bragg_spot_are_not_set_aside():
    """They are struck more often than those around them, but so are their neighbours."""
    movie = simulate_raw(20, (72, 72), dose=0.005, seed=20)
    rng = np.random.default_rng(0)
    frames = movie.frames.astype(np.float32)
    for frame in frames:
        at = rng.normal(36, 1, (rng.poisson(2), 2)).astype(np.float32)
        frame += finding.draw(Events(*at.T, np.full(len(at), 200, np.float32)), 0.5, (72, 72))
    noisy = Background.fit(frames).noisy
    assert noisy is None or not noisy[34:39, 34:39].any()


def test_what_is_wrong_is_said_and_kept(troubled):
    _, counting = troubled
    said = " ".join(counting.warnings)
    for wanted in ("noise of their own", "X-rays", "rows wanders"):
        assert wanted in said
    again = rebuild(counting.describe())
    assert again.warnings == counting.warnings
    np.testing.assert_array_equal(again.background.noisy, counting.background.noisy)


def test_nothing_is_said_of_good_frames(counting):
    assert counting.warnings == ()
    assert counting.background.common_mode == ""
    assert counting.expected_f1 > 0.97


def test_frames_that_are_replayed_are_the_same(troubled):
    movie, counting = troubled
    again = rebuild(counting.describe())
    np.testing.assert_array_equal(again(movie.frames[3]), counting(movie.frames[3]))


@pytest.mark.parametrize(
    "wander",
    [
        "frame_wander",
        pytest.param("column_wander", marks=pytest.mark.slow),
        pytest.param("row_wander", marks=pytest.mark.slow),
    ],
)
def test_common_mode_is_removed(wander):
    movie = simulate_raw(10, (96, 104), **{wander: 12.0}, seed=9)
    counting = ElectronCounting.fit(movie.frames)
    recall, precision, _ = scores(movie, counting)
    assert min(recall, precision) >= 0.97
    assert counting.background.common_mode == f"{wander.removesuffix('_wander')}s"
    assert "wanders" in " ".join(counting.warnings)


@pytest.mark.parametrize(
    ("noise", "least"), [(16, 0.905), pytest.param(22, 0.80, marks=pytest.mark.slow)]
)
def test_much_read_noise_is_told_and_costs_as_little_as_can_be(noise, least):
    movie = simulate_raw(12, (112, 112), noise=noise, seed=10)
    counting = ElectronCounting.fit(movie.frames)
    recall, precision, _ = scores(movie, counting)
    f1 = 2 * recall * precision / (recall + precision)
    assert f1 >= least
    assert counting.expected_f1 == pytest.approx(f1, abs=0.08)
    assert "The read noise is" in " ".join(counting.warnings)


def test_narrow_spots_are_as_often_in_one_quarter_of_a_pixel_as_in_another():
    movie = simulate_raw(12, (112, 112), spread=0.28, seed=12)
    counting = ElectronCounting.fit(movie.frames)
    assert counting.spread == pytest.approx(0.28, rel=0.06)
    found = [counting.events(frame) for frame in movie.frames]
    inside = np.concatenate([(at + 0.5) % 1 for events in found for at in events[:2]])
    number, _ = np.histogram(inside, 4, (0, 1))
    share = number / number.mean()
    assert share.min() > 0.93
    assert share.max() < 1.07


def test_the_threshold_is_where_mistakes_are_fewest():
    """Of charges and noise whose distributions are known."""
    rng = np.random.default_rng(0)
    noise, n = 30.0, 20_000
    charges = 200 * rng.lognormal(0, 0.3, n) + rng.normal(0, noise, n)
    false = np.abs(rng.normal(0, noise, (2, 400_000)))
    wrong, other = (values[values > 90] for values in false)
    found = np.concatenate([charges[charges > 90], other])
    expected = electron_threshold(found, wrong, 90.0, noise)
    tried = np.arange(90, 200.0)
    mistakes = [(np.sum(charges < t) + np.sum(other > t)) / np.sum(charges > t) for t in tried]
    best = int(np.argmin(mistakes))
    now = int(expected.threshold - 90)
    assert mistakes[now] < 1.06 * mistakes[best]
    assert expected.recall == pytest.approx(np.mean(charges > expected.threshold), abs=0.01)
    right = np.sum(charges > expected.threshold)
    precision = right / (right + np.sum(other > expected.threshold))
    assert expected.precision == pytest.approx(precision, abs=0.005)


def test_the_upper_threshold_is_above_nearly_all_electrons():
    charges = 200 * np.random.default_rng(0).lognormal(0, 0.3, 20_000)
    upper = upper_threshold(charges)
    assert np.mean(charges > upper) < 1e-3
    assert upper < 5 * 200
    x_rays = np.random.default_rng(1).uniform(1600, 8000, 1500)
    assert upper_threshold(np.concatenate([charges, x_rays])) < 1600
    # A tail that never ends hides X-rays.
    assert upper_threshold(200 * np.random.default_rng(0).pareto(1.0, 20_000)) is None


@pytest.mark.parametrize("dose", [0.01, 0.5, 4.0])
def test_counted_movies_are_refused_unless_forced(dose):
    counts = np.random.default_rng(0).poisson(dose, (6, 96, 96)).astype(np.uint8)
    with pytest.raises(CountedAlready, match="counted already"):
        ElectronCounting.fit(counts)
    with pytest.raises(CountedAlready):
        ElectronCounting.fit(16 * counts.astype(np.float32))


def test_raw_frames_with_noise_like_that_of_counts_are_not_refused():
    movie = simulate_raw(6, (80, 88), charge=100.0, noise=3.0, dose=0.01, seed=17)
    frames = (movie.frames - np.rint(0.75 * movie.offset) - 9).clip(0, 255).astype(np.uint8)
    assert tiles_look_counted(frames[:5])
    assert ElectronCounting.fit(frames).warnings == ()


def test_counted_movies_are_counted_if_that_is_forced():
    counts = np.random.default_rng(0).poisson(1, (6, 72, 72)).astype(np.uint8)
    with pytest.warns(nm.MrczWarning, match="counted already"):
        forced = nm.count_electrons(nm.Stack.from_array(counts), force=True)
    assert "counted already" in forced.history[0]["warnings"][0]


def test_frames_without_noise_are_refused():
    frames = simulate_raw(6, (64, 64), seed=7).frames.astype(np.int32) - 130
    with pytest.raises(ValueError, match="exactly 0"):
        ElectronCounting.fit(frames.clip(0))


def test_what_is_less_sure_than_usual_is_said():
    """Few frames, wide spots, read noise, and bright spots that are taken for noisy pixels."""
    few, wide, noisy, bright = (
        simulate_raw(n, (96, 96), dose=0.02, spread=spread, noise=noise, seed=5).frames
        for n, spread, noise in ((3, 0.5, 6), (8, 0.8, 6), (8, 0.5, 13), (8, 0.5, 6))
    )
    bright[:, 40:44, 50:54] += np.random.default_rng(0).poisson(3, (8, 4, 4)).astype("u2") * 200
    for frames, said in (
        (few, "from 3 frames"),
        (wide, "spread of 0.8 pixel"),
        (noisy, "read noise"),
        (bright, "1 group of 6 or more pixels"),
    ):
        assert said in " ".join(ElectronCounting.fit(frames).warnings)


@pytest.mark.parametrize("dose", [0.08, pytest.param(0.4, marks=pytest.mark.slow)])
def test_a_dose_that_is_too_high_is_said(dose):
    movie = simulate_raw(6, (64, 64), dose=dose, seed=13)
    assert "too high" in ElectronCounting.fit(movie.frames).warnings[0]


@pytest.mark.parametrize(
    ("spread", "numbers", "digest"),
    [(0.5, [304, 299], "0d583afaaee8844e"), (0.3, [362, 368], "989f4817ebf0ed19")],
)
def test_what_the_first_version_counted_is_counted_again(spread, numbers, digest):
    """Bit for bit, of a history without any of the later keys."""
    movie = simulate_raw(2, (96, 112), dose=0.03, seed=11)
    step = {
        "name": "ElectronCounting", "offset": movie.offset.astype(np.float32), "noise": 6.0,
        "spread": spread, "threshold": 60.0, "super_resolution": 4,
    }  # fmt: skip
    counts = nm.replay([step], movie.frames)
    assert counts.sum(axis=(1, 2)).tolist() == numbers
    assert xxhash.xxh3_64(counts.tobytes()).hexdigest() == digest


def test_wide_spots_that_earlier_versions_counted_are_counted_again():
    movie = simulate_raw(1, (96, 112), spread=0.9, dose=0.03, seed=11)
    step = {
        "name": "ElectronCounting", "offset": movie.offset.astype(np.float32), "noise": 6.0,
        "spread": 0.9, "threshold": 60.0, "super_resolution": 4, "rules": 2, "usual": [200, 60],
    }  # fmt: skip
    counts = nm.replay([step], movie.frames)
    assert (counts.sum(), xxhash.xxh3_64(counts.tobytes()).hexdigest()) == (307, "81cef5119ccd8ce7")
    assert nm.replay([{**step, "rules": 3}], movie.frames).sum() > counts.sum()


def test_blank_and_saturated_frames_harm_no_others_and_have_no_electrons():
    movie = simulate_raw(10, (96, 104), seed=14)
    frames = movie.frames.copy()
    frames[0], frames[2], frames[5], frames[7] = 0, 0, 65535, 100
    counting = ElectronCounting.fit(frames)
    (said,) = counting.warnings
    assert "4 frames (0, 2, 5, 7)" in said
    for index, where in enumerate(movie.positions):
        n_found = len(counting.events(frames[index]))
        if index in (0, 2, 5, 7):
            assert n_found == 0
        else:
            assert n_found == pytest.approx(len(where), rel=0.1)
