"""What all commands for many files have in common: second runs, trees, dry runs, log, manifest."""

import csv
import errno
import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.cli.arguments import Saying
from napari_mrcz.correction.koma import KomaOptions
from napari_mrcz.correction.outliers.thresholds import OutlierStep
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.format.machine import thread_limit
from napari_mrcz.format.reader import FrameReader
from napari_mrcz.session.convert import Recode
from napari_mrcz.session.recipe import Recipe
from napari_mrcz.session.tasks import Making

SHAPE = (4, 24, 32)
NAMES = ("a/movie.mrc", "b/movie.mrc", "movie.mrc")


def frames(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).poisson(2, SHAPE).astype(np.int8)


@pytest.fixture
def tree(tmp_path) -> Path:
    """Return a folder with movies of one name in it and in folders within."""
    for seed, name in enumerate(NAMES):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nm.write(path, frames(seed))
    return tmp_path / "in"


def files_in(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return content and time of all files."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in paths
    }


def commands(tree: Path, tmp_path: Path) -> dict[str, tuple]:
    """Return command lines that make one file of another, without the output."""
    packed = tmp_path / "packed"
    packed.mkdir()
    for seed in range(3):
        nm.write(packed / f"{seed}.mrcz", frames(seed))
    return {
        "compress": ("compress", tree),
        "decompress": ("decompress", packed),
        "convert": ("convert", packed),
        "lz4": ("convert", packed, "--codec", "lz4"),
        "correct": ("correct", tree),
    }


@pytest.mark.parametrize("name", ["compress", "decompress", "convert", "lz4", "correct"])
def test_a_second_run_does_what_is_left(napari_mrcz, tree, tmp_path, name):
    """And touches nothing that is whole; that is no failure."""
    command = (*commands(tree, tmp_path)[name], "-o", tmp_path / "out")
    assert napari_mrcz(*command).status == 0
    before = files_in(tmp_path / "out")
    assert len(before) == 3
    gone = sorted(before)[1]
    (tmp_path / "out" / gone).unlink()
    again = napari_mrcz(*command)
    assert again.status == 1
    assert again.err.count("--skip-existing") == 2
    (tmp_path / "out" / gone).unlink()
    ran = napari_mrcz(*command, "--skip-existing", "--json")
    assert ran.status == 0, ran.err
    told = [json.loads(line) for line in ran.out.splitlines()]
    assert sum(one["skipped"] for one in told) == 2
    after = files_in(tmp_path / "out")
    assert {k: v[0] for k, v in after.items()} == {k: v[0] for k, v in before.items()}
    assert {k: v for k, v in after.items() if k != gone} == {
        k: v for k, v in before.items() if k != gone
    }


def flip(path: Path, folder: Path) -> None:
    with FrameReader(path) as reader:
        at = int(reader.index.offsets[1]) + 40
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def cut(path: Path, folder: Path) -> None:
    os.truncate(path, path.stat().st_size - 50)


def other_source(path: Path, folder: Path) -> None:
    nm.write(folder / "movie.mrc", frames(9), overwrite=True)


def touched_source(path: Path, folder: Path) -> None:
    os.utime(folder / "movie.mrc")


def not_ours(path: Path, folder: Path) -> None:
    nm.write(path, frames(2), overwrite=True)


@pytest.mark.parametrize("spoil", [flip, cut, other_source, touched_source, not_ours])
def test_what_is_not_the_whole_result_is_not_skipped(napari_mrcz, tree, tmp_path, spoil):
    """It is replaced only if that is asked for as well."""
    command = ("compress", tree / "movie.mrc", "-o", tmp_path / "out", "--skip-existing")
    result = tmp_path / "out" / "movie.mrcz"
    assert napari_mrcz(*command).status == 0
    spoil(result, tree)
    before = result.read_bytes()
    assert napari_mrcz(*command).status == 1
    assert result.read_bytes() == before
    assert napari_mrcz(*command, "--overwrite").status == 0
    assert (nm.read(result) == nm.read(tree / "movie.mrc")).all()
    assert napari_mrcz(*command).status == 0


def test_other_options_make_another_result(napari_mrcz, tree, tmp_path):
    command = ("compress", tree / "movie.mrc", "-o", tmp_path / "out", "--skip-existing")
    assert napari_mrcz(*command).status == 0
    assert napari_mrcz(*command, "--level", 5).status == 0  # the same pixels
    assert napari_mrcz(*command, "--dtype", "int16").status == 1
    assert napari_mrcz(*command, "--group", 2).status == 1


