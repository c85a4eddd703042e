"""Opening files by napari's hook, without a window: layers, their scale, names and metadata."""

import gzip
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from foreign_files import DmWriter, image, smv_bytes, write_tvips
from tiff_writing import eer_page, tiff

import napari_mrcz as nm
from napari_mrcz.format import FrameReader
from napari_mrcz.format.extended import ExtendedHeader
from napari_mrcz.naming import FOREIGN_SUFFIXES, SUFFIXES
from napari_mrcz.plugin.hooks import get_reader, read
from napari_mrcz.plugin.layers import StackSeries, stack_of


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a seeded generator."""
    return np.random.default_rng(5)


@pytest.fixture
def write(tmp_path, rng):
    """Return a function that writes counts to a file and gives its path."""

    def write_counts(name="movie.mrcz", shape=(5, 24, 32), **description) -> str:
        stack = nm.Stack.from_array(rng.poisson(3, shape).astype(np.uint8))
        nm.write(tmp_path / name, stack.described(**description))
        return str(tmp_path / name)

    return write_counts


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Return the list of frames that are decoded from files."""
    frames: list[int] = []
    read_frame = FrameReader.read_frame

    def noted(self, frame, out=None):
        frames.append(frame)
        return read_frame(self, frame, out)

    monkeypatch.setattr(FrameReader, "read_frame", noted)
    return frames


def test_a_movie_is_one_lazy_image_in_angstrom(write, decoded):
    """The stack itself is the data; only the two frames that napari shows first are decoded."""
    path = write(shape=(11, 24, 32), pixel_size=(0.0, 1.25, 1.5))
    ((data, attributes, kind),) = read(path)
    assert isinstance(data, nm.Stack)
    assert kind == "image"
    assert decoded == [0, 5]
    assert attributes["name"] == "movie"
    assert attributes["scale"] == [1.0, 1.25, 1.5]
    assert attributes["units"] == ["pixel", "angstrom", "angstrom"]
    assert attributes["axis_labels"] == ("frame", "y", "x")
    assert attributes["rgb"] is attributes["multiscale"] is False
    assert 0 <= attributes["contrast_limits"][0] < attributes["contrast_limits"][1] < 20


def test_an_unknown_pixel_size_is_a_pixel(write):
    """No Å are made up."""
    ((_, attributes, _),) = read(write())
    assert attributes["scale"] == [1.0, 1.0, 1.0]
    assert attributes["units"] == ["pixel"] * 3


def test_a_volume_has_its_spacing_along_z(write):
    """ISPG 1."""
    ((data, attributes, _),) = read(write("map.mrc", volume=True, pixel_size=(3.0, 2.0, 2.0)))
    assert data.ndim == 3
    assert attributes["scale"] == [3.0, 2.0, 2.0]
    assert attributes["units"] == ["angstrom"] * 3
    assert attributes["axis_labels"] == ("z", "y", "x")


def test_axes_that_the_header_has_turned_keep_their_sizes(write):
    """MAPC MAPR MAPS of 3 1 2: columns run along Z, rows along X, sections along Y."""
    path = write("map.mrc", volume=True, shape=(5, 24, 32), pixel_size=(3.0, 2.0, 1.0))
    raw = bytearray(Path(path).read_bytes())
    raw[64:76] = np.array([3, 1, 2], "<i4").tobytes()
    Path(path).write_bytes(raw)
    header = nm.open(path).header
    ((data, attributes, _),) = read(path)
    assert header.axis_order == (3, 1, 2)
    assert attributes["scale"] == list(header.scale) != list(header.pixel_size)
    copy = stack_of(data, attributes).description
    assert (copy.axis_order, copy.pixel_size) == (header.axis_order, header.pixel_size)
    attributes["scale"] = [7.0, 8.0, 9.0]  # sections, rows, columns
    assert stack_of(data, attributes).description.scale == (7.0, 8.0, 9.0)


