"""Files of other programs' formats, written here byte by byte from what is known of them."""

import struct

import numpy as np

DM_TYPES = {"i2": 1, "f4": 2, "c8": 3, "u1": 6, "i4": 7, "i1": 9, "u2": 10, "u4": 11, "f8": 12}
RGB = 23
_NUMBERS = {"i2": 2, "i4": 3, "u2": 4, "u4": 5, "f4": 6, "f8": 7, "u1": 8, "i8": 11, "u8": 12}


class DmWriter:
    """Writes DM3 or DM4 files, their numbers in one of both byte orders."""

    def __init__(self, version=4, order="<"):
        self.version, self.order = version, order
        self.long = ">I" if version == 3 else ">Q"

    def file(self, tags):
        """Return a file with these tags: maps, lists, numbers of numpy, texts, arrays."""
        root = self._group(tags)
        head = struct.pack(">I", self.version) + self._long(len(root))
        return head + struct.pack(">I", self.order == "<") + root

    def images(self, images, thumbnail=None, **tags):
        """Return a file with these objects, as `image` describes them."""
        if thumbnail is not None:
            tags["Thumbnails"] = [{"ImageIndex": np.uint32(thumbnail)}]
        return self.file({"ImageList": images, **tags})

    def _long(self, *numbers):
        return b"".join(struct.pack(self.long, number) for number in numbers)

    def _group(self, tags):
        named = tags.items() if isinstance(tags, dict) else [("", value) for value in tags]
        content = b"".join(self._tag(name.encode("latin-1"), value) for name, value in named)
        return struct.pack(">BB", 1, 0) + self._long(len(tags)) + content

    def _tag(self, name, value):
        group = isinstance(value, dict | list)
        body = self._group(value) if group else b"%%%%" + self._value(value)
        size = self._long(len(body)) if self.version == 4 else b""
        return struct.pack(">BH", 20 if group else 21, len(name)) + name + size + body

    def _value(self, value):
        if isinstance(value, str):
            value = np.frombuffer(value.encode("utf-16-le"), "<u2")
        value = np.asarray(value)
        raw = value.astype(value.dtype.newbyteorder(self.order)).tobytes()
        if isinstance(value, np.ndarray) and value.ndim:
            # Complex pixels and colours are arrays of other things here, of no matter which.
            kind = _NUMBERS.get(value.dtype.str[1:], 8)
            count = value.size if kind != 8 else value.nbytes
            return self._long(3, 20, kind, count) + raw
        return self._long(1, _NUMBERS[value.dtype.str[1:]]) + raw


def image(pixels, scale=1.0, unit="nm", *, data_type=None, axes=None, **tags):
    """Return the tags of an object with pixels (…, y, x); `axes` are (scale, unit), x first."""
    shape = pixels.shape[:-1] if data_type == RGB else pixels.shape
    axes = axes or [(scale, unit)] * len(shape)
    return {
        "ImageData": {
            "Calibrations": {"Dimension": [{"Scale": np.float32(s), "Units": u} for s, u in axes]},
            "Data": pixels,
            "DataType": np.uint32(data_type or DM_TYPES[pixels.dtype.str[1:]]),
            "Dimensions": [np.uint32(n) for n in reversed(shape)],
        },
        "ImageTags": tags,
    }


TVIPS_FRAME = np.dtype(
    "<u4,<u4,<u4,<u4,<f4,<u4,<u4,<f4,<f4,<f4,<f4,<f4,<u4,<f4,<f4"
)  # number, s, ms, …, mode (f6), stage x, y, z, alpha (f10), beta


def write_tvips(path, frames, *, version=2, parts=1, own=None, binning=1, mode=1, magnification=0):
    """Write a recording as the camera's own program does; return its first file and all files."""
    n, y, x = frames.shape
    own = own or (64 if version == 2 else 12)
    head = np.zeros(64, "<u4")
    bits = frames.itemsize * 8
    head[:13] = 256, version, x, y, bits, 0, 0, binning, binning, 15600, 200, magnification, own
    files = []
    for part, some in enumerate(np.array_split(np.arange(n), parts)):
        files.append(path.with_stem(f"{path.stem}_{part:03d}"))
        with files[-1].open("wb") as file:
            file.write(head.tobytes() if part == 0 else b"")
            for i in some:
                about = np.zeros((), TVIPS_FRAME)
                about["f0"], about["f1"], about["f6"] = i + 1, 1_600_000_000 + i, mode
                about["f10"] = -60 + 0.5 * i
                file.write(about.tobytes()[:own].ljust(own, b"\0"))
                file.write(np.ascontiguousarray(frames[i, ::-1]).astype(f"<u{bits // 8}").tobytes())
    return files


def smv_bytes(pixels, *, named="TYPE", kind="unsigned_short", order="little", length=512, **header):
    """Return an SMV image of pixels (y, x) or (n, y, x), rows in the order of MRC files."""
    sizes = {f"SIZE{axis + 1}": size for axis, size in enumerate(reversed(pixels.shape))}
    items = {"DIM": pixels.ndim, "BYTE_ORDER": f"{order}_endian", named: kind, **sizes, **header}
    lines = "".join(f"{name}={value};\n" for name, value in items.items())
    head = f"{{\nHEADER_BYTES={length:5d};\n{lines}}}\n".encode()
    stored = pixels[..., ::-1, :].astype(
        pixels.dtype.newbyteorder("<" if order == "little" else ">")
    )
    return head.ljust(length) + stored.tobytes()
