"""Where the frames of a file lie: its bytes decide, where NSYMBT, MODE or NZ contradict them.

Headers are copied from other files, frames are appended or cut off, codecs forgotten. What the
footer's checksums, a chain of blosc chunks or the file's length show counts more than three numbers
in the header. What was decided is in the header that `place_frames` returns; a note says so where
nothing else is possible, a warning where it is doubtful or something is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from napari_mrcz.errors import MrczError, NotEnoughMemory, counted
from napari_mrcz.format import chunks
from napari_mrcz.format.chunks import CHUNK_HEADER_NBYTES, Chain, parse_chunk_header
from napari_mrcz.format.extended import json_nbytes, record_nbytes
from napari_mrcz.format.footer import EvenFrames, FrameIndex
from napari_mrcz.format.header import (
    CODEC_NAMES,
    HEADER_NBYTES,
    LARGEST_EXTENDED,
    Header,
    holds_volume,
    pixel_size_of,
)

if TYPE_CHECKING:
    from napari_mrcz.format.files import RandomAccessFile

Warn = Callable[[str], None]
# Two voxel sizes that differ by no more than this are the same.
_SAME_SIZE = 1e-5


@dataclass(frozen=True)
class Placement:
    """What was decided."""

    header: Header  # NSYMBT, codec and NZ are the true ones; NZ counts the frames that exist
    index: FrameIndex | EvenFrames  # Where each of them lies
    announced: int  # Frames that there should be; more than there are where the file is cut off


def place_frames(
    file: RandomAccessFile,
    header: Header,
    index: FrameIndex | None,
    end: int,
    warn: Warn,
    *,
    footer_lost: bool,
) -> Placement:
    """Decide where the frames lie.

    `header`: as it states NSYMBT, MODE and NZ; `index`: the footer's, if there is one; `end`: byte
    at which pixels must have ended: where the footer begins, else the file's length; `warn`: called
    with a sentence for each thing that is doubtful or missing; `footer_lost`: the file ends with a
    footer that cannot be read: what follows the frames is not a frame. Raise `MrczError` if
    there is no frame that could be read.
    """
    found = None if index is None else _by_footer(file, header, index, end, warn)
    if found is None:
        if header.codec:
            found = _compressed(file, header, end, warn)
        else:
            found = _plain(file, header, end, warn, footer_lost=footer_lost)
    if len(found.index) < found.announced:
        hint = ""
        rest = end - HEADER_NBYTES - header.nz * header.frame_nbytes
        if not found.header.codec and 0 < rest < found.header.nsymbt:
            hint = f", or its extended header is {rest} bytes long, not {header.nsymbt} (NSYMBT)"
        there = f"{len(found.index)} of the {found.announced} frames that the header announces"
        warn(f"{there} are there; the file is cut off or was never finished{hint}")
    if len(found.index) == header.nz:
        return found
    return replace(found, header=_counted_anew(file, header, found))


# By a footer -------------------------------------------------------------------------------------


def _by_footer(
    file: RandomAccessFile, header: Header, index: FrameIndex, end: int, warn: Warn
) -> Placement | None:
    """Decide between an index and a header that contradict each other: a checksum decides."""
    compressed = _holds_chunks(file, header, index, end)
    wrong = _contradiction(index, header, end, compressed)
    moved = index.xxh3 is not None and bool((index.offsets[:1] != header.data_offset).any())
    if not wrong and not moved and compressed == bool(header.codec):
        return Placement(header, index, len(index))
    if not _matches(index, end, file):
        why = wrong or "its frames begin elsewhere than NSYMBT says"
        if compressed != bool(header.codec):
            why = "it lists frames of another kind than MODE says"
        warn(f"the footer's frame index is ignored: {why}; what is read is not checked")
        return None
    if not compressed and (index.sizes != header.frame_nbytes).all():
        found = (
            f"frames of {header.nx} x {header.ny} in mode {header.mode} by the header, "
            f"{header.frame_nbytes} bytes each; of {index.sizes[0]} bytes by the footer, whose "
            "checksums are right"
        )
        advice = "The header was damaged after the file was written; restore it from a copy"
        raise MrczError(file.path, found, offset=0, advice=advice)
    if wrong:
        warn(f"{wrong}; the footer is right, as its checksums show")
    start = int(index.offsets[0])
    header = _of_kind(header, chunks.codec_at(file, start) if compressed else 0, warn)
    header = _moved(header, start - HEADER_NBYTES, "the footer's checksums show")
    # What is outside is given no bytes, which do not match the checksum.
    inside = (index.offsets <= end) & (index.sizes <= end) & (index.offsets + index.sizes <= end)
    offsets, sizes = np.where(inside, index.offsets, 0), np.where(inside, index.sizes, 0)
    index = replace(index, offsets=offsets, sizes=sizes)
    return Placement(header, index, len(index))


def _holds_chunks(file: RandomAccessFile, header: Header, index: FrameIndex, end: int) -> bool:
    """Decide whether the frames of an index are blosc chunks, from as few bytes as will do."""
    if not len(index):
        return bool(header.codec)
    even = bool((index.sizes == header.frame_nbytes).all())
    if even != bool(header.codec):
        return not even  # as MODE says
    offset, nbytes = int(index.offsets[0]), int(index.sizes[0])
    raw = file.read(offset, CHUNK_HEADER_NBYTES) if offset <= end else b""
    if len(raw) < CHUNK_HEADER_NBYTES:
        return bool(header.codec)
    chunk = parse_chunk_header(raw)
    # Of a chunk of another size than MODE and NX NY ask for, its own check will tell.
    right = bool(header.codec) or chunk.nbytes == header.frame_nbytes
    return right and chunk.version in (2, 5) and chunk.ctbytes == nbytes


def _matches(index: FrameIndex, end: int, file: RandomAccessFile) -> bool:
    """Return whether the first or the last frame is where an index says, and has its checksum."""
    if index.xxh3 is None or (index.offsets[:-1] >= index.offsets[1:]).any():
        return False
    for frame in (0, -1)[: len(index)]:
        offset, nbytes = int(index.offsets[frame]), int(index.sizes[frame])
        if offset + nbytes > end:
            continue
        if xxhash.xxh3_64_intdigest(file.read(offset, nbytes)) == int(index.xxh3[frame]):
            return int(index.offsets[0]) >= HEADER_NBYTES
    return False


def _contradiction(index: FrameIndex, header: Header, end: int, compressed: bool) -> str:
    """Return why an index cannot be this file's, or nothing."""
    if len(index) != header.nz:
        return f"it lists {len(index)} frames, the header {header.nz}"
    offsets, sizes = index.offsets, index.sizes
    # Checksums say more of where the frames are than the length of the extended header.
    start = header.data_offset if index.xxh3 is None else HEADER_NBYTES
    if (offsets < max(0, start)).any() or (offsets > end).any() or (sizes > end).any():
        return "frames lie outside the file"
    ends = offsets + sizes
    if (ends > end).any() or (ends[:-1] > offsets[1:]).any():
        return "frames overlap or lie outside the pixel data"
    smallest = CHUNK_HEADER_NBYTES if compressed else header.frame_nbytes
    if (sizes < smallest).any() or (not compressed and (sizes != smallest).any()):
        return "frames are of impossible size"
    return ""


