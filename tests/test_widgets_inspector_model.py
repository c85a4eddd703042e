"""What the metadata inspector knows and says, without a window."""

import gc
import json
from dataclasses import replace
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest
from foreign_files import DmWriter, image

import napari_mrcz as nm
from napari_mrcz.format import FrameFault
from napari_mrcz.format.doctor import diagnose
from napari_mrcz.plugin.hooks import read
from napari_mrcz.plugin.layers import describe, layer_data
from napari_mrcz.stack import VerifyReport
from napari_mrcz.stack.inspection import (
    Entry,
    entries_of,
    entry_of,
    header_entries,
    matching,
    step_entries,
)
from napari_mrcz.widgets.base.job import Cancelled
from napari_mrcz.widgets.inspector.model import (
    COLUMNS,
    as_json,
    check_frames,
    check_header,
    inspect,
    mend_file,
    replayed,
    subject_of,
)

COUNTS = np.random.default_rng(2).poisson(1, (6, 40, 50)).astype(np.uint8)


def silent(stage, done, total):
    """Take a report."""


@pytest.fixture
def path(tmp_path):
    """Return a movie with metadata."""
    path = tmp_path / "movie.mrcz"
    metadata = {"grid": 3, "tilts": np.arange(30.0), "deep": {"er": [1, {"a": None}]}}
    nm.write(
        path,
        nm.Stack.from_array(COUNTS).described(voltage=300),
        pixel_size=(0, 1.5, 1.5),
        metadata=metadata,
    )
    return path


def layer_of(data, attributes, kind="image"):
    """Return what stands for a layer of napari, without one."""
    defaults = {"multiscale": False, "rgb": False, "axis_labels": ()}
    return SimpleNamespace(data=data, dtype=data.dtype, **(defaults | attributes))


def opened(path):
    """Open a file as the reader does."""
    (layer,) = read(str(path))
    return layer_of(*layer)


def find(entries, *names):
    """Return the entry that names lead to."""
    for name in names:
        (entry,) = [entry for entry in entries if entry.name == name]
        entries = entry.children
    return entry


# Entries ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (None, "none"),
        (1.0000000001, "1"),
        (np.float32(0.1), "0.1"),
        (2**70, str(2**70)),
        ("β-gal", "β-gal"),
        (b"abc", "3 B, not text"),
        ([], "none"),
        ([1, 2.5, "x"], "1, 2.5, x"),
        (list(range(40)), ", ".join(map(str, range(16))) + ", … (40 in all)"),
        (np.arange(3), "0, 1, 2"),
        (np.zeros((30, 4), np.int16), "array of 30 × 4, int16"),
        ({"a": 1}, "1 entry"),
        ([{"a": 1}, {}], "2 entries"),
    ],
)
def test_values_are_one_line_each(value, text):
    """Whatever they are."""
    assert entry_of("name", value).value == text


def test_maps_and_lists_of_them_are_nested():
    """As deep as they are."""
    entries = entries_of({"a": {"b": [{"c": 1}, 2]}})
    assert find(entries, "a", "b", "0", "c").value == "1"
    assert find(entries, "a", "b", "1").value == "2"


def test_files_of_other_formats_are_told_of(tmp_path):
    """They have no header, but metadata, and need no frame table."""
    path = tmp_path / "movie.dm4"
    about = {"Microscope Info": {"Voltage": np.float32(300e3)}}
    path.write_bytes(DmWriter().images([image(COUNTS, 0.15, "nm", **about)]))
    (tmp_path / "movie.mdoc").write_text("[FrameSet = 0]\nTiltAngle = 7.5\n")
    with nm.open(path) as stack:
        (layer,) = layer_data(stack, "movie", metadata=describe(stack))
    inspection = inspect(subject_of(layer_of(*layer)))
    assert not inspection.warnings
    assert inspection.frames is None
    assert find(inspection.sections, "Frames", "voltage").value == "300"
    names = ("Metadata", "dm", "ImageList", "0", "ImageTags", "Microscope Info", "Voltage")
    assert find(inspection.sections, *names).value == "300000"
    (section,) = find(inspection.sections, "Metadata", "mdoc", "sections").children
    assert find(section.children, "TiltAngle").value == "7.5"
    assert json.loads(as_json(inspection, (), None))["metadata"]["tilt"] == 7.5
    path.unlink()
    (warning,) = inspect(subject_of(layer_of(*layer))).warnings
    assert "movie.dm4" in warning


