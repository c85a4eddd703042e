"""Corrections are rebuilt from their descriptions, through a file, and do the same to the bit."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import napari_mrcz as nm
from napari_mrcz.correction import (
    GainNormalization,
    KomaNormalization,
    fingerprint,
    rebuild,
    register,
    replay,
)
from napari_mrcz.correction.history import described


@register
@dataclass(frozen=True)
class _Shifted:
    offset: int

    def __call__(self, frame, index):
        return frame + (self.offset + index)

    def describe(self):
        return described(self, offset=self.offset)

    @classmethod
    def from_description(cls, description):
        return cls(description["offset"])


def test_a_history_is_replayed_from_a_file_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, (4, 16, 24)).astype(np.uint8)
    gain = GainNormalization(rng.uniform(0.5, 2, (24, 16)), 0.87, rng.random((16, 24)), "rot270")
    average = rng.random((16, 24))
    koma = KomaNormalization(average, average.mean(), 7, ("a.mrcz", "b.mrcz"))
    stack = nm.Stack.from_array(counts).apply(_Shifted(5)).apply(gain).apply(koma)
    nm.write(tmp_path / "corrected.mrcz", stack)
    with nm.open(tmp_path / "corrected.mrcz") as corrected:
        history, saved = corrected.history, np.asarray(corrected)
    assert [step["name"] for step in history] == [
        "_Shifted",
        "GainNormalization",
        "KomaNormalization",
    ]
    assert all(step["software"].startswith("napari-mrcz") for step in history)
    assert rebuild(history[2]).neighbours == ("a.mrcz", "b.mrcz")
    lazy = replay(history, nm.Stack.from_array(counts))
    assert isinstance(lazy, nm.Stack)
    for again in (np.asarray(lazy), replay(history, counts)):
        np.testing.assert_array_equal(again.view(np.uint32), saved.view(np.uint32))
    np.testing.assert_array_equal(saved, np.asarray(stack))


def test_what_cannot_be_rebuilt_says_which_step():
    good = GainNormalization(np.ones((2, 2))).describe()
    with pytest.raises(ValueError, match=r"step 1 of the history: .*'Magic'.*GainNormalization"):
        replay([good, {"name": "Magic"}], np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="step 0"):
        replay([{}], np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="step 0 of the history: a step is a dictionary, not str"):
        replay("movie.mrcz", np.ones((1, 2, 2)))
    damaged = good | {"reference": np.full((2, 2), 2, np.float32)}
    with pytest.raises(ValueError, match=r"'GainNormalization' of napari-mrcz.*checksum"):
        rebuild(damaged)
    with pytest.raises(ValueError, match="cannot be rebuilt: 'gamma'"):
        rebuild({k: v for k, v in good.items() if k != "gamma"})


def test_an_empty_history_changes_nothing():
    counts = np.arange(8).reshape(2, 2, 2)
    np.testing.assert_array_equal(replay([], counts), counts)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(plain, plain)
def test_fingerprints_differ_where_descriptions_do(one, other):
    # repr tells 1 from True and 0.0 from -0.0, as the fingerprint does.
    assert (fingerprint(one) == fingerprint(other)) == (_text(one) == _text(other))


def _text(value):
    if isinstance(value, dict):
        return f"map {sorted((key, _text(item)) for key, item in value.items())}"
    return repr([_text(v) for v in value]) if isinstance(value, list) else f"{type(value)}{value!r}"


def test_fingerprints_are_of_content():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    same = fingerprint({"b": (1, np.float64(2.5)), "a": array})
    assert same == fingerprint({"a": np.asfortranarray(array), "b": [1, 2.5]})
    others = [array.T, array.reshape(3, 2), array.astype(np.float64), array + 1]
    assert len({same, *(fingerprint({"b": [1, 2.5], "a": other}) for other in others)}) == 5
