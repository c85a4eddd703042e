"""Lines of the README and the documentation work as they stand; links and menus are there."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from unittest import mock

import napari
import numpy as np
import pytest
import tifffile
from foreign_files import DmWriter, image, smv_bytes
from packaging.version import Version
from PIL import Image
from range_server import RangeServer
from tiff_writing import eer_page, tiff

import napari_mrcz as nm
from napari_mrcz.plugin import demo
from napari_mrcz.session.recipe import Recipe
from napari_mrcz.simulation import Camera, simulate_microed, simulate_raw, simulate_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from command_line import CommandLine

ROOT = Path(__file__).parents[1]
AT_THE_ROOT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
PAGES = [*map(ROOT.joinpath, AT_THE_ROOT), *sorted(ROOT.glob("docs/**/*.md"))]
# Made of the commands themselves, with "[OPTIONS]" in its lines.
# Where the paths in CONTRIBUTING begin.
PLACES = (ROOT, ROOT / "napari_mrcz")
TEXTS = {page.name: page.read_text("utf-8") for page in PAGES if page.name != "command-line.md"}
ALL = "\n".join(TEXTS.values())
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# What opens a window, or starts processes, for which there is a slow test.
NOT_RUN = re.compile(r"napari-mrcz (?:demo|open)\b|--workers|--scheduler")


def blocks(text: str, language: str) -> list[str]:
    return [found for kind, found in BLOCK.findall(text) if kind == language]


def commands_of(block: str) -> list[str]:
    """Return the commands of ours in a block of shell lines."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("napari-mrcz ")]


class Runner:
    """Does what a page says, line by line, in the current folder."""

    def __init__(self, napari_mrcz: CommandLine, *, numbers: bool = True) -> None:
        self._napari_mrcz = napari_mrcz
        self._numbers = numbers
        self.n_run = 0
        self.module = ModuleType("smoothing")

    def __call__(self, text: str) -> None:
        """Run a page; what it says should be written must be."""
        told = ""
        for found in BLOCK.finditer(text):
            language, block = found.groups()
            if language == "toml":
                named = re.findall(r"`(\w+\.toml)`", text[: found.start()])
                Path(named[-1] if named else "recipe.toml").write_text(block)
            elif language == "python":
                self.n_run += 1
                exec(block, vars(self.module))
            elif language == "sh":
                told = "".join(map(self._run, commands_of(block)))
            elif language == "text" and self._numbers:
                for line in block.splitlines():
                    assert line in told, (line, told)

    def _run(self, line: str) -> str:
        if NOT_RUN.search(line):
            return ""
        self.n_run += 1
        quick = ["--settle", "0"] if " watch " in line else []
        ran = self._napari_mrcz(*shlex.split(line, comments=True)[1:], *quick)
        assert ran.status == 0, (line, ran.err)
        return ran.out + ran.err

    def close(self) -> None:
        for value in vars(self.module).values():
            if isinstance(value, nm.Stack):
                value.close()


@pytest.fixture
def follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, napari_mrcz: CommandLine
) -> Iterator[Runner]:
    """Return what does as a page says, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runner = Runner(napari_mrcz)
    monkeypatch.setitem(sys.modules, "smoothing", runner.module)
    yield runner
    runner.close()


GAIN = np.random.default_rng(9).uniform(0.9, 1.1, (64, 64)).astype(np.float32)


def counts(seed: int = 0, n: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).poisson(2.0 / GAIN, (n, *GAIN.shape)).astype(np.int16)


def plain_movies(folder: str = "movies", names: tuple[str, ...] = ("a.mrc", "b.mrc")) -> None:
    Path(folder).mkdir()
    for seed, name in enumerate(names):
        nm.write(Path(folder, name), counts(seed))
    nm.write("gain.mrc", GAIN)
    nm.write("movie.mrcz", counts())


def movies_of_python() -> None:
    frames = np.random.default_rng(0).poisson(1.0, (8, 520, 64)).astype(np.uint8)
    nm.write("movie.mrcz", frames, pixel_size=1.35)
    nm.write("gain.mrc", np.random.default_rng(1).uniform(0.9, 1.1, (520, 64)).astype(np.float32))
    for name in ("a.mrcz", "b.mrcz", "c.mrcz"):
        nm.write(name, frames)


def tiff_and_flipped_dm4() -> None:
    """Write K3 movies as TIFF, whose first row is the top one, and their reference, mirrored."""
    camera = Camera((96, 96), etching=0.15, seed=2)
    session = simulate_session(2, 30, camera=camera, dose=2.0, seed=2)
    Path("movies").mkdir()
    for number, movie in enumerate(session.iter_movies(), 1):
        path = f"movies/movie_{number}.tif"
        # Compressed by LZW for want of another program; needs `imagecodecs`, which tests have.
        tifffile.imwrite(path, movie.frames[:, ::-1], compression="lzw", photometric="minisblack")
    mirrored = np.ascontiguousarray(camera.gain_reference[:, ::-1].astype(np.float32))
    Path("gain.dm4").write_bytes(DmWriter().images([image(mirrored)]))


def eer_movies() -> None:
    """Write EER movies, and a reference of the Falcon's kind."""
    rng = np.random.default_rng(0)
    Path("movies").mkdir()
    for name in ("a.eer", "b.eer"):
        every = [np.argwhere(rng.random((256, 256)) < 0.01).tolist() for _ in range(20)]
        Path("movies", name).write_bytes(tiff([eer_page(events, (64, 64)) for events in every]))
    tifffile.imwrite("reference.tif", rng.uniform(0.9, 1.1, (64, 64)).astype(np.float32))
    Path("reference.tif").rename("gain.gain")


