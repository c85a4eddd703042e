"""The Gain reference widget without a window: what fits, what is found, what is said."""

from dataclasses import replace

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.correction import (
    Candidate,
    GainNormalization,
    OrientationSearch,
    find_orientation,
    orient,
)
from napari_mrcz.correction.noise import Share
from napari_mrcz.simulation import Camera, simulate_flats, simulate_movie, simulate_session
from napari_mrcz.widgets.base.job import Cancelled
from napari_mrcz.widgets.gain import model as marks
from napari_mrcz.widgets.gain.model import (
    GainChoice,
    Reference,
    apply_choice,
    estimate_reference,
    find,
    fit_exponent,
    load_reference,
    reference_of,
    search_text,
)

CAMERA = Camera((256, 256), etching=0.06, gamma=1.0, seed=3)
SURE = Share(1.0, 0.1, 0.1, 0.05)
MOVIE = simulate_movie(20, camera=CAMERA, dose=0.5, seed=3)


class Reports:
    """Notes what a job reports; cancels it at one of the stages."""

    def __init__(self, cancel_at: str = "none") -> None:
        self.seen: list[tuple[str, int, int | None]] = []
        self.cancel_at = cancel_at

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Note it."""
        self.seen.append((stage, done, total))
        if stage.startswith(self.cancel_at):
            raise Cancelled


def reference(shape: tuple[int, int]) -> Reference:
    """Return one of ones."""
    return Reference("ones.mrc", np.ones(shape, np.float32))


class TestFitting:
    """Which shapes belong together."""

    def test_a_turned_reference_takes_an_orientation_that_fits(self):
        """A wide one for high frames."""
        choice = GainChoice((60, 40), reference((40, 60))).with_fitting_orientation()
        assert choice.fitting == ("rot90", "rot270", "transpose", "transverse")
        assert choice.orientation == "rot90"
        assert choice.problem() == ""
        assert choice.fit_text() == "Fits the frames of 60 × 40."

    def test_one_that_fits_in_no_way_is_refused_with_both_shapes(self):
        """And says that super-resolution would not help."""
        choice = GainChoice((60, 40), reference((60, 41)))
        assert "The reference is 60 × 41, the frames are 60 × 40" in choice.problem()
        assert "twice (super-resolution)" in choice.problem()
        assert choice.fit_text() == ""
        with pytest.raises(ValueError, match="60 × 41"):
            choice.normalization()

    def test_an_orientation_that_does_not_fit_is_named(self):
        """Before it is made to fit."""
        choice = GainChoice((60, 40), reference((60, 40)), orientation="rot90")
        assert choice.problem() == "It does not fit the frames when turned 90° to the left."
        assert choice.with_fitting_orientation().orientation == "identity"

    def test_super_resolution_is_said(self):
        """Twice and half as many pixels."""
        assert (
            "2 × 2 of its pixels make one" in GainChoice((30, 20), reference((60, 40))).fit_text()
        )
        coarse = GainChoice((60, 40), reference((20, 30))).with_fitting_orientation()
        assert "each of its pixels makes 2 × 2" in coarse.fit_text()

    def test_what_is_missing_is_asked_for(self):
        """The movie first."""
        assert GainChoice().problem() == "Open or add a movie first."
        assert "Choose a gain reference" in GainChoice((3, 4)).problem()

    def test_a_reference_without_any_gain_is_refused(self):
        """Else all frames would become zeros."""
        choice = GainChoice((3, 4), Reference("zeros.mrc", np.zeros((3, 4), np.float32)))
        assert choice.problem() == "The reference has no pixel with a gain that can be used."

    def test_a_dark_lies_as_the_frames_do(self):
        """Whatever the size and orientation of the reference."""
        gain, dark = reference((40, 60)), reference((60, 40))
        assert GainChoice((60, 40), gain, dark).with_fitting_orientation().problem() == ""
        turned = GainChoice((60, 40), gain, gain).with_fitting_orientation()
        assert "The dark reference is 40 × 60, the frames are 60 × 40" in turned.problem()
        assert GainChoice((60, 40), reference((120, 80)), dark).problem() == ""


class TestNormalization:
    """What comes out."""

    @pytest.mark.parametrize("reciprocal", [False, True])
    def test_any_way_round_gives_the_same_frames(self, reciprocal):
        """As the reference in its own orientation."""
        gain = CAMERA.gain_reference
        turned = np.rot90(gain).copy()
        if reciprocal:
            turned = np.divide(1, turned, where=turned > 0, out=np.zeros_like(turned))
        choice = GainChoice((256, 256), Reference("g", turned), None, "rot270", reciprocal, 0.9)
        frame = MOVIE.frame(0)
        np.testing.assert_allclose(
            choice.normalization()(frame), GainNormalization(gain, 0.9)(frame), rtol=1e-5
        )

    def test_super_resolution_is_binned(self):
        """Four equal sub-pixels make one like them; the reference divides."""
        fine = np.repeat(np.repeat(CAMERA.gain_reference, 2, 0), 2, 1)
        choice = GainChoice((256, 256), Reference("g", fine), gamma=0.8)
        np.testing.assert_allclose(
            choice.normalization().factor, GainNormalization(CAMERA.gain_reference, 0.8).factor,
            rtol=1e-5,
        )  # fmt: skip

    def test_the_lazy_layer_has_the_corrected_frames_and_history(self):
        """And the pixels without gain."""
        stack = nm.Stack.from_array(MOVIE.frames, pixel_size=(0, 1.5, 1.5))
        choice = GainChoice((256, 256), Reference("g", CAMERA.gain_reference))
        outcome = apply_choice(stack, choice, "movie, normalised", 3, Reports())
        assert outcome.attributes["name"] == "movie, normalised"
        assert outcome.data.history[-1]["name"] == "GainNormalization"
        np.testing.assert_array_equal(outcome.data[3], choice.normalization()(MOVIE.frame(3)))
        np.testing.assert_array_equal(outcome.without_gain, CAMERA.defects.dead)
        assert apply_choice(stack, choice, None, 3, Reports()).data is None
        assert outcome.warnings == ()
        floats = nm.Stack.from_array(np.asarray(outcome.data))
        again = apply_choice(floats, choice, "twice", 3, Reports())
        assert again.withheld and again.data is None
        assert "normalised already" in again.warnings[0]
        again = apply_choice(floats, choice, "twice", 3, Reports(), anyway=True)
        assert again.data.history[-1]["warnings"] == list(again.warnings)
        with pytest.raises(Cancelled):
            apply_choice(stack, choice, "name", 3, Reports("Normalising"))


class TestReferences:
    """Where they come from."""

    def test_a_file_is_read_and_described(self, tmp_path):
        """With its values, and what is unusable."""
        image = CAMERA.gain_reference.copy()
        image[0, :3] = np.nan, 0, -1
        nm.write(tmp_path / "gain.mrc", image)
        read = load_reference(tmp_path / "gain.mrc", Reports())
        np.testing.assert_array_equal(read.image, image)
        bad = np.count_nonzero(~(image > 0))
        assert read.gain_text.startswith("256 × 256, median 0.998")
        assert read.gain_text.endswith(f"{bad} pixels without usable gain")
        assert read.picture.shape == (85, 85)
        assert read.picture.min() == 0 and read.picture.max() == 255

    def test_a_picture_shows_the_reference_as_it_lies(self):
        """Bright where the gain is high."""
        image = np.ones((300, 200), np.float32)
        image[:150, 100:] = 2
        picture = Reference("g", image).picture
        assert picture[5, -5] == 255
        assert picture[5, 5] == picture[-5, 5] == picture[-5, -5] == 0

    def test_references_without_anything_to_see(self):
        """All unusable, or smaller than a picture's pixel."""
        assert "without any usable gain" in Reference("g", np.zeros((8, 8), np.float32)).gain_text
        assert Reference("g", np.zeros((8, 8), np.float32)).picture.shape == (1, 1)
        assert Reference("g", np.ones((1, 400), np.float32)).picture.shape == (1, 1)

    def test_a_layer_of_one_image_is_taken(self):
        """A movie is not."""
        taken = reference_of(nm.Stack.from_array(CAMERA.gain_reference), "gain", Reports())
        np.testing.assert_array_equal(taken.image, CAMERA.gain_reference)
        with pytest.raises(ValueError, match="one image"):
            reference_of(nm.Stack.from_array(MOVIE.frames), "movie", Reports())

    def test_one_is_made_from_movies(self):
        """The camera's own response, to within noise."""
        session = simulate_session(6, 4, camera=CAMERA, dose=20.0, specimen=None, seed=3)
        stacks = [nm.Stack.from_array(movie.frames) for movie in session.iter_movies()]
        reports = Reports()
        made = estimate_reference(stacks, reports)
        assert made.name == "gain of 6 movies"
        good = (made.image > 0) & (CAMERA.gain_reference > 0)
        good &= ~session.sites.defects().outliers
        wrong = made.image[good] / CAMERA.gain_reference[good] - 1
        assert wrong.std() == pytest.approx((6 * 4 * 20) ** -0.5, rel=0.2)
        assert ("Summing movie", 5, 6) in reports.seen


