"""Work on parts of an image in threads, which `napari_mrcz.stack` lends.

Corrections are array mathematics: they know neither the machine nor who else computes on it. Until
threads are lent, work is done in the caller's.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")
Result = TypeVar("Result")

_in_order: Any = None
_processors: Callable[[], int] = lambda: 1  # noqa: E731
_give_back: Callable[[], None] = lambda: None  # noqa: E731


def lend(in_order: Any, processors: Callable[[], int], give_back: Callable[[], None]) -> None:
    """Lend threads to corrections.

    Parameters
    ----------
    in_order : callable
        Context manager ``in_order(work, items, threads, name)``, an iterator of ordered results.
    processors : callable
        Returns the number of threads to be used now.
    give_back : callable
        Returns freed memory to the system.
    """
    global _in_order, _processors, _give_back
    _in_order, _processors, _give_back = in_order, processors, give_back


@contextmanager
def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], name: str, *, alone: bool = False
) -> Iterator[Iterator[Result]]:
    """Run work on each item in the threads lent; the context is an iterator of ordered results.

    Parameters
    ----------
    work : callable
        Called with one item, in any thread.
    items : iterable
        What to work on.
    name : str
        Name of the threads.
    alone : bool
        Use one thread, where items are too small for more (default: False).
    """
    if _in_order is None:
        yield map(work, items)
        return
    with _in_order(work, items, 1 if alone else _processors(), name) as results:
        yield results


def give_back() -> None:
    """Return freed memory to the system, so that the next allocation adds nothing to the peak."""
    _give_back()