def diffraction() -> None:
    Path("sweep").mkdir()
    for number, frame in enumerate(simulate_microed(3, (160, 160), seed=1).frames, 1):
        Path("sweep", f"img_{number:04}.img").write_bytes(smv_bytes(frame.astype(np.uint16)))


def raw_frames() -> None:
    Path("raw").mkdir()
    nm.write("raw/a.mrc", simulate_raw(6, (96, 96), seed=1).frames, pixel_size=(0, 1.05, 1.05))


def small_demo() -> None:
    sizes = {"_SESSION_SHAPE": (64, 64), "_SESSION_FRAMES": 10, "_N_MOVIES": 3}
    with mock.patch.multiple(demo, **sizes):
        demo.write_sample_session(Path("demo-session"))


# What there has to be before a page is followed, and what is there afterwards.
FOLLOWED: dict[str, tuple[Callable[[], None], str]] = {
    "README.md": (
        plain_movies,
        "archive/b.mrcz plain/a.mrcs whole.mrcz raw/a.mrcz session.csv corrected/a.mrcz "
        "watched/a.mrcz session.html",
    ),
    "python.md": (movies_of_python, "clean.mrcz later.mrcz"),
    "tutorial.md": (small_demo, "after.csv raw/movie_3.mrcz plain/movie_1.mrcs"),
    "quality.md": (plain_movies, "report.html report.csv"),
    "k3-relion.md": (tiff_and_flipped_dm4, "relion/movie_2.mrcs gain-turned.mrc"),
    "eer-falcon.md": (eer_movies, "plain/b.mrcs"),
    "night.md": (lambda: plain_movies("night"), "corrected/b.mrcz live/a.mrcz night.csv"),
    "archive.md": (plain_movies, "archive.csv movies-again/a.mrc whole.mrcz"),
    "microed.md": (diffraction, "corrected/img_0003.img"),
    "formats.md": (lambda: nm.write("movie.mrcz", counts()), "sums/movie_sum.mrc"),
    "counting.md": (raw_frames, "electrons.csv corrected/a.mrcz"),
}


def test_every_page_with_commands_is_followed() -> None:
    with_commands = {
        name
        for name, text in TEXTS.items()
        if blocks(text, "python") or any(commands_of(block) for block in blocks(text, "sh"))
    }
    assert with_commands == set(FOLLOWED)


