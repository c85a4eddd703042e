"""What all dock widgets share: readable colours, plots that follow the theme, long jobs."""

import re
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from mouse import drag_line
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QLocale, QPoint, QPointF, QSize, Qt, QUrl
from qtpy.QtGui import QImage, QStandardItem, QStandardItemModel, QWheelEvent
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QLabel,
    QSlider,
    QSpinBox,
    QTableView,
)

from napari_mrcz.widgets.base.form import WrappedLabel, number_field, plain_tip
from napari_mrcz.widgets.base.job import JobControls
from napari_mrcz.widgets.base.layer_picker import LayerPicker
from napari_mrcz.widgets.base.panel import Panel
from napari_mrcz.widgets.base.plot import Plot, contrast_ratio, offer_rows, palette, readable

WRITTEN = ("text", "muted", "error", "warning", "accent", "hot", "dark", "model")


@pytest.fixture
def panel(viewer) -> Panel:
    """Return a panel docked in a viewer."""
    panel = Panel(viewer)
    viewer.window.add_dock_widget(panel)
    return panel


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("name", WRITTEN)
def test_words_can_be_read_in_every_theme(qtbot, theme, name):
    """Napari's own red is dark on dark."""
    colours = palette(theme)
    assert contrast_ratio(getattr(colours, name), colours.background) >= 4.5


