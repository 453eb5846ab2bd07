"""A section for a Hugging Face model card, under the headings of its template: Evaluation, and Bias, Risks, and Limitations."""

from collections.abc import Iterator

from auditgap.exchange.export import evaluations
from auditgap.exchange.export.evaluations import code, text
from auditgap.exchange.export.naming import iso, latest
from auditgap.report import Audit, outline

__all__ = ["model_card"]


def model_card(audit: Audit) -> str:
    """Evaluation and limitations of a model as a Markdown section to paste into its card.

    Raises:
        UsageError: there is neither a decision nor evidence.
    """
    return "\n".join(_lines(audit)) + "\n"


def _lines(audit: Audit) -> Iterator[str]:
    subject = audit.subject
    yield f"# Evaluation\n\nSafety audit of {text(subject.name)}, {code(subject.digest())}, as of {iso(latest(audit))}."
    yield evaluations.NOTICE
    yield "\n## Testing Data, Factors & Metrics\n"
    for i, (_, e) in enumerate(audit.evidence, 1):
        yield f"\n### E{i} {text(e.step)}\n"
        yield from evaluations.how_run(audit, e)
    yield "\n## Results\n"
    yield from evaluations.results(audit)
    yield "\n### Summary\n"
    yield from evaluations.decision(audit)
    yield "\n# Bias, Risks, and Limitations\n"
    yield from evaluations.limits(audit)
    if outline.not_measured(audit):
        yield "\nNot measured:\n"
        yield from evaluations.missing(audit)
    yield f"\nTo check: `auditgap evidence verify`; the ledger root is {code(audit.root)} over {audit.n_statements} statements."
