"""The generated pages say what commands, options and tables are declared to be."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

import napari_mrcz as nm

SCRIPTS = Path(__file__).parents[1] / "scripts"
SCRIPT = SCRIPTS / "command_line_docs.py"


def test_the_manual_page_is_up_to_date(napari_mrcz):
    """`make docs` makes it anew, when a command was added or changed."""
    script = runpy.run_path(str(SCRIPT))
    assert script["PAGE"].read_text("utf-8") == script["document"]()


def test_every_command_and_option_is_in_it(napari_mrcz):
    """Those that the help lists, of nested commands too."""
    page = runpy.run_path(str(SCRIPT))["document"]()
    for command in ("compress", "session", "open", "demo", "recipe show", "recipe new"):
        assert f"\n## napari-mrcz {command}\n" in page
    section = page.split("\n## napari-mrcz session\n")[1].split("\n## ")[0]
    told = napari_mrcz("session", "--help").out
    for option in ("--output", "--table", "--recipe", "--overwrite", "--workers", "--scheduler"):
        assert option in told
        assert f"`{option}" in section


def test_every_command_has_an_example(napari_mrcz):
    script = runpy.run_path(str(SCRIPT))
    commands = set(re.findall(r"^## napari-mrcz (.*)$", script["document"](), re.MULTILINE))
    assert commands == set(script["EXAMPLES"])


@pytest.mark.parametrize("name", ["settings", "results"])
def test_the_pages_of_settings_and_results_are_up_to_date(name):
    """`make docs` makes them anew, when an option or a column was added or changed."""
    script = runpy.run_path(str(SCRIPTS / "reference_docs.py"))
    assert (script["DOCS"] / f"{name}.md").read_text("utf-8") == script[name]()


def test_the_figures_of_the_readme_are_those_of_the_benchmarks():
    script = runpy.run_path(str(SCRIPTS / "reference_docs.py"))
    text = script["README"].read_text("utf-8")
    assert text == script["readme"]()
    assert len(set(re.findall(r"(\S+ to \S+ %) of the (?:size|space) of int8", text))) == 1


def test_every_option_has_advice():
    page = runpy.run_path(str(SCRIPTS / "reference_docs.py"))["settings"]()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 30
    assert all(len(row) == 5 and row[4].removesuffix(" |").strip() for row in rows)


def test_the_keys_of_info_are_documented(tmp_path, napari_mrcz):
    nm.write(tmp_path / "a.mrcz", np.ones((2, 8, 8), np.int8), metadata={"grid": 3})
    told = json.loads(napari_mrcz("info", "--json", "--frames", str(tmp_path / "a.mrcz")).out)
    documented = runpy.run_path(str(SCRIPTS / "reference_docs.py"))["INFO_KEYS"]
    assert told.keys() <= documented.keys()
    assert documented.keys() - told.keys() == {"voltage", "packed"}


@pytest.mark.slow
def test_the_page_of_fields_is_up_to_date(viewer_model):
    """`make docs` makes it anew, when a widget was changed."""
    script = runpy.run_path(str(SCRIPTS / "field_docs.py"))
    assert script["PAGE"].read_text("utf-8") == script["document"]()
