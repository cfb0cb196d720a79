"""The report: tables of a run for the page, the terminal and markdown; figures; the HTML page."""

from maed.report.page import write_report
from maed.report.tables import markdown, print_tables

__all__ = ["markdown", "print_tables", "write_report"]