def test_contrast_is_that_of_the_standard():
    """Black on white is 21, by definition; #777777 on white is just unreadable."""
    assert contrast_ratio("#000000", "#ffffff") == pytest.approx(21)
    assert contrast_ratio("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert readable("#0000ff", "#ffffff", "#000000") == "#0000ff"


def test_a_sentence_keeps_its_tone_when_the_theme_changes(panel):
    """An error stays an error."""
    label = QLabel()
    panel.column.addWidget(label)
    panel.tell(label, "No.", "error")
    for theme in ("light", "dark"):
        panel.viewer.theme = theme
        assert palette(theme).error in label.styleSheet()
    assert label.text() == "No."


def test_a_plot_takes_the_colours_of_the_theme(qtbot):
    """Also for what is added later."""
    plot = Plot("distance (σ)", "pixels", "tip")
    qtbot.addWidget(plot)
    curve, line = plot.curve("hot"), plot.line("dark")
    for theme in ("light", "dark"):
        colours = palette(theme)
        plot.apply_palette(colours)
        assert curve.opts["pen"].color().name() == colours.hot
        assert line.pen.color().name() == colours.dark
    later = plot.curve("model")
    assert later.opts["pen"].color().name() == palette("dark").model


@pytest.mark.parametrize("language", ["C", "sv"])
def test_numbers_have_one_minus_sign_wherever_they_stand(qtbot, language):
    """Whatever the system's language; a hyphen and a minus sign can be typed."""
    field = number_field((-99, 0), 0.1, " σ", "tip")
    field.setLocale(QLocale(language))
    qtbot.addWidget(field)
    field.setValue(-4)
    point = field.locale().decimalPoint()
    assert field.text() == f"−4{point}00 σ"
    for typed in ("-3", "−2"):
        field.selectAll()
        field.lineEdit().insert(typed)
        qtbot.keyClick(field, Qt.Key.Key_Return)
        assert field.value() == -int(typed[1])
    field.selectAll()
    qtbot.keyClicks(field, "x-1")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert field.value() == -1
    plot = Plot("distance (σ)", "pixels", "tip")
    qtbot.addWidget(plot)
    line = plot.line("dark", movable=True, label="{value:.2f} σ")
    line.setVisible(True)
    line.setValue(-4)
    assert line.label.toPlainText() == "−4.00 σ"
    for side in ("bottom", "left"):
        assert plot.getPlotItem().getAxis(side).tickStrings([-4, 2], 1, 2) == ["−4", "2"]


def test_a_movable_line_follows_the_mouse(qtbot):
    """Pressed, moved, released: as a hand does it."""
    plot = Plot("distance (σ)", "pixels", "tip")
    qtbot.addWidget(plot)
    plot.resize(400, 200)
    line = plot.line("hot", movable=True)
    line.setValue(0)
    line.setVisible(True)
    plot.getPlotItem().setRange(xRange=(-5, 5), yRange=(0, 1), padding=0)
    with qtbot.waitExposed(plot):
        plot.show()
    drag_line(plot, 0.0, 3.0)
    assert line.value() == pytest.approx(3, abs=0.1)


def test_a_job_shows_progress_and_how_it_ended(panel, qtbot):
    """Start, progress, result."""
    controls = JobControls(panel, "Fit", "Fit it")
    panel.column.addWidget(controls)
    go = threading.Event()

    def work(report):
        report("Summing", 1, 2)
        go.wait(10)
        report("Summing", 2, 2)
        return 7

    controls.run(work)
    assert controls.running
    assert not controls.start_button.isEnabled()
    qtbot.waitUntil(lambda: controls.progress.text() == "Summing 1 of 2")
    assert controls.progress.value() == 1
    with qtbot.waitSignal(controls.returned) as ended:
        go.set()
    assert ended.args == [7]
    assert not controls.running
    assert controls.start_button.isEnabled()
    assert not controls.cancel_button.isVisibleTo(controls)


@pytest.mark.window
def test_nothing_moves_while_a_job_runs(panel, qtbot):
    """Else all plots below would be drawn anew when it starts, and again when it ends."""
    controls, below = JobControls(panel, "Fit", "Fit it"), QLabel("Below")
    panel.column.addWidget(controls)
    panel.column.addWidget(below)
    panel.column.addStretch()
    window = panel.viewer.window._qt_window
    with qtbot.waitExposed(window):
        window.show()
    place = below.geometry()
    go = threading.Event()

    def work(report):
        report("Summing", 1, 2)
        go.wait(10)

    controls.run(work)
    qtbot.waitUntil(lambda: controls.progress.text() == "Summing 1 of 2")
    qtbot.wait(50)  # time to be laid out anew
    assert controls.progress.isVisible()
    assert below.geometry() == place
    with qtbot.waitSignal(controls.ended):
        go.set()
    qtbot.wait(50)
    assert below.geometry() == place


def test_a_job_can_be_cancelled_and_fail(panel, qtbot):
    """Each is said."""
    controls = JobControls(panel, "Fit", "Fit it")
    started = threading.Event()

    def endless(report):
        started.set()
        while True:
            report("Waiting", 0, None)

    controls.run(endless)
    started.wait(10)
    with qtbot.waitSignal(controls.cancelled):
        controls.cancel()
    assert controls.status.text() == "Cancelled."

    def failing(report):
        raise ValueError("no pixel is usable")

    with qtbot.waitSignal(controls.failed):
        controls.run(failing)
    assert controls.status.text() == "No pixel is usable."
    assert palette(panel.viewer.theme).error in controls.status.styleSheet()


def test_what_cannot_start_says_why(panel):
    """In the tooltip of the button."""
    controls = JobControls(panel, "Fit", "Fit it")
    controls.allow("Open a movie first.")
    assert not controls.start_button.isEnabled()
    assert controls.start_button.toolTip() == "Open a movie first."
    controls.allow()
    assert controls.start_button.isEnabled()
    assert controls.start_button.toolTip() == "Fit it"


def test_a_picker_offers_only_what_is_accepted(panel):
    """A layer that it shows itself is none to be worked on, also when it is the active one."""
    movie = panel.viewer.add_image(np.zeros((3, 4, 5)), name="movie")
    picker = LayerPicker(panel, accepts=lambda layer: layer.ndim == 3)
    panel.column.addWidget(picker)
    panel.viewer.add_image(np.zeros((4, 5)), name="sum")
    assert [picker.itemText(i) for i in range(picker.count())] == ["movie"]
    assert picker.layer is movie


def test_a_picker_may_pick_nothing(panel):
    """It begins there, stays there whatever is active, and comes back when its layer goes."""
    gain = panel.viewer.add_image(np.zeros((4, 5)), name="gain")
    picker = LayerPicker(panel, none="no gain reference")
    panel.column.addWidget(picker)
    assert picker.layer is None
    assert picker.currentText() == "no gain reference"
    panel.viewer.add_image(np.zeros((4, 5)), name="other")
    assert picker.layer is None
    picker.setCurrentIndex(2)
    picker.activated.emit(2)
    assert picker.layer is gain
    panel.viewer.layers.remove(gain)
    assert picker.layer is None
    assert picker.currentText() == "no gain reference"


def turn_wheel(field) -> bool:
    """Turn the mouse wheel over a field by one notch; tell whether the field has taken it."""
    middle = QPointF(field.rect().center())
    nothing = QPoint(0, 0), Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier
    pixels, buttons, modifiers = nothing
    turned = QWheelEvent(
        middle, QPointF(field.mapToGlobal(field.rect().center())), pixels, QPoint(0, -120),
        buttons, modifiers, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(field, turned)
    return turned.isAccepted()


@pytest.mark.parametrize("kind", [QSpinBox, QDoubleSpinBox, QComboBox, QSlider])
def test_the_wheel_is_the_docks_and_changes_no_field(panel, qtbot, kind):
    """Unless the field is being edited."""
    field = kind()
    if kind is QComboBox:
        field.addItems(["a", "b"])
        now = field.currentIndex
    else:
        field.setValue(5)
        now = field.value
    panel.column.addWidget(field)
    with qtbot.waitExposed(panel.window()):
        panel.window().show()
    before = now()
    assert not turn_wheel(field)  # so that Qt offers it to the dock
    assert now() == before
    panel.window().activateWindow()
    field.setFocus()
    qtbot.waitUntil(field.hasFocus)
    assert turn_wheel(field)
    assert now() != before


def test_texts_of_files_are_shown_as_they_are(qtbot):
    """Neither taken for HTML nor steering the screen; spaces of numbers stay."""
    label = WrappedLabel("tip")
    qtbot.addWidget(label)
    label.setText("<b>a\u202e\x1b</b>\n3\u2009nm")
    assert label.text() == "<b>a\\u202e\\x1b</b>\n3\u2009nm"
    assert label.textFormat() == Qt.TextFormat.PlainText
    assert plain_tip("<b>\na") == "<qt>&lt;b&gt;<br>a</qt>"
    assert plain_tip("a\nb") == "a\nb"


def save_to(monkeypatch, path, kind="") -> None:
    """Answer the next file dialog."""
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), kind))