@pytest.mark.parametrize("page", FOLLOWED)
def test_a_page_works_as_it_stands(
    page: str, follow: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, made = FOLLOWED[page]
    prepare()
    follow._numbers = page != "tutorial.md"  # those of the whole demo: a slow test
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = RangeServer(Path.cwd())
    try:
        follow(TEXTS[page].replace("https://server.org/", server.url("")))
    finally:
        server.stop()
    assert follow.n_run >= 1
    for name in made.split():
        assert Path(name).is_file(), name
    if page == "python.md":
        look_at_what_python_wrote(vars(follow.module))
    if page == "README.md":
        assert len(nm.open("clean.mrcz").history) == 2


@pytest.mark.slow
def test_the_examples_of_the_commands_run(follow: Runner) -> None:
    plain_movies()
    diffraction()
    raw_frames()
    Path("raw").rename("raw-frames")
    examples = runpy.run_path(str(ROOT / "scripts" / "command_line_docs.py"))["EXAMPLES"]
    # `recipe new` names a reference that is there, gain.mrc.
    follow("```sh\n" + "\n".join(examples.values()) + "\n```")
    assert follow.n_run == len(examples) - 2


@pytest.mark.slow
def test_the_tutorial_has_the_numbers_of_the_demo(follow: Runner) -> None:
    demo.write_sample_session(Path("demo-session"))
    text = TEXTS["tutorial.md"]
    follow(text)
    raw, clean = (vars(follow.module)[name] for name in ("raw", "clean"))
    assert [step["name"] for step in clean.history] == [
        "OutlierFilter", "GainNormalization", "KomaNormalization"
    ]  # fmt: skip
    with nm.open(raw.path) as before, nm.open(clean.path) as after:
        measured = " and ".join(f"{nm.correlated_noise(m):.4f}" for m in (before, after))
    assert measured in text


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")
def test_the_night_runs_on_workers(follow: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Slurm's script, and by the lines for two machines; on this one."""
    text = TEXTS["night.md"]
    plain_movies("night", ("a.mrc", "b.mrc", "c.mrc"))
    Path("recipe.toml").write_text(blocks(text, "toml")[0])
    Path("bin").mkdir()
    Path("bin/srun").write_text('#!/bin/sh\nexec "$@"\n')
    Path("bin/srun").chmod(0o755)
    here = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:{here}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", str(os.getpid()))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    (script,) = blocks(text, "bash")
    subprocess.run(["bash", "-c", script], check=True, timeout=200)
    results = {p.name: p.read_bytes() for p in Path("corrected").glob("*.mrcz")}
    assert {"a.mrcz", "b.mrcz", "c.mrcz"} <= results.keys()

    shutil.rmtree("corrected")
    lines = "\n".join(blocks(text, "sh")).splitlines()
    scheduler, worker, correct = (
        next(line for line in lines if line.startswith(start) and wanted in line)
        .replace("alpha", "127.0.0.1")
        .replace("8786", str(30_000 + os.getpid() % 10_000))
        .replace("16", "1")
        for start, wanted in (("dask s", ""), ("dask w", ""), ("napari-mrcz c", "tcp:"))
    )
    with (
        subprocess.Popen(shlex.split(scheduler)) as one,
        subprocess.Popen(shlex.split(worker)) as two,
    ):
        subprocess.run(shlex.split(correct), check=True, timeout=200)
        two.terminate()
        one.terminate()
    assert results == {p.name: p.read_bytes() for p in Path("corrected").glob("*.mrcz")}


def look_at_what_python_wrote(namespace: dict[str, object]) -> None:
    frames = nm.read("movie.mrcz")
    assert (nm.read("copy.mrcz") == frames).all()
    assert (nm.read("frames.mrcz") == frames).all()
    assert nm.open("frames.mrcz").pixel_size == (1.05, 1.05, 1.05)
    assert nm.open("copy.mrcz").metadata == {"grid": 3}
    assert nm.read("plain.mrc").dtype == np.uint8
    assert len(nm.open("clean.mrcz").history) == 2
    halved, clean, again, smooth = (namespace[n] for n in ("halved", "clean", "again", "smooth"))
    assert isinstance(halved, nm.Stack) and isinstance(smooth, nm.Stack)
    assert halved.history == ({"name": "scale", "factor": 0.5},)
    assert smooth.history[0]["width"] == 2.0
    np.testing.assert_array_equal(np.asarray(clean), np.asarray(again))
    (own,) = Recipe.load("own.toml").more
    assert own.correction()(frames[0], 0).shape == frames[0].shape


def test_recipes_of_the_pages_are_recipes(tmp_path: Path) -> None:
    recipes = blocks(ALL, "toml")
    assert len(recipes) >= 4
    for text in recipes:
        (tmp_path / "recipe.toml").write_text(text)
        assert Recipe.load(tmp_path / "recipe.toml").outliers


def test_what_sentences_name_is_there() -> None:
    """Commands, options, targets of the Makefile, modules, extras: checked where not run."""
    named = [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", ALL)]
    named += "\n".join(blocks(ALL, "sh")).splitlines()
    makefile = (ROOT / "Makefile").read_text("utf-8")
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    manual = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    sections = dict(re.findall(r"^## napari-mrcz ([\w ]+)\n(.*?)(?=^## |\Z)", manual, re.M | re.S))
    n_commands = 0
    for line in named:
        if target := re.match(r"make (\w+)", line):
            assert re.search(rf"^{target[1]}:", makefile, re.MULTILINE), line
        if module := re.match(r"python -m (benchmarks[\w.]*)", line):
            place = ROOT / module[1].replace(".", "/")
            assert place.with_suffix(".py").is_file() or place.is_dir(), line
        if install := re.search(r"pip install .*\[(.*)\]", line):
            for extra in install[1].split(","):
                assert re.search(rf"^{extra} = \[", project, re.MULTILINE), line
        if command := re.match(r"napari-mrcz ((?:recipe )?[a-z]+)(.*)", line):
            n_commands += 1
            for option in re.findall(r" (--?[a-z][a-z-]*)", command[2]):
                assert f"{option}`" in sections[command[1]] or f"{option} " in sections[command[1]]
    assert n_commands > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_and_links_are_there(page: Path) -> None:
    for target, mark in re.findall(r"\]\(([^)#\s]*)#?([^)]*)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        file = page.parent / target if target else page
        assert file.is_file(), target
        if mark:
            heads = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            marks = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
            assert mark in marks, (target, mark)


def test_the_reference_lists_every_public_name() -> None:
    page = (ROOT / "docs" / "api.rst").read_text("utf-8")
    assert sorted(re.findall(r"^\.\. auto\w+:: (\w+)$", page, re.MULTILINE)) == sorted(nm.__all__)


def test_every_page_is_in_the_contents() -> None:
    contents = runpy.run_path(str(ROOT / "docs" / "conf.py"))["CONTENTS"]
    listed = {name for pages in contents.values() for name in pages.split()}
    docs = ROOT / "docs"
    written = {path.relative_to(docs).with_suffix("").as_posix() for path in docs.rglob("*.md")}
    assert {name for name in listed if not name.startswith("..")} == written - {"index"} | {"api"}
    index = (docs / "index.md").read_text("utf-8")
    assert {name for name in written - {"index"} if f"({name}.md)" not in index} == set()


def test_pictures_have_a_caption_and_fit_a_page() -> None:
    for page in PAGES:
        text = page.read_text("utf-8")
        for picture, next_line in re.findall(r"^!\[[^]]*\]\((.*?)\)\n+(.*)$", text, re.MULTILINE):
            assert next_line.startswith("*"), (page.name, picture)
            with Image.open(page.parent / picture) as shown:
                assert shown.height <= 900 and shown.width <= 1500, picture


def test_the_readme_is_short() -> None:
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) <= 250
    tables = "\n".join("|" if line.startswith("|") else "" for line in lines).split("\n\n")
    assert max(map(len, (table.split() for table in tables))) <= 2 + 10


@pytest.mark.window
@pytest.mark.skipif(Version(napari.__version__) < Version("0.9"), reason="names were others")
def test_its_menus_are_there(viewer) -> None:
    """All but the pages of the preferences, which are no menu."""
    window = viewer.window
    named = {" ".join(path.split()) for path in re.findall(r"\*([^*]+ →\s[^*]+)\*", ALL)}
    named = {path for path in named if "Preferences" not in path}
    assert len(named) >= 10
    for path in named:
        first, *others = path.split(" → ")
        menu = getattr(window, f"{first.lower()}_menu")
        for name in others:
            menu.aboutToShow.emit()
            actions = {
                action.text().replace("&", "").replace("...", "…"): action
                for action in menu.actions()
            }
            # napari puts the plugin's name behind what comes from it.
            found = actions.get(name) or actions.get(f"{name} (napari-mrcz)")
            assert found is not None, (path, list(actions))
            menu = found.menu()


def test_contributing_names_modules_that_are_there() -> None:
    named = re.findall(r"`((?:\w+/)+\w+\.py)", TEXTS["CONTRIBUTING.md"])
    assert len(named) > 20
    assert [name for name in named if not any((at / name).exists() for at in PLACES)] == []
