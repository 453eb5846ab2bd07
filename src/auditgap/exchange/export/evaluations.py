"""Evaluations as the Markdown forms show them: how each was run, what came out, samples, and what it does not show."""

from collections.abc import Iterator

from auditgap.exchange.export.standing import relied_on
from auditgap.records import Evidence
from auditgap.report import Audit, outline
from auditgap.report.markdown import number
from auditgap.report.markup import code, fenced, table, text
from auditgap.report.numbers import short
from auditgap.report.words import AXIS, COMPARATOR, NO_DECISION, OUTCOME, VERDICT, level

__all__ = [
    "N_SAMPLES",
    "NOTICE",
    "code",
    "decision",
    "how_run",
    "limits",
    "missing",
    "results",
    "samples",
    "text",
    "to_complete",
]

N_SAMPLES = 5
"""Random input and output samples per evaluation that the Model Report asks for at least (Measure 7.3(1)(e)-(g))."""
NOTICE = "Rendered from signed statements, which are the evidence. A documentation aid, not legal advice."


def to_complete(what: str) -> str:
    """A blank that no measurement can fill."""
    return f"**To be completed by the provider:** {what}"


def decision(audit: Audit) -> Iterator[str]:
    """The decision, what stands against it and what it passes with."""
    made = audit.decision
    said = OUTCOME[made.outcome] if made else NO_DECISION
    yield f"**{said.label}.** {said.meaning}"
    if made is None:
        return
    yield from (f"- {text(reason)}" for reason in made.reasons)
    yield from (f"- Disclosed: {text(gap)}" for gap in made.disclosed)
    yield f"\nDecision {code(audit.decision_digest or 'none')}, policy {code(made.policy)}."


def results(audit: Audit) -> Iterator[str]:
    """Every number with its interval; a quantity without one says why, and numbers that may not be relied on say so."""
    rows = []
    for i, (_, e) in enumerate(audit.evidence, 1):
        warning = "" if relied_on(audit, e) else " **Not to be relied on: a control failed, or it is about another subject.**"
        rows += [(f"E{i} {text(e.step)}", code(m.name), number(m) + warning) for m in e.result.measurements]
    yield from table(("Evaluation", "Quantity", "Value and interval"), rows) if rows else ("No evaluation was run.",)


def how_run(audit: Audit, e: Evidence) -> Iterator[str]:
    """Instrument, data, settings, registered bars and access of one evaluation."""
    registration = outline.registration_of(audit, e)
    yield f"- Method: {code(f'{e.instrument} {e.version}')}"
    if registration:
        yield f"- Hypothesis: {text(registration.card.hypothesis)}"
        yield from (
            f"- Data: {text(d.name)}, {d.n_rows} rows, {code(d.content)}, from {text(d.source)}" for d in registration.data
        )
        yield f"- Settings: {', '.join(code(f'{key} = {value!r}') for key, value in registration.config.items()) or 'defaults'}"
        yield from (
            f"- Bar registered before the run: {code(bar.measurement)} {COMPARATOR[bar.comparator]} {short(bar.value)} "
            f"on the {bar.bound} end of the interval"
            for bar in registration.thresholds
        )
    yield f"- Verdict: {VERDICT[e.result.verdict].label}. {VERDICT[e.result.verdict].meaning}"
    yield f"- Access of the evaluator: {'; '.join(f'{AXIS[axis]}: {level(axis, e.granted)}' for axis in AXIS)}"
    if e.imported:
        yield "- Imported from another tool's log; nothing was registered before its results existed."


def samples(e: Evidence) -> Iterator[str]:
    """Inputs and outputs drawn by the run's seed, and how many are missing to the number asked."""
    short_of = N_SAMPLES - len(e.result.samples)
    if short_of > 0:
        yield f"{len(e.result.samples)} stored; at least {N_SAMPLES} are asked for. {to_complete(f'{short_of} more samples.')}"
    for sample in e.result.samples:
        yield f"\nInput\n\n{fenced(sample.prompt)}\n\nOutput\n\n{fenced(sample.output)}"
        yield from (f"\n{text(note)}" for note in [sample.note] if note)


def limits(audit: Audit) -> Iterator[str]:
    """What the instruments cannot see, and what each assessed claim falls short of."""
    for instrument, spots in outline.non_claims(audit).items():
        yield from (f"- {text(instrument)}: {text(spot)}" for spot in spots)
    for row in outline.claim_rows(audit):
        if row.assessment is None:
            yield f"- {code(row.id)}: not assessed."
            continue
        gaps = [f"{AXIS[g.axis]} ({g.execution} open, {g.structural} out of reach)" for g in row.assessment.gaps]
        found = f"gaps: {', '.join(gaps) or 'none'}; fragile: {', '.join(r.code for r in row.assessment.fragile) or 'no'}"
        yield f"- {code(row.id)}: {row.assessment.support}; {found}. {text(row.assessment.power)}"


def missing(audit: Audit) -> Iterator[str]:
    """What was to be measured and was not."""
    found = [f"- {m.evidence} {code(m.name)}: {text(m.reason)}" for m in outline.not_measured(audit)]
    yield from found or ["Every quantity of every evaluation was measured."]
