"""The metadata footer: a msgpack or JSON map after the last frame, found by its 32-byte trailer.

The preprint (McLeod et al., doi:10.1101/116533, section 3) puts metadata after the data, so that
software which takes for granted that pixels begin at byte 1024 keeps working.

msgpack has no arrays, complex numbers or 128-bit integers; these travel as tagged maps and come
back as they were. JSON, which peers read, gets what it can show and leaves out the rest.
What a file holds is counted before it is decoded: a map takes one byte in msgpack and two in JSON,
but some hundred in memory; and what is nested deeply can neither be copied nor pickled.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import numpy.typing as npt
import xxhash
from numcodecs import blosc

from napari_mrcz.format.chunks import decoded, parse_chunk_header
from napari_mrcz.format.header import HEADER_NBYTES
from napari_mrcz.naming import decoded_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_mrcz.format.files import RandomAccessFile

_MAGIC = b"MRCZFOOT"
_TRAILER = struct.Struct("<8s4H2Q")
TRAILER_NBYTES = _TRAILER.size
_VERSION = 1
_MSGPACK = 1  # Encoding of the payload; 0 for JSON, which is read, too
_UNPACKED, _BLOSC = 0, 1

# The largest footer that is read: a gain reference of 64 megapixels in float32, and room to spare.
_LARGEST_FOOTER = 2**30
# A payload that unpacks to more than both of these is refused: it was made to fill the memory.
_FREE_NBYTES = 2**20
_LARGEST_EXPANSION = 32


class FooterError(ValueError):
    """A footer that is there but cannot be understood; the pixels do not depend on it."""


@dataclass(frozen=True)
class FrameIndex:
    """Where each frame lies in the file, and the checksum of its stored bytes."""

    offsets: npt.NDArray[np.uint64]  # Bytes from the file's start; bytes taken
    sizes: npt.NDArray[np.uint64]
    xxh3: npt.NDArray[np.uint64] | None = None  # xxh3-64 of each frame's bytes as stored

    @classmethod
    def of(cls, frames: Sequence[tuple[int, int, int]]) -> FrameIndex:
        """Return the index of frames, of each its offset, size and checksum."""
        return cls(*np.array(frames, np.uint64).reshape(-1, 3).T)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.offsets)


@dataclass(frozen=True)
class EvenFrames:
    """Frames one after the other, as `FrameIndex` has them, but without listing them.

    Where frames are small and a file is long, there may be a thousand million of them.
    """

    start: int
    nbytes: int
    count: int
    xxh3: None = None

    def __len__(self) -> int:
        """Return the number of frames."""
        return self.count

    @property
    def offsets(self) -> range:
        """Bytes from the file's start."""
        return range(self.start, self.start + self.count * self.nbytes, self.nbytes)

    @property
    def sizes(self) -> npt.NDArray[np.uint64]:
        """Bytes taken."""
        return np.broadcast_to(np.uint64(self.nbytes), self.count)


@dataclass(frozen=True)
class Footer:
    """The content of a footer."""

    writer: str = ""  # Program and version
    frames: FrameIndex | None = None  # Index and checksums
    # The array's dtype as the caller gave it, where the mode holds it in a wider one.
    dtype: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)  # The user's own map
    history: tuple[Mapping[str, Any], ...] = ()  # One map a correction applied
    # Keys of later versions and of other programs, and `gain`; kept and written back. ``source`` is
    # of this file alone: name, size and time of the file that it was made of, and how. ``header``
    # and ``extended`` are those of the plain file that it was made of, where this one has others.
    other: Mapping[str, Any] = field(default_factory=dict)


