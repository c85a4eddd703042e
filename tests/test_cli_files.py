"""The commands for single files, from compress to repair, as they are typed."""

import bz2
import errno
import gzip
import json
import os
import shlex
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tifffile
from PIL import Image

import napari_mrcz as nm

FRAMES = np.random.default_rng(5).poisson(1, (6, 40, 56)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a folder with a plain movie and a compressed one."""
    nm.write(tmp_path / "plain.mrc", FRAMES, pixel_size=1.2, metadata={"grid": 3})
    nm.write(tmp_path / "packed.mrcz", FRAMES, pixel_size=1.2, metadata={"grid": 3})
    return tmp_path


def frames_of(path: Path) -> list[bytes]:
    with nm.open(path) as stack:
        return [bytes(stack._source.read_stored(i)) for i in range(len(stack))]


class TestCompress:
    def test_keeps_pixels_size_and_metadata(self, napari_mrcz, folder):
        ran = napari_mrcz("compress", folder / "plain.mrc", "--verify")
        assert ran.status == 0, ran.err
        assert "verified: every pixel is the same" in ran.err
        with nm.open(folder / "plain.mrcz") as stack:
            assert (np.asarray(stack) == FRAMES).all()
            assert stack.pixel_size == pytest.approx((1.2, 1.2, 1.2))
            assert stack.metadata == {"grid": 3}
            assert stack.header["codec"] == 6
        assert (folder / "plain.mrc").exists()

    def test_options_are_honoured(self, napari_mrcz, folder):
        out = folder / "out"
        options = ("--codec", "lz4", "--level", 9, "--dtype", "int16", "--filter", "shuffle")
        ran = napari_mrcz("compress", folder / "plain.mrc", "-o", out, *options, "--json")
        assert ran.status == 0, ran.err
        told = json.loads(ran.out)
        assert told["target_nbytes"] == (out / "plain.mrcz").stat().st_size
        with nm.open(out / "plain.mrcz") as stack:
            assert stack.header["codec"] == 2
            assert stack.dtype == np.int16

    @pytest.mark.parametrize("suffix", [".mrc.gz", ".MRC.GZ", ".mrcs.bz2"])
    def test_packed_movies_in_a_folder_are_movies(self, napari_mrcz, tmp_path, suffix):
        nm.write(tmp_path / "plain.mrc", FRAMES)
        packing = gzip if suffix.lower().endswith("gz") else bz2
        source = tmp_path / "in" / f"m{suffix}"
        source.parent.mkdir()
        source.write_bytes(packing.compress((tmp_path / "plain.mrc").read_bytes()))
        ran = napari_mrcz("compress", source.parent, "--verify", "--delete")
        assert ran.status == 0, ran.err
        assert [path.name for path in source.parent.iterdir()] == ["m.mrcz"]
        assert (nm.read(source.with_name("m.mrcz")) == FRAMES).all()

    @pytest.mark.parametrize(
        ("command", "made"),
        [("convert", "m.mrcz"), ("decompress", "m.mrc"), ("correct", "m.mrcz")],
    )
    def test_packed_mrcz_in_a_folder_too(self, napari_mrcz, tmp_path, command, made):
        nm.write(tmp_path / "m.mrcz", FRAMES)
        (tmp_path / "in").mkdir()
        packed = tmp_path / "in" / "m.mrcz.gz"
        packed.write_bytes(gzip.compress((tmp_path / "m.mrcz").read_bytes()))
        ran = napari_mrcz(command, tmp_path / "in", "-o", tmp_path / "out")
        assert ran.status == 0, ran.err
        assert [path.name for path in (tmp_path / "out").iterdir()] == [made]
        if command != "correct":
            assert (nm.read(tmp_path / "out" / made) == FRAMES).all()

    @pytest.mark.parametrize("packed", [False, True])
    def test_tiff_movies_lie_as_mrc_has_them(self, napari_mrcz, tmp_path, packed):
        path = tmp_path / "movie.tif"
        images = [Image.fromarray(frame) for frame in FRAMES]
        compression = "tiff_lzw" if packed else None
        images[0].save(path, save_all=True, append_images=images[1:], compression=compression)
        assert napari_mrcz("compress", path, "--verify").status == 0
        assert (nm.read(tmp_path / "movie.mrcz") == FRAMES[:, ::-1]).all()

    def test_groups_of_frames_are_summed(self, napari_mrcz, folder):
        assert napari_mrcz("compress", folder / "plain.mrc", "--group", 4).status == 0
        sums = [FRAMES[:4].sum(axis=0, dtype=int), FRAMES[4:].sum(axis=0, dtype=int)]
        assert (nm.read(folder / "plain.mrcz") == sums).all()

    def test_float_movies_are_decimated(self, napari_mrcz, tmp_path):
        gain = np.random.default_rng(1).uniform(0.8, 1.25, FRAMES.shape[1:]).astype(np.float32)
        nm.write(tmp_path / "gain.mrc", np.ascontiguousarray(np.flipud(gain)))
        nm.write(tmp_path / "movie.mrc", FRAMES * gain)
        ran = napari_mrcz("compress", tmp_path / "movie.mrc", "--decimate", tmp_path / "gain.mrc")
        assert ran.status == 0, ran.err
        assert "orientation of the gain reference: flipud" in ran.err
        assert (nm.read(tmp_path / "movie.mrcz") == FRAMES).all()

    def test_the_source_is_deleted_only_when_verified(self, napari_mrcz, folder):
        ran = napari_mrcz("compress", folder / "plain.mrc", "--delete")
        assert ran.status == 2
        assert (folder / "plain.mrc").exists()
        ran = napari_mrcz("compress", folder / "plain.mrc", "--delete", "--verify")
        assert ran.status == 0
        assert not (folder / "plain.mrc").exists()
        assert (nm.read(folder / "plain.mrcz") == FRAMES).all()

    def test_rounding_keeps_the_source(self, napari_mrcz, tmp_path):
        nm.write(tmp_path / "movie.mrc", FRAMES * np.float32(0.3))
        options = ("--dtype", "int16", "--verify", "--delete")
        ran = napari_mrcz("compress", tmp_path / "movie.mrc", *options)
        assert ran.status == 1
        assert "differs from its source" in ran.err
        assert (tmp_path / "movie.mrc").exists()

    def test_a_result_is_not_replaced_unasked(self, napari_mrcz, folder):
        (folder / "plain.mrcz").write_bytes(b"precious")
        assert napari_mrcz("compress", folder / "plain.mrc").status == 1
        assert (folder / "plain.mrcz").read_bytes() == b"precious"
        assert napari_mrcz("compress", folder / "plain.mrc", "--overwrite").status == 0
        assert (nm.read(folder / "plain.mrcz") == FRAMES).all()

    def test_a_batch_goes_on_past_bad_files(self, napari_mrcz, folder):
        (folder / "bad.mrc").write_bytes(b"no movie")
        ran = napari_mrcz("compress", folder / "gone.mrc", folder, "-o", folder / "out")
        assert ran.status == 1
        assert "1 of 3 files compressed" in ran.err
        assert "failed: gone.mrc, bad.mrc" in ran.err
        assert (nm.read(folder / "out" / "plain.mrcz") == FRAMES).all()

    def test_a_file_is_not_written_over_itself(self, napari_mrcz, folder):
        before = (folder / "packed.mrcz").read_bytes()
        ran = napari_mrcz("compress", folder / "packed.mrcz", "--overwrite")
        assert ran.status == 1
        assert "is the file that is read" in ran.err
        assert (folder / "packed.mrcz").read_bytes() == before

    def test_two_files_do_not_go_to_one(self, napari_mrcz, folder):
        (folder / "sub").mkdir()
        nm.write(folder / "sub" / "plain.mrc", FRAMES)
        files = folder / "plain.mrc", folder / "sub" / "plain.mrc"
        ran = napari_mrcz("compress", *files, "-o", folder / "out")
        assert ran.status == 1
        assert f"{files[0]} and {files[1]}" in ran.err
        assert not (folder / "out").exists()

    @pytest.mark.parametrize("command", ["compress", "verify", "correct"])
    def test_a_folder_that_may_not_be_read_is_told_of(
        self, napari_mrcz, folder, monkeypatch, command
    ):
        """The other movies are done."""
        shut = folder / "shut"
        shut.mkdir()
        nm.write(shut / "unseen.mrc", FRAMES)
        scan, may = os.scandir, os.access

        def refuse(path="."):
            if Path(path) == shut:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", refuse)
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != shut and may(path, mode))
        (folder / "packed.mrcz").unlink()
        options = () if command == "verify" else ("-o", folder / "out")
        ran = napari_mrcz(command, folder, *options)
        assert ran.status == 1
        assert f"{shut}: is a folder that may not be read" in ran.out + ran.err
        assert "1 of 2 files" in ran.err

    def test_a_folder_that_cannot_be_made_is_named(self, napari_mrcz, folder, monkeypatch):
        refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        monkeypatch.setattr(Path, "mkdir", mock.Mock(side_effect=refused))
        ran = napari_mrcz("compress", folder / "plain.mrc", "-o", folder / "out")
        assert ran.status == 1
        assert f"{folder / 'out'}: cannot be made: Permission denied. Name another" in ran.err

    def test_a_source_that_cannot_be_deleted_is_in_the_result(
        self, napari_mrcz, folder, monkeypatch
    ):
        refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        monkeypatch.setattr(os, "remove", mock.Mock(side_effect=refused))
        ran = napari_mrcz("compress", folder / "plain.mrc", "--verify", "--delete")
        assert ran.status == 1
        assert "plain.mrc: cannot be deleted: Permission denied. It was verified" in ran.err
        assert (nm.read(folder / "plain.mrcz") == FRAMES).all()

    @pytest.mark.parametrize("name", ["plain.mrc", "plain.mrc/out"])
    def test_a_file_is_not_taken_for_the_folder_of_results(self, napari_mrcz, folder, name):
        before = (folder / "plain.mrc").read_bytes()
        ran = napari_mrcz("compress", folder / "plain.mrc", "-o", folder / name)
        assert ran.status == 1
        assert f"{folder / name}: is or is in a file, not a folder. Name a folder" in ran.err
        assert (folder / "plain.mrc").read_bytes() == before

    def test_on_workers_the_files_are_the_same(self, napari_mrcz, folder):
        pytest.importorskip("distributed")
        nm.write(folder / "more.mrc", FRAMES[:3])
        assert napari_mrcz("compress", folder, "-o", folder / "here").status == 0
        ran = napari_mrcz("compress", folder, "-o", folder / "there", "--workers", 2)
        assert ran.status == 0, ran.err
        names = sorted(path.name for path in (folder / "here").iterdir())
        assert names == ["more.mrcz", "plain.mrcz"]
        for name in names:
            assert (folder / "there" / name).read_bytes() == (folder / "here" / name).read_bytes()

    def test_no_scheduler_is_one_line(self, napari_mrcz, folder, monkeypatch):
        distributed = pytest.importorskip("dask.distributed")
        soon = partial(distributed.Client, timeout="0.5s")
        monkeypatch.setattr(
            distributed, "Client", lambda address, timeout, **more: soon(address, **more)
        )
        ran = napari_mrcz("compress", folder, "--scheduler", "tcp://127.0.0.1:9")
        assert ran.status == 1
        assert ran.err.splitlines()[-1].startswith("napari-mrcz: no scheduler answers at")

    @pytest.mark.parametrize("address", ["nonsense", "abc://x:1"])
    def test_what_is_no_address_is_one_line(self, napari_mrcz, folder, address):
        pytest.importorskip("distributed")
        ran = napari_mrcz("compress", folder, "--scheduler", address)
        assert ran.status == 1
        assert f"napari-mrcz: '{address}' is not an address: " in ran.err.splitlines()[-1]
        assert "tcp://name:8786" in ran.err


class TestDecompress:
    def test_others_can_read_it(self, napari_mrcz, folder):
        mrcfile = pytest.importorskip("mrcfile")
        nm.write(folder / "packed.mrcz", FRAMES, overwrite=True)  # metadata would need a footer
        options = ("--suffix", ".mrcs", "--verify", "--dtype", "int16")  # uint8 would need one too
        ran = napari_mrcz("decompress", folder / "packed.mrcz", *options)
        assert ran.status == 0, ran.err
        with mrcfile.open(folder / "packed.mrcs") as file:
            assert (file.data == FRAMES).all()

    def test_a_folder_of_other_formats_is_a_wrong_command_that_names_one(
        self, napari_mrcz, tmp_path
    ):
        tifffile.imwrite(tmp_path / "a.tif", FRAMES, photometric="minisblack")
        run = napari_mrcz("decompress", tmp_path, "-o", tmp_path / "plain")
        assert run.status == 2 and "a.tif" in run.err
        assert napari_mrcz("decompress", tmp_path / "a.tif", "-o", tmp_path / "plain").status == 0
        run = napari_mrcz("repair", tmp_path / "a.tif", "-o", tmp_path / "a.mrcz")
        assert run.status == 1 and "is a TIFF" in run.err

    def test_the_suffix_is_one_of_mrc_or_tiff(self, napari_mrcz, folder):
        assert napari_mrcz("decompress", folder / "packed.mrcz", "--suffix", ".png").status == 2


class TestConvert:
    def test_chunks_are_copied_as_they_are(self, napari_mrcz, tmp_path):
        mrcz = pytest.importorskip("mrcz")
        mrcz.writeMRC(FRAMES.astype(np.int8), str(tmp_path / "a.mrcz"), compressor="zstd", clevel=1)
        ran = napari_mrcz("convert", tmp_path / "a.mrcz", "-o", tmp_path / "out")
        assert ran.status == 0, ran.err
        assert frames_of(tmp_path / "out" / "a.mrcz") == frames_of(tmp_path / "a.mrcz")
        assert nm.verify(tmp_path / "out" / "a.mrcz").checksums
        back, _ = mrcz.readMRC(str(tmp_path / "out" / "a.mrcz"))
        assert (np.asarray(back) == FRAMES).all()

    def test_plain_frames_get_no_name_of_a_compressed_file(self, napari_mrcz, folder):
        """It would promise what is not there; a codec keeps the promise."""
        ran = napari_mrcz("convert", folder / "plain.mrc", "-o", folder / "out")
        assert ran.status == 1
        assert "plain.mrcz: is a name for compressed frames" in ran.err
        assert not (folder / "out" / "plain.mrcz").exists()
        ran = napari_mrcz("convert", folder / "plain.mrc", "-o", folder / "out", "--codec", "lz4")
        assert ran.status == 0, ran.err
        assert (nm.read(folder / "out" / "plain.mrcz") == FRAMES).all()

    def test_another_codec(self, napari_mrcz, folder):
        ran = napari_mrcz("convert", folder / "packed.mrcz", "-o", folder / "out", "--codec", "lz4")
        assert ran.status == 0, ran.err
        with nm.open(folder / "out" / "packed.mrcz") as stack:
            assert stack.header["codec"] == 2
            assert stack.metadata == {"grid": 3}
            assert (np.asarray(stack) == FRAMES).all()


class TestInfo:
    def test_says_what_is_in_a_file(self, napari_mrcz, folder):
        ran = napari_mrcz("info", folder / "packed.mrcz")
        assert ran.status == 0
        assert "6 frames of 40 x 56 pixels, uint8, 1.2 Å/pixel" in ran.out
        lines = [line.split() for line in ran.out.splitlines()]
        assert ["grid", "3"] in lines
        assert ["MODE", "6000", "(int8,", "zstd)"] in lines

    def test_a_folder_stands_for_all_movies_within(self, napari_mrcz, folder):
        ran = napari_mrcz("info", folder, "--json")
        known = [json.loads(line)["path"] for line in ran.out.splitlines()]
        assert known == [str(folder / "packed.mrcz"), str(folder / "plain.mrc")]

    def test_says_what_was_done_and_how_in_any_letters(self, napari_mrcz, folder):
        gain = nm.GainNormalization(np.ones(FRAMES.shape[1:], np.float32), 0.9)
        with nm.open(folder / "packed.mrcz") as stack:
            drift = [[i, -i] for i in range(60)]
            odd = stack.described(metadata={"note": "two\nlines\x1b[2J", "drift": drift})
            nm.write(folder / "done.mrcz", odd.apply(gain))
        out = napari_mrcz("info", folder / "done.mrcz").out
        assert "1. Gain normalised: γ 0.9\n" in out
        assert "gamma              0.9\n" in out
        assert "drift              60 entries; --json has them\n" in out
        assert out.index("Gain normalised") < out.index("NX") < out.index("drift")
        assert "two\\nlines\\x1b[2J\n" in out
        program = "from napari_mrcz.cli.entry import run; run()"
        command = [sys.executable, "-c", program, "info", str(folder / "done.mrcz")]
        latin = {**os.environ, "PYTHONIOENCODING": "latin-1"}
        ran = subprocess.run(command, env=latin, capture_output=True, check=True)
        assert b"1. Gain normalised: \\u03b3 0.9" in ran.stdout

    def test_as_json_with_frames(self, napari_mrcz, folder):
        ran = napari_mrcz("info", folder / "packed.mrcz", "--json", "--frames")
        told = json.loads(ran.out)
        assert told["shape"] == [6, 40, 56]
        assert told["metadata"] == {"grid": 3}
        stored = frames_of(folder / "packed.mrcz")
        assert [frame["bytes"] for frame in told["frames"]] == [len(chunk) for chunk in stored]

    def test_ratios_are_those_of_the_pixels_that_are_read(self, napari_mrcz, folder):
        nm.write(folder / "one by one.mrcz", (frame for frame in FRAMES))  # stored as uint16
        told = json.loads(napari_mrcz("info", folder / "one by one.mrcz", "--json", "--frames").out)
        for frame in told["frames"]:
            assert frame["ratio"] == pytest.approx(FRAMES[0].nbytes / frame["bytes"], abs=1e-3)

    def test_info_of_a_damaged_file_fails(self, napari_mrcz, tmp_path):
        """With what is there, and what is wrong; so do TIFF movies that were cut off."""
        frames = np.random.default_rng(3).poisson(4, (6, 32, 32)).astype(np.uint8)
        nm.write(tmp_path / "a.mrcz", frames)
        nm.write(tmp_path / "b.mrc", frames)
        tifffile.imwrite(tmp_path / "c.tif", frames, photometric="minisblack", compression="zlib")
        for name in ("a.mrcz", "b.mrc", "c.tif"):
            path = tmp_path / name
            whole = path.read_bytes()
            assert napari_mrcz("info", path).status == 0
            path.write_bytes(whole[: 2 * len(whole) // 3])
            ran = napari_mrcz("info", path)
            assert ran.status == 1
            assert f"warning: {path}" in ran.err and "frames of 32 x 32 pixels" in ran.out

    def test_goes_on_past_a_bad_file(self, napari_mrcz, folder):
        ran = napari_mrcz("info", folder / "gone.mrc", folder / "plain.mrc")
        assert ran.status == 1
        assert "6 frames" in ran.out
        assert len(ran.err.splitlines()) == 1


class TestVerify:
    def test_of_a_tree(self, napari_mrcz, folder):
        assert napari_mrcz("verify", folder).status == 0
        path = folder / "packed.mrcz"
        raw = bytearray(path.read_bytes())
        with nm.open(path) as stack:
            raw[int(stack._source.index.offsets[4]) + 60] ^= 1
        path.write_bytes(raw)
        ran = napari_mrcz("verify", folder)
        assert ran.status == 1
        assert f"{path}: damaged: 5 of 6 frames are good (checksums match)" in ran.out
        assert "packed.mrcz: frame 4:" in ran.out
        assert "1 of 2 files are good" in ran.err

    def test_packed_files_in_a_folder_are_looked_at(self, napari_mrcz, folder):
        for name, packing in (("plain.mrc", gzip), ("packed.mrcz", bz2)):
            content = (folder / name).read_bytes()
            suffix = {gzip: ".GZ", bz2: ".bz2"}[packing]
            (folder / f"{name}{suffix}").write_bytes(packing.compress(content))
        assert "4 of 4 files are good" in napari_mrcz("verify", folder).err
        cut = (folder / "plain.mrc").read_bytes()[: 1024 + 3 * FRAMES[0].size]
        (folder / "plain.mrc.GZ").write_bytes(gzip.compress(cut))
        (folder / "notes.txt.gz").write_bytes(b"no movie")
        ran = napari_mrcz("verify", folder)
        assert ran.status == 1
        assert "3 of 4 files are good" in ran.err

    @pytest.mark.parametrize("packing", ["", ".gz"])
    @pytest.mark.parametrize("name", ["plain.mrc", "a packed.mrcz"])
    def test_of_a_cut_file_begins_with_what_is_wrong(self, napari_mrcz, folder, name, packing):
        """And names the command that saves the rest, as it can be typed."""
        whole = folder / name.split()[-1]
        with nm.open(whole) as stack:
            end = int(stack._source.index.offsets[3]) + 10
        path = folder / f"{name}{packing}"
        cut = whole.read_bytes()[:end]
        path.write_bytes(gzip.compress(cut) if packing else cut)
        ran = napari_mrcz("verify", path)
        assert ran.status == 1
        assert ran.out.startswith(f"{path}: damaged: 3 of 6 frames are there, and these are good")
        (said,) = ran.err.splitlines()
        command, told = said.split(" saves ")
        assert told == "what is whole"
        repaired = napari_mrcz(*shlex.split(command)[1:])
        assert repaired.status == 0, repaired.err
        assert (nm.read(shlex.split(command)[-1]) == FRAMES[:3]).all()

    def test_nothing_is_to_be_saved_of_what_cannot_be_opened(self, napari_mrcz, tmp_path):
        (tmp_path / "a.mrcz").write_bytes(b"nothing")
        assert "repair" not in napari_mrcz("verify", tmp_path).err

    def test_an_empty_folder_is_a_wrong_command(self, napari_mrcz, tmp_path):
        assert napari_mrcz("verify", tmp_path).status == 2


class TestRepair:
    @pytest.mark.parametrize("name", ["plain.mrc", "packed.mrcz"])
    def test_of_a_file_that_was_cut_off(self, napari_mrcz, folder, name):
        path = folder / name
        with nm.open(path) as stack:
            end = int(stack._source.index.offsets[3]) + 10
        path.write_bytes(path.read_bytes()[:end])
        ran = napari_mrcz("repair", path, "-o", folder / f"whole{path.suffix}")
        assert ran.status == 0, ran.err
        assert "3 of 6 frames" in ran.err
        with nm.open(folder / f"whole{path.suffix}") as stack:
            assert (np.asarray(stack) == FRAMES[:3]).all()
            assert stack.pixel_size[1:] == pytest.approx((1.2, 1.2))
        assert nm.verify(folder / f"whole{path.suffix}").ok

    def test_compressed_frames_get_no_name_of_a_plain_file(self, napari_mrcz, folder):
        """No other program could read them there."""
        ran = napari_mrcz("repair", folder / "packed.mrcz", "-o", folder / "whole.mrc")
        assert ran.status == 1
        assert "whole.mrc: is a name for plain frames" in ran.err
        assert "Name it .mrcz" in ran.err
        assert not (folder / "whole.mrc").exists()

    def test_damaged_frames_are_left_out_and_named(self, napari_mrcz, folder):
        path = folder / "packed.mrcz"
        raw = bytearray(path.read_bytes())
        with nm.open(path) as stack:
            raw[int(stack._source.index.offsets[2]) + 60] ^= 1
        path.write_bytes(raw)
        ran = napari_mrcz("repair", path, "-o", folder / "whole.mrcz")
        assert ran.status == 0, ran.err
        assert "damaged and left out: frame 2" in ran.err
        assert (nm.read(folder / "whole.mrcz") == np.delete(FRAMES, 2, axis=0)).all()

    def test_the_header_is_mended(self, napari_mrcz, folder):
        """And `info` has told of it before."""
        path = folder / "plain.mrc"
        raw = bytearray(path.read_bytes())
        raw[28:52] = bytes(24)  # MX MY MZ and the cell: the pixel size is gone
        path.write_bytes(raw)
        assert "wrong or missing: " in napari_mrcz("info", path).out
        ran = napari_mrcz("repair", path, "-o", folder / "whole.mrc", "--pixel-size", 1.2)
        assert ran.status == 0, ran.err
        with nm.open(folder / "whole.mrc") as stack:
            assert stack.pixel_size[1:] == pytest.approx((1.2, 1.2))
            assert (np.asarray(stack) == FRAMES).all()
        assert "wrong or missing: " not in napari_mrcz("info", folder / "whole.mrc").out


@pytest.mark.parametrize("arguments", [("bogus",), ("compress",), ("compress", "a", "--level", 0)])
def test_wrong_command_lines_are_one_line(napari_mrcz, arguments):
    ran = napari_mrcz(*arguments)
    assert ran.status == 2
    assert len(ran.err.splitlines()) == 1
    assert "--help" in ran.err


def test_an_interrupt_is_said(napari_mrcz, folder, monkeypatch):
    interrupted = mock.Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr("napari_mrcz.stack.saving.open_file", interrupted)
    ran = napari_mrcz("verify", folder)
    assert ran.status == 130
    assert ran.err.splitlines() == ["napari-mrcz: interrupted"]


def test_an_interrupt_is_said_while_the_program_is_loaded():
    """Whatever is imported when it comes, and as the installed program begins."""
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())
    module, function = project["project"]["scripts"]["napari-mrcz"].split(":")
    code = (
        "import signal, sys\n"
        "class Impatient:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Impatient())\n"
        f"from {module} import {function} as main; main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (130, "napari-mrcz: interrupted\n")


NEVER = {"napari", "qtpy", "PyQt6", "magicgui", "scipy", "dask", "distributed", "tifffile", "rich"}
OF_WORDS = {"typer", "click", "pydantic"}


@pytest.mark.parametrize(
    ("command", "unneeded"),
    [
        ("--help", NEVER - {"rich"} | {"numpy", "numcodecs"}),
        ("info plain.mrc", NEVER | OF_WORDS | {"mrcfile"}),
        ("verify packed.mrcz", NEVER | OF_WORDS | {"mrcfile"}),
        ("verify packed.mrcz --json", NEVER),
    ],
)
def test_a_command_loads_only_what_it_needs(folder, command, unneeded):
    code = (
        f"import sys; sys.argv = ['napari-mrcz', *{command.split()}]\n"
        "from napari_mrcz.cli.entry import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        f"print({{m.split('.')[0] for m in sys.modules}} & {unneeded}, file=sys.stderr)\n"
        "rooms = {'correction.outliers', 'correction.gain', 'session.recipe', 'simulation'}\n"
        "print({m for m in rooms if f'napari_mrcz.{m}' in sys.modules}, file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert ran.stderr.split("\n") == ["set()", "set()", ""]


def test_a_damaged_tiff_is_refused(napari_mrcz, tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(20))
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((4, 5, 3), np.uint8), photometric="rgb")
    ran = napari_mrcz("compress", tmp_path / "a.tif", tmp_path / "b.tif")
    assert ran.status == 1
    assert "a.tif: a TIFF without pages" in ran.err
    assert "b.tif: pages of shape (4, 5, 3)" in ran.err


def test_a_file_that_grew_is_said_to_be_larger(napari_mrcz, tmp_path):
    """Each, and all together."""
    for name in ("a", "b"):
        nm.write(tmp_path / f"{name}.mrcz", np.zeros((6, 64, 64), np.int16))
    ran = napari_mrcz("decompress", tmp_path)
    before, after = ((tmp_path / f"a{suffix}").stat().st_size for suffix in (".mrcz", ".mrc"))
    lines = ran.err.splitlines()
    assert len(lines) == 3
    assert all(f"({after / before:.3g} times larger)" in line for line in lines)


def test_a_file_that_is_as_large_is_said_to_be(napari_mrcz, folder, tmp_path):
    """Not "1 times larger", nor "1 to 1"."""
    nm.write(folder / "large.mrcz", np.concatenate([FRAMES] * 5))
    ran = napari_mrcz("convert", folder / "large.mrcz", "-o", tmp_path / "out")
    assert ran.err.count("(as large)") == 1


def test_a_level_or_filter_without_a_codec_is_refused(napari_mrcz, folder, tmp_path):
    """Chunks are copied as they are: neither would do anything."""
    for option in (("--level", 1), ("--filter", "none")):
        ran = napari_mrcz("convert", folder, "-o", tmp_path / "out", *option)
        assert ran.status == 2
        assert "--level and --filter need --codec" in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["int4", "datetime64", "S4"])
def test_what_is_no_pixel_type_is_refused(napari_mrcz, folder, name):
    """By the name of the option: no file is at fault."""
    ran = napari_mrcz("compress", folder / "plain.mrc", "-o", folder / "out", "--dtype", name)
    assert ran.status == 2
    assert f"'--dtype': {name} is not a pixel type" in ran.err
    assert not (folder / "out").exists()


@pytest.mark.parametrize("command", ["compress", "count"])
@pytest.mark.parametrize("first", [0, 2])
def test_workers_besides_a_scheduler_are_refused(napari_mrcz, folder, tmp_path, command, first):
    """They would not be started; whichever is named first, and before a folder is made."""
    cluster = ("--workers", 2, "--scheduler", "tcp://127.0.0.1:1")
    cluster = (*cluster[first:], *cluster[:first])
    ran = napari_mrcz(command, folder / "plain.mrc", "-o", tmp_path / "out", *cluster)
    assert ran.status == 2
    assert "--workers and --scheduler exclude each other" in ran.err
    assert not (tmp_path / "out").exists()


def test_paragraphs_of_the_help_fill_the_lines(napari_mrcz):
    """Lines end where the terminal does, not where those of the source do."""
    lines = [line.strip() for line in napari_mrcz("watch", "--help").out.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("A journal in the output"))
    paragraph = lines[start : lines.index("", start)]
    longest = max(map(len, paragraph))
    words = [line.split()[0] for line in paragraph[1:]]
    assert all(
        len(line) + 1 + len(word) > longest for line, word in zip(paragraph, words, strict=False)
    )


class TestCompressedAlready:
    def test_those_in_a_folder_are_left_out_and_said(self, napari_mrcz, folder, tmp_path):
        ran = napari_mrcz("compress", folder, "-o", tmp_path / "out")
        assert ran.status == 0
        told, *others = ran.err.splitlines()
        assert told.startswith("1 MRCZ file is compressed already and left out")
        assert len(others) == 1

    def test_where_there_is_no_other(self, napari_mrcz, folder):
        (folder / "plain.mrc").rename(folder / "second.mrcz")
        ran = napari_mrcz("compress", folder)
        assert ran.status == 2
        assert ran.err.startswith("2 MRCZ files are compressed already and left out")

    def test_nothing_is_said_of_files_that_are_named(self, napari_mrcz, folder):
        assert len(napari_mrcz("compress", folder / "plain.mrc").err.splitlines()) == 1
