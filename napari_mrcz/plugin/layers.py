"""A stack as napari layers, and a layer as a stack, for readers, writers and widgets.

The stack itself is the layer's data, so that napari decodes the frames it shows and no others.
Movies have time in pixels (frames) and space in Å; volumes have Å along all three axes.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import AnyPath, MrczError, NotEnoughMemory, error_text, warn
from napari_mrcz.naming import angstroms
from napari_mrcz.stack import Stack
from napari_mrcz.stack.sources import FlattenedArray
from napari_mrcz.stack.stack import split_index

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Image

LayerData = tuple[Any, dict[str, Any], str]

PHASE_LIMITS = (-np.pi, np.pi)
# Keys of `layer.metadata` that describe the file; the user's own map is under "metadata".
_OF_THE_FILE = ("path", "paths", "header", "footer", "extended_header", "notes", "metadata")
_AXES = "axes"


def layer_data(
    stack: Stack, name: str, *, metadata: Mapping[str, Any] | None = None
) -> list[LayerData]:
    """Return layer data for napari: one lazy image, or amplitude and phase of complex pixels.

    `stack`: the frames. One with `sections_per_volume` becomes four-dimensional; `name`: of the
    layer; `metadata`: for `layer.metadata`; see `describe`.
    """
    metadata = dict(metadata or {})
    if stack.dtype.kind != "c":
        return [_image(stack, {"name": name, "metadata": metadata})]
    # Imported late: corrections bring scipy, which would make the first movie open later.
    from napari_mrcz.correction import Amplitude, Phase

    amplitude = {"name": f"{name} amplitude", "metadata": metadata}
    phase = {
        "name": f"{name} phase",
        "metadata": metadata,
        "colormap": "twilight_shifted",
        "contrast_limits": PHASE_LIMITS,
    }
    return [_image(stack.apply(Amplitude()), amplitude), _image(stack.apply(Phase()), phase)]


def describe(stack: Stack) -> dict[str, Any]:
    """Return the file's header, metadata and history, for `layer.metadata`.

    The result: ``path``; ``metadata``, the user's map; ``header``, its fields by name; ``notes``,
    what was unusual about it; ``extended_header``, its ``kind`` and ``content`` (decoded where the
    kind is known, else bytes; JSON is in ``metadata``); ``footer``, what else the file carries:
    ``history`` and keys of other programs.
    """
    description, header = stack.description, stack.header
    said: dict[str, Any] = {"path": stack.path, "metadata": dict(description.metadata)}
    if header is not None:
        said["header"] = dict(header)
        said["notes"] = list(header.notes)
        if (extended := description.extended) is not None:
            said["extended_header"] = {"kind": extended.decoded_as, "content": extended.data}
            with contextlib.suppress(ValueError):  # opening the file has warned of it
                content = extended.decoded
                said["extended_header"]["content"] = extended.data if content is None else content
    said["footer"] = {**description.other, "history": [dict(step) for step in stack.history]}
    return said


def stack_of_layer(layer: Image) -> Stack:
    """Return an image layer as a stack, with the scale, units and metadata that it has now.

    Raise `MrczError` if it has no frames to be saved: an RGB image, or more than four axes.
    """
    names = ("scale", "units", "rgb", "multiscale", "metadata", "axis_labels")
    return stack_of(layer.data, {name: getattr(layer, name) for name in names})


def stack_of(data: Any, attributes: Mapping[str, Any]) -> Stack:
    """Return a layer's data as a stack; nothing is decoded.

    `data`: two axes are one frame, three a movie (or a volume, where all three have a length), four
    a stack of volumes; `attributes`: as napari gives them to writers. Raise `MrczError` if it is an
    RGB image, or has more than four axes.
    """
    if attributes.get("rgb"):
        found = "an RGB image, where MRC has one number per pixel"
        raise MrczError(None, found, advice="Split it first: Layer > Split RGB")
    data = getattr(data, "__wrapped__", data)  # napari wraps what plugins and its console get
    if attributes.get("multiscale"):
        data = data[0]  # the finest; the others follow from it
    axes = len(data.shape)
    sizes = _angstroms(attributes, axes)

    if isinstance(data, StackSeries):
        stack = _cut(data.stack, data.length, attributes)
    elif isinstance(data, Stack):
        stack = data
    elif axes == 4:
        stack = _cut(Stack.from_array(FlattenedArray(data)), int(data.shape[1]), attributes)
    elif axes in (2, 3):
        # An array is a volume if all three pixel sizes are lengths.
        stack = Stack.from_array(data).described(volume=sizes[0] is not None and axes == 3)
    else:
        found = f"{axes} axes, where a file holds frames, or volumes of sections"
        raise MrczError(None, found, advice="Save a layer of two to four axes")
    description = stack.description
    scale = [
        known if size is None else size
        for size, known in zip(([None, *sizes])[-3:], description.scale, strict=True)
    ]
    # Axes may have been turned: columns, rows, sections need not run along X, Y, Z.
    by_axis = dict(zip(reversed(description.axis_order), scale, strict=True))
    metadata = _users_map(attributes.get("metadata") or {}, description.metadata)
    return stack.described(pixel_size=(by_axis[3], by_axis[2], by_axis[1]), metadata=metadata)


def check_not_source(path: AnyPath, data: Any, metadata: Mapping[str, Any]) -> None:
    """Raise `MrczError` if a file to be written is one that frames are still read from."""
    stack = data.stack if isinstance(data, StackSeries) else data
    if not isinstance(stack, Stack):
        return  # what is in memory can be saved anywhere
    for source in {stack.path, metadata.get("path"), *metadata.get("paths", ())} - {None}:
        if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
            found = "is the file that the layer is read from"
            raise MrczError(path, found, advice="Choose another name")


def widen_contrast_slider(layer: Any) -> None:
    """Set the range of a layer's contrast sliders beyond its limits, as a reader cannot."""
    data = getattr(layer, "data", None)
    if isinstance(data, Stack | StackSeries) and tuple(layer.contrast_limits) != PHASE_LIMITS:
        layer.contrast_limits_range = slider_range(tuple(layer.contrast_limits), data.dtype)


