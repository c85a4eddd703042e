"""Opening a file never starts a program: plug-in codecs and filters of c-blosc2 are refused."""

import os
import subprocess
import sys

import numpy as np
import pytest
from good_files import good_file

import napari_mrcz as nm

pytest.importorskip("blosc2")

HEADER_NBYTES = 1024
USER_CODEC = 6 << 5
# Where a version-5 chunk names its last filter, its codec, and more flags.
FLAGS, FILTERS, CODEC, MORE_FLAGS = 2, range(16, 22), 22, 31

READ = """
import sys
import numpy as np
import napari_mrcz as nm
refused = 0
for path in sys.argv[1:]:
    try:
        nm.read(path)
    except nm.MrczError:
        refused += 1
print(refused)
"""
DECODE = """
import sys
import blosc2
try:
    blosc2.decompress2(open(sys.argv[1], "rb").read(), dst=bytearray(100_000))
except Exception:
    print("failed")
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return good_file("mrcz, blosc2", tmp_path_factory.mktemp("good"))


def chunk_start(content):
    return HEADER_NBYTES + int(np.frombuffer(content, "<i4", 1, 92)[0])


def changed(content, *changes):
    raw = bytearray(content)
    start = chunk_start(content)
    for offset, value in changes:
        raw[start + offset] = value
    return bytes(raw)


@pytest.fixture
def run(tmp_path):
    """Return a function that runs code where every Python that is started leaves a mark."""
    trap, mark = tmp_path / "trap", tmp_path / "started"
    trap.mkdir()
    for name in ("python", "python3"):
        (trap / name).write_text(f"#!/bin/sh\necho $@ >> {mark}\nexit 1\n")
        (trap / name).chmod(0o755)

    def run(code, *arguments):
        environment = os.environ | {"PATH": f"{trap}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=environment, cwd=trap, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip(), mark.exists()

    return run


@pytest.mark.skipif(os.name == "nt", reason="the trap is a shell script")
def test_no_plug_in_is_ever_looked_for(good, run, tmp_path):
    flags = good.content[chunk_start(good.content) + FLAGS] & 0x1F
    variants = [((FLAGS, flags | USER_CODEC), (CODEC, codec)) for codec in range(256)]
    variants += [((CODEC, codec),) for codec in range(6, 256)]
    variants += [((place, filter_),) for place in FILTERS for filter_ in (5, 32, 36, 160, 255)]
    variants += [((FILTERS[-1], filter_),) for filter_ in range(5, 256)]
    paths = []
    for number, changes in enumerate(variants):
        paths.append(tmp_path / f"{number}.mrcz")
        paths[-1].write_bytes(changed(good.content, *changes))
    assert run(READ, *paths) == (str(len(variants)), False)


@pytest.mark.skipif(os.name == "nt", reason="the trap is a shell script")
def test_the_trap_works_and_c_blosc2_walks_into_it(good, run, tmp_path):
    content = changed(good.content, (FLAGS, 0x05 | USER_CODEC), (CODEC, 36))
    chunk = tmp_path / "chunk"
    chunk.write_bytes(content[chunk_start(content) :])
    said, started = run(DECODE, chunk)
    assert run("import subprocess; subprocess.run(['python'])") == ("", True)
    if not started:
        pytest.skip(f"this blosc2 starts nothing ({said})")


def test_unfinished_and_uninitialised_chunks_are_refused(good, tmp_path):
    # Lazy and instrumented chunks have no pixels in them, uninitialised ones what was in memory.
    for flags in [0x08, 0x80, 4 << 4, 5 << 4, 6 << 4, 7 << 4]:
        path = tmp_path / "chunk.mrcz"
        path.write_bytes(changed(good.content, (MORE_FLAGS, flags)))
        with pytest.raises(nm.MrczError):
            nm.read(path)


def test_without_blosc2_the_error_names_the_extra(good, tmp_path, monkeypatch):
    path = tmp_path / good.name
    path.write_bytes(good.content)
    monkeypatch.setitem(sys.modules, "blosc2", None)
    with pytest.raises(nm.MrczError, match=r"napari-mrcz\[blosc2\]"):
        nm.read(path)
    report = nm.verify(path)
    assert len(report.faults) == len(good.pixels)
