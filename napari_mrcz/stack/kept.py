"""Movies kept as counts: integers in the file, gain and KOMA in its footer, applied on opening.

A corrected movie of float32 takes 8 to 10 times the room of its counts. MRCZ stores integers and
applies the gain at the destination (McLeod et al., doi:10.1016/j.jsb.2017.11.012). A file that is
kept as counts has outlier pixels replaced; what is to be done to each frame after that (`pending`)
is in its footer. The references are files beside it, one per folder, named by their content. The
raw values of the replaced pixels are in the footer too, so that the original movie can be restored.

Keys of the footer:

``pending``   corrections that the stored frames have not had, as in a history; large arrays are
              ``{path, xxh3}`` of a reference beside the file, or packed
``gain``      ``{path, xxh3}`` of the gain reference; ``dark`` likewise
``original``  what it takes to restore the movie that was corrected: see `Keeping`
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.errors import MrczError, NotEnoughMemory
from napari_mrcz.format import Encoding, FrameReader
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.format.encoding import alone
from napari_mrcz.format.metadata import from_tagged, to_plain
from napari_mrcz.format.modes import pack_four_bit
from napari_mrcz.format.threads import in_order, processors
from napari_mrcz.stack.packing import is_packed, packed, unpacked
from napari_mrcz.stack.sources import CorrectedSource, Correction, uncorrected
from napari_mrcz.stack.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_mrcz.format import Progress

NOTE = "kept_as_counts"
"""Key of the metadata, which other programs show, that says that the gain is not applied."""

PENDING, ORIGINAL = "pending", "original"
GAIN = "GainNormalization"
REFERENCES = {"reference": "gain", "dark": "dark"}
"""Keys of a step whose images are files beside the movie, and how their names begin."""
MOSTLY_KEPT = 2**15
"""Of pixels that keep so much of their own value, in parts of 65535, differences are stored: most
are 0."""

_OURS = (PENDING, ORIGINAL, *REFERENCES.values())
_REFERENCE_NAME = re.compile(r"(gain|dark)-[0-9a-f]{16}\.mrcz")

Array = npt.NDArray[Any]
Map = Mapping[str, Any]
Rebuilt = tuple[Correction, dict[str, Any]]


def is_kept(other: Map) -> bool:
    """Return whether a footer's further keys are those of a file that is kept as counts."""
    return PENDING in other


def waiting(path: Path, other: Map) -> list[Map]:
    """Return the corrections that stored frames have not had, as the footer has them.

    Raises
    ------
    MrczError
        If the footer is damaged.
    """
    steps = other.get(PENDING, [])
    if not isinstance(steps, list) or not all(map(_is_step, steps)):
        found = "the corrections in its footer make no sense, so that it cannot be normalised"
        raise MrczError(path, found)
    return steps


def opened(stack: Stack, other: Map, *, counts: bool) -> Stack:
    """Return the frames of a file that is kept as counts, normalised or as they are stored.

    Parameters
    ----------
    stack : Stack
        The stored frames.
    other : dict
        The footer's further keys.
    counts : bool
        Return the counts; references need not be there then.

    Raises
    ------
    MrczError
        If a reference is missing, or is another one, or a step cannot be rebuilt.
    """
    left = {key: value for key, value in stack.description.other.items() if key not in _OURS}
    stack = stack.described(other=left)
    if counts:
        return stack
    metadata = {k: v for k, v in stack.description.metadata.items() if k != NOTE}
    history = list(stack.history)
    path = Path(stack.path or "")
    for correction, step in _corrections(path, other):
        stack = stack.apply(correction)
        history.append(step)
    return stack.described(history=tuple(history), metadata=metadata)


def problem_of(path: Path, other: Map) -> str:
    """Return why a file that is kept as counts cannot be normalised, or nothing."""
    try:
        for _ in _corrections(path, other):
            pass
    except NotEnoughMemory:
        raise
    except MrczError as error:
        return str(error).removeprefix(f"{path}: ")
    return ""


