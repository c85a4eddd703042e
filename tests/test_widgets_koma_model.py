"""What the KOMA widget decides and does, without a window."""

from pathlib import Path

import numpy as np
import pytest
from koma_session import CARBON, N_FRAMES, N_STACKS, SHAPE, paths, session_folder

import napari_mrcz as nm
from napari_mrcz.errors import collected_warnings
from napari_mrcz.session import Session, noise_within
from napari_mrcz.session.session import summarise
from napari_mrcz.session.survey import REFERENCE
from napari_mrcz.widgets.base.job import Cancelled, Pace
from napari_mrcz.widgets.koma.model import KomaModel, folder_problem, targets_in
from napari_mrcz.widgets.koma.reading import Entry, by_name, by_time, movies_in, read_session

# Fixtures, which pytest finds by their names here.
__all__ = ["paths", "session_folder"]

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def model(session_folder) -> KomaModel:
    """Return a model with the session read."""
    model = KomaModel()
    model.add(movies_in([session_folder]))
    model.take(model.read()(silent))
    # Of so few frames the averages are noisier than the camera's pattern.
    model.choose(even_if_worse=True)
    return model


def silent(stage: str, done: int, total: int | None) -> None:
    """Take a report."""


def frames(path: Path) -> np.ndarray:
    """Read a movie whole."""
    return nm.read(path)


def test_a_folder_is_listed_as_a_person_counts(tmp_path):
    """Ten comes after nine; what is hidden or no movie is passed over."""
    for name in ("m_10.mrc", "m_9.mrcz", "M_1.MRC.gz", "notes.txt", ".m_2.mrc"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "sub.mrc").mkdir()
    assert [entry.name for entry in movies_in([tmp_path])] == ["M_1.MRC.gz", "m_9.mrcz", "m_10.mrc"]


def test_files_are_ordered_by_time(tmp_path):
    """Layers without a file come last."""
    import os

    entries = [Entry("layer", nm.Stack.from_array(np.zeros((1, 2, 2))))]
    for name, seconds in (("b.mrc", 3), ("a.mrc", 5), ("c.mrc", 1)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (seconds, seconds))
        entries.append(Entry(name, str(tmp_path / name)))
    assert [e.name for e in sorted(entries, key=by_time)] == ["c.mrc", "b.mrc", "a.mrc", "layer"]
    assert [e.name for e in sorted(entries, key=by_name)] == ["a.mrc", "b.mrc", "c.mrc", "layer"]


def test_a_file_is_listed_once(session_folder):
    model = KomaModel()
    model.add(movies_in([session_folder]))
    model.add(movies_in([session_folder / "movie_3.mrc"]))
    assert len(model.entries) == N_STACKS


def test_what_is_missing_is_said(session_folder):
    model = KomaModel()
    assert "Add a folder" in model.problem()
    model.add(movies_in([session_folder])[:2])
    assert "Read the session" in model.problem()
    model.take(model.read()(silent))
    assert "needs at least 3" in model.problem()
    with pytest.raises(ValueError, match="needs at least 3"):
        model.koma()


def test_stacks_of_high_contrast_are_left_out_with_the_reason(model):
    """And can be put back."""
    carbon = model.entries[CARBON]
    assert [model.enters(entry) for entry in model.entries].count(False) == 1
    assert "robust standard deviations" in model.why_left_out(carbon)
    assert model.largest_radius == (N_STACKS - 2) // 2
    carbon.ticked = True
    assert model.why_left_out(carbon) == ""
    assert model.largest_radius == (N_STACKS - 1) // 2
    model.entries[0].ticked = False
    assert model.why_left_out(model.entries[0]) == "left out by choice"


def test_a_movie_that_was_cut_off_is_left_out_as_koma_does(session_folder, tmp_path):
    """Its mean is too noisy to count as much as others; it can be put back."""
    short = tmp_path / "movie_10.mrc"
    nm.write(short, frames(session_folder / "movie_1.mrc")[:2])
    model = KomaModel()
    model.add(movies_in([session_folder, short]))
    model.take(model.read()(silent))
    paths = [entry.path for entry in model.entries]
    left_out = {i: model.why_left_out(entry) for i, entry in enumerate(model.entries)}
    assert {i: why for i, why in left_out.items() if why} == nm.Koma(paths, 2).left_out
    assert left_out[N_STACKS] == "only 2 frames, where the session has 6"
    model.entries[N_STACKS].ticked = True
    assert model.why_left_out(model.entries[N_STACKS]) == ""


