"""Bad files end in MrczError, or in a warning with the pixels intact, soon and cheaply."""

import bz2
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import msgpack
import numpy as np
import pytest
import xxhash
from good_files import good_file, gzipped
from judge import judge
from numcodecs import blosc

import napari_mrcz as nm

HEADER_NBYTES = 1024
MOST_NBYTES = 100e6
LINUX = sys.platform == "linux"

ERROR, WARNING = "MrczError", "MrczWarning with the pixels intact"
RIGHT = "the pixels intact"


def patched(content, *changes):
    """Return the bytes with values put into them: (offset, struct format, values...)."""
    raw = bytearray(content)
    for offset, layout, *values in changes:
        struct.pack_into(layout, raw, offset % len(raw), *values)
    return bytes(raw)


# Footers made by hand ----------------------------------------------------------------------------


def without_footer(content):
    (length,) = struct.unpack_from("<Q", content, len(content) - 16)
    return content[: -32 - length]


def trailer(payload, *, version=1, encoding=1, packing=0, length=None, checksum=None):
    length = len(payload) if length is None else length
    checksum = xxhash.xxh3_64_intdigest(payload) if checksum is None else checksum
    return struct.pack("<8s4H2Q", b"MRCZFOOT", version, encoding, packing, 0, length, checksum)


def with_payload(content, payload, **options):
    return without_footer(content) + payload + trailer(payload, **options)


def with_footer(content, footer):
    return with_payload(content, msgpack.packb(footer))


def with_index(content, change):
    """Change the lists of a footer's frame index."""
    (length,) = struct.unpack_from("<Q", content, len(content) - 16)
    footer = msgpack.unpackb(content[-32 - length : -32])
    index = {k: np.frombuffer(v, "<u8").tolist() for k, v in footer["frames"].items()}
    index = change(index)
    footer["frames"] = (
        {k: np.array(v, "<u8").tobytes() if isinstance(v, list) else v for k, v in index.items()}
        if isinstance(index, dict)
        else index
    )
    return with_footer(content, footer)


def array32(n):
    return b"\xdd" + struct.pack(">I", n)


def map32(n):
    return b"\xdf" + struct.pack(">I", n)


def packed(payload):
    return bytes(blosc.compress(payload, b"zstd", 1, 0, 0))


def lying_chunk(nbytes):
    """Return a blosc chunk that claims `nbytes`."""
    return patched(packed(bytes(10_000)), (4, "<I", nbytes))


