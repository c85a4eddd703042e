"""Making headers that `mrcz` and `mrcfile` read alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_mrcz.format.header import HEADER_DTYPE, Triple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["build_header"]


def build_header(
    shape: tuple[int, int, int],
    mode: int,
    *,
    codec: int = 0,
    pixel_size: Triple = (0.0, 0.0, 0.0),
    axis_order: tuple[int, int, int] = (1, 2, 3),
    volume: bool = False,
    sections_per_volume: int | None = None,
    statistics: tuple[float, float, float, float] | None = None,
    extended: tuple[str, int] = ("", 0),
    voltage: float = 0.0,
    c3: float = 0.0,
    gain: float = 0.0,
    origin: Triple = (0.0, 0.0, 0.0),
    packed_nbytes: int = 0,
    labels: Sequence[str] = (),
) -> bytes:
    """Make the 1024 bytes of a little-endian header.

    Compressed files follow `mrcz`: MZ is 0 ("one array"; other values would have `mrcz` cut the
    stack into a list) and the cell is the pixel size times NX, NY, NZ. Plain files follow MRC2014:
    MZ is 1 for an image stack, NZ for a volume.

    Parameters
    ----------
    shape : tuple of int
        Frames, rows, columns.
    mode, codec : int
        Pixel mode, and the codec's number (0 for none).
    pixel_size : tuple of float
        Along Z, Y, X in Å; 0.0 for unknown.
    axis_order : tuple of int
        MAPC, MAPR, MAPS: which of X (1), Y (2), Z (3) columns, rows and sections run along.
    volume : bool
        A volume (ISPG 1) rather than a stack of images (ISPG 0).
    sections_per_volume : int, optional
        Given for a stack of volumes (ISPG 401).
    statistics : tuple of float, optional
        Minimum, maximum, mean, standard deviation; None for not determined.
    extended : tuple of (str, int)
        Kind and length (bytes) of the extended header.
    voltage, c3, gain : float
        kV, mm, counts per electron; 0 for unknown.
    origin : tuple of float
        X, Y, Z in Å.
    packed_nbytes : int
        Length of all chunks.
    labels : sequence of str
        Up to 10, each cut at 80 bytes.

    Returns
    -------
    bytes
    """
    nz, ny, nx = shape
    record = np.zeros((), HEADER_DTYPE)
    record["n"] = nx, ny, nz
    record["mode"] = mode + 1000 * codec
    if sections_per_volume is not None:
        depth, record["ispg"] = sections_per_volume, 401
    elif volume:
        depth, record["ispg"] = (0 if codec else nz), 1
    else:
        depth, record["ispg"] = (0 if codec else 1), 0
    record["m"] = nx, ny, depth
    z, y, x = pixel_size
    # `mrcz` divides the cell by NZ, whatever MZ says: for compressed files the two must agree.
    record["cell"] = x * nx, y * ny, z * (nz if codec else depth)
    record["angles"] = 90.0
    record["map_crs"] = axis_order
    low, high, mean, rms = statistics if statistics else (0.0, -1.0, -2.0, -1.0)
    record["dmin"], record["dmax"], record["dmean"], record["rms"] = low, high, mean, rms
    record["exttyp"], record["nsymbt"] = extended[0].encode("latin-1", "replace"), extended[1]
    record["nversion"] = 20141
    record["voltage"], record["c3"], record["gain"] = voltage, c3, gain
    record["packed_nbytes"] = packed_nbytes
    record["origin"] = origin
    record["map"] = b"MAP "
    record["machst"] = 0x44, 0x44, 0, 0
    texts = [t for label in labels if (t := label.encode("ascii", "replace").strip())][:10]
    record["nlabl"] = len(texts)
    for i, text in enumerate(texts):
        record["label"][i] = text[:80]
    return record.tobytes()
