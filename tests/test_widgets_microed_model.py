"""What the "MicroED" widget knows, without a window, against sweeps whose truth is known."""

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.correction import TruncationModel
from napari_mrcz.correction.regions import annuli
from napari_mrcz.simulation import simulate_microed
from napari_mrcz.widgets.base.job import Cancelled
from napari_mrcz.widgets.microed.model import (
    Choice,
    find_beam,
    fit_truncation,
    outline,
    read_histogram,
    rows,
    summary,
)

SWEEP = simulate_microed(3, (160, 192), center=(84.0, 91.0), n_shells=4, spots_per_frame=20)
CHOICE = Choice(SWEEP.center, 4, SWEEP.beam_stop)


def silent(stage: str, done: int, total: int | None) -> None:
    """Take a report and do nothing."""


def stack() -> nm.Stack:
    """Return the sweep as it was recorded."""
    return nm.Stack.from_array(SWEEP.frames)


@pytest.fixture(scope="module")
def fit():
    """Return the sweep fitted in its true shells."""
    return fit_truncation(stack(), CHOICE, 1, silent)


def test_the_beam_is_found_in_all_frames():
    """Near where it is; the frames are told one by one."""
    said = []
    center = find_beam(stack(), SWEEP.beam_stop, lambda *report: said.append(report))
    np.testing.assert_allclose(center, SWEEP.center, atol=2)
    assert said == [("Summing frame", n, 3) for n in (1, 2, 3)]


def test_an_outline_is_where_annuli_end():
    """Of those that are fitted; the last ends with the pattern."""
    center, radii = outline(stack(), 0, CHOICE, silent)
    assert center == SWEEP.center
    labels = annuli((160, 192), SWEEP.center, 4, SWEEP.beam_stop)
    distance = np.hypot(np.arange(160)[:, None] - SWEEP.center[0], np.arange(192) - SWEEP.center[1])
    assert radii.tolist() == [distance[labels == n].max() for n in (1, 2, 3)]


def test_an_outline_without_a_beam_takes_that_of_a_frame():
    """As it is seen before anything was asked for."""
    center, _ = outline(stack(), 2, Choice(None, 4, SWEEP.beam_stop), silent)
    np.testing.assert_allclose(center, SWEEP.center, atol=4)


def test_one_annulus_has_no_line():
    """It is the whole pattern."""
    assert not outline(stack(), 0, Choice(SWEEP.center, 1), silent)[1].size


def test_a_fit_is_that_of_the_library(fit):
    """Parameters, offset, corrected frames."""
    same = TruncationModel.fit(SWEEP.frames, SWEEP.center, 4, SWEEP.beam_stop)
    np.testing.assert_array_equal(fit.model.parameters, same.parameters)
    np.testing.assert_array_equal(fit.corrected[1], same(SWEEP.frames[1], 1))
    assert fit.darkest < 0
    assert fit.has_annuli
    assert fit.name(2) == "Annulus 2"


