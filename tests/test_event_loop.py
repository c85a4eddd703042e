"""The window stays awake while widgets work: nothing that takes long is done on its own thread."""

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from event_loop import EventLoopWatch, Gaps
from mouse import drag_line
from qtpy.QtCore import Qt, QTimer

import napari_mrcz as nm
from napari_mrcz.simulation import Camera, simulate_microed, simulate_raw, simulate_session

pytestmark = [pytest.mark.window, pytest.mark.usefixtures("own_cache")]

LEFT = Qt.MouseButton.LeftButton
N_FRAMES, N_MOVIES = 24, 4
# In pixels, of a side. The large ones are slow.
SMALL, LARGE = 512, 1024
# Seconds that a hand does not notice.
BUDGET = 0.05


@pytest.fixture(scope="module", params=[SMALL])
def session(request, tmp_path_factory) -> Path:
    """Return a folder of movies and a gain reference."""
    folder = tmp_path_factory.mktemp("session")
    camera = Camera((request.param, request.param), seed=1)
    movies = simulate_session(N_MOVIES, N_FRAMES, camera=camera, dose=1.0, seed=1)
    for index, movie in enumerate(movies.iter_movies(), 1):
        nm.write(folder / f"movie_{index}.mrcz", movie.frames, pixel_size=(0, 1.35, 1.35))
    nm.write(folder / "gain.mrc", camera.gain_reference)
    return folder


@pytest.fixture
def viewer(viewer, session):
    """Return a viewer in a window with the first movie."""
    viewer.window.resize(900, 700)
    viewer.window._qt_window.show()
    viewer.open(session / "movie_1.mrcz", plugin="napari-mrcz")
    return viewer


def dock(viewer, title):
    """Return one of our widgets, in sight."""
    area, widget = viewer.window.add_plugin_dock_widget("napari-mrcz", title)
    area.show()
    return widget


def settle(qtbot, *widgets) -> None:
    """Wait until nothing runs any more."""
    qtbot.waitUntil(lambda: not any(widget.busy for widget in widgets))


def rest(qtbot, *widgets) -> None:
    """Wait until all is drawn, too."""
    settle(qtbot, *widgets)
    qtbot.wait(200)


@pytest.fixture
def idle(viewer, qtbot) -> Gaps:
    """Return what napari's own window needs here and now, to show one frame after another."""
    qtbot.wait(200)  # the movie that was opened is drawn
    with EventLoopWatch() as watch:
        for frame in range(6):
            viewer.dims.set_point(0, frame)
            qtbot.wait(40)
    return watch.gaps


def check_awake(gaps: Gaps, idle: Gaps) -> None:
    """Fail if the window's thread did something long, again and again or once, or waited for it.

    What napari itself needs to draw a frame, without a graphics card, is not ours. Processor time
    does not depend on what else the machine does. Time on the clock does: there, only a window that
    is deaf for half of a job is told from a busy machine.
    """
    drawing = idle.work.max()
    assert gaps.work.max() <= BUDGET + 2 * drawing, f"{gaps.work.max():.3f} s of work at a time"
    assert np.percentile(gaps.work, 95) <= BUDGET + drawing
    assert gaps.wait.max() <= gaps.wait.sum() / 2 + idle.wait.max(), f"{gaps.wait.max():.3f} s"


def fit_outliers(viewer, qtbot, session):
    """Fit anew what was fitted: napari has the layers already."""
    widget = dock(viewer, "Outliers")
    widget.start_fit()
    rest(qtbot, widget)
    before = widget.fit
    with EventLoopWatch() as watch:
        qtbot.mouseClick(widget.controls.start_button, LEFT)
        settle(qtbot, widget)
    assert widget.fit is not before
    return watch.gaps


def drag_a_threshold(viewer, qtbot, session):
    """Drag the hot line to and fro; the corrected movie follows when it rests."""
    widget = dock(viewer, "Outliers")
    widget.start_fit()
    rest(qtbot, widget)
    with EventLoopWatch() as watch:
        for end in (5.0, 6.0, 3.0):
            drag_line(widget.plots.cdf, widget.fit.current.thresholds.hot, end)
            settle(qtbot, widget)
    assert widget.fit.current.thresholds.hot == pytest.approx(3, abs=0.3)
    return watch.gaps


def drag_a_range(viewer, qtbot, session):
    """Sum a movie, drag a range of its frames, and estimate its drift."""
    widget = dock(viewer, "Movie")
    rest(qtbot, widget)
    with EventLoopWatch() as watch:
        for last in range(N_FRAMES - 1, 4, -2):
            widget.choice.range.setValue((2, last))
            qtbot.wait(10)
        settle(qtbot, widget)
        widget.drift_section.button.click()
        qtbot.mouseClick(widget.drift.controls.start_button, LEFT)
        settle(qtbot, widget)
    assert widget.frames == (2, 6) and widget.work.drift is not None
    return watch.gaps


