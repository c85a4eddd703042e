"""Metadata as large as the article's sample (25 MB of text) comes back as it was."""

import numpy as np
import pytest

import napari_mrcz as nm


@pytest.mark.parametrize("n", [6_000, pytest.param(60_000, marks=pytest.mark.slow)])
def test_a_record_for_each_of_many_images_comes_back(tmp_path, n):
    # Ten thousand times fewer values than bytes would be a bomb; these are ordinary.
    records = [
        {"stage": {"x": i / 7, "y": -i / 3}, "name": f"image_{i:06d}", "notes": ["a", str(i)]}
        for i in range(n)
    ]
    path = tmp_path / "movie.mrcz"
    nm.write(path, np.zeros((2, 8, 8), np.uint8), metadata={"images": records})
    with nm.open(path) as movie:
        assert movie.metadata == {"images": records}
