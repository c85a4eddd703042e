"""The recipe that does to other movies what was done to one."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError
from napari_mrcz.recipe.recipe import Recipe
from napari_mrcz.recipe.steps import GainStep, KomaStep, OutlierStep
from napari_mrcz.recipe.values import LARGEST_SIGMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike

__all__ = ["recipe_of"]

# The order in which recipes do them.
_STEPS = ("OutlierFilter", "GainNormalization", "KomaNormalization")
_REPLAY = "nm.replay does it again to any movie"
_DEFECT = 2

Image = npt.NDArray[Any]


def recipe_of(
    history: Iterable[Mapping[str, Any]], path: str | PathLike[str], *, overwrite: bool = False
) -> Recipe:
    """Make a recipe of what was done to a movie, and write the images that it names beside it.

    Thresholds that somebody has set are kept; those that the fit had found, and all else that is
    fitted, every movie gets its own of.

    Parameters
    ----------
    history : iterable of dict
        Such as `Stack.history`.
    path : path-like
        Where the recipe will be. Gain and dark reference and known defects are written as
        ``<its name>-gain.mrc``, ``-dark.mrc``, ``-defects.mrc`` where there are any.
    overwrite : bool
        Replace such files.

    Returns
    -------
    Recipe
        Still to be saved.

    Raises
    ------
    MrczError
        If there is a step that recipes do not have, they have another order, or one is there
        twice; or if a file exists.
    """
    steps = _ordered(history)
    outliers, gain, koma = map(steps.get, _STEPS)
    images: dict[str, Image] = {}
    recipe = Recipe()
    if gain is not None:
        images["gain"] = np.asarray(gain["reference"])
        if gain.get("dark") is not None:
            images["dark"] = np.asarray(gain["dark"])
        step = GainStep(orientation=str(gain["orientation"]), gamma=float(gain["gamma"]))
        recipe = replace(recipe, gain=step)
    if outliers is not None:
        known = {f.name: outliers[f.name] for f in fields(OutlierStep) if f.name in outliers}
        recipe = replace(recipe, outliers=OutlierStep(**known, **_given(outliers["thresholds"])))
        defects = _known_defects(outliers, gain)
        if defects.any():
            images["defects"] = defects.astype(np.int8)
    if koma is not None:
        radius = max(1, len(koma.get("neighbours", ())) // 2)
        recipe = replace(recipe, koma=KomaStep(radius, bool(koma.get("level"))))
    return _naming(recipe, _write(images, Path(path), overwrite=overwrite))


def _ordered(history: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    steps: dict[str, Mapping[str, Any]] = {}
    for step in history:
        name = str(step.get("name"))
        if name not in _STEPS:
            raise MrczError(None, f"a step {name!r} that recipes do not have", advice=_REPLAY)
        if any(_STEPS.index(name) <= _STEPS.index(before) for before in steps):
            found = f"a step {name!r} after {', '.join(steps)}, where recipes do each once and in "
            raise MrczError(None, f"{found}the order {', '.join(_STEPS)}", advice=_REPLAY)
        steps[name] = step
    return steps


def _given(thresholds: Mapping[str, Any]) -> dict[str, Any]:
    """Give the thresholds that are no result of the fit; an infinite one is beyond all pixels."""
    return {
        f"{side}_threshold": float(np.clip(thresholds[side], -LARGEST_SIGMA, LARGEST_SIGMA))
        for side in ("dark", "hot")
        if thresholds.get(f"{side}_is_given")
    }


def _known_defects(outliers: Mapping[str, Any], gain: Mapping[str, Any] | None) -> Image:
    """Give the defects that were named: not those that the gain reference tells anyway."""
    from napari_mrcz.correction import GainNormalization, OutlierFilter

    defects: Image = OutlierFilter.from_description(outliers).mask == _DEFECT
    if gain is not None:
        defects &= ~GainNormalization.from_description(gain).defects
    return defects


def _write(images: Mapping[str, Image], recipe: Path, *, overwrite: bool) -> dict[str, str]:
    """Write images beside a recipe; give their names."""
    from napari_mrcz.format.atomic import check_target
    from napari_mrcz.stack import write

    paths = {name: recipe.with_name(f"{recipe.stem}-{name}.mrc") for name in images}
    for path in paths.values():
        check_target(path, overwrite=overwrite)
    for name, path in paths.items():
        write(path, images[name], overwrite=overwrite)
    return {name: path.name for name, path in paths.items()}


def _naming(recipe: Recipe, names: Mapping[str, str]) -> Recipe:
    """Give a recipe that names the images."""
    gain, outliers = recipe.gain, recipe.outliers
    if gain is not None:
        gain = replace(gain, reference=names["gain"], dark=names.get("dark", ""))
    if outliers is not None:
        outliers = replace(outliers, defects=names.get("defects", ""))
    return replace(recipe, gain=gain, outliers=outliers)
