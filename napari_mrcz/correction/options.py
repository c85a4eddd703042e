"""Options, declared once in a field's `Annotated` hint for commands, recipes and forms.

::

    @dataclass(frozen=True)
    class KomaOptions(Options):
        radius: Annotated[int, Option("Radius", "Stacks averaged to either side", least=1)] = 12

Commands make their options of such fields, recipes their keys and comments, forms their widgets:
``magicgui.widgets.create_widget(annotation=hint)`` takes the hint as it is.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_type_hints

from napari_mrcz.errors import AnyPath, MrczError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Upper limits from here on are not shown.
_MANY = 1000
# Larger numbers in a recipe are mistakes.
_LARGEST = 1e9
# Names of the types of a recipe's values.
_KINDS = {str: "a text in quotes", bool: "true or false", int: "a whole number", float: "a number"}


@dataclass(frozen=True, eq=False)
class Option:
    """Name, help and range of an option; the second part of an `Annotated` hint.

    Attributes
    ----------
    label : str
        Short name, for a form.
    help : str
        Noun phrase without unit, range and default.
    unit : str
        Unit of its numbers.
    above, least, most : float, optional
        Range: above a number, which is excluded, or from `least`; to `most`, included, which is
        infinity if any number and infinity are allowed.
    choices : dict
        Allowed values with their labels; empty if any value in the range is allowed.
    unset : str
        Meaning of None or an empty value, such as "measured".
    step : float, optional
        Step of a form's number field.
    is_file : bool
        Whether it names a file, which in a recipe is relative to its folder.
    flag : str
        Name on the command line, such as ``--pedestal``; empty if it has none.
    only_with : tuple of str
        Name and value of another option that this one needs; () if none.
    advice : str
        When to change it, for the page of settings.
    """

    label: str
    help: str
    unit: str = ""
    above: float | None = None
    least: float | None = None
    most: float | None = None
    choices: Mapping[Any, str] = field(default_factory=dict)
    unset: str = ""
    step: float | None = None
    is_file: bool = False
    flag: str = ""
    only_with: tuple[str, str] | tuple[()] = ()
    advice: str = ""

    @property
    def range_text(self) -> str:
        """The range as a text, such as "1 to 9"; empty if there is none."""
        low, most = self.least, None if self.most == math.inf else self.most
        at_most = "" if most is None else f"{_short(most)} at most"
        if self.above is not None:
            return f"above {self.above:g}" + (f", {at_most}" if at_most else "")
        if low is None:
            return at_most
        return f"{low:g} or more" if most is None else f"{low:g} to {_short(most)}"

    def check(self, name: str, value: Any) -> None:
        """Check the value of the option called `name`.

        Raise `ValueError` with the allowed values if it is out of range, or not one of the choices.
        """
        if self.choices and value not in self.choices:
            allowed = ", ".join(map(str, self.choices))
            guess = suggestion(value, self.choices)
            raise ValueError(f"{name} must be one of {allowed}, not {value!r}{guess}")
        for number in value if isinstance(value, tuple) else (value,):
            if self.choices or not isinstance(number, int | float):
                continue
            if not (
                (isinstance(number, int) or math.isfinite(number) or number == self.most)
                and (self.above is None or number > self.above)
                and (self.least is None or number >= self.least)
                and (self.most is None or number <= self.most)
            ):
                raise ValueError(
                    f"{name} must be {self.range_text or 'a number'}, not {_short(number)}"
                )

    # `dict` calls these two, by which magicgui turns a hint's metadata into options of a widget.
    def keys(self) -> Iterable[str]:
        """Return the names of the options of a form's widget."""
        return self._widget.keys()

    def __getitem__(self, key: str) -> Any:
        """Return an option of a form's widget."""
        return self._widget[key]

    @property
    def _widget(self) -> dict[str, Any]:
        unit = f" ({self.unit})" if self.unit else ""
        found: dict[str, Any] = {"label": self.label + unit, "tooltip": self.help}
        if self.choices:
            return {**found, "choices": [(label, value) for value, label in self.choices.items()]}
        low = self.least if self.above is None else self.above
        if (low, self.most, self.step, self.unit) == (None, None, None, ""):
            return found  # not a number
        limits = {
            "min": -_LARGEST if low is None else low,
            "max": _LARGEST if self.most in (None, math.inf) else self.most,
        }
        return {**found, **limits, **({} if self.step is None else {"step": self.step})}