# By a chain of chunks ----------------------------------------------------------------------------


def _compressed(file: RandomAccessFile, header: Header, end: int, warn: Warn) -> Placement:
    """Place the frames of a file whose MODE says that they are compressed."""
    try:
        chain = _stated_chain(file, header, end)
        if len(chain.offsets) < header.nz and header.nsymbt > 0:
            # NSYMBT may lead to a later chunk than the first.
            earlier = chunks.find_chain(file, header, end)
            if earlier is not None and len(earlier.offsets) == header.nz:
                chain = earlier
        return _of_chain(header, chain, end, warn)
    except NotEnoughMemory:
        raise
    except MrczError as refusal:
        first = not refusal.frame
        if first and (later := chunks.find_chain(file, header, end)) is not None:
            return _of_chain(header, later, end, warn)
        for nsymbt in {header.nsymbt, 0}:
            if nsymbt >= 0 and header.nz > 0 and _fits(header, nsymbt, end):
                plain = _moved(_of_kind(header, 0, warn), nsymbt, "the file's length shows")
                index = EvenFrames(plain.data_offset, header.frame_nbytes, header.nz)
                return Placement(plain, index, header.nz)
        raise


def _stated_chain(file: RandomAccessFile, header: Header, end: int) -> Chain:
    _check_nsymbt(file, header)
    chain = chunks.walk(file, header, header.data_offset, end)
    if not chain.offsets:
        found = f"no frames: {max(0, end - header.data_offset)} bytes follow the header"
        advice = "It was never finished; the C library writes such files if frames do not compress"
        raise MrczError(file.path, found, offset=header.data_offset, advice=advice)
    return chain


def _of_chain(header: Header, chain: Chain, end: int, warn: Warn) -> Placement:
    count = len(chain.offsets)
    header = _moved(header, chain.start - HEADER_NBYTES, "the chunks show")
    if count > header.nz:
        follow = f"{counted(count, 'frame')} follow one another"
        warn(f"{follow}, where the header speaks of {header.nz} (NZ); all are read")
    if count >= header.nz and chain.stop < end:
        lost = "no footer that can be read; metadata or frames are lost"
        what = "of a frame that was cut off" if chain.cut else lost
        warn(f"{end - chain.stop} bytes after the last frame are {what}")
    index = FrameIndex(np.array(chain.offsets, np.uint64), np.array(chain.sizes, np.uint64))
    return Placement(header, index, max(count, header.nz))


