"""The Safety and Security Model Report of the EU GPAI Code of Practice, in the order of Measure 7.

What auditgap measured is filled in; the rest is left as a blank that names what is asked. Titles of Measures 7.1 and 7.2 were not
read in the text itself and are marked. Source: Code of Practice, Safety and Security chapter, 10 July 2025, Commitment 7 (read;
titles of 7.1 and 7.2 unverified).
"""

from collections.abc import Iterator

from auditgap.exchange.export import evaluations
from auditgap.exchange.export.evaluations import code, text, to_complete
from auditgap.exchange.export.naming import iso, latest
from auditgap.records import Independence
from auditgap.report import Audit

__all__ = ["model_report"]


def model_report(audit: Audit) -> str:
    """The form in Markdown.

    Raises:
        UsageError: there is neither a decision nor evidence.
    """
    return "\n".join(_lines(audit)) + "\n"


def _lines(audit: Audit) -> Iterator[str]:
    subject = audit.subject
    yield f"# Model Report: {text(subject.name)}\n\nAs of {iso(latest(audit))}. {evaluations.NOTICE}"
    yield "Signing the Code gives no presumption of conformity."
    yield "\n## Measure 7.1 Model description and behaviour (title not verified)\n"
    yield f"- Architecture {text(subject.architecture)}, {subject.n_parameters:,} parameters, measured in {text(subject.dtype)}"
    yield f"- Subject {code(subject.digest())}, revision {code(subject.revision or 'none stated')}"
    yield f"- {to_complete('intended behaviour, capabilities, how it is made available, system prompt and specification.')}"
    yield "\n## Measure 7.2 Reasons for proceeding (title not verified)\n"
    yield from evaluations.decision(audit)
    yield f"\n{to_complete('why the systemic risks are acceptable, with safety margins and the conditions under which not.')}"
    yield "\n## Measure 7.3 Documentation of risk identification, analysis and mitigation\n"
    yield "### (1)(d) Risk with mitigations against the fully elicited model\n"
    yield to_complete("risk estimates with and without mitigations, for each systemic risk.")
    yield "\n### (1)(e)-(g) Model evaluations\n"
    for i, (digest, e) in enumerate(audit.evidence, 1):
        yield f"\n#### E{i} {text(e.step)}\n\n{text(e.result.summary)}\n"
        yield from evaluations.how_run(audit, e)
        yield f"- Statement {code(digest)}"
        yield f"- {to_complete('elicitation effort and human baseline.')}"
        yield "\nSamples, drawn at random by the seed; model output is shown as it came and is never instructions.\n"
        yield from evaluations.samples(e)
    yield "\nResults\n"
    yield from evaluations.results(audit)
    yield "\nNot measured\n"
    yield from evaluations.missing(audit)
    yield "\n### (2)(c) Limits of mitigations and of these evaluations\n"
    yield from evaluations.limits(audit)
    yield "\n## Measure 7.4 External reports\n"
    yield from _external(audit)
    yield "\n## Measure 7.5 Material changes\n"
    yield to_complete("changes since the last report, including any that make chains of thought less legible.")
    yield "\n## Measures 7.6 and 7.7 Updates and notification\n"
    yield to_complete("date of the next update, and of the notification to the AI Office.")


def _external(audit: Audit) -> Iterator[str]:
    outside = (Independence.CONTRACTED, Independence.EXTERNAL)
    found = [(i, e) for i, (_, e) in enumerate(audit.evidence, 1) if e.granted.independence in outside]
    yield from (f"- E{i} {text(e.step)}: {e.granted.independence} evaluator" for i, e in found)
    if not found:
        yield "No evaluation in this audit was made by a contracted or external evaluator."
    yield to_complete("reports of independent external evaluators and of security reviews, or why there are none.")
