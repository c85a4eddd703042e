"""Keeping a corrected movie as counts: what is written, and how large it will be.

The frames before gain and KOMA are written; these steps go into the footer (see `stack.kept`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.errors import MrczError, size_text
from napari_mrcz.format import Encoding, FrameReader, estimate
from napari_mrcz.format.encoding import encoding_of
from napari_mrcz.format.modes import FOUR_BIT
from napari_mrcz.stack.kept import (
    GAIN,
    MOSTLY_KEPT,
    NOTE,
    ORIGINAL,
    PENDING,
    REFERENCES,
    OriginalFile,
    digest,
    image_of,
    is_kept,
)  # fmt: skip
from napari_mrcz.stack.packing import is_packed, packed, packed_mean, packed_nbytes
from napari_mrcz.stack.sources import (
    CorrectedSource,
    Correction,
    DerivedFrames,
    FrameSource,
    uncached,
)
from napari_mrcz.stack.stack import Stack

# Steps that may wait; the filter before them, whose raw values are kept.
_STEPS = (GAIN, "KomaNormalization")
_OUTLIERS = "OutlierFilter"
# Arrays of more bytes than this are packed; and what surrounds the frames of a file is kept.
_LARGEST_PLAIN, _LARGEST_AROUND = 2**12, 2**26
# Bytes of frames by which an encoding is told, at least.
_SMALL_NBYTES = 2**22

Array = npt.NDArray[Any]
Map = Mapping[str, Any]


def counts_beneath(stack: Stack) -> Stack | None:
    """Return the integers that a stack's gain and KOMA are applied to; None if there are none."""
    source, depth = _split(stack)
    if not depth or source.dtype.kind not in "iu":
        return None
    history = stack.history[: len(stack.history) - depth]
    return Stack(source, stack.description, stack.header).described(history=history)


def estimated_sizes(
    stack: Stack, encoding: Encoding, footer_nbytes: int | None = None
) -> dict[str, int]:
    """Return how many bytes a stack will take as each pixel type that it may be saved as.

    Parameters
    ----------
    stack : Stack
        Corrected frames.
    encoding : Encoding
        How they are compressed.
    footer_nbytes : int, optional
        What KOMA's average takes in the footer, where that is known; else it is packed.

    Returns
    -------
    dict of int
        By the stack's own pixel type first; of float32, "float16", where its values fit; of frames
        with integers beneath gain and KOMA, "counts" (without the reference, which all movies of a
        folder share).
    """
    from napari_mrcz.stack.files import sample_frames

    path = stack.path or "stack"

    def nbytes(frames: Stack, dtype: str | None = None) -> int:
        found = estimate(path, sample_frames(frames), encoding, dtype)
        return round(found.frame_nbytes * len(frames))

    sizes = {stack.dtype.name: nbytes(stack)}
    if stack.dtype == np.float32:
        with contextlib.suppress(MrczError):
            sizes["float16"] = nbytes(stack, "float16")
    counts = counts_beneath(stack)
    if counts is not None:
        if footer_nbytes is None:
            steps = Keeping(path, stack).pending
            arrays = [value for step in steps for value in step.values() if is_packed(value)]
            footer_nbytes = sum(map(packed_nbytes, arrays))
        sizes["counts"] = nbytes(counts) + footer_nbytes
    return sizes


def sizes_text(sizes: Mapping[str, int]) -> str:
    """Return `estimated_sizes` in words."""
    return ", ".join(f"{name} {size_text(nbytes)}" for name, nbytes in sizes.items())


