"""What was done to a movie, and doing it again: the corrections that are known, by name.

A correction is a frozen dataclass whose fields are its options, each declared once::

    @register
    @dataclass(frozen=True)
    class Doubling(SimpleCorrection):
        '''Multiply every pixel by a factor.'''

        title = "Pixels multiplied"
        factor: Annotated[float, Option("Factor", "Factor of every pixel", above=0)] = 2.0

        def __call__(self, frame, index):  # (y, x), its place in the movie -> (y, x)
            return frame * self.factor

        def output_dtype(self, dtype):  # optional: spares trying it on a frame
            ...

        def output_shape(self, shape):  # needed only where rows and columns become others
            ...

That gives it keys in recipes, a description in histories and a sentence for a person (`said`).
`SimpleCorrection` is not a must: any class will do that has `describe` and `from_description`.

* The class's own name is its name in every file: it never changes.
* `describe` returns all that is needed: plain numbers, text, lists, maps, None and whole arrays (a
  stack that carries its gain reference can be corrected again anywhere), seeds included; no paths.
* `from_description` takes it as it comes back from a file: tuples have become lists, arrays are
  read-only, and unknown keys are ignored.
* Rebuilt and applied to the same frames, the correction returns the same bits.

Those of napari-mrcz have a line in `CORRECTIONS`. One of your own has a table
``["my_module:Doubling"]`` in recipes, and ``napari-mrcz correct --with my_module.py`` imports its
module. No file names code to be run: a history with a correction that was not imported opens as
any other, and is replayed without it (``without=["Doubling"]``) or not at all.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.correction.options import Options, options_of
from napari_mrcz.naming import software


class Replayable(Protocol):
    """A correction that can be rebuilt from its own description."""

    def __call__(self, frame: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """Correct the frame (y, x) with index `index`."""

    def describe(self) -> Mapping[str, Any]:
        """Return what it does, enough to build it again."""

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Build it again."""


class Known(NamedTuple):
    """Where a correction of napari-mrcz is, and its table in recipes, if it has one."""

    module: str
    table: str = ""


CORRECTIONS = {
    # In the order in which recipes apply them.
    "OutlierFilter": Known("outliers", "outliers"),
    "GainNormalization": Known("gain", "gain"),
    "KomaNormalization": Known("koma", "koma"),
    # Not part of recipes.
    "Amplitude": Known("conversions"),
    "Decimation": Known("conversions"),
    "ElectronCounting": Known("counting"),
    "Pedestal": Known("conversions"),
    "Phase": Known("conversions"),
    "TruncationModel": Known("truncation"),
}
"""Corrections of napari-mrcz by their names in histories; imported when they are needed."""

_Class = TypeVar("_Class", bound=type[Replayable])

_registry: dict[str, type[Replayable]] = {}


def register(cls: _Class) -> _Class:
    """Make a class known by its name to `rebuild`; used as a decorator.

    Raise `ValueError` if a class of another module has this name: histories would mean both.
    """
    name, module, known = cls.__name__, cls.__module__, _registry.get(cls.__name__, cls)
    theirs = _module_of(name) if name in CORRECTIONS else known.__module__
    if (theirs, known.__qualname__) != (module, cls.__qualname__):
        found = f"a correction {name!r} of {theirs} is registered already"
        raise ValueError(f"{found}; call this one another name")
    _registry[name] = cls
    return cls


def registered(name: str) -> type[Replayable] | None:
    """Return the class of a correction of napari-mrcz, or one that was registered by this name."""
    if name in CORRECTIONS:
        return getattr(importlib.import_module(_module_of(name)), name)
    return _registry.get(name)


def _module_of(name: str) -> str:
    return f"{__package__}.{CORRECTIONS[name].module}"