def test_a_movie_with_nan_is_left_out_as_koma_does(session_folder, tmp_path):
    """It would spoil all around it."""
    spoilt = frames(session_folder / "movie_1.mrc").astype(np.float32)
    spoilt[0, 3, 5] = np.nan
    nm.write(tmp_path / "movie_10.mrc", spoilt)
    model = KomaModel()
    model.add(movies_in([session_folder, tmp_path / "movie_10.mrc"]))
    model.take(model.read()(silent))
    paths = [entry.path for entry in model.entries]
    left_out = {i: model.why_left_out(entry) for i, entry in enumerate(model.entries)}
    assert {i: why for i, why in left_out.items() if why} == nm.Koma(paths, 2).left_out
    assert "NaN" in left_out[N_STACKS]


@pytest.mark.parametrize("put_back", [False, True])
def test_the_curve_is_that_of_koma(model, paths, put_back):
    """Also when what is left out has changed since reading."""
    if put_back:
        model.entries[CARBON].ticked = True
        model.entries[1].ticked = False
    exclude = [1] if put_back else [CARBON]
    curve = model.curve()(silent)
    assert curve.radii.tolist() == [1, 2, 3]
    koma = nm.Koma(paths, 3, exclude=exclude)
    np.testing.assert_allclose(curve.noise, koma.noise_curve([1, 2, 3]), rtol=1e-9)
    assert curve.before == pytest.approx(koma.noise_curve([0])[0])
    np.testing.assert_allclose(curve.limit, [1 / (2 * a * N_FRAMES) for a in (1, 2, 3)])
    assert curve.at(2) == (pytest.approx(curve.noise[1]), pytest.approx(1 / (4 * N_FRAMES)))


def test_another_order_reads_nothing_again(model, monkeypatch, paths):
    """And is that of the averages."""
    monkeypatch.setattr("napari_mrcz.session.session.summarise", None)
    first = model.entries[0]
    model.move([first], 4)
    order = [1, 2, 3, 0, *range(4, N_STACKS)]
    assert [entry.name for entry in model.entries] == [paths[i].name for i in order]
    model.choose(radius=1)
    koma = nm.Koma([paths[i] for i in order], 1, exclude=[CARBON])
    np.testing.assert_array_equal(model.koma()[1].average, koma[1].average)
    np.testing.assert_allclose(model.curve()(silent).noise, koma.noise_curve([1, 2, 3]), rtol=1e-9)


@pytest.mark.parametrize(("moved", "to", "expected"), [
    ("a", 3, "bcade"), ("a", 5, "bcdea"), ("e", 0, "eabcd"), ("bd", 0, "bdace"), ("bd", 5, "acebd"),
    ("c", 2, "abcde"), ("c", 3, "abcde"),
])  # fmt: skip
def test_stacks_are_moved_before_another(moved, to, expected):
    model = KomaModel()
    model.add(Entry(name, f"/{name}.mrc") for name in "abcde")
    model.move([entry for entry in model.entries if entry.name in moved], to)
    assert "".join(entry.name for entry in model.entries) == expected


def test_stacks_added_later_are_to_be_read(model, session_folder, tmp_path):
    gone = model.entries[2]
    model.remove([gone])
    assert model.reading is not None and model.problem() == ""
    model.add([gone])
    assert model.reading is None


def test_the_radius_stays_within_what_there_is(model):
    """And is taken up again when there are more."""
    model.choose(radius=25)
    assert model.radius == 3
    model.entries[CARBON].ticked = True
    assert model.radius == 4


@pytest.mark.parametrize(
    ("filtered", "keep_mean"),
    [
        (True, False),
        (False, True),
        pytest.param(False, False, marks=pytest.mark.slow),
        pytest.param(True, True, marks=pytest.mark.slow),
    ],
)
def test_all_are_corrected_as_koma_does(session_folder, paths, tmp_path, filtered, keep_mean):
    """Pixel by pixel, and the file tells the story."""
    model = KomaModel()
    model.add(movies_in([session_folder]))
    model.filter_outliers = filtered
    model.take(model.read()(silent))
    model.choose(radius=2, keep_mean=keep_mean, even_if_worse=True)
    targets = model.targets(tmp_path)
    assert [path.name for path in targets] == [f"movie_{i + 1}.mrcz" for i in range(N_STACKS)]
    said = []
    done = model.correct(tmp_path, targets)(lambda *step: said.append(step))
    assert done.ok and not done.cancelled and done.written == targets
    assert said[-1][1:] == (N_STACKS * N_FRAMES,) * 2
    assert done.nbytes == sum(path.stat().st_size for path in targets)

    def prepare(stack):
        return stack.apply(nm.OutlierFilter.fit(stack)) if filtered else stack

    koma = nm.Koma(Session(paths, prepare=prepare), 2, keep_mean=keep_mean, exclude=[CARBON])
    for index, (source, path) in enumerate(zip(paths, targets, strict=True)):
        with nm.open(source) as stack, nm.open(path) as back:
            expected = prepare(stack).apply(koma[index])
            np.testing.assert_array_equal(np.asarray(back), np.asarray(expected))
            assert back.pixel_size == (0, 1.35, 1.35)
            names = [step["name"] for step in back.history]
            assert names == ["OutlierFilter"] * filtered + ["KomaNormalization"]


