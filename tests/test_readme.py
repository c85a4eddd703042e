"""The README's lines work as they stand, and it shows what is there."""

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
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_python_lines_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frames = np.random.default_rng(0).poisson(1.0, (8, 520, 64)).astype(np.uint8)
    nm.write("movie.mrcz", frames, pixel_size=1.35)
    nm.write("gain.mrc", np.random.default_rng(1).uniform(0.9, 1.1, (520, 64)).astype(np.float32))
    for name in ("a.mrcz", "b.mrcz", "c.mrcz"):
        nm.write(name, frames)
    code = blocks("python")
    assert len(code) >= 4
    namespace: dict[str, object] = {}
    for block in code:
        exec(block, namespace)
    assert (nm.read("copy.mrcz") == frames).all()
    assert (nm.read("frames.mrcz") == frames).all()
    assert nm.open("frames.mrcz").pixel_size == (1.05, 1.05, 1.05)
    assert nm.open("copy.mrcz").metadata == {"grid": 3}
    assert nm.read("plain.mrc").dtype == np.uint8
    halved = namespace["halved"]
    assert isinstance(halved, nm.Stack)
    assert halved.history == ({"name": "scale", "factor": 0.5},)
    clean, again = namespace["clean"], namespace["again"]
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
    lines = [
        line
        for block in blocks("sh")
        for line in block.splitlines()
        if line.startswith("napari-mrcz ")
    ]
    assert len(lines) >= 10
    for line in lines:
        ran = napari_mrcz(*shlex.split(line)[1:])
        assert ran.status == 0, (line, ran.err)
    for name in ("archive/b.mrcz", "plain/a.mrcs", "whole.mrcz", "recipe.toml", "session.csv"):
        assert Path(name).is_file(), name
    for name in ("corrected/a.mrcz", "watched/a.mrcz", "session.html"):
        assert Path(name).is_file(), name


def test_its_recipe_is_one(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "recipe.toml").write_text(text)
    recipe = Recipe.load(tmp_path / "recipe.toml")
    assert recipe.outliers and recipe.gain and recipe.koma


def test_the_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    commands = re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE)
    assert {"demo", "test"} <= set(commands)
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command


def test_its_pictures_and_links_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).is_file(), target


@pytest.mark.window
@pytest.mark.skipif(Version(napari.__version__) < Version("0.9"), reason="names were others")
def test_its_menus_are_there(viewer) -> None:
    """All but the pages of the preferences, which are no menu."""
    window = viewer.window
    named = {" ".join(path.split()) for path in re.findall(r"\*([^*]+ →\s[^*]+)\*", README)}
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
            found = actions.get(name) or actions.get(f"{name} (MRCZ movies)")
            assert found is not None, (path, list(actions))
            menu = found.menu()