def test_a_plain_result_is_known_by_shape_and_time(napari_mrcz, tmp_path):
    nm.write(tmp_path / "m.mrcz", frames(0))
    command = ("decompress", tmp_path / "m.mrcz", "--skip-existing")
    assert napari_mrcz(*command).status == 0
    assert nm.verify(tmp_path / "m.mrc").checksums is False
    assert napari_mrcz(*command).status == 0
    os.utime(tmp_path / "m.mrc")
    assert napari_mrcz(*command).status == 1


def test_nothing_says_of_a_copy_what_it_was_made_of(napari_mrcz, tree, tmp_path):
    """A script that saves a movie again makes another file of it."""
    assert napari_mrcz("compress", tree / "movie.mrc", "-o", tmp_path / "out").status == 0
    result = tmp_path / "out" / "movie.mrcz"
    with nm.open(result) as movie:
        nm.write(result, np.asarray(movie) * 2, overwrite=True)
        assert "source" not in movie.description.other
    ran = napari_mrcz("compress", tree / "movie.mrc", "-o", tmp_path / "out", "--skip-existing")
    assert ran.status == 1


def test_a_session_that_is_corrected_is_not_read_again(napari_mrcz, tmp_path, monkeypatch):
    """But one with a movie more is: the averages are others."""
    (tmp_path / "in").mkdir()
    for i in range(4):
        nm.write(tmp_path / "in" / f"movie_{i}.mrcz", frames(i))
    Recipe(OutlierStep(), koma=KomaOptions(1, limit=1e6)).save(tmp_path / "r.toml")
    command = ("correct", tmp_path / "in", "-r", tmp_path / "r.toml", "-o", tmp_path / "out")
    assert napari_mrcz(*command).status == 0
    before = files_in(tmp_path / "out")
    decoding = mock.Mock(side_effect=AssertionError("a frame is decoded"))
    with monkeypatch.context() as patched:
        patched.setattr(FrameReader, "read_frame", decoding)
        ran = napari_mrcz(*command, "--skip-existing")
    assert ran.status == 0, ran.err
    nm.write(tmp_path / "in" / "movie_4.mrcz", frames(4))
    ran = napari_mrcz(*command, "--skip-existing", "--json")
    told = {Path(t["source"]).stem: t for t in map(json.loads, ran.out.splitlines())}
    assert [name for name, one in told.items() if one["skipped"]] == [
        *("movie_0", "movie_1", "movie_2")
    ]
    assert told["movie_4"]["ok"]
    assert "made of movie_3.mrcz with other" in told["movie_3"]["error"]
    after = files_in(tmp_path / "out")
    assert {name: after[name] for name in before} == before


def test_a_tree_stays_a_tree(napari_mrcz, tree, tmp_path):
    """Files that are named singly do not: their folders were not meant."""
    assert napari_mrcz("compress", tree, "-o", tmp_path / "out").status == 0
    results = files_in(tmp_path / "out")
    assert sorted(results) == sorted(f"{name}z" for name in NAMES)
    for seed, name in enumerate(NAMES):
        assert (nm.read(tmp_path / "out" / f"{name}z") == frames(seed)).all()
    assert napari_mrcz("compress", tree / "a" / "movie.mrc", "-o", tmp_path / "flat").status == 0
    assert sorted(files_in(tmp_path / "flat")) == ["movie.mrcz"]


def test_results_within_the_tree_are_no_movies_of_it(napari_mrcz, tree):
    command = ("correct", tree, "-o", tree / "corrected")
    assert napari_mrcz(*command).status == 0
    ran = napari_mrcz(*command, "--skip-existing", "--json")
    assert ran.status == 0, ran.err
    assert len(ran.out.splitlines()) == 3


@pytest.mark.parametrize("name", ["compress", "decompress", "convert"])
def test_results_keep_the_time_of_their_sources(napari_mrcz, tree, tmp_path, name):
    command = commands(tree, tmp_path)[name]
    for path in command[1].rglob("*.mrc*"):
        os.utime(path, ns=(10**18 + 1, 10**18 + 1))
    assert napari_mrcz(*command, "-o", tmp_path / "out").status == 0
    assert {time for _, time in files_in(tmp_path / "out").values()} == {10**18 + 1}


