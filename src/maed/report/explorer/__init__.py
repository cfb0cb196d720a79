"""The part of the page that is looked around in: what it is given, and the scripts and styles that show it."""

from maed.report.explorer.data import explorer_data

__all__ = ["explorer_data"]
