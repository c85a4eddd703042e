"""Where files lie that can be made again."""

from __future__ import annotations

from pathlib import Path

import platformdirs

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Give the user's folder for them; nothing else is ever put beside what a user owns."""
    return Path(platformdirs.user_cache_dir("napari-mrcz", appauthor=False))
