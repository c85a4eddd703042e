"""Whether a result is there already, whole and made of the same source in the same way.

Results say in their footer what they were made of (`SourceFiles.record`). Plain files have no
footer, for other programs' sake: there shape, length and the time of change, which results take
over from their source, have to do.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError
from napari_mrcz.format import FrameReader
from napari_mrcz.threads import in_order, processors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["is_done", "why_not_done"]


def is_done(
    target: str,
    record: Mapping[str, Any],
    shape: Callable[[], tuple[int, ...]],
    *,
    overwrite: bool,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Return whether a result is there, whole and of this source.

    Parameters
    ----------
    target, record, shape, threads, progress
        As `why_not_done` takes them.
    overwrite : bool
        Another file at its place may be replaced.

    Raises
    ------
    MrczError
        If another file is there that may not be replaced.
    """
    if not os.path.exists(target):
        return False
    why = why_not_done(target, record, shape, threads=threads, progress=progress)
    if why and not overwrite:
        found = f"exists already, and is not the whole result: {why}"
        raise MrczError(target, found, advice="Choose another name, or --overwrite it")
    return not why


def why_not_done(
    target: str,
    record: Mapping[str, Any],
    shape: Callable[[], tuple[int, ...]],
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Return why a file that exists is not the result that is wanted; nothing if it is.

    Stored bytes are compared with their checksums; nothing is decompressed.

    Parameters
    ----------
    target : str
        The file.
    record : dict
        What its footer should say of its source.
    shape : callable
        Returns the shape that it should have; called where there is no footer.
    threads : int, optional
        Frames at a time.
    progress : callable, optional
        Called with (frames done, frames).
    """
    try:
        with FrameReader(target) as reader:
            if reader.warnings:
                return reader.warnings[0].removeprefix(f"{reader.path}: ")
            said = reader.footer.other.get("source")
            if said is not None or reader.header.codec:
                if differing := _differing(said, record):
                    return differing
            elif reader.shape != shape():
                return f"it has frames of {reader.shape}"
            elif os.stat(target).st_mtime_ns != record["mtime_ns"]:
                return "it is not of the same time as its source"

            def check(frame: int) -> None:
                reader.read_stored(frame)

            n = len(reader.index) if reader.index.xxh3 is not None else 0
            with in_order(check, range(n), threads or processors(), "napari-mrcz-check") as frames:
                for done, _ in enumerate(frames, 1):
                    if progress is not None:
                        progress(done, n)
    except MrczError as error:
        return str(error).removeprefix(f"{target}: ")
    return ""


def _differing(said: Any, record: Mapping[str, Any]) -> str:
    """Return what a footer says of another source."""
    if not isinstance(said, dict):
        return "it does not say which file it was made of"
    if any(said.get(key) != record[key] for key in ("name", "size", "mtime_ns")):
        return f"it was made of another file, or of {record['name']} before that was changed"
    if said.get("options") != record["options"]:
        return f"it was made of {record['name']} with other options"
    return ""
