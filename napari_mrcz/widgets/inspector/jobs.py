"""What the inspector does in threads: looking at headers, verifying, mending, replaying."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError, collected_warnings
from napari_mrcz.format import verify
from napari_mrcz.format.doctor import Change, Finding, diagnose, mend
from napari_mrcz.plugin.layers import describe, layer_data
from napari_mrcz.stack import open as open_stack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_mrcz.format import VerifyReport
    from napari_mrcz.plugin.layers import LayerData
    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.inspector.subject import Subject

LOOKING, VERIFYING, MENDING = "Looking at frame", "Verifying frame", "Copying"


@dataclass(frozen=True)
class Mended:
    """A file that was mended.

    Attributes
    ----------
    path : str
        The new file.
    in_place : bool
        Whether it took the name of the old one.
    changes : tuple of Change
        What is different in it.
    layers : tuple of (LayerData or Exception)
        What becomes of the layers that were read from it.
    """

    path: str
    in_place: bool
    changes: tuple[Change, ...]
    layers: tuple[LayerData | Exception, ...] = ()

    def __str__(self) -> str:
        where = "in place" if self.in_place else f"in {Path(self.path).name}"
        changes = "\n".join(str(change) for change in self.changes)
        return f"Mended {where}:\n{changes}"


def check_header(path: str, full: bool, pixel_size: float, report: Report) -> tuple[Finding, ...]:
    """Have the doctor look at a header, and at all frames if `full`."""
    return diagnose(
        path,
        full=full,
        pixel_size=pixel_size,
        progress=lambda done, total: report(LOOKING, done, total),
    )


def verify_file(path: str, report: Report) -> VerifyReport:
    """Read every frame of a file."""
    return verify(path, progress=lambda done, total: report(VERIFYING, done, total))


def mend_file(
    path: str,
    findings: Sequence[Finding],
    target: str | None,
    layers: Sequence[Subject],
    report: Report,
) -> Mended:
    """Mend a file in a copy (whose replacing was asked about), or in place.

    Layers that are read from it are opened again.
    """
    changes = mend(
        path,
        findings,
        target=target,
        overwrite=target is not None,
        progress=lambda done, total: report(MENDING, done, total),
    )
    # From here on the file is another; nothing may end this halfway.
    return Mended(target or path, target is None, changes, tuple(map(_reopened, layers)))


def replayed(history: Sequence[Mapping[str, Any]], stack: Stack, name: str) -> list[LayerData]:
    """Do a history again to a stack, lazily; give what napari makes a layer of.

    Raises
    ------
    MrczError, ValueError
        If a step cannot be done again, or not to such frames.
    """
    from napari_mrcz.correction import replay

    return layer_data(replay(history, stack), f"{name} replayed")


def save_recipe(stack: Stack, path: str, report: Report) -> str:
    """Save what was done to a stack as a recipe for other movies; return a sentence on it.

    Raises
    ------
    MrczError
        If recipes cannot do it, or the disk refuses.
    """
    from napari_mrcz.session.recipe_history import output_of, save_recipe_of

    report("Writing the recipe", 0, 0)
    # Whoever chose the name of a recipe that exists agreed to have it replaced, images included.
    replaces = Path(path).exists()
    save_recipe_of(stack.history, path, output=output_of(stack), overwrite=replaces)
    return f"Saved {Path(path).name}. To do it to other movies: napari-mrcz correct -r {path} …"


def _reopened(subject: Subject) -> LayerData | Exception:
    """Open a file, and do again what had been done to a layer of it."""
    try:
        with collected_warnings():
            file = open_stack(subject.path)
    except MrczError as error:
        return error
    try:
        stack, done = file, len(file.history)
        if len(subject.history) > done:
            from napari_mrcz.correction import replay

            stack = replay(subject.history[done:], file)
        stack = stack.described(metadata=subject.metadata)
        return layer_data(stack, subject.name, metadata=describe(stack))[0]
    except (MrczError, ValueError) as error:
        file.close()  # the error keeps it, as long as it is kept itself
        return error
