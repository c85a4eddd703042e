"""How much metadata is believed: counted before it is decoded, since a few bytes can name a lot.

A map takes one byte in msgpack and two in JSON, but some hundred in memory; and what is nested
deeply can neither be copied nor pickled.
"""

from __future__ import annotations

from typing import Any

# Far above any metadata written by hand or program, far below Python's recursion limit.
DEEPEST = 250
LARGEST_JSON = 2**25
# Numbers, texts, arrays (one each), lists and maps that any file may hold (decoded, they take 50 MB
# at most), and the bytes on disk that each further one must have taken: 25 MB of text is real.
_FREE_VALUES = 2**18
_NBYTES_A_VALUE = 4

# Of each first byte from 0xc4 on, the bytes that follow it: of fixed number, or as many as the
# integer of this many bytes says, and some.
_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FIXED |= {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
_FIXED |= {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}  # lists, maps: what they hold follows
_COUNTED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)}
_COUNTED |= {0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)}
_EXTENSIONS = {0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8}
_VALUES_AN_EXTENSION = 4  # timestamps and the like become objects of some size


def most_values(stored_nbytes: int) -> int:
    """Give how many values are believed of metadata that take so many bytes on disk."""
    return max(_FREE_VALUES, stored_nbytes // _NBYTES_A_VALUE)


def check_msgpack(payload: bytes, most: int) -> None:
    """Refuse msgpack of more than `most` values.

    Raises
    ------
    ValueError
        Saying so.
    """
    position = count = 0
    end = len(payload)
    while position < end:
        first = payload[position]
        count += _VALUES_AN_EXTENSION if first in _EXTENSIONS else 1
        if count > most:
            raise ValueError(f"more than {most} values")
        position += 1
        if 0xA0 <= first < 0xC0:
            position += first & 0x1F
        elif first in _FIXED:
            position += _FIXED[first]
        elif first in _COUNTED:
            width, more = _COUNTED[first]
            position += width + more + int.from_bytes(payload[position : position + width], "big")


def check_json(text: bytes, most: int) -> None:
    """Refuse JSON that is longer than any metadata, or holds more than `most` values.

    Raises
    ------
    ValueError
        Saying so.
    """
    if len(text) > LARGEST_JSON:
        raise ValueError(f"{len(text)} bytes of JSON are more than any program writes")
    if sum(map(text.count, (b",", b":", b"[", b"{"))) > most:
        raise ValueError(f"more than {most} values")


def check_content(content: Any, most: int) -> None:
    """Refuse lists and maps nested too deeply to be copied, or of more than `most` values.

    Raises
    ------
    ValueError
        Saying so.
    """
    level, count = [content], 0
    for _ in range(DEEPEST):
        level = [inner for value in level for inner in _contents(value)]
        count += len(level)
        if count > most:
            raise ValueError(f"more than {most} values")
        if not level:
            return
    raise ValueError(f"nested deeper than {DEEPEST}")


def _contents(value: Any) -> Any:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else ()
