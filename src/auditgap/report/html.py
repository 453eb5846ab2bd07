"""One self-contained HTML file from stored evidence.

No script, no font, no image and no style sheet is loaded from anywhere: a content security policy in the file forbids it. Model
output is untrusted; every string is escaped and its unseen characters are spelled out. Equal audits give equal bytes.
"""

from collections.abc import Callable
from functools import cache, lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from auditgap.errors import UsageError
from auditgap.records import Figure
from auditgap.records.parity import Equivalence
from auditgap.report import charts, numbers, outline, release, release_summary, words
from auditgap.report.audit import Audit
from auditgap.report.coverage import coverage_table
from auditgap.report.figures import figure_svg
from auditgap.report.parity_figure import describe_shift, shift_svg

__all__ = ["environment", "render_html", "render_release_html"]


def render_html(audit: Audit) -> str:
    """The whole report as one HTML document: the decision first, then what it rests on, then how to check it."""
    return environment().get_template("report.html").render(audit=audit, coverage=coverage_table(audit))


def render_release_html(records: release.Release) -> str:
    """The report on a release as one HTML document: the decision first, then cases, controls, matrix, parity and criteria.

    Raises:
        UsageError: there is no record to report on.
    """
    release_summary.check_release(records)
    return environment().get_template("release.html").render(release=records, rows=release.cases(records))


@cache
def environment() -> Environment:
    """The Jinja environment of every page: everything is escaped, nothing may be undefined."""
    environment = Environment(
        loader=PackageLoader("auditgap.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters |= {
        "short": numbers.short,
        "full": numbers.full,
        "utc": numbers.utc,
        "duration": numbers.duration,
        "percent": lambda value: f"{value:.2f}",
        "drawn": _drawn,
        "shift": _shift,
        "in_words": describe_shift,
    }
    environment.globals |= {"words": words, "outline": outline, "charts": charts, "view": release, "summary": release_summary}
    return environment


def _visible(value: object) -> object:
    return numbers.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@lru_cache(maxsize=256)  # a page is rendered again and again, its figures never change
def _drawn(figure: Figure, prefix: str) -> Markup:
    return _svg(lambda: figure_svg(figure, prefix=prefix))


@lru_cache(maxsize=256)
def _shift(test: Equivalence, prefix: str) -> Markup:
    return _svg(lambda: shift_svg(test, prefix=prefix))


def _svg(draw: Callable[[], str]) -> Markup:
    try:
        return Markup(draw())  # rebuilt from an element tree, which escapes every text
    except UsageError as error:
        return Markup('<p class="absent">This figure cannot be drawn: {}</p>').format(str(error))
