"""A scheduler that is lost while tasks are under way, and workers that do not start."""

from types import SimpleNamespace

import pytest

import napari_mrcz as nm
from napari_mrcz.session import run as scheduler
from napari_mrcz.session.run import _local, run_all
from napari_mrcz.session.tasks import Outcome


class Future:
    """A result that may never come."""

    def __init__(self, outcome=None, error=None):
        self.outcome, self.error = outcome, error

    def add_done_callback(self, done):
        if self.outcome or self.error:
            done(self)

    def result(self, timeout):
        if self.error:
            raise self.error
        return self.outcome

    def release(self):
        pass


class Client:
    """A cluster of one thread that answers some questions and does some tasks, and then is gone."""

    def __init__(self, answers, futures):
        self._answers, self._futures = answers, list(futures)
        self.asked = 0
        self.scheduler = SimpleNamespace(ncores=None)

    def sync(self, function, **options):
        self.asked += 1
        if self.asked > self._answers:
            raise TimeoutError
        return {"worker": 1}

    def submit(self, work, task, *more, **options):
        if not self._futures:
            raise RuntimeError("the client is closed")
        return self._futures.pop(0)


def tasks(n):
    return [SimpleNamespace(source=f"{i}.mrc") for i in range(n)]


class CancelledError(Exception):
    """What dask calls it, in some versions."""


@pytest.mark.parametrize(
    ("answers", "futures", "done"),
    [
        (0, [], 0),  # before anything was sent
        (1, [Future(Outcome("0.mrc")), Future(), Future()], 1),  # no more news
        (1, [Future(Outcome("0.mrc")), Future(error=CancelledError()), Future()], 1),
        (1, [Future(Outcome("0.mrc")), Future(Outcome("1.mrc"))], 1),  # while more is sent
    ],
)
def test_every_task_has_an_outcome_when_it_is_lost(monkeypatch, answers, futures, done):
    """Each one, and the scheduler is asked once."""
    monkeypatch.setattr(scheduler, "_QUIET_S", 0.01)
    client = Client(answers, futures)
    outcomes = list(run_all(tasks(5), client=client))
    assert sorted(outcome.source for outcome in outcomes) == [f"{i}.mrc" for i in range(5)]
    assert [outcome.ok for outcome in outcomes].count(True) == done
    assert all("scheduler or its workers were lost" in o.error for o in outcomes if not o.ok)
    assert client.asked == answers + 1
    again = list(run_all(tasks(2), client=client))
    assert not any(outcome.ok for outcome in again)
    assert client.asked == answers + 1


def test_a_failure_of_a_worker_is_that_of_its_task(monkeypatch):
    client = Client(100, [Future(error=OSError("killed")), Future(Outcome("1.mrc"))])
    first, second = run_all(tasks(2), client=client)
    assert (first.error, second.ok) == ("0.mrc: OSError: killed", True)


def test_workers_that_end_while_they_start_are_one_line():
    def start(**options):
        raise RuntimeError("Nanny failed to start.") from OSError("out of memory")

    with pytest.raises(nm.MrczError) as refused:
        _local(start, 2)
    said = str(refused.value)
    assert said.startswith("2 workers cannot be started: Nanny failed to start; out of memory.")
    assert "\n" not in said