def test_searching_keeps_what_leads_to_a_match_and_what_is_beneath():
    """All words must be found, in an entry or in what it belongs to."""
    tree = (
        Entry("Header", children=(Entry("DMIN", "3", "", "Smallest pixel"), Entry("NX", "7"))),
        Entry("Metadata", children=(Entry("pixels", children=(Entry("x"), Entry("y"))),)),
    )
    assert matching(tree, "  ") == tree
    (header, metadata) = matching(tree, "PIXEL")
    assert header.children == tree[0].children[:1]
    assert metadata == tree[1]
    (only,) = matching(tree, "header pixel")
    assert only == header
    assert matching(tree, "7") == (Entry("Header", children=(Entry("NX", "7"),)),)
    assert matching(tree, "pixel nowhere") == ()


# Inspecting ---------------------------------------------------------------------------------------


def test_a_file_is_told_whole(path):
    """Header with units and meanings, metadata, footer, frames."""
    inspection = inspect(subject_of(opened(path)))
    assert [section.name for section in inspection.sections] == [
        "File", "Header", "Metadata", "Extended header", "Footer",
    ]  # fmt: skip
    sections = inspection.sections
    assert inspection.headline.startswith("6 frames of 40 × 50, uint8, ")
    assert inspection.warnings == ()
    voltage = find(sections, "Header", "voltage")
    assert (voltage.value, voltage.unit) == ("300", "kV")
    assert find(sections, "Header", "pixel size zyx").value == "0  1.5  1.5"
    assert find(sections, "Header", "MODE").value == "6000 (int8, zstd)"
    assert find(sections, "Header", "ISPG").value == "0 (stack of images)"
    assert find(sections, "Header", "C3 (Cs)").value == "unknown"
    assert find(sections, "Metadata", "tilts").value == "array of 30, float64"
    assert find(sections, "Metadata", "deep", "er", "1", "a").value == "none"
    assert find(sections, "Extended header", "grid").value == "3"
    assert find(sections, "Footer", "checksums").value == "xxh3, one per frame"
    assert find(sections, "Footer", "pixel type before saving").value == "uint8"
    assert len(inspection.frames) == 6


def test_every_field_of_a_header_is_explained(path):
    """None is forgotten when the header gets one more."""
    with nm.open(path) as stack:
        header = stack.header
    entries = list(header_entries(header))
    assert all(entry.meaning for entry in entries)
    assert len(entries) == len(set(header.keys()) - {"codec", "notes"})


def test_an_extended_header_is_decoded_or_said_not_to_be(tmp_path):
    """FEI's has a record a frame; others are bytes."""
    for kind, value in [(b"FEI1", "FEI1, 6 records"), (b"SERI", "SERI, 4.61 kB, not decoded")]:
        with mrcfile.new(tmp_path / "a.mrc", COUNTS.astype(np.int16), overwrite=True) as file:
            record = np.zeros(6, mrcfile.dtypes.get_ext_header_dtype(b"FEI1"))
            record["Metadata size"], record["HT"] = record.dtype.itemsize, 300e3
            file.set_extended_header(record)
            file.header.exttyp = kind
        inspection = inspect(subject_of(opened(tmp_path / "a.mrc")))
        extended = find(inspection.sections, "Extended header")
        assert extended.value == value
        if kind == b"FEI1":
            assert find(extended.children, "frame 5", "HT").value == "300000"


def test_what_is_odd_is_told(path):
    """The file's warnings and the header's notes."""
    raw = bytearray(path.read_bytes())
    raw[208:212] = bytes(4)
    path.write_bytes(raw[:-3])
    with pytest.warns(nm.MrczWarning):
        layer = opened(path)
    warnings = inspect(subject_of(layer)).warnings
    assert any("MAP" in said for said in warnings)
    assert any("metadata" in said for said in warnings)
    assert not any(str(path.parent) in said for said in warnings)


