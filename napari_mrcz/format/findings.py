"""The checks of a header: each finds what it says wrongly or not at all."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.errors import AnyPath, counted
from napari_mrcz.format.extended import microscope_settings
from napari_mrcz.format.header import (
    CODEC_NAMES,
    IMOD_STAMP,
    LARGEST_PIXEL,
    MOST_SAMPLES,
    SIGNED,
    SMALLEST_PIXEL,
    SPACE_GROUPS,
    VOLUME_STACKS,
    Header,
    header_dtype,
    holds_volume,
    mrcz_version,
    parse_header,
)
from napari_mrcz.format.header_writing import UNDETERMINED, Statistics, statistics_of
from napari_mrcz.format.machine import in_order, processors, reported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from napari_mrcz.format.reader import FrameReader, Layout


@dataclass(frozen=True)
class Finding:
    """One thing that a header says wrongly, or not at all."""

    field: str  # Name as in MRC2014, such as "MX MY MZ"
    sentence: str  # What is wrong with it, and for whom
    # What the file has; what it should have, or else what to do where `mend` cannot help.
    found: str
    proposed: str
    # What `mend` writes: fields of `HEADER_DTYPE`, and ``nz`` and ``pixel_size`` (z, y, x in Å),
    # from which the cell follows. Empty where it can do nothing.
    patch: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    header: bytes = dataclasses.field(default=b"", repr=False)  # The header in which it was found

    @property
    def mendable(self) -> bool:
        """Whether `mend` can write what is proposed."""
        return bool(self.patch)

    def __str__(self) -> str:
        what = "proposed" if self.mendable else "what to do"
        return f"{self.field}: {self.sentence} Found: {self.found}; {what}: {self.proposed}."


@dataclass(frozen=True)
class CheckedFile:
    """A file as the checks see it."""

    layout: Layout  # What opening it found out
    nbytes: int  # Its length
    path: AnyPath  # Its name
    pixel_size: float = 0.0  # What the caller knows it to be, in Å; 0.0 for nothing

    @property
    def header(self) -> Header:
        """The header as the whole file shows it to be; `nz` counts the frames that are there."""
        return self.layout.header

    @property
    def stated(self) -> Header:
        """The header as it says itself."""
        return parse_header(self.header.raw, self.path)

    @property
    def record(self) -> np.void:
        """The header's fields as they are written, in the byte order of its sizes."""
        return np.frombuffer(self.header.raw, header_dtype(self.header.byte_order))[0]

    @property
    def announced(self) -> int:
        """The frames that the header announces."""
        return int(self.record["n"][2])

    @property
    def sampling(self) -> tuple[int, int, int]:
        """MX MY MZ."""
        x, y, z = self.record["m"].tolist()
        return x, y, z


_IMAGES, _VOLUME = 0, 1
_CUT = "Save it anew, cut into the volumes that it holds"
_AXES = [1, 2, 3]


def check_geometry(checked: CheckedFile) -> Iterator[Finding]:
    """Return the findings in the order in which they lie in the header."""
    for check in (_frames, _mode, _sampling, _pixel_size, _axes, _space_group, _nsymbt, _surplus):
        yield from check(checked)


def _frames(checked: CheckedFile) -> Iterator[Finding]:
    there, announced = checked.header.nz, checked.announced
    if there == announced:
        return
    sentence = f"The file has {counted(there, 'frame')}, where the header speaks of {announced}."
    if there > announced:
        sentence += " Other programs do not see those that are more."
    else:
        sentence += " It was cut off, never finished, or has the header of another."
        header = checked.header
        rest = (checked.layout.end - header.data_offset) % header.frame_nbytes
        if rest and not header.codec:
            sentence += f" Of a frame that is not whole, {rest} bytes stay at the end."
    yield Finding("NZ", sentence, str(announced), str(there), {"nz": there})


