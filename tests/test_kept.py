"""Movies kept as counts: what opens is what was corrected, what is restored is the raw file."""

import hashlib
import json
import os
import shutil
import struct
import warnings
from dataclasses import replace
from itertools import repeat

import mrcfile
import mrcz
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import napari_mrcz as nm
from napari_mrcz.correction import Pedestal
from napari_mrcz.correction.gain import GainStep
from napari_mrcz.correction.history import fingerprint
from napari_mrcz.correction.koma import KomaNormalization
from napari_mrcz.correction.outliers.fill import Replacement
from napari_mrcz.correction.outliers.thresholds import OutlierStep
from napari_mrcz.format.footer import TRAILER_NBYTES
from napari_mrcz.session.convert import Recode, Repack
from napari_mrcz.session.correct import Correct, correct_all
from napari_mrcz.session.recipe import Output, Recipe
from napari_mrcz.simulation import Camera, simulate_movie
from napari_mrcz.stack.inspection import step_entries
from napari_mrcz.stack.kept import NOTE, packed_mean, packed_nbytes, unpacked

SHAPE = (12, 96, 112)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Return a folder with a raw movie, its gain reference and a recipe."""
    folder = tmp_path_factory.mktemp("session")
    movie = simulate_movie(SHAPE[0], SHAPE[1:], dose=1.0, seed=4)
    nm.write(folder / "movie.mrcz", movie.frames, pixel_size=1.2, metadata={"grid": 3})
    nm.write(folder / "gain.mrc", movie.camera.gain_reference)
    recipe = Recipe(OutlierStep(), GainStep(str(folder / "gain.mrc")))
    recipe.save(folder / "recipe.toml")
    return folder


@pytest.fixture(scope="module")
def results(session, tmp_path_factory):
    """Return the folder of the movie kept as counts, and that of its float32."""
    folders = []
    for keep in ("counts", "values"):
        folder = tmp_path_factory.mktemp(keep)
        recipe = kept_by(session, keep)
        Correct(str(session / "movie.mrcz"), str(folder / "movie.mrcz"), recipe)()
        folders.append(folder)
    return folders


@pytest.fixture
def kept(results, tmp_path):
    """Return the movie kept as counts, in a folder that a test may change."""
    return shutil.copytree(results[0], tmp_path / "kept") / "movie.mrcz"


def kept_by(session, keep="counts", **changes):
    recipe = Recipe.load(session / "recipe.toml")
    return replace(recipe, output=Output(keep=keep), **changes)


def gain_beside(movie):
    (gain,) = movie.parent.glob("gain-*.mrcz")
    return gain


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def outliers_of(pixels, shape, dtype, rng):
    """Return a filter that replaces these pixels, all or in some frames."""
    movie = rng.poisson(3, (4, 64, 64)).astype(np.uint8)
    replacement = Replacement(
        shape,
        pixels,
        np.ones(len(pixels), np.int8),
        rng.choice([0, 9000, 40_000, 65_000], len(pixels)).astype(np.uint16),
        np.full(len(pixels), 3, np.float32),
        1.0,
        "sample",
        0,
    )
    described = nm.OutlierFilter.fit(movie).describe()
    return nm.OutlierFilter.from_description(described | {"replacement": replacement.describe()})


# What opens ----------------------------------------------------------------------------------


@settings(max_examples=12)
@given(st.data())
def test_any_integers_gain_and_koma_come_back_bit_for_bit(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    dtype = np.dtype(data.draw(st.sampled_from(["int8", "uint8", "int16", "uint16", "int32"])))
    shape = data.draw(st.tuples(*[st.integers(1, 4), st.integers(5, 20), st.integers(5, 20)]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    limits = np.iinfo(dtype)
    raw = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    stack = nm.Stack.from_array(raw)
    if data.draw(st.booleans()):
        pixels = np.flatnonzero(rng.random(shape[1:]) < 0.2)
        stack = stack.apply(outliers_of(pixels, shape[1:], dtype, rng))
    before = stack
    reference = rng.uniform(0.5, 2, shape[1:]).astype(np.float32)
    reference[0, :3] = 0, np.nan, -1
    dark = data.draw(st.sampled_from([None, rng.normal(0, 1, shape[1:])]))
    gamma = data.draw(st.sampled_from([1.0, 0.97, -1.0]))
    turn = data.draw(st.sampled_from(["identity", "rot180", "flipud"]))
    stack = stack.apply(nm.GainNormalization(reference, gamma, dark, turn))
    if data.draw(st.booleans()):
        stack = stack.apply(KomaNormalization(rng.normal(1, 0.1, shape[1:]), 1.0))
    nm.write(folder / "a.mrcz", stack, keep="counts")
    with nm.open(folder / "a.mrcz") as again, nm.open(folder / "a.mrcz", counts=True) as counts:
        assert same_bits(again, stack)
        assert fingerprint(again.history) == fingerprint(stack.history)
        assert same_bits(counts, before)
        assert same_bits(nm.original(again), raw)
    assert len(list(folder.iterdir())) == (2 if dark is None else 3)


def test_it_is_what_is_saved_as_float32(results):
    kept, values = results
    with nm.open(kept / "movie.mrcz") as small, nm.open(values / "movie.mrcz") as large:
        assert small.dtype == np.float32
        assert same_bits(small, large)
        assert fingerprint(small.history) == fingerprint(large.history)
        assert small.metadata == large.metadata == {"grid": 3}
        assert small.pixel_size == large.pixel_size
        assert not small.description.other
        assert "not applied" in small.header.notes[-1]
        assert [e.name for e in step_entries(small.history)] == [
            "1. Outlier pixels replaced",
            "2. Gain normalised",
        ]


def test_a_movie_without_gain_is_just_integers(session, tmp_path):
    recipe = kept_by(session, gain=None)
    Correct(str(session / "movie.mrcz"), str(tmp_path / "a.mrcz"), recipe)()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with nm.open(tmp_path / "a.mrcz") as result:
            assert result.dtype == np.uint8
            assert NOTE not in result.metadata
            assert same_bits(nm.original(result), nm.read(session / "movie.mrcz"))
        nm.open(tmp_path / "a.mrcz", counts=True).close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mrcz"]


def test_a_reference_in_super_resolution_is_kept_as_it_is_applied(session, tmp_path):
    fine = np.repeat(np.repeat(nm.read_reference(session / "gain.mrc"), 2, 0), 2, 1)
    nm.write(tmp_path / "fine.mrc", fine)
    gain = GainStep(str(tmp_path / "fine.mrc"), gamma=-0.98)
    for keep in ("counts", "values"):
        recipe = kept_by(session, keep, gain=gain)
        Correct(str(session / "movie.mrcz"), str(tmp_path / f"{keep}.mrcz"), recipe)()
    assert same_bits(nm.read(tmp_path / "counts.mrcz"), nm.read(tmp_path / "values.mrcz"))


# What others see -----------------------------------------------------------------------------


def test_other_programs_see_counts_and_that_the_gain_is_not_applied(kept):
    frames, meta = mrcz.readMRC(str(kept))
    with nm.open(kept, counts=True) as counts:
        np.testing.assert_array_equal(frames, np.asarray(counts))
        assert counts.metadata[NOTE] == meta[NOTE]
    assert meta["grid"] == 3
    assert meta[NOTE]["gain_applied"] is False
    assert "NOT applied" in meta[NOTE]["note"]
    assert meta[NOTE]["references"] == [gain_beside(kept).name]


@pytest.mark.parametrize("harm", ["flipped", "cut off"])
def test_a_lost_footer_is_told(kept, harm):
    content = bytearray(kept.read_bytes())
    if harm == "flipped":
        content[-TRAILER_NBYTES - 9] ^= 1
    kept.write_bytes(content if harm == "flipped" else content[: -TRAILER_NBYTES - 9])
    with pytest.warns(nm.MrczWarning) as told:
        movie = nm.open(kept)
    assert any("NOT applied" in str(warning.message) for warning in told)
    assert movie.dtype == np.int8  # what the mode says
    movie.close()


def test_decompressed_it_is_what_relion_takes(napari_mrcz, kept, results, tmp_path):
    values = nm.read(results[1] / "movie.mrcz")
    for dtype in ("float32", "float16"):
        out = tmp_path / dtype
        options = ("--dtype", dtype) if dtype == "float16" else ("--verify",)
        ran = napari_mrcz("decompress", kept.parent, "-o", out, "--no-footer", *options)
        assert ran.status == 0, ran.err
        assert [path.name for path in out.iterdir()] == ["movie.mrc"]
        with mrcfile.open(out / "movie.mrc") as file:
            assert file.header.mode == (2 if dtype == "float32" else 12)
            np.testing.assert_array_equal(file.data, values.astype(dtype))


# The reference -------------------------------------------------------------------------------


def test_the_folder_may_move(kept, results, tmp_path):
    moved = kept.parent.rename(tmp_path / "elsewhere")
    assert same_bits(nm.read(moved / "movie.mrcz"), nm.read(results[1] / "movie.mrcz"))


def test_a_link_finds_the_reference_of_its_file(kept, results, tmp_path):
    link = tmp_path / "links" / "movie.mrcz"
    link.parent.mkdir()
    link.symlink_to(kept)
    assert same_bits(nm.read(link), nm.read(results[1] / "movie.mrcz"))
    Repack(str(link), str(tmp_path / "copy.mrcz"))()
    assert same_bits(nm.read(tmp_path / "copy.mrcz"), nm.read(link))


def test_a_copy_whose_reference_is_missing_is_warned_of(kept, tmp_path):
    gain_beside(kept).unlink()
    (tmp_path / "copy").mkdir()
    with pytest.warns(nm.MrczWarning, match=r"without its reference.*gain-\w+"):
        Repack(str(kept), str(tmp_path / "copy" / "movie.mrcz"))()


def test_a_missing_reference_is_named(napari_mrcz, kept):
    gain = gain_beside(kept)
    gain.unlink()
    with pytest.raises(nm.MrczError, match=rf"{gain.name} is missing"):
        nm.open(kept)
    with nm.open(kept, counts=True) as counts:
        assert counts.dtype == np.uint8
    report = nm.verify(kept)
    assert not report
    assert gain.name in str(report)
    checked = napari_mrcz("verify", kept)
    assert checked.status == 1
    assert "damaged" not in checked.out + checked.err  # nothing that `repair` could mend
    assert "repair" not in checked.out + checked.err
    ran = napari_mrcz("info", kept)
    assert ran.status == 1
    assert f"{gain.name} is missing" in ran.out
    assert same_bits(nm.original(kept), nm.original(kept))  # it takes no gain


def test_an_altered_reference_is_refused(kept):
    gain = gain_beside(kept)
    image = nm.read(gain)
    image[0, 5, 5] += 1e-6
    nm.write(gain, image, overwrite=True)
    with pytest.raises(nm.MrczError, match="altered"):
        nm.open(kept)
    assert not nm.verify(kept)
    gain.write_bytes(gain.read_bytes()[:-3000])
    with pytest.raises(nm.MrczError, match=gain.name):
        nm.open(kept)


def test_a_damaged_reference_is_written_again(session, kept):
    gain_beside(kept).write_bytes(b"")
    task = Correct(str(session / "movie.mrcz"), str(kept), kept_by(session), skip_existing=True)
    assert not task.is_done()
    replace(task, overwrite=True)()
    assert task.is_done()
    assert nm.verify(kept)


def test_one_reference_serves_all_movies_and_no_history_holds_it(session, tmp_path):
    sources = []
    for number in range(3):
        sources.append(str(tmp_path / f"in{number}.mrcz"))
        shutil.copy(session / "movie.mrcz", sources[-1])
    (tmp_path / "out").mkdir()
    targets = [str(tmp_path / "out" / f"{number}.mrcz") for number in range(3)]
    for outcome in correct_all(map(Correct, sources, targets, repeat(kept_by(session)))):
        assert outcome.ok
    names = sorted(path.name.split("-")[0] for path in (tmp_path / "out").iterdir())
    assert names == ["0.mrcz", "1.mrcz", "2.mrcz", "gain"]
    assert os.path.getsize(targets[0]) < 1.2 * os.path.getsize(sources[0])


# Restoring -----------------------------------------------------------------------------------


def plain(path, raw, order="<"):
    """Write a plain file with words and an extended header of another program."""
    nz, ny, nx = raw.shape
    header = bytearray(1024)
    extended = b"X,  Y,  Z".ljust(160)
    mode = {"int8": 0, "int16": 1, "uint16": 6}[raw.dtype.name]
    for offset, layout, *values in [
        (0, "4i", nx, ny, nz, mode),
        (28, "3i", nx, ny, 1),
        (40, "6f", 2.0 * nx, 2.0 * ny, 3.0, 90, 90, 90),
        (64, "3i", 1, 2, 3),
        (76, "3f", 0, -1, 17),  # statistics that are none
        (92, "i", len(extended)),
        (104, "4s", b"CCP4"),
        (160, "6h", 1, 2, 3, 4, 500, -6000),
        (208, "4s", b"MAP "),
        (212, "2B", *((0x44, 0x44) if order == "<" else (0x11, 0x11))),
    ]:
        struct.pack_into(order + layout, header, offset, *values)
    data = raw.astype(raw.dtype.newbyteorder(order)).tobytes()
    path.write_bytes(bytes(header) + extended + data)


SOURCES = ["int8 mrc", "uint16 big-endian mrc", "4-bit mrc", "int32", "level 7", "lz4", "mrcz"]


@pytest.mark.parametrize("kind", SOURCES)
def test_the_raw_file_comes_back_byte_for_byte(napari_mrcz, session, tmp_path, kind):
    raw = nm.read(session / "movie.mrcz").astype(np.int16)
    source = tmp_path / ("raw.mrc" if kind.endswith(" mrc") else "raw.mrcz")
    if kind == "int8 mrc":
        raw[:, :2] = -1
        plain(source, raw.astype(np.int8))
    elif kind == "uint16 big-endian mrc":
        plain(source, raw.astype(np.uint16) * 300, ">")
    elif kind == "4-bit mrc":
        nm.write(source, np.minimum(raw, 15).astype(np.uint8), dtype="uint4")
    elif kind == "mrcz":
        mrcz.writeMRC(raw, str(source), meta={"a": 1}, compressor="zstd", clevel=1)
    else:
        options = {"level 7": {"level": 7}, "lz4": {"codec": "lz4"}}.get(kind, {})
        wide = raw.astype(np.int32) if kind == "int32" else raw
        nm.write(source, wide, metadata={"a": np.arange(5)}, **options)
    Correct(str(source), str(tmp_path / "clean.mrcz"), kept_by(session))()
    ran = napari_mrcz("restore", tmp_path / "clean.mrcz", "-o", tmp_path / "out")
    assert ran.status == 0, ran.err
    restored = tmp_path / "out" / source.name
    assert same_bits(nm.read(restored), nm.read(source))
    if sha256(restored) != sha256(source):
        assert kind == "mrcz"  # another version of blosc
        assert "of other bytes" in ran.err
    again = napari_mrcz(
        *("restore", tmp_path / "clean.mrcz", "-o", tmp_path / "out", "--skip-existing")
    )
    assert again.status == 0
    assert "there already" in again.err


@pytest.mark.parametrize("kind", ["part", "sums"])
def test_a_part_is_not_passed_off_as_the_whole(napari_mrcz, session, tmp_path, kind):
    gain = nm.GainNormalization(nm.read_reference(session / "gain.mrc"))
    with nm.open(session / "movie.mrcz") as movie:
        some = movie.select(frames=slice(5)) if kind == "part" else movie.group(4)
        nm.write(tmp_path / "movie.mrcz", some.apply(gain), keep="counts")
        ran = napari_mrcz("restore", tmp_path / "movie.mrcz", "-o", tmp_path / "out")
        assert ran.status == 0, ran.err
        assert "not all of a file" in ran.err
        assert "the same" not in ran.err
        assert same_bits(nm.read(tmp_path / "out" / "movie.mrcz"), some)


def test_only_what_is_kept_is_restored(napari_mrcz, kept, results, tmp_path):
    """Of a folder; what is named must be."""
    shutil.copy(results[1] / "movie.mrcz", kept.parent / "float.mrcz")
    ran = napari_mrcz("restore", kept.parent, "-o", tmp_path / "out")
    assert ran.status == 0, ran.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["movie.mrcz"]
    ran = napari_mrcz("restore", kept.parent / "float.mrcz", "-o", tmp_path / "other")
    assert ran.status == 1
    assert "not kept as counts" in ran.err


@pytest.mark.parametrize("harm", ["cut off", "no raw values"])
def test_what_is_kept_and_cannot_be_restored_is_never_left_out(
    napari_mrcz, session, kept, tmp_path, harm
):
    other = kept.with_name("other.mrcz")
    if harm == "cut off":
        other.write_bytes(kept.read_bytes()[:-4000])
    else:
        gain = nm.GainNormalization(nm.read_reference(session / "gain.mrc"))
        raw = nm.Stack.from_array(nm.read(session / "movie.mrcz"))
        with pytest.warns(nm.MrczWarning, match="Pedestal"):
            nm.write(other, raw.apply(Pedestal(1)).apply(gain), keep="counts")
    ran = napari_mrcz("restore", kept.parent, "-o", tmp_path / "out")
    assert ran.status == 1
    assert "1 of 2 files restored" in ran.err
    assert "failed: other.mrcz" in ran.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["movie.mrcz"]


def test_damaged_raw_values_are_never_passed_off_as_the_original(kept):
    with nm.open(kept, counts=True) as counts:
        reader = counts._source
        digests = bytearray(reader.footer.other["original"]["xxh3"])
        digests[8] ^= 1
        reader.footer.other["original"]["xxh3"] = bytes(digests)
        makers = list(nm.original(counts).frame_makers())
        makers[0]()
        with pytest.raises(nm.MrczError, match=r"frame 1: .*checksum"):
            makers[1]()


# Files made of it ----------------------------------------------------------------------------


def test_it_stays_what_it_is_when_it_is_copied(kept, results, session, tmp_path):
    values = nm.read(results[1] / "movie.mrcz")
    for number, make in enumerate(
        [
            lambda target: Recode(str(kept), target, codec="lz4", verify=True)(),
            lambda target: Repack(str(kept), target)(),
            lambda target: nm.write(target, nm.open(kept), keep="counts"),
        ]
    ):
        target = tmp_path / str(number) / "copy.mrcz"
        target.parent.mkdir()
        make(str(target))
        assert same_bits(nm.read(target), values)
        assert same_bits(nm.original(target), nm.read(session / "movie.mrcz"))
        assert target.stat().st_size < values.nbytes / 8


def test_converted_to_a_pixel_type_it_is_normalised(napari_mrcz, kept, results, tmp_path):
    ran = napari_mrcz("convert", kept, "-o", tmp_path / "out", "--dtype", "float32")
    assert ran.status == 0, ran.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["movie.mrcz"]
    assert same_bits(nm.read(tmp_path / "out" / "movie.mrcz"), nm.read(results[1] / "movie.mrcz"))
    # Which the raw movie cannot be restored from.
    again = ("-o", tmp_path / "again", "--dtype", "float32", "--verify", "--delete")
    assert "source kept: it is kept as counts" in napari_mrcz("compress", kept, *again).err
    assert kept.exists()


def test_what_is_made_of_it_is_not_normalised_twice(kept, results, tmp_path):
    values = nm.read(results[1] / "movie.mrcz")
    with nm.open(kept) as movie, nm.open(kept, counts=True) as counts:
        nm.write(tmp_path / "sums.mrcz", movie.group(3))
        nm.write(tmp_path / "crop.mrcz", movie.select(rows=slice(10)))
        nm.write(tmp_path / "counts.mrcz", counts)
        with pytest.raises(nm.MrczError, match="without the gain"):
            nm.write(tmp_path / "bare.mrcz", counts, keep="counts")
        assert same_bits(nm.read(tmp_path / "sums.mrcz"), np.asarray(movie.group(3)))
        assert same_bits(nm.read(tmp_path / "crop.mrcz"), values[:, :10])
        with pytest.warns(nm.MrczWarning, match="NOT applied"):
            np.testing.assert_array_equal(nm.read(tmp_path / "counts.mrcz"), counts)


def test_correcting_it_again_takes_its_normalised_frames(kept, results, tmp_path):
    again = Recipe(OutlierStep(model="normal", fill="expectation"))
    for name, source in (("a", kept), ("b", results[1] / "movie.mrcz")):
        Correct(str(source), str(tmp_path / f"{name}.mrcz"), again)()
    assert same_bits(nm.read(tmp_path / "a.mrcz"), nm.read(tmp_path / "b.mrcz"))
    with nm.open(kept) as movie:
        koma = movie.apply(KomaNormalization(np.ones(SHAPE[1:]), 0.5))
        nm.write(tmp_path / "koma.mrcz", koma, keep="counts")
        assert same_bits(nm.read(tmp_path / "koma.mrcz"), koma)


# Refusals and sizes --------------------------------------------------------------------------


def test_what_cannot_be_kept_is_refused(session, tmp_path):
    movie = nm.open(session / "movie.mrcz")
    gain = nm.GainNormalization(nm.read_reference(session / "gain.mrc"))
    normal = movie.apply(gain)
    path = tmp_path / "a.mrcz"
    with pytest.raises(nm.MrczError, match="float32 cannot be kept"):
        nm.write(
            path, normal.apply(nm.OutlierFilter.fit(normal, fill="expectation")), keep="counts"
        )
    with pytest.raises(nm.MrczError, match="plain files"):
        nm.write(tmp_path / "a.mrc", normal, keep="counts")
    with pytest.raises(nm.MrczError, match="pixel type"):
        nm.write(path, normal, keep="counts", dtype="float16")
    with pytest.raises(nm.MrczError, match="not kept as counts"):
        nm.open(session / "movie.mrcz", counts=True)
    with pytest.raises(nm.MrczError, match="not kept as counts"):
        nm.original(movie)
    for wrong in (
        {"outliers": {"fill": "expectation"}, "output": {"keep": "counts"}},
        {"outliers": {}, "output": {"keep": "counts", "dtype": "float16"}},
        {"outliers": {}, "output": {"keep": "counts", "codec": "none"}},
        {"outliers": {}, "output": {"keep": "all"}},
    ):
        with pytest.raises(nm.MrczError):
            Recipe.from_dict(wrong)
    assert not list(tmp_path.iterdir())
    movie.close()


@pytest.mark.parametrize("dose", [0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_it_is_as_small_as_the_raw_movie(tmp_path, dose):
    """Of 50 frames, of whose pixels one in two hundred is replaced."""
    camera = Camera((256, 256), hot=4e-3, seed=1)
    movie = simulate_movie(50, camera=camera, dose=dose, seed=1)
    nm.write(tmp_path / "raw.mrcz", movie.frames)
    with nm.open(tmp_path / "raw.mrcz") as raw:
        outliers = nm.OutlierFilter.fit(raw, gain=camera.gain_reference)
        assert (outliers.mask != 0).mean() == pytest.approx(0.005, rel=0.4)
        clean = raw.apply(outliers).apply(nm.GainNormalization(camera.gain_reference))
        nm.write(tmp_path / "clean.mrcz", clean, keep="counts")
    small, large = (os.path.getsize(tmp_path / f"{name}.mrcz") for name in ("clean", "raw"))
    assert small <= 1.03 * large


def test_sizes_are_told_before_anything_is_written(napari_mrcz, session, results, tmp_path):
    command = ("correct", session / "movie.mrcz", "-r", session / "recipe.toml", "-o", tmp_path)
    ran = napari_mrcz(*command, "--keep", "counts", "--dry-run")
    assert ran.status == 0, ran.err
    task = Correct(str(session / "movie.mrcz"), str(tmp_path / "a.mrcz"), kept_by(session))
    sizes = task.sizes()
    assert list(sizes) == ["float32", "float16", "counts"]
    assert all(f"{name} " in ran.err for name in sizes)
    for name, folder in (("counts", results[0]), ("float32", results[1])):
        assert sizes[name] == pytest.approx((folder / "movie.mrcz").stat().st_size, rel=0.15)
    # Without gain and KOMA counts are all that there is.
    options = ("-o", tmp_path, "--keep", "counts", "--dry-run", "--json")
    ran = napari_mrcz("correct", session / "movie.mrcz", *options)
    raw = (session / "movie.mrcz").stat().st_size
    assert json.loads(ran.out)["target_nbytes"] == pytest.approx(raw, rel=0.1)
    # What would fail is known before, too.
    ran = napari_mrcz("correct", results[1] / "movie.mrcz", *options)
    assert ran.status == 1
    assert "cannot be kept as counts" in json.loads(ran.out)["error"]
    assert not list(tmp_path.iterdir())
    assert napari_mrcz(*command, "--dtype", "float16").status == 0
    with nm.open(tmp_path / "movie.mrcz") as half:
        assert half.dtype == np.float16
    assert napari_mrcz(*command, "--keep", "counts", "--dtype", "float16").status == 2


@pytest.mark.parametrize("kind", ["counts", "with a dark", "of other numbers"])
def test_a_mean_of_counts_is_packed_small_and_to_the_last_bit(tmp_path, kind):
    """KOMA's average: the counts of 24 stacks of 50 frames, times the gain."""
    rng = np.random.default_rng(3)
    shape, frames = (96, 128), 1200
    reference = rng.normal(1, 0.03, shape).astype(np.float32)
    reference[3, 5:8] = 0, np.nan, -1
    dark = rng.normal(0, 0.5, shape).astype(np.float32) if kind == "with a dark" else None
    normalisation = nm.GainNormalization(reference, -1 if dark is None else 1, dark, "flipud")
    gain = normalisation.describe()
    counts = rng.poisson(frames, shape) / frames - (0 if dark is None else dark.astype(float))
    mean = counts * normalisation.factor
    if kind == "of other numbers":
        mean += rng.normal(0, 1e-3, shape)
    mean = mean.astype(np.float32)
    mean[7, 7] = np.nan
    made = packed_mean(mean, gain)
    assert unpacked(made, tmp_path, gain).tobytes() == mean.tobytes()
    if kind != "of other numbers":
        # The entropy of a Poisson distribution is 1/2 log2(2 pi e lambda).
        bound = np.log2(2 * np.pi * np.e * frames) / 2 / 8
        assert packed_nbytes(made) < 1.35 * bound * mean.size
        with pytest.raises(nm.MrczError, match="damaged"):
            unpacked(made, tmp_path, gain | {"reference": reference[::-1]})
    if dark is not None:
        # Earlier versions turned the dark like the gain, and found its counts if they were whole.
        turned = gain | {"dark": dark[::-1]}
        made = packed_mean(mean, turned | {"dark_lies": ""})
        assert packed_nbytes(made) < mean.nbytes / 2
        assert unpacked(made, tmp_path, turned).tobytes() == mean.tobytes()


def test_a_raw_movie_that_cannot_be_restored_is_told(tmp_path):
    """After another correction than the outlier filter."""
    raw = np.random.default_rng(0).poisson(1, (4, 64, 64)).astype(np.uint8)
    stack = nm.Stack.from_array(raw).apply(Pedestal(3))
    gain = nm.GainNormalization(np.full((64, 64), 1.5))
    with pytest.warns(nm.MrczWarning, match="cannot be restored .* Pedestal"):
        nm.write(tmp_path / "a.mrcz", stack.apply(gain), keep="counts")
    assert same_bits(nm.read(tmp_path / "a.mrcz"), stack.apply(gain))
    with pytest.raises(nm.MrczError, match="raw values"):
        nm.original(tmp_path / "a.mrcz")


def test_parts_of_a_movie_are_joined_again(kept, results):
    with nm.open(kept) as movie, nm.open(kept) as again:
        parts = [movie.select(slice(0, 5)), again.select(slice(5, None))]
        assert same_bits(nm.Stack.joined(parts), nm.read(results[1] / "movie.mrcz"))
