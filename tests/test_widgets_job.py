"""Threads that tell the window's thread how they fare."""

import gc
import threading

import pytest
from qtpy.QtCore import QObject, QThread

from napari_mrcz.widgets.base.job import Cancelled, Job, LatestJob


def never(*_: object) -> None:
    """Fail."""
    raise AssertionError("this signal should not have come")


def test_the_result_comes_to_the_threads_own_thread(qtbot):
    """Work is done elsewhere."""

    class Listener(QObject):
        def on_ended(self, result):
            self.result, self.thread_of_call = result, QThread.currentThread()

    listener = Listener()
    job = Job(lambda report: threading.current_thread())
    job.ended.connect(listener.on_ended)
    with qtbot.waitSignal(job.ended):
        job.start()
    assert listener.result is not threading.current_thread()
    assert listener.thread_of_call is listener.thread()


def test_an_exception_comes_as_it_is(qtbot):
    """Not as a traceback in the console."""

    def work(report):
        raise ValueError("no such luck")

    job = Job(work)
    with qtbot.waitSignal(job.ended) as caught:
        job.start()
    assert isinstance(caught.args[0], ValueError)


def test_progress_is_told_now_and_then_and_at_the_end(qtbot):
    """Ten thousand reports are few signals, the last report among them."""

    def work(report):
        for done in range(1, 10_001):
            report("Counting", done, 10_000)

    said = []
    job = Job(work)
    job.progressed.connect(lambda *step: said.append(step))
    with qtbot.waitSignal(job.ended):
        job.start()
    assert said[-1] == ("Counting", 10_000, 10_000)
    assert len(said) < 100


def test_cancelling_ends_it_at_the_next_report(qtbot):
    """And that is how it ended."""
    begun, cancelled = threading.Event(), threading.Event()
    steps = []

    def work(report):
        begun.set()
        assert cancelled.wait(10)
        for done in range(5):
            report("Working", done, 5)
            steps.append(done)

    job = Job(work)
    with qtbot.waitSignal(job.ended) as caught:
        job.start()
        assert begun.wait(10)
        job.cancel()
        cancelled.set()
    assert isinstance(caught.args[0], Cancelled)
    assert steps == []


def test_a_job_that_was_done_before_it_was_cancelled_returns(qtbot):
    """What is on disk is on disk."""
    job = Job(lambda report: "done")
    with qtbot.waitSignal(job.ended) as caught:
        job.cancel()
        job.start()
    assert caught.args == ["done"]


def test_a_job_need_not_be_held(qtbot):
    """It stays alive until its result is delivered."""
    go_on = threading.Event()
    results = []

    def start_and_forget():
        job = Job(lambda report: go_on.wait(10))
        job.ended.connect(results.append)
        job.start()

    start_and_forget()
    gc.collect()
    go_on.set()
    qtbot.waitUntil(lambda: results == [True])


def test_of_many_requests_the_last_is_done(qtbot):
    """The others never begin."""
    done = []
    latest = LatestJob()
    with qtbot.waitSignal(latest.returned) as caught:
        for i in range(20):
            latest.request(lambda report, i=i: done.append(i) or i)
    assert caught.args == [19]
    assert done == [19]
    assert not latest.busy


def test_a_running_job_gives_way_to_a_newer_request(qtbot):
    """Its result does not come, and the two do not run at once."""
    begun, go_on = threading.Event(), threading.Event()
    running = []

    def slow(report):
        running.append("slow")
        begun.set()
        assert go_on.wait(10)
        running.remove("slow")
        return "slow"

    def quick(report):
        assert running == []
        return "quick"

    results = []
    latest = LatestJob()
    latest.returned.connect(results.append)
    latest.request(slow)
    qtbot.waitUntil(begun.is_set)
    latest.request(quick)
    with qtbot.waitSignal(latest.returned):
        # Time enough for the newer one to begin, if it did not wait.
        threading.Timer(0.4, go_on.set).start()
    assert results == ["quick"]


def test_an_error_of_a_dropped_request_does_not_come(qtbot):
    """Nor its result."""
    begun, go_on = threading.Event(), threading.Event()

    def failing(report):
        begun.set()
        assert go_on.wait(10)
        raise ValueError("too late")

    latest = LatestJob()
    latest.failed.connect(never)
    latest.request(failing)
    qtbot.waitUntil(begun.is_set)
    latest.drop()
    assert not latest.busy
    go_on.set()
    with qtbot.waitSignal(latest.returned):
        latest.request(lambda report: 1)


def test_an_error_of_the_last_request_comes(qtbot):
    """As `failed`."""

    def failing(report):
        raise ValueError("no estimate")

    latest = LatestJob()
    with qtbot.waitSignal(latest.failed) as caught:
        latest.request(failing)
    assert str(caught.args[0]) == "no estimate"
    assert not latest.busy


def test_cancelled_is_no_error_to_be_caught_by_accident():
    """It passes through what catches the errors of files."""
    assert not issubclass(Cancelled, ValueError | OSError)


@pytest.mark.parametrize("total", [None, 0])
def test_steps_may_be_uncounted(qtbot, total):
    """Then the bar only shows that something happens."""
    job = Job(lambda report: report("Working", 1, total))
    said = []
    job.progressed.connect(lambda *step: said.append(step))
    with qtbot.waitSignal(job.ended):
        job.start()
    assert said == [("Working", 1, 0)]