def _mode(checked: CheckedFile) -> Iterator[Finding]:
    header, stated = checked.header, checked.stated
    if header.codec == stated.codec:
        return
    what = f"blosc chunks ({CODEC_NAMES[header.codec]})" if header.codec else "plain pixels"
    why = f"The frames are {what}; other programs go by MODE, and show a torn picture or none."
    true = header.mode + 1000 * header.codec
    depth = header.nz if header.is_volume else 1
    patch = {"mode": true, "m": (header.nx, header.ny, 0 if header.codec else depth)}
    yield Finding("MODE", why, str(header.mode + 1000 * stated.codec), str(true), patch)


def _sampling(checked: CheckedFile) -> Iterator[Finding]:
    header, found = checked.header, checked.sampling
    sizes, group = (header.nx, header.ny, header.nz), int(checked.record["ispg"])
    if header.codec != checked.stated.codec:
        return  # MODE goes with them
    # `mrcz` before 0.5 wrote sizes here: by its label, other numbers are not believed.
    old = header.mrcz_version is not None and header.mrcz_version < (0, 5, 0)
    wrong = min(found) < 0 or max(found) > MOST_SAMPLES
    wrong |= old and any(found) and found != (*sizes[:2], checked.announced)
    why = "Programs divide the cell by them to get the pixel size."
    if header.codec:
        # As `mrcz` has it: MZ of 0 is one stack, its cell divided by its sizes.
        proposed = (0, 0, 0) if old else (*sizes[:2], 0)
    elif wrong or 0 in found:
        wrong, proposed = True, sizes if header.is_volume or old else (*sizes[:2], 1)
    else:
        images = group == _IMAGES or not (group in SPACE_GROUPS or group in VOLUME_STACKS)
        wrong = images and found[2] != 1 and not old and not header.is_volume
        proposed = (*found[:2], 1)
        why = "In a stack of images MZ is 1; else programs take frames for sections of a volume."
    if wrong and group in VOLUME_STACKS:
        yield Finding("MX MY MZ", why, _joined(found), _CUT)
    elif wrong:
        yield Finding("MX MY MZ", why, _joined(found), _joined(proposed), {"m": proposed})


def _pixel_size(checked: CheckedFile) -> Iterator[Finding]:
    header = checked.header
    z = header.pixel_size[0]
    _, y, x = checked.stated.pixel_size
    stated = [float(c) for c in checked.record["cell"]]
    odd = [c for c in stated if not np.isfinite(c) or c < 0 or 0 < c <= 1e-6]
    sizes = (x, y, z) if header.is_volume else (x, y)
    extreme = any(s and not SMALLEST_PIXEL <= s <= LARGEST_PIXEL for s in sizes)
    unknown = not all(sizes)
    if not (odd or extreme or unknown):
        return
    found = f"cell of {_joined(stated)} Å" if any(stated) else "unknown"
    sentence = "The pixel size is missing: scale bars and resolutions have no Å."
    if odd:
        sentence = "The cell, from which the pixel size follows, cannot be true."
    elif extreme:
        sentence = "No microscope records pixels of this size."
        found = f"{_joined(sizes)} Å"
    known, source = _known_pixel_size(checked)
    if known is not None:
        new = known[0] if header.is_volume else z, *known[1:]
        proposed = f"{known[2]:g} × {known[1]:g} Å, {source}"
        yield Finding("pixel size", sentence, found, proposed, {"pixel_size": new})
    elif odd or extreme:
        kept = [s if SMALLEST_PIXEL <= s <= LARGEST_PIXEL else 0.0 for s in (z, y, x)]
        proposed = f"{kept[2]:g} × {kept[1]:g} Å" if all(kept[1:]) else "unknown (0)"
        yield Finding("pixel size", sentence, found, proposed, {"pixel_size": tuple(kept)})
    else:
        advice = "Enter it, if you know it: in Doctor, or napari-mrcz repair --pixel-size"
        yield Finding("pixel size", sentence, found, advice)


