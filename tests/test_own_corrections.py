"""Corrections of one's own: in recipes and histories, and never imported because a file says so."""

import sys

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.correction.history import CORRECTIONS, _registry, register, registered
from napari_mrcz.correction.outliers.thresholds import OutlierStep
from napari_mrcz.session.recipe import Recipe, SimpleStep, load_modules
from napari_mrcz.stack.inspection import step_entries

MODULE = '''
from __future__ import annotations

from dataclasses import dataclass

from napari_mrcz.correction import register
from napari_mrcz.correction.history import described


@register
@dataclass(frozen=True)
class Brightening:
    """Adds a number to every pixel."""

    amount: int = 1
    factor: float = 1.0

    def __call__(self, frame, index):
        return (frame * self.factor + self.amount).astype(frame.dtype)

    def describe(self):
        return described(self, amount=self.amount, factor=self.factor)

    @classmethod
    def from_description(cls, description):
        if description.get("amount", 1) < 0:
            raise ValueError("amount is 0 or more")
        return cls(description.get("amount", 1), description.get("factor", 1.0))
'''
TABLE = '["brightening_module:Brightening"]'
RECIPE = f"""
[outliers]
seed = 2
{TABLE}
after = "outliers"
amount = 3
[gain]
reference = "gain.mrc"
"""


@pytest.fixture
def folder(tmp_path, forgotten):
    """Return a folder with three movies, a module, a gain reference and a recipe."""
    rng = np.random.default_rng(4)
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        nm.write(tmp_path / "in" / f"{name}.mrcz", rng.poisson(4, (5, 40, 48)).astype(np.uint8))
    nm.write(tmp_path / "gain.mrc", rng.uniform(0.9, 1.1, (40, 48)).astype(np.float32))
    (tmp_path / "brightening_module.py").write_text(MODULE)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def test_it_is_done_where_the_recipe_says_and_undone(napari_mrcz, folder):
    """In the history, in a recipe of that, and not in one without it."""
    module = ("--with", folder / "brightening_module.py")
    ran = napari_mrcz(
        "correct", folder / "in", "-r", folder / "recipe.toml", "-o", folder / "out", *module
    )
    assert ran.status == 0, ran.err
    own = registered("Brightening")(3)
    gain = nm.GainNormalization(nm.read_reference(folder / "gain.mrc"), filled=True)
    with nm.open(folder / "in" / "b.mrcz") as raw, nm.open(folder / "out" / "b.mrcz") as done:
        outliers = nm.OutlierFilter.fit(raw, seed=2, gain=gain.factor)
        expected = np.asarray(raw.apply(outliers).apply(own).apply(gain))
        np.testing.assert_array_equal(done, expected)
        np.testing.assert_array_equal(nm.replay(done.history, raw), expected)
        undone = nm.replay(done.history, raw, without=["Brightening"])
        np.testing.assert_array_equal(undone, np.asarray(raw.apply(outliers).apply(gain)))
        assert [step["name"] for step in done.history][1] == "Brightening"
        assert done.history[1]["module"] == "brightening_module"
    history = ("--history", folder / "out" / "b.mrcz")
    made = napari_mrcz("recipe", "new", folder / "again.toml", *history, *module)
    assert made.status == 0, made.err
    assert f"-r {folder / 'again.toml'} --with {module[1]} -o FOLDER" in made.err
    again = ("-r", folder / "again.toml", *module)
    assert napari_mrcz("correct", folder / "in", *again, "-o", folder / "again").status == 0
    for name in ("a.mrcz", "b.mrcz"):
        assert (folder / "again" / name).read_bytes() == (folder / "out" / name).read_bytes()
    left = ("--without", "Brightening", "--without", "GainNormalization")
    assert napari_mrcz("recipe", "new", folder / "left.toml", *history, *left).status == 0
    assert Recipe.load(folder / "left.toml") == Recipe(OutlierStep(seed=2))


def test_with_koma_it_is_done_before_or_after(napari_mrcz, folder):
    """After it unless the recipe says otherwise."""
    koma = "[koma]\nradius = 1\neven_if_worse = true\n"
    for name, after in (("before", '\nafter = "start"'), ("after", "")):
        (folder / f"{name}.toml").write_text(f"{koma}{TABLE}{after}\namount = 2\n")
        options = ("-r", folder / f"{name}.toml", "--with", folder / "brightening_module.py")
        ran = napari_mrcz("correct", folder / "in", *options, "-o", folder / name)
        assert ran.status == 0, ran.err
        with nm.open(folder / name / "b.mrcz") as done:
            names = [step["name"] for step in done.history]
        assert names == ["Brightening", "KomaNormalization"][:: 1 if name == "before" else -1]