def test_a_layer_without_a_file_shows_what_there_is():
    """Shape, type, pixel size, metadata."""
    stack = nm.Stack.from_array(COUNTS, pixel_size=2, metadata={"who": "me"})
    inspection = inspect(subject_of(layer_of(*layer_data(stack, "mine")[0])))
    assert [section.name for section in inspection.sections] == ["Layer", "Metadata"]
    assert find(inspection.sections, "Layer", "shape").value == "6 × 40 × 50"
    assert find(inspection.sections, "Metadata", "who").value == "me"
    assert inspection.frames is None
    assert "in no file" in inspection.headline


def test_an_image_in_colours_is_told_to_be_one():
    """It has no frames that could be saved."""
    attributes = {"rgb": True, "scale": (1, 1), "units": ("pixel",) * 2, "metadata": {}}
    layer = layer_of(np.zeros((4, 5, 3), np.uint8), attributes | {"name": "photo"})
    inspection = inspect(subject_of(layer))
    assert any("RGB" in said for said in inspection.warnings)
    assert inspection.headline.startswith("4 × 5 × 3")


def test_a_file_that_is_gone_is_told_by_what_was_known(path):
    """The header as it was."""
    layer = opened(path)
    layer.data.close()
    path.unlink()
    inspection = inspect(subject_of(layer))
    assert "out of reach" in inspection.headline
    assert any("cannot be opened" in said for said in inspection.warnings)
    assert find(inspection.sections, "Header", "voltage").value == "300"
    assert inspection.frames is None


def test_all_of_it_is_json(path, tmp_path):
    """Fields, frames, findings; arrays as lists."""
    inspection = inspect(subject_of(opened(path)))
    target = str(tmp_path / "a.json")
    text = as_json(inspection, diagnose(path), inspection.frames, target)
    assert text == (tmp_path / "a.json").read_text("utf-8")
    told = json.loads(text)
    assert told["header"]["voltage"] == 300
    assert told["metadata"]["tilts"] == list(range(30))
    assert told["frames"]["offset"] == [int(o) for o in inspection.frames.offsets]
    assert told["findings"] == []
    without = as_json(
        inspect(subject_of(layer_of(*layer_data(nm.Stack.from_array(COUNTS), "mine")[0]))), (), None
    )
    assert "frames" not in json.loads(without)


# Frames -------------------------------------------------------------------------------------------


def test_frames_have_places_ratios_and_states(path):
    """As they lie in the file."""
    table = inspect(subject_of(opened(path))).frames
    assert len(table.texts(0)) == len(COLUMNS)
    assert table.ratios[2] == pytest.approx(2000 / int(table.sizes[2]))
    assert table.texts(2)[-1] == "unread"
    checked = replace(table, report=check_frames(str(path), 0.0, silent)[0])
    assert checked.texts(2)[-1] == "matches"
    assert checked.verdict() == "6 frames are good (checksums match)."
    report = VerifyReport(str(path), "", 6, True, (FrameFault(4, 1, "it is damaged"),))
    damaged = replace(table, report=report)
    assert [damaged.texts(frame)[-1] for frame in (3, 4)] == ["matches", "damaged"]
    assert "it is damaged" in damaged.tip(4)
    assert "5 of 6 frames are good" in damaged.verdict() and "Damaged: 4." in damaged.verdict()


def test_frames_without_checksums_are_told_to_decode(tmp_path):
    """More cannot be known of them."""
    path = tmp_path / "a.mrc"
    nm.write(path, COUNTS.astype(np.int16), footer=False)
    table = inspect(subject_of(opened(path))).frames
    assert table.texts(5) == ("5", "21\N{NARROW NO-BREAK SPACE}024", "4 kB", "1", "none")
    checked = replace(table, report=check_frames(str(path), 0.0, silent)[0])
    assert checked.texts(0)[-1] == "decodes"
    assert table.summary() == "6 frames of 4 kB, not compressed. No checksums."


