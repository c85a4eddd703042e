"""Keeping a corrected movie as counts: what is written, how large it is, and the original restored.

The frames before gain and KOMA are written; these steps go into the footer (see `stack.kept`), with
the raw values of replaced pixels and what makes the bytes of the file around the frames again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.errors import AnyPath, MrczError, size_text
from napari_mrcz.format import Description, Encoding, FrameReader, Progress, estimate, write_frames
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.format.encoding import alone, encoding_of
from napari_mrcz.format.header import FOUR_BIT, pack_four_bit
from napari_mrcz.format.machine import in_order, processors, reported
from napari_mrcz.naming import path_of, software
from napari_mrcz.stack import kept
from napari_mrcz.stack.sources import CorrectedSource, DerivedFrames, FrameSource, uncached
from napari_mrcz.stack.stack import Stack

# Steps that may wait; the filter before them, whose raw values are kept.
_STEPS = (kept.GAIN, "KomaNormalization")
_OUTLIERS = "OutlierFilter"
# Of pixels that keep so much of their own value, in parts of 65535, differences are stored: most
# are 0.
_MOSTLY_KEPT = 2**15
# Arrays of more bytes than this are packed; and what surrounds the frames of a file is kept.
_LARGEST_PLAIN, _LARGEST_AROUND = 2**12, 2**26
# Bytes of frames that an encoding is recognised by, at least.
_SMALL_NBYTES = 2**22
_ALL_FRAMES = "Restore it from a copy that has all its frames"

Array = npt.NDArray[Any]
Map = Mapping[str, Any]


class Keeping:
    """Writes a stack as the counts under its gain and KOMA.

    The footer's ``original`` holds ``name`` (of a whole file), ``shape``, ``dtype`` of the movie,
    ``xxh3`` of each of its frames, and if outlier pixels were replaced their raw ``values``, pixel
    by pixel (as differences where pixels mostly keep their value). Of MRC and MRCZ files it holds
    ``file``: the bytes before and after the frames, how these are stored, and the SHA-256.

    `path`: the file that will be written; `stack`: corrected frames. `counts`: what is written;
    `pending`: the steps that the footer holds. Raise `MrczError` if no integers are there.
    """

    def __init__(self, path: AnyPath, stack: Stack) -> None:
        self._path = Path(path)
        check_integers(path, stack)
        source, depth = _split(stack)
        history = stack.history
        self._references: dict[str, Array] = {}
        self.pending = self._without_arrays(history[len(history) - depth :])
        self._reader = source if isinstance(source, FrameReader) else None
        self._collected: _Collected | None = None
        if self._reader is None or not kept.is_kept(self._reader.footer.other):
            self._collected = source = _Collected(source)
            raw = self._collected.raw
            self._reader = raw if isinstance(raw, FrameReader) else None
        elif len(self._reader.footer.other[kept.PENDING]) > depth:
            advice = "Open the movie without counts=True and write that"
            raise MrczError(path, "counts without the gain that belongs to them", advice=advice)
        metadata = dict(stack.description.metadata)
        if self.pending:
            metadata[kept.NOTE] = self._note()
        self.counts = Stack(source, stack.description, stack.header, **stack._caching).described(
            history=history[: len(history) - depth], metadata=metadata
        )

    @property
    def lost(self) -> str:
        """Name of the correction after which the raw movie cannot be restored; empty if it can."""
        return "" if self._collected is None else self._collected.lost

    def footer(self) -> dict[str, Any]:
        """Write the references, and return the footer's further keys, when all frames are written.

        Raise `MrczError` if a reference cannot be written.
        """
        for name, image in self._references.items():
            file = self._path.absolute().with_name(name)
            if not file.exists() or _is_another(file, image):
                encoding, description = Encoding("zstd"), Description(writer=software())
                write_frames(
                    file, [image], [image], description=description, encoding=encoding,
                    total=1, overwrite=True,
                )  # fmt: skip
        places = {
            kind: step[key]
            for step in self.pending
            for key, kind in kept.REFERENCES.items()
            if isinstance(step.get(key), Mapping)
        }
        original: dict[str, Any] = {}
        if self._collected is not None and not self.lost:
            is_whole = not isinstance(self._collected.raw, DerivedFrames)
            named = path_of(self.counts.path or "").name if is_whole else ""
            original = {"name": named, **self._collected.original(), **self._file()}
        elif self._collected is None:
            original = dict(self._reader.footer.other.get(kept.ORIGINAL, {}))  # type: ignore[union-attr]
        return {kept.PENDING: self.pending, **places, kept.ORIGINAL: original}

    def _without_arrays(self, steps: Sequence[Map]) -> list[dict[str, Any]]:
        """Return steps with references by name, and other large arrays packed."""
        made = []
        gain = None
        for step in steps:
            new: dict[str, Any] = dict(step)
            for key, value in step.items():
                if not isinstance(value, np.ndarray):
                    continue
                if key in kept.REFERENCES:
                    xxh3 = xxhash.xxh3_64_hexdigest(np.ascontiguousarray(value).data)
                    name = f"{kept.REFERENCES[key]}-{xxh3}.mrcz"
                    self._references[name] = value
                    new[key] = {"path": name, "xxh3": xxh3}
                elif value.nbytes > _LARGEST_PLAIN:
                    is_mean = key == "average"
                    new[key] = kept.packed_mean(value, gain) if is_mean else kept.packed(value)
            made.append(new)
            gain = step if step["name"] == kept.GAIN else gain
        return made

    def _note(self) -> dict[str, Any]:
        names = " and ".join("gain" if s["name"] == kept.GAIN else "KOMA" for s in self.pending)
        verb = "is" if len(self.pending) == 1 else "are"
        said = (
            f"These pixels are counts: {names} {verb} NOT applied to them. napari_mrcz.open "
            "applies what is in the footer; napari-mrcz decompress writes normalised frames."
        )
        return {"gain_applied": False, "note": said, "references": list(self._references)}

    def _file(self) -> dict[str, Any]:
        """Return what makes the file of the raw movie again from its frames, if it can be made."""
        reader = self._reader
        if reader is None:
            return {}
        index, header = reader.index, reader.header
        offsets, sizes = (np.asarray(places, np.int64) for places in (index.offsets, index.sizes))
        start, end = int(offsets[0]), int(offsets[-1] + sizes[-1])
        nbytes = os.path.getsize(reader.path)
        around = start + nbytes - end
        if reader.is_packed or around > _LARGEST_AROUND or (np.diff(offsets) != sizes[:-1]).any():
            return {}
        encoding = None
        if header.codec:
            # Recognised by a few frames; by many of small ones, which look alike.
            n = reader.shape[0]
            wanted = min(n, max(3, _SMALL_NBYTES // reader.frame_nbytes))
            some = sorted({round(at) for at in np.linspace(0, n - 1, wanted)})
            pixels = (np.ascontiguousarray(reader.read_frame(i), header.stored_dtype) for i in some)
            stored = (bytes(reader.read_stored(i)) for i in some)
            encoding = encoding_of(list(zip(stored, pixels, strict=True)))
            if encoding is None:
                return {}
        with reader.path.open("rb") as file:
            head = file.read(start)
            file.seek(end)
            tail = file.read()
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        four_bit = header.mode == FOUR_BIT
        made = OriginalFile(nbytes, sha256, head, tail, header.stored_dtype, four_bit, encoding)
        return {"file": made.as_map()}


def check_integers(path: AnyPath, stack: Stack) -> None:
    """Raise `MrczError` if no integers are under a stack's gain and KOMA, to be kept in a file."""
    source, _ = _split(stack)
    if source.dtype.kind not in "iu":
        found = f"frames of {source.dtype} cannot be kept as counts"
        advice = (
            'Take the raw integer movie, with fill = "sample" for outliers and no steps but gain '
            "and KOMA after them, or do not keep counts"
        )
        raise MrczError(path, found, advice=advice)