@pytest.mark.parametrize("keep", ["values", "counts"])
def test_the_size_is_told_before(model, paths, tmp_path, keep):
    """As values that are float32, and as the integers that they were, with KOMA in the footer."""
    model.keep = keep
    expected = model.estimate()(silent)
    done = model.correct(tmp_path, model.targets(tmp_path))(silent)
    assert done.ok
    # Small files have much around their frames.
    assert expected == pytest.approx(done.nbytes, rel=0.35)
    with nm.open(done.written[0], counts=keep == "counts") as back:
        assert back.dtype == (np.uint8 if keep == "counts" else np.float32)
        if keep == "counts":
            np.testing.assert_array_equal(np.asarray(back), nm.read(paths[0]))


def test_another_limit_of_contrast_takes_effect_at_once(model):
    carbon = model.entries[CARBON]
    assert not model.enters(carbon)
    model.choose(limit=1000.0)
    assert model.enters(carbon)
    assert CARBON not in model.koma().left_out


def test_stacks_whose_noise_would_rise_stay_as_they_are(model, paths, tmp_path):
    """Unless that is wanted; and it is said, in the file as well."""
    model.choose(even_if_worse=False)
    done = model.correct(tmp_path / "new", model.targets(tmp_path / "new"))(silent)
    assert done.ok and {name for name, _ in done.warnings} == {path.name for path in paths}
    for source, path in zip(paths, done.written, strict=True):
        with nm.open(path) as back:
            np.testing.assert_array_equal(np.asarray(back), nm.read(source), strict=True)
            step = back.history[-1]
        assert not step["helps"] and step["noise"][0] < step["noise"][1] and step["warnings"]


