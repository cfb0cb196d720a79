"""The report: tables of a run for the page, the terminal and markdown; figures; the HTML page."""

from maed.report.page import embedding_figure, write_report
from maed.report.tables import markdown, print_tables

__all__ = ["embedding_figure", "markdown", "print_tables", "write_report"]
