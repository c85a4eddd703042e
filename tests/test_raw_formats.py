"""TVIPS recordings and SMV images: every type, what is cut off or missing, and what headers say."""

import bz2
import gzip
import pickle
import tracemalloc

import numpy as np
import psutil
import pytest
from foreign_files import DmWriter, image, smv_bytes, write_tvips
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import napari_mrcz as nm
from napari_mrcz.naming import natural_key
from napari_mrcz.stack import open_sweep
from napari_mrcz.stack.raw_frames import write_smv

FRAMES = np.random.default_rng(0).integers(0, 60_000, (7, 6, 10)).astype(np.uint16)
ANY_PATH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("version", "parts"), [(1, 1), (2, 1), (2, 3)])
def test_a_recording_is_a_movie(tmp_path, version, parts, bits):
    frames = FRAMES.astype(f"u{bits // 8}")
    first, *_ = write_tvips(tmp_path / "rec.tvips", frames, version=version, parts=parts)
    with nm.open(first) as movie:
        np.testing.assert_array_equal(movie, frames)
        assert movie.dtype == frames.dtype
        np.testing.assert_array_equal(movie[6, 1:5, ::2], frames[6, 1:5, ::2])
        assert movie.description.voltage == 200
        about = movie.metadata["tvips"]
    assert about["pixel_size_nm"] == 15600
    np.testing.assert_array_equal(about["frames"]["number"], np.arange(1, 8))
    np.testing.assert_array_equal(about["frames"]["timestamp"], 1_600_000_000 + np.arange(7))
    if version == 2:
        np.testing.assert_array_equal(about["frames"]["stage_alpha"], -60 + 0.5 * np.arange(7))


@ANY_PATH
@given(part=st.integers(0, 2), cut=st.integers(0, 1000))
@pytest.mark.filterwarnings("ignore::napari_mrcz.MrczWarning")
def test_a_part_that_is_cut_off_has_its_whole_frames(tmp_path, part, cut):
    files = write_tvips(tmp_path / "rec.tvips", FRAMES, parts=3)
    raw = files[part].read_bytes()
    start, step = 256 if part == 0 else 0, 64 + FRAMES[0].nbytes
    raw = raw[: max(0, len(raw) - cut)]
    files[part].write_bytes(raw)
    whole = max(0, len(raw) - start) // step
    expected = [*np.array_split(FRAMES, 3)]
    expected[part] = expected[part][:whole]
    if part == 0 and not whole:
        with pytest.raises(nm.MrczError, match="rec_000"):
            nm.open(files[0])
        return
    with nm.open(files[0]) as movie:
        np.testing.assert_array_equal(movie, np.concatenate(expected))


def test_what_is_cut_off_or_missing_is_told(tmp_path):
    first, second, third, last = write_tvips(tmp_path / "rec.tvips", FRAMES, parts=4)
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.warns(nm.MrczWarning, match=r"rec_003.*0 whole frames"), nm.open(first) as movie:
        assert len(movie) == 6
    last.unlink()
    second.unlink()
    with pytest.warns(nm.MrczWarning, match="001 of the recording"), nm.open(first) as movie:
        np.testing.assert_array_equal(movie, np.delete(FRAMES, [2, 3, 6], 0))
    third.unlink()
    with nm.open(first) as movie:
        np.testing.assert_array_equal(movie, FRAMES[:2])


def test_a_recording_that_becomes_shorter_is_told_of(tmp_path):
    (first,) = write_tvips(tmp_path / "rec.tvips", FRAMES)
    with nm.open(first) as movie:
        first.write_bytes(first.read_bytes()[:-1])
        np.testing.assert_array_equal(movie[5], FRAMES[5])
        with pytest.raises(nm.MrczError, match="frame 6"):
            movie[6]