def test_a_stack_of_volumes_has_four_axes(write):
    """ISPG 401."""
    path = write(shape=(6, 24, 32), sections_per_volume=3, pixel_size=(4.0, 2.0, 2.0))
    ((data, attributes, _),) = read(path)
    assert isinstance(data, StackSeries)
    assert data.shape == (2, 3, 24, 32)
    assert attributes["scale"] == [1.0, 4.0, 2.0, 2.0]
    assert attributes["units"] == ["pixel", "angstrom", "angstrom", "angstrom"]
    assert attributes["axis_labels"] == ("volume", "z", "y", "x")


@pytest.mark.parametrize("n", [1, 2])
def test_a_movie_may_be_one_frame_or_two(write, n):
    """They stay three-dimensional."""
    ((data, attributes, _),) = read(write(shape=(n, 24, 32)))
    assert data.shape == (n, 24, 32)
    assert len(attributes["scale"]) == 3


def test_complex_pixels_are_amplitude_and_phase(tmp_path, rng):
    """Two lazy layers of real numbers, the phase in a cyclic colormap from -π to π."""
    pixels = rng.normal(size=(3, 20, 30, 2)).astype(np.float32).view(np.complex64)[..., 0]
    nm.write(tmp_path / "wave.mrcz", pixels, pixel_size=2.0)
    (amplitude, amplitudes, _), (phase, phases, _) = read(str(tmp_path / "wave.mrcz"))
    np.testing.assert_array_equal(np.asarray(amplitude), np.abs(pixels))
    np.testing.assert_array_equal(np.asarray(phase), np.angle(pixels))
    assert amplitude.dtype == phase.dtype == np.float32
    assert [amplitudes["name"], phases["name"]] == ["wave amplitude", "wave phase"]
    assert phases["contrast_limits"] == (-np.pi, np.pi)
    assert phases["colormap"] == "twilight_shifted"
    assert 0 < amplitudes["contrast_limits"][0] < amplitudes["contrast_limits"][1] < 6
    assert amplitudes["units"] == phases["units"] == ["pixel", "angstrom", "angstrom"]


def test_metadata_tells_all_that_the_file_does(write):
    """The user's map, the header's fields by name, the footer, notes, and where it lies."""
    path = write(
        metadata={"grid": {"hole": 7}},
        voltage=300.0,
        history=({"name": "Doubling", "factor": 2},),
        other={"gain": {"path": "gain.mrc"}},
    )
    ((_, attributes, _),) = read(path)
    said = attributes["metadata"]
    assert said["path"] == path
    assert said["metadata"] == {"grid": {"hole": 7}}
    assert said["header"]["voltage"] == 300.0
    assert said["header"]["nz"] == 5
    assert said["notes"] == []
    assert said["footer"]["history"] == [{"name": "Doubling", "factor": 2}]
    assert said["footer"]["gain"] == {"path": "gain.mrc"}


def test_extended_headers_are_decoded_or_kept(write):
    """Kinds that are not known stay bytes, by name."""
    path = write("movie.mrc", extended=ExtendedHeader("HDF5", b"\1\2\3\4" * 256))
    ((_, attributes, _),) = read(path)
    assert attributes["metadata"]["extended_header"] == {
        "kind": "HDF5",
        "content": b"\1\2\3\4" * 256,
    }
    angles = np.arange(5, dtype="<i2").tobytes()
    path = write("tilt.st", extended=ExtendedHeader("SERI", angles, layout=(2, 1)))
    ((_, attributes, _),) = read(path)
    content = attributes["metadata"]["extended_header"]["content"]
    assert [frame["TiltAngle"] for frame in content] == [0, 0.01, 0.02, 0.03, 0.04]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.b.mrcz", "a.b"), ("MOVIE.MRC", "MOVIE"), ("x.rec", "x")],
)
def test_layers_are_named_after_files(write, name, expected):
    """Without the suffix."""
    ((_, attributes, _),) = read(write(name))
    assert attributes["name"] == expected