def pack_footer(footer: Footer) -> bytes:
    """Return payload (msgpack, compressed where that makes it smaller) and trailer of a footer."""
    content: dict[str, Any] = {"writer": footer.writer}
    if (frames := footer.frames) is not None:
        columns = {"offsets": frames.offsets, "sizes": frames.sizes, "xxh3": frames.xxh3}
        content["frames"] = {
            name: a.astype("<u8").tobytes() for name, a in columns.items() if a is not None
        }
    known = {"dtype": footer.dtype, "metadata": footer.metadata, "history": list(footer.history)}
    content = {**footer.other, **content, **{name: value for name, value in known.items() if value}}
    payload, packing = bytes(msgpack.packb(to_plain(content))), _UNPACKED
    if len(payload) <= blosc.MAX_BUFFERSIZE:
        # As one block: blosc's threads would write several in the order in which they are done,
        # and the same content would be other bytes each time.
        block = len(payload)
        smaller = blosc.compress(payload, b"zstd", 5, blosc.SHUFFLE, block, typesize=8)
        if len(smaller) < len(payload) and _believable(payload, len(smaller)):
            payload, packing = bytes(smaller), _BLOSC
    checksum = xxhash.xxh3_64_intdigest(payload)
    return payload + _TRAILER.pack(_MAGIC, _VERSION, _MSGPACK, packing, 0, len(payload), checksum)


def read_footer(file: RandomAccessFile, warn: Callable[[str], None]) -> tuple[Footer, int, bool]:
    """Return the footer, the byte at which the pixels must have ended, whether it is damaged.

    The footer is empty if the file has none. `warn`: called with a sentence if it is damaged.
    """
    footer, end = Footer(), file.nbytes
    trailer = file.read(max(0, end - TRAILER_NBYTES), TRAILER_NBYTES)
    if end < HEADER_NBYTES + TRAILER_NBYTES or not trailer.startswith(_MAGIC):
        return footer, end, False
    try:
        _, version, encoding, packing, _, nbytes, _ = _TRAILER.unpack(trailer)
        if version != _VERSION or encoding > _MSGPACK or packing > _BLOSC:
            found = f"footer of version {version}, encoding {encoding}, packing {packing}"
            raise FooterError(f"{found}, which this version does not know")
        start = end - TRAILER_NBYTES - nbytes
        if start < HEADER_NBYTES or nbytes > _LARGEST_FOOTER:
            raise FooterError(f"it claims {nbytes} bytes")
        return unpack_footer(file.read(start, nbytes), trailer), start, False
    except FooterError as error:
        warn(f"the metadata footer is ignored: {error}; the pixels are not affected")
        return footer, end, True


def unpack_footer(payload: bytes, trailer: bytes) -> Footer:
    """Decode a footer.

    `payload`: the bytes before the trailer; `trailer`: the file's last 32 bytes. Raise
    `FooterError` if the payload is damaged, or was made to do damage.
    """
    _, _, encoding, packing, _, _, checksum = _TRAILER.unpack(trailer)
    if xxhash.xxh3_64_intdigest(payload) != checksum:
        raise FooterError("its checksum does not match its content")
    most = most_values(len(payload))
    if packing == _BLOSC:
        payload = _expand(payload)
    try:
        if encoding == _MSGPACK:
            check_msgpack(payload, most)
            content = msgpack.unpackb(payload, strict_map_key=False, object_hook=from_tagged)
        else:
            check_json(payload, most)
            content = json.loads(payload, object_hook=from_tagged)
        check_content(content, most)
    # msgpack's own errors are ValueErrors, but for two that are plain Exceptions.
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise FooterError(f"it cannot be decoded ({error})") from error
    if not isinstance(content, dict):
        raise FooterError("it is not a map")
    metadata, dtype = content.pop("metadata", {}), content.pop("dtype", None)
    history = content.pop("history", ())
    steps = history if isinstance(history, list) else ()
    return Footer(
        writer=str(content.pop("writer", "")),
        frames=_frame_index(content.pop("frames", None)),
        dtype=dtype if isinstance(dtype, str) else None,
        metadata=metadata if isinstance(metadata, dict) else {"metadata": metadata},
        history=tuple(step for step in steps if isinstance(step, dict)),
        other=content,
    )


def _believable(payload: bytes, stored_nbytes: int) -> bool:
    """Return whether `unpack_footer` will take this payload when it is packed."""
    try:
        check_msgpack(payload, most_values(stored_nbytes))
    except ValueError:
        return False
    return len(payload) <= _largest_expansion(stored_nbytes)


def _largest_expansion(stored_nbytes: int) -> int:
    return max(_FREE_NBYTES, _LARGEST_EXPANSION * stored_nbytes)


