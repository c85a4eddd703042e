"""Recipes: what is to be done to every movie of a session, as a small text file (TOML)."""

from napari_mrcz.session.recipe.own import OwnStep
from napari_mrcz.session.recipe.recipe import Recipe
from napari_mrcz.session.recipe.steps import GainStep, KomaStep, OutlierStep, Output

__all__ = ["GainStep", "KomaStep", "OutlierStep", "Output", "OwnStep", "Recipe"]
