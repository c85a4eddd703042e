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

    ["my_module:Denoise"]      # a correction of one's own: see `napari_mrcz.session.recipe.own`
    after = "gain"
    strength = 0.5

The first three are done in this order, whatever the order of the tables; those of one's own in the
order of their tables, after the step that they name, the last one without.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.session.recipe.own import PLACES, OwnStep, is_own, load_modules, own_step_of
from napari_mrcz.session.recipe.steps import GainStep, KomaStep, OutlierStep, Output, kinds_of
from napari_mrcz.session.recipe.text import to_toml

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from napari_mrcz.correction.history import Replayable

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
    own : tuple of OwnStep
        Corrections that are not part of napari-mrcz.
    modules : tuple of str
        Modules that have these, as whoever runs the recipe names them (`load_modules`): neither
        read from a file nor written to one.
    again : bool
        Whether steps that a movie has had are done again; not read from a file either.
    gain_is_optional : bool
        Movies that the gain does not help are left without it, as its orientation was found; not
        saved.
    warnings : tuple of str
        What was found doubtful when the recipe was made fit for movies; not saved.
    """

    outliers: OutlierStep | None = None
    gain: GainStep | None = None
    koma: KomaStep | None = None
    output: Output = field(default_factory=Output)
    own: tuple[OwnStep, ...] = ()
    modules: tuple[str, ...] = ()
    again: bool = False
    gain_is_optional: bool = False
    warnings: tuple[str, ...] = ()

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
        own = []
        for name, table in content.items():
            if name not in _STEPS and not is_own(name):
                known = f'{", ".join(_STEPS)}, and "module:Class" of your own'
                raise MrczError(path, f"a table [{name}]", advice=f"Known are {known}")
            if not isinstance(table, Mapping):
                raise MrczError(path, f"{name} = {table!r}", advice=f"Write a table: [{name}]")
            if name in _STEPS:
                steps[name] = step_of(name, table, path)
            else:
                own.append(own_step_of(name, table, path))
        if "gain" in steps and not steps["gain"].reference:
            advice = 'Name it: reference = "gain.mrc"'
            raise MrczError(path, "a [gain] without a reference", advice=advice)
        recipe = cls(**steps, own=tuple(own))
        if not (recipe.outliers or recipe.gain or recipe.koma or recipe.own):
            advice = "Have at least one table [outliers], [gain] or [koma]"
            raise MrczError(path, "a recipe that does nothing", advice=advice)
        # Late: what judges the values brings scipy, which takes long to import.
        from napari_mrcz.session.recipe.values import check_values

        try:
            check_values(recipe.outliers, recipe.gain, recipe.koma, recipe.output)
        except (TypeError, ValueError) as error:
            raise MrczError(path, str(error)) from error
        return recipe

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return its tables; keys that are left out are not in them."""
        steps = {name: getattr(self, name) for name in _STEPS}
        tables = {
            name: {key: value for key, value in asdict(step).items() if value is not None}
            for name, step in steps.items()
            if step is not None
        }
        return tables | {step.name: step.table() for step in self.own}

    def chosen(self) -> dict[str, dict[str, Any]]:
        """Return its tables with the keys alone that differ from their defaults."""
        defaults = {name: asdict(step()) for name, step in _STEPS.items()}
        default_of = {name: defaults.get(name, {}) for name in self.as_dict()}
        return {
            name: {
                key: value
                for key, value in table.items()
                if key not in default_of[name] or value != default_of[name][key]
            }
            for name, table in self.as_dict().items()
        }

    def with_modules(self, modules: Iterable[str]) -> Recipe:
        """Return the recipe with the modules of its own corrections, which are imported.

        Parameters
        ----------
        modules : iterable of str
            Files (.py), or names of modules: see `load_modules`.

        Raises
        ------
        MrczError
            If one cannot be imported, or the recipe has a correction that none of them registers
            or that does not take its options.
        """
        absolute = [str(Path(m).absolute()) if m.endswith(".py") else m for m in modules]
        named = replace(self, modules=tuple(absolute))
        for place in PLACES:
            named.own_corrections(place)
        return named

    def own_corrections(self, place: str) -> list[Replayable]:
        """Return the corrections of one's own after a step, one of `PLACES`, in order.

        Raises
        ------
        MrczError
            If a module cannot be imported, or has no such correction.
        """
        load_modules(self.modules)
        return [step.correction() for step in self.own if step.after == place]

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
        """Return what it does, one sentence per step, and how results are saved."""
        output = self.output
        rounded = f", rounded to {output.dtype}" if output.dtype else ""
        codec = "zstd" if output.codec == "auto" else output.codec
        said = [*self.steps(), f"Results are saved with {codec}, level {output.level}{rounded}."]
        if output.keep == "counts":
            said.append("They are kept as counts; gain and KOMA are applied when they are opened.")
        return said

    def steps(self) -> list[str]:
        """Return what it does, one sentence per step."""
        said = self._own_sentences("start")
        if self.outliers is not None:
            said += _outlier_sentences(self.outliers)
        said += self._own_sentences("outliers")
        if (g := self.gain) is not None:
            dark = f" after subtracting {g.dark}" if g.dark else ""
            turned = {"identity": "", "auto": ", turned as the first movie shows"}
            how = turned.get(g.orientation, f", turned by {g.orientation}")
            power = f" to the power of {g.gamma:g}" if g.gamma != 1 else ""
            said.append(f"Frames are multiplied by {g.reference}{power}{how}{dark}.")
        said += self._own_sentences("gain")
        if self.koma is not None:
            said += _koma_sentences(self.koma)
        return said + self._own_sentences("koma")

    def _own_sentences(self, place: str) -> list[str]:
        return [
            f"{step.name} is done"
            + (f" ({step.summary})" if step.summary else "")
            + (f" with {_options_text(step.options)}" if step.options else "")
            + ("." if step.is_loaded else "; its module was not named (--with).")
            for step in self.own
            if step.after == place
        ]


def _options_text(options: Mapping[str, Any]) -> str:
    """Return options as they are read."""
    return ", ".join(f"{key} = {value!r}" for key, value in options.items())


def _outlier_sentences(step: OutlierStep) -> list[str]:
    drawn = "drawn from the expected counts" if step.fill == "sample" else "the expectation"
    known = f", and the defects of {step.defects}" if step.defects else ""
    said = [
        f"Hot and dark pixels, by the {step.model} model{known}, are replaced by values {drawn} of "
        f"their neighbours (steepness {step.order:g}, relaxation {step.relaxation:g})."
    ]
    given = {"dark": step.dark_threshold, "hot": step.hot_threshold}
    if sides := [f"{side} at {sigma:g} σ" for side, sigma in given.items() if sigma]:
        said.append(f"Thresholds are not those of each fit: {', '.join(sides)}.")
    if step.counts_per_electron is not None:
        said.append(f"One electron adds {step.counts_per_electron:g} counts.")
    if step.pedestal is not None:
        said.append(f"Pixels without electrons have {step.pedestal:g} counts in each frame.")
    return said


def _koma_sentences(step: KomaStep) -> list[str]:
    kept = "; its level is added back" if step.keep_mean else ""
    said = [
        f"The mean of {step.radius} stacks before and {step.radius} after is subtracted{kept}; "
        f"stacks whose contrast exceeds {step.limit:g} robust standard deviations enter none."
    ]
    if step.length:
        said.append(f"Only what is finer than {step.length} pixels is subtracted.")
    if step.even_if_worse:
        said.append("It is subtracted even where the correlated noise R rises by it.")
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