def _expand(payload: bytes) -> bytes:
    if len(payload) < blosc.MAX_OVERHEAD or payload[0] != 2:
        raise FooterError("its packed payload is not a blosc chunk")
    unpacked, ctbytes = struct.unpack_from("<I4xI", payload, 4)
    if ctbytes != len(payload) or unpacked > _largest_expansion(ctbytes):
        raise FooterError(f"it would unpack from {ctbytes} to {unpacked} bytes")
    if unpacked == 0:
        return b""
    target = bytearray(unpacked)
    if not decoded(lambda: blosc.decompress(payload, target), parse_chunk_header(payload)):
        raise FooterError("its packed payload cannot be decompressed")
    return bytes(target)


def _frame_index(frames: Any) -> FrameIndex | None:
    """Return the index that the payload holds; None if it holds none, or what cannot be one."""

    def column(name: str) -> npt.NDArray[np.uint64] | None:
        values = frames.get(name)
        if isinstance(values, bytes) and len(values) % 8 == 0:
            return np.frombuffer(values, "<u8").astype(np.uint64)
        if isinstance(values, list):
            with contextlib.suppress(ValueError, TypeError, OverflowError):
                return np.array(values, np.uint64)
        return None

    if not isinstance(frames, dict):
        return None
    offsets, sizes, xxh3 = column("offsets"), column("sizes"), column("xxh3")
    if offsets is None or sizes is None or offsets.ndim != 1 or offsets.shape != sizes.shape:
        return None
    if xxh3 is not None and xxh3.shape != offsets.shape:
        return None
    return FrameIndex(offsets, sizes, xxh3)


_ARRAY, _COMPLEX = "__ndarray__", "__complex__"
# dtype.str of numbers, booleans and text, the arrays that are kept as arrays.
_ARRAY_DTYPE = re.compile(r"[<>|][biufcSU]\d{1,9}")
_LONGEST_LIST = 2**12


def to_plain(value: Any, depth: int = 0) -> Any:
    """Turn metadata into what msgpack holds: maps, lists, text, bytes, numbers, None.

    Arrays and complex numbers become tagged maps, which `from_tagged` undoes; tuples become
    lists; objects that are none of these become their text.

    Raise `ValueError` if the nesting is deeper than 250, as it is where something contains itself.
    """
    if depth > DEEPEST:
        raise ValueError(f"metadata nested deeper than {DEEPEST}")
    if value is None or isinstance(value, bool | float | bytes):
        return value
    if isinstance(value, str | int):
        return _storable(value)
    if isinstance(value, Mapping):
        return {_key(k): to_plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(v, depth + 1) for v in value]
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject or value.dtype.names or value.dtype.kind in "mMV":
            return to_plain(value.tolist(), depth + 1)
        return {_ARRAY: value.dtype.str, "shape": list(value.shape), "data": value.tobytes()}
    if isinstance(value, np.generic):
        item = value.item()  # extended precision gives itself back
        return str(value) if isinstance(item, np.generic) else to_plain(item, depth + 1)
    if isinstance(value, complex):
        return {_COMPLEX: [value.real, value.imag]}
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Enum):
        return to_plain(value.value, depth + 1)
    if isinstance(value, PathLike):
        return to_plain(fspath(value), depth + 1)
    return _storable(value.isoformat() if isinstance(value, date) else str(value))


