"""What every test gets: settings of its own, a check for leaks, and the shared data files."""

import gc
import os
import signal
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from functools import partialmethod
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest
from command_line import CommandLine
from pytestqt.qtbot import QtBot

# Before anything imports numpy: threads for matrices of a test's size wait for each other, and
# longer where tests run side by side.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Before anything imports napari, which reads its settings' path once: no test may see, or change,
# the settings of whoever runs it. NAPARI_CONFIG is for macOS and Windows, which know no XDG.
_home = tempfile.TemporaryDirectory(prefix="napari-mrcz-tests-", ignore_cleanup_errors=True)
os.environ["XDG_CONFIG_HOME"] = str(Path(_home.name, "config"))
os.environ["XDG_CACHE_HOME"] = str(Path(_home.name, "cache"))
os.environ["NAPARI_CONFIG"] = str(Path(_home.name, "config", "settings.yaml"))

# With numba, which it takes if it is there, napari compiles for seconds how labels are coloured.
sys.modules["numba"] = None  # type: ignore[assignment]
# `make_napari_viewer`; not by its entry point, which would import numpy before the lines above.
pytest_plugins = ["napari.utils._testsupport"]

# Jobs in a shell's background ignore interrupts, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is slow, and so is a disk that really writes what it is to flush; pytest-timeout
# finds what hangs.
PATIENCE_S = 60
# The quick tests try the same examples each time: what fails is what was changed.
for profile, examples in {"quick": 25, "thorough": 250}.items():
    hypothesis.settings.register_profile(
        profile,
        max_examples=examples,
        derandomize=profile == "quick",
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile("quick")

MOVIE_SUFFIXES = {".mrcz", ".mrc", ".mrcs", ".map", ".st", ".rec", ".ali", ".preali"}
THREAD_PREFIX = "napari-mrcz"
# Objects that stay after a test with a viewer, modules' own above all, before the garbage collector
# is told to look at them no more: it took a seventh of the time of such tests.
_MANY = 30_000

_DESCRIPTORS = Path("/proc/self/fd")

_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Keep the garbage collector from looking at what importing the tests makes.

    There is next to no garbage, and looking for it took half of that time, and some of each test.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember a failure: its traceback keeps files open, which is not a leak of its own."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


def _own_threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith(THREAD_PREFIX)}


def _open_movies(tmp_root: Path) -> set[tuple[str, int]]:
    """Return (path, descriptor) of every open movie, and of every open file below `tmp_root`."""
    if os.name == "nt":  # psutil cannot be relied on there, and no open file can be deleted anyway
        return set()
    if _DESCRIPTORS.is_dir():  # in a third of psutil's time
        opened = set()
        for fd in os.listdir(_DESCRIPTORS):
            with suppress(OSError):  # the folder's own is closed already
                opened.add((os.readlink(_DESCRIPTORS / fd), int(fd)))
    else:
        opened = {(file.path, file.fd) for file in psutil.Process().open_files()}
    return {
        (path, fd)
        for path, fd in opened
        if Path(path).suffix in MOVIE_SUFFIXES or Path(path).is_relative_to(tmp_root)
    }


@pytest.fixture(autouse=True)
def no_leaks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Fail a test that leaves a thread of ours running or a movie open."""
    tmp_root = tmp_path_factory.getbasetemp().resolve()
    threads, files = _own_threads(), _open_movies(tmp_root)
    yield
    if request.node.stash.get(_failed, False):
        return
    left = _own_threads() - threads
    if "qtbot" in request.fixturenames:
        gc.collect()  # window, layers and callbacks refer to each other
    for thread in left:
        thread.join(PATIENCE_S / len(left))
    running = sorted(thread.name for thread in left if thread.is_alive())
    assert not running, f"threads still running: {running}"
    if "qtbot" in request.fixturenames and _open_movies(tmp_root) - files:
        from qtpy.QtCore import QCoreApplication

        QCoreApplication.processEvents()  # what the threads have said last
        gc.collect()
    still_open = sorted(path for path, _ in _open_movies(tmp_root) - files)
    assert not still_open, f"files still open: {still_open}"
    if "qtbot" in request.fixturenames and len(gc.get_objects()) > _MANY:
        gc.freeze()


class PatientBot(QtBot):
    """Waits for longer than the five seconds that are usual."""

    waitSignal = partialmethod(QtBot.waitSignal, timeout=1000 * PATIENCE_S)
    waitUntil = partialmethod(QtBot.waitUntil, timeout=1000 * PATIENCE_S)
    waitExposed = partialmethod(QtBot.waitExposed, timeout=1000 * PATIENCE_S)


@pytest.fixture
def qtbot(qapp: object, request: pytest.FixtureRequest) -> PatientBot:
    """Return a hand on the window, and an eye on what it does."""
    return PatientBot(request)


@pytest.fixture
def viewer(request: pytest.FixtureRequest, qtbot: PatientBot) -> Iterator[object]:
    """Return a viewer without a canvas, or for tests marked `window` one in a real napari window.

    Mark tests that need canvas, menus, keys or napari's own docks.
    """
    if request.node.get_closest_marker("window"):
        yield request.getfixturevalue("make_napari_viewer")()
    else:
        yield request.getfixturevalue("viewer_model")


@pytest.fixture(scope="session", autouse=True)
def manifests_read_once() -> None:
    """Read the plugins' manifests once, and not again for each window."""
    from npe2 import PluginManifest

    read = PluginManifest.discover
    known: list[Any] = []

    def discover(paths: Any = ()) -> list[Any]:
        if paths:
            return list(read(paths))
        known[:] = known or read()
        return known

    PluginManifest.discover = discover


@pytest.fixture(scope="session")
def plugins_discovered() -> None:
    """Find the plugins, as napari does for its first viewer."""
    from npe2 import PluginManager

    PluginManager.instance().discover()


@pytest.fixture
def viewer_model(
    qtbot: PatientBot, plugins_discovered: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[object]:
    """Return a viewer without a canvas: its model, with the docks in a plain window."""
    import napari
    from viewer_model import DockedViewer

    viewer = DockedViewer()
    monkeypatch.setattr(napari, "current_viewer", weakref.ref(viewer))
    yield viewer
    viewer.close()


@pytest.fixture(scope="session")
def workers() -> Iterator[Any]:
    """Return a client of two worker processes, which all tests share."""
    pytest.importorskip("distributed")
    from napari_mrcz.session.run import cluster

    with cluster(workers=2) as client:
        yield client


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Forget the corrections that a test imports from its own modules."""
    from napari_mrcz.correction.history import _registry

    modules, classes = set(sys.modules), dict(_registry)
    yield
    for name in [name for name in sys.modules if name not in modules and "bright" in name]:
        del sys.modules[name]
    _registry.clear()
    _registry.update(classes)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real files of many programs, kept beside the repository."""
    folder = Path(__file__).parents[1].resolve().parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real files are not there: {folder}")
    return folder


@pytest.fixture
def napari_mrcz(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Return the program, to be called with its arguments."""
    return CommandLine(capsys)


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch) -> None:
    """Set a cache folder of the test's own: nothing was read or summed before."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *args, **options: cache)
