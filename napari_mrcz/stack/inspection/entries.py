"""A tree of plain entries: what a file says, as names, values, units and meanings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.errors import size_text

if TYPE_CHECKING:
    from collections.abc import Iterable

# Lists of plain values up to this long are one line; of longer ones the beginning is shown.
_LONGEST_LINE = 16
_PLAIN = (str, int, float, complex, bool, type(None), np.generic)


@dataclass(frozen=True)
class Entry:
    """One line of the tree, and those beneath it.

    Attributes
    ----------
    name, value, unit : str
        As shown; `unit` is empty for what has none.
    meaning : str
        One line on what it is; may be empty.
    children : tuple of Entry
        What it consists of.
    folded : bool
        Whether these are hidden at first.
    """

    name: str
    value: str = ""
    unit: str = ""
    meaning: str = ""
    children: tuple[Entry, ...] = ()
    folded: bool = False


def entries_of(values: Mapping[Any, Any]) -> tuple[Entry, ...]:
    """Return an entry for each item of a map, nested as it is."""
    return tuple(entry_of(str(name), value) for name, value in values.items())


def entry_of(name: str, value: Any, meaning: str = "") -> Entry:
    """Return the entry of one value: of maps and lists what is in them, of arrays what they are."""
    if isinstance(value, Mapping):
        return Entry(name, _counted(len(value), "entry"), "", meaning, entries_of(value))
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.size <= _LONGEST_LINE:
        value = value.tolist()
    if isinstance(value, np.ndarray):
        shape = " × ".join(map(str, value.shape))
        return Entry(name, f"array of {shape}, {value.dtype}", "", meaning)
    if isinstance(value, bytes | bytearray):
        return Entry(name, f"{size_text(len(value))}, not text", "", meaning)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if all(isinstance(item, _PLAIN) for item in value):
            return Entry(name, _line(value), "", meaning)
        children = tuple(entry_of(str(at), item) for at, item in enumerate(value))
        return Entry(name, _counted(len(value), "entry"), "", meaning, children)
    return Entry(name, _text(value), "", meaning)


def matching(entries: Iterable[Entry], words: str) -> tuple[Entry, ...]:
    """Return the entries in which every word is found, each with what leads to it.

    Words may be in an entry itself or in what it belongs to; what is beneath a match is kept.
    """
    wanted = tuple(words.lower().split())
    return _matching(entries, wanted) if wanted else tuple(entries)


def _matching(entries: Iterable[Entry], wanted: tuple[str, ...]) -> tuple[Entry, ...]:
    found = []
    for entry in entries:
        said = f"{entry.name}\n{entry.value}\n{entry.unit}\n{entry.meaning}".lower()
        left = tuple(word for word in wanted if word not in said)
        if not left:
            found.append(entry)
        elif children := _matching(entry.children, left):
            found.append(replace(entry, children=children))
    return tuple(found)


def _line(values: Sequence[Any]) -> str:
    line = ", ".join(map(_text, values[:_LONGEST_LINE]))
    if len(values) > _LONGEST_LINE:
        line += f", … ({len(values)} in all)"
    return line or "nothing"


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.7g}"
    return str(value)


def _counted(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count} {noun.removesuffix('y')}ies"