class TestFinding:
    """Orientation and its margin."""

    @pytest.mark.parametrize("way", ["flipud", "rot90"])
    def test_the_orientation_put_in_is_found(self, way):
        """And said to be certain."""
        inverse = {"flipud": "flipud", "rot90": "rot270"}[way]
        reports = Reports()
        dark = np.full((256, 256), 100, np.float32)
        dark[::2] = 150
        turned = Reference("g", orient(CAMERA.gain_reference, way).copy())
        choice = GainChoice((256, 256), turned, Reference("d", dark))
        frames = (MOVIE.frames + dark).astype(np.uint8)
        found = find(nm.Stack.from_array(frames), choice, reports)
        assert (found.best.orientation, found.best.reciprocal) == (inverse, False)
        text, tone = search_text(found)
        assert tone == "text" and "certain" in text
        assert ("Looking at frame", 20, 20) in reports.seen
        compared = [step for step in reports.seen if step[0] != "Looking at frame"]
        assert compared == [("Comparing way", done, 16) for done in range(17)]

    def test_a_small_margin_is_said_to_be_chance(self):
        """With how far ahead it is; a large one is certain."""
        ways = tuple(
            Candidate("rot90", reciprocal, (8, 8), noise)
            for reciprocal, noise in ((True, 2e-3), (False, 3e-3))
        )
        sure = OrientationSearch(ways, before=4e-3, margin=7.0, share=SURE)
        text, tone = search_text(replace(sure, margin=2.3, warnings=("It is uncertain.",)))
        assert tone == "warning"
        assert text.startswith("Best: turned 90° to the left, divided by")
        assert "falls from 4.00 to 2.00" in text
        assert text.endswith("It is uncertain.")
        assert search_text(sure)[1] == "text"

    @pytest.mark.parametrize("noise", [-3e-4, 2e-4])
    def test_noise_below_its_error_is_said_to_be_nothing(self, noise):
        """A negative noise is none that anybody understands."""
        ways = tuple(Candidate("rot90", False, (8, 8), r) for r in (noise, 3e-3))
        search = OrientationSearch(ways, before=10.03e-3, margin=7.0, error=3e-4, share=SURE)
        text, _ = search_text(search)
        assert text.endswith("falls from 10.03 × 10⁻³ to less than can be measured.")

    def test_another_cameras_reference_is_not_recommended(self):
        """It improves nothing."""
        other = Camera((256, 256), etching=0.06, seed=99).gain_reference
        text, tone = search_text(find_orientation(MOVIE.frames, other))
        assert tone == "warning"
        assert "another camera's" in text

    def test_it_can_be_cancelled_and_needs_two_frames(self):
        """Both are told apart."""
        gain = GainChoice((256, 256), Reference("g", CAMERA.gain_reference))
        with pytest.raises(Cancelled):
            find(nm.Stack.from_array(MOVIE.frames), gain, Reports("Comparing"))
        with pytest.raises(ValueError, match="one frame alone"):
            find(nm.Stack.from_array(MOVIE.frame(0)), gain, Reports())


