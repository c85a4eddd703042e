"""Work on parts of an image in threads, which somebody else lends.

Corrections are array mathematics: they know neither the machine nor who else computes on it.
`napari_mrcz` names the module that does; without one, work is done in the caller's thread.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")
Result = TypeVar("Result")

_lender = ""


def lend(module: str) -> None:
    """Set the module that lends threads; it is imported when they are needed.

    `module`: name of a module with ``in_order(work, items, threads, name)``, a context manager that
    is an iterator of ordered results; ``processors()``, how many threads may be used; and
    ``give_back()``, which returns freed memory to the system.
    """
    global _lender
    _lender = module


@contextmanager
def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], name: str, *, alone: bool = False
) -> Iterator[Iterator[Result]]:
    """Run work on each item in the threads lent; the context is an iterator of ordered results.

    `work`: called with one item, in any thread; `items`: what to work on; `name`: name of the
    threads; `alone`: use one thread, where items are too small for more (default: False).
    """
    if not _lender:
        yield map(work, items)
        return
    lender = import_module(_lender)
    with lender.in_order(work, items, 1 if alone else lender.processors(), name) as results:
        yield results


def give_back() -> None:
    """Return freed memory to the system, so that the next allocation adds nothing to the peak."""
    if _lender:
        import_module(_lender).give_back()
