"""The article's figures 2 and 3 as numbers: what dose, level, threads, block and text ask for."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import numpy.typing as npt

from napari_mrcz.format.chunks import compress
from napari_mrcz.format.encoding import (
    COUNT_CODER,
    Encoding,
    choose_encoding,
    excerpt,
    shannon_fraction,
)
from napari_mrcz.format.threads import in_order, processors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CODERS = {
    **{codec: Encoding(codec, as_counts=False) for codec in ("blosclz", "lz4", "zlib", "zstd")},
    COUNT_CODER: Encoding("zstd", as_counts=True),
}
DOSES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 10.0)
LEVELS = tuple(range(1, 10))
BLOCKS = tuple(2**k for k in range(14, 24))

_SEED = 1
_ROUNDS = 3

Frame = npt.NDArray[Any]


@dataclass(frozen=True)
class Curve:
    """Compression ratio and rate against something.

    Attributes
    ----------
    name : str
        Of the curve.
    x : tuple of float
        Dose (e⁻/pix/frame), level, threads or block size (bytes).
    ratio : tuple of float
        Bytes before over bytes after.
    rate : tuple of float
        GB/s of uncompressed bytes.
    """

    name: str
    x: tuple[float, ...]
    ratio: tuple[float, ...]
    rate: tuple[float, ...]


@dataclass(frozen=True)
class Serialisation:
    """Metadata as text or MessagePack, packed or not.

    Attributes
    ----------
    name : str
        Serialiser and codec.
    nbytes : int
        Size.
    write_s, read_s : float
        Medians in seconds.
    """

    name: str
    nbytes: int
    write_s: float
    read_s: float


def counts(dose: float, side: int) -> Frame:
    """Return a frame of counted electrons, (side, side) of uint8."""
    frame: Frame = np.random.default_rng(_SEED).poisson(dose, (side, side)).astype(np.uint8)
    return frame


def by_dose(side: int = 2048, doses: Sequence[float] = DOSES) -> list[Curve]:
    """Return figure 2a: each coder at level 1, and Shannon's bound."""
    frames = [counts(dose, side) for dose in doses]
    curves = [_curve(name, doses, [(f, e) for f in frames]) for name, e in CODERS.items()]
    bounds = tuple(1 / (shannon_fraction([frame]) or 1.0) for frame in frames)
    return [*curves, Curve("Shannon's bound", tuple(doses), bounds, (np.nan,) * len(bounds))]


def by_level(frame: Frame, levels: Sequence[int] = LEVELS) -> list[Curve]:
    """Return figure 2b: each coder at each level."""
    return [
        _curve(name, levels, [(frame, replace(e, level=level)) for level in levels])
        for name, e in CODERS.items()
    ]


def by_block(frame: Frame, blocks: Sequence[int] = BLOCKS) -> list[Curve]:
    """Return figure 2d: each coder at level 1, bitshuffled in blocks of several sizes."""
    fitting = [block for block in blocks if block <= frame.nbytes]
    return [
        _curve(
            name,
            fitting,
            [(frame, replace(e, filter="bitshuffle", block_size=block)) for block in fitting],
        )
        for name, e in CODERS.items()
    ]


def by_threads(frame: Frame, most: int = 0) -> list[Curve]:
    """Return figure 2c: zstd-1 and lz4-9, several frames at a time, up to twice the processors."""
    threads = tuple(range(1, (most or 2 * processors()) + 1))
    curves = []
    for codec, level in (("zstd", 1), ("lz4", 9)):
        encoding = choose_encoding(Encoding(codec, level), [excerpt(frame)], frame.nbytes)
        rates = [_parallel_rate(frame, encoding, n) for n in threads]
        ratio = frame.nbytes / len(encoding.compress(frame))
        curves.append(Curve(f"{codec}-{level}", threads, (ratio,) * len(threads), tuple(rates)))
    return curves


def serialisations(nbytes: int = 25_000_000) -> list[Serialisation]:
    """Return figure 3: JSON and MessagePack of so many bytes of text, bare and packed."""
    content = _metadata(nbytes)
    found = []
    pairs: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
        "JSON": (lambda c: json.dumps(c).encode(), json.loads),
        "MessagePack": (msgpack.packb, msgpack.unpackb),
    }
    for name, (dump, load) in pairs.items():
        for codec in ("", "lz4", "zstd"):
            packed = _packed(dump(content), codec)

            def store(dump: Any = dump, codec: str = codec) -> bytes:
                return _packed(dump(content), codec)

            def fetch(load: Any = load, codec: str = codec, packed: bytes = packed) -> Any:
                return load(_unpacked(packed, codec))

            title = f"{name}, {codec or 'bare'}"
            found.append(Serialisation(title, len(packed), _median(store), _median(fetch)))
    return found


def _curve(name: str, x: Sequence[float], cases: Sequence[tuple[Frame, Encoding]]) -> Curve:
    ratios, rates = [], []
    for frame, wanted in cases:
        encoding = choose_encoding(wanted, [excerpt(frame)], frame.nbytes)
        ratios.append(frame.nbytes / len(encoding.compress(frame)))
        seconds = _median(partial(encoding.compress, frame))
        rates.append(frame.nbytes / seconds / 1e9)
    return Curve(name, tuple(x), tuple(ratios), tuple(rates))


def _parallel_rate(frame: Frame, encoding: Encoding, threads: int) -> float:
    number = 4 * threads

    def all_of_them() -> None:
        with in_order(encoding.compress, [frame] * number, threads, "napari-mrcz-bench") as done:
            for _ in done:
                pass

    return number * frame.nbytes / _median(all_of_them) / 1e9


def _metadata(nbytes: int) -> list[dict[str, Any]]:
    """Make up the log of a microscope: names, numbers, nested lists."""
    rng = np.random.default_rng(_SEED)
    entries: list[dict[str, Any]] = []
    size = 0
    while size < nbytes:
        entry = {
            "time": f"2017-06-{len(entries) % 28 + 1:02}T12:{len(entries) % 60:02}:00",
            "stage": {axis: round(float(rng.normal()), 6) for axis in "xyzab"},
            "lens currents": [round(float(c), 4) for c in rng.normal(size=8)],
            "operator note": f"square {len(entries) // 40}, hole {len(entries) % 40}",
        }
        entries.append(entry)
        size += len(json.dumps(entry)) + 2
    return entries


def _packed(data: bytes, codec: str) -> bytes:
    if not codec:
        return data
    return compress(np.frombuffer(data, np.uint8), codec, 1, "none", 0)


def _unpacked(data: bytes, codec: str) -> bytes:
    if not codec:
        return data
    from numcodecs import blosc

    return bytes(blosc.decompress(data))


def _median(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