def do(widget, text: str) -> None:
    """Choose an entry of the menu of the right mouse button."""
    (action,) = (action for action in widget.actions() if action.text() == text)
    action.trigger()


def copied(table, qtbot) -> str:
    """Copy a table, and return it."""
    clipboard = QApplication.clipboard()
    clipboard.clear()
    do(table, "Copy table")
    qtbot.waitUntil(lambda: clipboard.text() != "")
    return clipboard.text()


def test_plots_are_copied_and_saved(qtbot, tmp_path, monkeypatch):
    """As pictures finer than the screen's, and as the numbers that are seen."""
    plot = Plot("x (px)", "y", "Something")
    plot.resize(200, 100)
    plot.apply_palette(palette("dark"))
    plot.curve("accent").setData([1, 2], [3.5, 4])
    plot.curve("hot").setData([7], [8])
    plot.curve("dark").setData([9], [9])
    plot._drawn[2][0].hide()
    assert "Right-click" in plot.toolTip()
    for suffix in ("png", "svg", "csv"):
        save_to(monkeypatch, tmp_path / f"plot.{suffix}")
        do(plot, "Save plot or numbers…")
    assert QImage(str(tmp_path / "plot.png")).size() == QSize(600, 300)
    assert "<svg" in (tmp_path / "plot.svg").read_text("utf-8")
    numbers = "x (px),y,x (px),y\n1,3.5,7,8\n2,4.0,,\n"
    assert (tmp_path / "plot.csv").read_text("utf-8") == numbers
    do(plot, "Copy numbers")
    assert QApplication.clipboard().text() == numbers.replace(",", "\t")
    do(plot, "Copy plot")
    assert QApplication.clipboard().image().width() == 600


def test_tables_are_copied_and_saved(panel, qtbot, tmp_path, monkeypatch):
    """A file whose name was completed, and so not asked about, is not replaced."""
    model = QStandardItemModel(1, 2)
    model.setHorizontalHeaderLabels(["frame", "state"])
    for column, text in enumerate(("0", 'says "no", again')):
        model.setItem(0, column, QStandardItem(text))
    table = QTableView()
    table.setModel(model)
    panel.column.addWidget(table)
    for _ in range(2):
        panel.window().show()
        panel.window().hide()
    assert len(table.actions()) == 2
    assert copied(table, qtbot) == 'frame\tstate\n0\t"says ""no"", again"\n'
    save_to(monkeypatch, tmp_path / "frames", "CSV (*.csv)")
    do(table, "Save table as CSV…")
    saved = tmp_path / "frames.csv"
    qtbot.waitUntil(saved.exists)
    assert saved.read_text("utf-8") == 'frame,state\n0,"says ""no"", again"\n'
    saved.write_text("mine")
    notification_manager.records.clear()
    do(table, "Save table as CSV…")
    qtbot.waitUntil(lambda: bool(notification_manager.records))
    assert saved.read_text("utf-8") == "mine"
    assert "frames.csv" in str(notification_manager.records[-1].message)


def test_a_long_table_is_copied_in_a_thread(qtbot):
    """So that the window sees to other things meanwhile."""
    table = QTableView()
    qtbot.addWidget(table)
    threads = set()

    def rows():
        for n in range(50):
            threads.add(threading.current_thread())
            yield [n]

    offer_rows(table, rows)
    assert copied(table, qtbot).split() == list(map(str, range(50)))
    assert threading.main_thread() not in threads


def test_help_opens_the_page_at_the_widget(panel, qtbot):
    panel.title = "Counting"
    panel.help_button.click()
    browser = panel._help.browser
    assert browser.textCursor().block().text() == "Counting"
    assert browser.verticalScrollBar().value() > 0
    (page,) = [link for link in ("settings.md",) if link in browser.toHtml()]
    browser.setSource(browser.source().resolved(QUrl(page)))
    assert browser.toPlainText().startswith("Settings")
    panel._help.back.click()
    assert browser.toPlainText().startswith("In napari")
    panel._help.close()


def test_every_widget_is_explained():
    root = Path(__file__).parents[1]
    titles = yaml.safe_load((root / "napari_mrcz" / "napari.yaml").read_text("utf-8"))
    headings = re.findall(r"^## (.*)$", (root / "docs" / "widgets.md").read_text("utf-8"), re.M)
    for widget in titles["contributions"]["widgets"]:
        assert any(heading.startswith(widget["display_name"]) for heading in headings)