MEGABYTE = 2**20
FOOTERS = {
    "empty": b"",
    "no msgpack": b"\xc1\xc1\xc1",
    "cut off": msgpack.packb({"metadata": {"a": 1}})[:-1],
    "two values": msgpack.packb({}) * 2,
    "a list": msgpack.packb([1, 2]),
    "a number": msgpack.packb(7),
    "unhashable key": b"\x81\x90\xc0",
    "key that is a map": b"\x81\x80\xc0",
    "invalid UTF-8": b"\x81\xa1a\xa2\xff\xfe",
    "invalid UTF-8 key": b"\x81\xa2\xff\xfe\xc0",
    "array of 4e9": array32(2**32 - 1),
    "map of 4e9": map32(2**32 - 1),
    "text of 4e9": b"\xdb\xff\xff\xff\xff",
    "bytes of 4e9": b"\xc6\xff\xff\xff\xff",
    "extension of 4e9": b"\xc9\xff\xff\xff\xff\x01",
    "arrays of 1e6 in arrays": (array32(10**6) * 500).ljust(10**6, b"\xc0"),
    "maps of 1e6 in maps": ((map32(10**6) + b"\xa0") * 500).ljust(10**6, b"\xc0"),
    "nested 300 deep": b"\x91" * 300 + b"\xc0",
    "nested 600 deep": b"\x91" * 600 + b"\xc0",
    "nested 1e6 deep": b"\x91" * 10**6 + b"\xc0",
    "maps 1e6 deep": b"\x81\xa0" * 10**6 + b"\xc0",
    "4e6 nothings": array32(4 * 10**6) + b"\xc0" * (4 * 10**6),
    "4e6 empty maps": array32(4 * 10**6) + b"\x80" * (4 * 10**6),
    "4e6 short texts": array32(4 * 10**6) + b"\xa2ab" * (4 * 10**6),
    "1e6 maps of maps": array32(10**6) + b"\x81\xa1a\x80" * 10**6,
    "4e6 timestamps": array32(4 * 10**6) + b"\xd6\xff\x00\x00\x00\x01" * (4 * 10**6),
    "bad timestamp": b"\xc7\x03\xff\x00\x00\x00",
}
# As many values as are believed: the dearest that pass the count.
MOST = 2**18 - 2
DEAREST = {
    "empty maps": array32(MOST) + b"\x80" * MOST,
    "maps of one": array32(MOST // 3) + b"\x81\xa1a\x80" * (MOST // 3),
    "timestamps": array32(MOST) + b"\xd6\xff\x00\x00\x00\x01" * MOST,
    "tags": b"\x81\xa1a" + array32(MOST // 3) + b"\x81\xab__complex__\x80" * (MOST // 3),
}
JSON_FOOTERS = {
    "invalid": b"{",
    "invalid UTF-8": b'{"a": "\xff"}',
    "a list": b"[1]",
    "nested 1e5 deep": b"[" * 10**5 + b"]" * 10**5,
    "objects 1e5 deep": b'{"a":' * 10**5 + b"1" + b"}" * 10**5,
    "nested 400 deep": b'{"a":' + b"[" * 400 + b"]" * 400 + b"}",
    "number of 1e5 digits": b'{"a": ' + b"9" * 10**5 + b"}",
    "4e6 empty lists": b"[" + b"[]," * (4 * 10**6) + b"[]]",
    "2e6 empty lists": b"[" + b"[]," * (2 * 10**6) + b"[]]",
}
TAGS = {
    "objects": {"__ndarray__": "|O", "shape": [1], "data": b"12345678"},
    "code": {"__ndarray__": "(((((((((" * 50, "shape": [1], "data": b"1"},
    "old alias": {"__ndarray__": "a5", "shape": [1], "data": b"12345"},
    "record": {"__ndarray__": "i4,i4", "shape": [1], "data": b"12345678"},
    "huge item": {"__ndarray__": "<U999999999", "shape": [1], "data": b"1"},
    "huge shape": {"__ndarray__": "|u1", "shape": [2**40, 2**40], "data": b"1"},
    "impossible shape": {"__ndarray__": "|u1", "shape": [2**63, 2], "data": b"1"},
    "negative shape": {"__ndarray__": "|u1", "shape": [-5], "data": b"1"},
    "shape of text": {"__ndarray__": "|u1", "shape": ["a"], "data": b"1"},
    "no shape": {"__ndarray__": "|u1", "shape": None, "data": b"1"},
    "many axes": {"__ndarray__": "|u1", "shape": [1] * 100, "data": b"1"},
    "data of text": {"__ndarray__": "|u1", "shape": [1], "data": "1"},
    "complex of text": {"__complex__": ["a", "b"]},
    "complex of huge": {"__complex__": [2**64 - 1, "1"]},
    "complex of nothing": {"__complex__": None},
    "complex of three": {"__complex__": [1, 2, 3]},
}
INDICES = {
    "one frame too few": lambda i: {k: v[:-1] for k, v in i.items()},
    "one frame too many": lambda i: {k: [*v, v[-1] + 1] for k, v in i.items()},
    "no frames": lambda i: {k: [] for k in i},
    "unequal lists": lambda i: i | {"sizes": i["sizes"][:-1]},
    "checksums too few": lambda i: i | {"xxh3": i["xxh3"][:-1]},
    "broken bytes": lambda i: i | {"offsets": b"1234567"},
    "text": lambda i: i | {"offsets": "12345678"},
    "no list": lambda i: [1, 2, 3],
    "no offsets": lambda i: {"sizes": i["sizes"]},
    "offsets beyond the file": lambda i: i | {"offsets": [2**64 - 1] * len(i["offsets"])},
    "offsets beyond 2**63": lambda i: i | {"offsets": [*i["offsets"][:-1], 2**63]},
    "sizes beyond the file": lambda i: i | {"sizes": [2**64 - 1] * len(i["sizes"])},
    "one size beyond the file": lambda i: i | {"sizes": [*i["sizes"][:-1], 2**40]},
    "sizes that wrap round": lambda i: i | {"sizes": [2**64 - o for o in i["offsets"]]},
    "sizes of 0": lambda i: i | {"sizes": [0] * len(i["sizes"])},
    "frames in the header": lambda i: i | {"offsets": [0] * len(i["offsets"])},
    "frames that overlap": lambda i: i | {"offsets": [i["offsets"][0]] * len(i["offsets"])},
    "frames backwards": lambda i: {k: v[::-1] for k, v in i.items()},
}


def footer_cases(ours):
    for name, payload in FOOTERS.items():
        yield f"footer: {name}", with_payload(ours, payload), WARNING
        if len(payload) > 100:
            chunk = packed(payload)
            yield f"packed footer: {name}", with_payload(ours, chunk, packing=1), WARNING
    for name, payload in JSON_FOOTERS.items():
        yield f"JSON footer: {name}", with_payload(ours, payload, encoding=0), WARNING
    for name, tag in TAGS.items():
        yield f"tag: {name}", with_footer(ours, {"metadata": {"a": tag}}), None
    for name, change in INDICES.items():
        yield f"index: {name}", with_index(ours, change), None
    payload = msgpack.packb({})
    for name, options in {
        "other version": {"version": 2},
        "other encoding": {"encoding": 2},
        "other packing": {"packing": 2},
        "too long": {"length": 2**40},
        "longest": {"length": 2**64 - 1},
        "too short": {"length": 0},
        "wrong checksum": {"checksum": 1},
        "not packed": {"packing": 1},
    }.items():
        yield f"trailer: {name}", with_payload(ours, payload, **options), WARNING
    chunks = {
        "more 0 than there may be": packed(bytes(2**28)),
        "claims 2 GB": lying_chunk(2**31 - 100),
        "claims 4 GB": lying_chunk(2**32 - 1),
        "claims 0": lying_chunk(0),
        "claims 1 too few": lying_chunk(9_999),
        "wrong length": packed(bytes(10_000)) + b"\0",
        "of version 5": patched(packed(bytes(10_000)), (0, "B", 5)),
        "shorter than its header": b"\2\1\1",
        "of another codec": patched(packed(bytes(10_000)), (2, "B", 0xE1)),
        "damaged": patched(packed(os.urandom(100) * 100), (40, "4s", b"\xff\0\xff\0")),
    }
    for name, chunk in chunks.items():
        yield f"packed footer: {name}", with_payload(ours, chunk, packing=1), WARNING
    writer = {"writer": [1, {"a": b"2"}], "history": {"not": "a list"}, "dtype": 5, "metadata": [1]}
    yield "footer: every key of the wrong kind", with_footer(ours, writer), None
    history = {"history": ["text", 5, {"name": "gain"}]}
    yield "footer: history of the wrong kind", with_footer(ours, history), None
    for dtype in ("(((", "object", "float64", "datetime64[s]", "i2,i2", "a5", "int16" * 10**5):
        yield f"footer: dtype {dtype[:9]}", with_footer(ours, {"dtype": dtype}), None


# Headers, extended headers, chunks ---------------------------------------------------------------


def header_cases(content):
    huge = 2**31 - 1
    for sizes in [
        (0, 0, 0),
        (0, 16, 4),
        (20, 0, 4),
        (-1, 16, 4),
        (20, -16, 4),
        (-20, -16, 4),
        (huge, huge, huge),
        (huge, huge, 1),
        (1, huge, huge),
        (2**20, 2**20, 4),
        (2**16, 2**15, 4),
        (30_000, 30_000, 1),
        (-huge - 1, -huge - 1, -huge - 1),
    ]:
        yield f"sizes {sizes}", patched(content, (0, "<3i", *sizes)), ERROR
    for frames in (0, 1, 3, -4, -huge):
        yield f"{frames} frames", patched(content, (8, "<i", frames)), WARNING
    for mode in (3, 5, 9, 10, 100, 102, 999, -1, -1000, 16_000, 16_001, 100_001, huge, -huge):
        yield f"mode {mode}", patched(content, (12, "<i", mode)), ERROR
    for nsymbt in (-1, -huge, huge, len(content), len(content) - HEADER_NBYTES + 1):
        yield f"NSYMBT {nsymbt}", patched(content, (92, "<i", nsymbt)), RIGHT
    everything_is_extended = patched(content, (92, "<i", len(content) - HEADER_NBYTES))
    yield "NSYMBT up to the end", everything_is_extended, RIGHT
    (mode,) = struct.unpack_from("<i", content, 12)
    other = mode % 1000 if mode >= 1000 else mode + 6000
    yield f"mode {other}", patched(content, (12, "<i", other)), WARNING
    floats = patched(
        content, (40, "<6f", *[np.nan, np.inf, -np.inf] * 2), (76, "<3f", *[np.nan] * 3)
    )
    yield "sizes of the cell that are none", floats, None
    yield "header only", content[:HEADER_NBYTES], ERROR
    yield "one byte more", content[: HEADER_NBYTES + 1], ERROR
    for axes in ((0, 0, 0), (1, 1, 1), (7, -8, 9), (3, 2, 1)):
        yield f"axes {axes}", patched(content, (64, "<3i", *axes)), None
    yield (
        "labels of any bytes",
        patched(content, (220, "i", -5), (224, "8s", b"\xff\xfe\0MRCZ9")),
        None,
    )
    version = patched(content, (224, "20s", b"MRCZ" + b"9" * 16), (244, "60s", b"9.9.9" * 12))
    yield "label of a huge version", version, None


def short_cases():
    yield "nothing", b"", ERROR
    yield "one byte", b"M", ERROR
    yield "1023 bytes", bytes(1023), ERROR
    for size in (1024, 10_000):
        yield f"{size} times 0", bytes(size), ERROR
        yield f"{size} times 255", b"\xff" * size, ERROR
        yield f"{size} times a letter", b"a" * size, ERROR
    yield "text", b"This is no movie.\n" * 1000, ERROR
    yield "PNG", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, ERROR
    yield "TIFF", b"II*\0\x08\0\0\0" + bytes(range(256)) * 20, ERROR
    yield "HDF5", b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 20, ERROR


def with_extended(content, extended, kind=b"json"):
    """Put an extended header into a file that has none."""
    header = patched(content[:HEADER_NBYTES], (92, "<i", len(extended)), (104, "4s", kind))
    return header + extended + content[HEADER_NBYTES:]


def extended_cases(plain):
    for name, text in {
        "invalid UTF-8": b'{"a": "\xff\xfe"}',
        "UTF-16": '{"a": 1}'.encode("utf-16"),
    }.items():
        yield f"extended: {name}", with_extended(plain, text), None
    for name, text in {
        "invalid JSON": b'{"a": ',
        "no JSON": b"\x00\x01\x02\x03",
        "nested 1e5 deep": b"[" * 10**5 + b"]" * 10**5,
        "objects 1e5 deep": b'{"a":' * 10**5 + b"1" + b"}" * 10**5,
        "unfinished 1e5 deep": b'{"a":' * 10**5,
        "nested 400 deep": b'{"a":' + b"[" * 400 + b"]" * 400 + b"}",
        "a list": b'[{"a": 1}]',
        "a number": b"1",
        "a text": b'"a"',
        "nothing": b"null",
        "number of 1e5 digits": b'{"a": ' + b"9" * 10**5 + b"}",
        "4e6 empty lists": b'{"a":[' + b"[]," * (4 * 10**6) + b"[]]}",
        "2e6 empty maps": b'{"a":[' + b"{}," * (2 * 10**6) + b"{}]}",
        "35 MB of text": b'{"a": "' + b"x" * (35 * 10**6) + b'"}',
    }.items():
        yield f"extended: {name}", with_extended(plain, text), WARNING
    most = MOST // 2
    yield (
        "extended: as many maps as are believed",
        with_extended(plain, b'{"a":[' + b"{}," * most + b"{}]}"),
        None,
    )
    yield (
        "extended: as much text as is believed",
        with_extended(plain, b'{"a": "\xf0\x9f\x98\x80' + b"x" * (8 * 10**6) + b'"}'),
        None,
    )
    for kind in (b"FEI1", b"FEI2"):
        yield f"extended: short {kind}", with_extended(plain, b"abc", kind), WARNING
        yield f"extended: 30 MB of 0 as {kind}", with_extended(plain, bytes(30 * 10**6), kind), None
        noise = np.random.default_rng(0).bytes(30_000)
        yield f"extended: noise as {kind}", with_extended(plain, noise, kind), None
        negative = struct.pack("<i", -1) + noise
        yield f"extended: {kind} of negative length", with_extended(plain, negative, kind), None


def chunk_cases(compressed):
    """Lie in the header of the first, a middle and the last chunk of a file without footer."""
    (nsymbt,) = struct.unpack_from("<i", compressed, 92)
    starts = [HEADER_NBYTES + nsymbt]
    for _ in range(3):
        starts.append(starts[-1] + struct.unpack_from("<I", compressed, starts[-1] + 12)[0])
    nbytes, _, _ = struct.unpack_from("<3I", compressed, starts[0] + 4)
    for frame in (0, 1, 3):
        at = starts[frame]
        (ctbytes,) = struct.unpack_from("<I", compressed, at + 12)
        for value in (0, 1, 3, 4, 6, 255):
            yield f"chunk {frame}: version {value}", patched(compressed, (at, "B", value)), ERROR
        for value in (0, 1, nbytes // 2, nbytes - 1, nbytes + 1, 2 * nbytes, 2**31, 2**32 - 1):
            yield (
                f"chunk {frame}: nbytes {value}",
                patched(compressed, (at + 4, "<I", value)),
                ERROR,
            )
        for value in (0, 1, 15, 2**31, 2**32 - 1):
            yield (
                f"chunk {frame}: ctbytes {value}",
                patched(compressed, (at + 12, "<I", value)),
                ERROR,
            )
        for value in (16, 17, ctbytes - 1, ctbytes + 1):
            # Within what a chunk may have: what follows it cannot be a chunk, or does not decode.
            changed = patched(compressed, (at + 12, "<I", value))
            yield f"chunk {frame}: ctbytes {value}", changed, None if frame == 3 else ERROR
        for value in (0, 1, 16, 2**31 - 1, 2**32 - 1):
            yield (
                f"chunk {frame}: blocksize {value}",
                patched(compressed, (at + 8, "<I", value)),
                None,
            )
        yield f"chunk {frame}: typesize 0", patched(compressed, (at + 3, "B", 0)), ERROR
        for value in (0x60, 0x41, 0xA1, 0xC1, 0xE1):
            yield f"chunk {frame}: flags {value}", patched(compressed, (at + 2, "B", value)), ERROR
        for value in range(0, 256, 5):
            yield f"chunk {frame}: flags {value}", patched(compressed, (at + 2, "B", value)), None
    bomb = patched(compressed, (0, "<3i", 30_000, 30_000, 1))
    bomb = patched(bomb, (starts[0] + 4, "<I", 30_000 * 30_000 * 2))
    yield "chunk that claims 1.8 GB", bomb, ERROR
    yield (
        "chunk that claims 1.8 GB in one block",
        patched(bomb, (starts[0] + 8, "<I", 18 * 10**8)),
        ERROR,
    )


def archive_cases(plain):
    for suffix, pack in ((".gz", gzipped), (".bz2", bz2.compress)):
        archive = pack(plain)
        yield f"empty{suffix}", b"", ERROR
        yield f"of nothing{suffix}", pack(b""), ERROR
        yield f"of text{suffix}", pack(b"text" * 1000), ERROR
        yield f"header only{suffix}", pack(plain[:HEADER_NBYTES]), ERROR
        for part in (1, 5, 12, len(archive) // 3, len(archive) // 2, len(archive) - 1):
            yield f"cut at {part}{suffix}", archive[:part], ERROR
        yield (
            f"damaged{suffix}",
            patched(archive, (len(archive) // 2, "4s", b"\0\xff\0\xff")),
            ERROR,
        )
        zeros = 12 * pack(bytes(10**7))  # archives after each other are one
        yield f"bomb{suffix}", archive + zeros, ERROR
        sizes = (2**31 - 1, 100, 100)
        yield f"huge sizes{suffix}", pack(patched(plain, (0, "<3i", *sizes))), ERROR
        compressed = patched(plain, (0, "<3i", 20, 16, 2**31 - 1), (12, "<i", 6001))
        yield f"bomb as compressed{suffix}", pack(compressed) + zeros, ERROR
    raw = bytearray(gzipped(plain))
    raw[-8:-4] = struct.pack("<I", zlib.crc32(b"other"))
    yield "wrong checksum.gz", bytes(raw), ERROR


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bad")


@pytest.fixture(scope="module")
def good(folder):
    kinds = ("ours", "ours, plain", "ours, plain, no footer", "ours, no footer", "mrcz")
    return {kind: good_file(kind, folder) for kind in kinds}


@pytest.mark.parametrize("kind", ["ours", "ours, plain", "ours, plain, no footer", "mrcz"])
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_file_cut_off_anywhere_gives_its_whole_frames_or_an_error(tmp_path, kind, step):
    good = good_file(kind, tmp_path)
    path = tmp_path / f"cut-{good.name}"
    for size in range(0, len(good.content), step):
        path.write_bytes(good.content[:size])
        outcome = judge(path, good)
        assert not outcome.wrong, (size, outcome)
        assert not outcome.refused, (size, outcome)
        if not outcome.error:
            assert outcome.warned or len(outcome.right) == len(good.pixels)
            assert outcome.right == list(range(outcome.shape[0]))


# What reading them costs -------------------------------------------------------------------------

MEASURE = """
import json, resource, sys, time, warnings
import numpy as np
import napari_mrcz as nm
warnings.simplefilter("ignore")
def read(path):
    try:
        with nm.open(path) as stack:
            for frame in range(min(len(stack), 4)):
                stack[frame]
                stack[frame, 0, 0]
            return "read"
    except nm.MrczError:
        return "MrczError"
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
for path in sys.argv[1:]:
    read(path)
before = peak()
for line in sys.stdin:
    started = time.process_time()
    outcome = read(line.strip())
    print(json.dumps([outcome, time.process_time() - started, peak() - before]), flush=True)
"""


@pytest.fixture(scope="module")
def cost(good, folder):
    """Return a function that reads a file in another process; returns outcome, s, bytes.

    Bytes are the peak of the process so far, beyond what it took to read good files. None where
    they are not counted as Linux does.
    """
    if not LINUX:
        yield None
        return
    command = [sys.executable, "-c", MEASURE, *[folder / kind.name for kind in good.values()]]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:

        def read(path):
            reader.stdin.write(f"{path}\n")
            reader.stdin.flush()
            return json.loads(reader.stdout.readline())

        yield read
        reader.stdin.close()


# Kind of the good file, the bad ones made of it, how many at least.
CASES = {
    "short": ("ours, plain, no footer", lambda content, good: short_cases(), 12),
    "header": ("ours, plain, no footer", lambda content, good: header_cases(content), 40),
    "compressed header": ("ours, no footer", lambda content, good: header_cases(content), 40),
    "archive": ("ours, plain, no footer", lambda content, good: archive_cases(content), 25),
    "extended": ("ours, plain, no footer", lambda content, good: extended_cases(content), 25),
    "footer": ("ours", lambda content, good: footer_cases(content), 95),
    "plain footer": ("ours, plain", lambda content, good: footer_cases(content), 95),
    "chunk": ("ours, no footer", lambda content, good: chunk_cases(content), 250),
    "mrcz chunk": ("mrcz", lambda content, good: chunk_cases(content), 250),
}


@pytest.mark.parametrize(
    "made",
    [pytest.param(made, marks=[pytest.mark.slow] * made.startswith("plain")) for made in CASES],
)
def test_a_bad_file_is_refused_or_warned_of_in_a_second_and_100_mb(good, folder, cost, made):
    kind, cases, least = CASES[made]
    count = 0
    for name, content, expected in cases(good[kind].content, good):
        suffix = (
            Path(name).suffix if name.endswith((".gz", ".bz2")) else Path(good[kind].name).suffix
        )
        path = folder / f"bad{suffix}"
        path.write_bytes(content)
        outcome = judge(path, good[kind])
        refused = bool(outcome.error) or bool(outcome.refused)
        if expected == ERROR:
            assert refused, (name, outcome)
        if expected == WARNING:
            assert outcome.warned, (name, outcome)
        if expected in (WARNING, RIGHT):
            assert not refused, (name, outcome)
            assert outcome.right == list(range(len(good[kind].pixels))), (name, outcome)
        if good[kind].checksums:
            assert not outcome.wrong, (name, outcome)
        report = nm.verify(path)
        assert report.ok == (not refused and not outcome.warned), (name, report)
        if cost is not None:
            said, seconds, nbytes = cost(path)
            assert seconds < 1, (name, said, seconds)
            assert nbytes < MOST_NBYTES, (name, said, nbytes)
        count += 1
    assert count > least


@pytest.mark.skipif(not LINUX, reason="needs peak memory as Linux counts it")
@pytest.mark.parametrize("name", DEAREST)
def test_a_footer_as_large_as_is_believed_costs_little(good, folder, cost, name):
    (folder / "dear.mrcz").write_bytes(with_payload(good["ours"].content, DEAREST[name]))
    outcome, seconds, nbytes = cost(folder / "dear.mrcz")
    assert outcome == "read"
    assert seconds < 1
    assert nbytes < MOST_NBYTES


def sparse(path, content, size):
    """Write a file with a hole that makes it `size` long."""
    with open(path, "wb") as file:
        file.write(content)
        file.truncate(size)


@pytest.mark.skipif(not LINUX, reason="needs files with holes, and peak memory as Linux counts it")
@pytest.mark.parametrize(
    ("name", "changes", "kind"),
    [
        ("frames of one pixel", [(0, "<3i", 1, 1, 2**31 - 1)], b""),
        ("frames of a terabyte", [(0, "<3i", 2**20, 2**20, 1)], b""),
        ("chunks of nothing", [(0, "<3i", 1, 1, 2**31 - 1), (12, "<i", 6000)], b""),
        ("json of 2 GB", [(92, "<i", 2**31 - 1)], b"json"),
        ("FEI1 of 2 GB", [(92, "<i", 2**31 - 1)], b"FEI1"),
        ("unknown of 2 GB", [(92, "<i", 2**31 - 1)], b"SERI"),
    ],
)
def test_long_files_of_nothing_cost_little(good, folder, cost, name, changes, kind):
    content = patched(good["ours, plain, no footer"].content, *changes, (104, "4s", kind))
    sparse(folder / "sparse.mrc", content, 2**40 + 10_000)
    outcome, seconds, nbytes = cost(folder / "sparse.mrc")
    os.unlink(folder / "sparse.mrc")
    assert outcome == (
        "MrczError" if name in ("frames of a terabyte", "chunks of nothing") else "read"
    )
    assert seconds < 1
    assert nbytes < MOST_NBYTES
