"""What napari calls: reader and writer, and the plugin's settings (napari 0.9 and newer).

Files dropped together (with Shift, or "Open Files as Stack...") are taken in the order of their
names, numbers by their value. With the same frame shape and pixel type they become

* (movie, frame, y, x) where all are movies of equally many frames, two or more;
* (frame, y, x), one after the other, where they are images or parts of different length;
* (volume, z, y, x) where they are volumes of the same depth.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError, warn
from napari_mrcz.format.machine import limit_threads
from napari_mrcz.naming import PACKED_SUFFIXES, has_movie_suffix, natural_key
from napari_mrcz.plugin.layers import (
    LayerData,
    check_not_source,
    describe,
    is_movie,
    layer_data,
    stack_of,
    widen_contrast_slider,
)
from napari_mrcz.stack import Stack, open, write
from napari_mrcz.stack.cache import CACHE_NBYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_NAMED = 5

Paths = str | Sequence[str]


def get_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """Return `read` for files that have our suffixes, None for others."""
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
    """Check that all stacks have the same trait."""
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
    """Return the file's name without suffixes."""
    name = Path(path).name
    if name.lower().endswith(PACKED_SUFFIXES):
        name = Path(name).stem
    return Path(name).stem


def _attend_to_new_layers() -> None:
    """Connect the viewer to what a reader cannot ask napari for."""
    import napari

    viewer = napari.current_viewer()
    if viewer is not None:  # connecting twice changes nothing
        viewer.layers.events.inserted.connect(_on_inserted)


def _on_inserted(event: Any) -> None:
    """Widen the contrast sliders; begin a movie at its first frame."""
    import napari

    widen_contrast_slider(event.value)
    viewer = napari.current_viewer()
    # napari begins in the middle, which is right for volumes. Beside other layers it stays.
    if viewer is not None and len(viewer.layers) == 1 and is_movie(event.value):
        viewer.dims.set_current_step(0, 0)


def write_image(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Save an image layer as `.mrcz` (compressed), `.mrc` or `.mrcs`, frame by frame.

    Parameters
    ----------
    path : str
        The file; replaced where it exists (napari's dialog has asked).
    data : array-like
        In memory or lazy, of two to four axes.
    attributes : dict
        The layer's scale, units and metadata.

    Returns
    -------
    list of str
        The path that was written.

    Raises
    ------
    RuntimeError
        If the layer cannot be stored without loss, or the disk refuses. Not `MrczError`: that is
        a ValueError, which napari takes for "no writer", and drops what it says.
    """
    try:
        check_not_source(path, data, attributes.get("metadata") or {})
        write(path, stack_of(data, attributes), overwrite=True)
    except MrczError as error:
        raise RuntimeError(str(error)) from error
    return [path]


_PLUGIN = "napari-mrcz"
_MB = 10**6


@dataclass(frozen=True)
class Preferences:
    """What the user prefers.

    Attributes
    ----------
    read_ahead : bool
        Decode the next frames while one is looked at.
    cache_nbytes : int
        Bytes of decoded frames to be kept of each layer.
    threads : int
        Frames decoded or compressed at a time; 0 for one a processor.
    codec, level : str, int
        What the Save widget begins with.
    """

    read_ahead: bool = True
    cache_nbytes: int = CACHE_NBYTES
    threads: int = 0
    codec: str = "zstd"
    level: int = 1


def preferences() -> Preferences:
    """Return the current settings, and apply the one for threads."""
    found = _of_napari()
    limit_threads(found.threads)
    return found


def _of_napari() -> Preferences:
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # before napari 0.9 plugins had none
        return Preferences()
    try:
        settings: Any = get_plugin_settings(_PLUGIN)
    except KeyError:  # not found as a plugin, e.g. run without being installed
        return Preferences()
    browsing, saving = settings.browsing, settings.saving
    return Preferences(
        read_ahead=bool(browsing.read_ahead),
        cache_nbytes=int(browsing.cache_mb) * _MB,
        threads=int(browsing.threads),
        codec=str(saving.codec),
        level=int(saving.level),
    )
