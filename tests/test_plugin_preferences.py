"""The plugin's settings in napari, and what heeds them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.format import machine
from napari_mrcz.plugin import hooks as module
from napari_mrcz.plugin.hooks import Preferences, preferences, read

napari_settings = pytest.importorskip("napari.settings")
if not hasattr(napari_settings, "get_plugin_settings"):
    pytest.skip("before napari 0.9 plugins had no settings", allow_module_level=True)


@pytest.fixture
def settings() -> Iterator[Any]:
    """Return the settings, which are put back afterwards."""
    found = napari_settings.get_plugin_settings("napari-mrcz")
    yield found
    found.reset()
    machine.limit_threads(0)


def test_what_is_not_set_is_the_librarys_own(settings):
    """The manifest and the library say the same."""
    assert replace(preferences(), cache_nbytes=0) == replace(Preferences(), cache_nbytes=0)
    assert preferences().cache_nbytes == pytest.approx(Preferences().cache_nbytes, rel=0.05)


def test_files_are_opened_as_it_is_set(settings, tmp_path):
    """Without reading ahead, and with fewer threads."""
    nm.write(tmp_path / "a.mrcz", np.zeros((9, 8, 8), np.uint8))
    settings.browsing.read_ahead = False
    settings.browsing.cache_mb = 5
    settings.browsing.threads = 1
    ((stack, _, _),) = read(str(tmp_path / "a.mrcz"))
    assert stack._caching == {"read_ahead": False, "cache_nbytes": 5_000_000}
    assert machine.processors() == 1
    stack.close()


def test_the_save_widget_begins_with_what_is_set(settings, viewer):
    """Codec and level."""
    settings.saving.codec = "lz4"
    settings.saving.level = 9
    _, widget = viewer.window.add_plugin_dock_widget("napari-mrcz", "Save")
    assert (widget.form.options.codec, widget.form.options.level) == ("lz4", 9)


def test_a_plugin_that_is_not_installed_has_defaults(monkeypatch):
    """Such as one that is run from its folder."""
    monkeypatch.setattr(module, "_PLUGIN", "no-such-plugin")
    assert preferences() == Preferences()