@pytest.mark.parametrize("name", ["compress", "convert", "correct"])
def test_a_dry_run_writes_nothing_and_says_what_would_be(napari_mrcz, tree, tmp_path, name):
    command = (*commands(tree, tmp_path)[name], "-o", tmp_path / "out")
    before = files_in(tmp_path)
    planned = napari_mrcz(*command, "--dry-run", "--json")
    assert planned.status == 0, planned.err
    assert files_in(tmp_path) == before
    assert not (tmp_path / "out").exists()
    ran = napari_mrcz(*command, "--json")
    pairs = [
        [(told["source"], told["target"]) for told in map(json.loads, out.splitlines())]
        for out in (planned.out, ran.out)
    ]
    assert pairs[0] == pairs[1]
    assert napari_mrcz(*command, "--dry-run").status == 1  # they exist
    assert napari_mrcz(*command, "--dry-run", "--skip-existing").status == 0
    assert napari_mrcz(*command, "--dry-run", "--overwrite").status == 0
    assert napari_mrcz(*command, "--dry-run", "--log", tmp_path / "log").status == 2
    assert not (tmp_path / "log").exists()


def test_the_size_that_a_dry_run_tells_is_about_right(tmp_path):
    movie = np.random.default_rng(0).poisson(1, (6, 256, 256)).astype(np.uint8)
    nm.write(tmp_path / "m.mrc", movie)
    task = Recode(str(tmp_path / "m.mrc"), str(tmp_path / "m.mrcz"))
    planned, done = task.planned(), task()
    assert planned.target_nbytes == pytest.approx(done.target_nbytes, rel=0.05)


def test_quiet_says_problems_alone_and_the_log_all(napari_mrcz, tree, tmp_path):
    command = ("compress", tree, "-o", tmp_path / "out", "--log", tmp_path / "log")
    ran = napari_mrcz(*command, "--quiet")
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    loud = napari_mrcz("compress", tree, "-o", tmp_path / "other")
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == len(loud.err.splitlines())
    (tree / "bad.mrc").write_bytes(b"no movie")
    again = napari_mrcz(*command, "--quiet", "--skip-existing")
    assert again.status == 1
    (said,) = again.err.splitlines()
    assert "bad.mrc" in said
    more = (tmp_path / "log").read_text().splitlines()
    assert more[: len(lines)] == lines
    assert any(line.endswith(said) for line in more[len(lines) :])


@pytest.mark.filterwarnings("always::napari_mrcz.MrczWarning")
def test_a_kept_source_is_a_problem_and_no_failure(napari_mrcz, tree, tmp_path):
    with (tree / "a" / "movie.mrc").open("ab") as file:
        file.write(b"more")
    command = ("compress", tree, "-o", tmp_path / "out", "--verify", "--delete")
    ran = napari_mrcz(*command, "--log", tmp_path / "log", "--quiet")
    assert ran.status == 0
    assert ran.err.splitlines()[-1].count("source kept: ") == 1
    assert (tmp_path / "log").read_text().count("; 1 source kept") == 1
    assert [p.relative_to(tree).as_posix() for p in tree.rglob("*.mrc")] == ["a/movie.mrc"]


def test_json_says_the_same_as_the_text(napari_mrcz, tree, tmp_path):
    command = ("compress", tree, "-o", tmp_path / "out")
    napari_mrcz(*command)
    ran = napari_mrcz(*command, "--json")
    errors = [f"napari-mrcz: {json.loads(line)['error']}" for line in ran.out.splitlines()]
    assert ran.err.splitlines()[:-1] == errors


def test_what_ends_a_command_is_in_its_log(napari_mrcz, tree, tmp_path, monkeypatch):
    monkeypatch.setattr(Making, "__call__", mock.Mock(side_effect=KeyboardInterrupt))
    command = ("compress", tree, "-o", tmp_path / "out", "--log", tmp_path / "log")
    assert napari_mrcz(*command, "--manifest", tmp_path / "m.csv").status == 130
    assert (tmp_path / "log").read_text().splitlines()[-1].endswith("interrupted")
    assert rows_of(tmp_path / "m.csv") == []


def rows_of(path: Path) -> list[dict]:
    if path.suffix == ".csv":
        return list(csv.DictReader(path.read_text().splitlines()))
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_manifest_has_sizes_and_checksums(napari_mrcz, tree, tmp_path, suffix):
    """Of sources, too, that are deleted; and what could not be done."""
    (tree / "bad.mrc").write_bytes(b"no movie")
    sums = {p.read_bytes() for p in tree.rglob("*.mrc")}
    sums = {hashlib.sha256(content).hexdigest() for content in sums}
    manifest = tmp_path / f"m{suffix}"
    command = ("compress", tree, "-o", tmp_path / "out", "--manifest", manifest)
    assert napari_mrcz(*command, "--verify", "--delete").status == 1
    rows = rows_of(manifest)
    assert len(rows) == 4
    for row in rows:
        if not row["error"]:
            result = Path(row["target"]).read_bytes()
            assert row["target_sha256"] == hashlib.sha256(result).hexdigest()
            assert int(row["target_nbytes"]) == len(result)
            assert row["source_sha256"] in sums
            assert not Path(row["source"]).exists()
    assert [Path(row["source"]).name for row in rows if row["error"]] == ["bad.mrc"]
    assert napari_mrcz(*command).status == 1  # nothing is replaced unasked
    assert rows_of(manifest) == rows


