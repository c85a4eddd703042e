"""The reader and writer that napari calls, and the plugin's settings (napari 0.9 and newer).

A folder stands for the one movie or sweep that is in it. Images of a sweep become one movie. Files
dropped together (with Shift, or "Open Files as Stack...") are taken in the order of their
names, numbers by their value. With the same frame shape and pixel type they become

* (movie, frame, y, x) where all are movies of equally many frames, two or more;
* (frame, y, x), one after the other, where they are images or parts of different length;
* (volume, z, y, x) where they are volumes of the same depth.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import napari
import numpy as np

from napari_mrcz.errors import MrczError, collected_warnings, counted, size_text, warn
from napari_mrcz.format.machine import limit_threads
from napari_mrcz.naming import (
    SMV_SUFFIXES,
    RemotePath,
    has_movie_suffix,
    natural_key,
    path_of,
    without_packing,
)
from napari_mrcz.plugin.layers import (
    FrameFetcher,
    LateStack,
    StackSeries,
    check_not_source,
    contrast_limits,
    describe,
    in_event_loop,
    is_movie,
    layer_data,
    slider_range,
    stack_of,
    widen_contrast_slider,
)
from napari_mrcz.stack import Stack, open, open_sweep, write
from napari_mrcz.stack.cache import CACHE_NBYTES
from napari_mrcz.stack.opening import frames_of_dose, total_dose
from napari_mrcz.stack.raw_frames import first_part
from napari_mrcz.stack.sources import MOST_OPEN
from napari_mrcz.stack.tiff import SUPERRESOLUTIONS, finest_superresolution, is_eer

_MOST_NAMED = 5
# Hints that are shown only once.
_shown: set[str] = set()
# How napari names projections of sums.
_SUM = " sum-proj"

Paths = str | Sequence[str]


def get_reader(path: Paths) -> Callable[[Paths], list[Any]] | None:
    """Return `read` for files with our suffixes and folders of such, None for others."""
    paths = list(map(os.fspath, [path] if isinstance(path, str) else path))
    return read if paths and all(map(_may_be_read, paths)) else None


def _may_be_read(path: str) -> bool:
    try:
        return has_movie_suffix(path) or any(map(has_movie_suffix, os.listdir(path)))
    except OSError:  # it is not a folder
        return False


def read(path: Paths) -> list[Any]:
    """Open one file or folder, or several files as one stack; frames are decoded when shown.

    Where there is a window, it asks how EER movies are to be summed.

    Parameters
    ----------
    path : str or list of str
        A list, even of one, is to become one stack.

    Returns
    -------
    list of (data, attributes, "image")
        One, or amplitude and phase of complex pixels; after Cancel ``[(None,)]``, which napari
        takes for no layer.

    Raises
    ------
    MrczError
        If a file cannot be used, or several do not agree.
    """
    paths = [path] if isinstance(path, str) else sorted(map(os.fspath, path), key=natural_key)
    paths = _without_later_files(paths)
    if not paths:
        return [(None,)]
    wanted = preferences()
    caching: dict[str, Any] = {"read_ahead": wanted.read_ahead, "cache_nbytes": wanted.cache_nbytes}
    images = all(without_packing(Path(path)).suffix.lower() in SMV_SUFFIXES for path in paths)
    stacks: list[Stack] = []
    try:
        if images and len(paths) > 1:
            stacks.append(open_sweep(paths).cached(**caching))
        else:
            for one in paths:
                stacks.append(_open_as_asked(one, caching))
                if len(paths) > MOST_OPEN:
                    stacks[-1].close()  # reading opens it again
        stack = stacks[0] if len(stacks) == 1 else _together(stacks, paths)
    except BaseException as error:
        for stack in stacks:
            stack.close()
        if isinstance(error, _Cancelled):
            return [(None,)]
        raise
    _say_which_way_up(stacks[0])
    name = Path(paths[0]).name
    if not os.path.isdir(paths[0]):
        name = without_packing(Path(name)).stem
    metadata = describe(stacks[0])
    if len(paths) > 1:
        name = f"{name} and {len(paths) - 1} more"
        metadata["paths"] = list(paths)
    if (viewer := napari.current_viewer()) is not None:  # connecting twice changes nothing
        viewer.layers.events.inserted.connect(_on_inserted)
    if "grouped" in stack.metadata or any(isinstance(path_of(p), RemotePath) for p in paths):
        stack = LateStack.of(stack)
    return layer_data(stack, name, metadata=metadata)


class _Cancelled(Exception):
    """A question was answered by Cancel."""


def _open_as_asked(path: str, caching: Mapping[str, Any]) -> Stack:
    """Open a file; ask for the options of EER. Raise `_Cancelled` after Cancel."""
    with collected_warnings() as said:
        stack = open(path, **caching)
    options = eer_options(stack) if is_eer(stack) else {}
    if options != {}:
        stack.close()
        if options is None:
            raise _Cancelled
        return open(path, **options, **caching)  # which warns again
    for sentence in said:
        warn(sentence)
    return stack


def _without_later_files(paths: list[str]) -> list[str]:
    """Return files, but of recordings in several only the first, if it is not shown already."""
    viewer = napari.current_viewer()
    layers = [] if viewer is None else viewer.layers
    shown = {layer.metadata.get("path") for layer in layers}
    found = []
    for path in paths:
        first = first_part(Path(path))
        if first is None:
            found.append(path)
        elif str(first) not in shown | set(paths):
            found.append(str(first))
    return list(dict.fromkeys(found))


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


def _say_which_way_up(stack: Stack) -> None:
    """Show once that a TIFF lies upside down compared with napari's own reader."""
    suffix = without_packing(Path(stack.path or "")).suffix.lower()
    if suffix not in (".tif", ".tiff") or is_eer(stack) or "way up" in _shown:
        return
    from napari.utils.notifications import show_info

    _shown.add("way up")
    show_info(
        "A TIFF is shown upside down compared with napari's own reader: rows are in the order of "
        "MRC files. To turn the view, right-click on the 2D/3D button: vertical axis up."
    )


