"""The report: tables of a run for the page, the terminal and markdown; figures; the HTML page."""

from typing import TYPE_CHECKING

from maed._lazy import lazy

if TYPE_CHECKING:
    from maed.report.contents import Contents, Examples, read_contents
    from maed.report.page import embedding_figure, write_report
    from maed.report.tables import markdown, print_tables
    from maed.report.tokens import text_examples

__all__ = [
    "Contents",
    "Examples",
    "embedding_figure",
    "markdown",
    "print_tables",
    "read_contents",
    "text_examples",
    "write_report",
]

_HOMES = {
    "contents": ("Contents", "Examples", "read_contents"),
    "page": ("embedding_figure", "write_report"),
    "tables": ("markdown", "print_tables"),
    "tokens": ("text_examples",),
}
__getattr__, __dir__ = lazy(__name__, _HOMES)
