"""Figures, each usable alone: they take arrays, draw with matplotlib, and return the Axes.

Every function takes `ax`, in which it draws; without one it makes a Figure of a fitting size, which is `ax.figure`. A
figure of several panels takes `ax` as their frame and divides it, as scikit-learn's displays do. No pyplot and no
global state; a transparent background with one gray for text and axes, which reads on light and dark and in print;
colors that color-blind readers can tell apart (Okabe and Ito's, viridis, cividis).
"""

from typing import TYPE_CHECKING

from maed._lazy import lazy

if TYPE_CHECKING:
    from maed.plots.curves import accuracy_curves, accuracy_intervals, against_draws, label_curves, training_curves
    from maed.plots.layouts import grid_edges, position_colors, recovered_layout, unshuffled
    from maed.plots.maps import embedding_channels, similarity_map, similarity_maps, similarity_matrix, spread_positions
    from maed.plots.palette import color_of
    from maed.plots.signals import reconstructions, reconstructions_by_fraction, to_unit
    from maed.plots.style import figure_of, save

__all__ = [
    "accuracy_curves",
    "accuracy_intervals",
    "against_draws",
    "color_of",
    "embedding_channels",
    "figure_of",
    "grid_edges",
    "label_curves",
    "position_colors",
    "reconstructions",
    "reconstructions_by_fraction",
    "recovered_layout",
    "save",
    "similarity_map",
    "similarity_maps",
    "similarity_matrix",
    "spread_positions",
    "to_unit",
    "training_curves",
    "unshuffled",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "curves": ("accuracy_curves", "accuracy_intervals", "against_draws", "label_curves", "training_curves"),
        "layouts": ("grid_edges", "position_colors", "recovered_layout", "unshuffled"),
        "maps": ("embedding_channels", "similarity_map", "similarity_maps", "similarity_matrix", "spread_positions"),
        "signals": ("reconstructions", "reconstructions_by_fraction", "to_unit"),
        "palette": ("color_of",),
        "style": ("figure_of", "save"),
    },
)