def summary_of(path: Path, other: Map, dtype: np.dtype[Any]) -> str:
    """Return a sentence on a file that is kept as counts, for people.

    Raises
    ------
    MrczError
        If its footer is damaged.
    """
    gain = other.get("gain")
    name = gain.get("path", "") if isinstance(gain, Mapping) else ""
    named = [
        f"gain in the footer ({name})" if step["name"] == GAIN else "KOMA in the footer"
        for step in waiting(path, other)
    ]
    if not named:
        return f"kept as counts ({dtype}); nothing else is to be applied"
    return f"kept as counts ({dtype}); {' and '.join(named)}, not applied to the stored pixels"


def kept_reader(movie: Stack) -> FrameReader | None:
    """Return what reads the file of a movie that is kept as counts; None of others.

    Frames that were corrected after it was opened count; others, such as sums and crops, do not.
    """
    source = uncorrected(movie._source)
    kept = isinstance(source, FrameReader) and is_kept(source.footer.other)
    return source if kept else None  # type: ignore[return-value]


def references_of(other: Map) -> list[str]:
    """Return the names of the files that must lie beside one that is kept as counts."""
    places = [other.get(kind) for kind in REFERENCES.values()]
    return [Path(str(place.get("path"))).name for place in places if isinstance(place, Mapping)]


def is_reference_name(name: str) -> bool:
    """Return whether a file name is that of a reference beside movies that are kept as counts."""
    return _REFERENCE_NAME.fullmatch(name) is not None


