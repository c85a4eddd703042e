"""TIFF and EER movies, one frame decoded at a time."""

from __future__ import annotations

import io
import struct
import threading
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError, NotEnoughMemory, is_out_of_memory, size_text, warn
from napari_mrcz.format import Description
from napari_mrcz.format.files import open_file
from napari_mrcz.stack.stack import Stack
from napari_mrcz.stack.tiff_frames import EER, find_frames
from napari_mrcz.stack.tiff_metadata import tiff_metadata
from napari_mrcz.stack.tiff_pages import MAGIC, read_directories

if TYPE_CHECKING:
    from pathlib import Path

    from napari_mrcz.stack.tiff_frames import TiffFrame, TiffMovie
    from napari_mrcz.stack.tiff_pages import Page

SUPERRESOLUTIONS = (1, 2, 4)

_LZW = 5
_DIFFERENCES = 2
_BITS, _PREDICTOR, _TILE_OFFSETS = 258, 317, 324
# Of EER: bits of the numbers of pixels that are skipped, and of the places within pixels.
_EER_BITS = {65000: (8, 2, 2), 65001: (7, 2, 2)}
_EER_TAGS = ((65007, 7), (65008, 2), (65009, 2))
_EER_PADDING = 4
_EER_ROWS = 16  # divided by each number of sub-pixels, as the decoder wants it

Frame = npt.NDArray[Any]


def is_tiff(head: bytes) -> bool:
    """Return whether a file that begins so is a TIFF, BigTIFF or EER."""
    return head.startswith(MAGIC)


def is_eer(movie: Stack) -> bool:
    """Return whether a stack is an EER movie as it was opened."""
    return isinstance(movie._source, TiffFrames) and movie._source.is_eer


def open_tiff(path: Path, superresolution: int = 1) -> Stack:
    """Open a movie; the first row of a TIFF is the top one, that of EER the bottom one.

    Parameters
    ----------
    path : Path
        The file, packed or not.
    superresolution : int
        Rows and columns that each pixel of EER frames is divided into: 1, 2 or 4.

    Raises
    ------
    MrczError
        If it cannot be read.

    Warns
    -----
    MrczWarning
        If the file holds more than is read, or less than it says.
    """
    frames = TiffFrames(path, superresolution)
    for sentence in frames.warnings:
        warn(f"{frames.path}: {sentence}")
    known = frames.known
    z, y, x = known.pixel_size
    description = Description(
        pixel_size=(z, y / superresolution, x / superresolution),
        voltage=known.voltage,
        metadata=known.metadata,
        path=str(frames.path),
    )
    return Stack(frames, description)