class DescribedByFields:
    """Base of corrections whose fields are all that they need."""

    def describe(self) -> dict[str, Any]:
        """Return the fields, enough to build it again."""
        return described(self, **{f.name: getattr(self, f.name) for f in fields(self)})  # type: ignore[arg-type]

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Build it again."""
        names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
        return cls(**{name: description[name] for name in names if name in description})


class SimpleCorrection(DescribedByFields, Options):
    """Base of corrections whose fields are options, and all that they need."""

    title: ClassVar[str] = ""
    """What was done, in two or three words, above a step of a history."""

    @classmethod
    def said(cls, step: Mapping[str, Any]) -> str:
        """Return how a described step was done, for a person: by default its options."""
        return ", ".join(
            f"{declared.option.label.lower()} {step[name]} {declared.option.unit}".rstrip()
            for name, declared in options_of(cls).items()
            if step.get(name) is not None
        )


def described(correction: Any, **parameters: Any) -> dict[str, Any]:
    """Return a correction's name, its module if not ours, the software's version and parameters."""
    cls = type(correction)
    own = {} if cls.__module__.startswith("napari_mrcz.") else {"module": cls.__module__}
    return {"name": cls.__name__, "software": software(), **own, **parameters}


def rebuild(description: Mapping[str, Any]) -> Replayable:
    """Build a correction from its description, as `describe` returned it.

    Raise `ValueError` if the correction is not known here, or the description damaged.
    """
    if not isinstance(description, Mapping):
        raise ValueError(f"a step is a dictionary, not {type(description).__name__}")
    name = description.get("name")
    cls = registered(name) if isinstance(name, str) else None
    if cls is None:
        known = ", ".join(sorted({*CORRECTIONS, *_registry}))
        module = description.get("module")
        of = f" of the module {module}" if isinstance(module, str) else ""
        then = "import that first; " if of else ""
        raise ValueError(f"no correction {name!r}{of} is known here: {then}known are {known}")
    try:
        return cls.from_description(description)
    except (KeyError, TypeError, ValueError) as error:
        by = description.get("software", "unknown software")
        raise ValueError(f"{name!r} of {by} cannot be rebuilt: {error}") from error


def replay(history: Iterable[Mapping[str, Any]], movie: Any, *, without: Iterable[str] = ()) -> Any:
    """Apply the steps of a history to a movie again, bit for bit.

    Parameters
    ----------
    history : iterable of dict
        Such as `Stack.history`, as applied or as read back from a file.
    movie : Stack or array_like, shape (n, y, x)
        The frames before the first step.
    without : iterable of str
        Names of steps that are left out, which need not be known here.

    Returns
    -------
    Stack or ndarray, shape (n, y, x)
        A lazy stack of a stack (or whatever has `apply`), an array of anything else.

    Raises
    ------
    ValueError
        If a step cannot be rebuilt, before anything is computed; with the step's position.
    """
    steps, left_out = [], set(without)
    for position, description in enumerate(list[Any](history)):
        if isinstance(description, Mapping) and description.get("name") in left_out:
            continue
        try:
            steps.append(rebuild(description))
        except ValueError as error:
            raise ValueError(f"step {position} of the history: {error}") from error
    if hasattr(movie, "apply"):
        for step in steps:
            movie = movie.apply(step)
        return movie
    for step in steps:
        movie = np.stack([step(frame, index) for index, frame in enumerate(movie)])
    return np.asarray(movie)


def step_text(step: Mapping[str, Any]) -> tuple[str, str]:
    """Return a step's title, in two or three words, and how it was done.

    The latter is empty where its parameters, of another version, do not say.
    """
    name = str(step.get("name", "unknown step"))
    correction = registered(name)
    title = getattr(correction, "title", "") or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    if correction is None:
        module = step.get("module")
        of = f" of {module}" if isinstance(module, str) else ""
        return title, f"a correction{of} that is not known here, and cannot be done again"
    try:
        return title, str(getattr(correction, "said", lambda _: "")(step))
    except (KeyError, TypeError, ValueError, IndexError):
        return title, ""


def fingerprint(value: Any) -> str:
    """Return 32 hexadecimal digits (xxh3-128) that differ where descriptions do.

    `value`: maps, lists, arrays and plain values, nested in any way. Tuples count as lists, and
    the order of a map's keys does not matter.
    """
    digest = xxhash.xxh3_128()
    _digest(value, digest.update)
    return digest.hexdigest()


def _digest(value: Any, update: Callable[[bytes | memoryview], object]) -> None:
    # Each value announces its kind and length, so that no two structures look alike.
    if isinstance(value, np.ndarray):
        update(f"array {value.dtype.str} {value.shape} ".encode())
        update(np.ascontiguousarray(value).data)
    elif hasattr(value, "keys"):
        update(f"map {len(value)} ".encode())
        for key in sorted(value, key=str):
            _digest(key, update)
            _digest(value[key], update)
    elif isinstance(value, list | tuple):
        update(f"list {len(value)} ".encode())
        for item in value:
            _digest(item, update)
    else:
        plain = value.item() if isinstance(value, np.generic) else value
        text = repr(plain).encode()
        update(f"{type(plain).__name__} {len(text)} ".encode())
        update(text)
