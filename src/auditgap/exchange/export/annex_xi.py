"""Technical documentation of a general-purpose AI model, EU AI Act Annex XI, sections 1 and 2, as a form.

Architecture, parameter count and evaluations are filled in from the audit; the rest is a blank that names what is asked.
Section 2 applies to models with systemic risk only. Source: Regulation (EU) 2024/1689, Annex XI; points as summarised in notes.
"""

from collections.abc import Iterator

from auditgap.exchange.export import evaluations
from auditgap.exchange.export.evaluations import code, text, to_complete
from auditgap.exchange.export.naming import iso, latest
from auditgap.report import Audit

__all__ = ["annex_xi"]

_GENERAL = (
    ("1(a)", "tasks that the model is intended to perform, and the kinds of systems it can be integrated in."),
    ("1(b)", "acceptable use policies."),
    ("1(c)", "date of release and methods of distribution."),
)
_PROCESS = (
    ("2(a)", "technical means for integration: instructions of use, infrastructure, tools."),
    ("2(b)", "design specifications and training process, key choices and assumptions."),
    ("2(c)", "data used for training, testing and validation: provenance, curation, number of points, bias detection."),
    (
        "2(d)",
        "compute used for training (FLOP) and training time; 'auditgap compute' counts FLOP under the rules of five regimes.",
    ),
    ("2(e)", "known or estimated energy consumption."),
)


def annex_xi(audit: Audit) -> str:
    """The form in Markdown.

    Raises:
        UsageError: there is neither a decision nor evidence.
    """
    return "\n".join(_lines(audit)) + "\n"


def _lines(audit: Audit) -> Iterator[str]:
    subject = audit.subject
    yield f"# Annex XI documentation: {text(subject.name)}\n\nAs of {iso(latest(audit))}. {evaluations.NOTICE}"
    yield "Points are paraphrased: check the wording in the Official Journal."
    yield "\n## Section 1: information to be provided by all providers\n"
    yield from (f"- {point}: {to_complete(what)}" for point, what in _GENERAL)
    yield f"- 1(d): architecture {text(subject.architecture)}, {subject.n_parameters:,} parameters; {code(subject.digest())}"
    yield f"- 1(e): {to_complete('modality and format of inputs and outputs.')}"
    yield f"- 1(f): {to_complete('licence.')}"
    yield from (f"- {point}: {to_complete(what)}" for point, what in _PROCESS)
    yield "\n## Section 2: additional information for models with systemic risk\n"
    yield "### 1. Evaluation strategies, criteria, metrics and results\n"
    for i, (_, e) in enumerate(audit.evidence, 1):
        yield f"\n#### E{i} {text(e.step)}\n"
        yield from evaluations.how_run(audit, e)
    yield ""
    yield from evaluations.results(audit)
    yield "\nLimits\n"
    yield from evaluations.limits(audit)
    yield "\nNot measured\n"
    yield from evaluations.missing(audit)
    yield "\nDecision\n"
    yield from evaluations.decision(audit)
    yield "\n### 2. Adversarial testing and adaptations\n"
    yield to_complete("internal and external adversarial testing (red teaming), alignment and fine-tuning.")
    yield "\n### 3. System architecture\n"
    yield to_complete("how components build on or feed into each other, where the model is part of a system.")