class TiffFrames:
    """The frames of a TIFF file. Safe to use from many threads, picklable.

    Parameters
    ----------
    path : Path
        The file.
    superresolution : int
        For EER.

    Attributes
    ----------
    is_eer : bool
        Whether its frames are EER-compressed.
    warnings : tuple of str
        What is in the file that is not read, or should be and is not.
    is_whole : bool
        Whether no frame is missing.
    known : TiffMetadata
        What the file says of its frames.
    """

    def __init__(self, path: Path, superresolution: int = 1) -> None:
        self.path = path.absolute()
        self._superresolution = superresolution
        self._lock = threading.Lock()
        self._tiff: Any = None
        self._file = open_file(self.path)
        try:
            found = read_directories(self._file)
            movie = find_frames(self._file, found)
            self.known = tiff_metadata(movie, found.pages[0])
            self._choose(movie)
        except BaseException:
            self.close()
            raise
        self.warnings = (*movie.remarks, *self.known.remarks)
        if path.name.lower().endswith(".eer") and not self.is_eer:
            self.warnings += (
                "its pages are not EER-compressed: it is read as a TIFF, top row first",
            )

    def _choose(self, movie: TiffMovie) -> None:
        """Set what frames are like, and check that there is what decodes them."""
        self._frames, self.is_eer, self.is_whole = movie.frames, movie.is_eer, movie.is_whole
        page = movie.page
        factor = self._superresolution
        if self.is_eer:
            self._page_shape = page.shape[0] * factor, page.shape[1] * factor
            self._dtype: np.dtype[Any] = np.dtype(np.uint8)
            for frame in {frame.page.compression: frame for frame in self._frames}.values():
                self._check_eer(frame.page)
        else:
            self._page_shape = page.shape[0], page.shape[1]
            self._dtype = np.dtype(page.dtype).newbyteorder("=")
            self._check_codec(self._frames[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return TiffFrames, (self.path, self._superresolution)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return len(self._frames), *self._page_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type, in native byte order."""
        return self._dtype

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Decode one frame.

        Raises
        ------
        MrczError
            If it is damaged.
        NotEnoughMemory
            If there is not enough for it: it may well be sound.
        """
        try:
            pixels = self._decode(self._frames[frame])
        except MrczError:
            raise
        except Exception as error:  # neither library has one error for a damaged file
            if is_out_of_memory(error):
                y, x = self._page_shape
                what = f"a frame of {size_text(y * x * self._dtype.itemsize)}"
                raise NotEnoughMemory(self.path, what, frame=frame) from None
            found = f"its TIFF page cannot be decoded ({error})"
            raise MrczError(self.path, found, frame=frame) from error
        if pixels.shape != self._page_shape:
            found = f"a page of {pixels.shape}, where the first has {self._page_shape}"
            raise MrczError(self.path, found, frame=frame)
        if not self.is_eer:
            pixels = pixels[::-1]
        if out is None:
            return np.ascontiguousarray(pixels, self._dtype)
        out[...] = pixels
        return out

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Decode one frame and return part of it."""
        return np.array(self.read_frame(frame)[window])

    def close(self) -> None:
        """Close the file; reading opens it again."""
        with self._lock:
            if self._tiff is not None:
                self._tiff.close()
                self._tiff = None
        self._file.close()

    def _decode(self, frame: TiffFrame) -> Frame:
        page = frame.page
        if page.compression in EER:
            return self._decode_eer(page)
        if page.is_plain:
            whole = [(frame.offset, page.pixels_nbytes)] if frame.offset is not None else None
            return self._read_plain(page, whole or page.segments())
        if _is_usual_lzw(page):
            return self._decode_lzw(page)
        with self._lock:
            return np.asarray(self._pages()[frame.number].asarray())

    def _read_plain(self, page: Page, segments: list[tuple[int, int]]) -> Frame:
        pixels = np.empty(page.shape, page.dtype)
        target = pixels.reshape(-1).view(np.uint8).data
        done = 0
        for offset, nbytes in segments:
            part = target[done : done + nbytes]
            if self._file.read_into(offset, part) < len(part):
                raise MrczError(self.path, "it became shorter while it was open", offset=offset)
            done += len(part)
        if done < len(target):
            raise ValueError(f"{done} bytes, where a frame has {len(target)}")
        return pixels

    def _decode_lzw(self, page: Page) -> Frame:
        """Decode what SerialEM and IMOD write, for which tifffile needs a large further package.

        Pillow decodes LZW, but not every type, byte order and BigTIFF: it is handed the bytes of
        rows as pixels of a file of its own.
        """
        from PIL.TiffImagePlugin import TiffImageFile

        dtype = np.dtype(page.dtype)
        segments = [self._file.read(offset, nbytes) for offset, nbytes in page.segments()]
        # Not Image.open, which warns of images of the size of super-resolution frames.
        with TiffImageFile(io.BytesIO(_bytes_as_tiff(page, dtype.itemsize, segments))) as image:
            pixels = np.asarray(image).view(dtype)
        if page.number(_PREDICTOR, 1) == _DIFFERENCES:
            native = dtype.newbyteorder("=")
            return np.add.accumulate(pixels.astype(native), axis=1, dtype=native)
        return pixels

    def _decode_eer(self, page: Page) -> Frame:
        from imagecodecs import eer_decode

        data = b"".join(self._file.read(offset, nbytes) for offset, nbytes in page.segments())
        # The decoder wants an even number, and more after the last electron than its own bits; as
        # a frame ends with the last pixel, what comes behind means nothing.
        data += bytes(_EER_PADDING + len(data) % 2)
        skip, across, down = _eer_bits(page)
        factor = self._superresolution
        level = {1: 0, 2: 1, 4: 2}[factor]
        y, x = self._page_shape
        try:
            frame = eer_decode(data, (y, x), skip, across, down, superres=level)
        except Exception:
            # The last number of pixels that are skipped may lead beyond the last pixel, by so many.
            rows = -(-((1 << skip) + 8 * _EER_PADDING) // page.shape[1])
            shape = y + _EER_ROWS * -(-rows // _EER_ROWS) * factor, x
            frame = eer_decode(data, shape, skip, across, down, superres=level)[:y]
        return frame.view(np.uint8)

    def _check_eer(self, page: Page) -> None:
        """Check that there is what decodes a page, as finely as is asked.

        Raises
        ------
        MrczError
            If there is not.
        """
        try:
            import imagecodecs

            _ = imagecodecs.eer_decode
        except (ImportError, AttributeError) as error:
            if is_out_of_memory(error):
                raise NotEnoughMemory(self.path, "the library that decodes it") from None
            advice = "pip install 'napari-mrcz[eer]'"
            raise MrczError(self.path, "EER needs imagecodecs", advice=advice) from error
        bits = min(_eer_bits(page)[1:])
        if self._superresolution > 1 << bits:
            found = f"electrons are known to 1/{1 << bits} of a pixel"
            advice = f"superresolution is {1 << bits} at most"
            raise MrczError(self.path, found, advice=advice)

    def _check_codec(self, frame: TiffFrame) -> None:
        """Check that there is what decodes a page.

        Raises
        ------
        MrczError
            If there is not.
        """
        if frame.page.is_plain or _is_usual_lzw(frame.page):
            return
        try:
            with self._lock:
                self._pages()[frame.number].decode  # noqa: B018  (tifffile looks for the codec)
        except MrczError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise NotEnoughMemory(self.path, "the library that decodes it") from None
            found, advice = f"its pages need a codec ({error})", "pip install 'napari-mrcz[eer]'"
            raise MrczError(self.path, found, advice=advice) from None

    def _pages(self) -> Any:
        import tifffile  # slow to import, seldom needed

        if self._tiff is None:
            self._tiff = tifffile.TiffFile(self._file.stream())
        return self._tiff.pages


def _is_usual_lzw(page: Page) -> bool:
    """Return whether a page is of LZW, and of pixels that whole bytes or their differences are."""
    if page.compression != _LZW or page.dtype is None:
        return False
    if page.values(_BITS) != (8 * page.dtype.itemsize,):
        return False
    predictor = page.number(_PREDICTOR, 1)
    differences = page.dtype.kind in "iu" and _TILE_OFFSETS not in page.tags
    return predictor == 1 or (predictor == _DIFFERENCES and differences)


def _bytes_as_tiff(page: Page, itemsize: int, segments: list[bytes]) -> bytes:
    """Return a TIFF of one page whose pixels are the bytes of another's, compressed as there."""
    rows, columns = page.shape
    tags = {256: [columns * itemsize], 257: [rows], 258: [8], 259: [_LZW], 262: [1],
            266: [page.number(266, 1)], 277: [1]}  # fmt: skip
    sizes = [len(segment) for segment in segments]
    starts = list(accumulate(sizes[:-1], initial=8))
    if _TILE_OFFSETS in page.tags:
        tile = [page.number(322, 0) * itemsize], [page.number(323, 0)]
        tags |= {322: tile[0], 323: tile[1], 324: starts, 325: sizes}
    else:
        tags |= {273: starts, 278: [min(rows, page.number(278, rows))], 279: sizes}
    start = 8 + sum(sizes)
    place = start + 2 + 12 * len(tags) + 4
    entries, arrays = b"", b""
    for code, values in sorted(tags.items()):
        raw = struct.pack(f"<{len(values)}I", *values)
        where = raw if len(values) == 1 else struct.pack("<I", place + len(arrays))
        arrays += b"" if len(values) == 1 else raw
        entries += struct.pack("<HHI", code, 4, len(values)) + where
    head = struct.pack("<2sHI", b"II", 42, start)
    return b"".join([head, *segments, struct.pack("<H", len(tags)), entries, bytes(4), arrays])


def _eer_bits(page: Page) -> tuple[int, int, int]:
    known = _EER_BITS.get(page.compression)
    if known is not None:
        return known
    skip, across, down = (page.number(code, default) for code, default in _EER_TAGS)
    return skip, across, down
