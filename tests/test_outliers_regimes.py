"""The outlier filter where a movie is not one of constant dose with single bad pixels."""

import re
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter

from napari_mrcz.correction import OutlierFilter, rebuild
from napari_mrcz.simulation import Camera, Specimen, simulate_movie
from napari_mrcz.stack import Stack

SHAPE = (256, 256)
ICE = Specimen(contrast=0.04)
slow = pytest.mark.slow
SEEDS = [1, pytest.param(2, marks=slow)]


def camera(seed, shape=SHAPE, **changes):
    return Camera.ideal(shape, seed=seed, **{"hot": 0.003, "clustered": 0.0, **changes})


@cache
def simulate(seed, n_frames=30, dose=4.0, specimen=ICE, drift=0.0, **changes):
    made = camera(seed, **changes)
    return simulate_movie(
        n_frames, camera=made, dose=dose, specimen=specimen, drift=drift, dtype=np.uint16, seed=seed
    )


def f1(mask, truth):
    return 2 * np.count_nonzero(mask & truth) / (np.count_nonzero(mask) + np.count_nonzero(truth))


def expected_as_found(fitted, truth):
    """Check the false positives that are expected, up to a factor of two and to chance."""
    false = np.count_nonzero((fitted.mask != 0) & ~truth)
    expected = fitted.false_hot + fitted.false_dark
    return false <= 2 * expected + 4 * expected**0.5 + 4 and expected <= 2 * false + 8


# Clusters and lines ------------------------------------------------------------------------------


