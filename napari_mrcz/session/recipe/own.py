"""Corrections of one's own in recipes.

A recipe has their options, in a table ``["my_module:Denoise"]``; the module that has the class is
named by whoever runs the recipe (``correct --with my_module.py``). Opening a file or reading a
recipe imports nothing and runs nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError, failure_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike

    from napari_mrcz.correction.history import Replayable

PLACES = ("start", "outliers", "gain", "koma")
"""Steps of recipes that a correction may come after, in their order; "start" is before all."""

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_AFTER = "after"


@dataclass(frozen=True)
class OwnStep:
    """A correction that is not part of napari-mrcz.

    Attributes
    ----------
    name : str
        Module and class, such as "my_module:Denoise".
    options : dict
        What its `from_description` takes.
    after : str
        One of `PLACES`.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    after: str = PLACES[-1]

    @property
    def class_name(self) -> str:
        """Its name in histories."""
        return self.name.partition(":")[2]

    @property
    def is_loaded(self) -> bool:
        """Whether its class is registered, by the module that it names."""
        return self._class() is not None

    @property
    def summary(self) -> str:
        """The first line of its class's docstring; empty if it is not loaded or has none."""
        found = self._class()
        lines = (found.__doc__ or "").strip().splitlines() if found is not None else []
        return lines[0].rstrip(".") if lines and not lines[0].startswith(self.class_name) else ""

    def table(self) -> dict[str, Any]:
        """Return it as a recipe's table."""
        return {_AFTER: self.after, **self.options}

    def correction(self) -> Replayable:
        """Build the correction.

        Raises
        ------
        MrczError
            If its module was not named, has no such class, or that does not take the options.
        """
        from napari_mrcz.correction.history import rebuild

        module, _, name = self.name.partition(":")
        if not self.is_loaded:
            if module in sys.modules:
                advice = f"Is there a class {name} with @napari_mrcz.correction.register?"
                raise MrczError(None, f"{module} registers no correction {name}", advice=advice)
            found = f'the correction ["{self.name}"] is not known: its module was not named'
            raise MrczError(None, found, advice=f"Name it: --with {module}.py, or --with {module}")
        try:
            return rebuild({"name": name, **self.options})
        except ValueError as error:
            raise MrczError(None, f'["{self.name}"]: {error}') from error

    def _class(self) -> type[Replayable] | None:
        from napari_mrcz.correction.history import registered

        module, _, name = self.name.partition(":")
        found = registered(name)
        return found if found is not None and found.__module__ == module else None


def is_own(table: str) -> bool:
    """Return whether a table's name is that of a module and class."""
    return _NAME.fullmatch(table) is not None


def own_step_of(
    name: str, table: Mapping[str, Any], path: str | PathLike[str] = "recipe"
) -> OwnStep:
    """Return the step of a table; nothing is imported.

    Raises
    ------
    MrczError
        If its place among the steps means nothing.
    """
    options = dict(table)
    after = options.pop(_AFTER, PLACES[-1])
    if after not in PLACES:
        advice = f"Write one of {', '.join(PLACES)}"
        raise MrczError(path, f'{_AFTER} = {after!r} in ["{name}"]', advice=advice)
    return OwnStep(name, options, after)


def load_modules(modules: Iterable[str]) -> None:
    """Import modules with corrections of one's own, each once per process.

    Parameters
    ----------
    modules : iterable of str
        Files (.py), or names of modules that Python finds.

    Raises
    ------
    MrczError
        If one cannot be imported.
    """
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
        except Exception as error:
            found = f"cannot be imported: {type(error).__name__}: {failure_text(error)}"
            raise MrczError(module, found) from error


def _load_file(file: Path) -> None:
    name = file.stem
    there = sys.modules.get(name)
    if there is not None:
        if Path(getattr(there, "__file__", None) or "") == file.absolute():
            return
        found = f"a module {name} is loaded already, from another file"
        raise MrczError(file, found, advice="Give it another name")
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
