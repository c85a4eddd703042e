"""Files, folders and terminals that are not as they should be: a line is said, nothing lost."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import napari_mrcz as nm

FRAMES = np.random.default_rng(5).poisson(1, (6, 40, 56)).astype(np.int16)

# The program as it is installed, in a process of its own.
PROGRAM = (sys.executable, "-c", "from napari_mrcz.cli.entry import run; run()")


@pytest.fixture
def movie(tmp_path) -> Path:
    """Return a plain movie."""
    nm.write(tmp_path / "movie.mrc", FRAMES)
    return tmp_path / "movie.mrc"


def cut_off(path: Path) -> None:
    """Leave a little more than half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 5])


@pytest.mark.filterwarnings("default::napari_mrcz.MrczWarning")
class TestSourcesThatAreNotWhole:
    """What was verified is deleted only where it is all there was."""

    @pytest.fixture
    def compress(self, napari_mrcz):
        """Return a function that compresses a file and deletes it if it may."""
        return lambda path: napari_mrcz("compress", path, "--verify", "--delete")

    def test_of_an_mrc_file_that_was_cut_off_the_rest_may_yet_come(self, compress, movie):
        cut_off(movie)
        ran = compress(movie)
        assert ran.status == 0
        assert "source kept: 3 of the 6 frames" in ran.err
        assert movie.exists()
        assert (nm.read(movie.with_suffix(".mrcz")) == FRAMES[:3]).all()

    def test_a_header_that_was_not_finished_hides_frames(self, compress, movie):
        content = bytearray(movie.read_bytes())
        content[8:12] = (4).to_bytes(4, sys.byteorder)  # NZ
        movie.write_bytes(content)
        ran = compress(movie)
        assert ran.status == 0
        assert "source kept" in ran.err
        assert movie.read_bytes() == content
        assert (nm.read(movie.with_suffix(".mrcz")) == FRAMES).all()

    @pytest.mark.parametrize("bigtiff", [False, True])
    @pytest.mark.parametrize("byteorder", ["<", ">"])
    def test_of_a_tiff_movie_pages_are_missing(self, compress, tmp_path, bigtiff, byteorder):
        path = tmp_path / "movie.tif"
        with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=byteorder) as file:
            for frame in FRAMES:
                file.write(frame, contiguous=False, compression="zlib")
        whole = path.read_bytes()
        cut_off(path)
        ran = compress(path)
        assert "it is cut off or damaged" in ran.err
        assert path.exists()
        path.write_bytes(whole)
        (tmp_path / "movie.mrcz").unlink(missing_ok=True)
        assert compress(path).status == 0
        assert not path.exists()


class TestEmptyNames:
    """Of variables that are not set; an empty path would be the current folder."""

    @pytest.mark.parametrize("command", ["compress", "info", "verify", "decompress"])
    def test_are_no_folder_to_work_through(self, napari_mrcz, movie, monkeypatch, command):
        monkeypatch.chdir(movie.parent)
        ran = napari_mrcz(command, "")
        assert (ran.status, len(ran.err.splitlines())) == (2, 1)
        assert list(movie.parent.iterdir()) == [movie]

    @pytest.mark.parametrize("command", ["compress", "decompress", "convert", "correct"])
    def test_are_no_folder_for_results(self, napari_mrcz, movie, command):
        ran = napari_mrcz(command, movie, "-o", "")
        assert (ran.status, len(ran.err.splitlines())) == (2, 1)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_file_that_may_not_be_read_stops_no_batch(napari_mrcz, movie):
    secret = movie.with_name("secret.mrc")
    secret.write_bytes(movie.read_bytes())
    secret.chmod(0)
    ran = napari_mrcz("compress", secret, movie)
    assert ran.status == 1
    assert "1 of 2 files compressed" in ran.err


