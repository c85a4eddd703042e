"""The header doctor: each kind of damage is found, explained, and mended without a pixel read."""

import struct
import warnings

import mrcfile
import mrcz
import numpy as np
import pytest
from good_files import KINDS, good_file, movie

import napari_mrcz as nm
from napari_mrcz.format import findings as checks
from napari_mrcz.format import machine
from napari_mrcz.format.doctor import Finding, diagnose, mend

SHAPE = (5, 16, 20)
PIXEL = (0, 1.5, 1.25)
IMOD = 1146047817
# What other programs leave out or state wrongly in files that are otherwise whole.
OF_PEERS = {
    "mrcz": {"NVERSION", "DMIN DMAX DMEAN RMS"},
    "mrcz, lz4": {"NVERSION", "DMIN DMAX DMEAN RMS"},
    "mrcz, blosc2": {"NVERSION", "DMIN DMAX DMEAN RMS"},
    "ours, 4 bit": set(),
    "FEI1": {"pixel size"},
    "gz": {"pixel size"},
    "big-endian": {"pixel size"},
}


@pytest.fixture
def plain(tmp_path):
    """Return a good plain MRC without a footer."""
    path = tmp_path / "good.mrc"
    nm.write(path, movie(SHAPE, "int16", smooth=True), pixel_size=PIXEL, footer=False)
    return path


@pytest.fixture
def compressed(tmp_path):
    """Return a good MRCZ, and no footer that would tell what the header does not."""
    path = tmp_path / "good.mrcz"
    nm.write(path, movie(SHAPE, "int16", smooth=True), pixel_size=PIXEL, footer=False)
    return path


def damage(path, *fields):
    """Write (offset, layout, values...) into a file."""
    raw = bytearray(path.read_bytes())
    for offset, layout, *values in fields:
        struct.pack_into(layout, raw, offset, *values)
    path.write_bytes(raw)


def named(findings):
    """Return the names of the fields that something was found of."""
    return [finding.field for finding in findings]


def is_valid(path):
    """Ask `mrcfile`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return mrcfile.validate(path)


def read(path):
    """Return pixels and pixel size, whatever is warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.MrczWarning)
        with nm.open(path) as stack:
            return np.asarray(stack), stack.pixel_size


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_found_in_what_is_good_and_the_truth_in_files_of_peers(kind, full, tmp_path):
    """Ours are without fault; others are told what they leave out."""
    good = good_file(kind, tmp_path)
    found = diagnose(tmp_path / good.name, full=full)
    assert set(named(found)) == OF_PEERS.get(kind, set()), [str(f) for f in found]


