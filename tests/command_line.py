"""The program as it is called, in this process: its exit status and what it wrote."""

import sys
from dataclasses import dataclass
from unittest import mock

import pytest

from napari_mrcz.cli.entry import run


@dataclass(frozen=True)
class Ran:
    """What came of a call."""

    status: int
    out: str
    err: str


class CommandLine:
    """Calls ``napari-mrcz``."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Ran:
        """Run a command; give exit status, standard output and standard error."""
        self._capsys.readouterr()
        with (
            mock.patch.object(sys, "argv", ["napari-mrcz", *map(str, arguments)]),
            pytest.raises(SystemExit) as ended,
        ):
            run()
        written = self._capsys.readouterr()
        return Ran(int(ended.value.code or 0), written.out, written.err)
