"""What lies beside a movie and describes it: SerialEM's mdoc, EPU's XML, Direct Electron's text."""

import os

import numpy as np
import pytest
import tifffile
from foreign_files import DmWriter, image, smv_bytes, write_tvips
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import napari_mrcz as nm
from napari_mrcz.cli import looking
from napari_mrcz.errors import collected_warnings
from napari_mrcz.session.convert import Recode
from napari_mrcz.stack import companions
from napari_mrcz.stack.inspection import entries_of

FRAMES = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
ANY_PATH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)

MDOC = """\
T = SerialEM: Glacios at mag = 36k        26-Oct-23  14:55:45
Voltage = 200
[T = a title with = and [brackets]]

[FrameSet = 0]
TiltAngle = -12.5
StagePosition = -26.4387 53.0248
PixelSpacing = 1.151
ExposureDose = 34.9
NavigatorLabel = 84-1
SubFramePath = X:\\somewhere\\movie.mrc
DateTime = 26-Oct-2023  17:06:51
an odd line
"""
XML = """\
<?xml version="1.0" encoding="{encoding}"?>
<MicroscopeImage xmlns="http://schemas.datacontract.org/2004/07/Fei.SharedObjects"
    xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
  <name>\N{MICRO SIGN}graph</name>
  <CustomData xmlns:a="http://schemas.microsoft.com/2003/10/Serialization/Arrays">
    <a:KeyValueOfstringanyType><a:Key>Dose</a:Key>
      <a:Value i:type="b:double">4.25E+21</a:Value></a:KeyValueOfstringanyType>
    <a:KeyValueOfstringanyType><a:Key>PhasePlate</a:Key>
      <a:Value>false</a:Value></a:KeyValueOfstringanyType>
  </CustomData>
  <microscopeData>
    <acquisition><acquisitionDateTime>2023-05-01T12:00:00.5+02:00</acquisitionDateTime>
      <camera><ReadoutArea><height>{height}</height><width>{width}</width></ReadoutArea></camera>
    </acquisition>
    <gun><AccelerationVoltage>300000</AccelerationVoltage></gun>
    <stage><Position><A>0.5</A><B>0</B></Position></stage>
  </microscopeData>
  <SpatialScale><pixelSize>
    <x><numericValue>8.46E-11</numericValue></x><y><numericValue>8.46E-11</numericValue></y>
  </pixelSize></SpatialScale>
</MicroscopeImage>
"""
INFO = """\
Camera Model                        = DE-64
Diffraction Pixel Size X            = 7
Image Size X (pixels)               = 5
Image Size Y (pixels)               = 4
Instrument Accelerating Voltage (V) = 120000
Specimen Pixel Size X (nanometers)  = 0.105
Specimen Pixel Size Y (nanometers)  = 0.11
System Voltage - Supply 18 V (mV)   = 5
Timestamp (seconds since Epoch)     = 1729539410
"""


def epu(height=4, width=5, encoding="utf-8"):
    return XML.format(height=height, width=width, encoding=encoding)


@pytest.mark.parametrize(
    ("movie", "name", "kind"),
    [
        ("movie.mrc", "movie.mdoc", "mdoc"),
        ("movie.mrc", "movie.mrc.mdoc", "mdoc"),
        ("movie.tif", "movie.tif.mdoc", "mdoc"),
        ("movie.mrcz", "movie.mdoc", "mdoc"),
        ("Foil_1_fractions.tif", "Foil_1.xml", "xml"),
        ("Foil_1_Fractions.mrc", "Foil_1.xml", "xml"),
        ("Foil_1_EER.mrc", "Foil_1.xml", "xml"),
        ("Foil_1.mrc", "Foil_1.xml", "xml"),
        ("20241021_00405_movie.mrc", "20241021_00405_info.txt", "info"),
        ("movie.mrc", "movie_info.txt", "info"),
    ],
)
def test_what_lies_beside_a_movie_is_found_by_its_name(tmp_path, movie, name, kind):
    if movie.endswith(".tif"):
        tifffile.imwrite(tmp_path / movie, FRAMES, photometric="minisblack")
    else:
        nm.write(tmp_path / movie, FRAMES)
    (tmp_path / name).write_text({"mdoc": MDOC, "xml": epu(), "info": INFO}[kind])
    (tmp_path / f"other{name}").write_text("nothing")
    with nm.open(tmp_path / movie) as stack:
        assert kind in stack.metadata
        assert stack.pixel_size[2] > 0
        assert stack.description.voltage > 0
        pixels = FRAMES[:, ::-1] if movie.endswith(".tif") else FRAMES
        np.testing.assert_array_equal(stack, pixels)