def counts_below(stack: Stack) -> Stack | None:
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

    `stack`: corrected frames; `encoding`: how they are compressed; `footer_nbytes`: what KOMA's
    average takes in the footer, where that is known; else it is packed. The result: by the stack's
    own pixel type first; of float32, "float16", where its values fit; of frames with integers
    under gain and KOMA, "counts" (without the reference, which all movies of a folder share).
    """
    path = stack.path or "stack"

    def nbytes(frames: Stack, dtype: str | None = None) -> int:
        found = estimate(path, frames.sample_makers(), encoding, dtype)
        return round(found.frame_nbytes * len(frames))

    sizes = {stack.dtype.name: nbytes(stack)}
    if stack.dtype == np.float32:
        with contextlib.suppress(MrczError):
            sizes["float16"] = nbytes(stack, "float16")
    if (counts := counts_below(stack)) is not None:
        if footer_nbytes is None:
            steps = Keeping(path, stack).pending
            arrays = [value for step in steps for value in step.values() if kept.is_packed(value)]
            footer_nbytes = sum(map(kept.packed_nbytes, arrays))
        sizes["counts"] = nbytes(counts) + footer_nbytes
    return sizes


def sizes_text(sizes: Mapping[str, int]) -> str:
    """Return `estimated_sizes` in words."""
    return ", ".join(f"{name} {size_text(nbytes)}" for name, nbytes in sizes.items())


def original(movie: Stack | AnyPath) -> Stack:
    """Return the movie that was corrected and kept as counts, as it was before, lazily.

    Parameters
    ----------
    movie : Stack or path-like
        The file, or what `napari_mrcz.open` returns of it.

    Returns
    -------
    Stack, shape (n, y, x)
        The raw frames, bit for bit: each is compared with its checksum when it is read.

    Raises
    ------
    MrczError
        If it is of another kind of file, or the raw values are not in it. Frames whose checksum
        does not match raise it when they are read.
    """
    reader, known = _kept_in(movie)
    history = reader.footer.history
    restored = _Restored(reader, known, history[-1] if history else {})
    if "values" in known:
        history = history[:-1]
    left = {k: v for k, v in reader.description.other.items() if k not in kept.OURS}
    metadata = {k: v for k, v in reader.metadata.items() if k != kept.NOTE}
    raw = Stack(restored, reader.description, reader.header)
    return raw.described(other=left, metadata=metadata, history=tuple(history))


def original_file(movie: Stack | AnyPath) -> tuple[str, OriginalFile | None]:
    """Return the name of the corrected file, and what makes its bytes, if known; or `MrczError`."""
    reader, known = _kept_in(movie)
    file = known.get("file")
    made = None if file is None else OriginalFile.from_map(file, reader.path)
    return str(known.get("name", "")), made


def restore_file(
    movie: Stack | AnyPath,
    path: AnyPath,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> str:
    """Write the file that was corrected again, byte for byte, where that is possible.

    `movie`: one that is kept as counts; `path`: the file to write; `overwrite`: replace an existing
    file; `progress`: called with (frames done, frames). The result: its SHA-256, which is that of
    the original; empty if the bytes would be others (nothing is written then). Raise `MrczError` if
    the raw values are not in it, or the checksum of a frame does not match.
    """
    _, known = original_file(movie)
    if known is None:
        return ""
    sha256 = hashlib.sha256()
    with original(movie) as raw, AtomicFile(path, overwrite=overwrite) as file:

        def put(data: bytes | memoryview) -> None:
            file.write(data)
            sha256.update(data)

        put(known.head)
        makers, n = raw.frame_makers(), len(raw)
        nbytes = 3 * raw.nbytes // n
        work, threads = lambda make: known.stored(make()), processors()
        with in_order(work, makers, threads, "napari-mrcz-restore", nbytes=nbytes) as frames:
            for data in reported(frames, n, progress):
                put(data)
        put(known.tail)
        if sha256.hexdigest() != known.sha256:
            return ""
        file.commit()
    return known.sha256


@dataclass(frozen=True)
class OriginalFile:
    """What it takes to make the bytes of a file again from its frames."""

    nbytes: int
    sha256: str  # of all its bytes
    head: bytes  # what comes before the frames
    tail: bytes  # what comes after them
    dtype: np.dtype[Any]  # of the stored pixels, in their byte order
    four_bit: bool  # whether two pixels are in a byte
    encoding: Encoding | None  # how frames are compressed

    @classmethod
    def from_map(cls, known: Any, path: Path) -> OriginalFile:
        """Return what `as_map` made a map of; raises `MrczError` if that is damaged."""
        try:
            encoding = known["encoding"]
            if encoding is not None:
                encoding = Encoding(**encoding)
                if "auto" in (encoding.filter, encoding.block_size):
                    raise ValueError("its encoding is not known")
            around, head = kept.unpacked(known["around"], path).tobytes(), int(known["head"])
            return cls(
                int(known["nbytes"]),
                str(known["sha256"]),
                around[:head],
                around[head:],
                np.dtype(str(known["stored"])),
                bool(known["four_bit"]),
                encoding,
            )
        except MrczError:
            raise
        except (KeyError, TypeError, ValueError, IndexError) as error:
            found = f"what its footer says of the raw file is damaged ({error!r})"
            raise MrczError(path, found) from error

    def as_map(self) -> dict[str, Any]:
        """Return it as a map for the footer."""
        return {
            "nbytes": self.nbytes,
            "sha256": self.sha256,
            "head": len(self.head),
            "around": kept.packed(np.frombuffer(self.head + self.tail, np.uint8)),
            "stored": self.dtype.str,
            "four_bit": self.four_bit,
            "encoding": None if self.encoding is None else asdict(self.encoding),
        }

    def stored(self, frame: Array) -> bytes | memoryview:
        """Return the bytes of a frame, (y, x), in the file."""
        pixels: Array = np.ascontiguousarray(frame, self.dtype)
        if self.four_bit:
            pixels = pack_four_bit(pixels)
        if (encoding := self.encoding) is not None:
            return alone(lambda: encoding.compress(pixels))
        return pixels.reshape(-1).view(np.uint8).data


class _Collected(DerivedFrames):
    """The counts as a source of frames, which notes on the way what restores the raw ones.

    `lost` is the correction before the outlier filter after which these cannot be restored.
    """

    def __init__(self, source: FrameSource) -> None:
        super().__init__(source)
        self._correction: Any = None
        self.raw = source
        if isinstance(source, CorrectedSource) and _name(source.correction) == _OUTLIERS:
            self._correction, self.raw = source.correction, uncached(source.before)
        self.lost = _name(self.raw.correction) if isinstance(self.raw, CorrectedSource) else ""
        n = source.shape[0]
        self._digests = np.zeros(n, "<u8")
        if self._correction is not None:
            replacement = self._correction.replacement
            self._pixels: Array = replacement.pixels
            self._kept = replacement.weights >= _MOSTLY_KEPT
            self._values = np.zeros((len(self._pixels), n), f"u{self.raw.dtype.itemsize}")

    def _read(self, frame: int) -> Array:
        raw = np.ascontiguousarray(self.raw.read_frame(frame))
        self._digests[frame] = _digest(raw)
        if self._correction is None:
            return raw
        counts: Array = self._correction(raw, frame)
        was, now = (a.reshape(-1)[self._pixels] for a in (raw, counts))
        if np.count_nonzero(raw != counts) != np.count_nonzero(was != now):
            raise ValueError("a filter changed other pixels than those that it names")
        was, now = (a.view(self._values.dtype) for a in (was, now))
        self._values[:, frame] = np.where(self._kept, was - now, was)
        return counts

    def original(self) -> dict[str, Any]:
        """Return what restores the raw frames."""
        known: dict[str, Any] = {
            "shape": list(self.raw.shape),
            "dtype": self.raw.dtype.str,
            "xxh3": self._digests.tobytes(),
        }
        return known if self._correction is None else {**known, "values": kept.packed(self._values)}


class _Restored(DerivedFrames):
    """Counts with the raw values of replaced pixels put back; each frame's checksum is compared."""

    def __init__(self, reader: FrameReader, known: Map, step: Map) -> None:
        from napari_mrcz.correction.outliers.fill import Replacement

        super().__init__(reader)
        self._path = reader.path
        self._digests = np.frombuffer(known["xxh3"], "<u8")
        self._values: Array | None = None
        if "values" not in known:
            return
        self._values = kept.unpacked(known["values"], reader.path)
        try:
            replacement = Replacement.from_description(step["replacement"])
        except (KeyError, TypeError, ValueError) as error:
            found = f"the outlier filter in its history cannot be read ({error!r})"
            raise MrczError(reader.path, found) from error
        self._pixels = replacement.pixels
        self._kept = replacement.weights >= _MOSTLY_KEPT
        if self._values.shape != (len(self._pixels), self.shape[0]):
            n = self._values.shape[1]
            found = f"raw values of {n} frames, where the file has {self.shape[0]}"
            raise MrczError(reader.path, found, advice=_ALL_FRAMES)

    def _read(self, frame: int) -> Array:
        raw = self.before.read_frame(frame)
        if self._values is not None:
            raw = np.array(raw, order="C")
            flat = raw.reshape(-1).view(self._values.dtype)
            own = np.where(self._kept, flat[self._pixels], 0)
            flat[self._pixels] = self._values[:, frame] + own
        if _digest(raw) != self._digests[frame]:
            found = "is not the original: its checksum does not match"
            raise MrczError(self._path, found, frame=frame, advice="The file was damaged")
        return raw


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