# (what is found, what was damaged: offset, layout, values)
DAMAGE = {
    "cell of 0": ("pixel size", (40, "<3f", 0, 0, 0)),
    "cell negative": ("pixel size", (40, "<3f", -25, 24, 1)),
    "cell not a number": ("pixel size", (40, "<3f", np.nan, np.inf, 1)),
    "integers in the cell": ("pixel size", (40, "<3i", 20, 16, 1)),
    "cell in metres": ("pixel size", (40, "<3f", 2.5e-6, 2.4e-6, 0)),
    "no samples": ("MX MY MZ", (28, "<3i", 0, 0, 0)),
    "samples negative": ("MX MY MZ", (28, "<3i", -20, 16, 1)),
    "samples huge": ("MX MY MZ", (28, "<3i", 20, 16, 2**30)),
    "samples of a volume": ("MX MY MZ", (28, "<3i", 20, 16, 5)),
    "axes 0": ("MAPC MAPR MAPS", (64, "<3i", 0, 0, 0)),
    "axes twice": ("MAPC MAPR MAPS", (64, "<3i", 1, 1, 2)),
    "ISPG negative": ("ISPG", (88, "<i", -1)),
    "ISPG huge": ("ISPG", (88, "<i", 2_000_000)),
    "ISPG none": ("ISPG", (88, "<i", 300)),
    "NSYMBT negative": ("NSYMBT", (92, "<i", -8)),
    "NSYMBT beyond the file": ("NSYMBT", (92, "<i", 10**8)),
    "no MAP": ("MAP", (208, "4s", bytes(4))),
    "stamp empty": ("machine stamp", (212, "4B", 0, 0, 0, 0)),
    "stamp of the other order": ("machine stamp", (212, "4B", 0x11, 0x11, 0, 0)),
    "NVERSION 0": ("NVERSION", (108, "<i", 0)),
    "statistics 0": ("DMIN DMAX DMEAN RMS", (76, "<3f", 0, 0, 0), (216, "<f", 0)),
    "statistics not numbers": ("DMIN DMAX DMEAN RMS", (76, "<3f", np.nan, np.nan, 0)),
    "minimum too large": ("DMIN DMAX DMEAN RMS", (76, "<f", 1)),
    "maximum too small": ("DMIN DMAX DMEAN RMS", (80, "<f", 2)),
    "mean beyond all": ("DMIN DMAX DMEAN RMS", (84, "<f", 40)),
    "deviation 0": ("DMIN DMAX DMEAN RMS", (216, "<f", 0)),
    "NLABL too many": ("labels", (220, "<i", 3)),
    "NLABL negative": ("labels", (220, "<i", -1)),
    "a gap between labels": ("labels", (220, "<i", 2), (384, "5s", b"later")),
    "all at once": (
        "MX MY MZ",
        (28, "<3i", 0, 0, 0),
        (64, "<3i", 0, 0, 0),
        (88, "<i", -1),
        (108, "<i", 0),
        (208, "8s", bytes(8)),
        (216, "<f", 9),
        (220, "<i", 7),
    ),
}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_found_and_mended(plain, what, full):
    """In place; the same pixels are read then, and `mrcfile` is content."""
    good = plain.read_bytes()
    pixels, size = read(plain)
    field, *places = DAMAGE[what]
    damage(plain, *places)
    damaged = plain.read_bytes()
    findings = diagnose(plain, full=full, pixel_size=1.25 if field == "pixel size" else 0.0)
    assert field in named(findings)
    assert len(findings) == (1 if what != "all at once" else 8)
    for finding in findings:
        assert finding.mendable
        assert finding.sentence.endswith(".") and finding.found and finding.proposed
    changes = mend(plain, findings)
    assert changes and all(change.before != change.after for change in changes)
    if full:
        assert diagnose(plain, full=True) == ()
    assert not any(finding.mendable for finding in diagnose(plain))
    assert is_valid(plain)
    now, size_now = read(plain)
    np.testing.assert_array_equal(now, pixels)
    if field != "pixel size":
        assert size_now == size
    else:
        assert size_now[1:] == (1.25, 1.25)
    # Nothing but the header, and in it nothing that was right.
    assert plain.read_bytes()[1024:] == damaged[1024:] == good[1024:]
    if full and field not in ("pixel size", "labels") and "at once" not in what:
        assert plain.read_bytes()[:1024] == good[:1024]


@pytest.mark.parametrize("what", ["samples negative", "ISPG negative", "NVERSION 0", "no MAP"])
def test_headers_of_compressed_files_are_mended_too(compressed, what):
    """By the ways of MRCZ, which has MZ of 0."""
    good = compressed.read_bytes()
    pixels, size = read(compressed)
    field, *places = DAMAGE[what]
    damage(compressed, *places)
    findings = diagnose(compressed)
    assert named(findings) == [field]
    mend(compressed, findings)
    assert diagnose(compressed, full=True) == ()
    assert compressed.read_bytes() == good
    now, size_now = read(compressed)
    np.testing.assert_array_equal(now, pixels)
    assert size_now == size
    again, _ = mrcz.readMRC(str(compressed))
    np.testing.assert_array_equal(again, pixels)