def is_movie(layer: Any) -> bool:
    """Return whether a layer's first axis is that of the frames of one of our movies."""
    data = getattr(layer, "data", None)
    return isinstance(data, Stack) and not data.description.volume


def _image(stack: Stack, attributes: dict[str, Any]) -> LayerData:
    """Return the layer of a real stack: three-dimensional, or four where it is cut into volumes."""
    length = stack.description.sections_per_volume
    if not isinstance(stack, ShownStack):
        stack = ShownStack.of(stack)
    data = stack if length is None else StackSeries(stack, length)
    if "contrast_limits" not in attributes:
        # The frame at which napari puts its sliders: it is decoded only once.
        middle = (len(data) - 1) // 2
        middle = middle if length is None else middle * length + (length - 1) // 2
        frames = [stack[0]] if len(stack) == 1 else [stack[0], stack[middle]]
        # Without blank frames, as those in the place of damaged ones are.
        frames = [frame for frame in frames if frame.any()] or frames
        attributes = {"contrast_limits": contrast_limits(frames), **attributes}
    labels = _labels(stack)
    sections, rows, columns = stack.description.scale
    volume = stack.description.volume or stack.description.sections_per_volume is not None
    sizes = [1.0, sections if volume and labels[0] != "movie" else 0.0, rows, columns]
    units = ["pixel", *("angstrom" if size else "pixel" for size in sizes[1:])]
    attributes = {
        # Three or four columns, or 32-bit integers, would be taken for colours and labels.
        "rgb": False,
        "multiscale": False,
        "scale": [size or 1.0 for size in sizes[-data.ndim :]],
        "units": units[-data.ndim :],
        "axis_labels": labels,
        **attributes,
    }
    return data, attributes, "image"


def _labels(stack: Stack) -> tuple[str, ...]:
    description = stack.description
    axes = description.other.get(_AXES)
    if description.sections_per_volume is not None:
        four = isinstance(axes, list | tuple) and len(axes) == 4
        return tuple(map(str, axes)) if four else ("volume", "z", "y", "x")  # type: ignore[arg-type]
    return ("z" if description.volume else "frame", "y", "x")


def _cut(stack: Stack, length: int, attributes: Mapping[str, Any]) -> Stack:
    """Return a stack described as parts of `length` frames, with the names of its four axes."""
    labels = tuple(attributes.get("axis_labels") or ())
    other = dict(stack.description.other)
    if labels[:1] == ("movie",):
        other[_AXES] = list(labels)
    return stack.described(sections_per_volume=length, other=other)


def _angstroms(attributes: Mapping[str, Any], axes: int) -> list[float | None]:
    """Return the pixel size along each axis in Å, None where its unit is not a length."""
    scale = attributes.get("scale")
    units = attributes.get("units")
    if scale is None or units is None:
        return [None] * axes
    units = [units] * axes if isinstance(units, str) else units
    factors = [angstroms(str(unit)) for unit in units]
    return [None if f is None else abs(float(s)) * f for s, f in zip(scale, factors, strict=True)]