def _known_pixel_size(checked: CheckedFile) -> tuple[tuple[float, float, float] | None, str]:
    """Return z, y, x in Å and the source: the caller, or an extended header of FEI's."""
    if checked.pixel_size:
        return (checked.pixel_size,) * 3, "as you say"
    carried = checked.layout.carried
    kind = "" if carried is None else carried.decoded_as
    across, _ = microscope_settings(kind, checked.layout.extended)
    return (None, "") if across is None else ((across[1], *across), "by the extended header")


def _axes(checked: CheckedFile) -> Iterator[Finding]:
    found = [int(axis) for axis in checked.record["map_crs"]]
    if sorted(found) != _AXES:
        why = "They name the axes along which columns, rows and sections run: 1, 2 and 3, once each"
        patch = {"map_crs": checked.header.axis_order}
        yield Finding("MAPC MAPR MAPS", f"{why}.", _joined(found), _joined(_AXES), patch)


def _space_group(checked: CheckedFile) -> Iterator[Finding]:
    header, found, depth = checked.header, int(checked.record["ispg"]), checked.sampling[2]
    names = {_IMAGES: "0, a stack of images", _VOLUME: "1, a volume"}
    if found in VOLUME_STACKS and not header.codec and depth > 0 and header.nz % depth:
        why = "A stack of volumes has a whole number of them: NZ sections in all, MZ a volume."
        yield Finding("ISPG", why, f"{found}, NZ {header.nz}, MZ {depth}", _CUT)
    elif found not in SPACE_GROUPS and found not in VOLUME_STACKS:
        why = "It is 0 for a stack of images, 1 for a volume, 401 for a stack of volumes."
        shape = (header.nz, header.ny, header.nx)
        volume = holds_volume(_IMAGES, depth, shape, checked.path, header.labels)
        new = _VOLUME if volume else _IMAGES
        yield Finding("ISPG", why, str(found), names[new], {"ispg": new})
    elif found == _IMAGES and header.is_volume:
        too = "they form a cube, or the file's name or a label says so too."
        why = f"It says images; but MZ says that they are the sections of a volume, and {too}"
        yield Finding("ISPG", why, f"0, MZ {depth}", names[_VOLUME], {"ispg": _VOLUME})


def _nsymbt(checked: CheckedFile) -> Iterator[Finding]:
    found, true = checked.stated.nsymbt, checked.header.nsymbt
    if found != true:
        first = checked.header.data_offset
        why = f"The pixels begin at byte {first}, not where the length of the extended header says."
        yield Finding("NSYMBT", why, f"{found} bytes", f"{true} bytes", {"nsymbt": true})


def _surplus(checked: CheckedFile) -> Iterator[Finding]:
    layout, header = checked.layout, checked.header
    last = int(layout.index.offsets[-1]) + int(layout.index.sizes[-1])
    # Bytes after the frames that are not our footer. Of a frame cut off, NZ is right.
    surplus = layout.end - last
    if surplus <= 0 or header.nz < checked.announced:
        return
    why = f"{surplus} bytes after the last frame are nowhere in the header."
    proposed = "Compare the frames with the original; other programs ignore them"
    yield Finding("file length", why, f"{checked.nbytes} bytes", proposed)


def _joined(values: Iterable[Any]) -> str:
    return " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


_STANDARDS = (20140, 20141)
_STAMPS = {"<": ((0x44, 0x44), (0x44, 0x41)), ">": ((0x11, 0x11),)}
_ORDERS = {"<": "little-endian", ">": "big-endian"}
_LARGEST_SIGNED_BYTE = 127