def test_verifying_reports_and_is_cancelled_by_its_report(path):
    """Frame by frame."""
    said = []
    check_frames(str(path), 0.0, lambda *step: said.append(step))
    assert said[:6] == [("Verifying frame", i, 6) for i in range(1, 7)]

    def cancel(stage, done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        check_frames(str(path), 0.0, cancel)


# History ------------------------------------------------------------------------------------------


@pytest.fixture
def corrected(path):
    """Return the movie, corrected twice, lazily."""
    movie = nm.open(path)
    outliers = nm.OutlierFilter.fit(movie)
    gain = np.random.default_rng(1).normal(1, 0.05, COUNTS.shape[1:]).astype(np.float32)
    stack = movie.apply(outliers).apply(nm.GainNormalization(gain, gamma=0.9))
    yield stack
    movie.close()


def test_steps_are_readable(corrected):
    """What was done, and by which numbers; unknown ones by their name."""
    history = [*corrected.history, {"name": "MyOwnThing", "factor": 2}, {"odd": 1}]
    outliers, gain, own, odd = step_entries(history)
    assert outliers.name == "1. Outlier pixels replaced"
    assert "hot beyond" in outliers.value
    assert find(outliers.children, "thresholds", "hot").value
    assert (gain.name, gain.value) == ("2. Gain normalised", "γ 0.9")
    assert find(gain.children, "reference").value == "array of 40 × 50, float32"
    assert (own.name, own.children) == ("3. My Own Thing", (Entry("factor", "2"),))
    assert odd.name == "4. unknown step"
    assert step_entries([{"name": "OutlierFilter", "n_hot": 1}])[0].value == ""


def test_a_history_is_replayed_on_another_movie(corrected):
    """The same bits as if it had been applied."""
    other = nm.Stack.from_array(COUNTS[:3], pixel_size=3)
    ((data, attributes, kind),) = replayed(corrected.history, other, "other")
    assert (kind, attributes["name"]) == ("image", "other replayed")
    np.testing.assert_array_equal(np.asarray(data), np.asarray(corrected)[:3])
    assert tuple(attributes["scale"]) == (1, 3, 3)
    with pytest.raises(ValueError, match=r"\(40, 50\)"):
        replayed(corrected.history, nm.Stack.from_array(COUNTS[:, :20]), "other")
    gc.collect()  # the error and its traceback keep each other, and the stack


# Mending ------------------------------------------------------------------------------------------


def test_a_mended_file_is_opened_again_with_what_was_done_to_it(corrected, path, tmp_path):
    """Corrections of the layer are done again; metadata stays."""
    raw = bytearray(path.read_bytes())
    raw[108:112] = bytes(4)
    path.write_bytes(raw)
    movie = nm.open(path)
    stack = movie.apply(nm.GainNormalization(np.full(COUNTS.shape[1:], 2, np.float32)))
    layer = layer_of(*layer_data(stack.described(metadata={"mine": 1}), "corrected")[0])
    before = np.asarray(stack)
    findings = check_header(str(path), False, 0.0, silent)
    said = []
    ((change,), layers) = mend_file(
        str(path), findings, None, [subject_of(layer)], lambda *step: said.append(step)
    )
    assert str(change) == "NVERSION: 0 → 20141"
    assert said[-1] == ("Copying", len(raw), len(raw))
    ((data, attributes, _),) = layers
    np.testing.assert_array_equal(np.asarray(data), before)
    assert data.metadata == {"mine": 1}
    assert attributes["metadata"]["header"]["nversion"] == 20141
    for stack in (movie, data):
        stack.close()


def test_what_cannot_be_done_again_is_told(path):
    """The file is mended all the same."""

    class Own:
        def __call__(self, frame, index):
            return frame

        def describe(self):
            return {"name": "Own"}

    raw = bytearray(path.read_bytes())
    raw[108:112] = bytes(4)
    path.write_bytes(raw)
    with nm.open(path) as movie:
        subject = subject_of(layer_of(*layer_data(movie.apply(Own()), "own")[0]))
        _, (layer,) = mend_file(str(path), diagnose(path), None, [subject], silent)
    assert "no correction 'Own'" in str(layer)
    assert diagnose(path) == ()
