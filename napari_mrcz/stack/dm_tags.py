"""The tags of a DM3 or DM4 file as a tree of plain values.

A file is a group of tags, which have names or none. A tag is a group, or a number, a structure of
numbers, a text or an array. Numbers of the layout are big-endian, those in tags usually
little-endian: Gatan never published it; this follows what Greg Jefferis and Chris Boothroyd found
(http://www.er-c.org/cbb/info/dmformat/), and is compared with ncempy, which makes text of arrays of
numbers and knows no limits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured

from napari_mrcz.errors import MrczError

if TYPE_CHECKING:
    from napari_mrcz.format.files import RandomAccessFile

_GROUP, _DATA = 20, 21
_STRUCTURE, _STRING, _ARRAY = 15, 18, 20
_USHORT = 4
_NUMBERS = {2: "i2", 3: "i4", _USHORT: "u2", 5: "u4", 6: "f4", 7: "f8", 8: "u1", 9: "i1", 10: "u1",
            11: "i8", 12: "u8"}  # fmt: skip
# Real files have some thousand tags, in some ten levels.
_MOST_TAGS, _DEEPEST, _MOST_FIELDS = 2**17, 64, 2**10
_SHORTEST_TAG = 9
_AHEAD = 2**16


@dataclass(frozen=True)
class ArrayPlace:
    """An array that was not read, as it is long or an image's.

    Attributes
    ----------
    offset, nbytes : int
        Where it lies.
    """

    offset: int
    nbytes: int


def read_tags(
    file: RandomAccessFile, longest: int, most: int
) -> tuple[dict[str, Any], Literal["<", ">"], int]:
    """Read all tags of a file.

    Parameters
    ----------
    file : RandomAccessFile
        The file.
    longest, most : int
        Bytes of one array, and of all arrays together, that are read; all others, and the pixels
        of images, become an `ArrayPlace`.

    Returns
    -------
    dict
        Groups are maps, or lists where tags have no names.
    str
        The byte order of the numbers, "<" or ">".
    int
        Where the tags end.

    Raises
    ------
    MrczError
        If it is not such a file, damaged or cut off.
    """
    reader = _Reader(file, longest, most)
    return reader.root(), reader.order, reader.at


class _Reader:
    def __init__(self, file: RandomAccessFile, longest: int, most: int) -> None:
        self._path, self._file = file.path, file
        self._longest, self._left = longest, most
        self._end = file.nbytes
        # Where it reads; what was read ahead from where.
        self.at, self._ahead, self._start = 0, b"", 0
        self._n_tags = 0
        (version,) = struct.unpack(">I", self._read(4))
        if version not in (3, 4):
            raise MrczError(self._path, "neither a DM3 nor a DM4 file", offset=0)
        # Sizes and counts of the layout.
        self._long = "I" if version == 3 else "Q"
        _, little = self._unpack(f"{self._long}I")
        if little not in (0, 1):
            raise MrczError(self._path, f"a byte order of {little}, where DM files have 0 or 1")
        self.order: Literal["<", ">"] = "<" if little else ">"

    def root(self) -> dict[str, Any]:
        group = self._group(0)
        return group if isinstance(group, dict) else {}

    def _group(self, depth: int) -> dict[str, Any] | list[Any]:
        if depth > _DEEPEST:
            raise self._damaged(f"groups of tags more than {_DEEPEST} deep")
        _, _, count = self._unpack(f"BB{self._long}")
        self._n_tags += count
        if self._n_tags > _MOST_TAGS or count * _SHORTEST_TAG > self._end - self.at:
            raise self._damaged(f"a group of {count} tags")
        named: dict[str, Any] = {}
        unnamed: list[Any] = []
        for _ in range(count):
            kind, length = self._unpack("BH")
            name = self._read(length).decode("latin-1")
            if self._long == "Q":
                self._unpack("Q")  # bytes to the next tag
            if kind == _GROUP:
                value: Any = self._group(depth + 1)
            elif kind == _DATA:
                value = self._data(name)
            else:
                raise self._damaged(f"a tag of kind {kind}")
            if not name:
                unnamed.append(value)
                continue
            named[_free_name(name, named)] = value
        if not named:
            return unnamed
        for at, value in enumerate(unnamed):
            named[_free_name(str(at), named)] = value
        return named

    def _data(self, name: str) -> Any:
        if self._read(4) != b"%%%%":
            raise self._damaged("a tag without its mark")
        (count,) = self._unpack(self._long)
        if not 0 < count <= _MOST_FIELDS:
            raise self._damaged(f"a tag described by {count} numbers")
        kind, *about = self._unpack(f"{count}{self._long}")
        if kind in _NUMBERS:
            return self._numbers([kind], 1).item()
        if kind == _STRING and len(about) == 1:
            return _decoded(self._read(about[0]))
        if kind == _STRUCTURE:
            return list(self._numbers(self._fields(about), 1)[0].item())
        if kind == _ARRAY and len(about) >= 2:
            kinds = self._fields(about[1:-1]) if about[0] == _STRUCTURE else [about[0]]
            return self._array(name, kinds, about[-1])
        raise self._damaged(f"a tag of type {kind}")

    def _fields(self, about: list[int]) -> list[int]:
        """Return the types of a structure: about it are told a length, a count, and pairs."""
        kinds = about[3::2]
        if len(about) < 2 or len(kinds) != about[1] or not kinds:
            raise self._damaged("a structure whose fields are not as many as it says")
        return kinds

    def _array(self, name: str, kinds: list[int], count: int) -> Any:
        offset = self.at
        nbytes = count * self._dtype(kinds).itemsize
        if offset + nbytes > self._end:
            raise self._damaged(f"{nbytes} bytes of {name!r}, which end beyond the file")
        if name == "Data" or nbytes > min(self._longest, self._left):
            self.at += nbytes
            return ArrayPlace(offset, nbytes)
        self._left -= nbytes
        values = self._numbers(kinds, count)
        if kinds != [_USHORT]:
            return structured_to_unstructured(values) if values.dtype.names else values
        try:
            text = values.astype("<u2").tobytes().decode("utf-16-le").rstrip("\0")
        except UnicodeDecodeError:
            return values
        return text if all(c.isprintable() or c.isspace() for c in text) else values

    def _numbers(self, kinds: list[int], count: int) -> Any:
        dtype = self._dtype(kinds)
        stored = np.frombuffer(self._read(count * dtype.itemsize), dtype)
        return stored.astype(dtype.newbyteorder("="))

    def _dtype(self, kinds: list[int]) -> np.dtype[Any]:
        if unknown := set(kinds) - _NUMBERS.keys():
            raise self._damaged(f"numbers of type {min(unknown)}")
        types = [np.dtype(self.order + _NUMBERS[kind]) for kind in kinds]
        return (
            types[0] if len(types) == 1 else np.dtype([(f"f{i}", t) for i, t in enumerate(types)])
        )

    def _unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(f">{form}", self._read(struct.calcsize(f">{form}")))

    def _read(self, nbytes: int) -> bytes:
        if nbytes > self._end - self.at:
            raise self._damaged("it ends within a tag: cut off or damaged")
        if self.at + nbytes > self._start + len(self._ahead) or self.at < self._start:
            self._ahead, self._start = self._file.read(self.at, max(nbytes, _AHEAD)), self.at
        found = self._ahead[self.at - self._start : self.at - self._start + nbytes]
        self.at += nbytes
        if len(found) != nbytes:
            raise self._damaged("it became shorter while it was read")
        return found

    def _damaged(self, found: str) -> MrczError:
        return MrczError(self._path, f"a damaged DM file: {found}", offset=self.at)


def _free_name(name: str, named: dict[str, Any]) -> str:
    """Return a name, numbered if it is among others already."""
    again = 1
    while (key := f"{name} ({again})" if again > 1 else name) in named:
        again += 1
    return key


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