class Declared(NamedTuple):
    """A field that is an option: its class and name, and the type of its values but None."""

    owner: type
    name: str
    kind: Any
    default: Any
    option: Option

    @property
    def note(self) -> str:
        """The help as a sentence, with unit, range, choices and default."""
        option = self.option
        said = [option.help + (f", in {option.unit}" if option.unit else "")]
        if option.choices:
            known = option.choices.items()
            said.append(", ".join(f'"{v}"' + f" ({label})" * (v != label) for v, label in known))
        elif option.most is not None and option.most >= _MANY:  # a limit of absurd values only
            said.append(replace(option, most=None).range_text)
        else:
            said.append(option.range_text)
        if option.only_with:
            said.append(f'with {option.only_with[0]} = "{option.only_with[1]}" alone')
        unset = "default" if self.default is None else f"{self.default!r}".replace("'", '"')
        default = f" ({unset.removesuffix('.0')}: {option.unset})" if option.unset else ""
        return "; ".join(filter(None, said)) + f"{default}."


_options: dict[type, dict[str, Declared]] = {}


def options_of(cls: type) -> dict[str, Declared]:
    """Return the fields of a dataclass that are options, by name, in their order."""
    if cls in _options:
        return _options[cls]
    hints, found = get_type_hints(cls, include_extras=True), {}
    for key in fields(cls):
        hint, *said = get_args(hints[key.name]) or (hints[key.name],)
        option = next((one for one in said if isinstance(one, Option)), None)
        if option is not None:
            # Of `float | None`, the float.
            is_optional = type(None) in get_args(hint)
            kind = next(k for k in get_args(hint) if k is not type(None)) if is_optional else hint
            found[key.name] = Declared(cls, key.name, kind, key.default, option)
    return _options.setdefault(cls, found)


class Options:
    """Base of dataclasses whose fields are options: values are checked when one is made.

    The docstring's first line stands in a recipe, above the table of these options.
    """

    def __post_init__(self) -> None:
        """Check the values; raise `ValueError` if one is out of range or not one of the choices."""
        for name, declared in options_of(type(self)).items():
            if (value := getattr(self, name)) is not None:
                declared.option.check(name, value)

    def sentences(self) -> list[str]:
        """Describe these options to a person, by default by their labels and values."""
        summary = (type(self).__doc__ or "").strip().splitlines()[0].rstrip(".")
        chosen = [
            f"{declared.option.label.lower()} {value:g}"
            if isinstance(value, float)
            else f"{declared.option.label.lower()} {value}"
            for name, declared in options_of(type(self)).items()
            if (value := getattr(self, name)) not in (None, "")
        ]
        return [f"{summary} ({', '.join(chosen)})." if chosen else f"{summary}."]


def read_options(cls: type, table: Mapping[str, Any], name: str, path: AnyPath) -> dict[str, Any]:
    """Return the options of a recipe's table, each of its declared type.

    `cls`: dataclass that declares them; `name`: of the table, for messages; `path`: the recipe, to
    whose folder files are relative. Raise `MrczError` with the allowed ones if a key or a value is
    not valid.
    """
    known, values = options_of(cls), {}
    for key, value in table.items():
        if key not in known:
            guess = suggestion(key, known)
            raise MrczError(
                path, f"{key} in [{name}]{guess}", advice=f"Known are {', '.join(known)}"
            )
        kind: Any = known[key].kind
        if kind is float and type(value) is int and abs(value) < _LARGEST:
            value = float(value)
        if type(value) is not kind:
            raise MrczError(path, f"{key} = {value!r} in [{name}]", advice=f"Write {_KINDS[kind]}")
        endless = kind is float and not abs(value) < _LARGEST and value != known[key].option.most
        if endless or (kind is str and "\0" in value):
            raise MrczError(path, f"{key} = {value!r} in [{name}], which means nothing")
        if known[key].option.is_file and value:
            value = str(Path(path).parent / value)
        values[key] = value
    return values


def suggestion(word: Any, known: Iterable[Any]) -> str:
    """Return a question for the known word that is nearest to a misspelt one, if one is near."""
    near = difflib.get_close_matches(str(word), list(map(str, known)), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _short(number: float) -> str:
    """Return a number as a text of at most 16 digits."""
    try:
        return f"{number:.16g}"
    except OverflowError:
        return "a number of hundreds of digits"
