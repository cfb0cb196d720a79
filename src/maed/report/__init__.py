"""The report: tables of a run for the page, the terminal and markdown; figures; the HTML page."""

from typing import TYPE_CHECKING

from maed._lazy import lazy

if TYPE_CHECKING:
    from maed.report.page import embedding_figure, write_report
    from maed.report.tables import markdown, print_tables

__all__ = ["embedding_figure", "markdown", "print_tables", "write_report"]

__getattr__, __dir__ = lazy(
    __name__, {"page": ("embedding_figure", "write_report"), "tables": ("markdown", "print_tables")}
)
