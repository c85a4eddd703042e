"""Movies at URLs: only what is looked at travels, and servers that misbehave end in errors."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QTimer
from range_server import RangeServer
from tiff_writing import page_of, tiff

import napari_mrcz as nm
from napari_mrcz.format import FrameReader, remote
from napari_mrcz.naming import RemotePath, path_of
from napari_mrcz.plugin.hooks import get_reader, read
from napari_mrcz.widgets.inspector.model import Subject, inspect
from napari_mrcz.widgets.save_stack.model import suggest_path

FRAMES = np.random.default_rng(4).poisson(2, (40, 200, 220)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    nm.write(folder / "movie.mrcz", FRAMES, pixel_size=(0, 1.5, 1.5), metadata={"grid": 7})
    nm.write(folder / "plain.mrc", FRAMES[:3])
    return folder


@pytest.fixture
def server(folder, monkeypatch):
    monkeypatch.setattr(remote, "_WAIT_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = RangeServer(folder)
    yield server
    server.stop()


def test_only_what_is_looked_at_travels(server, folder):
    with nm.open(server.url("movie.mrcz"), read_ahead=False) as movie:
        assert movie.shape == FRAMES.shape
        assert movie.pixel_size == (0.0, 1.5, 1.5)
        assert movie.metadata == {"grid": 7}
        assert movie.path == server.url("movie.mrcz")
        opened = server.nbytes
        assert opened <= 2**14 + 2**16
        np.testing.assert_array_equal(movie[20], FRAMES[20])
        with FrameReader(folder / "movie.mrcz") as reader:
            own = int(reader.index.sizes[20])
        assert server.nbytes == opened + own
        np.testing.assert_array_equal(movie[20], FRAMES[20])  # it is cached
        assert len(server.sent) == 3
        np.testing.assert_array_equal(movie, FRAMES)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(movie))[3], FRAMES[3])


def test_a_movie_kept_as_counts_has_its_reference_beside_it(server, folder):
    gain = np.random.default_rng(2).normal(1, 0.05, FRAMES.shape[1:])
    stack = nm.Stack.from_array(FRAMES[:3]).apply(nm.GainNormalization(gain))
    nm.write(folder / "kept.mrcz", stack, keep="counts")
    np.testing.assert_array_equal(nm.read(server.url("kept.mrcz")), stack)
    next(folder.glob("gain-*")).unlink()
    with pytest.raises(nm.MrczError, match=r"gain-.* is missing beside it"):
        nm.open(server.url("kept.mrcz"))


def test_a_long_movie_costs_little_more_than_its_first_frame(server, folder):
    """With and without a footer, whose chunks are walked: here those of fewer frames."""
    frames = np.random.default_rng(5).integers(0, 2, (600, 180, 200)).astype(np.int8)
    nm.write(folder / "long.mrcz", frames)
    nm.write(folder / "bare.mrcz", frames[:60], footer=False)
    with FrameReader(folder / "long.mrcz") as reader:
        own = int(reader.index.sizes[0])
    for name, more in (("long.mrcz", 200_000), ("bare.mrcz", 2**14 + 2**16 + 60 * 128)):
        del server.sent[:]
        with nm.open(server.url(name)) as movie:
            np.testing.assert_array_equal(movie[0], frames[0])
        assert server.nbytes <= 1.2 * own + more, name


def test_the_next_frames_are_read_ahead(server):
    with nm.open(server.url("movie.mrcz")) as movie:
        _ = movie[4], movie[5]
        ahead = [movie._cache._kept[frame].result(timeout=60) for frame in (6, 7)]
        np.testing.assert_array_equal(ahead, FRAMES[6:8])


def test_connections_that_are_cut_go_on_where_they_ended(server):
    server.most = 1000
    with nm.open(server.url("movie.mrcz"), read_ahead=False) as movie:
        np.testing.assert_array_equal(movie[7], FRAMES[7])
    ends = {start + nbytes for _, start, nbytes in server.sent}
    assert len([start for _, start, _ in server.sent if start in ends]) > 5
    server.most, server.failures = None, 3
    with nm.open(server.url("plain.mrc")) as movie:
        np.testing.assert_array_equal(movie, FRAMES[:3])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ranges": False}, "whole files and no parts"),
        ({"most": 0}, "then no more"),
        ({"failures": 10}, "503"),
        ({"shift": 7}, "asked for bytes 0 to 16383, the server answers 206"),
        ({"surplus": 5}, "more than it was asked for"),
    ],
)
def test_a_server_that_cannot_be_used_ends_in_an_error(server, wrong, said):
    for name, value in wrong.items():
        setattr(server, name, value)
    with pytest.raises(nm.MrczError, match=said):
        nm.open(server.url("movie.mrcz"))
    # Nothing of the file but what may lie in the buffers of the system.
    assert sum(nbytes for _, _, nbytes in server.sent) < 2**22


def test_a_length_that_is_not_true_costs_no_pixels(server):
    """The footer is then not found where it should be, or not all of what is announced comes."""
    server.more = 5000
    with pytest.raises(nm.MrczError, match="416"):
        nm.open(server.url("movie.mrcz"))


def test_a_silent_server_is_given_up(server, monkeypatch):
    movie = nm.open(server.url("movie.mrcz"), read_ahead=False)
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.2)
    server.silent.clear()
    with pytest.raises(nm.MrczError, match=r"frame|too slow or silent"):
        _ = movie[9]
    server.silent.set()
    np.testing.assert_array_equal(movie[9], FRAMES[9])  # when it answers again


def test_a_server_that_takes_its_time_for_each_piece_is_given_up(server, folder, monkeypatch):
    nm.write(folder / "walked.mrcz", FRAMES, footer=False)
    monkeypatch.setattr(remote, "_MOST_TIMEOUTS", 0)
    with pytest.raises(nm.MrczError, match="its index is not read"):
        nm.open(server.url("walked.mrcz"))


def test_a_file_that_changes_on_the_server_is_noticed(server):
    movie = nm.open(server.url("movie.mrcz"), read_ahead=False)
    server.mark = '"2"'
    with pytest.raises(nm.MrczError, match="changed on the server"):
        _ = movie[9]
    for mark in ('W/"1"', ""):  # as another server of several has it
        server.mark = mark
        np.testing.assert_array_equal(movie[9 + len(mark)], FRAMES[9 + len(mark)])


def test_a_signed_url_is_sent_as_it_is_and_stays_secret(napari_mrcz, server, tmp_path):
    signed = server.url("plain.mrc") + "?key=a%2Fb%3D"
    assert napari_mrcz("compress", signed, "-o", tmp_path).status == 0
    assert server.asked == "/plain.mrc?key=a%2Fb%3D"
    with FrameReader(tmp_path / "plain.mrcz") as reader:
        assert reader.footer.other["source"]["name"] == "plain.mrc"
    _ = nm.open(server.url("plain.mrc?key=å"))  # what a URL cannot have is encoded
    assert server.asked == "/plain.mrc?key=%C3%A5"


def test_a_fork_has_connections_of_its_own(server, folder):
    content = remote.RemoteBytes(server.url("movie.mrcz"))
    content._process = content._files = None  # as if it were another process's
    piece = bytearray(100)
    assert content.read_into(20000, memoryview(piece)) == 100
    assert piece == (folder / "movie.mrcz").read_bytes()[20000:20100]


@pytest.mark.parametrize(
    ("name", "said"), [("none.mrcz", "not there .404"), ("secret", "may not be read .403")]
)
def test_what_is_not_there_or_may_not_be_read(server, name, said):
    with pytest.raises(nm.MrczError, match=said):
        nm.open(server.url(name))


def test_what_cannot_be_read_lazily_is_refused(server, folder):
    (folder / "packed.mrc.gz").write_bytes(b"\x1f\x8b\x08" + bytes(50))
    (folder / "empty.mrc").write_bytes(b"")
    with pytest.raises(nm.MrczError, match="is packed"):
        nm.open(server.url("packed.mrc.gz"))
    with pytest.raises(nm.MrczError, match="only 0 bytes"):
        nm.open(server.url("empty.mrc"))
    with pytest.raises(nm.MrczError, match="not a URL that is read"):
        nm.open("nothing://host/movie.mrcz")
    with pytest.raises(nm.MrczError, match="then no more"):
        nm.open("http://127.0.0.1:1/movie.mrcz")
    with pytest.raises(nm.MrczError, match="cannot be opened"):
        nm.open("ftp://127.0.0.1:1/movie.mrcz")


def test_other_formats_and_protocols(server, folder):
    """Whatever fsspec has: here its files in memory."""
    import fsspec

    (folder / "movie.tif").write_bytes(tiff([page_of(frame) for frame in FRAMES[:3]]))
    with nm.open(server.url("movie.tif")) as movie:
        np.testing.assert_array_equal(movie, FRAMES[:3, ::-1])
    fsspec.filesystem("memory").pipe("/movie.mrcz", (folder / "movie.mrcz").read_bytes())
    with nm.open("memory://movie.mrcz") as movie:
        np.testing.assert_array_equal(movie[39], FRAMES[39])
    with pytest.raises(nm.MrczError, match="is not there"):
        nm.open("memory://none.mrcz")
    with pytest.raises(nm.MrczError, match="nothing is written"):
        nm.write("memory://out.mrcz", FRAMES[:1])
    with nm.open((folder / "plain.mrc").as_uri()) as movie:
        assert movie.path == str(folder / "plain.mrc")


def test_commands_take_urls(napari_mrcz, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = server.url("movie.mrcz")
    ran = napari_mrcz("info", url)
    assert ran.status == 0, ran.err
    assert "40 frames of 200 x 220" in ran.out
    ran = napari_mrcz("verify", url)
    assert ran.status == 0, ran.err
    ran = napari_mrcz("decompress", url)
    assert ran.status == 0, ran.err
    assert "movie.mrcz -> movie.mrc: 553 kB" in ran.err
    np.testing.assert_array_equal(nm.read(tmp_path / "movie.mrc"), FRAMES)
    ran = napari_mrcz("info", server.url("none.mrcz"))
    assert (ran.status, "404" in ran.err) == (1, True)


def test_napari_takes_urls(server):
    url = server.url("movie.mrcz")
    assert get_reader(url) is read
    ((data, attributes, _),) = read(url)
    assert attributes["name"] == "movie"
    assert attributes["metadata"]["path"] == url
    data.wanted = lambda stack, frame: True
    assert data[0:0, 0:1, :].shape == (0, 1, 220)
    np.testing.assert_array_equal(data[19], FRAMES[19])
    data.close()
    inspection = inspect(Subject("movie", data.shape, "", data.description, data.header))
    assert len(inspection.frames) == 40
    assert Path(suggest_path(data, "movie", None, ".mrcz")) == Path.home() / "movie.mrcz"


def test_napari_does_not_wait_for_frames(viewer, qtbot, server):
    """They are blank until they come; a script, which has no user to keep waiting, waits."""
    (layer,) = viewer.open(server.url("movie.mrcz"), plugin="napari-mrcz")

    def shown():
        return layer._slice.image.raw

    viewer.dims.set_current_step(0, 9)
    np.testing.assert_array_equal(shown(), FRAMES[9])
    server.silent.clear()
    at_once = []

    def step():
        for frame in (30, 31, 35):
            viewer.dims.set_current_step(0, frame)
            at_once.append(shown().max())
        server.silent.set()

    QTimer.singleShot(0, step)
    qtbot.waitUntil(lambda: np.array_equal(shown(), FRAMES[35]))
    assert at_once == [0, 0, 0]
    layer.data.close()


def test_a_url_is_a_path_with_the_name_of_the_file():
    url = "https://host.org:8000/data//set/movie.mrcz?key=a/b&x=1.2"
    path = path_of(url)
    assert isinstance(path, RemotePath)
    assert str(path) == str(path.absolute()) == str(pickle.loads(pickle.dumps(path))) == url
    assert (path.name, path.suffix) == ("movie.mrcz", ".mrcz")
    assert str(path.with_name("movie.mdoc")) == "https://host.org:8000/data/set/movie.mdoc"
    assert not path.exists()
    assert path != path_of(url.replace("1.2", "1.3"))
    for local in ("C:/data/movie.mrcz", "movie.mrcz", "a:b//c"):
        assert not isinstance(path_of(local), RemotePath)