def test_the_length_of_an_extended_header_is_found_again(tmp_path):
    """Where the JSON ends and chunks begin, and where checksums in a footer say."""
    pixels = movie(SHAPE, "int16", smooth=True)
    for name, footer in [("ours.mrcz", True), ("ours-without.mrcz", False)]:
        path = tmp_path / name
        nm.write(path, pixels, pixel_size=1, metadata={"grid": [3, {"a": 1}]}, footer=footer)
        good = path.read_bytes()
        for wrong in (10**8, -1):
            damage(path, (92, "<i", wrong))
            np.testing.assert_array_equal(read(path)[0], pixels)
            findings = diagnose(path)
            assert named(findings) == ["NSYMBT"]
            mend(path, findings)
            assert path.read_bytes() == good
    # With checksums, a length that is too short is known too.
    path = tmp_path / "ours.mrcz"
    good = path.read_bytes()
    damage(path, (92, "<i", 2))
    findings = [f for f in diagnose(path) if f.field == "NSYMBT"]
    mend(path, findings)
    assert path.read_bytes() == good


def test_what_is_no_mrc_file_cannot_be_diagnosed(tmp_path, compressed):
    """It is said why."""
    path = tmp_path / "text.mrc"
    path.write_bytes(b"no movie " * 200)
    with pytest.raises(nm.MrczError, match="NX NY NZ"):
        diagnose(path)
    damage(compressed, (92, "<i", 10**8), (1024, "16s", b"not a chunk at all"))
    with pytest.raises(nm.MrczError, match="NSYMBT"):
        diagnose(compressed)
    with pytest.raises(nm.MrczError, match="No such file"):
        diagnose(tmp_path / "none.mrc")


@pytest.mark.parametrize("name", ["plain", "compressed"])
def test_a_file_cut_off_gets_the_number_of_frames_that_it_has(name, request):
    """The z size of a pixel stays, and so do the bytes of the frame that is not whole."""
    path = request.getfixturevalue(name)
    pixels, size = read(path)
    with nm.open(path) as stack:
        last = int(stack._source.index.offsets[4])
    content = path.read_bytes()
    for cut, left in [(last, 4), (last + 20, 4)]:
        path.write_bytes(content[:cut])
        found = diagnose(path, full=True)[0]
        assert (found.field, found.found, found.proposed) == ("NZ", "5", str(left))
        mend(path, diagnose(path, full=True))
        now, size_now = read(path)
        np.testing.assert_array_equal(now, pixels[:left])
        assert size_now == size
        assert path.stat().st_size == cut
        rest = diagnose(path, full=True)
        assert named(rest) == ([] if cut == last else ["file length"])
        if name == "plain" and cut == last:
            assert is_valid(path)


def test_a_volume_cut_off_stays_a_volume(tmp_path):
    """Its samples and its cell become shorter with it."""
    path = tmp_path / "volume.mrc"
    volume = nm.Stack.from_array(movie((6, 5, 7), "float32", smooth=True), pixel_size=2)
    nm.write(path, volume.described(volume=True), footer=False)
    path.write_bytes(path.read_bytes()[:-140])
    mend(path, diagnose(path, full=True))
    with nm.open(path) as stack:
        assert stack.shape == (5, 5, 7)
        assert stack.header.sampling == (7, 5, 5)
        assert stack.header.cell == (14, 10, 10)
        assert stack.pixel_size == (2, 2, 2)
    assert is_valid(path)


@pytest.mark.parametrize("name", ["plain", "compressed"])
def test_bytes_that_nothing_speaks_of_are_told_and_left_alone(name, request):
    """They are no frames, and may be another program's."""
    path = request.getfixturevalue(name)
    with path.open("ab") as file:
        file.write(bytes(2 * 16 * 20 * 2 + 1))
    (found,) = diagnose(path)
    assert found.field == "file length"
    assert not found.mendable
    assert "1281 bytes after the last frame" in found.sentence
    with pytest.warns(nm.MrczWarning, match="1281 bytes after the last frame"):
        nm.open(path)
    with pytest.raises(nm.MrczError, match="nothing to fix"):
        mend(path, [found])


def bytes_movie(path, values, **statistics):
    """Write plain mode-0 frames by mrcfile, with statistics as they were before."""
    with mrcfile.new(path, values.view(np.int8)) as file:
        file.set_image_stack()
        file.voxel_size = 1.5
        for name, value in statistics.items():
            file.header[name] = value


