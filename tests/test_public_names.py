"""The names that scripts call are there, and importing them costs neither napari nor Qt."""

import importlib
import subprocess
import sys

import pytest

import napari_mrcz as nm


@pytest.mark.parametrize("name", nm.__all__)
def test_every_public_name_is_there(name):
    assert getattr(nm, name) is not None
    assert name in dir(nm)


@pytest.mark.parametrize("name", ["decimate", "restore", "read_defects", "write_defects"])
def test_what_has_an_inverse_is_there_with_it(name):
    assert name in nm.__all__


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="nothing"):
        nm.nothing  # noqa: B018


def test_neither_napari_nor_qt_is_imported():
    code = (
        "import sys, napari_mrcz as nm; [getattr(nm, name) for name in nm.__all__];"
        "print([m for m in sys.modules if m.split('.')[0] in"
        " {'napari', 'qtpy', 'PyQt5', 'PyQt6', 'PySide2', 'PySide6', 'magicgui', 'superqt'}])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_opening_a_movie_does_not_wait_for_scipy():
    code = "import sys, napari_mrcz as nm; nm.open, nm.write; print('scipy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_corrections_are_lent_threads_whatever_else_is_imported():
    code = (
        "from napari_mrcz.correction.sums import sum_array; import numpy as np, threading;"
        "seen = set(); start = threading.Thread.start;"
        "threading.Thread.start = lambda t: (seen.add(t.name), start(t));"
        "from napari_mrcz.format import machine; machine.limit_threads(3);"
        "sum_array(np.ones((3, 4096, 4096), np.uint8)); print(any('mrcz' in n for n in seen))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True", done.stdout


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("truncation.model", "TruncationModel"),
        ("outliers.filter", "OutlierFilter"),
        ("counting.counting", "ElectronCounting"),
    ],
)
def test_pickles_of_earlier_versions_find_their_classes(module, name):
    there = importlib.import_module(f"napari_mrcz.correction.{module}")
    assert getattr(there, name) is getattr(nm.correction, name)
