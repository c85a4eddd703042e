"""A session: many stacks in order of acquisition, of which one is looked at at a time."""

from __future__ import annotations

import copy
import shutil
import tempfile
import threading
import uuid
import weakref
from contextlib import contextmanager
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_mrcz.session.summaries import Summary, SummaryStore, cache_folder, key_of, summarise
from napari_mrcz.stack import Stack
from napari_mrcz.stack import open as open_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Session", "StackLike"]

StackLike: TypeAlias = str | PathLike[str] | Stack | npt.NDArray[Any]

_STRIP_NBYTES = 2**26


class Session:
    """Stacks taken one after the other on one camera.

    Each is read once. Its sum is kept in a cache folder of ours (`cache_folder`), and found again
    by the file's path, size and time and by the corrections; sums of what is no file are deleted
    with the session. In memory there are never more than a few images.

    Parameters
    ----------
    stacks : iterable of path-like, Stack or ndarray (n, y, x)
        In order of acquisition. Files are opened when they are needed and closed again. Stacks
        may carry corrections.
    prepare : callable, optional
        Applied to each stack when it is opened, e.g. to filter its outliers::

            Session(paths, prepare=lambda stack: stack.apply(nm.OutlierFilter.fit(stack)))

    Raises
    ------
    ValueError
        If there are no stacks.
    """

    def __init__(
        self, stacks: Iterable[StackLike], *, prepare: Callable[[Stack], Stack] | None = None
    ) -> None:
        self._stacks = tuple(stacks)
        if not self._stacks:
            raise ValueError("a session has at least one stack")
        self._prepare = prepare
        self._summaries: dict[int, Summary] = {}
        self._lock = threading.RLock()
        self._store = SummaryStore(cache_folder())
        self._own_keys: list[str] = []
        weakref.finalize(self, _discard, self._store, self._own_keys)

    def __len__(self) -> int:
        """Give the number of stacks."""
        return len(self._stacks)

    def name(self, index: int) -> str:
        """Give a stack's file, or "stack <index>" where there is none."""
        item = self._stacks[index]
        if isinstance(item, Stack):
            return item.path or f"stack {index}"
        return fspath(item) if isinstance(item, str | PathLike) else f"stack {index}"

    @contextmanager
    def opened(self, index: int) -> Iterator[Stack]:
        """Open a stack, prepared, for as long as the block lasts."""
        item = self._stacks[index]
        if isinstance(item, Stack):
            # A copy shares the frames' source, but not what is kept of them in memory.
            stack = copy.deepcopy(item)
        elif isinstance(item, str | PathLike):
            stack = open_stack(item)
        else:
            stack = Stack.from_array(item)
        with stack:
            if self._prepare is None:
                yield stack
            else:
                with self._prepare(stack) as prepared:
                    yield prepared

    def summary(self, index: int) -> Summary:
        """Give a stack's sum and what goes with it; the stack is read if nothing is kept of it.

        Raises
        ------
        MrczError
            If the stack cannot be read.
        """
        with self._lock:
            found = self._summaries.get(index)
            if found is None:
                with self.opened(index) as stack:
                    found = self._summarised(stack)
                self._summaries[index] = found
            return found

    def total(self, index: int) -> npt.NDArray[Any]:
        """Give the sum of a stack's frames, (y, x), mapped from the cache."""
        try:
            return self.summary(index).sum
        except FileNotFoundError:
            # The cache was emptied, or other stacks needed the room.
            self._summaries.pop(index, None)
            return self.summary(index).sum

    def mean(self, index: int) -> npt.NDArray[np.float64]:
        """Give the mean frame of a stack, (y, x)."""
        mean: npt.NDArray[np.float64] = self.total(index) / self.summary(index).n_frames
        return mean

    def covariances(self, members: Iterable[int]) -> npt.NDArray[np.float64]:
        """Give the covariances over the pixels between the sums of m stacks, (m, m).

        A few rows of all sums are in memory at a time.
        """
        members = list(members)
        y, x = self.total(members[0]).shape
        rows = max(1, _STRIP_NBYTES // (8 * x * len(members)))
        # About the mean, so that the products lose no digits.
        level = np.array([self.summary(i).thumbnail.mean() for i in members])
        level *= [self.summary(i).n_frames for i in members]
        first = np.zeros(len(members))
        second = np.zeros((len(members), len(members)))
        for top in range(0, y, rows):
            strip = np.stack([self.total(i)[top : top + rows].reshape(-1) for i in members])
            centred = strip - level[:, np.newaxis]
            first += centred.sum(axis=1)
            second += centred @ centred.T
        first /= y * x
        covariances: npt.NDArray[np.float64] = second / (y * x) - np.outer(first, first)
        return covariances

    def _summarised(self, stack: Stack) -> Summary:
        key = key_of(stack)
        found = None if key is None else self._store.load(key)
        if found is not None:
            return found
        if key is None:
            key = uuid.uuid4().hex
            self._own_keys.append(key)
        total, variance = summarise(stack)
        try:
            return self._store.save(key, total, len(stack), variance)
        except OSError:
            # A home that cannot be written is no reason to fail.
            folder = tempfile.mkdtemp(prefix="napari-mrcz-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._store = SummaryStore(folder)
            return self._store.save(key, total, len(stack), variance)


def _discard(store: SummaryStore, keys: list[str]) -> None:
    for key in keys:
        store.discard(key)