@pytest.mark.parametrize(
    ("binning", "mode", "magnification", "expected"),
    [(1, 1, 50_000, 3.12), (1, 2, 50_000, 0), (1, 0, 50_000, 0), (2, 1, 50_000, 0), (1, 1, 0, 0)],
)
def test_pixel_sizes_of_images_but_not_of_diffraction(
    tmp_path, binning, mode, magnification, expected
):
    about = {"binning": binning, "mode": mode, "magnification": magnification}
    (first,) = write_tvips(tmp_path / "rec.tvips", FRAMES, **about)
    with nm.open(first) as movie:
        assert movie.pixel_size == pytest.approx((0, expected, expected))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (2, 0),
        (2, 2**31),
        (3, 70_000),
        (3, 2**32 - 1),
        (4, 12),
        (12, 2**24),
        (12, 2**32 - 1),
        (1, 9),
    ],
)
def test_a_damaged_header_of_a_recording_is_refused(tmp_path, at, value):
    (first,) = write_tvips(tmp_path / "rec.tvips", FRAMES)
    raw = bytearray(first.read_bytes())
    raw[4 * at : 4 * at + 4] = np.uint32(value).tobytes()
    first.write_bytes(raw)
    with pytest.raises(nm.MrczError, match="rec_000"):
        nm.open(first)


def test_a_recording_of_absurdly_many_frames_takes_little_memory(tmp_path):
    (first,) = write_tvips(tmp_path / "rec.tvips", FRAMES[:, :1, :1].astype(np.uint8), version=1)
    n_frames = 2**22
    with first.open("r+b") as file:
        file.truncate(256 + 13 * n_frames)
    tracemalloc.start()
    with pytest.warns(nm.MrczWarning, match="the headers of its"), nm.open(first) as movie:
        assert len(movie) == n_frames
        assert movie[3, 0, 0] == FRAMES[3, 0, 0] % 256
    with first.open("r+b") as file:
        file.truncate(256 + 13 * 2**36)
    with pytest.raises(nm.MrczError, match="1 rows, 1 columns"):
        nm.open(first)
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


ADSC = {"unsigned_short": "u2", "signed_short": "i2", "short": "i2", "long_integer": "i4",
        "unsigned_long": "u4", "unsigned_long_integer": "u4", "float": "f4", "unsigned_byte": "u1",
        "signed_byte": "i1", "double": "f8", "integer": "i4"}  # fmt: skip
DTREK = {"signed char": "i1", "unsigned char": "u1", "short int": "i2", "unsigned short int": "u2",
         "long int": "i4", "unsigned long int": "u4", "float IEEE": "f4"}  # fmt: skip


@pytest.mark.parametrize("shape", [(4, 6), (3, 4, 6)])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("length", [512, 1024, 777])
@pytest.mark.parametrize("named", ["TYPE", "Data_type"])
def test_smv_images_of_all_types(tmp_path, named, length, order, shape):
    path = tmp_path / "x.img"
    for kind, dtype in (ADSC if named == "TYPE" else DTREK).items():
        pixels = np.random.default_rng(1).normal(0, 100, shape).astype(dtype)
        about = {"named": named, "kind": kind, "order": order, "length": length}
        path.write_bytes(smv_bytes(pixels, **about, PHI="3.5"))
        with nm.open(path) as movie:
            assert movie.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(movie, pixels.reshape(-1, 4, 6))
            assert movie.metadata["smv"]["PHI"] == "3.5"
            assert movie.metadata["smv"][named] == kind


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw[:100], "SMV"),
        (lambda raw: b"\0" * 600, ""),
        (lambda raw: raw[:-7], "7 of its 48 bytes"),
        (lambda raw: raw.replace(b"SIZE1=6", b"SIZE1=0"), "0 columns"),
        (lambda raw: raw.replace(b"SIZE1=6;", b"SIZE1=99999999;"), "99999999 columns"),
        (lambda raw: raw.replace(b"SIZE1", b"SIZES"), "SIZE1"),
        (lambda raw: raw.replace(b"DIM=2", b"DIM=1"), "1 axes"),
        (lambda raw: raw.replace(b"unsigned_short", b"Compressed"), "Compressed"),
        (lambda raw: raw.replace(b"little", b"middle"), "middle"),
        (lambda raw: raw.replace(b"=  512", b"=99999999"), "no header"),
    ],
)
def test_a_damaged_smv_image_is_refused(tmp_path, change, said):
    for name in ("x_1.img", "x_2.img"):
        (tmp_path / name).write_bytes(smv_bytes(FRAMES[0, :4, :6]))
    path = tmp_path / "x_2.img"
    path.write_bytes(change(path.read_bytes()))
    for opening in (lambda: nm.open(path), lambda: open_sweep([tmp_path / "x_1.img", path])):
        with pytest.raises(nm.MrczError, match=rf"x_2\.img: .*{said}"):
            opening()