def test_unsigned_bytes_under_mode_0_are_told_by_the_statistics(tmp_path):
    """Then IMOD's flag says so, and frames are read as they were meant."""
    path = tmp_path / "old.mrc"
    values = movie((3, 8, 9), "uint8", 1)
    bytes_movie(path, values, dmin=0, dmax=255, dmean=values.mean(), rms=values.std())
    (found,) = diagnose(path)
    assert (found.field, found.found) == ("mode 0", "signed")
    mend(path, [found])
    pixels, _ = read(path)
    np.testing.assert_array_equal(pixels, values)
    # What MRC2014 has no word for stays a remark: readers that know only it are led astray.
    (left,) = diagnose(path, full=True)
    assert left.field == "mode 0" and not left.mendable
    assert "uint16" in left.proposed


def test_signed_bytes_that_a_flag_calls_unsigned_are_told_by_the_statistics(tmp_path):
    """The minimum is negative."""
    path = tmp_path / "flag.mrc"
    values = movie((3, 8, 9), "int8", 1)
    bytes_movie(path, values)
    damage(path, (152, "<2i", IMOD, 0))
    (found,) = diagnose(path)
    assert (found.field, found.found) == ("mode 0", "unsigned by flag")
    mend(path, [found])
    pixels, _ = read(path)
    np.testing.assert_array_equal(pixels, values)
    assert diagnose(path, full=True) == ()
    assert is_valid(path)


def test_bytes_of_small_values_are_the_same_signed_or_not(tmp_path):
    """So nothing is said of them."""
    path = tmp_path / "small.mrc"
    bytes_movie(path, movie((3, 8, 9), "uint8", smooth=True))
    assert diagnose(path, full=True) == ()
    damage(path, (152, "<2i", IMOD, 0))
    assert diagnose(path, full=True) == ()


def test_a_cube_of_images_is_a_volume(tmp_path):
    """As RELION's and EMAN's older versions wrote them."""
    path = tmp_path / "cube.mrc"
    volume = nm.Stack.from_array(movie((6, 6, 6), "float32", smooth=True), pixel_size=2)
    nm.write(path, volume.described(volume=True), footer=False)
    good = path.read_bytes()
    damage(path, (88, "<i", 0))
    (found,) = diagnose(path)
    assert (found.field, found.proposed) == ("ISPG", "1, a volume")
    mend(path, [found])
    assert path.read_bytes() == good


def test_volumes_that_do_not_come_out_even_are_left_to_who_knows(tmp_path):
    """How many sections each has cannot be guessed."""
    path = tmp_path / "volumes.mrc"
    nm.write(path, movie((2, 3, 5, 7), "float32", smooth=True), pixel_size=2, footer=False)
    assert diagnose(path, full=True) == ()
    for depth, field in [(4, "ISPG"), (0, "MX MY MZ")]:
        damage(path, (36, "<i", depth))
        (found,) = diagnose(path)
        assert found.field == field and not found.mendable


def test_the_pixel_size_of_fei_files_is_taken_from_their_extended_header(tmp_path):
    """In metres there."""
    path = tmp_path / "fei.mrc"
    with mrcfile.new(path, movie(SHAPE, "int16", smooth=True)) as file:
        file.set_image_stack()
        record = np.zeros(5, mrcfile.dtypes.get_ext_header_dtype(b"FEI1"))
        record["Metadata size"] = record.dtype.itemsize
        record["Pixel size X"], record["Pixel size Y"] = 1.35e-10, 1.4e-10
        file.set_extended_header(record)
        file.header.exttyp = b"FEI1"
    (found,) = diagnose(path)
    assert found.proposed == "1.35 × 1.4 Å, by the extended header"
    mend(path, [found])
    assert read(path)[1][1:] == (1.4, 1.35)
    assert is_valid(path)