@pytest.mark.parametrize("dose", [1.0, 4.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_clusters_and_lines_are_found(seed, dose):
    movie = simulate(seed, 40, dose, clusters=(2, 3, 4, 5) * 2, lines=(1, 2, 3))
    fitted = OutlierFilter.fit(movie.frames)
    found, truth = fitted.mask != 0, movie.defects.outliers
    assert f1(found, truth) >= 0.98
    blocks = movie.camera.sites().blocks
    for place in blocks.hot + blocks.dead:
        assert found[place].mean() >= 0.9
    assert np.all(fitted.mask[blocks.dead[0]] == -1)
    assert expected_as_found(fitted, truth)


def test_a_line_is_found_where_too_little_is_counted_to_tell_and_not_where_it_is_interrupted():
    """Where 5 electrons are expected, nothing at all is no rare count of a good pixel."""
    rate = np.full((384, 320), 10.0)
    rate[224:256, 80:140] = 5.0
    rate[300:332, 200:300] = 5.0
    bad = np.zeros(rate.shape, bool)
    bad[:, 100:102] = bad[130, 20:260] = True
    bad[130, 150:156] = False  # a line in two parts
    rate[bad] *= 0
    bad[310:312, 40:300] = True  # a bright one, weak in the thin part
    rate[310:312, 40:300] *= 3
    sum_of_40 = np.random.default_rng(4).poisson(rate)
    share = np.random.default_rng(5).multinomial(sum_of_40, [1 / 4] * 4)
    fitted = OutlierFilter.fit(np.moveaxis(share, -1, 0).astype(np.uint8))
    found = fitted.mask != 0
    assert np.all(found[:, 100:102])
    assert not np.any(found[130, 150:156])
    assert found[310:312, 40:300].mean() > 0.98


def test_dead_clusters_are_found_in_read_noise_and_beside_dim_pixels():
    rng = np.random.default_rng(4)
    rate, dead = np.full((256, 256), 10.0), np.zeros((256, 256), np.bool_)
    for row in range(12, 244, 12):
        for size, column in ((2, 50), (3, 130), (5, 200)):
            dead[row : row + size, column : column + size] = True
            rate[row + size, column - 1] = 1.0
    rate[dead] = 0
    frames = rng.poisson(rate, (4, *rate.shape))
    fitted = OutlierFilter.fit(frames.astype(np.uint8))
    assert fitted.mask[dead].all()
    noisy = np.rint(30 * frames + rng.normal(0, 25, frames.shape)).astype(np.int16)
    fitted = OutlierFilter.fit(noisy)
    assert (fitted.mask[dead] != 0).mean() > 0.98
    assert np.count_nonzero(fitted.mask) <= 1.1 * np.count_nonzero(rate < 5)


@pytest.mark.parametrize("level", [0.0, 3.0])
def test_strong_lines_are_found_to_their_ends_and_no_further(level):
    """They make the blocks that they are in wide, which hides no part of them."""
    rng = np.random.default_rng(5)
    lines = np.zeros((256, 256), np.bool_)
    lines[40:231, 70:73] = lines[:, 80:83] = lines[:213, 200] = lines[120, :] = True
    lines[30, 100:165] = lines[200:202, 10:61] = True
    rate = np.where(lines, level, 1.0)
    hot = (rng.random(rate.shape) < 0.002) & ~lines
    rate[hot] = rng.uniform(2, 5, np.count_nonzero(hot))
    fitted = OutlierFilter.fit(rng.poisson(6 * rate, (5, *rate.shape)).astype(np.uint8))
    found = fitted.mask != 0
    assert found[lines].mean() > 0.98
    assert np.count_nonzero(found & ~lines & ~hot) <= 20


@pytest.mark.parametrize(
    ("n_frames", "dose", "excess"),
    [(40, 1.0, 0.3), (40, 0.25, 0.5), (30, 4.0, -0.2), pytest.param(30, 4.0, 0.2, marks=slow)],
)
def test_weak_lines_are_found_as_a_whole(n_frames, dose, excess):
    """No pixel of them is an outlier on its own."""
    rng = np.random.default_rng(3)
    lines = np.zeros((200, 260), np.bool_)
    lines[:, 50] = lines[:, 120:122] = lines[150, :] = True
    rate = dose * np.where(lines, 1 + excess, 1.0)
    frames = rng.poisson(rate, (n_frames, *rate.shape)).astype(np.uint8)
    fitted = OutlierFilter.fit(frames)
    assert f1(fitted.mask != 0, lines) > 0.95
    assert np.all(fitted.mask[lines & (fitted.mask != 0)] == np.sign(excess))
    assert not any("lattice" in said for said in fitted.warnings)
    plain = OutlierFilter.fit(rng.poisson(np.full_like(rate, dose), frames.shape).astype(np.uint8))
    assert plain.n_hot + plain.n_dark <= 8


AREAS = {
    "dead": (np.s_[60:66, 40:46], 0.0),
    "dead block": (np.s_[90:120, 100:150], 0.0),
    "wide line": (np.s_[:, 70:78], 0.0),
    "hot": (np.s_[31:43, 120:129], 3.0),
}


@pytest.mark.parametrize("kind", [*AREAS, "stuck"])
@pytest.mark.parametrize("counts", [1, 30])
def test_areas_wider_than_a_line_are_replaced_and_named(kind, counts):
    rng = np.random.default_rng(6)
    place, level = AREAS.get(kind, (np.s_[:30, 150:], 1.0))
    rate = np.full((160, 200), 5.0)
    rate[place] *= level
    electrons = rng.poisson(rate, (4, *rate.shape))
    frames = np.rint(counts * electrons + (counts > 1) * rng.normal(0, 8, electrons.shape))
    frames = frames.astype(np.int16)
    if kind == "stuck":
        frames[(slice(None), *place)] = 1000
    fitted = OutlierFilter.fit(frames)
    bad = np.zeros(rate.shape, np.bool_)
    bad[place] = True
    assert np.all(fitted.mask[bad])
    assert np.count_nonzero(fitted.mask[~bad]) <= 5
    rows, columns = (
        np.arange(length)[part] for length, part in zip(rate.shape, place, strict=True)
    )
    (said,) = [warning for warning in fitted.warnings if "Wider than a line" in warning]
    assert f"rows {rows[0]} to {rows[-1]}, columns {columns[0]} to {columns[-1]} " in said
    filled = np.mean([fitted(frame, index)[bad].mean() for index, frame in enumerate(frames)])
    assert filled == pytest.approx(5 * counts, rel=0.1)


def test_areas_that_may_be_shadows_or_pictures_are_only_named():
    rate = np.full((160, 200), 5.0)
    rate[:40, 150:] = 0
    frames = np.random.default_rng(6).poisson(rate, (4, *rate.shape)).astype(np.uint8)
    fitted = OutlierFilter.fit(frames)
    assert not fitted.mask[:40, 150:].any()
    assert any("rows 0 to 39, columns 150 to 199 count nothing" in w for w in fitted.warnings)
    known = OutlierFilter.fit(frames, defects=rate == 0)
    assert not any("rows" in warning for warning in known.warnings)
    rate = np.full((160, 200), 5.0)
    rate[60:100, 50:150] *= 2.2
    frames = np.random.default_rng(6).poisson(rate, (4, *rate.shape)).astype(np.uint8)
    fitted = OutlierFilter.fit(frames)
    assert np.count_nonzero(fitted.mask[60:100, 50:150]) < 40
    assert any("rows 60 to 99, columns 50 to 149 count 2.2 times" in w for w in fitted.warnings)


@pytest.mark.parametrize("blur", [0.0, 0.5])
def test_gold_apertures_and_beam_stops_are_no_areas(blur):
    y, x = np.mgrid[:200, :240]
    aperture = np.hypot(y - 90, x - 110) > 130
    gold = (np.hypot(y - 60, x - 60) < 12) | (np.hypot(y - 130.3, x - 150.4) < 5)
    far = np.hypot(y - 100, x - 120)
    stop = ((np.abs(y - 100) < 9) & (x < 120)) | (far < 14)
    rng = np.random.default_rng(8)
    for shade, beam in ((aperture, 1.0), (gold, 1.0), (stop, 0.1 + 3 * np.exp(-far / 30))):
        through = 1 - gaussian_filter(shade.astype(float), blur)
        frames = rng.poisson(10 * through * beam, (4, *shade.shape)).astype(np.uint8)
        fitted = OutlierFilter.fit(frames)
        assert not any("Wider than a line" in warning for warning in fitted.warnings)
        assert shade is aperture or np.mean(fitted.mask[shade] != 0) < 0.005


def test_a_partial_line_is_found_to_its_ends_on_carbon():
    rng = np.random.default_rng(9)
    carbon = np.where(np.arange(300) > 140, 0.65, 1.0) * np.ones((260, 1))
    lines = np.zeros(carbon.shape, np.bool_)
    lines[30:141, 60] = lines[100:210, 200:202] = lines[220, 90:230] = True
    for excess in (0.6, 1.5):
        rate = 10 * carbon * (1 + excess * lines)
        fitted = OutlierFilter.fit(rng.poisson(rate, (4, *rate.shape)).astype(np.uint8))
        found = fitted.mask != 0
        assert found[lines].mean() > 0.9
        assert np.count_nonzero(found & ~lines) <= 20


@pytest.mark.parametrize("side", [3, 5, 10])
@pytest.mark.parametrize("seed", SEEDS)
def test_beads_are_left_alone(seed, side):
    specimen = Specimen(contrast=0.04, beads=40, bead_diameter=1.35 * side)
    movie = simulate(seed, specimen=specimen)
    fitted = OutlierFilter.fit(movie.frames)
    truth = movie.defects.outliers
    inside = (movie.rate < 0.6 * movie.dose) & ~truth
    assert inside.sum() > 30 * side
    # A pixel of hundreds may be one by chance.
    assert np.count_nonzero(fitted.mask[inside]) <= max(1, 0.005 * inside.sum())
    assert f1(fitted.mask != 0, truth) >= 0.98


@pytest.mark.parametrize(("n_frames", "dose"), [(30, 4.0), (30, 1.0)])
def test_beads_of_two_by_two_pixels_are_left_alone(n_frames, dose):
    rng = np.random.default_rng(3)
    rate, beads = np.full((160, 160), dose), np.zeros((160, 160), np.bool_)
    for row, column in rng.integers(0, 158, (30, 2)):
        beads[row : row + 2, column : column + 2] = True
    rate[beads] *= 0.2
    dead = (rng.random(rate.shape) < 1e-3) & ~beads
    frames = rng.poisson(np.where(dead, 0, rate), (n_frames, *rate.shape)).astype(np.uint8)
    fitted = OutlierFilter.fit(frames)
    assert np.count_nonzero(fitted.mask[beads]) <= 2
    assert fitted.mask[dead].all()


@pytest.mark.parametrize(("counts", "diameter"), [(1, 5.0), (30, 4.0)])
def test_beads_that_count_next_to_nothing_are_left_alone(counts, diameter):
    """In the sum some of their pixels have no electrons at all."""
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:256, :256]
    through = np.ones(SHAPE)
    for row, column in rng.uniform(0, 256, (100, 2)):
        shade = np.clip(diameter / 2 + 0.5 - np.hypot(y - row, x - column), 0, 1)
        through = np.minimum(through, 1 - 0.9 * shade)
    electrons = rng.poisson((10 if counts == 1 else 20) / 8 * through, (8, *SHAPE))
    frames = np.rint(counts * electrons + (counts > 1) * rng.normal(0, 8, electrons.shape))
    fitted = OutlierFilter.fit(frames.astype(np.int16))
    assert np.mean(fitted.mask[through < 0.95] != 0) < 0.005


def test_bright_crystals_wider_than_a_line_are_left_alone():
    y, x = np.mgrid[:256, :256] % 64 - 32
    bright = (np.abs(0.9 * y + 0.44 * x) < 5) & (np.abs(0.9 * x - 0.44 * y) < 7)
    rate = 2 * gaussian_filter(1 + 0.8 * bright, 0.8)
    frames = np.random.default_rng(1).poisson(rate, (40, *SHAPE)).astype(np.uint8)
    assert np.count_nonzero(OutlierFilter.fit(frames).mask) < 0.05 * np.count_nonzero(bright)


def test_soft_beads_are_left_alone():
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:256, :256]
    beads = np.zeros(SHAPE)
    for row, column in rng.uniform(0, 256, (40, 2)):
        beads = np.maximum(beads, np.exp(-((y - row) ** 2 + (x - column) ** 2) / 6))
    fitted = OutlierFilter.fit(rng.poisson(1 - 0.8 * beads, (40, *SHAPE)).astype(np.uint8))
    assert np.count_nonzero(fitted.mask[beads > 0.2]) <= 3