def test_what_follows_an_smv_image_is_told_of(tmp_path):
    path = tmp_path / "x.img"
    path.write_bytes(smv_bytes(FRAMES[0]) + bytes(5))
    with pytest.warns(nm.MrczWarning, match="5 bytes after"), nm.open(path) as movie:
        np.testing.assert_array_equal(movie, FRAMES[:1])


@pytest.mark.parametrize(
    ("wavelength", "expected"),
    [("0.0251", 200), ("0.025", 200), ("0.01969", 300), ("0.0370", 100), ("0.0221", 248),
     ("1.0332", 0), ("unknown", 0), ("-1", 0)],
)  # fmt: skip
def test_voltage_follows_from_the_wavelength_of_electrons(tmp_path, wavelength, expected):
    path = tmp_path / "x.img"
    path.write_bytes(smv_bytes(FRAMES[0], WAVELENGTH=wavelength))
    with nm.open(path) as movie:
        assert movie.description.voltage == expected


def test_a_sweep_keeps_each_images_header_and_tells_of_gaps(tmp_path):
    numbers = (9, 10, 12, 16)
    paths = [tmp_path / f"xtal_{number}.img" for number in numbers]
    for number, path in zip(numbers, paths, strict=True):
        path.write_bytes(smv_bytes(FRAMES[0], OSC_START=0.5 * number, DISTANCE="1200"))
    with pytest.warns(nm.MrczWarning, match="images 11, 13 to 15 are missing"):
        movie = open_sweep(paths)
    with movie:
        assert movie.metadata["smv"]["OSC_START"] == ["4.5", "5.0", "6.0", "8.0"]
        assert movie.metadata["smv"]["DISTANCE"] == "1200"


@pytest.mark.parametrize("other", [FRAMES[0, 1:], FRAMES[0].astype(np.int32)])
def test_images_unlike_the_first_one_are_refused(tmp_path, other):
    (tmp_path / "x_1.img").write_bytes(smv_bytes(FRAMES[0]))
    kind = "long_integer" if other.itemsize == 4 else "unsigned_short"
    (tmp_path / "x_2.img").write_bytes(smv_bytes(other, kind=kind))
    with pytest.raises(nm.MrczError, match=r"x_2\.img"):
        open_sweep([tmp_path / "x_1.img", tmp_path / "x_2.img"])


def test_sweeps_of_other_formats_keep_each_files_metadata(tmp_path):
    paths = [tmp_path / f"x_{number}.mrc" for number in (1, 2)]
    for angle, path in enumerate(paths):
        nm.write(path, FRAMES[:1], metadata={"about": {"phi": angle, "who": "me"}, "n": 1})
    with open_sweep(paths) as movie:
        assert movie.metadata == {"about": {"phi": [0, 1], "who": "me"}, "n": 1}


def test_fabio_and_we_read_what_the_other_wrote(tmp_path):
    fabio = pytest.importorskip("fabio")
    write_smv(tmp_path / "ours.img", FRAMES[0], {"WAVELENGTH": 0.0251, "SIZE3": 7, "Odd": "a;b"})
    theirs = fabio.open(str(tmp_path / "ours.img"))
    np.testing.assert_array_equal(theirs.data[::-1], FRAMES[0])
    assert theirs.header["WAVELENGTH"] == "0.0251"
    assert "SIZE3" not in theirs.header
    fabio.adscimage.AdscImage(FRAMES[0], {"DISTANCE": "1"}).write(str(tmp_path / "theirs.img"))
    with nm.open(tmp_path / "theirs.img") as movie:
        np.testing.assert_array_equal(movie[0], FRAMES[0, ::-1])
        assert movie.metadata["smv"]["DISTANCE"] == "1"


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_packed_files_are_read_as_others_are(tmp_path, suffix, pack):
    for number in (1, 2):
        packed = pack(smv_bytes(FRAMES[number], PHI=number))
        (tmp_path / f"x_{number}.img{suffix}").write_bytes(packed)
    with open_sweep([tmp_path / f"x_{number}.img{suffix}" for number in (1, 2)]) as movie:
        np.testing.assert_array_equal(movie, FRAMES[1:3])
        assert movie.metadata["smv"]["PHI"] == ["1", "2"]
    first, *later = write_tvips(tmp_path / "rec.tvips", FRAMES, parts=3)
    for part in (first, *later):
        part.with_name(part.name + suffix).write_bytes(pack(part.read_bytes()))
        part.unlink()
    with nm.open(f"{first}{suffix}") as movie:
        np.testing.assert_array_equal(movie, FRAMES)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(movie)), FRAMES)
    content = DmWriter().images([image(FRAMES)])
    (tmp_path / f"x.dm4{suffix}").write_bytes(pack(content))
    with nm.open(tmp_path / f"x.dm4{suffix}") as movie:
        np.testing.assert_array_equal(movie, FRAMES[:, ::-1])