def opened(folder, **files):
    """Write a movie and what lies beside it, and open it."""
    nm.write(folder / "movie.mrc", FRAMES, overwrite=True)
    for kind, text in files.items():
        (folder / f"movie{'_info.txt' if kind == 'info' else '.' + kind}").write_text(text)
    return nm.open(folder / "movie.mrc")


def test_an_mdoc_is_read_whole(tmp_path):
    with opened(tmp_path, mdoc=MDOC) as movie:
        mdoc = movie.metadata["mdoc"]
        assert mdoc["T"].startswith("SerialEM: Glacios at mag = 36k")
        assert mdoc["titles"] == ["a title with = and [brackets]"]
        assert mdoc["other"] == ["an odd line"]
        (section,) = mdoc["sections"]
        assert section["FrameSet"] == 0
        assert section["StagePosition"] == [-26.4387, 53.0248]
        assert section["NavigatorLabel"] == "84-1"
        assert section["SubFramePath"] == r"X:\somewhere\movie.mrc"
        assert movie.pixel_size == (0, 1.151, 1.151)
        assert movie.description.voltage == 200
        assert (movie.metadata["dose"], movie.metadata["tilt"]) == (34.9, -12.5)


def test_sections_of_a_tilt_series_are_those_of_its_frames(tmp_path):
    sections = "".join(
        f"[ZValue = {i}]\nTiltAngle = {10 * i}\nExposureDose = 2.5\nPixelSpacing = 2\n"
        for i in range(3)
    )
    with opened(tmp_path, mdoc=f"PixelSpacing = 2\nImageSize = 5 4\n{sections}") as movie:
        assert movie.metadata["tilt"] == [0, 10, 20]
        assert movie.metadata["dose"] == [2.5, 2.5, 2.5]
        assert movie.pixel_size[1:] == (2, 2)
    # Of a montage of other pictures, and of a series of which the movie is one.
    with opened(tmp_path, mdoc=f"ImageSize = 50 40\n{sections}[ZValue = 3]\n") as movie:
        assert "tilt" not in movie.metadata
        assert movie.pixel_size[1:] == (0, 0)
    mine = "[ZValue = 3]\nSubFramePath = /x/movie.mrc\nTiltAngle = 30\n"
    with opened(tmp_path, mdoc=sections + mine) as movie:
        assert movie.metadata["tilt"] == 30


def test_epus_xml_is_read_whole(tmp_path):
    with opened(tmp_path, xml=epu()) as movie:
        image = movie.metadata["xml"]["MicroscopeImage"]
        assert image["CustomData"] == {"Dose": 4.25e21, "PhasePlate": "false"}
        acquisition = image["microscopeData"]["acquisition"]
        assert acquisition["acquisitionDateTime"] == "2023-05-01T12:00:00.5+02:00"
        assert movie.pixel_size == pytest.approx((0, 0.846, 0.846))
        assert movie.description.voltage == 300
        assert movie.metadata["dose"] == pytest.approx(42.5)
        assert movie.metadata["tilt"] == pytest.approx(np.degrees(0.5))


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(4, 5, 0.846), (2, 2.5, 0.423), (8, 10, 1.692), (4, 4, 0)]
)
def test_pixel_sizes_of_the_camera_are_scaled_to_frames(tmp_path, height, width, expected):
    with opened(tmp_path, xml=epu(height, width)) as movie:
        assert movie.pixel_size == pytest.approx((0, expected, expected))