def test_a_report_that_cannot_be_written_is_told_before_the_work(napari_mrcz, movie, monkeypatch):
    pytest.importorskip("matplotlib")
    real = os.open

    def refuse(path, *args, **kwargs):
        if Path(path).parent == movie.parent / "out" or Path(path) == movie.parent / "out":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    ran = napari_mrcz("session", movie, "-o", movie.parent / "out" / "report.html")
    assert ran.status == 1
    (line,) = ran.err.splitlines()
    assert "cannot be written" in line


class TestRecipes:
    """What cannot be done is told once, of the recipe, before a movie is read."""

    @pytest.fixture
    def check(self, napari_mrcz, tmp_path):
        """Return a function that checks a recipe of a given text."""

        def check(text):
            path = tmp_path / "recipe.toml"
            path.write_text(text)
            ran = napari_mrcz("recipe", "check", path)
            assert len(ran.err.splitlines()) == ran.status
            return ran

        return check

    @pytest.mark.parametrize(
        "text",
        [
            '[outliers]\nmodel = "gamma"',
            '[outliers]\nfill = "zero"',
            "[outliers]\norder = inf",
            "[outliers]\nlimit = nan",
            "[outliers]\nrelaxation = 1e300",
            f"[outliers]\norder = {'9' * 400}",
            "[outliers]\nseed = -1",
            "[outliers]\ntolerance = 2",
            '[outliers]\n[output]\ncodec = "rar"',
            "[outliers]\n[output]\nlevel = 10",
            '[outliers]\n[output]\nfilter = "sieve"',
            '[outliers]\n[output]\ndtype = "int99"',
            '[outliers]\n[output]\ndtype = "object"',
            "[koma]\nradius = 0",
            "[koma]\nlimit = -1",
            '[gain]\nreference = "gain.mrc"\norientation = "sideways"',
            '[gain]\nreference = "gain.mrc"\ngamma = 500',
            '[gain]\nreference = "a\\u0000b"',
        ],
    )
    def test_values_that_mean_nothing(self, check, text):
        ran = check(text)
        assert ran.status == 1
        assert "recipe.toml: " in ran.err

    def test_a_reference_without_a_usable_pixel(self, napari_mrcz, check, movie):
        gain = np.full(FRAMES.shape[1:], np.nan, np.float32)
        nm.write(movie.with_name("gain.mrc"), gain)
        assert check('[gain]\nreference = "gain.mrc"').status == 1
        out = movie.parent / "out"
        ran = napari_mrcz("correct", movie, "-r", movie.with_name("recipe.toml"), "-o", out)
        assert ran.status == 1
        assert "has no pixel that can be used" in ran.err
        assert not list(out.iterdir())

    def test_rectangles_can_be_checked_without_the_frames(self, check, tmp_path):
        (tmp_path / "defects.txt").write_text("1 2 3 4\n")
        ran = check('[outliers]\ndefects = "defects.txt"')
        assert ran.status == 0
        (tmp_path / "defects.txt").write_text("1 2 3\n")
        assert check('[outliers]\ndefects = "defects.txt"').status == 1

    @pytest.mark.parametrize("rectangle", ["56 0 2 2", "0 40 2 2", "-5 0 3 2"])
    def test_rectangles_outside_the_frame_are_of_another_camera(
        self, napari_mrcz, movie, rectangle
    ):
        movie.with_name("defects.txt").write_text(f"0 0 1 1\n{rectangle}\n")
        recipe = movie.with_name("recipe.toml")
        recipe.write_text('[outliers]\ndefects = "defects.txt"')
        ran = napari_mrcz("correct", movie, "-r", recipe, "-o", movie.parent / "out")
        assert ran.status == 1
        assert f"line 2, {rectangle}, lies outside frames of (40, 56)" in ran.err

    def test_no_camera_is_as_large_as_a_list_may_say(self, check, tmp_path):
        (tmp_path / "defects.txt").write_text("CameraSizeX 7000000\nCameraSizeY 7000000\n")
        assert "of a camera of" in check('[outliers]\ndefects = "defects.txt"').err

    @pytest.mark.skipif(sys.platform == "win32", reason="has no such pipes")
    @pytest.mark.parametrize("step", ['gain]\nreference = "p"', 'outliers]\ndefects = "p"'])
    def test_a_pipe_is_not_waited_for(self, check, tmp_path, step):
        os.mkfifo(tmp_path / "p")
        assert "is a pipe" in check(f"[{step}").err

    def test_of_a_movie_without_history_there_is_no_recipe(self, napari_mrcz, movie):
        ran = napari_mrcz("recipe", "new", movie.with_name("r.toml"), "--history", movie)
        assert ran.status == 1
        assert "nothing was done to it" in ran.err
        assert not movie.with_name("r.toml").exists()


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names there are always Unicode")
@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_name_of_another_encoding_spoils_no_report(napari_mrcz, movie, name):
    pytest.importorskip("matplotlib")
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    odd = movie.rename(movie.with_name(os.fsdecode(b"m\xf6vie.mrc")))
    report, table = movie.with_name("report.html"), movie.with_name(name)
    ran = napari_mrcz("session", odd, "-o", report, "--table", table)
    assert ran.status == 0, ran.err
    assert r"m\udcf6vie.mrc" in report.read_text()
    assert rb"m\udcf6vie.mrc" in table.read_bytes()


