"""One instrument's result as a fragment of HTML, for a notebook."""

from auditgap.records import Card, Result
from auditgap.report.html import environment

__all__ = ["render_result"]


def render_result(card: Card, result: Result, *, subject: str) -> str:
    """Verdict, measurements with intervals, controls and figures. Nothing was registered, and the fragment says so."""
    return environment().get_template("result.html").render(card=card, subject=subject, evidence={"result": result})
