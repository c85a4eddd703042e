"""A stack as a notebook shows it: a thumbnail of its sum beside a table, as HTML."""

from __future__ import annotations

import base64
import io
import os
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.history import step_text
from napari_mrcz.errors import MrczError, size_text
from napari_mrcz.naming import path_of
from napari_mrcz.stack.sources import uncorrected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_mrcz.stack.stack import Stack

# Pixels that are read for a thumbnail, which is as large as this along its longer side.
_READ, _SIDE = 2**28, 256
# Of the histogram, in per cent, what is black and what is white.
_BLACK, _WHITE = 1, 99


def html_of(stack: Stack) -> str:
    """Return a stack as HTML: a thumbnail of its sum and a table of what is known of it.

    A few hundred million pixels are read at most, of frames spread over the movie; of a URL one
    frame. The caption says how many.
    """
    n, y, x = stack.shape
    room = 1 if "://" in (stack.path or "") else max(1, _READ // (y * x))
    frames = [i * n // min(n, room) for i in range(min(n, room))]
    warnings = _warnings(stack)
    picture = ""
    try:
        data = _png(_thumbnail(stack, frames))
        said = f"sum of {len(frames)} of {n} frames" if len(frames) < n else f"sum of {n} frames"
        picture = (
            f'<td style="vertical-align: top"><img alt="{said}" src="data:image/png;base64,{data}">'
            f"<br>{said if n > 1 else 'one frame'}</td>"
        )
    except MrczError as error:
        warnings.append(f"no picture: {error}")
    rows = "".join(
        f'<tr><th style="text-align: left">{escape(name)}</th>'
        f'<td style="text-align: left">{"<br>".join(map(escape, lines))}</td></tr>'
        for name, lines in _rows(stack, warnings)
    )
    title = path_of(stack.path).name if stack.path else "array"
    return (
        f'<table><tr>{picture}<td style="vertical-align: top"><table>'
        f'<tr><th colspan="2" style="text-align: left">{escape(title)}</th></tr>{rows}'
        "</table></td></tr></table>"
    )


def _rows(stack: Stack, warnings: list[str]) -> Iterator[tuple[str, list[str]]]:
    n, y, x = stack.shape
    yield "shape", [f"{n} {'frame' if n == 1 else 'frames'} of {y} × {x} pixels"]
    yield "pixel type", [str(stack.dtype)]
    _, size_y, size_x = stack.pixel_size
    size = f"{size_x:.5g} Å" if size_x == size_y else f"{size_y:.5g} × {size_x:.5g} Å"
    yield "pixel size", [size if size_x else "unknown"]
    yield "in memory", [size_text(stack.nbytes)]
    if stack.path and os.path.isfile(stack.path):
        yield "on disk", [size_text(os.path.getsize(stack.path))]
    if stack.history:
        steps = map(step_text, stack.history)
        lines = [f"{title}: {said}" if said else title for title, said in steps]
        yield "history", [f"{number}. {line}" for number, line in enumerate(lines, 1)]
    if warnings:
        yield "warnings", warnings


def _warnings(stack: Stack) -> list[str]:
    """Return what the file and the corrections warn of."""
    found = [*getattr(uncorrected(stack._source), "warnings", ())]
    for step in stack.history:
        said = step.get("warnings", ())
        found += said if isinstance(said, list | tuple) else []
    return list(dict.fromkeys(map(str, found)))


def _thumbnail(stack: Stack, frames: list[int]) -> npt.NDArray[np.uint8]:
    """Return the sum of some frames, binned, with grey values from 0 to 255."""
    _, y, x = stack.shape
    by = -(-max(y, x) // _SIDE)
    rows, columns = max(1, y // by), max(1, x // by)
    total: npt.NDArray[Any] = np.zeros((rows, columns))
    for index in frames:
        frame = stack._frames.read_frame(index)[: rows * by, : columns * by]
        whole = np.abs(frame) if frame.dtype.kind == "c" else frame
        blocks = whole.reshape(rows, min(by, y), columns, min(by, x))
        total += blocks.mean(axis=(1, 3), dtype=np.float64)
    good = total[np.isfinite(total)]
    low, high = np.percentile(good, (_BLACK, _WHITE)) if good.size else (0.0, 0.0)
    grey = (np.nan_to_num(total, nan=low) - low) * (255 / (high - low) if high > low else 0)
    thumbnail: npt.NDArray[np.uint8] = np.clip(grey, 0, 255).astype(np.uint8)
    return thumbnail


def _png(image: npt.NDArray[np.uint8]) -> str:
    """Return a grey image as a PNG file, in base 64."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