def test_what_few_electrons_do_not_tell_is_warned_of():
    fitted = OutlierFilter.fit(simulate(1, 10, 0.5).frames)
    assert any("electrons per pixel" in said for said in fitted.warnings)


def test_hot_pixels_of_a_single_frame_are_no_noise():
    rng = np.random.default_rng(2)
    hot = rng.random(SHAPE) < 0.03
    frame = rng.poisson(np.where(hot, rng.uniform(40, 400, SHAPE), 8.0))[None].astype(np.uint16)
    fitted = OutlierFilter.fit(frame)
    assert fitted.replacement.per_electron == 1
    assert f1(fitted.mask != 0, hot) > 0.98


@pytest.mark.parametrize("dark", [0.0, 0.02, 0.65], ids=["aperture", "leaky", "carbon"])
@pytest.mark.parametrize("seed", SEEDS)
def test_edges_are_left_alone(seed, dark):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:256, :256]
    outside = np.hypot(y - 110, x - 135) > 118
    excess = np.where((rng.random(SHAPE) < 0.003) & ~outside, rng.uniform(0.6, 3, SHAPE), 0)
    rate = 4 * (np.where(outside, dark, 1.0) + excess)
    fitted = OutlierFilter.fit(rng.poisson(rate, (30, *SHAPE)).astype(np.uint8))
    edge = binary_dilation(outside, iterations=3) & binary_dilation(~outside, iterations=3)
    edge &= excess == 0
    assert np.count_nonzero(fitted.mask[edge]) < 0.005 * edge.sum()
    assert f1(fitted.mask != 0, excess > 0) >= 0.95


