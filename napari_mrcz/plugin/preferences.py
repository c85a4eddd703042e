"""The plugin's own settings, under File > Preferences > MRCZ movies (napari 0.9 and newer)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari_mrcz.format.threads import limit_threads
from napari_mrcz.stack.cache import CACHE_NBYTES

_PLUGIN = "napari-mrcz"
_MB = 10**6


@dataclass(frozen=True)
class Preferences:
    """What the user prefers.

    Attributes
    ----------
    read_ahead : bool
        Decode the next frames while one is looked at.
    cache_nbytes : int
        Bytes of decoded frames to be kept of each layer.
    threads : int
        Frames decoded or compressed at a time; 0 for one a processor.
    codec, level : str, int
        What the Save widget begins with.
    """

    read_ahead: bool = True
    cache_nbytes: int = CACHE_NBYTES
    threads: int = 0
    codec: str = "zstd"
    level: int = 1


def preferences() -> Preferences:
    """Give what is set now, and let computations take as many threads as that says."""
    found = _of_napari()
    limit_threads(found.threads)
    return found


def _of_napari() -> Preferences:
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # before napari 0.9 plugins had none
        return Preferences()
    try:
        settings: Any = get_plugin_settings(_PLUGIN)
    except KeyError:  # not found as a plugin, e.g. run without being installed
        return Preferences()
    browsing, saving = settings.browsing, settings.saving
    return Preferences(
        read_ahead=bool(browsing.read_ahead),
        cache_nbytes=int(browsing.cache_mb) * _MB,
        threads=int(browsing.threads),
        codec=str(saving.codec),
        level=int(saving.level),
    )