def test_two_byte_orders_in_one_header_are_explained_and_not_mended(tmp_path):
    """Files of old mrcz are read by their label; a half-mended one would not be."""
    path = tmp_path / "be.mrc"
    options = {"endian": "be", "pixelsize": [3, 2, 1]}
    mrcz.writeMRC(movie(SHAPE, "float32", smooth=True), str(path), **options)
    raw = bytearray(path.read_bytes())
    for offset, layout in [(12, "i"), (36, "i"), (76, "3f"), (132, "3f"), (144, "q"), (220, "i")]:
        struct.pack_into("<" + layout, raw, offset, *struct.unpack_from(">" + layout, raw, offset))
    raw[224:234] = b"MRCZ0.5.7\0"
    path.write_bytes(raw)
    (found,) = diagnose(path)
    assert found.field == "byte order" and not found.mendable


def test_sizes_where_samples_belong_are_mended_for_old_mrcz(tmp_path):
    """As 0 0 0, by which the cell is divided by the sizes; the label stays."""
    path = tmp_path / "old.mrcz"
    mrcz.writeMRC(movie(SHAPE, "int16", smooth=True), str(path), compressor="zstd", pixelsize=2.5)
    damage(path, (28, "<3i", 0, 20, 16), (224, "10s", b"MRCZ0.4.1\0"))
    _, size = read(path)
    findings = diagnose(path, full=True)
    assert "MX MY MZ" in named(findings)
    mend(path, findings)
    assert diagnose(path, full=True) == ()
    assert read(path)[1] == size == (2.5, 2.5, 2.5)


def test_big_endian_headers_stay_big_endian(tmp_path):
    """Fields are written in the file's own order."""
    path = tmp_path / "big.mrc"
    pixels = movie(SHAPE, "int16", smooth=True)
    with mrcfile.new(path, pixels.astype(">i2")) as file:
        file.set_image_stack()
        file.voxel_size = 1.5
    good = path.read_bytes()
    assert diagnose(path, full=True) == ()
    damage(path, (28, ">3i", 0, 0, 0), (76, ">3f", 9, 9, 9), (212, "2B", 0, 0), (220, ">i", 5))
    mend(path, diagnose(path, full=True))
    assert diagnose(path, full=True) == ()
    assert path.read_bytes()[1024:] == good[1024:]
    assert is_valid(path)


def test_statistics_from_a_few_frames_are_only_taken_away(plain):
    """From all they are filled in; that they are missing is said, but harms nobody."""
    damage(plain, (76, "<3f", 0, 0, 0), (216, "<f", 0))
    (few,) = diagnose(plain)
    assert "not determined" in few.proposed
    mend(plain, [few])
    (missing,) = diagnose(plain)
    assert not missing.mendable and "allowed" in missing.sentence
    seen = []
    (all_,) = diagnose(plain, full=True, progress=lambda *step: seen.append(step))
    assert seen == [(i, 5) for i in range(1, 6)]
    mend(plain, [all_])
    with nm.open(plain) as stack:
        pixels = np.asarray(stack)
        assert stack.header.dmin == pixels.min() and stack.header.dmax == pixels.max()
        assert stack.header.dmean == pytest.approx(pixels.mean())
        assert stack.header.rms == pytest.approx(pixels.std())


def test_it_takes_as_many_threads_as_computations_may(plain, monkeypatch):
    """One of many processes that share a machine, or a user, says how many."""
    taken = []

    def in_order(work, items, threads, name):
        taken.append(threads)
        return machine.in_order(work, items, threads, name)

    monkeypatch.setattr(checks, "in_order", in_order)
    machine.limit_threads(1)
    try:
        diagnose(plain, full=True)
    finally:
        machine.limit_threads(0)
    assert taken == [1]


def test_statistics_of_what_has_no_statistics_are_right_as_they_are(tmp_path):
    """Complex pixels, and such that are no numbers."""
    for name, dtype in [("complex.mrcz", "complex64"), ("nan.mrc", "float32")]:
        nm.write(tmp_path / name, movie(SHAPE, dtype), pixel_size=2)
        assert diagnose(tmp_path / name, full=True) == ()


def test_a_damaged_frame_is_said_and_the_header_looked_at_all_the_same(tmp_path):
    """The statistics cannot be known then."""
    path = tmp_path / "a.mrcz"
    nm.write(path, movie(SHAPE, "int16", smooth=True), pixel_size=2)
    with nm.open(path) as stack:
        offset = int(stack._source.index.offsets[2])
    damage(path, (offset + 30, "4s", b"junk"), (108, "<i", 0))
    findings = diagnose(path)
    assert named(findings) == ["NVERSION", "pixels"]
    assert [finding.mendable for finding in findings] == [True, False]