class Keeping:
    """Writes a stack as the counts beneath its gain and KOMA.

    The footer's ``original`` holds ``name``, ``shape``, ``dtype`` of the movie that was corrected,
    ``xxh3`` of each of its frames, and if outlier pixels were replaced their raw ``values``, pixel
    by pixel (as differences where pixels mostly keep their value). Of MRC and MRCZ files it holds
    ``file``: the bytes before and after the frames, how these are stored, and the SHA-256.

    Parameters
    ----------
    path : path-like
        The file that will be written.
    stack : Stack
        Corrected frames.

    Attributes
    ----------
    counts : Stack
        What is written.
    pending : list of dict
        The steps that the footer holds.

    Raises
    ------
    MrczError
        If there are no integers beneath.
    """

    def __init__(self, path: str | os.PathLike[str], stack: Stack) -> None:
        self._path = Path(path)
        source, depth = _split(stack)
        if source.dtype.kind not in "iu":
            found = f"frames of {source.dtype} cannot be kept as counts"
            advice = (
                "Integers are needed beneath gain and KOMA, and no other step after these: raw "
                'counts, whose outlier pixels are replaced with fill = "sample"'
            )
            raise MrczError(path, found, advice=advice)
        history = stack.history
        self._references: dict[str, Array] = {}
        self.pending = self._without_arrays(history[len(history) - depth :])
        self._reader = source if isinstance(source, FrameReader) else None
        self._collected: _Collected | None = None
        if self._reader is None or not is_kept(self._reader.footer.other):
            self._collected = source = _Collected(source)
            self._reader = self._collected.reader
        elif len(self._reader.footer.other[PENDING]) > depth:
            advice = "Open the movie without counts=True and write that"
            raise MrczError(path, "counts without the gain that belongs to them", advice=advice)
        metadata = dict(stack.description.metadata)
        if self.pending:
            metadata[NOTE] = self._note()
        self.counts = Stack(source, stack.description, stack.header, **stack._caching).described(
            history=history[: len(history) - depth], metadata=metadata
        )

    @property
    def lost(self) -> str:
        """Name of the correction after which the raw movie cannot be restored; empty if it can."""
        return "" if self._collected is None else self._collected.lost

    def footer(self) -> dict[str, Any]:
        """Return the footer's further keys when all frames are written; writes the references.

        Raises
        ------
        MrczError
            If a reference cannot be written.
        """
        from napari_mrcz.stack.files import write

        for name, image in self._references.items():
            file = self._path.absolute().with_name(name)
            if not file.exists() or _is_another(file, image):
                write(file, image, overwrite=True)
        places = {
            kind: step[key]
            for step in self.pending
            for key, kind in REFERENCES.items()
            if isinstance(step.get(key), Mapping)
        }
        original: dict[str, Any] = {}
        if self._collected is not None and not self.lost:
            named = Path(self.counts.path or "").name
            original = {"name": named, **self._collected.original(), **_file_of(self._reader)}
        elif self._collected is None:
            original = dict(self._reader.footer.other.get(ORIGINAL, {}))  # type: ignore[union-attr]
        return {PENDING: self.pending, **places, ORIGINAL: original}

    def _without_arrays(self, steps: Sequence[Map]) -> list[dict[str, Any]]:
        """Return steps with references by name, and other large arrays packed."""
        made = []
        gain = None
        for step in steps:
            kept: dict[str, Any] = {}
            for key, value in step.items():
                if isinstance(value, np.ndarray) and key in REFERENCES:
                    name, xxh3 = _reference_name(key, value)
                    self._references[name] = value
                    kept[key] = {"path": name, "xxh3": xxh3}
                else:
                    kept[key] = _small(key, value, gain)
            made.append(kept)
            gain = step if step["name"] == GAIN else gain
        return made

    def _note(self) -> dict[str, Any]:
        names = " and ".join("gain" if s["name"] == GAIN else "KOMA" for s in self.pending)
        said = (
            f"These pixels are counts: {names} is NOT applied to them. napari_mrcz.open applies "
            "what is in the footer; napari-mrcz decompress writes normalised frames."
        )
        return {"gain_applied": False, "note": said, "references": list(self._references)}