def test_direct_electrons_text_is_read_whole(tmp_path):
    with opened(tmp_path, info=INFO) as movie:
        assert movie.metadata["info"]["Camera Model"] == "DE-64"
        assert movie.pixel_size == pytest.approx((0, 1.1, 1.05))
        assert movie.description.voltage == 120
    unknown = INFO.replace("0.105", "-1").replace("0.11", "-1").replace("120000", "-1")
    with opened(tmp_path, info=unknown) as movie:
        assert movie.pixel_size == (0, 0, 0)
        assert movie.description.voltage == 0
    with opened(tmp_path, info=INFO.replace("= 5", "= 50")) as movie:
        assert movie.pixel_size == (0, 0, 0)
    text = "Pixel size (A/pix) : 0.83\nVoltage (kV) : 300\nDose (e/A^2) : 40\nTilt angle (deg) = 3"
    with opened(tmp_path, info=text) as movie:
        assert movie.pixel_size == pytest.approx((0, 0.83, 0.83))
        assert movie.description.voltage == 300
        assert (movie.metadata["dose"], movie.metadata["tilt"]) == (40, 3)


def test_what_the_movie_says_itself_comes_first(tmp_path):
    nm.write(tmp_path / "movie.mrc", FRAMES, pixel_size=7.0, metadata={"dose": 1, "mdoc": "mine"})
    for kind, text in (("mdoc", MDOC), ("xml", epu())):
        (tmp_path / f"movie.{kind}").write_text(text)
    with nm.open(tmp_path / "movie.mrc") as movie:
        assert movie.pixel_size == (7, 7, 7)
        assert movie.description.voltage == 300
        assert movie.metadata["dose"] == 1
        assert movie.metadata["mdoc"] == "mine"


def test_they_come_along_through_compression_and_back(tmp_path):
    with opened(tmp_path, mdoc=MDOC, xml=epu(), info=INFO) as movie:
        expected = movie.metadata
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    packed, back = elsewhere / "movie.mrcz", elsewhere / "back.mrc"
    done = Recode(str(tmp_path / "movie.mrc"), str(packed), verify=True, delete=True)()
    assert not done.kept
    assert sorted(os.listdir(tmp_path)) == [
        "elsewhere",
        "movie.mdoc",
        "movie.xml",
        "movie_info.txt",
    ]
    Recode(str(packed), str(back), codec="none")()
    for path in (packed, back):
        with nm.open(path) as movie:
            assert movie.metadata == expected
            assert movie.pixel_size[1:] == pytest.approx((1.151, 1.151))
            assert movie.description.voltage == 200


def test_text_in_any_encoding(tmp_path):
    nm.write(tmp_path / "movie.mrc", FRAMES)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "latin-1"):
        (tmp_path / "movie.mdoc").write_bytes("Unit = µÅ".encode(encoding))
        (tmp_path / "movie.xml").write_bytes(epu(encoding=encoding).encode(encoding))
        with nm.open(tmp_path / "movie.mrc") as movie:
            assert movie.metadata["mdoc"] == {"Unit": "µÅ"}
            assert movie.metadata["xml"]["MicroscopeImage"]["name"] == "µgraph"


BOMB = '<!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>'
DEEP = f"{'<a>' * 500}{'</a>' * 500}"


@pytest.mark.parametrize("text", [BOMB, "<a><b></a>", "", "no XML", DEEP, epu()[:-30]])
def test_what_cannot_be_read_is_told_of(tmp_path, text):
    with pytest.warns(nm.MrczWarning, match=r"movie\.xml"), opened(tmp_path, xml=text) as movie:
        assert "xml" not in movie.metadata
        np.testing.assert_array_equal(movie, FRAMES)


def test_long_texts_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(companions, "_LARGEST", 50)
    with pytest.warns(nm.MrczWarning, match=r"movie\.mdoc"), opened(tmp_path, mdoc=MDOC) as movie:
        assert "mdoc" not in movie.metadata


def test_folders_and_pipes_of_such_names_are_passed_over(tmp_path):
    (tmp_path / "movie.mdoc").mkdir()
    os.mkfifo(tmp_path / "movie.xml")
    with opened(tmp_path) as movie:
        assert movie.metadata == {}