def test_packed_files_are_opened(write, tmp_path):
    """And lose both suffixes of their name."""
    plain = Path(write("movie.mrc"))
    packed = tmp_path / "movie.mrc.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert get_reader(str(packed)) is read
    ((data, attributes, _),) = read(str(packed))
    assert attributes["name"] == "movie"
    assert data.shape == (5, 24, 32)


def test_only_our_suffixes_are_claimed(tmp_path):
    """Of several files all must be ours."""
    for suffix in (*SUFFIXES, *FOREIGN_SUFFIXES):
        assert get_reader(f"a{suffix}") is read
        assert get_reader(f"a{suffix.upper()}.bz2") is read
    assert get_reader(["a.mrc", "b.mrcz"]) is read
    for other in ("a.png", "a.gz", "mrc", ["a.mrc", "b.png"], [], str(tmp_path)):
        assert get_reader(other) is None


class TestSeveralFilesAsOneStack:
    """The rule in the reader's own description."""

    def test_movies_of_equal_length_get_a_slider_for_movies(self, write):
        """In the order of the numbers in their names, not as they were dropped."""
        paths = {i: write(f"m_{i}.mrcz", pixel_size=(0.0, 1.5, 1.5)) for i in (1, 2, 10)}
        ((data, attributes, _),) = read([paths[10], paths[1], paths[2]])
        assert data.shape == (3, 5, 24, 32)
        for at, path in enumerate(paths.values()):
            with nm.open(path) as one:
                np.testing.assert_array_equal(data[at], np.asarray(one))
        assert attributes["axis_labels"] == ("movie", "frame", "y", "x")
        assert attributes["units"] == ["pixel", "pixel", "angstrom", "angstrom"]
        assert attributes["scale"] == [1.0, 1.0, 1.5, 1.5]
        assert attributes["name"] == "m_1 and 2 more"
        assert attributes["metadata"]["paths"] == list(paths.values())

    @pytest.mark.parametrize("lengths", [(1, 1, 1), (4, 2), (1, 3)])
    def test_images_and_parts_follow_each_other(self, write, lengths):
        """One axis of frames."""
        paths = [write(f"part{i}.mrcz", (n, 24, 32)) for i, n in enumerate(lengths)]
        ((data, attributes, _),) = read(paths)
        assert isinstance(data, nm.Stack)
        assert data.shape == (sum(lengths), 24, 32)
        with nm.open(paths[1]) as second:
            np.testing.assert_array_equal(data[lengths[0]], second[0])
        assert attributes["axis_labels"] == ("frame", "y", "x")

    def test_volumes_get_a_slider_for_volumes(self, write):
        """With their spacing along z."""
        size = (2.0, 1.0, 1.0)
        paths = [write(f"{i}.mrc", volume=True, pixel_size=size) for i in range(2)]
        ((data, attributes, _),) = read(paths)
        assert data.shape == (2, 5, 24, 32)
        assert attributes["axis_labels"] == ("volume", "z", "y", "x")
        assert attributes["scale"] == [1.0, 2.0, 1.0, 1.0]

    def test_stacks_of_volumes_follow_each_other(self, write):
        """Two files of two volumes are four volumes."""
        paths = [write(f"{i}.mrcz", (6, 24, 32), sections_per_volume=3) for i in range(2)]
        ((data, _, _),) = read(paths)
        assert data.shape == (4, 3, 24, 32)

    def test_one_file_alone_is_as_it_is(self, write):
        """A stack of one movie has no slider for movies."""
        ((data, attributes, _),) = read([write()])
        assert data.shape == (5, 24, 32)
        assert attributes["name"] == "movie"

    def test_frames_that_differ_are_refused_by_name(self, write):
        """Each shape is named once, with the first file that has it."""
        paths = [write(f"{i}.mrcz", (2, 24, 32 + i // 2)) for i in range(4)]
        with pytest.raises(nm.MrczError) as caught:
            read(paths)
        assert "0.mrcz: 24 x 32 uint8; 2.mrcz: 24 x 33 uint8" in str(caught.value)
        assert "1.mrcz" not in str(caught.value)

    def test_volumes_of_unequal_depth_are_refused(self, write):
        """Nothing is cut off."""
        paths = [write(f"{n}.mrc", (n, 24, 32), volume=True) for n in (3, 4)]
        with pytest.raises(nm.MrczError, match=r"3\.mrc: 3 sections; 4\.mrc: 4 sections"):
            read(paths)

    def test_a_movie_and_a_volume_are_refused(self, write):
        """They have no axis in common."""
        with pytest.raises(nm.MrczError, match=r"a\.mrc: movie; b\.mrc: volume"):
            read([write("a.mrc"), write("b.mrc", volume=True)])

    def test_pixel_sizes_that_differ_are_said(self, write):
        """The first one's is shown."""
        paths = [write(f"{i}.mrcz", pixel_size=(0.0, i, i)) for i in (1.0, 2.0)]
        with pytest.warns(nm.MrczWarning, match=r"differ in pixel size.*1 Å"):
            ((_, attributes, _),) = read(paths)
        assert attributes["scale"][-1] == 1.0

    def test_of_many_files_few_frames_are_decoded(self, write, decoded):
        """The first, and the one in the middle of the middle movie."""
        read([write(f"{i}.mrcz") for i in range(5)])
        assert decoded == [0, 2]


class TestOtherFormats:
    """Frames of any format are lazy, with scale and metadata; those of a folder are one movie."""

    COUNTS = np.random.default_rng(3).poisson(3, (3, 12, 16)).astype(np.uint16)

    @pytest.fixture
    def file(self, tmp_path):
        """Return a function that writes a movie in a format and returns its path."""

        def write_file(kind: str) -> Path:
            path = tmp_path / f"movie.{kind}"
            down = self.COUNTS[:, ::-1]
            if kind == "tif":
                options = {"resolution": (1e8 / 1.5,) * 2, "resolutionunit": "CENTIMETER"}
                tifffile.imwrite(path, down, photometric="minisblack", metadata=None, **options)
            elif kind == "eer":
                xml = "<metadata>{}</metadata>".format(
                    "".join(
                        f"<item name='sensorPixelSize.{side}' unit='m'>1.5e-10</item>"
                        for side in ("width", "height")
                    )
                )
                pages = [eer_page([(y * 4, 8) for y in range(12)], (12, 16)) for _ in range(3)]
                pages[0].tags[65001] = ("bytes", xml.encode())
                path.write_bytes(tiff(pages))
            elif kind == "dm4":
                path.write_bytes(DmWriter().images([image(down, scale=0.15)]))
            elif kind == "tvips":
                path, *_ = write_tvips(path, self.COUNTS, magnification=104_000)
            else:
                path.write_bytes(smv_bytes(self.COUNTS))
            path.with_suffix(".mdoc").write_text(
                "PixelSpacing = 1.5\n[ZValue = 0]\nTiltAngle = 7\n"
            )
            return path

        return write_file

    @pytest.mark.parametrize("kind", ["tif", "eer", "dm4", "tvips", "smv"])
    def test_each_is_lazy_with_scale_and_metadata(self, file, kind):
        """The same pixels, the same way up, whatever the format."""
        path = file(kind)
        assert get_reader(str(path)) is read
        ((data, attributes, _),) = read(str(path))
        assert isinstance(data, nm.Stack)
        expected = self.COUNTS
        if kind == "eer":
            expected = np.zeros((3, 12, 16), np.uint8)
            expected[:, :, 2] = 1
        np.testing.assert_array_equal(data, expected)
        np.testing.assert_allclose(attributes["scale"], (1, 1.5, 1.5), rtol=1e-6)
        assert attributes["units"] == ["pixel", "angstrom", "angstrom"]
        assert attributes["metadata"]["metadata"]["tilt"] == 7
        data.close()

    def test_a_folder_is_the_sweep_in_it(self, tmp_path):
        """In the order of numbers; what is no movie does not count."""
        folder = tmp_path / "crystal.1"
        folder.mkdir()
        (folder / "notes.txt").write_text("good crystal")
        for number in (1, 2, 10):
            content = gzip.compress(smv_bytes(self.COUNTS[number % 3], OSC_START=number))
            (folder / f"x_{number}.img.gz").write_bytes(content)
        assert get_reader(str(folder)) is read
        with pytest.warns(nm.MrczWarning, match="images 3 to 9 are missing"):
            ((data, attributes, _),) = read(str(folder))
        np.testing.assert_array_equal(data, self.COUNTS[[1, 2, 1]])
        assert attributes["name"] == "crystal.1"
        assert attributes["metadata"]["metadata"]["smv"]["OSC_START"] == ["1", "2", "10"]
        data.close()
        paths = [str(folder / f"x_{number}.img.gz") for number in (2, 1)]
        ((data, attributes, _),) = read(paths)
        np.testing.assert_array_equal(data, self.COUNTS[1:])
        assert attributes["name"] == "x_1 and 1 more"
        data.close()

    def test_a_recording_in_several_files_is_opened_once(self, viewer, tmp_path):
        """By any of its files, or all dropped at once, each by itself."""
        files = list(map(str, write_tvips(tmp_path / "rec.tvips", self.COUNTS, parts=3)))
        assert len(viewer.open(files, plugin="napari-mrcz")) == 1
        assert viewer.open(files[1], plugin="napari-mrcz") == []
        viewer.layers.pop().data.close()
        (layer,) = viewer.open(files[2], plugin="napari-mrcz")
        np.testing.assert_array_equal(layer.data, self.COUNTS)
        layer.data.close()
        ((data, _, _),) = read(files[::-1])
        np.testing.assert_array_equal(data, self.COUNTS)
        data.close()

    def test_a_folder_of_several_movies_is_refused_by_name(self, tmp_path):
        """And one without a movie."""
        with pytest.raises(nm.MrczError, match="a folder without a movie"):
            nm.open(tmp_path)
        for name in ("a.mrc", "b_1.mrc", "b_2.mrc"):
            nm.write(tmp_path / name, self.COUNTS[:1])
        with pytest.raises(nm.MrczError, match=r"2 movies or sweeps: a\.mrc, b_1\.mrc to b_2\.mrc"):
            nm.open(tmp_path)
        (tmp_path / "a.mrc").unlink()
        nm.write(tmp_path / "b_2.mrc", self.COUNTS[:1, 1:], overwrite=True)
        with pytest.raises(nm.MrczError, match="cannot be joined"):
            nm.open(tmp_path)

    def test_numbers_alone_are_names_of_a_sweep(self, tmp_path):
        """A link that leads nowhere is an image that is missing."""
        for number in (1, 2, 10):
            nm.write(tmp_path / f"{number}.mrc", self.COUNTS[number % 3])
        with pytest.warns(nm.MrczWarning, match="images 3 to 9"), nm.open(tmp_path) as movie:
            np.testing.assert_array_equal(movie, self.COUNTS[[1, 2, 1]])
        (tmp_path / "11.mrc").symlink_to("nowhere")
        with pytest.raises(nm.MrczError, match=r"11\.mrc: cannot be opened"):
            nm.open(tmp_path)


def test_real_files_become_layers_or_are_refused(shared_data):
    """Whatever opens as a stack has limits, scale and units that napari takes."""
    opened = 0
    for path in sorted([*shared_data.rglob("*"), *(shared_data.parent / "cases").glob("*")]):
        if get_reader(str(path)) is None or not path.is_file():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", nm.MrczWarning)
            try:
                layers = read(str(path))
            except nm.MrczError:
                continue
        for data, attributes, _ in layers:
            low, high = attributes["contrast_limits"]
            assert np.isfinite([low, high]).all() and low < high, path
            assert len(attributes["scale"]) == len(attributes["units"]) == data.ndim, path
            assert min(attributes["scale"]) > 0, path
        opened += 1
    assert opened > 50