class _Collected(DerivedFrames):
    """The counts as a source of frames, which notes on the way what restores the raw ones.

    `lost` is the correction before the outlier filter after which these cannot be restored.
    """

    def __init__(self, source: FrameSource) -> None:
        super().__init__(source)
        self._correction: Correction | None = None
        self._raw = source
        if isinstance(source, CorrectedSource) and _name(source.correction) == _OUTLIERS:
            self._correction, self._raw = source.correction, uncached(source.before)
        inner = self._raw
        self.lost = _name(inner.correction) if isinstance(inner, CorrectedSource) else ""
        n = source.shape[0]
        self._digests = np.zeros(n, "<u8")
        self._pixels: Array | None = None
        if self._correction is not None:
            replacement = self._correction.replacement  # type: ignore[attr-defined]
            self._pixels = replacement.pixels
            self._kept = replacement.weights >= MOSTLY_KEPT
            unsigned = f"u{self._raw.dtype.itemsize}"
            self._values = np.zeros((len(replacement.pixels), n), unsigned)

    @property
    def reader(self) -> FrameReader | None:
        """What reads the raw frames, if that is an MRC file."""
        return self._raw if isinstance(self._raw, FrameReader) else None

    def _read(self, frame: int) -> Array:
        """Return one frame of counts."""
        raw = np.ascontiguousarray(self._raw.read_frame(frame))
        self._digests[frame] = digest(raw)
        counts = raw
        if self._correction is not None and self._pixels is not None:
            counts = self._correction(raw, frame)
            was, now = (a.reshape(-1)[self._pixels] for a in (raw, counts))
            if np.count_nonzero(raw != counts) != np.count_nonzero(was != now):
                raise ValueError("a filter changed other pixels than those that it names")
            was, now = (a.view(self._values.dtype) for a in (was, now))
            self._values[:, frame] = np.where(self._kept, was - now, was)
        return counts

    def original(self) -> dict[str, Any]:
        """Return what restores the raw frames."""
        known: dict[str, Any] = {
            "shape": list(self._raw.shape),
            "dtype": self._raw.dtype.str,
            "xxh3": self._digests.tobytes(),
        }
        if self._pixels is not None:
            known["values"] = packed(self._values)
        return known


def _small(key: str, value: Any, gain: Map | None) -> Any:
    """Return a value of a step, packed if it is a large array."""
    if not isinstance(value, np.ndarray) or value.nbytes <= _LARGEST_PLAIN:
        return value
    return packed_mean(value, gain) if key == "average" else packed(value)


def _split(stack: Stack) -> tuple[FrameSource, int]:
    """Return the frames before the last gain and KOMA, and how many steps these are."""
    source, depth = uncached(stack._source), 0
    while (
        isinstance(source, CorrectedSource)
        and _name(source.correction) in _STEPS
        and depth < len(stack.history)
        and stack.history[-1 - depth].get("name") == _name(source.correction)
    ):
        source, depth = uncached(source.before), depth + 1
    return source, depth


def _name(correction: Correction) -> str:
    return type(correction).__name__


def _reference_name(key: str, image: Array) -> tuple[str, str]:
    xxh3 = xxhash.xxh3_64_hexdigest(np.ascontiguousarray(image).data)
    return f"{REFERENCES[key]}-{xxh3}.mrcz", xxh3


def _file_of(reader: FrameReader | None) -> dict[str, Any]:
    """Return what makes the file of a movie again from its frames, if it can be made."""
    if reader is None:
        return {}
    offsets, sizes = (np.asarray(a, np.int64) for a in (reader.index.offsets, reader.index.sizes))
    start, end = int(offsets[0]), int(offsets[-1] + sizes[-1])
    nbytes = os.path.getsize(reader.path)
    around = start + nbytes - end
    if reader.is_packed or around > _LARGEST_AROUND or (np.diff(offsets) != sizes[:-1]).any():
        return {}
    header = reader.header
    encoding = None
    if header.codec:
        encoding = encoding_of([_stored(reader, frame) for frame in _some_frames(reader)])
        if encoding is None:
            return {}
    with reader.path.open("rb") as file:
        head = file.read(start)
        file.seek(end)
        tail = file.read()
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    made = OriginalFile(
        nbytes, sha256, head, tail, header.stored_dtype, header.mode == FOUR_BIT, encoding
    )
    return {"file": made.as_map()}


def _some_frames(reader: FrameReader) -> list[int]:
    """Return the frames by which an encoding is told: many of small ones, which look alike."""
    n = reader.shape[0]
    wanted = max(3, _SMALL_NBYTES // reader.frame_nbytes)
    return sorted({round(at) for at in np.linspace(0, n - 1, min(n, wanted))})


def _stored(reader: FrameReader, frame: int) -> tuple[bytes, Array]:
    pixels = np.ascontiguousarray(reader.read_frame(frame), reader.header.stored_dtype)
    return bytes(reader.read_stored(frame)), pixels


def _is_another(file: Path, image: Array) -> bool:
    """Return whether a reference that is there is another one."""
    there, _ = image_of(file)
    return (
        there is None
        or there.dtype != image.dtype
        or not np.array_equal(there.view(np.uint8), np.ascontiguousarray(image).view(np.uint8))
    )
