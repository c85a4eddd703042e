"""Checks of what is said of sizes: pixel size, MX MY MZ, axes, space group, frames, length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import counted
from napari_mrcz.format.doctor.finding import Finding
from napari_mrcz.format.extended import microscope_settings
from napari_mrcz.format.header import (
    CODEC_NAMES,
    LARGEST_PIXEL,
    SMALLEST_PIXEL,
    SPACE_GROUPS,
    VOLUME_STACKS,
    holds_volume,
)
from napari_mrcz.format.header_reading import MOST_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari_mrcz.format.doctor.finding import Patient

_IMAGES, _VOLUME = 0, 1
_CUT = "Save it anew, cut into the volumes that it holds"
_AXES = [1, 2, 3]


def check_geometry(patient: Patient) -> Iterator[Finding]:
    """Return the findings in the order in which they lie in the header."""
    yield from _frames(patient)
    yield from _mode(patient)
    yield from _sampling(patient)
    yield from _pixel_size(patient)
    yield from _axes(patient)
    yield from _space_group(patient)
    yield from _extended_nbytes(patient)
    yield from _surplus(patient)


def _frames(patient: Patient) -> Iterator[Finding]:
    there, announced = patient.header.nz, patient.announced
    if there == announced:
        return
    sentence = f"The file has {counted(there, 'frame')}, where the header speaks of {announced}."
    if there > announced:
        sentence += " Other programs do not see those that are more."
    if there < announced:
        sentence += " It was cut off, never finished, or has the header of another."
        header = patient.header
        rest = (patient.layout.end - header.data_offset) % header.frame_nbytes
        if rest and not header.codec:
            sentence += f" Of a frame that is not whole, {rest} bytes stay at the end."
    yield Finding("NZ", sentence, str(announced), str(there), {"nz": there})


def _mode(patient: Patient) -> Iterator[Finding]:
    header, stated = patient.header, patient.stated
    if header.codec == stated.codec:
        return
    what = f"blosc chunks ({CODEC_NAMES[header.codec]})" if header.codec else "plain pixels"
    why = f"The frames are {what}; other programs go by MODE, and show a torn picture or none."
    true = header.mode + 1000 * header.codec
    depth = header.nz if header.is_volume else 1
    patch = {"mode": true, "m": (header.nx, header.ny, 0 if header.codec else depth)}
    yield Finding("MODE", why, str(header.mode + 1000 * stated.codec), str(true), patch)


def _sampling(patient: Patient) -> Iterator[Finding]:
    header, found = patient.header, _triple(patient.record["m"])
    sizes, group = (header.nx, header.ny, header.nz), _group(patient)
    if header.codec != patient.stated.codec:
        return  # MODE goes with them
    # `mrcz` before 0.5 wrote sizes here: by its label, other numbers are not believed.
    old = header.mrcz_version is not None and header.mrcz_version < (0, 5, 0)
    wrong = min(found) < 0 or max(found) > MOST_SAMPLES
    wrong |= old and any(found) and found != (*sizes[:2], patient.announced)
    why = "Programs divide the cell by them to get the pixel size."
    if header.codec:
        # As `mrcz` has it: MZ of 0 is one stack, its cell divided by its sizes.
        proposed = (0, 0, 0) if old else (*sizes[:2], 0)
    elif wrong or 0 in found:
        wrong, proposed = True, sizes if header.is_volume or old else (*sizes[:2], 1)
    else:
        wrong = group == _IMAGES and found[2] != 1 and not old and not header.is_volume
        proposed = (*found[:2], 1)
        why = (
            "In a stack of images MZ is 1; by another number, programs take the frames for the "
            "sections of a volume."
        )
    if wrong and group in VOLUME_STACKS:
        yield Finding("MX MY MZ", why, _joined(found), _CUT)
    elif wrong:
        yield Finding("MX MY MZ", why, _joined(found), _joined(proposed), {"m": proposed})


def _pixel_size(patient: Patient) -> Iterator[Finding]:
    header = patient.header
    z = header.pixel_size[0]
    _, y, x = patient.stated.pixel_size
    stated = [float(c) for c in patient.record["cell"]]
    odd = [c for c in stated if not np.isfinite(c) or c < 0 or 0 < c <= 1e-6]
    sizes = (x, y, z) if header.is_volume else (x, y)
    extreme = any(s and not SMALLEST_PIXEL <= s <= LARGEST_PIXEL for s in sizes)
    unknown = not all(sizes)
    if not (odd or extreme or unknown):
        return
    found = f"cell of {_joined(stated)} Å" if any(stated) else "unknown"
    if odd:
        sentence = "The cell, from which the pixel size follows, cannot be true."
    elif extreme:
        sentence = "No microscope records pixels of this size."
        found = f"{_joined(sizes)} Å"
    else:
        sentence = "The pixel size is not told: scale bars and all that follows from it are wrong."
    known, source = _known_pixel_size(patient)
    if known is not None:
        new = known[0] if header.is_volume else z, *known[1:]
        proposed = f"{known[2]:g} × {known[1]:g} Å, {source}"
        yield Finding("pixel size", sentence, found, proposed, {"pixel_size": new})
    elif odd or extreme:
        # What can be true of it is kept.
        kept = [s if SMALLEST_PIXEL <= s <= LARGEST_PIXEL else 0.0 for s in (z, y, x)]
        proposed = f"{kept[2]:g} × {kept[1]:g} Å" if all(kept[1:]) else "unknown (0)"
        yield Finding("pixel size", sentence, found, proposed, {"pixel_size": tuple(kept)})
    else:
        yield Finding("pixel size", sentence, found, "Tell the pixel size, if you know it")


def _known_pixel_size(patient: Patient) -> tuple[tuple[float, float, float] | None, str]:
    """Return z, y, x in Å and who says so: the caller, or an extended header of FEI's."""
    if patient.pixel_size:
        return (patient.pixel_size,) * 3, "as you say"
    carried = patient.layout.carried
    kind = "" if carried is None else carried.decoded_as
    across, _ = microscope_settings(kind, patient.layout.extended)
    return (None, "") if across is None else ((across[1], *across), "by the extended header")