class TestGamma:
    """The exponent that was put in."""

    @pytest.mark.parametrize("gamma", [0.8, 1.1])
    @pytest.mark.parametrize("reciprocal", [False, True])
    def test_it_comes_back_at_the_minimum_of_the_curve(self, gamma, reciprocal):
        """From a flat, dark subtracted, turned and divided by."""
        camera = Camera((512, 512), etching=0.06, gamma=gamma, dark_current=0.1, seed=5)
        flat = simulate_flats([4.0], camera=camera, seed=5)[0]
        gain = camera.gain_reference
        if reciprocal:
            gain = np.divide(1, gain, where=gain > 0, out=np.zeros_like(gain))
        choice = GainChoice(
            (512, 512), Reference("g", np.flipud(gain)),
            Reference("d", camera.dark_reference), "flipud", reciprocal,
        )  # fmt: skip
        found = fit_exponent(nm.Stack.from_array(flat.frames), choice, Reports())
        assert found.best == pytest.approx(gamma, abs=0.02)
        lowest = found.gammas[np.argmin(found.unevenness)]
        assert abs(lowest - found.best) <= 0.0126  # half a step
        assert found.without > 5 * found.lowest
        text, tone = found.text()
        assert tone == "text" and text.startswith(f"γ {found.best:.3f} ± 0.00")

    def test_a_specimen_is_noticed(self):
        """It is more uneven than noise."""
        movie = simulate_movie(20, camera=CAMERA, dose=20.0, seed=1)
        choice = GainChoice((256, 256), Reference("g", CAMERA.gain_reference))
        found = fit_exponent(nm.Stack.from_array(movie.frames), choice, Reports())
        text, tone = found.text()
        assert tone == "warning" and "uneven" in text

    def test_no_minimum_is_said_and_no_gamma_given(self):
        """The reference upside down flattens nothing."""
        flat = simulate_flats([4.0], camera=Camera((512, 512), gamma=1.0, seed=5), seed=5)[0]
        choice = GainChoice((512, 512), Reference("g", flat.camera.gain_reference), reciprocal=True)
        found = fit_exponent(nm.Stack.from_array(flat.frames), choice, Reports())
        assert found.best is None
        text, tone = found.text()
        assert tone == "warning" and text.startswith("No γ between 0.5 and 1.5")

    def test_it_can_be_cancelled_and_needs_a_pattern(self):
        """In the middle of the curve."""
        stack = nm.Stack.from_array(MOVIE.frames)
        with pytest.raises(Cancelled):
            fit_exponent(stack, GainChoice((256, 256), Reference("g", CAMERA.gain_reference)),
                Reports("Trying"))  # fmt: skip
        with pytest.raises(ValueError, match="no pattern"):
            fit_exponent(stack, GainChoice((256, 256), reference((256, 256))), Reports())


