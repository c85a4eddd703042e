"""The manual page of the command line says what the commands say."""

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "command_line_docs.py"


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