def test_many_images_are_not_open_at_once(tmp_path):
    paths = [tmp_path / f"x_{number}.img" for number in range(40)]
    for path in paths:
        path.write_bytes(smv_bytes(FRAMES[0]))
    before = len(psutil.Process().open_files())
    with open_sweep(paths) as movie:
        np.asarray(movie)
        assert len(psutil.Process().open_files()) <= before + 8
    for number in range(20):
        nm.write(tmp_path / f"y_{number}.mrc", FRAMES[:1])
    with open_sweep(sorted(tmp_path.glob("y_*.mrc"), key=natural_key)) as movie:
        np.testing.assert_array_equal(movie, np.repeat(FRAMES[:1], 20, axis=0))
        assert len(psutil.Process().open_files()) <= before + 8


def test_later_files_of_a_recording_are_not_movies_of_their_own(napari_mrcz, tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    files = write_tvips(raw / "rec.tvips", FRAMES, parts=3)
    for named in ([raw], files):
        ran = napari_mrcz("compress", *named, "-o", out, "--overwrite")
        assert ran.status == 0, ran.err
        assert [path.name for path in out.iterdir()] == ["rec_000.mrcz"]
    np.testing.assert_array_equal(nm.read(out / "rec_000.mrcz"), FRAMES)
    ran = napari_mrcz("compress", files[1], "-o", out)
    assert ran.status == 1
    assert "rec_001" in ran.err


def test_what_nobody_has_described_in_a_recording_is_kept(tmp_path):
    (first,) = write_tvips(tmp_path / "rec.tvips", FRAMES, own=80)
    raw = bytearray(first.read_bytes())
    raw[100:104] = b"note"
    step = 80 + FRAMES[0].nbytes
    for at in range(7):
        raw[256 + at * step + 70] = at
    first.write_bytes(raw)
    with nm.open(first) as movie:
        about = movie.metadata["tvips"]
        np.testing.assert_array_equal(movie, FRAMES)
    assert about["reserved"][100 - 52 :].startswith(b"note\0")
    np.testing.assert_array_equal(about["frames"]["reserved"][:, 70 - 60], np.arange(7))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"SIZE1", b"A=1;\nA=2;\nSIZE1"),
        (b"SIZE1", b"some text without a name;\nSIZE1"),
        (b"\n}\n", b"\n}\na comment"),
    ],
)
def test_text_of_a_header_that_is_no_entry_is_told_of(tmp_path, before, after):
    path, image_ = tmp_path / "x_1.img", FRAMES[0]
    raw = smv_bytes(image_)
    changed = raw[:512].replace(before, after, 1)[:512].ljust(512)
    path.write_bytes(changed + raw[512:])
    with (
        pytest.warns(nm.MrczWarning, match="text of its header is not kept"),
        nm.open(path) as movie,
    ):
        np.testing.assert_array_equal(movie[0], image_)


def test_a_second_file_of_a_number_is_told_of(tmp_path):
    first, second = write_tvips(tmp_path / "rec.tvips", FRAMES, parts=2)
    second.with_name("rec_0001.tvips").write_bytes(second.read_bytes())
    with (
        pytest.warns(nm.MrczWarning, match=r"left out: rec_001\.tvips"),
        nm.open(first) as movie,
    ):
        np.testing.assert_array_equal(movie, FRAMES)
