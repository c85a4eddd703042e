"""Recipes: what is done to every movie of a session, as a small text file (TOML).

::

    [outliers]                 # each table is optional; keys that are left out take the defaults
    fill = "sample"

    [gain]
    reference = "gain.mrc"     # in the folder of the recipe, or a whole path
    gamma = 0.98

    [koma]
    radius = 12

    [output]
    codec = "zstd"

    ["my_module:Denoise"]      # a correction of your own
    after = "gain"
    strength = 0.5

Tables and their keys are the options of the corrections (`napari_mrcz.correction.options`), which
are applied in the order of `CORRECTIONS`, whatever the order of the tables. Corrections of your own
follow the step that they name, or else the last one, in the order of their tables. Their modules
are named on the command line (``correct --with my_module.py``): reading a recipe imports nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tomli_w

from napari_mrcz.correction.history import (
    CORRECTIONS,
    Replayable,
    SimpleCorrection,
    rebuild,
    registered,
)
from napari_mrcz.correction.options import (
    Declared,
    Option,
    Options,
    options_of,
    read_options,
    suggestion,
)
from napari_mrcz.errors import AnyPath, MrczError, failure_text
from napari_mrcz.format.atomic import write_file
from napari_mrcz.format.chunks import FILTERS
from napari_mrcz.format.header import CODECS, storage_dtype
from napari_mrcz.naming import COMPRESSED_SUFFIX, PLAIN_SUFFIXES

if TYPE_CHECKING:
    from napari_mrcz.correction.gain import GainStep
    from napari_mrcz.correction.koma import KomaOptions
    from napari_mrcz.correction.outliers.thresholds import OutlierStep

# Steps that need more than a movie: gain and outliers each other, KOMA the session.
_FIXED = ("outliers", "gain", "koma")
_START, _AFTER, _OUTPUT = "start", "after", "output"
# Of the output; codec, level and filter belong to a recipe.
_IN_CORRECT = ("keep", "dtype")
PLACES = (_START, *_FIXED)
"""Places in the order of a recipe at which `Recipe.corrections` are applied; "start" is first."""

_OWN_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_COLUMNS = 100
_FIRST = "What is done to each movie, in this order. Steps whose table is removed are not done."
_OWN = (
    'A correction of your own, after "start" or a step named above; its module is named on the '
    "command line (--with)."
)


@dataclass(frozen=True)
class Coding(Options):
    """How frames are compressed, as `write` takes it."""

    codec: Annotated[
        str,
        Option(
            "Codec",
            "Codec of the chunks; every MRCZ reader knows all",
            choices={name: name for name in CODECS},
            flag="--codec",
            advice="Leave it, but for readers that are faster with lz4",
        ),
    ] = "zstd"
    level: Annotated[
        int,
        Option(
            "Level",
            "1 is fast, 9 small",
            least=1,
            most=9,
            flag="--level",
            advice="Leave it: counted frames get little smaller",
        ),
    ] = 1
    filter: Annotated[
        str,
        Option(
            "Filter",
            '"auto" tries on three frames',
            choices={name: name for name in ("auto", *FILTERS)},
            flag="--filter",
            advice="Leave it",
        ),
    ] = "auto"
    dtype: Annotated[
        str,
        Option(
            "Pixel type",
            "Pixel type, such as int16; values are rounded, and refused if too large",
            unset="unchanged",
            flag="--dtype",
            advice="float16 halves what is corrected by gain or KOMA",
        ),
    ] = ""

    def __post_init__(self) -> None:
        """Check the pixel type, too."""
        super().__post_init__()
        try:
            storage_dtype(self.dtype or "int16")
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.dtype} is not a pixel type, such as int16") from error

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `napari_mrcz.write`."""
        return {**asdict(self), "dtype": self.dtype or None}


@dataclass(frozen=True)
class Output(Coding):
    """How results are saved."""

    codec: Annotated[
        str,
        Option(
            "Codec",
            "Codec of the chunks",
            choices={"auto": "automatic", **{name: name for name in CODECS}, "none": "plain"},
            advice='"none" for programs that do not read MRCZ',
        ),
    ] = "auto"
    keep: Annotated[
        str,
        Option(
            "Keep",
            "Corrected values, or counts with gain and KOMA in the footer",
            choices={
                "values": "corrected values",
                "counts": "integers before gain and KOMA, an eighth of the size",
            },
            flag="--keep",
            advice='"counts" for archives: restore gives the raw movie back',
        ),
    ] = "values"

    def __post_init__(self) -> None:
        """Check that the options fit each other."""
        super().__post_init__()
        if self.keep == "counts" and self.dtype:
            raise ValueError('counts keep their pixel type: leave dtype empty, or keep = "values"')
        if self.keep == "counts" and self.codec == "none":
            raise ValueError(
                'plain files are not kept as counts: choose a codec, or keep = "values"'
            )

    @property
    def suffix(self) -> str:
        """How the names of results end."""
        return PLAIN_SUFFIXES[0] if self.codec == "none" else COMPRESSED_SUFFIX

    def sentences(self) -> list[str]:
        """Return how results are saved, for a person."""
        rounded = f", rounded to {self.dtype}" if self.dtype else ""
        codec = "zstd" if self.codec == "auto" else self.codec
        counts = ["They are kept as counts; gain and KOMA are applied when they are opened."]
        return [
            f"Results are saved with {codec}, level {self.level}{rounded}.",
            *(counts if self.keep == "counts" else ()),
        ]


