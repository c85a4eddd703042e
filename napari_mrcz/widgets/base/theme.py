"""Colours for our widgets and plots: those of napari's theme, made readable where they are not."""

from __future__ import annotations

from dataclasses import dataclass

from napari.utils.theme import get_theme
from qtpy.QtGui import QColor

# What small text needs: https://www.w3.org/TR/WCAG21/#contrast-minimum
_READABLE = 4.5
_STEPS = 20


@dataclass(frozen=True)
class Palette:
    """The colours of a theme, as "#rrggbb"."""

    background: str  # of a dock
    foreground: str  # of what lies in it
    text: str
    muted: str  # of what matters less, yet readable
    grid: str  # of lines that are in nobody's way
    error: str
    warning: str
    accent: str
    hot: str
    dark: str
    model: str  # beside what was measured


def palette(theme: str) -> Palette:
    """Return the colours of a theme of napari by its name."""
    known = get_theme(theme)

    def plain(name: str) -> str:
        return QColor(getattr(known, name).as_hex()).name()

    background, text = plain("background"), plain("text")

    def upon(colour: str) -> str:
        return readable(colour, background, text)

    return Palette(
        background=background,
        foreground=plain("foreground"),
        text=text,
        muted=upon(plain("highlight")),
        grid=plain("secondary"),
        error=upon(plain("error")),
        warning=upon(plain("warning")),
        accent=upon(plain("current")),
        # Told apart by colour-blind eyes too (Okabe and Ito, "Color universal design", 2008).
        hot=upon("#d55e00"),
        dark=upon("#0072b2"),
        model=upon("#009e73"),
    )


def readable(colour: str, background: str, text: str) -> str:
    """Return the nearest to a colour, on the way to that of the text, that can be read."""
    start, end = QColor(colour).getRgb()[:3], QColor(text).getRgb()[:3]
    mixed = colour
    for step in range(_STEPS + 1):
        part = step / _STEPS
        mixed = QColor(*(round(a + part * (b - a)) for a, b in zip(start, end, strict=True))).name()
        if contrast_ratio(mixed, background) >= _READABLE:
            break
    return mixed


def contrast_ratio(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21, as WCAG 2.1 defines it."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = QColor(colour).getRgbF()[:3]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