@ANY_PATH
@given(kind=st.sampled_from(["mdoc", "xml", "info"]), text=st.binary(max_size=80))
@pytest.mark.filterwarnings("ignore::napari_mrcz.MrczWarning")
def test_any_bytes_are_read_or_told_of(tmp_path, kind, text):
    name = "movie_info.txt" if kind == "info" else f"movie.{kind}"
    (tmp_path / "movie.mrc").exists() or nm.write(tmp_path / "movie.mrc", FRAMES)
    (tmp_path / name).write_bytes(text)
    with nm.open(tmp_path / "movie.mrc") as movie:
        np.testing.assert_array_equal(movie, FRAMES)
    (tmp_path / name).unlink()


WORDS = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=8)
NUMBERS = st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(
    globals_=st.dictionaries(WORDS.filter(lambda word: word != "T"), WORDS | NUMBERS, max_size=4),
    sections=st.lists(st.dictionaries(WORDS, WORDS | st.lists(NUMBERS, min_size=2)), max_size=4),
)
def test_any_mdoc_comes_back(globals_, sections):
    def lines(values):
        for key, value in values.items():
            yield f"{key} = {' '.join(map(str, value)) if isinstance(value, list) else value}\n"

    text = "".join(lines(globals_))
    for at, section in enumerate(sections):
        text += f"\n[ZValue = {at}]\n{''.join(lines(section))}"
    found = companions._parse_mdoc(text)
    expected = [{"ZValue": at, **section} for at, section in enumerate(sections)]
    assert found.pop("sections", []) == expected
    assert found == globals_


def test_info_shows_what_files_of_all_formats_say(napari_mrcz, tmp_path):
    nm.write(tmp_path / "movie.mrc", FRAMES)
    (tmp_path / "movie.mdoc").write_text(MDOC)
    (tmp_path / "x.img").write_bytes(smv_bytes(FRAMES[0].astype(np.uint16), OSC_START=3.25))
    (tmp_path / "x.dm4").write_bytes(DmWriter().images([image(FRAMES, Operator="Ada")]))
    write_tvips(tmp_path / "x.tvips", FRAMES.astype(np.uint16))
    said = {"movie.mrc": ("84-1", "36k"), "x.img": ("OSC_START", "3.25"),
            "x.dm4": ("Operator", "Ada"), "x_000.tvips": ("stage_alpha", "-60, -59.5")}  # fmt: skip
    for name, words in said.items():
        ran = napari_mrcz("info", tmp_path / name)
        assert ran.status == 0, ran.err
        assert all(word in ran.out for word in words)


@given(st.recursive(st.integers(0, 9), lambda kids: st.dictionaries(WORDS, kids, max_size=30)))
def test_info_shows_as_much_as_there_is_room_for(content):
    (entry,) = entries_of({"all": content})
    shown = looking._folded(entry, 40)
    n_lines, n_shown = looking._n_lines(entry), looking._n_lines(shown)
    assert n_shown <= 40
    assert n_shown == n_lines or "--json" in str(shown)


@pytest.mark.parametrize("volts", ["3000000", "-300", "1e30", "0.001"])
def test_a_voltage_that_no_microscope_has_is_unknown(tmp_path, volts):
    nm.write(tmp_path / "a.mrc", np.zeros((2, 4, 5), np.int8))
    (tmp_path / "a.mdoc").write_text(f"Voltage = {volts}\nPixelSpacing = 1.5\n")
    with nm.open(tmp_path / "a.mrc") as movie:
        assert movie.description.voltage == 0
        assert movie.pixel_size[1:] == (1.5, 1.5)


@pytest.mark.parametrize(
    ("named", "movie", "is_said"),
    [
        (r"D:\frames\other.mrc", "movie.mrc", True),
        ("/frames/movie.tif", "movie.mrc", False),
        ("MOVIE.mrc", "movie.mrc", False),
        ("movie_fractions.tiff", "movie.mrc", False),
    ],
)
def test_an_mdoc_of_another_movie_is_told_of(tmp_path, named, movie, is_said):
    """It is used, as its name is that of the movie."""
    nm.write(tmp_path / movie, FRAMES)
    (tmp_path / "movie.mdoc").write_text(MDOC.replace(r"X:\somewhere\movie.mrc", named))
    with collected_warnings() as said, nm.open(tmp_path / movie) as stack:
        assert stack.metadata["tilt"] == -12.5
    assert [named.split("\\")[-1] in text for text in said] == [True] * is_said