def _users_map(metadata: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user's part of `layer.metadata`: the map under that name, and what was added."""
    own = metadata.get("metadata", known)
    if not isinstance(own, Mapping):
        own = {"metadata": own}
    return {**own, **{key: value for key, value in metadata.items() if key not in _OF_THE_FILE}}


class ShownStack(Stack):
    """A stack whose damaged frames are all 0 when they are indexed, with one warning each.

    So are frames without enough memory for them. Sums, corrections, saving and ``np.asarray`` still
    raise `MrczError`, as they take frames from the source, not by index.
    """

    @cached_property
    def damaged(self) -> set[int]:
        """Indices of damaged frames that a warning was issued for."""
        return set()

    @classmethod
    def of(cls, stack: Stack) -> Self:
        """Return a stack of the same frames for a viewer."""
        return cls(stack._source, stack.description, stack.header, **stack._caching)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Index as `Stack` does; damaged frames are 0."""
        try:
            return super().__getitem__(key)
        except MrczError as error:
            return self._with_blanks(key, error)

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """Return an iterator over the frames; a damaged one raises, as iteration is computing."""
        return (super(ShownStack, self).__getitem__(i) for i in range(len(self)))

    def _with_blanks(self, key: Any, error: MrczError) -> npt.NDArray[Any]:
        frames, window = split_index(key, self.shape)
        blank = np.zeros(self.shape[1:], self.dtype)[window]
        if isinstance(frames, int):
            self._warn(frames, error)
            return blank
        found = []
        for frame in frames:
            try:
                found.append(super().__getitem__((frame, *window)))
            except MrczError as one:
                self._warn(frame, one)
                found.append(blank)
        return np.stack(found)

    def _warn(self, frame: int, error: MrczError) -> None:
        if isinstance(error, NotEnoughMemory):  # each time: there may be enough the next
            warn(f"{error}. It is shown blank as long as there is not enough")
        elif frame not in self.damaged:
            self.damaged.add(frame)
            warn(f"{error}. It is shown blank; the other frames can be used")


class LateStack(ShownStack):
    """A stack whose frames take long (at a URL, or summed): the window does not wait for them.

    If a viewer asks, in the window's thread, for a frame that is not there yet, it is all 0, and
    `wanted` is called; across frames, where axes are turned, those that are there are shown. Other
    threads, single indices (``data[3]``) and computations wait as with any stack.

    `wanted`: called with (this stack, index) in the window's thread; computes the frame in another
    thread and draws the layer again, or returns False to wait for it. None to wait always.
    """

    wanted: Callable[[LateStack, int], bool | None] | None = None

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Index as `Stack` does; for a viewer, a frame that is not there yet is 0."""
        in_window = threading.current_thread() is threading.main_thread()
        if self.wanted is None or not in_window or not _is_a_viewers(key, self.shape):
            return super().__getitem__(key)
        frames = range(len(self))[key[0]]
        if not frames:
            return super().__getitem__(key)
        found = [self._cache.peek(frame) for frame in frames]
        if len(frames) == 1:
            # A frame that is there is taken as usual, so that the next ones are read ahead.
            waits = frames[0] in self.damaged or found[0] is not None
            if waits or self.wanted(self, frames[0]) is False:
                return super().__getitem__(key)
        blank = np.zeros(self.shape[1:], self.dtype)
        return np.stack([(blank if frame is None else frame)[key[1:]] for frame in found])


def _is_a_viewers(key: Any, shape: tuple[int, ...]) -> bool:
    """Return whether all axes are sliced, and one of them to a single place: as napari asks."""
    return (
        isinstance(key, tuple)
        and len(key) == len(shape)
        and all(isinstance(part, slice) for part in key)
        and any(len(range(n)[part]) == 1 for n, part in zip(shape, key, strict=True))
    )


class FrameFetcher:
    """Reads the frame that a layer of a `LateStack` wanted last, in a thread, and redraws it."""

    def __init__(self, layer: Image) -> None:
        self._layer = weakref.ref(layer)
        self._lock = threading.Lock()
        self._wanted: int | None = None
        self._is_running = False

    def __call__(self, stack: LateStack, frame: int) -> bool:
        """Fetch a frame; return False in a script, which waits for it."""
        if not in_event_loop():
            return False
        with self._lock:
            self._wanted = frame
            if not self._is_running:
                self._is_running = True
                work = threading.Thread(
                    target=self._run, args=(stack,), name="napari-mrcz-late", daemon=True
                )
                work.start()
        return True

    def _run(self, stack: LateStack) -> None:
        while True:
            with self._lock:
                frame, self._wanted = self._wanted, None
                if frame is None:
                    self._is_running = False
                    return
            try:
                stack._cache.get(frame)
            except Exception as error:  # others are still to be read
                warn(f"{error_text(error)} The frame is shown blank until it is looked at again")
            else:
                self._draw()

    def _draw(self) -> None:
        from superqt.utils import ensure_main_thread

        if (layer := self._layer()) is not None:
            ensure_main_thread(layer.refresh)(extent=False)


def in_event_loop() -> bool:
    """Return whether this thread is answering the user, rather than running a script."""
    from qtpy.QtCore import QThread  # not above: files are opened without Qt, too

    thread = QThread.currentThread()
    return thread is not None and thread.loopLevel() > 0


class StackSeries:
    """A stack cut into parts of equal length: (part, frame, y, x).

    `stack`: the frames, part after part; `length`: frames in a part. Raise `ValueError` if the
    stack cannot be cut so.
    """

    def __init__(self, stack: Stack, length: int) -> None:
        if length < 1 or len(stack) % length:
            raise ValueError(f"{len(stack)} frames cannot be cut into parts of {length}")
        self.stack = stack
        self.length = length

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Parts, frames in each, rows, columns."""
        n, y, x = self.stack.shape
        return n // self.length, self.length, y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type, in native byte order."""
        return self.stack.dtype

    @property
    def ndim(self) -> int:
        """Always 4."""
        return 4

    @property
    def size(self) -> int:
        """Pixels in all frames."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        """Return the number of parts."""
        return self.shape[0]

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Index like an array of shape (part, frame, y, x), each axis by itself."""
        parts, frames, *window = _four(key)
        numbers = np.add.outer(
            np.arange(len(self))[parts] * self.length, np.arange(self.length)[frames]
        )
        if not numbers.ndim:
            return self.stack[(int(numbers), *window)]
        found = self.stack[(numbers.reshape(-1).tolist(), *window)]
        return found.reshape(numbers.shape + found.shape[1:])

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        """Decode all frames."""
        return self.stack.__array__(dtype, copy).reshape(self.shape)

    def __deepcopy__(self, memo: dict[int, Any]) -> StackSeries:
        # Frames never change, so that a copy (napari's "Duplicate") may share their source.
        return StackSeries(self.stack.__deepcopy__(memo), self.length)

    def __repr__(self) -> str:
        return f"<StackSeries of {len(self)} parts of {self.stack!r}>"


def _four(key: Any) -> tuple[Any, ...]:
    """Return an index with one part for each of the four axes."""
    parts = list(key) if isinstance(key, tuple) else [key]
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    at = next(i for i, part in enumerate(parts) if part is Ellipsis)
    missing = 5 - len(parts)
    parts[at : at + 1] = [slice(None)] * missing
    if missing < 0 or any(part is None or part is Ellipsis for part in parts):
        raise IndexError(f"{key!r} is not an index of four axes")
    return tuple(parts)


Limits = tuple[float, float]

# Hot pixels of an ageing detector are less than 0.1 %, zeros outside a mask may be much more.
_PERCENTILES = (0.5, 99.5)
_SAMPLED_PIXELS = 2**17


def contrast_limits(frames: Iterable[npt.NDArray[Any]]) -> Limits:
    """Return the limits (black, white) between which nearly all pixels of some frames lie.

    Some 100,000 pixels of each are looked at. Whole numbers for integer frames.
    """
    pixels = np.concatenate([_sample(frame) for frame in frames])
    whole = pixels.dtype.kind in "biu"
    values = pixels.astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(p) for p in np.percentile(values, _PERCENTILES))
    if whole:
        low, high = math.floor(low), math.ceil(high)
    if low == high:
        low, high = _limits_around(low, values)
    return float(low), float(high)