def test_a_copy_leaves_the_original_alone(plain, tmp_path):
    """And is not written over what is there, unless asked."""
    damage(plain, (28, "<3i", 0, 0, 0))
    damaged = plain.read_bytes()
    findings = diagnose(plain)
    copy = tmp_path / "copy.mrc"
    changes = mend(plain, findings, target=copy)
    assert str(changes[0]) == "MX MY MZ: 0 0 0 → 20 16 1"
    assert plain.read_bytes() == damaged
    assert diagnose(copy, full=True) == ()
    with pytest.raises(nm.MrczError, match="exists already"):
        mend(plain, findings, target=copy)
    mend(plain, findings, target=copy, overwrite=True)


def test_what_is_chosen_is_mended_and_no_more(plain):
    """One finding of two."""
    damage(plain, (108, "<i", 0), (208, "4s", bytes(4)))
    one, two = diagnose(plain)
    mend(plain, [two])
    assert named(diagnose(plain)) == [one.field]


def test_a_file_that_changed_since_is_not_mended(plain):
    """Nor is one that changes meanwhile; either way it stays as it is."""
    damage(plain, (108, "<i", 0))
    findings = diagnose(plain)

    def change(done, total):
        with plain.open("ab") as file:
            file.write(b"more")

    before = plain.read_bytes()
    with pytest.raises(nm.MrczError, match="has changed"):
        mend(plain, findings, progress=change)
    assert plain.read_bytes() == before + b"more"
    damage(plain, (208, "4s", bytes(4)))
    before = plain.read_bytes()
    with pytest.raises(nm.MrczError, match="has changed"):
        mend(plain, findings)
    assert plain.read_bytes() == before
    assert list(plain.parent.iterdir()) == [plain]


def test_mending_that_is_cancelled_changes_nothing(plain):
    """What the progress raises comes through."""
    damage(plain, (108, "<i", 0))
    before = plain.read_bytes()

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mend(plain, diagnose(plain), progress=cancel)
    assert plain.read_bytes() == before
    assert list(plain.parent.iterdir()) == [plain]


def test_packed_files_are_mended_in_an_unpacked_copy(tmp_path):
    """They are not written packed."""
    good = good_file("gz", tmp_path)
    path = tmp_path / good.name
    findings = diagnose(path, pixel_size=2.0)
    with pytest.raises(nm.MrczError, match="packed"):
        mend(path, findings)
    mend(path, findings, target=tmp_path / "copy.mrc")
    pixels, size = read(tmp_path / "copy.mrc")
    np.testing.assert_array_equal(pixels, good.pixels)
    assert size[1:] == (2, 2)


def test_a_finding_reads_as_a_sentence():
    """With what is proposed, or what else to do."""
    text = str(Finding("MX MY MZ", "They are wrong.", "0 0 0", "1 1 1", {"m": (1, 1, 1)}))
    assert text == "MX MY MZ: They are wrong. Found: 0 0 0; proposed: 1 1 1."
    text = str(Finding("ISPG", "It is wrong.", "401", "Save it anew"))
    assert text.endswith("what to do: Save it anew.")


def test_real_files_are_mended_as_far_as_they_can_be(shared_data, tmp_path):
    """Those of many programs: the same pixels after, and nothing left that could be mended."""
    mended = 0
    for path in sorted(shared_data.rglob("*.mrc*")):
        try:
            findings = [f for f in diagnose(path, full=True) if f.mendable]
        except nm.MrczError:
            continue
        if not findings or "mode 0" in named(findings):
            continue
        copy = tmp_path / "copy.mrc"
        mend(path, findings, target=copy, overwrite=True)
        assert not [f for f in diagnose(copy, full=True) if f.mendable], path
        np.testing.assert_array_equal(read(copy)[0], read(path)[0])
        mended += 1
    assert mended > 20