def test_a_pedestal_changes_nothing_but_what_is_added(fit):
    """It is taken from what an SMV header states."""
    metadata = {"smv": {"IMAGE_PEDESTAL": "40"}}
    raised = nm.Stack.from_array(SWEEP.frames + np.uint16(40), metadata=metadata)
    found = fit_truncation(raised, CHOICE, 1, silent)
    np.testing.assert_array_equal(np.asarray(found.corrected) - 40, fit.corrected)
    for one, other in zip(
        read_histogram(found, 1, 2, silent).corrected,
        read_histogram(fit, 1, 2, silent).corrected,
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    unknown = Choice(None, 4, SWEEP.beam_stop)
    assert outline(raised, 2, unknown, silent)[0] == outline(stack(), 2, unknown, silent)[0]
    centers = [find_beam(movie, SWEEP.beam_stop, silent) for movie in (raised, stack())]
    assert centers[0] == centers[1]


def test_a_fit_without_a_beam_finds_it_in_the_sum():
    """And says where it was."""
    fit = fit_truncation(stack(), Choice(None, 4, SWEEP.beam_stop), 0, silent)
    np.testing.assert_allclose(fit.choice.center, SWEEP.center, atol=2)
    assert fit.choice.center == fit.model.center


def test_regions_keep_their_labels():
    """In the table and the titles, whatever they are; there are no radii."""
    regions = np.zeros((160, 192), np.int32)
    regions[:80], regions[80:] = 7, 20
    fit = fit_truncation(stack(), Choice(None, 4, SWEEP.beam_stop, regions), 0, silent)
    assert fit.names.tolist() == [7, 20]
    assert fit.name(2) == "Label 20"
    assert [row[:2] for row in rows(fit, 0)] == [("7", ""), ("20", "")]


def test_nothing_valid_is_said_in_words():
    """Not by an empty table."""
    with pytest.raises(ValueError, match="No pixel is valid"):
        fit_truncation(stack(), Choice(SWEEP.center, 4, np.ones((160, 192), bool)), 0, silent)


def test_a_fit_can_be_cancelled_between_frames():
    """What a report raises ends it."""
    seen = []

    def second(stage, done, total):
        seen.append((stage, done))
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        fit_truncation(stack(), CHOICE, 0, second)
    assert seen == [("Fitting frame", n) for n in range(3)]


def test_choices_are_told_apart():
    """By what a fit depends on, and nothing else."""
    regions = np.ones((4, 4), int)
    assert Choice((1, 2), 4).is_as(Choice((1, 2), 4))
    assert not Choice((1, 2), 4).is_as(Choice((1, 3), 4))
    assert not Choice((1, 2), 4).is_as(Choice((1, 2), 5))
    assert not Choice((1, 2), 4).is_as(Choice((1, 2), 4, np.ones((4, 4), bool)))
    assert not Choice((1, 2), 4).is_as(Choice((1, 2), 4, None, regions))
    assert Choice((1, 2), 4, None, regions).is_as(Choice(None, 5, None, regions.copy()))
    assert not Choice((1, 2), 4, None, regions).is_as(Choice((1, 2), 4, None, 2 * regions))


def test_a_histogram_counts_its_region(fit):
    """Recorded and corrected; alike where there are counts."""
    histogram = read_histogram(fit, 1, 3, silent)
    here = fit.model.labels == 3
    recorded = dict(zip(*histogram.recorded, strict=True))
    corrected = dict(zip(*histogram.corrected, strict=True))
    assert recorded[0] == np.count_nonzero(SWEEP.frames[1][here] == 0)
    assert sum(n for x, n in corrected.items() if x <= 0) == recorded[0]
    assert {x: n for x, n in corrected.items() if x > 0} == {
        x: n for x, n in recorded.items() if x > 0
    }
    assert min(corrected) < 0
    assert histogram.title.startswith(f"Annulus 3, frame 1: {np.count_nonzero(here):,} pixels, ")


def test_the_fitted_curve_runs_through_what_was_never_cut_off(fit):
    """The true counts, which the camera did not give, below zero as above."""
    histogram = read_histogram(fit, 1, 3, silent)
    here = fit.model.labels == 3
    truth = SWEEP.true_counts[1][here]
    counts, pixels = histogram.fitted
    for part in (counts < 0, (counts >= 0) & (counts < 10), counts >= 10):
        low, high = counts[part].min(), counts[part].max()
        n = np.count_nonzero((truth >= low) & (truth <= high))
        assert pixels[part].sum() == pytest.approx(n, rel=0.1)


def test_a_region_with_too_few_counts_has_no_curve():
    """And a table without numbers; the zeros stay."""
    frames = SWEEP.frames.copy()
    frames[:, :20] = 0
    regions = np.ones((160, 192), np.uint8)
    regions[:20] = 2
    fit = fit_truncation(nm.Stack.from_array(frames), Choice(regions=regions), 0, silent)
    assert read_histogram(fit, 0, 2, silent).fitted[0].size == 0
    assert rows(fit, 0)[1] == ("2", "", "100.0%", "", "", "")
    assert any(said.startswith("3 of 6 fits") for said in fit.model.warnings)


def test_the_table_has_the_parameters_of_a_frame(fit):
    """As numbers with a true minus sign."""
    table = rows(fit, 2)
    assert len(table) == 4
    mu, sigma, shift = fit.model.parameters[2, 0]
    assert table[0][3:5] == (f"{mu:.3f}", f"{sigma:.3f}")
    assert table[0][5] == f"−{-shift:.1f}"
    assert table[0][1] == f"{fit.model.radii[0]:.0f}"


def test_the_summary_tells_the_offset(fit):
    """And how much of the sweep was cut off."""
    text = summary(fit)
    assert f"offset {fit.model.offset} (ADCOFFSET)" in text
    assert f"{fit.model.zeros.sum() / SWEEP.frames.size:.1%} of the pixels" in text


def test_the_summary_of_a_sweep_without_zeros():
    """Needs no offset."""
    fit = fit_truncation(nm.Stack.from_array(SWEEP.frames + np.uint16(50)), CHOICE, 0, silent)
    assert "none of them becomes negative" in summary(fit)
