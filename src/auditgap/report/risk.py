"""A risk report as Markdown: what people wrote and what the store holds, point by point; what is missing is said.

Every string is escaped: neither a note nor model output can become markup or break a table.
"""

from collections.abc import Iterator, Mapping, Sequence

from auditgap.governance import Judged, problems
from auditgap.governance.safety_case.risk import Mitigation, Risk, RiskReport, Section, sections
from auditgap.records import Assessment, Date, Digest
from auditgap.report.markup import code, fenced, heading, table, text
from auditgap.report.words import AXIS, SUPPORT, level

__all__ = ["MISSING", "render_risks"]

MISSING = "**Missing:**"
"""Begins every line that stands where something should be."""
_LEAST_SAMPLES = 5


def render_risks(
    report: RiskReport,
    assessments: Mapping[str, Assessment],
    held: Sequence[Judged],
    *,
    subject: Digest | None,
    on: Date,
) -> str:
    """The report on one day; `assessments` has the report's claims, or is empty where there is no store."""
    about = sorted((j for j in held if j.evidence.subject.digest() == subject), key=lambda j: (j.evidence.step, j.digest))
    body = [line for section in sections().values() for line in _section(section, report, assessments, about, on)]
    n_missing = sum(line.count(MISSING) for line in body)
    head = [
        f"# Risk report: {text(report.name)}",
        "",
        f"Prepared by {text(report.prepared_by)}, as of {on}; to be reviewed by {report.review_by}"
        + (" (that day has passed)." if report.review_by < on else "."),
        f"Subject {code(subject)}." if subject else f"{MISSING} no store was given, so nothing below is measured.",
        f"{n_missing} points or parts of points are missing and say so below.",
        *heading(2, "The risks in one table"),
        *table(("Risk", "Capability", "Threat model", "Mitigations", "Residual risk"), (_chain(r, on) for r in report.risks)),
    ]
    foot = "\nOrder after Measure 7.3 of the EU GPAI Code of Practice (10 July 2025). A documentation aid, not legal advice."
    return "\n".join([*head, *body, foot]) + "\n"


def _chain(risk: Risk, on: Date) -> tuple[str, ...]:
    mitigations = "; ".join(text(m.what) for m in risk.mitigations) or f"{MISSING} none named"
    return (
        text(risk.title),
        _said(risk.capability, "capability"),
        _said(risk.threat_model, "threat model"),
        mitigations,
        _residual(risk, on),
    )


def _said(words: str | None, what: str) -> str:
    return text(words) if words else f"{MISSING} no {what} was written"


def _residual(risk: Risk, on: Date) -> str:
    if risk.residual is None:
        return f"{MISSING} no residual risk was written"
    left = text(risk.residual.what)
    if risk.residual.accepted_by is None:
        return f"{left} ({MISSING} nobody has accepted it)"
    until = f"accepted by {text(risk.residual.accepted_by)} until {risk.residual.until}"
    lapsed = risk.residual.until is not None and risk.residual.until < on
    return f"{left} ({until}{f'; {MISSING} that has lapsed' if lapsed else ''})"


def _section(
    section: Section, report: RiskReport, assessments: Mapping[str, Assessment], about: Sequence[Judged], on: Date
) -> Iterator[str]:
    yield from heading(2, f"{text(section.pin)} {text(section.asks)}")
    if section.per_risk:
        for risk in report.risks:
            yield from heading(3, text(risk.title))
            yield from _of_risk(section.id, risk, assessments, on)
        return
    written = report.sections.get(section.id, "").strip()
    if written or not section.from_store:
        yield text(written) if written else f"{MISSING} nothing was written for this point."
    if section.from_store:
        yield from ("", *_of_store(section.id, about))