def from_tagged(value: dict[Any, Any]) -> Any:
    """Undo `to_plain`'s tag of one map; a map without one, or with a wrong one, stays a map."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if len(value) == 3 and value.keys() == {_ARRAY, "shape", "data"}:
            dtype = value[_ARRAY]
            if isinstance(dtype, str) and _ARRAY_DTYPE.fullmatch(dtype):
                return np.frombuffer(value["data"], dtype).reshape(value["shape"])
        if len(value) == 1 and _COMPLEX in value:
            return complex(*value[_COMPLEX])
    return value


def value_at(tree: Any, *names: str) -> Any:
    """Return a value within maps within maps; None where there is none."""
    for name in names:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def to_json_safe(value: Any) -> Any:
    """Turn metadata into what every JSON reader takes.

    Arrays become lists, complex numbers pairs; numbers that are not finite become None. Bytes,
    which JSON cannot hold, and arrays of more than 4096 elements, which would be unreadable in it,
    are left out of maps and become None in lists.
    """
    return _json_safe(to_plain(value))


def _json_safe(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return None
    if isinstance(value, list):
        return [None if _left_out(v) else _json_safe(v) for v in value]
    if isinstance(value, dict):
        if set(value) == {_COMPLEX}:
            return _json_safe(value[_COMPLEX])
        if isinstance(array := from_tagged(value), np.ndarray):
            return _json_safe(to_plain(array.tolist()))
        return {str(k): _json_safe(v) for k, v in value.items() if not _left_out(v)}
    return value


def _left_out(value: Any) -> bool:
    if isinstance(value, dict):
        array = from_tagged(value)
        return isinstance(array, np.ndarray) and array.size > _LONGEST_LIST
    return isinstance(value, bytes)


def _key(key: Any) -> Any:
    if isinstance(key, np.generic):
        key = key.item()
    return _storable(key if isinstance(key, int) else str(key))


def _storable(value: int | str) -> int | str:
    """Return what msgpack and UTF-8 can hold: large integers as text, half characters as "?"."""
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    return value.encode("utf-8", "replace").decode("utf-8")


def decode_json(raw: bytes) -> dict[str, Any]:
    """Decode an extended header of kind "json".

    Raise `ValueError` if it is not JSON, not a map, or more than any program writes.
    """
    most = most_values(len(raw))
    check_json(raw, most)
    try:
        content = json.loads(decoded_text(raw).strip("\0 \n\r\t") or "{}")
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"the JSON is a {type(content).__name__}, where a map is expected")
    check_content(content, most)
    return content


# Far above any metadata written by hand or program, far below Python's recursion limit.
DEEPEST = 250
LARGEST_JSON = 2**25
# Numbers, texts, arrays (one each), lists and maps that any file may hold (decoded, they take 50 MB
# at most), and the bytes on disk that each further one must have taken: 25 MB of text is real.
_FREE_VALUES = 2**18
_NBYTES_A_VALUE = 4

# Of each first byte from 0xc4 on, the bytes that follow it: of fixed number, or as many as the
# integer of this many bytes says, and some.
_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FIXED |= {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
_FIXED |= {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}  # lists, maps: what they hold follows
_COUNTED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)}
_COUNTED |= {0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)}
_EXTENSIONS = {0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8}
_VALUES_AN_EXTENSION = 4  # timestamps and the like become objects of some size


def most_values(stored_nbytes: int) -> int:
    """Return how many values are believed of metadata that take so many bytes on disk."""
    return max(_FREE_VALUES, stored_nbytes // _NBYTES_A_VALUE)


def check_msgpack(payload: bytes, most: int) -> None:
    """Raise `ValueError` if msgpack holds more than `most` values."""
    position = count = 0
    end = len(payload)
    while position < end:
        first = payload[position]
        count += _VALUES_AN_EXTENSION if first in _EXTENSIONS else 1
        if count > most:
            raise ValueError(f"more than {most} values")
        position += 1
        if 0xA0 <= first < 0xC0:
            position += first & 0x1F
        elif first in _FIXED:
            position += _FIXED[first]
        elif first in _COUNTED:
            width, more = _COUNTED[first]
            position += width + more + int.from_bytes(payload[position : position + width], "big")


def check_json(text: bytes, most: int) -> None:
    """Raise `ValueError` if JSON is longer than any metadata, or holds more than `most` values."""
    if len(text) > LARGEST_JSON:
        raise ValueError(f"{len(text)} bytes of JSON are more than any program writes")
    if sum(map(text.count, (b",", b":", b"[", b"{"))) > most:
        raise ValueError(f"more than {most} values")


def check_content(content: Any, most: int) -> None:
    """Raise `ValueError` if content is nested too deeply to be copied, or has too many values."""
    level, count = [content], 0
    for _ in range(DEEPEST):
        level = [inner for value in level for inner in _contents(value)]
        count += len(level)
        if count > most:
            raise ValueError(f"more than {most} values")
        if not level:
            return
    raise ValueError(f"nested deeper than {DEEPEST}")


def _contents(value: Any) -> Any:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else ()
