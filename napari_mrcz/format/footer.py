"""The metadata footer: a msgpack or JSON map after the last frame, found by its 32-byte trailer.

The preprint (McLeod et al., doi:10.1101/116533, section 3) puts metadata after the data, so that
software which takes for granted that pixels begin at byte 1024 keeps working.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgpack
import numpy as np
import numpy.typing as npt
import xxhash
from numcodecs import blosc

from napari_mrcz.format.chunks import decoded, parse_chunk_header
from napari_mrcz.format.metadata import (
    check_content,
    check_json,
    check_msgpack,
    from_tagged,
    most_values,
    to_json_safe,
    to_plain,
)

_MAGIC = b"MRCZFOOT"
_TRAILER = struct.Struct("<8s4H2Q")
TRAILER_NBYTES = _TRAILER.size
_VERSION = 1
_JSON, _MSGPACK = 0, 1
_AS_IT_IS, _BLOSC = 0, 1

# A payload that unpacks to more than both of these is refused: it was made to fill the memory.
_FREE_NBYTES = 2**20
_LARGEST_EXPANSION = 32

_UNDECODABLE = (ValueError, TypeError, RecursionError)

Encoding = Literal["msgpack", "json"]


class FooterError(ValueError):
    """A footer that is there but cannot be understood; the pixels do not depend on it."""


@dataclass(frozen=True)
class FrameIndex:
    """Where each frame lies in the file, and the checksum of its stored bytes."""

    offsets: npt.NDArray[np.uint64]  # Bytes from the file's start; bytes taken
    sizes: npt.NDArray[np.uint64]
    xxh3: npt.NDArray[np.uint64] | None = None  # xxh3-64 of each frame's bytes as stored

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
    """What a footer holds."""

    writer: str = ""  # Program and version
    frames: FrameIndex | None = None  # Index and checksums
    # The array's dtype as the caller gave it, where the mode holds it in a wider one.
    dtype: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)  # The user's own map
    history: tuple[Mapping[str, Any], ...] = ()  # One map a correction applied
    # Keys of later versions and of other programs, and `gain`; kept and written back. ``source`` is
    # of this file alone: name, size and time of the file that it was made of, and how. ``header``
    # and ``extended`` are what the plain file that it was made of had in places where this one has
    # something else.
    other: Mapping[str, Any] = field(default_factory=dict)


def pack_footer(footer: Footer, *, encoding: Encoding = "msgpack", packed: bool = True) -> bytes:
    """Encode a footer, payload and trailer.

    `encoding`: JSON holds neither arrays nor bytes: the frame index becomes lists, arrays become
    lists; `packed`: compress the payload with blosc where that makes it smaller.
    """
    content: dict[str, Any] = {"writer": footer.writer}
    if (frames := footer.frames) is not None:
        columns = {"offsets": frames.offsets, "sizes": frames.sizes}
        if frames.xxh3 is not None:
            columns["xxh3"] = frames.xxh3
        content["frames"] = {
            name: a.astype("<u8").tobytes() if encoding == "msgpack" else [int(v) for v in a]
            for name, a in columns.items()
        }
    if footer.dtype is not None:
        content["dtype"] = footer.dtype
    if footer.metadata:
        content["metadata"] = footer.metadata
    if footer.history:
        content["history"] = list(footer.history)
    content = {**footer.other, **content}
    if encoding == "msgpack":
        payload = bytes(msgpack.packb(to_plain(content), use_bin_type=True))
    else:
        payload = json.dumps(to_json_safe(content), ensure_ascii=False).encode("utf-8")
    packing = _AS_IT_IS
    if packed and len(payload) <= blosc.MAX_BUFFERSIZE:
        # As one block: blosc's threads would write several in the order in which they are done,
        # and the same content would be other bytes each time.
        block = len(payload)
        smaller = blosc.compress(payload, b"zstd", 5, blosc.SHUFFLE, block, typesize=8)
        if len(smaller) < len(payload) and _believable(payload, encoding, len(smaller)):
            payload, packing = bytes(smaller), _BLOSC
    code = _MSGPACK if encoding == "msgpack" else _JSON
    checksum = xxhash.xxh3_64_intdigest(payload)
    return payload + _TRAILER.pack(_MAGIC, _VERSION, code, packing, 0, len(payload), checksum)


def payload_nbytes(trailer: bytes) -> int | None:
    """Return the length of the payload before a trailer (the file's last 32 bytes), if it is one.

    Raise `FooterError` if it is a trailer of a version this program does not know.
    """
    if len(trailer) != TRAILER_NBYTES or not trailer.startswith(_MAGIC):
        return None
    _, version, encoding, packing, _, length, _ = _TRAILER.unpack(trailer)
    if version != _VERSION or encoding > _MSGPACK or packing > _BLOSC:
        raise FooterError(
            f"footer of version {version}, encoding {encoding}, packing {packing}, "
            "which this version does not know"
        )
    return int(length)


def unpack_footer(payload: bytes, trailer: bytes) -> Footer:
    """Decode a footer.

    `payload`: the bytes before the trailer, as many as `payload_nbytes` says; `trailer`: the file's
    last 32 bytes. Raise `FooterError` if the payload is damaged, or was made to do damage.
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
            content = msgpack.unpackb(
                payload, raw=False, strict_map_key=False, object_hook=from_tagged
            )
        else:
            check_json(payload, most)
            content = json.loads(payload, object_hook=from_tagged)
        check_content(content, most)
    # msgpack's own errors are ValueErrors, but for two that are plain Exceptions.
    except (*_UNDECODABLE, msgpack.exceptions.UnpackException) as error:
        raise FooterError(f"it cannot be decoded ({error})") from error
    if not isinstance(content, dict):
        raise FooterError("it is no map")
    frames = content.pop("frames", None)
    metadata = content.pop("metadata", {})
    history = content.pop("history", ())
    dtype = content.pop("dtype", None)
    return Footer(
        writer=str(content.pop("writer", "")),
        frames=None if frames is None else _frame_index(frames),
        dtype=dtype if isinstance(dtype, str) else None,
        metadata=metadata if isinstance(metadata, dict) else {"metadata": metadata},
        history=_maps(history),
        other=content,
    )


def _believable(payload: bytes, encoding: Encoding, stored_nbytes: int) -> bool:
    """Return whether `unpack_footer` will take this payload when it is packed."""
    check = check_msgpack if encoding == "msgpack" else check_json
    try:
        check(payload, most_values(stored_nbytes))
    except ValueError:
        return False
    return len(payload) <= _largest_expansion(stored_nbytes)


def _largest_expansion(stored_nbytes: int) -> int:
    return max(_FREE_NBYTES, _LARGEST_EXPANSION * stored_nbytes)


def _expand(payload: bytes) -> bytes:
    if len(payload) < blosc.MAX_OVERHEAD or payload[0] != 2:
        raise FooterError("its packed payload is no blosc chunk")
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
    """Make an index of what the payload holds, or None of what cannot be one."""

    def column(name: str) -> npt.NDArray[np.uint64] | None:
        values = frames.get(name)
        if isinstance(values, bytes) and len(values) % 8 == 0:
            return np.frombuffer(values, "<u8").astype(np.uint64)
        if isinstance(values, list):
            try:
                return np.array(values, np.uint64)
            except (ValueError, TypeError, OverflowError):
                return None
        return None

    if not isinstance(frames, dict):
        return None
    offsets, sizes, xxh3 = column("offsets"), column("sizes"), column("xxh3")
    if offsets is None or sizes is None or offsets.ndim != 1 or offsets.shape != sizes.shape:
        return None
    if xxh3 is not None and xxh3.shape != offsets.shape:
        return None
    return FrameIndex(offsets, sizes, xxh3)


def _maps(history: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(history, Sequence) or isinstance(history, str | bytes):
        return ()
    return tuple(step for step in history if isinstance(step, dict))