def test_structure_at_one_place_is_told_and_kept_by_a_length(session_folder, tmp_path):
    """An edge is warned of as soon as the session is read."""
    rng = np.random.default_rng(2)
    edge = np.where(np.arange(SHAPE[1]) < SHAPE[1] // 2, 1.0, 1.5) * np.ones(SHAPE)
    for index in range(5):
        nm.write(tmp_path / f"{index}.mrc", rng.poisson(edge, (20, *SHAPE)).astype(np.uint8))
    model = KomaModel()
    model.add(movies_in([tmp_path]))
    model.take(model.read()(silent))
    model.choose(radius=2)
    (said,) = model.warnings
    assert "same place" in said
    index = 2
    left = []
    for length in (0, 24):
        model.choose(length=length)
        step = model.koma()[index]
        left.append(abs(np.diff(step(edge)[:, [10, -10]].mean(axis=0))[0]))
    assert not model.warnings
    assert left[0] < 0.05 and left[1] > 0.4


def test_outliers_are_fitted_once(session_folder, tmp_path, monkeypatch):
    """Reading, correcting and the session plots share the fits."""
    fitted = []
    original = nm.OutlierFilter.fit
    monkeypatch.setattr(
        nm.OutlierFilter, "fit", lambda stack: fitted.append(stack.path) or original(stack)
    )
    model = KomaModel()
    model.add(movies_in([session_folder]))
    model.filter_outliers = True
    model.take(model.read()(silent))
    model.correct(tmp_path, model.targets(tmp_path))(silent)
    model.ageing()(silent)
    assert len(fitted) == N_STACKS


def test_cancelling_keeps_what_was_written(model, tmp_path):
    """And leaves nothing of the file under way."""

    def cancel(stage, done, total):
        if done == 2 * N_FRAMES + 3:
            raise Cancelled

    done = model.correct(tmp_path, model.targets(tmp_path))(cancel)
    assert done.cancelled
    assert sorted(tmp_path.iterdir()) == done.written
    assert [path.name for path in done.written] == ["movie_1.mrcz", "movie_2.mrcz"]
    assert str(done).startswith("Cancelled. 2 stacks corrected")
    for path in done.written:
        assert nm.verify(path).ok


def test_reading_can_be_cancelled(session_folder):
    """In the middle of a stack; what was read until then is kept for the next time."""
    model = KomaModel()
    model.add(movies_in([session_folder]))

    def cancel(stage, done, total):
        if stage.startswith("Reading") and done == 2 * N_FRAMES + 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        model.read()(cancel)
    assert model.reading is None


def test_files_that_are_there_are_skipped_unless_they_may_be_replaced(model, tmp_path):
    """What appears meanwhile was not asked about."""
    for name in ("movie_2.mrcz", "movie_3.mrcz"):
        (tmp_path / name).write_bytes(b"old")
    targets = model.targets(tmp_path)

    def appears(stage, done, total):
        (tmp_path / "movie_9.mrcz").write_bytes(b"new")

    done = model.correct(tmp_path, targets, [tmp_path / "movie_2.mrcz"])(appears)
    assert [path.name for path in done.skipped] == ["movie_3.mrcz"]
    assert (tmp_path / "movie_3.mrcz").read_bytes() == b"old"
    assert nm.verify(tmp_path / "movie_2.mrcz").ok
    assert [name for name, _ in done.failures] == ["movie_9.mrc"]
    assert (tmp_path / "movie_9.mrcz").read_bytes() == b"new"
    assert "movie_3.mrcz skipped" in str(done)


def test_bad_files_are_named_and_the_rest_goes_on(session_folder, paths, tmp_path):
    """No movie, other frames, and one that vanishes between reading and correcting."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "bad.mrc").write_bytes(b"no movie at all")
    nm.write(tmp_path / "in" / "small.mrc", np.ones((3, 8, 9), np.uint8))
    nm.write(tmp_path / "in" / "waves.mrc", np.ones((3, *SHAPE), np.complex64))
    gone = tmp_path / "in" / "gone.mrc"
    gone.write_bytes(paths[0].read_bytes())
    model = KomaModel()
    model.add(movies_in([tmp_path / "in", session_folder]))
    model.take(model.read()(silent))
    reasons = {entry.name: model.why_not(entry) for entry in model.entries if model.why_not(entry)}
    assert set(reasons) == {"bad.mrc", "small.mrc", "waves.mrc"}
    assert reasons["bad.mrc"].startswith("cannot be read: ")
    assert (
        reasons["small.mrc"] == "has frames of 8 x 9 pixels, where most of the session has 64 x 80"
    )
    assert "complex" in reasons["waves.mrc"]
    gone.unlink()
    done = model.correct(tmp_path / "out", model.targets(tmp_path / "out"))(silent)
    assert {name for name, _ in done.failures} == {*reasons, "gone.mrc"}
    assert len(done.written) == N_STACKS
    for name in reasons:
        assert f"{name}: " in str(done)


def test_a_gain_reference_among_the_movies_is_none(session_folder, tmp_path):
    """By the rule of all sessions: it is left out of a folder, and no movie if named."""
    nm.write(tmp_path / "gain.mrc", np.ones(SHAPE, np.float32))
    with collected_warnings() as said:
        assert len(movies_in([tmp_path, session_folder])) == N_STACKS
    assert said == [f"gain.mrc: {REFERENCE}; it is left out"]
    model = KomaModel()
    model.add(movies_in([tmp_path / "gain.mrc", session_folder]))
    model.take(model.read()(silent))
    (gain,) = (entry for entry in model.entries if entry.name == "gain.mrc")
    assert model.why_not(gain) == "is a reference, not a movie"
    assert not model.enters(gain)
    assert str(model.reading).startswith(f"{N_STACKS} stacks read")
    sums = KomaModel()
    (tmp_path / "sums").mkdir()
    for index in range(2):
        nm.write(tmp_path / "sums" / f"{index}.mrc", np.full(SHAPE, 40 + index, np.uint8))
    sums.add(movies_in([tmp_path / "sums"]))
    sums.take(sums.read()(silent))
    assert not any(map(sums.why_not, sums.entries))


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "bad.mrc").write_bytes(b"no movie at all")
    model = KomaModel()
    model.add(movies_in([tmp_path]))
    with pytest.raises(nm.MrczError, match="none of these stacks can be used"):
        model.read()(silent)


def test_a_movie_is_not_written_over_itself(tmp_path):
    nm.write(tmp_path / "a.mrcz", np.ones((2, 8, 8), np.uint8))
    entries = movies_in([tmp_path])
    assert "Choose another folder" in folder_problem(tmp_path, entries)
    assert "no folder" in folder_problem(tmp_path / "x" / "y", entries)
    assert "is a file" in folder_problem(tmp_path / "a.mrcz", entries)
    assert folder_problem(tmp_path / "new", entries) == ""
    (tmp_path / "out").mkdir()
    assert folder_problem(tmp_path / "out", entries) == ""


def test_files_of_equal_names_are_numbered(tmp_path):
    """Those of layers too, without what a file system refuses."""
    names = ["a.mrc", "a.mrcz", "A.mrc.gz", "b/c: d", ".."]
    entries = [Entry(name, f"/{index}") for index, name in enumerate(names)]
    assert [path.name for path in targets_in(tmp_path, entries)] == [
        "a.mrcz", "a-2.mrcz", "A-3.mrcz", "b_c_ d.mrcz", "stack.mrcz",
    ]  # fmt: skip


def test_a_preview_is_the_corrected_stack(model, paths):
    """Lazy, with the scale of its file."""
    model.choose(radius=2)
    data, attributes, kind = model.preview(model.entries[3], frame=4)(silent)
    koma = nm.Koma(paths, 2, exclude=[CARBON])
    with nm.open(paths[3]) as stack, data:
        np.testing.assert_array_equal(data[4], stack.apply(koma[3])[4])
    assert kind == "image"
    assert attributes["name"] == "KOMA: movie_4.mrc"
    assert list(attributes["scale"]) == [1, 1.35, 1.35]


def test_ageing_is_measured(model, paths):
    """By what `napari_mrcz.session` says of the same stacks."""
    ageing = model.ageing()(silent)
    fits = [nm.OutlierFilter.fit(frames(path)) for path in paths]
    assert ageing.n_hot.tolist() == [fit.n_hot for fit in fits]
    assert ageing.n_dark.tolist() == [fit.n_dark for fit in fits]
    np.testing.assert_allclose(ageing.noise, noise_within(Session(paths)))
    assert ageing.correlation[0] == pytest.approx(1)
    assert ageing.dose[1] == pytest.approx(frames(paths[0]).mean() * N_FRAMES)
    assert len(ageing.dose) == N_STACKS


def test_the_pace_tells_speed_and_time_left():
    """Two frames a second of 5 MB; time left once a stack is done. A new stage is timed anew."""
    now = 100.0
    pace = Pace(5_000_000, 2, clock=lambda: now)
    assert pace("Correcting stack 1 of 2", 0, 40) == "Correcting stack 1 of 2"
    now += 9.5
    assert pace("Correcting stack 1 of 2", 19, 40) == "Correcting stack 1 of 2\n10 MB/s"
    now += 0.5
    assert pace("Correcting stack 2 of 2", 20, 40) == (
        "Correcting stack 2 of 2\n10 MB/s, 10 s left"
    )
    now += 9.75
    assert pace("Correcting stack 2 of 2", 39, 40).endswith("MB/s, 0.5 s left")
    now += 0.25
    assert pace("Correcting stack 2 of 2", 40, 40) == "Correcting stack 2 of 2\n10 MB/s"
    assert pace("Comparing the sums", 0, 8) == "Comparing the sums"
    now += 2
    assert pace("Comparing the sums", 4, 8) == "Comparing the sums\n10 MB/s, 2.0 s left"
    assert Pace(clock=lambda: now)("Opening the files", 0, 0) == "Opening the files"


def test_progress_never_falls_back(session_folder):
    """Else the time left would be that of a part alone, and rise with every stack."""
    told = []
    entries = movies_in([session_folder])
    read_session(entries, {}, 5.0, lambda *step: told.append(step))
    steps = [(done, total) for stage, done, total in told if "stack" in stage]
    assert any(stage.startswith("Finding outliers") for stage, _, _ in told)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert {total for _, total in steps} == {steps[-1][0]}


def test_sums_are_summed_once(session_folder, monkeypatch):
    """A second reading of the same files finds them."""
    read = []
    monkeypatch.setattr(
        "napari_mrcz.session.session.summarise",
        lambda stack, progress: read.append(stack.path) or summarise(stack, progress),
    )
    for _ in range(2):
        model = KomaModel()
        model.add(movies_in([session_folder]))
        model.filter_outliers = True
        model.take(model.read()(silent))
    assert len(read) == N_STACKS
