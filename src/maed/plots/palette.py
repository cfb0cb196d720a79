"""Colors that color-blind readers can tell apart, on white and on near-black, and which encoding has which."""

from __future__ import annotations

INK = "#7a7a7a"
"""Text and axes: readable on white and on near-black."""

BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
OLIVE, BROWN = "#B5A700", "#A6761D"
"""The yellow of Okabe and Ito's palette, darkened until white paper shows it, and an orange that is not `ORANGE`."""

WINE, TEAL, VIOLET = "#A8336B", "#2FA39A", "#8B6BB1"

COLORS = {
    "maed": VERMILION,
    "maed-resampled": OLIVE,
    "trainable": BLUE,
    "fourier": GREEN,
    "correlation": ORANGE,
    "dependence": BROWN,
    "partial": WINE,
    "magnitude": TEAL,
    "auto": VIOLET,
    "sinusoidal": PURPLE,
    "random": SKY,
    "none": INK,
}
"""A color for each built-in position encoding (Okabe and Ito's palette, and five more)."""


def color_of(encoding: str) -> str:
    """The color of an encoding; one for all that are not known by name."""
    return COLORS.get(encoding, PURPLE)
