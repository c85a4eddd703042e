"""Lines of the README and the documentation work as they stand; links and menus are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import napari
import numpy as np
import pytest
from packaging.version import Version

import napari_mrcz as nm
from napari_mrcz.session.recipe import Recipe

if TYPE_CHECKING:
    from command_line import CommandLine

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
# Made of the commands themselves, with "[OPTIONS]" in its lines.
TEXTS = {page.name: page.read_text("utf-8") for page in PAGES if page.name != "command-line.md"}
ALL = "\n".join(TEXTS.values())


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [name for name, text in TEXTS.items() if blocks(text, "python")])
def test_python_lines_run_one_after_the_other(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frames = np.random.default_rng(0).poisson(1.0, (8, 520, 64)).astype(np.uint8)
    nm.write("movie.mrcz", frames, pixel_size=1.35)
    nm.write("gain.mrc", np.random.default_rng(1).uniform(0.9, 1.1, (520, 64)).astype(np.float32))
    for name in ("a.mrcz", "b.mrcz", "c.mrcz"):
        nm.write(name, frames)
    namespace: dict[str, object] = {}
    for block in blocks(TEXTS[page], "python"):
        exec(block, namespace)
    assert len(nm.open("clean.mrcz").history) == 2
    if page == "python.md":
        assert (nm.read("copy.mrcz") == frames).all()
        assert (nm.read("frames.mrcz") == frames).all()
        assert nm.open("frames.mrcz").pixel_size == (1.05, 1.05, 1.05)
        assert nm.open("copy.mrcz").metadata == {"grid": 3}
        assert nm.read("plain.mrc").dtype == np.uint8
        halved, clean, again = (namespace[name] for name in ("halved", "clean", "again"))
        assert isinstance(halved, nm.Stack)
        assert halved.history == ({"name": "scale", "factor": 0.5},)
        np.testing.assert_array_equal(np.asarray(clean), np.asarray(again))
    for value in namespace.values():
        if isinstance(value, nm.Stack):
            value.close()


def test_the_command_lines_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, napari_mrcz: CommandLine
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    (tmp_path / "movies").mkdir()
    for name in ("a.mrc", "b.mrc"):
        nm.write(Path("movies", name), rng.poisson(2.0, (6, 64, 64)).astype(np.int16))
    nm.write("gain.mrc", rng.uniform(0.9, 1.1, (64, 64)).astype(np.float32))
    lines = [
        line
        for block in blocks(TEXTS["README.md"], "sh")
        for line in block.splitlines()
        if line.startswith("napari-mrcz ")
    ]
    assert len(lines) >= 10
    for line in lines:
        ran = napari_mrcz(*shlex.split(line)[1:])
        assert ran.status == 0, (line, ran.err)
    for name in ("archive/b.mrcz", "plain/a.mrcs", "whole.mrcz", "raw/a.mrcz", "session.csv"):
        assert Path(name).is_file(), name
    for name in ("corrected/a.mrcz", "watched/a.mrcz", "session.html"):
        assert Path(name).is_file(), name


def test_its_recipe_is_one(tmp_path: Path) -> None:
    (text,) = blocks(TEXTS["README.md"], "toml")
    (tmp_path / "recipe.toml").write_text(text)
    recipe = Recipe.load(tmp_path / "recipe.toml")
    assert recipe.outliers and recipe.gain and recipe.koma


def test_the_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    commands = re.findall(r"^make (\w+)", "\n".join(blocks(ALL, "sh")), re.MULTILINE)
    assert {"demo", "test"} <= set(commands)
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command


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
