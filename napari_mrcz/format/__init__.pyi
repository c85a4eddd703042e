from .encoding import (
    Encoding,
    choose_encoding,
    compressed_fraction,
    shannon_fraction,
)
from .header import (
    Header,
)
from .header_writing import (
    Description,
)
from .reader import (
    FrameFault,
    FrameReader,
)
from .writer import (
    Estimate,
    Progress,
    estimate,
    write_frames,
)

__all__ = [
    "Description",
    "Encoding",
    "Estimate",
    "FrameFault",
    "FrameReader",
    "Header",
    "Progress",
    "choose_encoding",
    "compressed_fraction",
    "estimate",
    "shannon_fraction",
    "write_frames",
]
