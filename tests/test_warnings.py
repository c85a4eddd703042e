"""Warnings of files: whose they are, and where they point."""

import csv
import json
import threading
import warnings

import markupsafe
import numpy as np
import pytest
import tifffile

import napari_mrcz as nm
from napari_mrcz.correction.outliers.thresholds import OutlierStep
from napari_mrcz.errors import collected_warnings, warn
from napari_mrcz.session.recipe import Recipe


def test_each_thread_collects_its_own_and_leaves_the_filters():
    filters, show = list(warnings.filters), warnings.showwarning
    both = threading.Barrier(2, timeout=10)
    found = {}

    def collect(name):
        with collected_warnings() as messages:
            both.wait()
            warn(name)
            both.wait()
            found[name] = list(messages)

    threads = [threading.Thread(target=collect, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"one": ["one"], "other": ["other"]}
    assert list(warnings.filters) == filters
    assert warnings.showwarning is show


def test_a_block_within_another_collects_for_itself():
    with collected_warnings() as outer:
        with collected_warnings() as inner:
            warn("within")
        warn("after")
    assert (outer, inner) == (["after"], ["within"])
    with pytest.warns(nm.MrczWarning, match="then"):
        warn("then")


def test_a_warning_points_at_the_line_that_opened_the_file(tmp_path):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, np.zeros((3, 32, 32), np.uint8), photometric="minisblack")
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), append=True)
    with pytest.warns(nm.MrczWarning) as caught:
        nm.open(path).close()
    assert {warning.filename for warning in caught} == {__file__}


def test_a_script_is_warned_too():
    script = compile("warn('of a script')", "script.py", "exec")
    with pytest.warns(nm.MrczWarning) as caught:
        exec(script, {"__name__": "__main__", "__package__": None, "warn": warn})
    assert [warning.filename for warning in caught] == ["script.py"]


def test_warnings_of_a_fit_are_told_once_counted_and_kept(napari_mrcz, tmp_path):
    """On the command line, quiet too; as JSON; in the journal, the manifest, the session report."""
    rng = np.random.default_rng(1)
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name, share in (("a", 0.0), ("b", 0.05)):  # as many outliers as no detector has
        rate = np.where(rng.random((48, 48)) < share, 40.0, 2.0)
        nm.write(folder / f"{name}.mrcz", rng.poisson(rate, (6, 48, 48)).astype(np.uint8))
    with nm.open(folder / "b.mrcz") as movie:
        said = nm.OutlierFilter.fit(movie).warnings
    assert said
    ran = napari_mrcz("correct", folder, "-o", out, "--json", "--manifest", tmp_path / "m.csv")
    first, second = map(json.loads, ran.out.splitlines())
    assert (first["warnings"], second["warnings"]) == ([], list(said))
    assert not set(second["notes"]) & set(said)
    assert ran.status == 0
    assert "2 of 2 files corrected, 1 with warnings" in ran.err
    with open(tmp_path / "m.csv", newline="") as file:
        assert [row["warnings"] for row in csv.DictReader(file)] == ["", "; ".join(said)]
    told = napari_mrcz("correct", folder, "-o", out, "--overwrite", "-q").err.splitlines()
    assert told == [f"napari-mrcz: warning: {folder / 'b.mrcz'}: {warning}" for warning in said]

    Recipe(OutlierStep()).save(tmp_path / "recipe.toml")
    options = ("-r", tmp_path / "recipe.toml", "--once", "--settle", "0.01", "-q")
    ran = napari_mrcz("watch", folder, "-o", tmp_path / "watched", *options)
    assert [warning for warning in said if warning in ran.err] == list(said)
    journal = map(json.loads, (tmp_path / "watched/watch.jsonl").read_text().splitlines())
    kept = {
        line["source"]: line.get("warnings") for line in journal if line["event"] == "corrected"
    }
    assert kept == {"a.mrcz": None, "b.mrcz": list(said)}

    pytest.importorskip("matplotlib")
    report, table = tmp_path / "session.html", tmp_path / "session.csv"
    ran = napari_mrcz("session", folder, "-o", report, "--table", table)
    assert "2 of 2 files measured, 1 with warnings" in ran.err
    with table.open(newline="") as file:
        assert [row["warnings"] for row in csv.DictReader(file)] == ["", " ".join(said)]
    page = report.read_text()
    assert all(markupsafe.escape(warning) in page for warning in said)
