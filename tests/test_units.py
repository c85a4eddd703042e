"""Units of length, however a program writes them, and the movies and layers that have them."""

import numpy as np
import pytest
from foreign_files import DmWriter, image

import napari_mrcz as nm
from napari_mrcz.naming import angstroms
from napari_mrcz.plugin.layers import stack_of

GREEK, SIGN = "\N{GREEK SMALL LETTER MU}m", "\N{MICRO SIGN}m"
COUNTS = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (["pm", "picometer"], 0.01),
        (["A", "Å", "\N{ANGSTROM SIGN}", "A\N{COMBINING RING ABOVE}", "angstrom"], 1.0),
        (["nm", "nanometer"], 10.0),
        (["um", GREEK, SIGN, "micron", "micrometer"], 1e4),
        (["mm", "millimeter"], 1e7),
        (["m", "meter"], 1e10),
        (["", "pixel", "1/nm", "s", "a", "NM", "μ"], None),
    ],
)
def test_lengths_are_known_however_they_are_written(units, expected):
    assert {unit: angstroms(unit) for unit in units} == dict.fromkeys(units, expected)


@pytest.mark.parametrize("unit", ["um", GREEK, SIGN])
def test_layers_in_micrometres(unit):
    stack = stack_of(COUNTS, {"scale": [1, 2e-4, 3e-4], "units": ["pixel", unit, unit]})
    assert stack.pixel_size == pytest.approx((0, 2, 3))


@pytest.mark.parametrize(
    ("scale", "unit", "expected"),
    [
        (2e-4, "um", 2.0), (2e-4, GREEK, 2.0), (2e-4, SIGN, 2.0), (0.25, "nm", 2.5),
        (3.0, "Å", 3.0), (3.0, "A", 3.0), (0.25, "1/nm", 0.0), (0.25, "", 0.0),
    ],
)  # fmt: skip
def test_movies_of_digital_micrograph(tmp_path, scale, unit, expected):
    path = tmp_path / "movie.dm3"
    path.write_bytes(DmWriter(3).images([image(COUNTS, scale, unit)]))
    with nm.open(path) as movie:
        np.testing.assert_array_equal(np.asarray(movie), COUNTS[:, ::-1])
        assert movie.pixel_size == pytest.approx((0, expected, expected))


@pytest.mark.parametrize("n", [1, 2])
def test_pixels_of_digital_micrograph_that_are_not_square(tmp_path, n):
    """Also of one frame, whose axis falls away in between."""
    path = tmp_path / "movie.dm3"
    axes = [(0.25, "nm"), (3.0, "Å"), (1.0, "")]
    path.write_bytes(DmWriter(3).images([image(COUNTS[:n], axes=axes)]))
    with nm.open(path) as movie:
        np.testing.assert_array_equal(np.asarray(movie), COUNTS[:n, ::-1])
        assert movie.pixel_size == pytest.approx((0, 3, 2.5))