def test_no_file_runs_code(napari_mrcz, folder):
    """A recipe is read, shown and checked, and a history opened, without any import."""
    (folder / "brightening_module.py").write_text("raise SystemExit('it was run')")
    recipe = folder / "recipe.toml"
    shown = napari_mrcz("recipe", "show", recipe)
    assert shown.status == 0 and "brightening_module:Brightening" in shown.out
    assert "amount = 3" in shown.out
    checked = napari_mrcz("recipe", "check", recipe)
    assert checked.status == 0 and "not checked" in checked.out
    ran = napari_mrcz("correct", folder / "in", "-r", recipe, "-o", folder / "out")
    assert ran.status == 1
    assert "brightening_module:Brightening" in ran.err and "--with" in ran.err
    with nm.open(folder / "in" / "a.mrcz") as raw:
        step = {"name": "Brightening", "software": "x", "module": "brightening_module", "amount": 3}
        nm.write(folder / "odd.mrcz", raw.described(history=(step,)))
    with nm.open(folder / "odd.mrcz") as odd:
        assert np.asarray(odd).shape == (5, 40, 48)
        (entry,) = step_entries(odd.history)
        assert "not known here" in entry.value and "brightening_module" in entry.value
        with pytest.raises(ValueError, match=r"Brightening.*brightening_module"):
            nm.replay(odd.history, np.asarray(odd))
        assert nm.replay(odd.history, odd, without=["Brightening"]).history == odd.history
    assert "not known here" in napari_mrcz("info", folder / "odd.mrcz").out
    made = napari_mrcz("recipe", "new", folder / "r.toml", "--history", folder / "odd.mrcz")
    assert made.status == 1 and "Brightening" in made.err and "--with" in made.err
    assert "brightening_module" not in sys.modules


@pytest.mark.parametrize(
    ("table", "said"),
    [("amount = -2", "0 or more"), ('after = "noon"', "noon"), ("after = 3", "start")],
)
def test_options_are_checked_before_a_movie_is_read(napari_mrcz, folder, table, said):
    (folder / "r.toml").write_text(f"{TABLE}\n{table}\n")
    module = ("--with", folder / "brightening_module.py")
    for command in (
        ("recipe", "check", folder / "r.toml"),
        ("correct", folder / "in", "-r", folder / "r.toml", "-o", folder / "out"),
    ):
        ran = napari_mrcz(*command, *module)
        assert ran.status == 1 and said in ran.err
        assert f"{folder / 'r.toml'}: " in ran.err
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1 +", "SyntaxError"),
        ("import no_such_thing", "no_such_thing"),
        ("x = 1", "registers no"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    ],
)
def test_a_module_that_is_none_says_why(napari_mrcz, folder, content, said):
    (folder / "brightening_module.py").write_text(content)
    options = ("-r", folder / "recipe.toml", "--with", folder / "brightening_module.py")
    ran = napari_mrcz("correct", folder / "in", *options, "-o", folder / "out")
    assert ran.status == 1 and said in ran.err
    missing = (*options[:3], folder / "missing_brightening.py")
    ran = napari_mrcz("correct", folder / "in", *missing, "-o", folder / "out")
    assert ran.status == 1 and "missing_brightening.py" in ran.err


def test_names_are_taken_once(folder):
    """A history means one class by a name; a module means one file."""
    load_modules([str(folder / "brightening_module.py")])
    load_modules([str(folder / "brightening_module.py"), "brightening_module"])
    (folder / "other").mkdir()
    (folder / "other" / "brightening_module.py").write_text(MODULE)
    with pytest.raises(nm.MrczError, match="another file"):
        load_modules([str(folder / "other" / "brightening_module.py")])
    with pytest.raises(ValueError, match=r"GainNormalization.*another name"):
        register(type("GainNormalization", (), {"__module__": "mine"}))
    with pytest.raises(nm.MrczError, match="no_such_module_of_ours"):
        load_modules(["no_such_module_of_ours"])


def test_a_recipe_with_it_comes_back_as_it_was_saved(tmp_path):
    options = {"amount": 2, "names": ["a", "b"], "more": {"x": 1.5}}
    recipe = Recipe(OutlierStep(), more=(SimpleStep("my.module:Own", options, "start"),))
    recipe.save(tmp_path / "r.toml")
    assert Recipe.load(tmp_path / "r.toml") == recipe


def test_every_correction_of_ours_has_a_line_and_explains_itself():
    """It is found by its name alone, and says what was done."""
    ours = {name: registered(name) for name in CORRECTIONS}
    assert all(cls.title for cls in ours.values())
    assert {n for n, c in _registry.items() if c.__module__.startswith("napari_mrcz.")} <= set(ours)


def test_a_step_of_its_history_is_not_done_again(napari_mrcz, folder):
    """Unless it is asked for; and it is said."""
    module = ("--with", folder / "brightening_module.py")
    recipe = ("-r", folder / "recipe.toml", *module)
    assert napari_mrcz("correct", folder / "in", *recipe, "-o", folder / "one").status == 0
    ran = napari_mrcz("correct", folder / "one", *recipe, "-o", folder / "two")
    assert ran.status == 0, ran.err
    for name in ("OutlierFilter", "GainNormalization", "brightening_module:Brightening"):
        assert f"warning: {folder / 'one' / 'b.mrcz'}: {name} is in" in ran.err
    assert "3 with warnings" in ran.err
    with nm.open(folder / "one" / "b.mrcz") as once, nm.open(folder / "two" / "b.mrcz") as twice:
        np.testing.assert_array_equal(once, twice)
        assert len(once.history) == len(twice.history) == 3
    auto = (folder / "recipe.toml").read_text().replace("[gain]", '[gain]\norientation = "auto"')
    (folder / "auto.toml").write_text(auto)
    searching = ("-r", folder / "auto.toml", *module)
    ran = napari_mrcz("correct", folder / "one", *searching, "-o", folder / "three")
    assert ran.status == 0 and "3 with warnings" in ran.err
    ran = napari_mrcz("correct", folder / "one", *recipe, "-o", folder / "again", "--again")
    assert ran.status == 0 and "is in the movie's history" not in ran.err
    with nm.open(folder / "again" / "b.mrcz") as again:
        assert len(again.history) == 6
