"""``watch`` corrects with a recipe: windows that follow the session, as in the finished session."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from watch_session import (
    RADIUS,
    RECIPE,
    SHAPE,
    Session,
    at_once,
    contents,
    folder,
    frames_in,
    out,
    record,
)

import napari_mrcz as nm
from napari_mrcz.correction.gain import GainStep
from napari_mrcz.correction.koma import too_few
from napari_mrcz.correction.outliers.thresholds import OutlierStep
from napari_mrcz.session import follow
from napari_mrcz.session.recipe import Recipe

# Fixtures, which pytest finds by their names here.
__all__ = ["folder", "out"]


class TestCorrecting:
    def test_a_window_follows_the_session(self, napari_mrcz, folder, out, tmp_path):
        """Each stack is corrected when its window is complete, as in the finished session."""
        n, corrected_at = 8, []

        def next_movie(session):
            corrected_at.append(len(session.done("corrected")))
            if len(corrected_at) > n:
                raise KeyboardInterrupt
            record(folder, len(corrected_at) - 1)

        with pytest.raises(KeyboardInterrupt):
            Session(folder, out, next_movie, recipe=RECIPE)
        # Stacks 0, 1 and 2 have the first five as their window, the others two to either side.
        assert corrected_at == [0, 0, 0, 0, 0, 3, 4, 5, 6]
        followed = frames_in(out / "corrected")
        assert at_once(folder, out, recipe=RECIPE).done("corrected") == ["movie_06", "movie_07"]
        RECIPE.save(tmp_path / "r.toml")
        movies = sorted(out.glob("*.mrcz"))
        ran = napari_mrcz("correct", *movies, "-r", tmp_path / "r.toml", "-o", tmp_path / "whole")
        assert ran.status == 0, ran.err
        whole = frames_in(tmp_path / "whole")
        assert followed == {name: whole[name] for name in followed}
        assert frames_in(out / "corrected") == whole
        sources = sorted(folder.glob("*.mrc"))
        napari_mrcz("correct", *sources, "-r", tmp_path / "r.toml", "-o", tmp_path / "direct")
        for name in whole:
            direct = nm.read(tmp_path / "direct" / name)
            np.testing.assert_array_equal(nm.read(out / "corrected" / name), direct)

    def test_sums_that_no_window_needs_are_deleted_and_can_be_had_again(self, folder, out):
        n = 12
        for i in range(n):
            record(folder, i)
        at_once(folder, out, recipe=RECIPE)
        kept = sorted(path.name[6:8] for path in (out / "sums").iterdir())
        assert kept == [f"{i:02}" for i in range(n - 1 - 3 * RADIUS, n)]
        before = contents(out / "corrected")
        for path in (out / "sums").iterdir():
            path.write_bytes(b"damaged")
        record(folder, n)
        session = at_once(folder, out, recipe=RECIPE)
        assert session.done("corrected") == [f"movie_{n:02}"]
        assert contents(out / "corrected").items() > before.items()

    def test_a_stack_does_not_wait_for_longer_than_the_timeout(self, folder, out):
        record(folder, 0)
        done = []

        def idle(session):
            done.append(session.done("corrected"))
            if len(done) == 1:
                record(folder, 1)
            else:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Session(folder, out, idle, recipe=RECIPE, timeout=0.0)
        assert done == [[], ["movie_00", "movie_01"]]
        assert [step["name"] for step in nm.open(out / "corrected/movie_00.mrcz").history] == [
            "OutlierFilter",
            "KomaNormalization",
        ]

    def test_all_are_corrected_when_nothing_has_come_for_a_while(self, folder, out, monkeypatch):
        """The silence is waited for once, not before each of them."""
        now, waits = 0, []
        monkeypatch.setattr(follow, "time", SimpleNamespace(monotonic=lambda: now))

        def idle(session):
            nonlocal now
            waits.append(len(session.done("corrected")))
            now += 1

        for i in range(6):
            record(folder, i)
        assert len(Session(folder, out, idle, recipe=RECIPE, silence=5).done("corrected")) == 6
        assert waits == 5 * [4]

    def test_a_window_that_is_too_small_is_said_as_elsewhere(self, folder, out):
        """In the words of KOMA in one go, with the same number."""
        for i in range(3):
            record(folder, i)
        session = at_once(folder, out, recipe=RECIPE)
        told = [step.outcome.warnings for step in session.steps if step.kind == "corrected"]
        said = too_few(2, RADIUS)
        assert all(said in warnings for warnings in told)
        assert len(told) == 3
        koma = nm.Koma(sorted(out.glob("*.mrcz")), RADIUS, limit=1e6)
        with pytest.warns(UserWarning, match=said):
            koma.survey()

    def test_a_movie_of_another_shape_is_left_out(self, folder, out):
        for i in range(6):
            record(folder, i, (4, 32, 32) if i == 3 else SHAPE)
        session = at_once(folder, out, recipe=RECIPE)
        assert len(session.done("compressed")) == 6
        assert session.done("corrected") == [f"movie_{i:02}" for i in (0, 1, 2, 4, 5)]
        failed = [step.outcome.error for step in session.steps if not step.outcome.ok]
        assert len(failed) == 1
        assert "frames of 32 x 32 pixels" in failed[0]

    def test_three_movies_may_show_the_orientation_of_the_gain(self, folder, out, tmp_path):
        rng = np.random.default_rng(0)
        reference = np.exp(0.2 * rng.standard_normal(SHAPE[1:])).astype(np.float32)
        nm.write(tmp_path / "gain.mrc", np.flipud(reference))
        recipe = replace(RECIPE, gain=GainStep(str(tmp_path / "gain.mrc"), "auto"))
        numbers = iter(range(6))

        def next_movie(session):
            if (i := next(numbers, None)) is None:
                raise KeyboardInterrupt
            # The first two are normalised already.
            rate = np.broadcast_to(2 if i < 2 else 2 / reference, SHAPE)
            nm.write(folder / f"movie_{i}.mrc", rng.poisson(rate).astype(np.uint8))

        with pytest.raises(KeyboardInterrupt):
            Session(folder, out, next_movie, recipe=recipe)
        at_once(folder, out, recipe=recipe)
        for i in range(6):
            history = nm.open(out / f"corrected/movie_{i}.mrcz").history
            assert ("GainNormalization" in [step["name"] for step in history]) == (i > 1)

    def test_another_recipe_corrects_all_again(self, folder, out):
        record(folder, 0)
        first, other = Recipe(OutlierStep()), Recipe(OutlierStep(fill="expectation"))
        assert at_once(folder, out).done("corrected") == []
        assert at_once(folder, out, recipe=first).done("corrected") == ["movie_00"]
        before = contents(out / "corrected")
        assert at_once(folder, out, recipe=first).done("corrected") == []
        session = at_once(folder, out, recipe=other)
        assert session.done("corrected") == ["movie_00"]
        assert session.done("compressed") == []
        assert contents(out / "corrected") != before

    def test_sources_that_are_gone_are_not_needed(self, folder, out):
        for i in range(5):
            record(folder, i)
        at_once(folder, out, delete=True)
        assert not list(folder.iterdir())
        assert len(at_once(folder, out, recipe=RECIPE).done("corrected")) == 5
