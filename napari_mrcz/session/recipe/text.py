"""A recipe as text, with a comment for each of its keys."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import tomli_w

from napari_mrcz.session.recipe.steps import kinds_of, notes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_COLUMNS = 100
_FIRST = "What is done to each movie, in this order. A table that is taken out is not done."
_TABLES = {
    "outliers": "Hot and dark pixels are replaced.",
    "gain": "Frames are multiplied by the gain reference.",
    "koma": "The mean of the stacks before and after is subtracted.",
    "output": "How results are saved.",
}
_OWN = (
    'A correction of your own, after "start", "outliers", "gain" or "koma"; its module is named '
    "on the command line (--with)."
)


def to_toml(tables: Mapping[str, Mapping[str, Any]], steps: Mapping[str, type]) -> str:
    """Write a recipe's tables as TOML.

    Parameters
    ----------
    tables : dict
        By their names; keys and values of each.
    steps : dict
        The class of each, which knows what its keys are.

    Returns
    -------
    str
        The text of the file.
    """
    return "\n".join([*_comment(_FIRST), *_lines(tables, steps), ""])


def _lines(tables: Mapping[str, Mapping[str, Any]], steps: Mapping[str, type]) -> Iterator[str]:
    for name, table in tables.items():
        yield ""
        if name not in steps:
            yield from _comment(_OWN)
            yield tomli_w.dumps({name: table}).rstrip("\n")
            continue
        yield from _comment(_TABLES[name])
        yield f"[{name}]"
        kinds = kinds_of(steps[name])
        for key, note in notes_of(steps[name]).items():
            if key in table:
                yield from _comment(note)
                yield tomli_w.dumps({key: table[key]}).rstrip("\n")
            elif getattr(steps[name], key) is None:
                yield from _comment(note)
                yield f"# {key} = {kinds[key]()}"


def _comment(said: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(said, _COLUMNS - 2)]