def find_an_orientation(viewer, qtbot, session):
    """Find how the gain reference lies, and change the exponent of the movie that is shown."""
    widget = dock(viewer, "Gain")
    widget.references.open(str(session / "gain.mrc"))
    rest(qtbot, widget)
    with EventLoopWatch() as watch:
        qtbot.mouseClick(widget.controls.start_button, LEFT)
        settle(qtbot, widget)
        widget.gamma.choose(0.9)
        settle(qtbot, widget)
    assert widget.choice.orientation == "identity"
    assert widget.preview.data.history[-1]["gamma"] == 0.9
    return watch.gaps


def read_a_session(viewer, qtbot, session):
    """Sum every movie, and compute the curve of noise by radius."""
    widget = dock(viewer, "KOMA")
    widget.box.add_paths([str(path) for path in sorted(session.glob("movie_*.mrcz"))])
    rest(qtbot, widget)
    with EventLoopWatch() as watch:
        qtbot.mouseClick(widget.reading.start_button, LEFT)
        settle(qtbot, widget)
    assert widget.koma.problem() == ""
    return watch.gaps


def correct_a_session(viewer, qtbot, session):
    """Correct every movie into a folder, while one of them is previewed."""
    widget = dock(viewer, "KOMA")
    widget.box.add_paths([str(path) for path in sorted(session.glob("movie_*.mrcz"))])
    rest(qtbot, widget)
    qtbot.mouseClick(widget.reading.start_button, LEFT)
    rest(qtbot, widget)
    qtbot.mouseClick(widget.preview_button, LEFT)
    rest(qtbot, widget)
    out = session / "corrected"
    out.mkdir()
    with EventLoopWatch() as watch, qtbot.waitSignal(widget.corrected) as ended:
        widget.correct_into(str(out))
    assert ended.args[0].ok
    shutil.rmtree(out)
    return watch.gaps


def save_a_movie(viewer, qtbot, session):
    """Compress it well, which takes a while, and verify it."""
    widget = dock(viewer, "Save")
    settle(qtbot, widget)
    widget.form.choose("zstd", 7, "bitshuffle")
    widget.form.verify.setChecked(True)
    widget.form.set_path(str(session / "saved.mrcz"))
    rest(qtbot, widget)
    with EventLoopWatch() as watch, qtbot.waitSignal(widget.finished) as ended:
        qtbot.mouseClick(widget.save_button, LEFT)
    assert ended.args[0].ok
    (session / "saved.mrcz").unlink()
    return watch.gaps


def fit_truncated(viewer, qtbot, session):
    """Fit anew a sweep that was fitted, where counts were cut off at zero."""
    sweep = simulate_microed(20, (512, 512), seed=1).frames
    viewer.add_image(nm.Stack.from_array(sweep), name="sweep")
    return fit_anew(dock(viewer, "MicroED"), qtbot)


def fit_counting(viewer, qtbot, session):
    """Fit anew raw frames; the electrons of one are counted into a layer."""
    raw = simulate_raw(8, (512, 512), seed=1).frames
    viewer.add_image(nm.Stack.from_array(raw), name="raw")
    return fit_anew(dock(viewer, "Counting"), qtbot)


def fit_anew(widget, qtbot):
    """Fit twice, and watch the second time: napari has the layers already."""
    rest(qtbot, widget)
    widget.start_fit()
    rest(qtbot, widget)
    before = widget.fit
    with EventLoopWatch() as watch:
        qtbot.mouseClick(widget.controls.start_button, LEFT)
        rest(qtbot, widget)
    assert widget.fit is not before
    assert widget.fit is not None
    return watch.gaps


QUICK = (drag_a_range, drag_a_threshold, find_an_orientation, correct_a_session, save_a_movie)
ALL = (*QUICK, fit_outliers, read_a_session, fit_truncated, fit_counting)


@pytest.mark.parametrize(
    ("session", "act"),
    [
        *((SMALL, act) for act in QUICK),
        *(pytest.param(LARGE, act, marks=pytest.mark.slow) for act in ALL),
    ],
    indirect=["session"],
)
def test_the_window_stays_awake(act, viewer, qtbot, session, idle):
    """As awake as when nothing but frames are shown."""
    check_awake(act(viewer, qtbot, session), idle)


def compute(idle: Gaps) -> None:
    """Work for half a second, and longer where frames take long to be shown."""
    end = time.thread_time() + 0.5 + 3 * idle.work.max()
    while time.thread_time() < end:
        pass


def wait(idle: Gaps) -> None:
    """Wait for what never happens, for longer than on a busy machine."""
    threading.Event().wait(2 + 3 * idle.wait.max())


def test_what_is_done_on_the_windows_thread_is_noticed(qtbot, viewer, idle):
    """Else the test above could not fail."""
    for act in (compute, wait):
        with EventLoopWatch() as watch:
            QTimer.singleShot(100, lambda act=act: act(idle))
            qtbot.wait(400)
        with pytest.raises(AssertionError):
            check_awake(watch.gaps, idle)
