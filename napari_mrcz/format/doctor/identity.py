"""Checks of what is said of the file itself: mark, byte order, standard, labels, mode-0 sign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_mrcz.format.doctor.finding import Finding
from napari_mrcz.format.header import mrcz_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_mrcz.format.doctor.finding import Patient
    from napari_mrcz.format.statistics import Statistics

_STANDARDS = (20140, 20141)
_STAMPS = {"<": ((0x44, 0x44), (0x44, 0x41)), ">": ((0x11, 0x11),)}
_ORDERS = {"<": "little-endian", ">": "big-endian"}
_IMOD_STAMP = 1146047817
_SIGNED = 1
_LARGEST_SIGNED_BYTE = 127


def check_identity(patient: Patient) -> Iterator[Finding]:
    """Return the findings in the order in which they lie in the header."""
    if is_mixed(patient):
        why = (
            "Some fields are little-endian, others big-endian, as mrcz before 0.6 wrote them; "
            "other programs read these fields wrongly."
        )
        yield Finding("byte order", why, "both", "Save it anew: the pixels are read rightly")
        return
    record = patient.record
    version = int(record["nversion"])
    if version not in _STANDARDS:
        why = "The file does not say by which year of the standard it was written."
        yield Finding("NVERSION", why, str(version), "20141, MRC2014", {"nversion": 20141})
    if record["map"] != b"MAP ":
        why = "Programs tell by the letters 'MAP ' that this is an MRC file."
        found = repr(bytes(record["map"]))[1:] if record["map"] else "nothing"
        yield Finding("MAP", why, found, "'MAP '", {"map": b"MAP "})
    yield from _stamp(patient)
    yield from _labels(patient)


def is_mixed(patient: Patient) -> bool:
    """Return whether fields of both byte orders are in one header."""
    stated, mode = patient.stated, int(patient.record["mode"])
    version = mrcz_version(stated.labels)
    old = stated.byte_order == ">" and version is not None and version < (0, 6, 0)
    return old or mode != stated.mode + 1000 * stated.codec


def check_sign(patient: Patient, measured: Statistics | None) -> Iterator[Finding]:
    """Hold what mode 0 means against the statistics, in the header and as measured.

    MRC2014 has signed bytes in mode 0; older programs had unsigned ones, and IMOD says which by a
    stamp of its own.
    """
    header, record = patient.header, patient.record
    if header.mode != 0:
        return
    flags = int(record["imod_flags"])
    stated = header.dmin <= header.dmax
    if header.unsigned_bytes:
        if stated and header.dmin < 0:
            why = "IMOD's flag says that bytes are unsigned, the statistics that some are negative."
            patch: dict[str, Any] = {"imod_flags": flags | _SIGNED}
            yield Finding("mode 0", why, "unsigned by flag", "signed, -128 to 127", patch)
        elif max(header.dmax, measured.high if measured else 0) > _LARGEST_SIGNED_BYTE:
            why = (
                "Bytes are unsigned by IMOD's flag; programs that go by MRC2014 alone take those "
                "above 127 for negative."
            )
            yield Finding("mode 0", why, "unsigned by flag", "Save it anew as uint16, mode 6")
    elif stated and header.dmin >= 0 and header.dmax > _LARGEST_SIGNED_BYTE:
        if measured is not None and measured.low < 0:
            why = (
                "Bytes are read as signed, as MRC2014 has them, but the statistics were made of "
                "unsigned ones: those above 127 come out negative."
            )
            patch = {"imod_stamp": _IMOD_STAMP, "imod_flags": flags & ~_SIGNED}
            yield Finding("mode 0", why, "signed", "unsigned, said by IMOD's flag", patch)


def _stamp(patient: Patient) -> Iterator[Finding]:
    order = patient.header.byte_order
    stamp = tuple(int(b) for b in patient.record["machst"])
    if stamp[:2] not in _STAMPS[order]:
        why = f"The file is {_ORDERS[order]}, as its sizes show, but does not say so."
        if any(stamp[:2] in stamps for stamps in _STAMPS.values()):
            why = f"The file is {_ORDERS[order]}, as its sizes show, but says the opposite."
        new = (*_STAMPS[order][0], 0, 0)
        yield Finding("machine stamp", why, _hex(stamp), _hex(new), {"machst": new})


def _labels(patient: Patient) -> Iterator[Finding]:
    record = patient.record
    count = int(record["nlabl"])
    labels = [bytes(label) for label in record["label"]]
    used = [label for label in labels if label.strip()]
    gaps = any(label.strip() for label in labels[len(used) :])
    if count == len(used) and not gaps:
        return
    why = f"Labels with text: {len(used)}; the header counts {count}."
    if gaps:
        why = "Empty labels lie between those that have text; many programs stop at the first."
    patch: dict[str, Any] = {"nlabl": len(used)}
    if gaps:
        patch["label"] = used + [b""] * (len(labels) - len(used))
    proposed = f"NLABL {len(used)}" + (", one after the other" if gaps else "")
    yield Finding("labels", why, f"NLABL {count}", proposed, patch)


def _hex(stamp: tuple[int, ...]) -> str:
    return " ".join(f"{byte:02x}" for byte in stamp)