# By the file's length ----------------------------------------------------------------------------


def _plain(
    file: RandomAccessFile, header: Header, end: int, warn: Warn, *, footer_lost: bool
) -> Placement:
    """Place the frames of a file whose MODE says that they are plain pixels."""
    sound = 0 <= header.nsymbt <= end - HEADER_NBYTES
    if sound and header.nz > 0 and _fits(header, header.nsymbt, end):
        index = EvenFrames(header.data_offset, header.frame_nbytes, header.nz)
        return Placement(header, index, header.nz)
    if (chain := _hidden_chain(file, header, end)) is not None:
        header = _of_kind(header, chunks.codec_at(file, chain.start), warn)
        return _of_chain(header, chain, end, warn)
    header = _moved(header, _true_nsymbt(file, header, end), "the file's length shows")
    named = bool(header.exttyp.strip("\0 "))
    if not sound and not named and header.nsymbt >= header.frame_nbytes:
        before = f"the {header.nsymbt} bytes before the last {header.nz} frames (NZ)"
        warn(f"{before} are taken for an extended header, and may be frames")
    _check_nsymbt(file, header)
    count, rest = divmod(max(0, end - header.data_offset), header.frame_nbytes)
    if count < 1:
        needed = f"one frame of {header.nx} x {header.ny} takes {header.frame_nbytes}"
        found = f"no whole frame: {end - header.data_offset} bytes of pixels, where {needed}"
        advice = "The file is truncated, or its header is damaged"
        raise MrczError(file.path, found, offset=header.data_offset, advice=advice)
    surplus = end - header.data_offset - max(1, header.nz) * header.frame_nbytes
    if surplus > 0 and header.nz > 0 and (footer_lost or _is_footer(file, end - surplus)):
        # Of a footer that was cut off, nothing can be read; of one that is damaged, it was said.
        count, rest = header.nz, 0 if footer_lost else surplus
    elif count > header.nz and (header.nz < 1 or not rest):
        fill = f"{counted(count, 'frame')} fill the file"
        warn(f"{fill}, where the header speaks of {header.nz} (NZ); all are read")
    elif count >= header.nz:
        count, rest = header.nz, surplus
    if count >= header.nz and rest:
        why = "another program's, or the extended header is longer than NSYMBT says"
        warn(f"{rest} bytes after the last frame are not read: {why}")
    index = EvenFrames(header.data_offset, header.frame_nbytes, count)
    return Placement(header, index, max(count, header.nz))


def _hidden_chain(file: RandomAccessFile, header: Header, end: int) -> Chain | None:
    """Return the blosc chunks of a file that claims to have none, if it consists of them.

    Pixels may look like one chunk by chance, but not like one after the other up to the end of the
    file, of which the first or the last can be decompressed.
    """
    chains: list[Chain] = []
    for start in dict.fromkeys((header.data_offset, HEADER_NBYTES)):
        if not HEADER_NBYTES <= start <= end or not chunks.is_chunk(file, header, start, end):
            continue
        try:
            chain = chunks.walk(file, header, start, end)
        except MrczError:
            continue
        whole = chain.stop == end or (len(chain.offsets) > 1 and chain.cut)
        if whole and any(chunks.decodes(file, header, chain, at) for at in (0, -1)):
            chains.append(chain)
    if chains:  # NSYMBT may lead to a later chunk than the first
        return max(chains, key=lambda chain: len(chain.offsets) == header.nz)
    if file.read(HEADER_NBYTES, 1) == b"{":  # JSON, as all that compress have it
        later = chunks.find_chain(file, header, end)
        if later is not None and later.stop == end and chunks.decodes(file, header, later, 0):
            return later
    return None


def _true_nsymbt(file: RandomAccessFile, header: Header, end: int) -> int:
    """Return the extended header's length, where the file's shows that NSYMBT is not it."""
    stated, nz = header.nsymbt, header.nz
    if nz < 1:
        return stated
    rest = end - HEADER_NBYTES - nz * header.frame_nbytes
    if rest < 0:
        return stated
    if not 0 <= stated <= end - HEADER_NBYTES:
        return rest if rest <= LARGEST_EXTENDED else stated
    known, least = _known_nbytes(file, header, end)
    if rest == 0:
        # A file that lost as many bytes as it has extended header would be as long.
        return 0 if known is None else stated
    if known == rest:
        return rest
    # A kind, and not the room for it: the bytes that are too many are all that it can be.
    named = bool(header.exttyp.strip("\0 ")) and rest % header.frame_nbytes > 0
    short = stated < max(1, least) <= rest <= LARGEST_EXTENDED
    return rest if named and short else stated


