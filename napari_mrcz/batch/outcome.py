"""How it went with one file of many."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

__all__ = ["Outcome"]


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
    result: Any = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return not self.error

    def as_dict(self) -> dict[str, Any]:
        """Give it as plain values, for JSON."""
        plain = asdict(replace(self, result=None))
        del plain["result"]
        return {**plain, "ok": self.ok}
