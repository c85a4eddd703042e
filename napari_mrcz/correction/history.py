"""What was done to a movie, and doing it again.

A correction that can be done again keeps this convention::

    @register
    @dataclass(frozen=True, eq=False)
    class Doubling:
        factor: float

        def __call__(self, frame, index):  # (y, x), its place in the movie -> (y, x)
            return frame * self.factor

        def output_dtype(self, dtype):  # optional: spares trying it on a frame
            ...

        def output_shape(self, shape):  # needed only where rows and columns become others
            ...

        def describe(self):
            return described(self, factor=self.factor)

        @classmethod
        def from_description(cls, description):
            return cls(description["factor"])

* The class's own name is its name in every file: it never changes.
* What `describe` gives is all that is needed: plain numbers, text, lists, maps, None and arrays
  (`numpy.ndarray`, whole: a stack that carries its gain reference can be redone anywhere). Seeds
  are in it; paths are not relied on.
* `from_description` takes it as it comes back from a file: tuples have become lists, arrays are
  read-only, and keys that it does not know are not its concern.
* Rebuilt and applied to the same frames, the correction gives the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.software import software

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Replayable", "described", "fingerprint", "rebuild", "register", "replay"]


class Replayable(Protocol):
    """A correction that can be rebuilt from its own description."""

    def __call__(self, frame: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """Correct the frame (y, x) with index `index`."""

    def describe(self) -> Mapping[str, Any]:
        """Say what it does, enough to build it again."""

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Build it again."""


_Class = TypeVar("_Class", bound=type[Replayable])

_registry: dict[str, type[Replayable]] = {}


def register(cls: _Class) -> _Class:
    """Make a class known by its name to `rebuild`; used as a decorator."""
    _registry[cls.__name__] = cls
    return cls


def described(correction: Replayable, **parameters: Any) -> dict[str, Any]:
    """Give a correction's description: its name, the software's version and its parameters."""
    return {"name": type(correction).__name__, "software": software(), **parameters}


def rebuild(description: Mapping[str, Any]) -> Replayable:
    """Build a correction from what its `describe` once gave.

    Raises
    ------
    ValueError
        If it is no description of a correction known here, or a damaged one; says which.
    """
    if not isinstance(description, Mapping):
        raise ValueError(f"a step is a dictionary, not {type(description).__name__}")
    name = description.get("name")
    cls = _registry.get(name) if isinstance(name, str) else None
    if cls is None:
        known = ", ".join(sorted(_registry))
        raise ValueError(f"no correction is called {name!r}; known are {known}")
    try:
        return cls.from_description(description)
    except (KeyError, TypeError, ValueError) as error:
        by = description.get("software", "unknown software")
        raise ValueError(f"{name!r} of {by} cannot be rebuilt: {error}") from error


def replay(history: Iterable[Mapping[str, Any]], movie: Any) -> Any:
    """Do again to a movie what a history says, bit for bit.

    Parameters
    ----------
    history : iterable of dict
        Such as `Stack.history`, as applied or as read back from a file.
    movie : Stack or array_like, shape (n, y, x)
        What it was done to, i.e. the frames before the first step.

    Returns
    -------
    Stack or ndarray, shape (n, y, x)
        A lazy stack of a stack (of whatever has its `apply`), an array of anything else.

    Raises
    ------
    ValueError
        If a step cannot be rebuilt; says which one. Nothing has been computed then.
    """
    steps = []
    for position, description in enumerate(history):
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


def fingerprint(value: Any) -> str:
    """Give a short text that differs where descriptions do, e.g. to name what is kept of them.

    Parameters
    ----------
    value : Any
        Maps, lists, arrays and plain values, nested as they like. Tuples count as lists, and
        the order of a map's keys does not matter.

    Returns
    -------
    str
        32 hexadecimal digits (xxh3-128).
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
