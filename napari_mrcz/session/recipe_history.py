"""The recipe of the corrections in a movie's history."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.gain import GainStep, described_dark
from napari_mrcz.correction.history import CORRECTIONS, registered
from napari_mrcz.correction.koma import KomaOptions
from napari_mrcz.correction.options import options_of
from napari_mrcz.correction.outliers.thresholds import OutlierStep
from napari_mrcz.errors import AnyPath, MrczError
from napari_mrcz.format import FrameReader
from napari_mrcz.format.atomic import check_target
from napari_mrcz.format.encoding import encoding_of
from napari_mrcz.format.header import CODEC_NAMES, CODECS, FOUR_BIT
from napari_mrcz.session.recipe import PLACES, Output, Recipe, SimpleStep
from napari_mrcz.stack import Stack, write
from napari_mrcz.stack.kept import PENDING, is_kept

# The order in which recipes do them.
_STEPS = ("OutlierFilter", "GainNormalization", "KomaNormalization")
_REPLAY = "nm.replay does it again to any movie"
_DEFECT = 2
# A threshold beyond all pixels, in standard deviations.
_LARGEST_SIGMA = 1e6
# Keys of every description.
_NO_OPTIONS = ("name", "software", "module")
# Steps that make floats of counts; an outlier filter does where its fill is the expectation.
_MAKING_FLOATS = ("GainNormalization", "KomaNormalization")

Image = npt.NDArray[Any]


def output_of(stack: Stack) -> Output:
    """Return how the file of a corrected movie was saved; the defaults if it was not saved.

    Files written by ``napari-mrcz correct`` say so in their footer. For others it is found from
    the first frame, and from the pixel type if it is not the one that corrections make.
    """
    if stack.header is None or not stack.path:
        return Output()
    with FrameReader(stack.path) as reader:
        other = reader.footer.other
        is_counts = is_kept(other)
        n_steps = len(reader.footer.history) + (len(other[PENDING]) if is_counts else 0)
        if n_steps != len(stack.history):
            return Output()  # it was corrected since, and has not been saved
        source = other.get("source")
        said = source.get("output") if isinstance(source, Mapping) else None
        if isinstance(said, Mapping):
            known = {f.name for f in fields(Output)}
            with contextlib.suppress(TypeError, ValueError):  # of another version
                return Output(**{key: value for key, value in said.items() if key in known})
        codec = CODEC_NAMES[reader.header.codec]
        output = Output(codec=codec if codec in ("none", *CODECS) else "auto")
        if reader.header.codec and reader.header.mode != FOUR_BIT:
            frame = np.ascontiguousarray(reader.read_frame(0), reader.header.stored_dtype)
            found = encoding_of([(bytes(reader.read_stored(0)), frame)])
            if found is not None:
                output = replace(output, level=found.level, filter=found.filter)
    if is_counts:
        return replace(output, keep="counts")
    makes_floats = any(map(_makes_floats, stack.history))
    is_usual = not makes_floats or stack.dtype == np.float32
    return replace(output, dtype="" if is_usual else stack.dtype.name)


def _makes_floats(step: Mapping[str, Any]) -> bool:
    if not (step.get("helps", True) or step.get("even_if_worse")):
        return False  # KOMA that was not applied
    return step.get("name") in _MAKING_FLOATS or step.get("fill") == "expectation"


def save_recipe_of(
    history: Iterable[Mapping[str, Any]],
    path: AnyPath,
    *,
    output: Output | None = None,
    overwrite: bool = False,
) -> Recipe:
    """Save a recipe of what was done to a movie, and next to it the images that it names.

    Thresholds that were set by hand are kept; all that was fitted is fitted to each movie again. If
    a file cannot be written, none is left behind.

    `history`: such as `Stack.history`; `path`: the recipe. Gain and dark reference and known
    defects are written as ``<its name>-gain.mrc``, ``-dark.mrc``, ``-defects.mrc`` if there are
    any; `output`: how results are saved: see `output_of`. Raise `MrczError` if the history has a
    step that recipes do not have, another order, or a step twice; or if a file exists and is not to
    be replaced (`overwrite`), or cannot be written.
    """
    path = Path(path)
    recipe, named = _recipe_of(history, path.stem)
    recipe = replace(recipe, output=output or Output())
    images = {path.with_name(name): image for name, image in named.items()}
    for file in (path, *images):
        check_target(file, overwrite=overwrite)
    new = [file for file in images if not file.exists()]
    try:
        for file, image in images.items():
            write(file, image, overwrite=overwrite)
        recipe.save(path, overwrite=overwrite)
    except BaseException:
        for file in new:
            file.unlink(missing_ok=True)
        raise
    return recipe


def _recipe_of(history: Iterable[Mapping[str, Any]], stem: str) -> tuple[Recipe, dict[str, Image]]:
    """Return a recipe and the images that it names, by their file names."""
    history = tuple(history)
    steps = _ordered(history)
    outliers, gain, koma = map(steps.get, _STEPS)
    images: dict[str, Image] = {}
    recipe = Recipe(more=_other_steps(history))
    if gain is not None:
        reference, dark = f"{stem}-gain.mrc", ""
        images[reference] = np.asarray(gain["reference"])
        if gain.get("dark") is not None:
            dark = f"{stem}-dark.mrc"
            images[dark] = np.asarray(described_dark(gain))
        gain_step = GainStep(
            reference, dark=dark, orientation=str(gain["orientation"]), gamma=float(gain["gamma"])
        )
        recipe = replace(recipe, gain=gain_step)
    if outliers is not None:
        known = {f.name: outliers[f.name] for f in fields(OutlierStep) if f.name in outliers}
        known |= _given(outliers["thresholds"])
        defects = _known_defects(outliers, gain)
        if defects.any():
            known["defects"] = f"{stem}-defects.mrc"
            images[known["defects"]] = defects.astype(np.int8)
        recipe = replace(recipe, outliers=OutlierStep(**known))
    if koma is not None:
        # What histories of earlier versions do not say follows from what they do.
        radius = max(1, len(koma.get("neighbours", ())) // 2)
        before = KomaOptions(radius, bool(koma.get("level")))
        said = {f.name: koma[f.name] for f in fields(KomaOptions) if f.name in koma}
        recipe = replace(recipe, koma=replace(before, **said))
    return recipe, images


def _ordered(history: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    steps: dict[str, Mapping[str, Any]] = {}
    for step in history:
        name = str(step.get("name"))
        if name not in _STEPS:
            continue
        if any(_STEPS.index(name) <= _STEPS.index(before) for before in steps):
            found = f"a step {name!r} after {', '.join(steps)}, where recipes do each once and in "
            raise MrczError(None, f"{found}the order {', '.join(_STEPS)}", advice=_REPLAY)
        steps[name] = step
    return steps


def _other_steps(history: Sequence[Mapping[str, Any]]) -> tuple[SimpleStep, ...]:
    """Return the steps that need only a movie's frames; one's own with the step they follow."""
    found: list[SimpleStep] = []
    after = PLACES[0]
    for step in history:
        name = str(step.get("name"))
        table = CORRECTIONS[name].table if name in CORRECTIONS else ""
        if name in _STEPS:
            after = table
            continue
        known = registered(name)
        if known is None:
            module = step.get("module")
            whose = f" of {module}" if isinstance(module, str) else ""
            advice = f"Name its module (--with), or leave it out (--without {name})"
            raise MrczError(None, f"a step {name!r}{whose} that is not known here", advice=advice)
        is_twice = any(one.class_name == name for one in found)
        if (name in CORRECTIONS and not table) or is_twice:
            what = "twice a step" if is_twice else "a step"
            raise MrczError(None, f"{what} {name!r} that recipes do not have", advice=_REPLAY)
        options = {k: v for k, v in step.items() if k not in _NO_OPTIONS and v is not None}
        if table:
            options = {key: value for key, value in options.items() if key in options_of(known)}
        if arrays := [k for k, v in options.items() if isinstance(v, np.ndarray)]:
            found_array = f"a step {name!r} with an array ({arrays[0]}), which recipes cannot hold"
            raise MrczError(None, found_array, advice=_REPLAY)
        made = SimpleStep(table or f"{known.__module__}:{name}", options, after)
        made.correction()
        after = table or after
        found.append(made)
    return tuple(found)


def _given(thresholds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the thresholds that were set, not fitted; infinite ones as large numbers."""
    return {
        f"{side}_threshold": float(np.clip(thresholds[side], -_LARGEST_SIGMA, _LARGEST_SIGMA))
        for side in ("dark", "hot")
        if thresholds.get(f"{side}_is_given")
    }


def _known_defects(outliers: Mapping[str, Any], gain: Mapping[str, Any] | None) -> Image:
    """Return the defects that were given, without those of the gain reference."""
    from napari_mrcz.correction import GainNormalization, OutlierFilter

    defects: Image = OutlierFilter.from_description(outliers).mask == _DEFECT
    if gain is not None:
        defects &= ~GainNormalization.from_description(gain).defects
    return defects