def check_identity(checked: CheckedFile) -> Iterator[Finding]:
    """Return the findings in the order in which they lie in the header."""
    if is_mixed(checked):
        orders = "Some fields are little-endian, others big-endian, as mrcz before 0.6 wrote them"
        why = f"{orders}; other programs read these fields wrongly."
        yield Finding("byte order", why, "both", "Save it anew: the pixels are read rightly")
        return
    record = checked.record
    version = int(record["nversion"])
    if version not in _STANDARDS:
        why = "The file does not say by which year of the standard it was written."
        yield Finding("NVERSION", why, str(version), "20141, MRC2014", {"nversion": 20141})
    if record["map"] != b"MAP ":
        why = "Programs tell by the letters 'MAP ' that this is an MRC file."
        found = repr(bytes(record["map"]))[1:] if record["map"] else "nothing"
        yield Finding("MAP", why, found, "'MAP '", {"map": b"MAP "})
    yield from _stamp(checked)
    yield from _labels(checked)


def is_mixed(checked: CheckedFile) -> bool:
    """Return whether fields of both byte orders are in one header."""
    stated, mode = checked.stated, int(checked.record["mode"])
    version = mrcz_version(stated.labels)
    old = stated.byte_order == ">" and version is not None and version < (0, 6, 0)
    return old or mode != stated.mode + 1000 * stated.codec


def check_sign(checked: CheckedFile, measured: Statistics | None) -> Iterator[Finding]:
    """Compare what mode 0 means with the statistics, in the header and as measured.

    MRC2014 has signed bytes in mode 0; older programs had unsigned ones, and IMOD says which by a
    stamp of its own.
    """
    header, record = checked.header, checked.record
    if header.mode != 0:
        return
    flags = int(record["imod_flags"])
    stated = header.dmin <= header.dmax
    if header.unsigned_bytes:
        if stated and header.dmin < 0:
            why = "IMOD's flag says that bytes are unsigned, the statistics that some are negative."
            patch: dict[str, Any] = {"imod_flags": flags | SIGNED}
            yield Finding("mode 0", why, "unsigned by flag", "signed, -128 to 127", patch)
        elif max(header.dmax, measured.high if measured else 0) > _LARGEST_SIGNED_BYTE:
            flagged = "Bytes are unsigned by IMOD's flag"
            why = f"{flagged}; programs that know MRC2014 alone take those above 127 for negative."
            yield Finding("mode 0", why, "unsigned by flag", "Save it anew as uint16, mode 6")
    elif stated and header.dmin >= 0 and header.dmax > _LARGEST_SIGNED_BYTE:
        if measured is not None and measured.low < 0:
            signed = "Bytes are read as signed, as in MRC2014"
            why = f"{signed}, but the statistics are of unsigned ones: above 127 they are negative."
            patch = {"imod_stamp": IMOD_STAMP, "imod_flags": flags & ~SIGNED}
            yield Finding("mode 0", why, "signed", "unsigned, said by IMOD's flag", patch)


def _stamp(checked: CheckedFile) -> Iterator[Finding]:
    order = checked.header.byte_order
    stamp = tuple(int(b) for b in checked.record["machst"])
    if stamp[:2] not in _STAMPS[order]:
        opposite = any(stamp[:2] in stamps for stamps in _STAMPS.values())
        says = "says the opposite" if opposite else "does not say so"
        why = f"The file is {_ORDERS[order]}, as its sizes show, but {says}."
        new = (*_STAMPS[order][0], 0, 0)
        yield Finding(
            "machine stamp", why, bytes(stamp).hex(" "), bytes(new).hex(" "), {"machst": new}
        )


def _labels(checked: CheckedFile) -> Iterator[Finding]:
    record = checked.record
    count = int(record["nlabl"])
    labels = [bytes(label) for label in record["label"]]
    used = [label for label in labels if label.strip()]
    gaps = any(label.strip() for label in labels[len(used) :])
    if count == len(used) and not gaps:
        return
    why = f"{len(used)} labels have text; the header counts {count}."
    proposed = f"NLABL {len(used)}"
    patch: dict[str, Any] = {"nlabl": len(used)}
    if gaps:
        why = "Empty labels lie between those that have text; many programs stop at the first."
        proposed += ", one after the other"
        patch["label"] = used + [b""] * (len(labels) - len(used))
    yield Finding("labels", why, f"NLABL {count}", proposed, patch)


