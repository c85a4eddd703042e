"""A session: many stacks in order of acquisition, of which one is read at a time."""

from __future__ import annotations

import copy
import shutil
import tempfile
import threading
import uuid
import weakref
from contextlib import contextmanager
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import AnyPath, MrczError, failure_text, warn
from napari_mrcz.session.summaries import (
    StackSum,
    Summary,
    SummaryStore,
    key_of,
    summarise,
    sums_folder,
)
from napari_mrcz.session.survey import GIVEN, session_of
from napari_mrcz.stack import Stack
from napari_mrcz.stack import open as open_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Progress: TypeAlias = "Callable[[int, int], None]"
StackLike: TypeAlias = AnyPath | Stack | npt.NDArray[Any]

Floats = npt.NDArray[np.float64]

_STRIP_NBYTES = 2**24
# Sums that are compared with as many others at a time.
_BLOCK = 64


class Session:
    """Stacks taken one after the other on one camera.

    Each is read once. Its sum is kept in a cache folder (`sums_folder`), and found again by the
    file's path, size and time and by the corrections; sums of arrays are deleted with the session.
    In memory there are never more than a few images.

    Parameters
    ----------
    stacks : iterable of path-like, Stack or ndarray (n, y, x); or path-like
        In order of acquisition, which is kept. Files are opened when they are needed and closed
        again. Stacks may have corrections. A folder stands for all movies within it, sorted by the
        acquisition times in their metadata, or by name (movie_2 before movie_10) if not all have
        one; a gain reference or sum beside them is left out, with a warning.
    prepare : callable, optional
        Applied to each stack when it is opened, e.g. to filter its outliers::

            Session(paths, prepare=lambda stack: stack.apply(nm.OutlierFilter.fit(stack)))

    order : str, optional
        What the order is; for the history of stacks that are normalised by their neighbours.

    Raises
    ------
    ValueError
        If there are no stacks.
    """

    def __init__(
        self,
        stacks: Iterable[StackLike] | AnyPath,
        *,
        prepare: Callable[[Stack], Stack] | None = None,
        order: str = GIVEN,
    ) -> None:
        if isinstance(stacks, str | PathLike):
            stacks, order = _movies_of(Path(stacks))
        self._stacks = tuple(stacks)
        self.order = order
        if not self._stacks:
            raise ValueError("a session has at least one stack")
        self._prepare = prepare
        self._lock = threading.RLock()
        self._kept = _Kept(len(self._stacks))
        self._at = np.arange(len(self._stacks))  # Indices of the stacks in `_kept`

    def __len__(self) -> int:
        """Return the number of stacks."""
        return len(self._stacks)

    def name(self, index: int) -> str:
        """Return a stack's file, or "stack <index>" without one."""
        item = self._stacks[index]
        if isinstance(item, Stack):
            return item.path or f"stack {index}"
        return fspath(item) if isinstance(item, str | PathLike) else f"stack {index}"

    @contextmanager
    def opened(self, index: int) -> Iterator[Stack]:
        """Open a stack, prepared, for as long as the block lasts."""
        item = self._stacks[index]
        if isinstance(item, Stack):
            # A copy shares the source of the frames, but not the frames in memory.
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

    def chosen(self, indices: Iterable[int]) -> Session:
        """Return some of the stacks, in this order, as a session that shares what is read."""
        indices = list(indices)
        session = copy.copy(self)
        session._stacks = tuple(self._stacks[i] for i in indices)
        session._lock = threading.RLock()
        session._at = self._at[indices]
        return session

    def summary(self, index: int, *, progress: Progress | None = None) -> Summary:
        """Return a stack's sum and what goes with it; the stack is read unless that is kept.

        Parameters
        ----------
        index : int
            Which stack.
        progress : callable, optional
            Called with (frames done, frames) while it is read; what it raises ends the reading.

        Raises
        ------
        MrczError
            If the stack cannot be read.
        """
        kept, at = self._kept, int(self._at[index])
        with self._lock:
            found = kept.summaries.get(at)
            if found is None:
                if at in kept.again:
                    found = kept.save(None, kept.again[at]())
                else:
                    found = self._read(index, progress)
                kept.summaries[at] = found
            return found

    def _read(self, index: int, progress: Progress | None) -> Summary:
        with self.opened(index) as stack:
            key = key_of(stack)
            found = None if key is None else self._kept.store.load(key)
            return self._kept.save(key, summarise(stack, progress)) if found is None else found

    def learn(self, index: int, found: StackSum, again: Callable[[], StackSum]) -> None:
        """Take over the sum of a stack that another process has read.

        Parameters
        ----------
        index : int
            Which stack.
        found : StackSum
            As `summarise` returns it.
        again : callable
            Returns it once more, if the cache has lost it.
        """
        at = int(self._at[index])
        with self._lock:
            self._kept.again[at] = again
            self._kept.summaries[at] = self._kept.save(None, found)

    def total(self, index: int) -> npt.NDArray[Any]:
        """Return the sum of a stack's frames, (y, x), mapped from the cache."""
        summary = self.summary(index)
        try:
            return summary.sum
        except (OSError, ValueError):
            # The cache was emptied or damaged, or other stacks needed the room.
            self._kept.summaries.pop(int(self._at[index]), None)
            return self.summary(index).sum

    def mean(self, index: int) -> Floats:
        """Return the mean frame of a stack, (y, x)."""
        n_frames = self.summary(index).n_frames
        return np.divide(self.total(index), n_frames, dtype=np.float64)

    def covariances(
        self, members: Iterable[int], *, reach: int | None = None, progress: Progress | None = None
    ) -> Floats:
        """Return the covariances over the pixels between the sums of m stacks, (m, m).

        A few rows of some sums are in memory at a time; what was compared before is not compared
        again.

        Parameters
        ----------
        members : iterable of int
            Which stacks.
        reach : int, optional
            Compare only stacks that are at most so many places apart among the members; others
            have 0. A window of KOMA reaches over 2 x radius.
        progress : callable, optional
            Called with (rows done, rows); what it raises ends it.
        """
        members = list(members)
        m = len(members)
        wanted = np.ones((m, m), np.bool_)
        if reach is not None:
            wanted = np.triu(np.tril(wanted, reach), -reach)
        known, at = self._kept.covariances, self._at[members]
        places = np.ix_(at, at)
        blocks = [slice(start, start + _BLOCK) for start in range(0, m, _BLOCK)]
        unknown = wanted & ~self._kept.compared[places]
        missing = [
            (one, other)
            for k, one in enumerate(blocks)
            for other in blocks[k:]
            if unknown[one, other].any()
        ]
        for k, (one, other) in enumerate(missing):

            def tell(done: int, total: int, k: int = k) -> None:
                if progress is not None:
                    progress(k * total + done, len(missing) * total)

            found = self._compared(members[one], members[other], tell)
            known[np.ix_(at[one], at[other])] = found
            known[np.ix_(at[other], at[one])] = found.T
            self._kept.compared[np.ix_(at[one], at[other])] = True
            self._kept.compared[np.ix_(at[other], at[one])] = True
        return np.where(wanted, known[places], 0.0)

    def _compared(
        self, some: Sequence[int], others: Sequence[int], tell: Callable[[int, int], None]
    ) -> Floats:
        """Return the covariances of some stacks with others, or among themselves."""
        same = some == others
        both = [*some] if same else [*some, *others]
        # Mapped once: each takes a file descriptor as long as it is.
        images = [self.total(i) for i in both]
        # About the mean, so that the products lose no digits.
        level = [self.summary(i).thumbnail.mean() * self.summary(i).n_frames for i in both]
        y, x = images[0].shape
        rows = max(1, _STRIP_NBYTES // (8 * x * len(both)))
        first = np.zeros(len(both))
        second: Floats = np.zeros((len(some), len(others)))
        for top in range(0, y, rows):
            height = min(rows, y - top)
            centred = np.empty((len(both), height * x))
            for k, image in enumerate(images):
                np.subtract(image[top : top + height].reshape(-1), level[k], out=centred[k])
            first += centred.sum(axis=1)
            second += centred[: len(some)] @ centred[-len(others) :].T
            tell(min(top + rows, y), y)
        first /= y * x
        second /= y * x
        second -= np.outer(first[: len(some)], first[-len(others) :])
        return second


def _movies_of(folder: Path) -> tuple[list[Path], str]:
    if not folder.is_dir():
        raise ValueError(f"a session is a folder or a list of movies, not one file ({folder})")
    movies, order, left_out = session_of([folder])
    for path in movies:
        if path.is_dir():
            warn(f"{path}: cannot be read, and is left out")
    for path, why in left_out.items():
        warn(f"{path}: {why}; it is left out")
    return [movie for movie in movies if not movie.is_dir()], order


class _Kept:
    """What was read of the stacks of a session, shared with all that were chosen from it."""

    def __init__(self, n_stacks: int) -> None:
        self._n_stacks = n_stacks
        self.summaries: dict[int, Summary] = {}
        self.again: dict[int, Callable[[], StackSum]] = {}
        self.store = SummaryStore(sums_folder())
        self._own_keys: list[str] = []
        weakref.finalize(self, self.store.release, self._own_keys)

    @cached_property
    def covariances(self) -> Floats:
        """Between the sums of all stacks, where they are `compared`."""
        return np.zeros((self._n_stacks, self._n_stacks))

    @cached_property
    def compared(self) -> npt.NDArray[np.bool_]:
        """Whether the sums of two stacks were compared."""
        return np.zeros((self._n_stacks, self._n_stacks), np.bool_)

    def save(self, key: str | None, found: StackSum) -> Summary:
        """Keep a sum; without a key only as long as a session shares it."""
        if key is None:
            key = uuid.uuid4().hex
            self._own_keys.append(key)
        try:
            return self.store.save(key, found)
        except OSError:
            pass  # the home folder cannot be written
        folder = tempfile.gettempdir()
        try:
            folder = tempfile.mkdtemp(prefix="napari-mrcz-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self.store = SummaryStore(folder)
            return self.store.save(key, found)
        except OSError as error:
            said = f"takes no sum of frames, nor does {sums_folder()}: {failure_text(error)}"
            advice = "Make room, or name another folder by the variable TMPDIR"
            raise MrczError(folder, said, advice=advice) from error