def tables() -> dict[str, type]:
    """Return the classes that declare each table's keys, in the order in which they are applied."""
    known: dict[str, type] = {}
    for name, entry in CORRECTIONS.items():
        if entry.table and (correction := registered(name)) is not None:
            known[entry.table] = getattr(correction, "table_options", correction)
    return {**known, _OUTPUT: Output}


def recipe_options() -> dict[str, Declared]:
    """Return the options of tables that ``correct`` has too: "koma__radius"."""
    found = {
        f"{table}__{name}": declared
        for table, declares in tables().items()
        for name, declared in options_of(declares).items()
        if declared.option.flag and (table != _OUTPUT or name in _IN_CORRECT)
    }
    for name in ("gain__reference", "koma__radius"):  # without them, the step is not done
        option = replace(found[name].option, unset="not done")
        found[name] = found[name]._replace(option=option)
    return found


@dataclass(frozen=True)
class SimpleStep:
    """A correction that needs only a movie's frames, or one of your own."""

    name: str  # Its table: "smoothing", or module and class of your own: "my_module:Denoise"
    # Arguments of its `from_description`
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    after: str = PLACES[-1]  # Table that one of your own follows, or "start"; not used for others
    path: str = field(default="recipe", compare=False)  # Where it is from, for errors

    @property
    def class_name(self) -> str:
        """Its name in histories."""
        ours = (name for name, entry in CORRECTIONS.items() if entry.table == self.name)
        return next(ours, self.name.partition(":")[2])

    @property
    def is_own(self) -> bool:
        """Whether it is not one of napari-mrcz."""
        return ":" in self.name

    @property
    def is_loaded(self) -> bool:
        """Whether its class is registered, by the module that it names."""
        return self._class() is not None

    def table(self) -> dict[str, Any]:
        """Return it as a recipe's table."""
        return {**({_AFTER: self.after} if self.is_own else {}), **self.options}

    def sentences(self) -> list[str]:
        """Return what is done, for a person."""
        found = self._class()
        options = ", ".join(f"{key} = {value!r}" for key, value in self.options.items())
        lines = (getattr(found, "__doc__", None) or "").strip().splitlines()
        # Dataclasses without a docstring have one of Python's.
        summary = lines[0].rstrip(".") if lines and not lines[0].startswith(self.class_name) else ""
        return [
            f"{self.name} is done"
            + (f" ({summary})" if summary else "")
            + (f" with {options}" if options else "")
            + ("." if found is not None else "; its module was not named (--with).")
        ]

    def correction(self) -> Replayable:
        """Build the correction.

        Raise `MrczError` if its module was not named or has no such class, or an option is wrong.
        """
        module, _, name = self.name.partition(":")
        found = self._class()
        if found is None:
            if module in sys.modules:
                advice = f"Is there a class {name} with @napari_mrcz.correction.register?"
                raise MrczError(None, f"{module} registers no correction {name}", advice=advice)
            missing = f'the correction ["{self.name}"] is not known: its module was not named'
            raise MrczError(
                None, missing, advice=f"Name it: --with {module}.py, or --with {module}"
            )
        if issubclass(found, SimpleCorrection):
            read_options(found, self.options, self.name, self.path)
        try:
            return rebuild({"name": self.class_name, **self.options})
        except ValueError as error:
            raise MrczError(self.path, f'["{self.name}"]: {error}') from error

    def _class(self) -> type[Replayable] | None:
        found = registered(self.class_name)
        module = self.name.partition(":")[0]
        return None if found is None or (self.is_own and found.__module__ != module) else found