def _is_another(file: Path, image: Array) -> bool:
    """Return whether a reference that is there is another one."""
    there, _ = kept.image_of(file)
    return (
        there is None
        or there.dtype != image.dtype
        or not np.array_equal(there.view(np.uint8), np.ascontiguousarray(image).view(np.uint8))
    )


def _kept_in(movie: Stack | AnyPath) -> tuple[FrameReader, Map]:
    """Return the file of a movie that is kept as counts, and what it says of the original."""
    if isinstance(movie, Stack):
        source, path = kept.kept_reader(movie), movie.path
    else:
        source, path = FrameReader(movie), os.fspath(movie)
        source.close()  # reading opens it again
    if source is None or not kept.is_kept(source.footer.other):
        found = "is not kept as counts, so that nothing can be restored"
        advice = 'Only results written with --keep counts (keep="counts") have the raw movie within'
        raise MrczError(path, found, advice=advice)
    known = source.footer.other.get(kept.ORIGINAL)
    if not isinstance(known, Mapping) or not isinstance(known.get("xxh3"), bytes):
        raise MrczError(path, "it does not have the raw values of its pixels")
    n = len(known["xxh3"]) // 8
    if n != source.shape[0]:
        found = f"{source.shape[0]} frames, where the original had {n}"
        raise MrczError(path, found, advice=_ALL_FRAMES)
    return source, known


def _name(correction: object) -> str:
    return type(correction).__name__


def _digest(frame: Array) -> int:
    """Return the xxh3-64 of a frame's little-endian pixels."""
    little = frame.dtype.newbyteorder("<")
    pixels = np.ascontiguousarray(frame.astype(little, copy=False))
    return xxhash.xxh3_64_intdigest(pixels.reshape(-1).view(np.uint8).data)