def _known_nbytes(file: RandomAccessFile, header: Header, end: int) -> tuple[int | None, int]:
    """Return the length that the extended header itself shows, if it shows one, and the least."""
    kind = header.exttyp.strip("\0 ")
    if kind == "json":
        head = file.read(HEADER_NBYTES, min(LARGEST_EXTENDED, end - HEADER_NBYTES))
        return json_nbytes(head), 0
    layout = (header.extra.get("nint", 0), header.extra.get("nreal", 0))
    head = file.read(HEADER_NBYTES, 4)
    nbytes = record_nbytes(kind, layout, head, header.byte_order) * header.nz
    return nbytes if nbytes and kind in ("FEI1", "FEI2") else None, nbytes


# What all of them need ---------------------------------------------------------------------------


def _counted_anew(file: RandomAccessFile, stated: Header, found: Placement) -> Header:
    """Return the header with the number of frames that there are, and what follows from it."""
    header, count = found.header, len(found.index)
    codec = stated.codec and header.codec
    of_stated, of_true = (
        pixel_size_of(stated.cell, stated.sampling, (stated.nx, stated.ny, n), codec)
        for n in (stated.nz, count)
    )
    size = of_true
    # Of a file that was cut off, the cell is that of the frames which there were to be; but NZ
    # may be wrong as well.
    if count < found.announced and (_is_isotropic(of_stated) or not _is_isotropic(of_true)):
        size = of_stated
    shape, depth = (count, header.ny, header.nx), 0 if codec else header.sampling[2]
    volume = holds_volume(header.ispg, depth, shape, file.path, header.labels)
    return replace(header, nz=count, pixel_size=size, is_volume=header.is_volume or volume)


def _is_isotropic(size: tuple[float, float, float]) -> bool:
    return size[2] > 0 and abs(size[0] - size[2]) <= _SAME_SIZE * size[2]


def _moved(header: Header, nsymbt: int, why: str) -> Header:
    """Return the header with another length of the extended one, and a note if it is another."""
    if nsymbt == header.nsymbt:
        return header
    length = f"{nsymbt} bytes long, as {why}, not {header.nsymbt} as NSYMBT says"
    note = f"the extended header is {length}"
    if not nsymbt:
        note = f"there is no extended header of {header.nsymbt} bytes (NSYMBT), as {why}"
    return replace(header, nsymbt=nsymbt, notes=(*header.notes, note))


def _of_kind(header: Header, codec: int, warn: Warn) -> Header:
    """Return the header with another codec, and warn where MODE is wrong about it."""
    if bool(codec) == bool(header.codec):
        return header
    stated = header.mode + 1000 * header.codec
    what = "plain pixels" if not codec else f"blosc chunks ({CODEC_NAMES[codec]})"
    warn(f"the frames are {what}, where MODE {stated} says otherwise; they are read as they are")
    # Programs that write a wrong MODE write MZ as in plain files, or 0, which is the same in both.
    sizes = (header.nx, header.ny, header.nz)
    size = pixel_size_of(header.cell, header.sampling, sizes, 0)
    return replace(header, codec=codec, pixel_size=size)


def _is_footer(file: RandomAccessFile, offset: int) -> bool:
    """Return whether a footer of this program begins here, of which the end may be missing."""
    head = file.read(offset, CHUNK_HEADER_NBYTES)
    if len(head) < CHUNK_HEADER_NBYTES:
        return False
    chunk = parse_chunk_header(head)
    packed = chunk.version == 2 and chunk.typesize == 8 and chunk.blocksize == chunk.nbytes
    # A msgpack map whose first key is a short name, or a JSON one.
    name = head[2 : 2 + (head[1] & 0x1F)]
    plain = head[0] & 0xF0 == 0x80 and head[1] & 0xE0 == 0xA0 and name.isalnum()
    return packed or plain or head.startswith(b'{"')


def _fits(header: Header, nsymbt: int, end: int) -> bool:
    """Return whether so long an extended header and NZ plain frames are exactly the file."""
    return HEADER_NBYTES + nsymbt + header.nz * header.frame_nbytes == end


def _check_nsymbt(file: RandomAccessFile, header: Header) -> None:
    if 0 <= header.nsymbt <= file.nbytes - HEADER_NBYTES:
        return
    found = f"an extended header of {header.nsymbt} bytes (NSYMBT) in a file of {file.nbytes} bytes"
    advice = "The file is damaged or not an MRC file"
    raise MrczError(file.path, found, offset=92, advice=advice)