class TestWhatIsSaid:
    def test_a_name_of_two_lines_is_said_in_one(self, napari_mrcz, tmp_path):
        path = tmp_path / "two\nlines \x1b[31m.mrc"
        path.write_bytes(b"no movie")
        ran = napari_mrcz("compress", path)
        assert ran.status == 1
        assert len(ran.err.splitlines()) == 1
        assert r"two\nlines \x1b[31m.mrc" in ran.err

    @pytest.mark.parametrize("name", ["empty.dm3", "empty.dm4"])
    def test_an_empty_dm_file(self, napari_mrcz, tmp_path, name):
        (tmp_path / name).touch()
        ran = napari_mrcz("compress", tmp_path / name)
        assert (ran.status, len(ran.err.splitlines())) == (1, 1)

    def test_a_group_of_commands_alone_shows_its_help(self, napari_mrcz):
        ran = napari_mrcz("recipe")
        assert (ran.status, ran.err) == (2, "")


@pytest.mark.skipif(sys.platform == "win32", reason="a shell closes the streams")
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_work_is_done_where_nobody_listens(movie, closed):
    """As some daemons start programs; the result must not get what is said in its place."""
    command = f'"$0" -c "$1" compress "$2" --verify {closed}'
    done = subprocess.run(["/bin/sh", "-c", command, *PROGRAM[::2], str(movie)], check=False)
    assert done.returncode == 0
    assert (nm.read(movie.with_suffix(".mrcz")) == FRAMES).all()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_the_output_is_one_line(movie):
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [*PROGRAM, "info", str(movie)], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert ran.returncode == 1
    assert ran.stderr == b"napari-mrcz: No space left on device\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_the_log_is_named_when_all_is_done(napari_mrcz, movie):
    ran = napari_mrcz("compress", movie, "--log", "/dev/full")
    assert ran.status == 1
    assert "napari-mrcz: /dev/full: messages are missing" in ran.err
    assert (nm.read(movie.with_suffix(".mrcz")) == FRAMES).all()
    movie.unlink()
    assert "/dev/full" not in napari_mrcz("compress", movie, "--log", "/dev/full").err


@pytest.mark.parametrize("command", ["compress", "correct", "repair", "verify", "info"])
def test_a_link_that_leads_to_itself_is_an_error(napari_mrcz, tmp_path, command):
    (tmp_path / "loop.mrc").symlink_to("loop.mrc")
    makes = command in ("compress", "correct", "repair")
    ran = napari_mrcz(command, tmp_path / "loop.mrc", *(("-o", tmp_path / "out") * makes))
    assert ran.status == 1
    assert "symbolic links" in ran.err + ran.out
