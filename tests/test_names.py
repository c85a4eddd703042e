"""Names of movies: their order, and what becomes of them on disk."""

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from napari_mrcz.naming import docs_url, has_movie_suffix, legal_stem, natural_key


def test_names_are_counted_as_a_person_does():
    """Numbers by their value, wherever they stand; letters whatever their case."""
    names = ["10.mrc", "2.mrc", "Movie_2b", "movie_10a", "movie_2a", "movie", "movie_2_11"]
    assert sorted(names, key=natural_key) == [
        "2.mrc", "10.mrc", "movie", "movie_2_11", "movie_2a", "Movie_2b", "movie_10a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("sum of 3/4: a?", "sum of 3_4_ a_"),
        (" .hidden. ", "hidden"),
        ("tab\there", "tab_here"),
        ("σ × 2", "σ × 2"),
        (" . ", "stack"),
        ("", "stack"),
    ],
)
def test_a_stem_can_be_that_of_a_file_everywhere(name, stem):
    """Windows refuses most."""
    assert legal_stem(name) == stem


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("a.mrcz", True),
        ("A.MRC", True),
        ("a.st.gz", True),
        ("folder/a.preali.BZ2", True),
        ("a.mrc.zip", False),
        ("a.gz", False),
        ("a.tif", True),
        ("sweep_0001.IMG.gz", True),
        ("a.png", False),
    ],
)
def test_movies_are_told_by_their_suffix(name, is_one):
    """Packed ones too."""
    assert has_movie_suffix(name) == is_one


@pytest.mark.parametrize("page", ["quality.md", "widgets.md"])
def test_pages_that_are_referred_to_are_there(page):
    assert Path(url2pathname(urlsplit(docs_url(page)).path)).is_file()
