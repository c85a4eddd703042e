"""What a notebook shows of a stack."""

import base64
import io
import re
from unittest import mock

import numpy as np
import pytest
from PIL import Image

import napari_mrcz as nm
from napari_mrcz.stack import inspection


def picture(html):
    data = re.search(r"data:image/png;base64,([^\"]+)", html)[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image)


def test_the_sum_and_what_is_known(tmp_path):
    frames = np.random.default_rng(0).poisson(5, (7, 300, 520)).astype(np.uint8)
    frames[:, 100:200, 40:260] += 6
    nm.write(tmp_path / "a<b>&.mrcz", frames, pixel_size=1.25)
    movie = nm.open(tmp_path / "a<b>&.mrcz")
    html = movie.apply(nm.OutlierFilter.fit(movie))._repr_html_()
    seen = picture(html)
    assert seen.shape == (100, 173)
    assert seen[40:60, 20:80].min() > seen[80:, 100:].max()
    for said in ("a&lt;b&gt;&amp;.mrcz", "7 frames of 300 × 520", "uint8", "1.25 Å", "on disk"):
        assert said in html
    assert "1. Outlier pixels replaced" in html
    assert "sum of 7 frames" in html
    assert "<b>" not in html.replace("<br>", "")


def test_a_long_movie_is_sampled_and_that_is_said():
    frames = np.ones((50, 16, 16))
    frames[1::2] = np.nan
    with mock.patch.object(inspection, "_READ", 5 * 256):
        html = nm.Stack.from_array(frames)._repr_html_()
    assert "sum of 5 of 50 frames" in html
    assert "pixel size" in html and "unknown" in html and "on disk" not in html


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, 1, 900)),
        np.full((2, 8, 8), np.nan),
        np.ones((2, 5, 3), np.complex64),
        np.ones((2, 5, 3), bool),
    ],
)
def test_every_kind_of_frame_has_a_picture(frames):
    assert picture(nm.Stack.from_array(frames)._repr_html_()).ndim == 2


def test_frames_that_cannot_be_read_are_a_warning(tmp_path):
    nm.write(tmp_path / "a.mrcz", np.random.default_rng(0).poisson(9, (2, 64, 64)))
    data = bytearray((tmp_path / "a.mrcz").read_bytes())
    with nm.open(tmp_path / "a.mrcz") as movie:
        start = int(movie._source.index.offsets[1])
    data[start + 4 : start + 60] = bytes(56)
    (tmp_path / "a.mrcz").write_bytes(data)
    with nm.open(tmp_path / "a.mrcz") as movie:
        html = movie._repr_html_()
    assert "no picture: " in html and "<img" not in html
