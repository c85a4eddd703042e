"""Options are declared once: signatures, commands, recipes and forms agree with that."""

import inspect
import sys
from collections import Counter
from types import ModuleType

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.correction.counting import CountingOptions, ElectronCounting
from napari_mrcz.correction.gain import GainStep
from napari_mrcz.correction.history import CORRECTIONS, Known, registered
from napari_mrcz.correction.koma import KomaOptions
from napari_mrcz.correction.options import options_of
from napari_mrcz.correction.outliers.thresholds import OutlierOptions, OutlierStep
from napari_mrcz.correction.truncation import TruncationOptions
from napari_mrcz.session.recipe import (
    Coding,
    Output,
    Recipe,
    SimpleStep,
    recipe_options,
    tables,
    to_toml,
)
from napari_mrcz.stack.inspection import step_entries

DECLARED = [
    (nm.OutlierFilter.fit, OutlierOptions),
    (nm.GainNormalization, GainStep),
    (nm.Koma, KomaOptions),
    (nm.TruncationModel.fit, TruncationOptions),
    (ElectronCounting.fit, CountingOptions),
    (nm.count_electrons, CountingOptions),
    (nm.write, Output),
]
# Scripts ask for a normalisation and get it; recipes leave out what makes a movie worse. `write`
# has None where nothing is chosen.
OTHER = {("Koma", "even_if_worse"), ("write", "dtype")}


@pytest.mark.parametrize(("function", "options"), DECLARED)
def test_defaults_of_functions_are_those_that_are_declared(function, options):
    defaults = {n: p.default for n, p in inspect.signature(function).parameters.items()}
    shared = {
        name: declared
        for name, declared in options_of(options).items()
        if name in defaults
        and not declared.option.is_file
        and (function.__name__, name) not in OTHER
    }
    assert shared
    assert {name: defaults[name] for name in shared} == {n: d.default for n, d in shared.items()}


@pytest.mark.parametrize(
    "options", [*tables().values(), CountingOptions, TruncationOptions, Coding]
)
def test_every_option_has_a_type_a_default_and_words(options):
    declared = options_of(options)
    assert options().__dict__.keys() == declared.keys()
    for one in declared.values():
        assert one.default is None or isinstance(one.default, one.kind)
        assert one.option.label and one.option.help and not one.option.help.endswith(".")
    flags = Counter(one.option.flag for one in declared.values() if one.option.flag)
    assert set(flags.values()) <= {1}


