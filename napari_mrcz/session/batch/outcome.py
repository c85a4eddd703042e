"""How it went with one file of many."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Attributes
    ----------
    source : str
        The file that was read.
    target : str
        The file that was written; empty if none was.
    error : str
        Why it failed; empty if it did not.
    source_nbytes, target_nbytes : int
        Sizes in bytes.
    seconds : float
        What it took.
    notes : tuple of str
        What else is worth knowing.
    warnings : tuple of str
        Sentences that say where the result should not be trusted without a look; empty if all is
        well. Not in `notes`.
    kept : str
        Why a source that was to be deleted is still there; empty otherwise.
    skipped : bool
        Whether the result was there before, whole and of this source, and nothing was done.
    source_sha256, target_sha256 : str
        Checksums of the files, in hexadecimal digits; empty where they were not asked for.
    result : Any
        What was found, for whoever asked.
    """

    source: str
    target: str = ""
    error: str = ""
    source_nbytes: int = 0
    target_nbytes: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    kept: str = ""
    skipped: bool = False
    source_sha256: str = ""
    target_sha256: str = ""
    result: Any = field(default=None, repr=False)

    @classmethod
    def done(
        cls, started: float, source: str, target: str = "", notes: Iterable[str] = (), **more: Any
    ) -> Self:
        """Return the outcome of work that is done, with the sizes of the files and what it took.

        Parameters
        ----------
        started : float
            When it was begun, by `time.perf_counter`.
        source, target, notes
            As of the class.
        **more
            Other attributes.
        """
        before, after = (Path(p).stat().st_size if p else 0 for p in (source, target))
        seconds = time.perf_counter() - started
        return cls(source, target, "", before, after, seconds, tuple(notes), **more)

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return not self.error

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        plain = asdict(replace(self, result=None))
        del plain["result"]
        return {**plain, "ok": self.ok}
