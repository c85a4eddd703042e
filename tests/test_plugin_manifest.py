"""What napari is told of the plugin. A manifest with a mistake would make the plugin vanish."""

import importlib
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import npe2
import pytest

from napari_mrcz.naming import FOREIGN_SUFFIXES, SUFFIXES

MANIFEST = Path(__file__).parents[1] / "napari.yaml"


@pytest.fixture(scope="module")
def manifest() -> npe2.PluginManifest:
    """Return the manifest by the link at the top, which must lead into the package."""
    return npe2.PluginManifest.from_file(MANIFEST)


def test_npe2_finds_it_valid():
    """As installed, with everything that it names imported."""
    command = [sys.executable, "-m", "npe2", "validate", "napari-mrcz"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "valid" in found.stdout


def test_every_command_exists(manifest):
    """And has documentation."""
    for command in manifest.contributions.commands:
        module, name = command.python_name.split(":")
        assert getattr(importlib.import_module(module), name).__doc__, command.id


def test_readers_claim_our_suffixes_and_no_more(manifest):
    """Packed ones only where the suffix below is ours."""
    (reader,) = manifest.contributions.readers

    def claimed(name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in reader.filename_patterns)

    assert reader.accepts_directories
    for suffix in (*SUFFIXES, *FOREIGN_SUFFIXES):
        for packed in ("", ".gz", ".bz2"):
            assert claimed(f"x{suffix}{packed}")
    for name in ("x.gz", "x.png", "x.tif.zip", "x.mrcx", "xmrc", "x.mrc.zip"):
        assert not claimed(name)


def test_writers_take_one_image(manifest):
    """To the suffixes that a new file should have."""
    writers = manifest.contributions.writers
    assert {e for w in writers for e in w.filename_extensions} == {".mrcz", ".mrc", ".mrcs"}
    assert all(writer.layer_types == ["image"] for writer in writers)


def test_menus_are_those_that_napari_lets_plugins_fill(manifest):
    """Others are dropped in silence."""
    from napari._app_model.constants._menus import is_menu_contributable

    menus = manifest.contributions.menus
    assert {"napari/file/io_utilities", "napari/layers/filter"} <= set(menus)
    assert all(map(is_menu_contributable, menus))


def test_the_icon_is_there(manifest):
    """By a colon: npe2 refuses a slash."""
    package, name = manifest.icon.split(":")
    assert (Path(importlib.import_module(package).__path__[0]) / name).exists()


def test_the_package_alone_needs_neither_napari_nor_qt():
    """For batch work on machines that have no screen."""
    code = (
        "import sys, napari_mrcz\n"
        "heavy = {'napari', 'qtpy', 'PyQt6', 'PyQt5', 'PySide6', 'magicgui', 'superqt', 'vispy'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