def test_a_manifest_is_gone_on_with(napari_mrcz, tree, tmp_path):
    command = ("--manifest", tmp_path / "m.csv", "-o", tmp_path / "out")
    assert napari_mrcz("compress", tree / "movie.mrc", *command).status == 0
    assert napari_mrcz("compress", tree / "a", *command, "--skip-existing").status == 1  # one name
    assert napari_mrcz("compress", tree, *command, "--skip-existing").status == 0
    rows = rows_of(tmp_path / "m.csv")
    assert sorted(Path(row["target"]).name for row in rows if row["ok"] == "True") == [
        *["movie.mrcz"] * 3
    ]


def test_a_manifest_is_whole_after_an_interrupt(napari_mrcz, tree, tmp_path, monkeypatch):
    done, call = [], Making.__call__

    def interrupted(task, report=None):
        if done:
            raise KeyboardInterrupt
        done.append(task)
        return call(task, report)

    monkeypatch.setattr(Making, "__call__", interrupted)
    command = ("compress", tree, "-o", tmp_path / "out", "--manifest", tmp_path / "m.csv")
    assert napari_mrcz(*command).status == 130
    (row,) = rows_of(tmp_path / "m.csv")
    assert row["source"] == done[0].source


def test_another_table_is_not_taken_for_a_manifest(napari_mrcz, tree, tmp_path):
    for how in ("--skip-existing", "--overwrite"):
        command = ("compress", tree, "-o", tmp_path / "out", how, "--manifest")
        for name, status in (("m.csv", 1), ("m.jsonl", 1), ("m.txt", 2)):
            (tmp_path / name).write_text("mine\n")
            assert napari_mrcz(*command, tmp_path / name).status == status
            assert (tmp_path / name).read_text() == "mine\n"
    assert not any((tmp_path / "out").rglob("*.mrcz"))


@pytest.mark.parametrize("option", ["--log", "--manifest"])
@pytest.mark.parametrize("name", ["link.csv", "a.mrc"])
def test_a_movie_is_no_log_and_no_manifest(napari_mrcz, tmp_path, option, name):
    movie = tmp_path / "a.mrc"
    nm.write(movie, np.zeros((2, 4, 5), np.int8))
    (tmp_path / "link.csv").symlink_to(movie)
    before = movie.read_bytes()
    ran = napari_mrcz("compress", movie, "--overwrite", option, tmp_path / name)
    assert ran.status in (1, 2)
    assert movie.read_bytes() == before


@pytest.mark.parametrize("command", ["compress", "verify", "correct", "repair"])
def test_threads_are_limited_while_a_command_runs(
    napari_mrcz, tree, tmp_path, monkeypatch, command
):
    seen, before = [], thread_limit()
    begun = Saying.begun

    def watched(saying):
        seen.append(saying.threads)
        return begun(saying)

    reading = FrameReader.read_frame

    def read(reader, frame, out=None):
        seen.append(thread_limit())
        return reading(reader, frame, out)

    monkeypatch.setattr(FrameReader, "read_frame", read)
    arguments = () if command == "verify" else ("-o", tmp_path / "out")
    if command == "repair":
        arguments = ("-o", tmp_path / "whole.mrc")
    source = tree / "movie.mrc"
    assert napari_mrcz(command, source, *arguments, "--threads", 3).status == 0
    assert set(seen) == {3}
    assert thread_limit() == before


def test_several_files_are_verified_at_a_time(napari_mrcz, tree, monkeypatch):
    """And told in order, the damaged among them."""
    (tree / "b" / "movie.mrc").write_bytes(b"no movie")
    ran = napari_mrcz("verify", tree, "--threads", 3, "--json")
    assert ran.status == 1
    told = [json.loads(line) for line in ran.out.splitlines()]
    assert [one["ok"] for one in told] == [True, False, True]
    text = napari_mrcz("verify", tree, "--threads", 1).out
    assert text == "".join(f"{one['text']}\n" for one in told)