def _axes(patient: Patient) -> Iterator[Finding]:
    found = [int(axis) for axis in patient.record["map_crs"]]
    if sorted(found) != _AXES:
        why = "They name the axes along which columns, rows and sections run: 1, 2 and 3, once each"
        patch = {"map_crs": patient.header.axis_order}
        yield Finding("MAPC MAPR MAPS", f"{why}.", _joined(found), _joined(_AXES), patch)


def _space_group(patient: Patient) -> Iterator[Finding]:
    header, found = patient.header, int(patient.record["ispg"])
    depth = int(patient.record["m"][2])
    names = {_IMAGES: "0, a stack of images", _VOLUME: "1, a volume"}
    if found in VOLUME_STACKS and not header.codec and depth > 0 and header.nz % depth:
        why = "A stack of volumes has a whole number of them: NZ sections in all, MZ a volume."
        yield Finding("ISPG", why, f"{found}, NZ {header.nz}, MZ {depth}", _CUT)
    elif found not in SPACE_GROUPS and found not in VOLUME_STACKS:
        why = "It is 0 for a stack of images, 1 for a volume, 401 for a stack of volumes."
        shape = (header.nz, header.ny, header.nx)
        volume = holds_volume(_IMAGES, depth, shape, patient.path, header.labels)
        new = _VOLUME if volume else _IMAGES
        yield Finding("ISPG", why, str(found), names[new], {"ispg": new})
    elif found == _IMAGES and header.is_volume:
        why = (
            "It says that these are images; but MZ says that they are the sections of a volume, "
            "and they form a cube, or the file's name or a label says so too."
        )
        yield Finding("ISPG", why, f"0, MZ {depth}", names[_VOLUME], {"ispg": _VOLUME})


def _group(patient: Patient) -> int:
    """Return the space group, that of images where there is no such group."""
    found = int(patient.record["ispg"])
    return found if found in SPACE_GROUPS or found in VOLUME_STACKS else _IMAGES


def _extended_nbytes(patient: Patient) -> Iterator[Finding]:
    found, true = patient.stated.nsymbt, patient.header.nsymbt
    if found != true:
        first = patient.header.data_offset
        why = f"The pixels begin at byte {first}, not where the length of the extended header says."
        yield Finding("NSYMBT", why, f"{found} bytes", f"{true} bytes", {"nsymbt": true})


def _surplus(patient: Patient) -> Iterator[Finding]:
    layout, header = patient.layout, patient.header
    last = int(layout.index.offsets[-1]) + int(layout.index.sizes[-1])
    # Bytes after the frames that are not our footer. Of a frame cut off, NZ tells.
    surplus = layout.end - last
    if surplus <= 0 or header.nz < patient.announced:
        return
    why = f"{surplus} bytes after the last frame are spoken of nowhere in the header."
    proposed = "Compare the frames with the original; other programs take no harm"
    yield Finding("file length", why, f"{patient.nbytes} bytes", proposed)


def _triple(values: npt.NDArray[np.int32]) -> tuple[int, int, int]:
    x, y, z = (int(value) for value in values)
    return x, y, z


def _joined(values: Iterable[Any]) -> str:
    return " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