@dataclass(frozen=True)
class Recipe:
    """What is done to each movie, in this order; None for a step that is not done.

    Raise `ValueError` if the steps do not fit each other.
    """

    outliers: OutlierStep | None = None  # The steps that need more than a movie's frames
    gain: GainStep | None = None
    koma: KomaOptions | None = None
    output: Output = field(default_factory=Output)  # How the result is saved
    more: tuple[SimpleStep, ...] = ()  # All other steps
    # These are neither read from files nor saved
    modules: tuple[str, ...] = ()  # Modules with corrections of your own (`load_modules`)
    again: bool = False  # Whether steps that a movie has had are done again
    # Whether the gain is left out for movies that it does not help, as its orientation was searched
    gain_is_optional: bool = False
    warnings: tuple[str, ...] = ()  # Doubts about the orientation of the gain

    def __post_init__(self) -> None:
        """Check that the steps fit each other."""
        if self.output.keep == "counts" and self.outliers and self.outliers.fill != "sample":
            raise ValueError(
                f'keep = "counts" needs whole numbers, where fill = "{self.outliers.fill}" makes '
                'fractions: choose fill = "sample", or keep = "values"'
            )

    @classmethod
    def load(cls, path: AnyPath) -> Recipe:
        """Read a recipe; files that it names are taken from its own folder.

        Raise `MrczError` if it is not TOML, or names a table, key or value that is unknown.
        """
        try:
            # Some editors write a byte order mark, which TOML does not allow.
            content = tomllib.loads(Path(path).read_text("utf-8-sig"))
        except OSError as error:
            raise MrczError(path, f"cannot be opened: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise MrczError(path, f"it is not valid TOML: {error}") from error
        except RecursionError as error:
            raise MrczError(path, "it is not a recipe: its values are nested too deeply") from error
        return cls.from_dict(content, path)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], path: AnyPath = "recipe") -> Recipe:
        """Return the recipe of some tables; raise `MrczError` if one of them is wrong."""
        known = tables()
        steps: dict[str, Any] = {}
        more = []
        for name, table in content.items():
            is_own = _OWN_NAME.fullmatch(name) is not None
            if name not in known and not is_own:
                guess = suggestion(name, known)
                allowed = f'{", ".join(known)}, and "module:Class" of your own'
                raise MrczError(path, f"a table [{name}]{guess}", advice=f"Known are {allowed}")
            if not isinstance(table, Mapping):
                raise MrczError(path, f"{name} = {table!r}", advice=f"Write a table: [{name}]")
            if is_own:
                options = dict(table)
                after = options.pop(_AFTER, PLACES[-1])
                places = [_START, *(table for table in known if table != _OUTPUT)]
                if after not in places:
                    advice = f"Write one of {', '.join(places)}"
                    raise MrczError(path, f'{_AFTER} = {after!r} in ["{name}"]', advice=advice)
                more.append(SimpleStep(name, options, after, str(path)))
                continue
            values = read_options(known[name], table, name, path)
            try:
                made = known[name](**values)
            except (TypeError, ValueError) as error:
                raise MrczError(path, str(error)) from error
            if name in (*_FIXED, _OUTPUT):
                steps[name] = made
            else:
                more.append(SimpleStep(name, values, path=str(path)))
        if "gain" in steps and not steps["gain"].reference:
            advice = 'Name it: reference = "gain.mrc"'
            raise MrczError(path, "a [gain] without a reference", advice=advice)
        if not (steps.keys() - {_OUTPUT} or more):
            advice = "Write at least one table [outliers], [gain] or [koma]"
            raise MrczError(path, "a recipe that does nothing", advice=advice)
        try:
            return cls(**steps, more=tuple(more))
        except ValueError as error:
            raise MrczError(path, str(error)) from error

    def with_options(self, given: Mapping[str, Mapping[str, Any]]) -> Recipe:
        """Return a recipe with other options.

        `given`: new options by table. A step that the recipe does not have is added (a gain in the
        orientation that the first movie shows), except the outlier filter. Raise `ValueError` if a
        value is wrong, or there is no step for it.
        """
        changed: dict[str, Any] = {}
        more = list(self.more)
        for table, options in given.items():
            if table in (*_FIXED, _OUTPUT):
                step = getattr(self, table)
                if step is None and table == "outliers":
                    raise ValueError(
                        f"the recipe has no table [{table}] that takes {', '.join(options)}"
                    )
                new = {"orientation": "auto"} if table == "gain" else {}
                changed[table] = replace(step or tables()[table](**new), **options)
                continue
            step = next((step for step in more if step.name == table), SimpleStep(table))
            more = [one for one in more if one != step]
            more.append(replace(step, options={**step.options, **options}))
            more[-1].correction()
        return replace(self, more=tuple(more), **changed)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return its tables, without keys that are None."""
        steps = {name: getattr(self, name) for name in (*_FIXED, _OUTPUT)}
        found = {
            name: {key: value for key, value in asdict(step).items() if value is not None}
            for name, step in steps.items()
            if step is not None
        }
        return found | {step.name: step.table() for step in self.more}

    def files(self) -> list[str]:
        """Return the files that it names."""
        known = tables()
        return [
            value
            for name, table in self.as_dict().items()
            if name in known
            for key, value in table.items()
            if value and options_of(known[name])[key].option.is_file
        ]

    def chosen(self) -> dict[str, dict[str, Any]]:
        """Return its tables, with only the keys that differ from their defaults."""
        known = tables()
        return {
            name: {
                key: value
                for key, value in table.items()
                if name not in known or value != options_of(known[name])[key].default
            }
            for name, table in self.as_dict().items()
        }

    def with_modules(self, modules: Iterable[str]) -> Recipe:
        """Return the recipe with the modules of its own corrections, which are imported.

        `modules`: as `load_modules` takes them. Raise `MrczError` if one cannot be imported, or
        `SimpleStep.correction` does for a step.
        """
        absolute = [str(Path(m).absolute()) if m.endswith(".py") else m for m in modules]
        named = replace(self, modules=tuple(absolute))
        for place in PLACES:
            named.corrections(place)
        return named

    def corrections(self, place: str) -> list[Replayable]:
        """Return the corrections between one of `PLACES` and the next, in order."""
        load_modules(self.modules)
        return [step.correction() for step in self._between(place)]

    def _between(self, place: str) -> Iterator[SimpleStep]:
        """Yield the steps between one of `PLACES` and the next."""
        order = [_START, *tables()]
        for at in order[order.index(place) :]:
            if at in (*_FIXED, _OUTPUT) and at != place:
                return
            yield from (step for step in self.more if step.name == at)
            yield from (step for step in self.more if step.is_own and step.after == at)

    def steps(self) -> list[str]:
        """Return what it does, in sentences."""
        said: list[str] = []
        for place in PLACES:
            if (fixed := getattr(self, place, None)) is not None:
                said += fixed.sentences()
            for step in self._between(place):
                said += step.sentences()
        return said

    def sentences(self) -> list[str]:
        """Return what it does and how results are saved, in sentences."""
        return [*self.steps(), *self.output.sentences()]

    def save(self, path: AnyPath, *, overwrite: bool = False) -> None:
        """Write it as TOML with a comment for each key, all or nothing."""
        write_file(path, to_toml(self.as_dict()).encode("utf-8"), overwrite=overwrite)


def to_toml(content: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a recipe's tables as TOML, with a comment for each key.

    Options that have no effect with the others are left out unless they were chosen.
    """
    known, lines = tables(), _comment(_FIRST)
    for name, table in content.items():
        lines.append("")
        if name not in known:
            lines += [*_comment(_OWN), tomli_w.dumps({name: table}).rstrip("\n")]
            continue
        lines += [*_comment((known[name].__doc__ or "").splitlines()[0]), f"[{name}]"]
        for key, declared in options_of(known[name]).items():
            needed = dict([declared.option.only_with] if declared.option.only_with else ())
            idle = any(table.get(other, value) != value for other, value in needed.items())
            if key in table and not (idle and table[key] == declared.default):
                entry = tomli_w.dumps({key: table[key]}).rstrip("\n")
                lines += [*_comment(declared.note), entry]
            elif declared.default is None:
                lines += [*_comment(declared.note), f"# {key} = {declared.kind()}"]
    return "\n".join([*lines, ""])


def _comment(said: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(said, _COLUMNS - 2)]


def load_modules(modules: Iterable[str]) -> None:
    """Import modules with corrections, .py files or installed ones, each once; or `MrczError`."""
    for module in modules:
        try:
            if module.endswith(".py"):
                _load_file(Path(module))
            else:
                importlib.import_module(module)
        except MrczError:
            raise
        except ModuleNotFoundError as error:
            advice = "Name a .py file, or a module that is installed" * (error.name == module)
            raise MrczError(module, f"cannot be imported: {error}", advice=advice) from error
        except (Exception, SystemExit) as error:
            found = f"cannot be imported: {type(error).__name__}: {failure_text(error)}"
            raise MrczError(module, found) from error


def _load_file(file: Path) -> None:
    name = file.stem
    there = sys.modules.get(name)
    if there is not None:
        if Path(getattr(there, "__file__", None) or "") == file.absolute():
            return
        found = f"a module {name} is loaded already, from another file"
        raise MrczError(file, found, advice="Rename it")
    spec = importlib.util.spec_from_file_location(name, file.absolute())
    if spec is None or spec.loader is None:
        raise MrczError(file, "is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their types up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
