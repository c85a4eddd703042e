"""A correction that waits, so that a test can act in the middle of a job."""

import threading

import numpy as np


class Gate:
    """Holds back the frames of a movie, or one of them, until it is opened."""

    def __init__(self, frame: int | None = None) -> None:
        self.frame = frame
        self.reached, self.opened = threading.Event(), threading.Event()
        self.closed = False

    def __call__(self, frame: np.ndarray, index: int) -> np.ndarray:
        """Wait before a frame, while it is closed."""
        if self.closed and self.frame in (None, index):
            self.reached.set()
            assert self.opened.wait(20)
        return frame

    def describe(self) -> dict[str, str]:
        """Return its name."""
        return {"name": "Gate"}

    def output_dtype(self, dtype):
        """Return the same."""
        return dtype