def slider_range(limits: Limits, dtype: npt.DTypeLike) -> Limits:
    """Return the range of contrast sliders: the limits, and room within `dtype` to move them."""
    low, high = limits
    width = high - low
    wide_low, wide_high = low - 2 * width, high + 4 * width
    if low >= 0:  # counts, amplitudes and the like
        wide_low = min(low, 0.0)
    if np.dtype(dtype).kind in "iu":
        held = np.iinfo(dtype)
        wide_low, wide_high = max(wide_low, held.min), min(wide_high, held.max)
    return min(low, wide_low), max(high, wide_high)


def _limits_around(value: float, values: npt.NDArray[np.float64]) -> Limits:
    """Return limits where nearly all pixels have one value, such as 0 in sparse counts."""
    above, below = values[values > value], values[values < value]
    low = float(np.median(below)) if below.size else value
    high = float(np.median(above)) if above.size else value
    if low < high:
        return low, high
    # All alike: zeros are black, all else is grey.
    return (0.0, 1.0) if value == 0 else (value - abs(value), value + abs(value))


def _sample(frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return pixels at even distances that fall into all columns alike."""
    flat = frame.reshape(-1)
    step = max(1, flat.size // _SAMPLED_PIXELS)
    while math.gcd(step, frame.shape[-1]) > 1:
        step += 1
    return flat[::step]
