"""A recipe, as it is read, checked, written and told in sentences.

::

    [outliers]                 # each table is optional; empty ones take the defaults
    fill = "sample"

    [gain]
    reference = "gain.mrc"     # beside the recipe, or a whole path
    gamma = 0.98

    [koma]
    radius = 12

    [output]
    codec = "zstd"

Steps are done in this order, whatever the order of the tables.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.recipe.steps import GainStep, KomaStep, OutlierStep, Output, kinds_of
from napari_mrcz.recipe.text import to_toml

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["Recipe", "step_of"]

_FILES = ("reference", "dark", "defects")
# Of any number that means something here.
_LARGEST = 1e9

_WRITTEN: dict[type, str] = {
    str: "a text in quotes",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}
_STEPS: dict[str, type] = {
    "outliers": OutlierStep,
    "gain": GainStep,
    "koma": KomaStep,
    "output": Output,
}


@dataclass(frozen=True)
class Recipe:
    """What is done to each movie, in this order; None for a step that is not.

    Attributes
    ----------
    outliers, gain, koma
        The steps.
    output : Output
        How the result is saved.
    """

    outliers: OutlierStep | None = None
    gain: GainStep | None = None
    koma: KomaStep | None = None
    output: Output = field(default_factory=Output)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Recipe:
        """Read a recipe; files that it names are taken from its own folder.

        Raises
        ------
        MrczError
            If it is no TOML, or has a table, key or value that means nothing; names it.
        """
        try:
            # Some editors put a mark before the first letter, which TOML does not know.
            content = tomllib.loads(Path(path).read_text("utf-8-sig"))
        except OSError as error:
            raise MrczError(path, f"cannot be opened: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise MrczError(path, f"it is not valid TOML: {error}") from error
        except RecursionError as error:
            raise MrczError(path, "it is not a recipe: values within values without end") from error
        return cls.from_dict(content, path)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], path: str | PathLike[str] = "recipe") -> Recipe:
        """Make a recipe of its tables.

        Raises
        ------
        MrczError
            If one of them means nothing.
        """
        steps: dict[str, Any] = {}
        for name, table in content.items():
            if name not in _STEPS:
                raise MrczError(path, f"a table [{name}]", advice=f"Known are {', '.join(_STEPS)}")
            if not isinstance(table, Mapping):
                raise MrczError(path, f"{name} = {table!r}", advice=f"Write a table: [{name}]")
            steps[name] = step_of(name, table, path)
        if "gain" in steps and not steps["gain"].reference:
            advice = 'Name it: reference = "gain.mrc"'
            raise MrczError(path, "a [gain] without a reference", advice=advice)
        recipe = cls(**steps)
        if not (recipe.outliers or recipe.gain or recipe.koma):
            advice = "Have at least one table [outliers], [gain] or [koma]"
            raise MrczError(path, "a recipe that does nothing", advice=advice)
        # Late: what judges the values brings scipy, which takes long to import.
        from napari_mrcz.recipe.values import check_values

        try:
            check_values(recipe.outliers, recipe.gain, recipe.koma, recipe.output)
        except (TypeError, ValueError) as error:
            raise MrczError(path, str(error)) from error
        return recipe

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return its tables; keys that are left out are not in them."""
        steps = {name: getattr(self, name) for name in _STEPS}
        return {
            name: {key: value for key, value in asdict(step).items() if value is not None}
            for name, step in steps.items()
            if step is not None
        }

    def chosen(self) -> dict[str, dict[str, Any]]:
        """Return its tables with the keys alone that differ from their defaults."""
        defaults = {name: asdict(step()) for name, step in _STEPS.items()}
        return {
            name: {key: value for key, value in table.items() if value != defaults[name].get(key)}
            for name, table in self.as_dict().items()
        }

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write it as TOML with a comment for each key, all or nothing.

        Raises
        ------
        MrczError
            If it is there already and may not be replaced, or the disk refuses.
        """
        with AtomicFile(path, overwrite=overwrite) as file:
            file.write(to_toml(self.as_dict(), _STEPS).encode("utf-8"))
            file.commit()

    def sentences(self) -> list[str]:
        """Return what it does, one sentence per step."""
        said = []
        if (o := self.outliers) is not None:
            drawn = "drawn from the expected counts" if o.fill == "sample" else "the expectation"
            known = f", and the defects of {o.defects}" if o.defects else ""
            said.append(
                f"Hot and dark pixels, by the {o.model} model{known}, are replaced by values "
                f"{drawn} of their neighbours (steepness {o.order:g}, relaxation {o.relaxation:g})."
            )
            given = {"dark": o.dark_threshold, "hot": o.hot_threshold}
            if sides := [f"{side} at {sigma:g} σ" for side, sigma in given.items() if sigma]:
                said.append(f"Thresholds are not those of each fit: {', '.join(sides)}.")
            if o.counts_per_electron is not None:
                said.append(f"One electron adds {o.counts_per_electron:g} counts.")
            if o.pedestal is not None:
                said.append(f"Pixels without electrons have {o.pedestal:g} counts in each frame.")
        if (g := self.gain) is not None:
            dark = f" after subtracting {g.dark}" if g.dark else ""
            turned = {"identity": "", "auto": ", turned as the first movie shows"}
            how = turned.get(g.orientation, f", turned by {g.orientation}")
            power = f" to the power of {g.gamma:g}" if g.gamma != 1 else ""
            said.append(f"Frames are multiplied by {g.reference}{power}{how}{dark}.")
        if (k := self.koma) is not None:
            kept = "; its level is added back" if k.keep_mean else ""
            said.append(
                f"The mean of {k.radius} stacks before and {k.radius} after is subtracted{kept}; "
                f"stacks whose contrast exceeds {k.limit:g} robust standard deviations enter none."
            )
            if k.length:
                said.append(f"Only what is finer than {k.length} pixels is subtracted.")
            if k.even_if_worse:
                said.append("It is subtracted even where the correlated noise R rises by it.")
        output = self.output
        rounded = f", rounded to {output.dtype}" if output.dtype else ""
        codec = "zstd" if output.codec == "auto" else output.codec
        said.append(f"Results are saved with {codec}, level {output.level}{rounded}.")
        if output.keep == "counts":
            said.append("They are kept as counts; gain and KOMA are applied when they are opened.")
        return said


def step_of(name: str, table: Mapping[str, Any], path: str | PathLike[str] = "recipe") -> Any:
    """Return the step of a table.

    Raises
    ------
    MrczError
        If it has a key or value that means nothing.
    """
    kind = _STEPS[name]
    kinds = kinds_of(kind)
    values = {}
    for key, value in table.items():
        if key not in kinds:
            raise MrczError(path, f"{key} in [{name}]", advice=f"Known are {', '.join(kinds)}")
        wanted: Any = kinds[key]
        if wanted is float and type(value) is int and abs(value) < _LARGEST:
            value = float(value)
        if type(value) is not wanted:
            said = _WRITTEN[wanted]
            raise MrczError(path, f"{key} = {value!r} in [{name}]", advice=f"Write {said}")
        if (wanted is float and not abs(value) < _LARGEST) or (wanted is str and "\0" in value):
            raise MrczError(path, f"{key} = {value!r} in [{name}], which means nothing")
        if key in _FILES and value:
            value = str(Path(path).parent / value)
        values[key] = value
    return kind(**values)