class TestDefects:
    """Labels and lists."""

    @pytest.mark.parametrize("kind", ["serialem", "motioncor", "map"])
    def test_what_is_exported_comes_back(self, tmp_path, kind):
        """In each format, with the suffix completed."""
        mask = CAMERA.defects.outliers
        path = marks.export_defects(str(tmp_path / "defects"), mask, kind, Reports())
        assert path.suffix == {"map": ".mrc"}.get(kind, ".txt")
        np.testing.assert_array_equal(marks.load_defects(str(path), mask.shape, Reports()), mask)

    def test_only_the_file_that_was_asked_about_is_replaced(self, tmp_path):
        """Not one whose suffix was left out."""
        marks.export_defects(
            str(tmp_path / "bad.txt"), np.eye(4, dtype=bool), "motioncor", Reports()
        )
        marks.export_defects(
            str(tmp_path / "bad.txt"), ~np.eye(4, dtype=bool)[:2], "motioncor", Reports()
        )
        with pytest.raises(nm.MrczError, match="exists already"):
            marks.export_defects(
                str(tmp_path / "bad"), np.eye(4, dtype=bool), "motioncor", Reports()
            )
        found = marks.load_defects(str(tmp_path / "bad.txt"), (4, 4), Reports())
        np.testing.assert_array_equal(found[:2], ~np.eye(4, dtype=bool)[:2])

    def test_pixels_without_gain_are_joined_and_painted_ones_stay(self):
        """And leave again when the reference changes."""
        labels = marks.marked(np.zeros((4, 4)), np.eye(4, dtype=bool), marks.LISTED)
        labels[0, 3] = 7  # painted
        first = np.zeros((4, 4), bool)
        first[0] = True
        both = marks.marked(labels, first, marks.WITHOUT_GAIN)
        assert both[0].tolist() == [marks.LISTED, 2, 2, 7]
        assert marks.count_defects(both) == (7, 2)
        assert marks.defects_text(7, 2, 16).startswith("7 defective pixels (43.750%): 5 listed")
        np.testing.assert_array_equal(marks.marked(both, None, marks.WITHOUT_GAIN), labels)

    def test_a_second_list_is_added(self):
        """What was there keeps its label."""
        labels = np.array([[0, 7]], np.uint8)
        listed = marks.marked(labels, np.array([[True, True]]), marks.LISTED)
        assert listed.tolist() == [[1, 7]]

    def test_none_and_one_are_counted(self):
        """In words."""
        assert marks.defects_text(0, 0, 4).startswith("No defective pixels yet")
        assert marks.defects_text(1, 0, 9).startswith("1 defective pixel (")
