"""Damage of every kind to good files of every kind: never a crash, with checksums never unnoticed.

``NAPARI_MRCZ_FUZZ=20000 pytest tests/test_format_fuzz.py`` does as many mutations of each kind;
``make test-all`` does 500.
"""

import os

import pytest
from good_files import KINDS, good_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge import judge

MUTATIONS = int(os.environ.get("NAPARI_MRCZ_FUZZ", 0))

HEADER_NBYTES = 1024
# Where sizes, mode and IMOD's flag say what the bytes mean: nothing else in a file repeats them.
MEANING = {*range(16), *range(152, 160)}

numbers = st.sampled_from(
    [0, 1, 2, 5, 6, 7, 16, 255, 256, 1024, 2**15, 2**16, 2**24]
) | st.integers(0, 2**32 - 1)
words = st.builds(
    lambda n, size, order: (n % 2 ** (8 * size)).to_bytes(size, order),
    numbers | numbers.map(lambda n: -n) | numbers.map(lambda n: 2**31 - n),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from(["little", "big"]),
)


@pytest.fixture(scope="module", params=KINDS)
def good(request, tmp_path_factory):
    return good_file(request.param, tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated")


@st.composite
def mutations(draw, size):
    """Draw a place and what is done there; more often where structure lies than among pixels."""
    place = draw(
        st.integers(0, min(HEADER_NBYTES, size) - 1)
        | st.integers(0, 255)
        | st.integers(min(HEADER_NBYTES, size - 1), min(HEADER_NBYTES + 200, size - 1))
        | st.integers(max(0, size - 300), size - 1)
        | st.integers(0, size - 1)
    )
    kind = draw(
        st.sampled_from(["flip", "flip", "overwrite", "overwrite", "remove", "insert", "cut"])
    )
    if kind == "flip":
        return kind, place, draw(st.integers(0, 7))
    if kind in ("overwrite", "insert"):
        return kind, place, draw(words | st.binary(min_size=1, max_size=32))
    if kind == "remove":
        return kind, place, draw(st.integers(1, 64) | st.integers(1, size))
    return kind, place, None


def mutated(content, steps):
    """Return the bytes after the mutations, and which places had their bits changed (or None)."""
    raw, touched = bytearray(content), set()
    for kind, place, what in steps:
        place = min(place, max(0, len(raw) - 1))
        if kind == "flip" and raw:
            raw[place] ^= 1 << what
            touched.add(place)
        elif kind == "overwrite":
            what = what[: len(raw) - place]
            raw[place : place + len(what)] = what
            touched |= set(range(place, place + len(what)))
        elif kind == "insert":
            raw[place:place] = what
            touched |= set(range(place, HEADER_NBYTES))
        elif kind == "remove":
            del raw[place : place + what]
            touched |= set(range(place, HEADER_NBYTES))
        elif kind == "cut":
            del raw[place:]
    return bytes(raw), touched


@settings(
    max_examples=MUTATIONS or settings.default.max_examples,
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_damage_never_crashes_and_with_checksums_never_goes_unnoticed(good, folder, data):
    steps = data.draw(st.lists(mutations(len(good.content)), min_size=1, max_size=3))
    raw, touched = mutated(good.content, steps)
    path = folder / good.name
    path.write_bytes(raw)
    outcome = judge(path, good)
    footer_is_there = raw[-32:-24] == b"MRCZFOOT"
    if not (good.checksums and footer_is_there) or touched & MEANING:
        return
    assert outcome.warned or not outcome.wrong, outcome
    if not (outcome.error or outcome.warned or outcome.refused):
        assert (outcome.shape, outcome.dtype) == (good.pixels.shape, good.pixels.dtype.name)


@pytest.mark.parametrize("step", [61, pytest.param(3, marks=pytest.mark.slow)])
def test_no_flipped_bit_gives_wrong_pixels_where_there_are_checksums(good, folder, step):
    path = folder / good.name
    size = len(good.content)
    # All of what says what the bytes mean, and samples of the rest.
    places = {
        *range(16),
        *range(16, 256, step),
        *range(HEADER_NBYTES, size, step),
        *range(size - 40, size),
    }
    for place in sorted(places):
        for bit in range(8) if place < 16 else (place % 8,):
            raw = bytearray(good.content)
            raw[place] ^= 1 << bit
            path.write_bytes(raw)
            outcome = judge(path, good)
            if good.checksums:
                assert not outcome.wrong, (place, bit, outcome)