def _of_risk(section: str, risk: Risk, assessments: Mapping[str, Assessment], on: Date) -> Iterator[str]:
    match section:
        case "modelling":
            yield f"- Type: {_said(risk.type, 'type of risk')}"
            yield f"- Capability: {_said(risk.capability, 'capability')}"
            yield from _claims(risk.claims, assessments, "capability")
            yield f"- Threat model: {_said(risk.threat_model, 'threat model')}"
        case "estimates":
            yield f"- Fully elicited: {_said(risk.fully_elicited, 'estimate of the fully elicited model')}"
            yield f"- With mitigations: {_said(risk.with_mitigations, 'estimate with the mitigations')}"
            yield f"- Justification: {_said(risk.justification, 'justification')}"
            yield f"- Residual risk: {_residual(risk, on)}"
        case _:
            yield from (line for m in risk.mitigations for line in _mitigation(m, assessments))
            yield from () if risk.mitigations else (f"{MISSING} no mitigation is named.",)


def _mitigation(mitigation: Mitigation, assessments: Mapping[str, Assessment]) -> Iterator[str]:
    yield f"- **{text(mitigation.id)}**: {text(mitigation.what)}"
    yield f"  - Fulfils: {_said(mitigation.fulfils, 'reason why it fulfils what is asked')}"
    yield f"  - Limits: {_said(mitigation.limits, 'limit')}"
    yield from (f"  {line}" for line in _claims(mitigation.claims, assessments, "mitigation"))


def _claims(named: Sequence[str], assessments: Mapping[str, Assessment], what: str) -> Iterator[str]:
    """What the store says on each claim, in words."""
    if not named:
        yield f"- Measured: {MISSING} no claim about this {what} is named, so nothing is measured."
    for name in named:
        found = assessments.get(name)
        if found is None:
            yield f"- Measured: {code(name)}: {MISSING} there is no store."
            continue
        gaps = [
            f"{AXIS[g.axis]} short by {g.structural + g.execution} ({g.structural} structural)"
            for g in found.gaps
            if g.structural + g.execution
        ]
        fragile = ", ".join(dict.fromkeys(code(r.code) for r in found.fragile))
        said = f"{SUPPORT[found.support].label}, tier {found.tier}"
        absent = f"{MISSING} no evidence. " if not found.evidence else ""
        yield (
            f"- Measured: {code(name)}: {absent}{said}. Power: {text(found.power)}. "
            f"Gap: {', '.join(gaps) or 'none'}. Fragile: {fragile or 'no'}."
        )


def _of_store(section: str, about: Sequence[Judged]) -> Iterator[str]:
    if not about:
        yield f"{MISSING} the store holds no evidence about this subject."
        return
    match section:
        case "evaluations":
            columns = ("Evaluation", "Instrument", "Data", "Settings", "Verdict", "Result", "Statement")
            yield from table(columns, (_evaluation(j) for j in about))
        case "samples":
            for j in about:
                yield from _samples(j)
        case _:
            columns = ("Evaluation", *(AXIS[axis] for axis in AXIS))
            rows = ((text(j.evidence.step), *(level(axis, j.evidence.granted) for axis in AXIS)) for j in about)
            yield from table(columns, rows)


def _evaluation(judged: Judged) -> tuple[str, ...]:
    evidence, registration = judged.evidence, judged.registration
    settings = ", ".join(code(f"{key} = {value!r}") for key, value in registration.config.items())
    invalid = "; ".join(text(why) for why in problems(judged))
    return (
        text(evidence.step),
        f"{text(evidence.instrument)} {text(evidence.version)}",
        "; ".join(f"{text(d.name)}, {d.n_rows:,} rows" for d in registration.data) or f"{MISSING} no data pinned",
        settings or "defaults",
        f"{evidence.result.verdict}{f' (does not count: {invalid})' if invalid else ''}",
        text(evidence.result.summary),
        code(judged.digest),
    )


def _samples(judged: Judged) -> Iterator[str]:
    samples = judged.evidence.result.samples
    yield from heading(3, text(judged.evidence.step))
    if len(samples) < _LEAST_SAMPLES:
        yield f"{MISSING} {len(samples)} of at least {_LEAST_SAMPLES} samples were kept."
    for sample in samples:
        yield f"\nGiven\n\n{fenced(sample.prompt)}\n\nWritten\n\n{fenced(sample.output)}"