def copy_references(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy the references of a file that is kept as counts beside a copy of it.

    Raises
    ------
    MrczError
        If one cannot be written.
    """
    source, target = Path(source), Path(target)
    with FrameReader(source) as reader:
        names = references_of(reader.footer.other) if is_kept(reader.footer.other) else []
    for name in names:
        old, new = source.with_name(name), target.with_name(name)
        if not old.exists() or new.exists():
            continue  # opening the copy says what is missing
        with AtomicFile(new, overwrite=True) as file:
            file.write(old.read_bytes())
            file.commit()


def original(movie: Stack | str | os.PathLike[str]) -> Stack:
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
    values = known.get("values")
    if values is not None:
        step = history[-1] if history else {}
        restoring = _Restoring.of(reader, step, unpacked(values, reader.path), known)
        history = history[:-1]
    else:
        restoring = _Restoring(reader.path, known)
    left = {k: v for k, v in reader.description.other.items() if k not in _OURS}
    metadata = {k: v for k, v in reader.metadata.items() if k != NOTE}
    raw = Stack(CorrectedSource(reader, restoring), reader.description, reader.header)
    return raw.described(other=left, metadata=metadata, history=tuple(history))


@dataclass(frozen=True)
class OriginalFile:
    """What makes the bytes of a file again from its frames.

    Attributes
    ----------
    nbytes : int
        Its length.
    sha256 : str
        Of all its bytes.
    head, tail : bytes
        What comes before and after the frames.
    dtype : dtype
        Of the stored pixels, in their byte order.
    four_bit : bool
        Whether two pixels are in a byte.
    encoding : Encoding or None
        How frames are compressed.
    """

    nbytes: int
    sha256: str
    head: bytes
    tail: bytes
    dtype: np.dtype[Any]
    four_bit: bool
    encoding: Encoding | None

    @classmethod
    def from_map(cls, known: Any, path: Path) -> OriginalFile:
        """Return what `as_map` made a map of.

        Raises
        ------
        MrczError
            If it is damaged.
        """
        try:
            encoding = known["encoding"]
            if encoding is not None:
                encoding = Encoding(**encoding)
                if "auto" in (encoding.filter, encoding.block_size):
                    raise ValueError("its encoding is not known")
            around, head = unpacked(known["around"], path).tobytes(), int(known["head"])
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
            "around": packed(np.frombuffer(self.head + self.tail, np.uint8)),
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


def original_file(movie: Stack | str | os.PathLike[str]) -> tuple[str, OriginalFile | None]:
    """Return name of the file that was corrected, and what makes its bytes again, if known.

    Raises
    ------
    MrczError
        If the movie is not kept as counts, or its footer is damaged.
    """
    reader, known = _kept_in(movie)
    file = known.get("file")
    made = None if file is None else OriginalFile.from_map(file, reader.path)
    return str(known.get("name", "")), made


def restore_file(
    movie: Stack | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> str:
    """Write the file that was corrected again, byte for byte, where that is possible.

    Parameters
    ----------
    movie : Stack or path-like
        One that is kept as counts.
    path : path-like
        The file to write.
    overwrite : bool
        Replace an existing file.
    progress : callable, optional
        Called with (frames done, frames).

    Returns
    -------
    str
        Its SHA-256, which is that of the original; empty if the bytes would be others (nothing
        is written then).

    Raises
    ------
    MrczError
        If the raw values are not in it, or the checksum of a frame does not match.
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
        with in_order(
            lambda make: known.stored(make()),
            makers,
            processors(),
            "napari-mrcz-restore",
            nbytes=nbytes,
        ) as frames:
            for done, data in enumerate(frames, 1):
                put(data)
                if progress is not None:
                    progress(done, n)
        put(known.tail)
        if sha256.hexdigest() != known.sha256:
            return ""
        file.commit()
    return known.sha256


class _Restoring:
    """Puts the raw values of replaced pixels back, and compares each frame with its checksum."""

    def __init__(
        self, path: Path, known: Map, values: Array | None = None, replacement: Any = None
    ) -> None:
        self._path = path
        self._digests = np.frombuffer(known["xxh3"], "<u8")
        self._values = values
        if values is not None:
            self._pixels = replacement.pixels
            self._kept = replacement.weights >= MOSTLY_KEPT

    @classmethod
    def of(cls, reader: FrameReader, step: Map, values: Array, known: Map) -> _Restoring:
        """Take the pixels from the outlier filter in the history."""
        from napari_mrcz.correction.outliers.fill import Replacement

        try:
            replacement = Replacement.from_description(step["replacement"])
        except (KeyError, TypeError, ValueError) as error:
            found = f"the outlier filter in its history cannot be read ({error!r})"
            raise MrczError(reader.path, found) from error
        if values.shape != (len(replacement.pixels), reader.shape[0]):
            raise MrczError(
                reader.path,
                f"raw values of {values.shape[1]} frames, where the file has {reader.shape[0]}",
                advice="Restore it from a copy that has all its frames",
            )
        return cls(reader.path, known, values, replacement)

    def __call__(self, frame: Array, index: int) -> Array:
        """Return the raw frame."""
        raw = frame
        if self._values is not None:
            raw = np.array(frame, order="C")
            flat = raw.reshape(-1).view(self._values.dtype)
            values = self._values[:, index]
            flat[self._pixels] = values + np.where(self._kept, flat[self._pixels], 0)
        if digest(raw) != self._digests[index]:
            found = "is not the original: its checksum does not match"
            raise MrczError(self._path, found, frame=index, advice="The file was damaged")
        return raw

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Return the same type."""
        return np.dtype(dtype)

    def describe(self) -> Map:
        """Return its name; it is in no history."""
        return {"name": "Restored"}


def _kept_in(movie: Stack | str | os.PathLike[str]) -> tuple[FrameReader, Map]:
    """Return the file of a movie that is kept as counts, and what it says of the original."""
    if isinstance(movie, Stack):
        source, path = kept_reader(movie), movie.path
    else:
        source, path = FrameReader(movie), os.fspath(movie)
        source.close()  # reading opens it again
    if source is None or not is_kept(source.footer.other):
        found = "is not kept as counts, so that nothing can be restored"
        raise MrczError(path, found, advice='Such files are written with keep = "counts"')
    known = source.footer.other.get(ORIGINAL)
    if not isinstance(known, Mapping) or not isinstance(known.get("xxh3"), bytes):
        raise MrczError(path, "the raw values of its pixels are not in it")
    n = len(known["xxh3"]) // 8
    if n != source.shape[0]:
        found = f"{source.shape[0]} frames, where the original had {n}"
        raise MrczError(path, found, advice="Restore it from a copy that has all its frames")
    return source, known


def _is_step(step: Any) -> bool:
    return isinstance(step, Mapping) and isinstance(step.get("name"), str)


def _corrections(path: Path, other: Map) -> Iterator[Rebuilt]:
    """Yield the corrections that wait, in order, each with its description with all arrays."""
    gain = None
    for step in waiting(path, other):
        files = [v for key, v in step.items() if key in REFERENCES and isinstance(v, Mapping)]
        stamps = tuple(_stamp(path, place) for place in files)
        if step.get("name") == GAIN and files:
            # The same for all movies of a session.
            found = _rebuilt_once(path.parent, msgpack.packb(to_plain(step)), stamps)
            gain = found[1]
        else:
            found = _rebuilt(path, step, gain)
        yield found


@lru_cache(maxsize=1)
def _rebuilt_once(folder: Path, step: bytes, stamps: tuple[Any, ...]) -> Rebuilt:
    content = msgpack.unpackb(step, strict_map_key=False, object_hook=from_tagged)
    return _rebuilt(folder / "movie", content, None)


def _rebuilt(path: Path, step: Map, gain: Map | None) -> Rebuilt:
    from napari_mrcz.correction.history import rebuild

    resolved: dict[str, Any] = {}
    for key, value in step.items():
        if key in REFERENCES and isinstance(value, Mapping):
            value = _read_reference(path, value)
        elif is_packed(value):
            value = unpacked(value, path, gain)
        resolved[key] = value
    try:
        return rebuild(resolved), resolved
    except (ValueError, LookupError) as error:
        found = f"the gain is not applied: {error}"
        raise MrczError(path, found, advice="counts=True opens the counts alone") from error


def _beside(movie: Path, place: Map) -> Path:
    """Return the path of a reference, which lies beside the movie.

    Raises
    ------
    MrczError
        If the footer names none.
    """
    # The name alone: the folder may have been moved, and a footer does not lead elsewhere.
    name = Path(str(place.get("path"))).name
    if not is_reference_name(name):
        raise MrczError(movie, f"its footer names no reference, but {name!r}")
    return movie.with_name(name)


def _stamp(movie: Path, place: Map) -> tuple[str, int, int]:
    """Return name, size and time of a reference.

    Raises
    ------
    MrczError
        If it is missing.
    """
    file = _beside(movie, place)
    try:
        status = os.stat(file)
    except OSError as error:
        found = f"its reference {file.name} is missing beside it, so that it cannot be normalised"
        advice = f"Put {file.name} into {movie.parent}, or open the counts alone with counts=True"
        raise MrczError(movie, found, advice=advice) from error
    return file.name, status.st_size, status.st_mtime_ns


def _read_reference(movie: Path, place: Map) -> Array:
    file = _beside(movie, place)
    image, why = image_of(file)
    if image is None or xxhash.xxh3_64_hexdigest(image.data) != str(place.get("xxh3")):
        altered = "is not the reference that the movies beside it were made with: it was altered"
        advice = "Restore it from a copy; counts=True opens the counts of the movies alone"
        raise MrczError(file, why or altered, advice=advice)
    return image


def image_of(file: Path) -> tuple[Array | None, str]:
    """Return the image of a reference, or None and why it cannot be read."""
    try:
        with FrameReader(file) as reader:
            if reader.shape[0] == 1:
                image = np.ascontiguousarray(reader.read_frame(0))
                image.flags.writeable = False
                return image, ""
    except NotEnoughMemory:
        raise
    except MrczError as error:
        return None, error.found
    return None, ""


def digest(frame: Array) -> int:
    """Return the xxh3-64 of a frame's little-endian pixels."""
    little = frame.dtype.newbyteorder("<")
    pixels = np.ascontiguousarray(frame.astype(little, copy=False))
    return xxhash.xxh3_64_intdigest(pixels.reshape(-1).view(np.uint8).data)