def test_verify_decodes_other_formats(napari_mrcz, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "m.tif", frames(0).astype(np.uint8), photometric="minisblack")
    ran = napari_mrcz("verify", tmp_path)
    assert ran.status == 0, ran.out
    assert "4 frames are good (they decode; the file has no checksums)" in ran.out
    raw = (tmp_path / "m.tif").read_bytes()
    (tmp_path / "m.tif").write_bytes(raw[: len(raw) // 2])
    assert napari_mrcz("verify", tmp_path).status == 1
    assert not nm.verify(tmp_path / "m.tif")


def test_no_footer_is_what_the_validator_of_mrc_takes(napari_mrcz, tmp_path):
    mrcfile = pytest.importorskip("mrcfile")
    nm.write(tmp_path / "m.mrcz", frames(0), metadata={"grid": 3}, pixel_size=1.0)
    for options, valid in (((), False), (("--no-footer",), True)):
        ran = napari_mrcz("decompress", tmp_path / "m.mrcz", "--overwrite", "--verify", *options)
        assert ran.status == 0, ran.err
        assert ("metadata left out" in ran.err) is valid
        assert mrcfile.validate(tmp_path / "m.mrc") is valid


class TestMessages:
    """What is said where a file cannot be written."""

    @pytest.mark.parametrize(
        ("number", "said"),
        [(errno.EROFS, "mounted read-only"), (errno.EACCES, "choose another folder")],
    )
    def test_of_folders_that_are_read_only(self, tmp_path, monkeypatch, number, said):
        monkeypatch.setattr(os, "open", mock.Mock(side_effect=OSError(number, "refused")))
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(nm.MrczError, match=said) as refused:
            AtomicFile(tmp_path / "m.mrcz")
        assert "Close the file" not in str(refused.value)

    @pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="root alone gives")
    def test_a_replaced_file_keeps_its_owner(self, tmp_path):
        nm.write(tmp_path / "m.mrcz", frames(0))
        os.chown(tmp_path / "m.mrcz", 1234, 2345)
        os.chmod(tmp_path / "m.mrcz", 0o640)
        nm.write(tmp_path / "m.mrcz", frames(1), overwrite=True)
        status = (tmp_path / "m.mrcz").stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1234, 2345, 0o640)

    def test_one_that_cannot_is_warned_of(self, tmp_path, monkeypatch):
        nm.write(tmp_path / "m.mrcz", frames(0))
        there = (tmp_path / "m.mrcz").stat()
        fstat = os.fstat

        def of_another(descriptor):
            status = list(fstat(descriptor))
            status[4] = there.st_uid + 1
            return os.stat_result(status)

        monkeypatch.setattr(os, "fchown", mock.Mock(side_effect=PermissionError))
        with monkeypatch.context() as patched:
            patched.setattr("napari_mrcz.format.atomic.os.fstat", of_another)
            file = AtomicFile(tmp_path / "m.mrcz", overwrite=True)
            file.write(b"content")
            with pytest.warns(nm.MrczWarning, match="belongs to you"):
                file.commit()

    @pytest.mark.parametrize(
        "value", ["order = 1e7", "relaxation = 1e8", "seed = 99999999999999999999", "limit = 1e6"]
    )
    def test_numbers_of_recipes_have_bounds(self, tmp_path, value):
        (tmp_path / "r.toml").write_text(f"[outliers]\n{value}\n")
        with pytest.raises(nm.MrczError, match=value.split()[0]):
            Recipe.load(tmp_path / "r.toml")

    def test_so_has_the_radius(self, tmp_path):
        for digits in (10, 400):
            (tmp_path / "r.toml").write_text(f"[koma]\nradius = {'9' * digits}\n")
            with pytest.raises(nm.MrczError, match="radius"):
                Recipe.load(tmp_path / "r.toml")


def test_no_more_workers_are_started_than_there_are_files(napari_mrcz, tree, tmp_path, monkeypatch):
    asked = []

    @contextmanager
    def at_work(scheduler, workers):
        asked.append(workers)
        yield {}

    monkeypatch.setattr("napari_mrcz.cli.arguments.at_work", at_work)
    command = ("compress", tree, "-o", tmp_path / "out", "--workers")
    assert napari_mrcz(*command, 10**9).status == 0
    assert napari_mrcz(*command, 2, "--overwrite").status == 0
    assert asked == [len(list((tmp_path / "out").rglob("*.mrcz"))), 2]
