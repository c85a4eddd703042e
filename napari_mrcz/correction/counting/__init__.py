"""`ElectronCounting`: raw frames in, counts of electrons out; and `count_electrons`, of a movie.

McLeod et al. (2018), doi:10.1016/j.jsb.2017.11.012, section 2.4, leaves counting to those who get
the frames; here the spot that each electron leaves is fitted. `measuring` measures the detector on
a movie (with `background`), `events` finds the electrons of a frame, and `spot` has the fits.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.counting.background import Background, has_one_value, real
from napari_mrcz.correction.counting.events import Events, find_events, without_bright
from napari_mrcz.correction.counting.measuring import measured
from napari_mrcz.correction.history import described, register
from napari_mrcz.correction.options import Option, Options
from napari_mrcz.errors import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Where pickles of earlier versions look for it.
sys.modules[f"{__name__}.counting"] = sys.modules[__name__]


@dataclass(frozen=True)
class CountingOptions(Options):
    """How electrons are counted; see `ElectronCounting.fit`."""

    super_resolution: Annotated[
        int,
        Option(
            "Super-resolution",
            "Pixels of the counts along one of the detector's",
            choices={1: "detector pixels", 2: "2 × 2 for each", 4: "4 × 4 for each"},
            flag="--super-resolution",
            advice="2 or 4 for spots that cover a few pixels, at 4 or 16 times the pixels",
        ),
    ] = 1
    threshold: Annotated[
        float | None,
        Option(
            "Threshold",
            "Charge that makes an electron",
            unit="grey values",
            above=0,
            unset="fitted",
            flag="--threshold",
            advice="Leave it; drag the line in the widget where it stands wrongly in the histogram",
        ),
    ] = None
    upper: Annotated[
        float | None,
        Option(
            "Upper threshold",
            "Charge too high for an electron, such as an X-ray's",
            unit="grey values",
            above=0,
            unset="fitted",
            flag="--upper-threshold",
            advice="Leave it",
        ),
    ] = None
    spread: Annotated[
        float | None,
        Option(
            "Spread",
            "Standard deviation of the spot that an electron leaves",
            unit="pixels",
            above=0,
            unset="measured",
            advice="Leave it, but for frames with too few lone electrons to measure it",
        ),
    ] = None
    force: Annotated[
        bool,
        Option(
            "Force",
            "Count frames that seem to be counted already",
            flag="--force",
            advice="Only where you know that the frames are raw",
        ),
    ] = False

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        if self.upper is not None and not self.upper > (self.threshold or 0):
            raise ValueError(f"upper must be above threshold, {self.threshold:g}")


@register
@dataclass(frozen=True, eq=False)
class ElectronCounting:
    """Counts electrons in raw frames. Made by `ElectronCounting.fit`.

    Attributes
    ----------
    background : Background
        Offset, noise, common mode and noisy pixels.
    spread : float
        Standard deviation of the spot that an electron leaves, in pixels.
    threshold : float
        Charge from which a spot is an electron, in grey values.
    super_resolution : int
        Pixels of the counts along one of the detector's: 1, 2 or 4.
    upper : float or None
        Charge above which a spot is not an electron, such as an X-ray, in grey values; None for no
        such limit.
    expected_f1 : float or None
        Harmonic mean of the expected recall and precision, coincidence included; None where it
        was not measured.
    warnings : tuple of str
        Why the counts should not be trusted, and what to do; empty if all is well.
    rules : int
        4; or 1 to 3 to find electrons as earlier versions did.
    usual : tuple of float
        Mean and standard deviation of charges, in grey values; empty where only shape tells pairs.
    """

    title: ClassVar[str] = "Electrons counted"

    background: Background
    spread: float
    threshold: float
    super_resolution: int = 1
    upper: float | None = None
    expected_f1: float | None = None
    warnings: tuple[str, ...] = ()
    rules: int = 4
    usual: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the options."""
        if self.super_resolution not in (1, 2, 4):
            raise ValueError(f"super-resolution is 1, 2 or 4, not {self.super_resolution}")
        if not self.threshold > 0:
            raise ValueError(f"a threshold is a positive charge, not {self.threshold}")
        if self.upper is not None and not self.upper > self.threshold:
            raise ValueError(
                f"an upper threshold is a charge above {self.threshold}, not {self.upper}"
            )

    @classmethod
    def fit(
        cls,
        movie: Any,
        *,
        threshold: float | None = None,
        spread: float | None = None,
        super_resolution: int = 1,
        upper: float | None = None,
        force: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Self:
        """Measure background, spread and thresholds on some frames of a movie.

        Parameters
        ----------
        movie : Stack or ndarray, shape (n, y, x)
            Raw frames, few of whose pixels were struck: up to some 0.05 e⁻/pix/frame.
        threshold : float, optional
            In grey values of charge; by default the one that makes the fewest mistakes: counted
            noise and missed electrons.
        spread : float, optional
            In pixels; by default measured on spots that are bright and alone.
        super_resolution : int
            1, 2 or 4.
        upper : float, optional
            Charge above which a spot is set aside, such as an X-ray, in grey values; by default a
            charge that hardly one electron in a thousand leaves.
        force : bool
            Count frames that seem to be counted already.
        progress : callable, optional
            Called after each frame with (text, frames done, frames); what it raises ends the fit.

        Raises
        ------
        ValueError
            If the frames do not vary, are not of finite numbers, are counted already, or nothing
            in them looks like an electron.
        """
        found = measured(movie, threshold=threshold, spread=spread, force=force, progress=progress)
        upper = found.upper if upper is None else float(upper)
        return cls(
            found.background,
            found.spread,
            found.threshold,
            super_resolution,
            upper,
            found.expected_f1,
            found.warnings(upper),
            usual=found.usual,
        )

    def with_threshold(self, threshold: float) -> Self:
        """Return the same with another threshold (grey values of charge)."""
        upper = None if self.upper is not None and self.upper <= threshold else self.upper
        return replace(self, threshold=float(threshold), upper=upper)

    def events(self, frame: npt.NDArray[Any]) -> Events:
        """Find the electrons of a raw frame (y, x), as `events_and_bright` does."""
        return self.events_and_bright(frame)[0]

    def events_and_bright(self, frame: npt.NDArray[Any]) -> tuple[Events, int]:
        """Find the electrons of a raw frame (y, x), and count spots that are too bright.

        Raise `ValueError` if it has another shape, or pixels that are not finite.
        """
        background = self.background
        if frame.shape != background.offset.shape:
            raise ValueError(
                f"a background of {background.offset.shape} for a frame of {frame.shape}"
            )
        if self.rules > 3 and has_one_value(frame):
            none = np.zeros(0, np.float32)
            return Events(none, none, none), 0
        events = find_events(
            background.above(real(frame)), self.spread, self.threshold, background.noise,
            noisy=background.noisy, rules=self.rules, usual=self.usual,
        )  # fmt: skip
        return (events, 0) if self.upper is None else without_bright(events, self.upper)

    def __call__(self, frame: npt.NDArray[Any], index: int = 0) -> npt.NDArray[np.uint8]:
        """Return the counts of a raw frame (y, x), of `output_shape`."""
        return self.counts(self.events(frame))

    def counts(self, events: Events) -> npt.NDArray[np.uint8]:
        """Return the image of the number of electrons in each pixel, at most 127."""
        rows, columns = self.output_shape(self.background.offset.shape)
        s = self.super_resolution
        # The middle of the first pixel is 0: its edge is at -0.5.
        half = np.float32(0.5) if self.rules == 1 else np.float64(0.5)
        y = np.clip(np.floor((events.y + half) * s), 0, rows - 1).astype(np.intp)
        x = np.clip(np.floor((events.x + half) * s), 0, columns - 1).astype(np.intp)
        counts = np.bincount(y * columns + x, minlength=rows * columns)
        # A signed byte, which mode 0 of MRC is, holds no more.
        return np.minimum(counts, 127).astype(np.uint8).reshape(rows, columns)

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Return the type of counts: uint8."""
        return np.dtype(np.uint8)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return rows and columns of the counts."""
        return shape[0] * self.super_resolution, shape[1] * self.super_resolution

    def describe(self) -> dict[str, Any]:
        """Return all that is needed to build it again, the offsets included."""
        background = self.background
        return described(
            self,
            offset=background.offset,
            noise=background.noise,
            noisy=None if background.noisy is None else np.flatnonzero(background.noisy),
            levels=background.levels,
            wander=background.wander,
            **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "background"},
        )

    @staticmethod
    def said(step: Mapping[str, Any]) -> str:
        """Return the threshold of a described counting, and the kind of its pixels."""
        pixels = "detector pixels" if step["super_resolution"] == 1 else "super-resolution pixels"
        return f"charges of {step['threshold']:.4g} grey values or more, in {pixels}"

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Build it again; descriptions of the first version lack the later keys."""
        offset = np.asarray(description["offset"], np.float32)
        noisy = None
        if (places := description.get("noisy")) is not None:
            noisy = np.zeros(offset.shape, np.bool_)
            noisy.reshape(-1)[places] = True
        levels = tuple(np.asarray(a, np.float32) for a in description.get("levels", ()))
        wander = description.get("wander", 0.0)
        own = {f.name: description[f.name] for f in fields(cls) if f.name in description}
        own |= {name: tuple(own.get(name, ())) for name in ("warnings", "usual")}
        own["rules"] = own.get("rules", 1)
        return cls(Background(offset, description["noise"], noisy, levels, wander), **own)


def count_electrons(
    movie: Any,
    *,
    counting: ElectronCounting | None = None,
    super_resolution: int = 1,
    force: bool = False,
) -> Any:
    """Return the counts of a movie of raw frames, lazily.

    Parameters
    ----------
    movie : Stack
        Raw frames (n, y, x).
    counting : ElectronCounting, optional
        By default fitted to the movie with the following parameters.
    super_resolution : int
        1, 2 or 4.
    force : bool
        Count frames that seem to be counted already.

    Returns
    -------
    Stack, shape (n, y · s, x · s)
        uint8; its pixel size is s times smaller.

    Warns
    -----
    MrczWarning
        For each of the `warnings` of a counting that is fitted here.

    Raises
    ------
    ValueError
        If the frames do not vary, are counted already, or nothing in them looks like an electron.
    """
    if counting is None:
        counting = ElectronCounting.fit(movie, super_resolution=super_resolution, force=force)
        for warning in counting.warnings:
            warn(warning)
    z, y, x = movie.pixel_size
    s = counting.super_resolution
    return movie.apply(counting).described(pixel_size=(z, y / s, x / s))