def _on_inserted(event: Any) -> None:
    """Widen the contrast sliders; begin a movie at its first frame; show the scale of the first."""
    layer = event.value
    widen_contrast_slider(layer)
    data = getattr(layer, "data", None)
    if isinstance(data, LateStack) and data.wanted is None:
        data.wanted = FrameFetcher(layer)
    viewer = napari.current_viewer()
    if viewer is None:
        return
    summed = layer.name.removesuffix(_SUM)
    if summed != layer.name and summed in viewer.layers and _is_ours(viewer.layers[summed]):
        # napari gives the sum of a movie the contrast of its frames.
        limits = contrast_limits([np.asarray(layer.data)])
        layer.contrast_limits_range = slider_range(limits, layer.data.dtype)
        layer.contrast_limits = limits
    if len(viewer.layers) > 1 or not _is_ours(layer):
        return
    if is_movie(layer):
        # napari begins in the middle, which is right for volumes. Beside other layers it stays.
        viewer.dims.set_current_step(0, 0)
    if "scale bar" not in _shown and str(layer.units[-1]) == "angstrom":
        _shown.add("scale bar")  # once: who hides it wants none
        # It moved in napari 0.9.
        overlays = getattr(getattr(viewer, "canvas", None), "overlays", viewer)
        overlays.scale_bar.visible = True


def _is_ours(layer: Any) -> bool:
    return isinstance(getattr(layer, "data", None), Stack | StackSeries)


