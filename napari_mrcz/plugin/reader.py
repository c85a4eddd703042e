"""Opening files in napari: one as it is, several dropped together as one stack.

Files dropped together (with Shift, or "Open Files as Stack...") are taken in the order of their
names, numbers by their value. Of one frame shape and pixel type they become

* (movie, frame, y, x) where all are movies of equally many frames, two or more;
* (frame, y, x), one after the other, where they are images or parts of different length;
* (volume, z, y, x) where they are volumes of the same depth.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari_mrcz.errors import MrczError, warn
from napari_mrcz.naming import PACKED_SUFFIXES, has_movie_suffix, natural_key
from napari_mrcz.plugin.layers import (
    LayerData,
    describe,
    is_movie,
    layer_data,
    widen_contrast_slider,
)
from napari_mrcz.plugin.preferences import preferences
from napari_mrcz.stack import Stack, open

_MOST_NAMED = 5

Paths = str | Sequence[str]


def get_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """Give `read` for files that have our suffixes, None for others."""
    paths = [path] if isinstance(path, str) else list(path)
    return read if paths and all(has_movie_suffix(os.fspath(path)) for path in paths) else None


def read(path: Paths) -> list[LayerData]:
    """Open one file, or several as one stack; no more is decoded than what is shown.

    Parameters
    ----------
    path : str or list of str
        A list, even of one, is to become one stack.

    Returns
    -------
    list of (data, attributes, "image")
        One, or amplitude and phase of complex pixels.

    Raises
    ------
    MrczError
        If a file cannot be used, or several do not agree.
    """
    paths = [path] if isinstance(path, str) else sorted(map(os.fspath, path), key=natural_key)
    wanted = preferences()
    stacks: list[Stack] = []
    try:
        for one in paths:
            stacks.append(open(one, read_ahead=wanted.read_ahead, cache_nbytes=wanted.cache_nbytes))
        stack = stacks[0] if len(stacks) == 1 else _together(stacks, paths)
    except BaseException:
        for stack in stacks:
            stack.close()
        raise
    name = _name(paths[0])
    metadata = describe(stacks[0])
    if len(stacks) > 1:
        name = f"{name} and {len(stacks) - 1} more"
        metadata["paths"] = list(paths)
    _attend_to_new_layers()
    return layer_data(stack, name, metadata=metadata)


def _together(stacks: Sequence[Stack], paths: Sequence[str]) -> Stack:
    """Join stacks, cut into movies or volumes where they are alike."""
    first = stacks[0]
    _check(stacks, paths, "frames", lambda s: f"{s.shape[1]} x {s.shape[2]} {s.dtype}")
    _check(stacks, paths, "kinds", _kind)
    if len({stack.pixel_size for stack in stacks}) > 1:
        size = first.pixel_size[2]
        said = f"these {len(stacks)} files differ in pixel size; that of the first is shown"
        warn(f"{said}: {size:g} Å, {paths[0]}")
    joined = Stack.joined(stacks)
    if _kind(first) == "movie":
        lengths = {len(stack) for stack in stacks}
        if len(lengths) > 1 or lengths == {1}:
            return joined
        axes = ["movie", "frame", "y", "x"]
        other = {**first.description.other, "axes": axes}
        return joined.described(sections_per_volume=len(first), other=other)
    _check(stacks, paths, "volumes", lambda s: f"{_depth(s)} sections")
    return joined.described(sections_per_volume=_depth(first))


def _check(
    stacks: Sequence[Stack], paths: Sequence[str], what: str, trait: Callable[[Stack], str]
) -> None:
    """See that all stacks have the same trait."""
    examples: dict[str, str] = {}
    for stack, path in zip(stacks, paths, strict=True):
        examples.setdefault(trait(stack), Path(path).name)
    if len(examples) > 1:
        named = [f"{name}: {found}" for found, name in examples.items()][:_MOST_NAMED]
        raise MrczError(
            None,
            f"these {len(stacks)} files cannot be shown as one stack, their {what} differ: "
            + "; ".join(named),
            advice="Open them without Shift, each as a layer of its own",
        )


def _kind(stack: Stack) -> str:
    description = stack.description
    volumes = description.volume or description.sections_per_volume is not None
    return "volume" if volumes else "movie"


def _depth(stack: Stack) -> int:
    return stack.description.sections_per_volume or len(stack)


def _name(path: str) -> str:
    """Give a layer's name: the file's without its suffixes."""
    name = Path(path).name
    if name.lower().endswith(PACKED_SUFFIXES):
        name = Path(name).stem
    return Path(name).stem


def _attend_to_new_layers() -> None:
    """Have the viewer do to new layers of ours what a reader cannot ask napari for."""
    import napari

    viewer = napari.current_viewer()
    if viewer is not None:  # connecting twice changes nothing
        viewer.layers.events.inserted.connect(_on_inserted)


def _on_inserted(event: Any) -> None:
    """Give contrast sliders room beyond the limits; begin a movie at its first frame."""
    import napari

    widen_contrast_slider(event.value)
    viewer = napari.current_viewer()
    # napari begins in the middle, which is right for volumes. Beside other layers it stays.
    if viewer is not None and len(viewer.layers) == 1 and is_movie(event.value):
        viewer.dims.set_current_step(0, 0)
