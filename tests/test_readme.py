"""The README's lines work as they stand, and it shows what is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import napari_mrcz as nm

if TYPE_CHECKING:
    import pytest

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
    for value in namespace.values():
        if isinstance(value, nm.Stack):
            value.close()


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