_FIELD = "DMIN DMAX DMEAN RMS"
# By how much mean and deviation may be off, relative to themselves, where all frames are measured
# (as in `mrcfile.validate`); the mean also in standard deviations, as it may be around 0.
_TOLERANCE, _MEAN_NOISE = 0.01, 1e-4
# Frames differ: ice gets thinner, beams dimmer. Beyond this (in standard deviations, and as a
# factor) a few of them still show that the number cannot be that of all.
_MEAN_OFF, _RMS_OFF = 0.5, 2.0


def measure(
    reader: FrameReader, frames: tuple[int, ...], progress: Callable[[int, int], None] | None
) -> Statistics | None:
    """Return the statistics of some frames, None of complex ones; `MrczError` for damaged ones."""
    if reader.dtype.kind == "c":
        return None

    def one(frame: int) -> Statistics:
        return statistics_of(reader.read_frame(frame)) or Statistics()

    total = Statistics()
    threads = min(len(frames), processors())
    with in_order(one, frames, threads, "napari-mrcz-doctor") as done:
        for part in reported(done, len(frames), progress):
            total += part
    return total


def check_statistics(
    checked: CheckedFile, measured: Statistics | None, n_measured: int
) -> Iterator[Finding]:
    """Compare the header's numbers with those of so many frames."""
    header, values = checked.header, None if measured is None else measured.for_header()
    low, high, mean, rms = stated = header.dmin, header.dmax, header.dmean, header.rms
    all_frames = n_measured == header.nz
    if not all(map(math.isfinite, stated)):
        why = "They are not numbers."
    elif values is None:
        return  # complex, or with pixels that are not numbers: then nothing is right or wrong
    elif high < low and mean < min(low, high) and rms < 0:
        why = "They are not determined, which is allowed; programs then guess the contrast."
        if not all_frames:
            yield Finding(_FIELD, why, _text(stated), "Check all frames, and they are filled in")
            return
    elif not any(stated) and any(values):
        why = "All are 0, which the pixels are not: they were never determined."
    elif wrong := list(_wrong(stated, values, all_frames=all_frames)):
        verb = "contradicts" if len(wrong) == 1 else "contradict"
        seen = "the pixels" if header.nz == 1 else f"the pixels of all {header.nz} frames"
        if n_measured < header.nz:
            seen = f"{n_measured} of {header.nz} frames that were checked"
        why = f"{' and '.join(wrong)} {verb} {seen}."
    else:
        return
    new, proposed = UNDETERMINED, "not determined"
    if values is not None and all_frames:
        new, proposed = values, _text(values)
    elif values is not None:
        proposed += "; check all frames, and they are filled in"
    patch = dict(zip(("dmin", "dmax", "dmean", "rms"), new, strict=True))
    yield Finding(_FIELD, why, _text(stated), proposed, patch)


def _wrong(stated: Any, values: Any, *, all_frames: bool) -> Iterator[str]:
    """Name the numbers that are not those of all frames, or cannot be, as a few of them show."""
    low, high, mean, rms = stated
    least, most = np.float32(values[0]), np.float32(values[1])
    if low <= high and (least != low if all_frames else least < low):
        yield "DMIN"
    if low <= high and (most != high if all_frames else most > high):
        yield "DMAX"
    slack = _TOLERANCE * abs(mean) + (_MEAN_NOISE if all_frames else _MEAN_OFF) * values[3]
    if mean >= min(low, high) and abs(mean - values[2]) > slack:
        yield "DMEAN"
    factor = 1 + _TOLERANCE if all_frames else _RMS_OFF
    if rms >= 0 and not rms / factor <= values[3] <= rms * factor:
        yield "RMS"


def _text(values: Any) -> str:
    return " ".join(f"{value:.4g}" for value in values)