# Fine real structure -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amplitude", "spacing"),
    [(0.1, 4.3), (0.2, 2.6), *(pytest.param(*p, marks=slow) for p in ((0.1, 2.6), (0.2, 4.3)))],
)
def test_lattice_fringes_stay(amplitude, spacing):
    specimen = Specimen(contrast=0.04, fringes=amplitude, fringe_spacing=1.35 * spacing)
    movie = simulate(3, specimen=specimen)
    fitted = OutlierFilter.fit(movie.frames)
    truth = movie.defects.outliers
    assert f1(fitted.mask != 0, truth) >= 0.98
    assert expected_as_found(fitted, truth)
    fringes = movie.rate - movie.rate.mean()
    before = movie.frames.sum(axis=0, dtype=float)
    after = sum(fitted(frame, index).astype(float) for index, frame in enumerate(movie.frames))
    good = ~truth
    kept = (after * fringes)[good].sum() / (before * fringes)[good].sum()
    assert kept == pytest.approx(1, abs=0.02)
    assert any("lattice" in said for said in fitted.warnings)


def sweep(seed, n_frames=30):
    """Return frames, what the Bragg spots add on average, and which pixels are hot."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:256, :256]
    background = 1 + 6 * np.exp(-np.hypot(y - 128, x - 128) / 30)
    excess = np.where(rng.random(SHAPE) < 0.002, rng.uniform(1, 6, SHAPE), 0)
    spots = np.zeros((n_frames, *SHAPE))
    for _ in range(120):
        at, row, column = rng.uniform(0, n_frames), *rng.uniform(8, 248, 2)
        profile = np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2) / (2 * np.pi)
        strength = 300 * rng.exponential()
        for frame in range(n_frames):
            part = np.exp(-((frame - at) ** 2))
            if part > 1e-3:
                spots[frame] += strength * part * profile
    frames = rng.poisson(background + excess + spots).astype(np.uint16)
    return frames, background, spots.sum(axis=0), excess > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_bragg_spots_of_a_sweep_stay(seed):
    frames, background, spots, hot = sweep(seed)
    fitted = OutlierFilter.fit(frames)
    after = sum(fitted(frame, index).astype(float) for index, frame in enumerate(frames))
    where = (spots > 1) & ~hot
    bare = len(frames) * background[where]
    kept = (after[where] - bare) @ spots[where]
    assert kept >= 0.98 * (frames.sum(axis=0)[where] - bare) @ spots[where]
    assert (fitted.mask[hot] == 1).mean() > 0.85
    assert expected_as_found(fitted, hot)
    assert any("diffraction" in said for said in fitted.warnings)


def test_the_spots_of_a_still_crystal_stay():
    rng = np.random.default_rng(3)
    rate = np.full(SHAPE, 3.0)
    y, x = np.mgrid[:256, :256]
    for row, column in rng.uniform(10, 246, (60, 2)):
        rate += 60 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2)
    spots, hot = rate > 6, rng.random(SHAPE) < 0.001
    frames = rng.poisson(np.where(hot, rate + 9, rate), (8, *SHAPE)).astype(np.uint16)
    fitted = OutlierFilter.fit(frames)
    assert np.count_nonzero(fitted.mask[spots & ~hot]) < 0.01 * spots.sum()
    assert np.mean(fitted.mask[hot & ~spots] == 1) > 0.9
    assert any("diffraction" in said for said in fitted.warnings)


def test_a_hot_cluster_does_not_grow_where_the_camera_counts_more():
    y, x = np.mgrid[:256, :256]
    sensitivity = 1 + np.exp(-((y - 200) ** 2 + (x - 60) ** 2) / 20)
    rate = 3 * sensitivity
    rate[200:202, 60:62] *= 4
    frames = np.random.default_rng(2).poisson(rate, (20, 256, 256)).astype(np.uint8)
    found = OutlierFilter.fit(frames, gain=1 / sensitivity).mask == 1
    assert found[200:202, 60:62].all() and np.count_nonzero(found) <= 8


def test_dead_lines_at_the_border_are_found():
    rate = np.full(SHAPE, 3.0)
    rate[:2] = rate[:, -3:] = 0
    frames = np.random.default_rng(1).poisson(rate, (12, *SHAPE)).astype(np.uint8)
    assert np.all((OutlierFilter.fit(frames).mask == -1)[rate == 0])


def test_a_pixel_that_an_x_ray_hit_is_no_spot():
    movie = simulate(1)
    frames = movie.frames.copy()
    frames[7, 100, 120] += 100
    assert OutlierFilter.fit(frames).mask[100, 120] == 1


def test_pixels_that_seldom_flicker_are_hot_and_groups_that_do_are_named():
    rng = np.random.default_rng(4)
    frames = rng.poisson(1.0, (40, *SHAPE)).astype(np.uint16)
    on = rng.random((40, 13, 13)).argsort(axis=0) < 4
    frames[:, 8::20, 8::20] += (on * rng.poisson(20, on.shape)).astype(np.uint16)
    frames[3, 100:102, 90:92] += 200
    fitted = OutlierFilter.fit(frames)
    assert (fitted.mask[8::20, 8::20] == 1).mean() > 0.95
    assert "X-rays" in " ".join(fitted.warnings) and not fitted.mask[100:102, 90:92].any()


def test_dead_pixels_are_found_however_many_electrons_there_are():
    rng = np.random.default_rng(1)
    rate = 6000 * (1 + gaussian_filter(rng.standard_normal(SHAPE), 4))
    frames = rng.poisson(rate, (1, *SHAPE)).astype(np.uint16)
    frames[:, 8::20, 8::20] = 0
    assert (OutlierFilter.fit(frames).mask[8::20, 8::20] == -1).all()


def test_pixels_that_flicker_are_hot():
    movie = simulate(2, flicker=1.0, hot_excess=(1.5, 3.0))
    assert f1(OutlierFilter.fit(movie.frames).mask != 0, movie.defects.outliers) > 0.98


# Frames, and what an electron counts -------------------------------------------------------------


@pytest.mark.parametrize(
    ("places", "kind"),
    [
        ((0, 1), "blank"),
        ((9, 20), "saturated"),
        ((0, 29), "noise"),
        ((9, 20), "flash"),
        *(
            pytest.param(places, kind, marks=slow)
            for places in ((0, 1), (9, 20), (0, 29))
            for kind in ("blank", "saturated", "noise", "flash")
        ),
    ],
)
def test_any_two_frames_may_be_bad(places, kind):
    movie = simulate(1, shape=(128, 128), hot=0.006)
    frames = movie.frames.copy()
    rng = np.random.default_rng(5)
    bad = {
        "blank": np.zeros((128, 128)),
        "saturated": np.full((128, 128), 65535),
        "noise": rng.integers(0, 255, (128, 128)),
        "flash": rng.poisson(10 * movie.expected),
    }[kind]
    frames[list(places)] = bad
    fitted = OutlierFilter.fit(frames)
    assert fitted.replacement.per_electron == 1
    # Of a hundred outliers a pixel or two is chance.
    without = OutlierFilter.fit(np.delete(movie.frames, places, axis=0))
    truth = movie.defects.outliers
    assert f1(fitted.mask != 0, truth) > f1(without.mask != 0, truth) - 0.025
    if kind in ("saturated", "noise"):
        assert str(places)[1:-1] in fitted.warnings[0]
        stack = Stack.from_array(frames)
        np.testing.assert_array_equal(OutlierFilter.fit(stack).mask, fitted.mask)
        stack.close()


@pytest.mark.parametrize(
    ("counts", "pedestal", "noise", "dose"),
    [
        (1, 1000, 0, 4.0),
        (30, 1000, 5, 1.0),
        (30, 0, 5, 4.0),
        pytest.param(8, 100, 0, 1.0, marks=slow),
        pytest.param(1, 1000, 0, 1.0, marks=slow),
        pytest.param(8, 100, 0, 4.0, marks=slow),
        pytest.param(30, 1000, 5, 4.0, marks=slow),
        pytest.param(30, 0, 5, 1.0, marks=slow),
    ],
)
def test_a_pedestal_is_measured(counts, pedestal, noise, dose):
    plain = simulate(1, 40, dose)
    truth = plain.defects.outliers
    made = simulate(1, 40, dose, counts_per_electron=counts, pedestal=pedestal, read_noise=noise)
    # Half of the noise of a pixel without pedestal is cut off.
    frames = made.frames if pedestal else made.frames.astype(np.int32)
    fitted = OutlierFilter.fit(frames)
    replaced = fitted.replacement
    assert replaced.pedestal == pytest.approx(pedestal, abs=0.2 * counts * dose)
    assert replaced.per_electron == pytest.approx(counts, rel=0.12)
    without = f1(OutlierFilter.fit(plain.frames).mask != 0, truth)
    assert f1(fitted.mask != 0, truth) > without - 0.01
    every = replaced.pixels[replaced.weights == 0]
    filled = np.mean([fitted(f, i).reshape(-1)[every].mean() for i, f in enumerate(frames)])
    assert filled == pytest.approx(pedestal + counts * dose, abs=0.05 * counts * dose)
    given = OutlierFilter.fit(frames, pedestal=float(pedestal), counts_per_electron=float(counts))
    assert given.replacement.pedestal == pedestal


def test_a_pedestal_that_cannot_be_measured_is_asked_for():
    movie = simulate(1, 2)
    assert any("pedestal" in said for said in OutlierFilter.fit(movie.frames + 1000).warnings)
    known = OutlierFilter.fit(movie.frames + 1000, pedestal=1000.0)
    assert known.warnings == OutlierFilter.fit(movie.frames).warnings == ()


# Fill --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("doses", "fill"),
    [
        ("falling", "sample"),
        ("tilt", "expectation"),
        ("blank", "sample"),
        pytest.param("falling", "expectation", marks=slow),
        pytest.param("tilt", "sample", marks=slow),
        pytest.param("blank", "expectation", marks=slow),
    ],
)
def test_what_is_filled_in_follows_its_frame(doses, fill):
    doses = {
        "falling": np.linspace(3, 0.5, 12),
        "tilt": 2 * np.cos(np.linspace(-1.1, 1.1, 12)),
        "blank": np.where(np.arange(12) < 2, 0, 1.5),
    }[doses]
    movie = simulate(1, 12, tuple(doses), shape=(384, 384), hot=0.01, hot_excess=(2.0, 4.0))
    defects = np.zeros((384, 384), np.bool_)
    defects[:, 300:304] = defects[:, 100:104] = True
    fitted = OutlierFilter.fit(movie.frames, defects=defects, fill=fill)
    put = fitted.replacement
    outliers = put.pixels[(put.weights == 0) & (put.kinds != 2)]
    good = (fitted.mask == 0) & ~movie.defects.outliers
    for index, frame in enumerate(movie.frames):
        out = fitted(frame, index)
        if doses[index] == 0:
            assert not out.any()
            continue
        for some in (out.reshape(-1)[outliers], out[defects]):
            # Or four standard errors of what is drawn, where that is more.
            error = max(0.05, 4 / (doses[index] * some.size) ** 0.5)
            assert some.mean() / out[good].mean() == pytest.approx(1, abs=error)


def test_what_is_filled_in_follows_its_part_of_the_frame():
    rng = np.random.default_rng(1)
    right = np.arange(256) >= 128
    rates = [np.where(right, 4.0, 1.0), np.where(right, 1.0, 4.0)] * 6
    frames = np.stack([rng.poisson(np.broadcast_to(rate, SHAPE)) for rate in rates])
    defects = rng.random(SHAPE) < 0.05
    fitted = OutlierFilter.fit(frames.astype(np.uint8), defects=defects)
    for index, rate in enumerate(rates):
        out = fitted(frames[index].astype(np.uint8), index)
        for half in (right, ~right):
            some = defects & half & (np.abs(np.arange(256) - 128) > 32)
            assert out[some].mean() == pytest.approx(rate[half][0], rel=0.12)


def test_two_movies_share_no_noise():
    movies = [
        simulate_movie(6, camera=camera(4, hot=0.05), dose=2.0, dtype=np.uint16, seed=seed)
        for seed in (1, 2)
    ]
    defects = movies[0].defects.outliers
    fits = [OutlierFilter.fit(movie.frames, defects=defects) for movie in movies]
    # Nor do they where one was fitted and used for both.
    for one, other in ((fits[0], fits[1]), (fits[0], fits[0])):
        drawn = [
            np.stack([fit(frame, index)[defects] for index, frame in enumerate(movie.frames)])
            for fit, movie in zip((one, other), movies, strict=True)
        ]
        assert abs(np.corrcoef(drawn[0].ravel(), drawn[1].ravel())[0, 1]) < 0.05
    again = OutlierFilter.fit(movies[0].frames, defects=defects)
    np.testing.assert_array_equal(again(movies[0].frames[3], 3), fits[0](movies[0].frames[3], 3))


def test_a_description_of_the_first_version_is_replayed():
    """It knew neither levels of frames, nor a pedestal, nor warnings."""
    movie = simulate(1, 6)
    description = OutlierFilter.fit(movie.frames).describe()
    new = rebuild(description)
    del description["warnings"], description["replacement"]["levels"]
    del description["replacement"]["pedestal"]
    old = rebuild(description)
    assert old.warnings == ()
    # Its draws are the same in any frame with that index.
    assert old(np.zeros(SHAPE, np.uint16), 2).sum() > 0
    assert new(np.zeros(SHAPE, np.uint16), 2).sum() == 0


def test_all_is_well_where_it_is():
    for seed in (1, 2):
        assert OutlierFilter.fit(simulate(seed).frames).warnings == ()


def test_a_fixed_pattern_is_said():
    movie = simulate(1, pixel=0.1)
    assert any("gain reference" in said for said in OutlierFilter.fit(movie.frames).warnings)
    gain = movie.camera.gain_reference**movie.gamma
    assert OutlierFilter.fit(movie.frames, gain=gain).warnings == ()


@pytest.mark.parametrize("level", [0.5, 3.0])
def test_borders_of_another_level_are_named(level):
    rate = np.ones((256, 224))
    rate[-2:] *= level
    rate[:, :1] *= level
    rate[5:7] = 0  # no border
    frames = np.random.default_rng(3).poisson(rate, (20, 256, 224)).astype(np.uint8)
    fitted = OutlierFilter.fit(frames)
    (said,) = [warning for warning in fitted.warnings if "border" in warning]
    levels = re.search(r"rows 254 to 255 \((.+?) times\), column 0 \((.+?) times\)\.", said)
    assert [float(found) for found in levels.groups()] == pytest.approx([level] * 2, rel=0.05)
    known = rate != 1
    assert np.mean(fitted.mask[known] != 0) > 0.98
    assert np.count_nonzero(fitted.mask[~known]) <= 20
    assert not any("border" in w for w in OutlierFilter.fit(frames, defects=known).warnings)
    with_gain = OutlierFilter.fit(frames, gain=1 / np.maximum(rate, 0.1))
    assert not any("border" in warning for warning in with_gain.warnings)
