"""How small, and how fast, each codec, level and filter makes a movie: tried on some frames."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from napari_mrcz.format import Encoding
from napari_mrcz.format.encoding import choose_encoding, compressed_fraction, shannon_fraction
from napari_mrcz.format.header import CODECS
from napari_mrcz.format.storage import choose_storage
from napari_mrcz.widgets.save_stack.model import as_saved

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.save_stack.model import SaveOptions

_LEVELS = (1, 3, 5, 9)


@dataclass(frozen=True)
class Trial:
    """What one choice came to.

    Attributes
    ----------
    codec, level, filter
        The choice.
    coder : str
        What codes the frames then: the codec, or our own encoder for counts.
    ratio : float
        Bytes in memory over bytes on disk.
    rate : float
        Bytes a second in one thread.
    """

    codec: str
    level: int
    filter: str
    coder: str
    ratio: float
    rate: float

    def __str__(self) -> str:
        """Return it in a line."""
        filter_ = "no filter" if self.filter == "none" else self.filter
        speed = f"{self.rate / 1e6:.0f} MB/s a thread"
        return f"{self.coder}, level {self.level}, {filter_}: {self.ratio:.3g} to 1 at {speed}"


@dataclass(frozen=True)
class Exploration:
    """All choices tried on a movie.

    Attributes
    ----------
    trials : tuple of Trial
        In no order that means anything.
    bound : float or None
        The largest ratio that independent pixels allow (Shannon's bound), where it is known.
    """

    trials: tuple[Trial, ...]
    bound: float | None


def explore(stack: Stack, options: SaveOptions, report: Report) -> Exploration:
    """Try all codecs, levels and filters on excerpts of three frames, as they will be stored.

    Raises
    ------
    MrczError
        If the frames cannot be stored as wanted.
    """
    plain = Encoding("zstd", 1, "none", "auto")
    stack, options = as_saved(stack, options)
    path = f"{options.path or 'movie'}"
    samples = stack.sample_makers()
    storage, excerpts = choose_storage(path, samples, options.dtype, plain, wide=False)
    frame_nbytes = storage.shape[0] * storage.shape[1] * storage.stored.itemsize
    filters = (
        ("bitshuffle", "none", "shuffle")
        if storage.stored.itemsize > 1
        else (
            "bitshuffle",
            "none",
        )
    )
    choices = list(product(CODECS, _LEVELS, filters))
    trials = []
    for done, (codec, level, filter_) in enumerate(choices):
        report("Trying compression", done, len(choices))
        wanted = Encoding(codec, level, filter_, options.block_size)
        trials.append(_try(wanted, excerpts, frame_nbytes))
    bound = shannon_fraction(excerpts)
    report("Trying compression", len(choices), len(choices))
    return Exploration(tuple(trials), None if not bound else 1 / bound)


def _try(wanted: Encoding, excerpts: Sequence[npt.NDArray[Any]], frame_nbytes: int) -> Trial:
    chosen = choose_encoding(wanted, excerpts, frame_nbytes)
    start = time.perf_counter()
    fraction = compressed_fraction(chosen, excerpts)
    rate = sum(pixels.nbytes for pixels in excerpts) / (time.perf_counter() - start)
    return Trial(wanted.codec, wanted.level, wanted.filter, chosen.coder, 1 / fraction, rate)
