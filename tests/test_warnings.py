"""Warnings of files: whose they are, and where they point."""

import threading
import warnings

import numpy as np
import pytest
import tifffile

import napari_mrcz as nm
from napari_mrcz.errors import collected_warnings, warn


def test_each_thread_collects_its_own_and_leaves_the_filters():
    filters, show = list(warnings.filters), warnings.showwarning
    both = threading.Barrier(2, timeout=10)
    found = {}

    def collect(name):
        with collected_warnings() as messages:
            both.wait()
            warn(name)
            both.wait()
            found[name] = list(messages)

    threads = [threading.Thread(target=collect, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"one": ["one"], "other": ["other"]}
    assert list(warnings.filters) == filters
    assert warnings.showwarning is show


def test_a_block_within_another_collects_for_itself():
    with collected_warnings() as outer:
        with collected_warnings() as inner:
            warn("within")
        warn("after")
    assert (outer, inner) == (["after"], ["within"])
    with pytest.warns(nm.MrczWarning, match="then"):
        warn("then")


def test_a_warning_points_at_the_line_that_opened_the_file(tmp_path):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, np.zeros((3, 32, 32), np.uint8), photometric="minisblack")
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), append=True)
    with pytest.warns(nm.MrczWarning) as caught:
        nm.open(path).close()
    assert {warning.filename for warning in caught} == {__file__}


def test_a_script_is_warned_too():
    script = compile("warn('of a script')", "script.py", "exec")
    with pytest.warns(nm.MrczWarning) as caught:
        exec(script, {"__name__": "__main__", "__package__": None, "warn": warn})
    assert [warning.filename for warning in caught] == ["script.py"]