def test_no_two_options_of_correct_have_one_flag():
    flags = [one.option.flag for one in recipe_options().values()]
    assert len(flags) == len(set(flags)) > 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KomaOptions(radius=0), "radius must be 1 to 1000000, not 0"),
        (lambda: KomaOptions(limit=np.nan), "limit must be above 0, not nan"),
        (lambda: OutlierOptions(order=0), "order must be above 0, 1000 at most"),
        (lambda: OutlierOptions(model="poison"), r"poison\' \(did you mean poisson\?\)"),
        (lambda: OutlierOptions(seed=10**400), "hundreds of digits"),
        (lambda: GainStep(orientation="rot91"), "did you mean rot90"),
        (lambda: CountingOptions(threshold=9, upper=8), "above threshold"),
        (lambda: Coding(level=10), "level must be 1 to 9"),
        (lambda: Output(keep="counts", dtype="int8"), "pixel type"),
    ],
)
def test_a_value_that_means_nothing_is_refused_with_what_is_allowed(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_limit_appears_where_it_does_something():
    def keys(**options):
        return to_toml(Recipe(OutlierStep(**options)).as_dict())

    assert "limit = " not in keys()
    assert "limit = 0.5" in keys(model="normal")
    assert "limit = 0.7" in keys(limit=0.7)


def test_a_form_is_made_of_the_declaration():
    """By magicgui, which takes hints as they are."""
    hint = inspect.get_annotations(KomaOptions, eval_str=True)["radius"]
    option = options_of(KomaOptions)["radius"].option
    assert dict(hint.__metadata__[0]) == dict(option)
    assert dict(option) == {"label": "Radius", "tooltip": option.help, "min": 1, "max": 10**6}
    assert dict(options_of(OutlierOptions)["pedestal"].option)["min"] < 0
    choices = dict(options_of(OutlierOptions)["fill"].option)["choices"]
    assert [value for _, value in choices] == ["sample", "expectation"]


MODULE = """
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from napari_mrcz.correction.history import SimpleCorrection, register
from napari_mrcz.correction.options import Option


@register
@dataclass(frozen=True)
class Shifting(SimpleCorrection):
    '''Add a number to every pixel.'''

    title = "Pixels shifted"
    amount: Annotated[int, Option("Amount", "Added", unit="counts", least=0, flag="--amount")] = 1
    times: Annotated[int, Option("Times", "How often", least=1, flag="--times")] = 1

    def __call__(self, frame, index):
        return (frame + self.amount * self.times).astype(frame.dtype)
"""


@pytest.fixture
def shifting(monkeypatch, forgotten):
    """Return the class of a correction that has a line after the gain's."""
    module = ModuleType("napari_mrcz.correction.shifting")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    lines = list(CORRECTIONS.items())
    at = 1 + [name for name, _ in lines].index("GainNormalization")
    known = dict([*lines[:at], ("Shifting", Known("shifting", "shifting")), *lines[at:]])
    CORRECTIONS.clear()
    CORRECTIONS.update(known)
    exec(MODULE, module.__dict__)
    yield module.Shifting
    CORRECTIONS.clear()
    CORRECTIONS.update(lines)


def test_a_correction_needs_its_module_and_one_line(napari_mrcz, tmp_path, shifting):
    """It has recipe keys, command-line options, its place in the order, and a sentence."""
    raw = np.random.default_rng(3).poisson(4, (3, 32, 40)).astype(np.uint8)
    nm.write(tmp_path / "movie.mrcz", raw)
    nm.write(tmp_path / "gain.mrc", np.full((32, 40), 2, np.float32))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[shifting]\namount = 3\n[gain]\nreference = "gain.mrc"\n')
    options = ("-r", recipe, "--times", 2)
    ran = napari_mrcz("correct", tmp_path / "movie.mrcz", "-o", tmp_path / "out", *options)
    assert ran.status == 0, ran.err
    with nm.open(tmp_path / "out" / "movie.mrcz") as done:
        np.testing.assert_array_equal(done, 2 * raw.astype(np.float32) + 6)
        entry = step_entries(done.history)[1]
        assert (entry.name, entry.value) == ("2. Pixels shifted", "amount 3 counts, times 2")
        np.testing.assert_array_equal(nm.replay(done.history, raw), done)
    again = tmp_path / "again.toml"
    made = napari_mrcz("recipe", "new", again, "--history", tmp_path / "out" / "movie.mrcz")
    assert made.status == 0, made.err
    assert Recipe.load(again).as_dict()["shifting"] == {"amount": 3, "times": 2}
    assert "# Added, in counts; 0 or more." in again.read_text()
    for wrong, said in (("amount = -1", "0 or more"), ("amont = 1", "did you mean amount")):
        recipe.write_text(f"[shifting]\n{wrong}\n")
        with pytest.raises(nm.MrczError, match=said):
            Recipe.load(recipe)
    assert registered("Shifting") is shifting


def test_a_misspelt_key_of_one_s_own_is_named(forgotten):
    exec(MODULE.replace("Shifting", "Brightshift"), {"__name__": "my_brights"})
    with pytest.raises(nm.MrczError, match="did you mean times"):
        SimpleStep("my_brights:Brightshift", {"time": 2}).correction()
    assert SimpleStep("my_brights:Brightshift", {"times": 2}).correction().times == 2