def write_image(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Save an image layer as `.mrcz` (compressed), `.mrc` or `.mrcs`, frame by frame.

    `path`: the file, which is replaced (napari's dialog has asked); `data`: in memory or lazy, of
    two to four axes; `attributes`: the layer's scale, units and metadata. Raise `RuntimeError` if
    the layer cannot be stored without loss, or the disk refuses; not `MrczError`, a ValueError,
    which napari takes for "no writer", without its message.
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
    """The plugin's settings."""

    read_ahead: bool = True  # Decode the next frames while one is looked at
    cache_nbytes: int = CACHE_NBYTES  # Bytes of decoded frames that are kept of each layer
    threads: int = 0  # Frames decoded or compressed at a time; 0 for one per processor
    codec: str = "zstd"  # Defaults of the Save widget
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


# The form that asks how EER movies are summed and divided, where they are dropped on a window: a
# single frame of EER has an electron in one of some fifty pixels. Movies are shown in fractions, by
# default of 1 e⁻/Å², or 40 of them where the file states no dose.
_FRACTIONS = 40

# Whether to ask although napari does not answer its user yet; the progress bar of files that were
# dropped together, and the answer for them.
_asks = False
_answered: tuple[weakref.ref[Any], dict[str, Any] | None] | None = None


def eer_options(movie: Stack) -> dict[str, Any] | None:
    """Ask how an EER movie is to be opened, once for all that are dropped together.

    `movie`: opened without options. Return options of `napari_mrcz.open`, {} if there is no window
    to ask in, None after Cancel.
    """
    global _answered
    window = _window()
    if window is None:
        return {}
    drop = _drop()
    if drop is not None and _answered is not None and _answered[0]() is drop:
        return _answered[1]
    options = EerForm(movie, window).ask()
    _answered = None if drop is None else (weakref.ref(drop), options)
    return options


@contextmanager
def asking() -> Iterator[None]:
    """Ask within this block although napari does not answer its user yet, as it starts."""
    global _asks
    _asks = True
    try:
        yield
    finally:
        _asks = False


def _window() -> Any:
    """Return napari's window, if it is visible and its user there: a script is not held up."""
    viewer = napari.current_viewer()
    window = None if viewer is None else viewer.window._qt_window
    is_seen = window is not None and window.isVisible()
    return window if is_seen and (_asks or in_event_loop()) else None


def _drop() -> Any:
    """Return the progress bar that napari shows for each drop of files, if there is one."""
    from napari.utils import progress

    bars = getattr(progress, "_all_instances", ())
    return next((bar for bar in bars if str(bar.desc).startswith("Opening Files")), None)


class EerForm:
    """The form for one movie, opened without options, in front of a window."""

    def __init__(self, movie: Stack, window: Any = None) -> None:
        from magicgui.widgets import ComboBox, Dialog, FloatSpinBox, Label, SpinBox

        self._movie = movie
        n, y, x = movie.shape
        eer = movie.metadata.get("eer", {})
        total, unit = total_dose(movie), str(eer.get("totalDose.unit", ""))
        known = total > 0
        self._per_frame = total / n
        group = max(1, round(n / _FRACTIONS))
        area = movie.pixel_size[1] * movie.pixel_size[2] if "pix" in unit.lower() else 1.0
        if known and area:
            group = frames_of_dose(movie, area)
        # The dose that was chosen; None where a number of frames was.
        self._dose: float | None = group * self._per_frame or None
        self.group = SpinBox(
            value=group,
            min=1,
            max=n,
            label="Frames per fraction",
            tooltip="EER frames summed into each frame that is shown",
        )
        self.dose = FloatSpinBox(
            value=group * self._per_frame,
            min=self._per_frame,
            max=n * self._per_frame or 1.0,
            step=self._per_frame or 1.0,
            label=f"Dose per fraction ({unit})" if unit else "Dose per fraction",
            tooltip="Dose of each frame that is shown, to the nearest whole EER frame",
        )
        finest = finest_superresolution(movie)
        self.grid = ComboBox(
            value=1,
            choices=[(f"{f * y} × {f * x}", f) for f in SUPERRESOLUTIONS if f <= finest],
            label="Pixels",
            tooltip="The camera's pixels, or each divided into 2 × 2 or 4 × 4 (super-resolution)",
        )
        self.result = Label(label="Result", tooltip="What is shown, and its size in memory")
        fields = [self.group, *([self.dose] if known else []), self.grid, self.result]
        self.dialog = Dialog(widgets=fields, parent=window)
        self.dialog.native.setWindowTitle(f"EER: {os.path.basename(movie.path or '')}")
        self.group.changed.connect(self._take_group)
        self.dose.changed.connect(self._take_dose)
        self.grid.changed.connect(self._show_result)
        self._show_result()

    def ask(self) -> dict[str, Any] | None:
        """Show the form until it is answered; return options of `open`, or None after Cancel."""
        accepted = self.dialog.exec()
        group = {"group": int(self.group.value)} if self.group.value > 1 else {}
        summed = group if self._dose is None else {"dose_per_frame": self._dose}
        options = {"superresolution": int(self.grid.value), **summed}
        self.dialog.native.deleteLater()
        return options if accepted else None

    def _take_group(self, group: int) -> None:
        self._dose = None
        with self.dose.changed.blocked():
            self.dose.value = group * self._per_frame
        self._show_result()

    def _take_dose(self, dose: float) -> None:
        self._dose = dose
        with self.group.changed.blocked():
            self.group.value = frames_of_dose(self._movie, dose)
        self._show_result()

    def _show_result(self, changed: Any = None) -> None:
        n, y, x = self._movie.shape
        group, factor = int(self.group.value), int(self.grid.value)
        nbytes = y * x * factor**2 * np.min_scalar_type(255 * group).itemsize
        fractions = counted(-(-n // group), "fraction")
        self.result.value = f"{fractions} of {n} frames, {size_text(nbytes)} each"
