"""The report as Markdown: the same order and the same numbers, without figures.

Every string of the audit is escaped, so that model output can neither become markup nor break a table.
"""

from collections.abc import Iterable, Iterator

from auditgap.records import Assessment, CriterionResult, Evidence, Measurement, Threshold
from auditgap.report import charts, outline
from auditgap.report.audit import Audit
from auditgap.report.coverage import Look, Ran, coverage_table
from auditgap.report.figures import describe
from auditgap.report.markup import code, fenced, heading, table, text
from auditgap.report.numbers import duration, full, short, utc
from auditgap.report.words import AXIS, COMPARATOR, NO_DECISION, OUTCOME, STATUS, SUPPORT, TIER, VERDICT, fragility, level

__all__ = ["number", "render_markdown"]


def render_markdown(audit: Audit) -> str:
    """The whole report as one Markdown document: the decision first, then what it rests on, then how to check it."""
    parts = (
        _decision(audit),
        _criteria(audit),
        _claims(audit),
        _coverage(audit),
        _requirements(audit),
        _evidence(audit),
        _check(audit),
    )
    return "\n".join(line for part in parts for line in part) + "\n"


def _decision(audit: Audit) -> Iterator[str]:
    subject, decision = audit.subject, audit.decision
    said = OUTCOME[decision.outcome] if decision else NO_DECISION
    yield f"# Audit report: {text(subject.name)}"
    yield ""
    yield f"{text(subject.architecture)}, {subject.n_parameters:,} parameters, {text(subject.dtype)}."
    yield f"Subject {code(subject.digest())}."
    n = len(audit.evidence)
    yield f"Written {utc(audit.generated_at)} from {n} piece{'' if n == 1 else 's'} of signed evidence."
    yield from heading(2, f"Decision: {said.label}")
    yield said.meaning
    yield from (f"\n**Warning.** {warning}" for warning in outline.warnings_about_decision(audit))
    if decision is None:
        return
    yield from heading(3, "Why")
    for why in outline.reasons(audit):
        yield f"- {f'**{text(why.criterion)}**: ' if why.criterion else ''}{text('; '.join(why.points))}"
    yield from heading(3, "Disclosed gaps")
    yield from _list(decision.disclosed, "None disclosed.")
    if promised := outline.responses(audit):
        yield from heading(3, "What follows, as written before the run")
        for response, criteria in promised:
            yield f"- {text(response)} ({', '.join(f'{text(c.id)}: {STATUS[c.status].label}' for c in criteria)})"
    yield ""
    yield f"Decided {utc(decision.decided_at)}. Policy {code(decision.policy)}."
    yield f"Decision statement {code(audit.decision_digest or 'none')}."


def _criteria(audit: Audit) -> Iterator[str]:
    yield from heading(2, "Criteria")
    if audit.decision is None:
        yield "No policy has been applied, so there are no criteria to show."
        return
    yield "A criterion is met only if the stated end of the interval clears the bar, not if the value alone does."
    yield "Missing evidence never passes.\n"
    columns = ("Result", "If not met", "Criterion", "Claim", "Bar", "Compared", "Value and interval", "Evidence", "Reason")
    yield from table(columns, (_criterion(audit, c) for c in outline.bars(audit)))
    if checks := outline.checks(audit):
        yield from heading(3, "Claims that gate the decision")
        found = ((STATUS[c.status].label, c.severity, text(c.id), text(c.reason), text(c.response)) for c in checks)
        yield from table(("Result", "If not met", "Check", "Found", "Response"), found)


def _criterion(audit: Audit, c: CriterionResult) -> tuple[str, ...]:
    bars = outline.thresholds_of(audit, c)
    ends = [outline.compared(bar, c) for bar in bars]
    return (
        STATUS[c.status].label,
        c.severity,
        text(c.id),
        text(c.claim),
        "; ".join(map(_bar, bars)) or "none registered; see the reason",
        "; ".join(short(end) for end in ends if end is not None) or "nothing to compare",
        number(c.measurement) if c.measurement else f"no evidence: {text(c.reason)}",
        outline.label_of(audit, c.evidence) or ("not in this report" if c.evidence else "none"),
        text(c.reason),
    )


def _claims(audit: Audit) -> Iterator[str]:
    yield from heading(2, "Claims")
    rows = outline.claim_rows(audit)
    if not rows:
        yield "No claim was assessed on its own."
    for row in rows:
        yield from heading(3, text(row.claim.statement if row.claim else row.id))
        kind = f"{row.claim.modality}, {row.claim.realm}; scope: {text(row.claim.scope)}" if row.claim else "not in the catalogue"
        yield f"{code(row.id)} ({kind})\n"
        if row.assessment is None:
            yield "Not assessed: a criterion of the policy names this claim, and no assessment of it was stored."
        else:
            yield from _assessment(audit, row.assessment, row.digest)


def _assessment(audit: Audit, a: Assessment, digest: str | None) -> Iterator[str]:
    evidence = ", ".join(outline.label_of(audit, known) or "not in this report" for known in a.evidence) or "none"
    yield f"**{SUPPORT[a.support].label}**, tier {a.tier} of 5 ({TIER[a.tier].label}), evidence: {evidence}."
    yield f"{SUPPORT[a.support].meaning}\n"
    yield f"Power: {text(a.power)}\n"
    bars = charts.gap_bars(a)
    columns = ("Axis", "Needs", "Had", "Execution gap (the team can close it)", "Structural gap (nobody can close it today)")
    rows = (
        (b.axis, b.required_words, b.achieved_words, f"{b.n_execution} {b.unit}s", f"{b.n_structural} {b.unit}s") for b in bars
    )
    yield from table(columns, rows) if bars else ("No particular access is required.",)
    yield ""
    yield from (f"- Fragile ({code(reason.code)}): {fragility(reason.code)} Found: {text(reason.detail)}" for reason in a.fragile)
    yield f"\nAssessment statement {code(digest or 'none')}"


def _coverage(audit: Audit) -> Iterator[str]:
    yield from heading(2, "Coverage")
    matrix = coverage_table(audit)
    if not matrix.rows:
        yield "No claim of this audit names a failure mode, so nothing can be said of what it would have caught."
    else:
        yield "Power is the share of models with the planted flaw that the instrument flags, measured on models made for that."
        yield "*Not measured*: how it looks is in brackets, how often it finds is unknown. *Cannot reach*: nothing would show."
        yield ""
        columns = ("Failure mode", *(_ran(column) for column in matrix.ran), "What may be said")
        said = (
            "; ".join(f"{text(s.sight.sentence)} ({', '.join(map(code, s.claims))})" for s in row.said) for row in matrix.rows
        )
        cells = ((code(row.id), *map(_look, row.looks), words) for row, words in zip(matrix.rows, said, strict=True))
        yield from table(columns, cells)
    record = audit.calibration
    if record is None:
        yield "\nNo calibration was given: no power has been measured."
    else:
        yield f"\nPower from the calibration made {utc(record.made_at)}, record {code(record.digest())}."


def _ran(column: Ran) -> str:
    return f"{text(column.instrument)} {text(column.version)}{'' if column.counts else ' (its evidence does not count)'}"


def _look(look: Look) -> str:
    best = look.power
    if best is None:
        return f"*{look.standing.replace('-', ' ')}* ({text(look.reason)})"
    alarms = f"false alarms on twins {number(best.false_alarms_twin)}, on decoys {number(best.false_alarms_decoy)}"
    standing = "licensed" if look.standing == "licensed" else "not licensed"
    return f"**{standing}**: {number(best.power)}; {text(look.reason)}; {code(best.measurement)}; {alarms}"


def _requirements(audit: Audit) -> Iterator[str]:
    yield from heading(2, "Requirements")
    frameworks = outline.framework_rows(audit)
    if not frameworks:
        yield "No requirement of any framework was assessed."
    for framework in frameworks:
        yield from heading(3, f"{text(framework.name)} {text(framework.edition)}".rstrip())
        hooked = [row for row in framework.rows if row.assessment.support != "no-hook"]
        for row in hooked:
            title = f"{row.requirement.text_ref}: {row.requirement.title}" if row.requirement else row.id
            yield from heading(4, text(title))
            if row.requirement:
                yield f"{code(row.id)}; source {row.requirement.verified}; {row.requirement.status}.\n"
            yield from _assessment(audit, row.assessment, row.digest)
        if len(hooked) < len(framework.rows):
            yield from heading(4, "No hook")
            yield f"{SUPPORT['no-hook'].meaning}\n"
        for row in (row for row in framework.rows if row.assessment.support == "no-hook"):
            title = f"{row.requirement.text_ref}: {row.requirement.title}" if row.requirement else row.id
            yield f"- {text(title)}; assessment statement {code(row.digest)}"


def _evidence(audit: Audit) -> Iterator[str]:
    yield from heading(2, "Evidence")
    if not audit.evidence:
        yield "The store held no evidence on this subject."
    for i, (digest, evidence) in enumerate(audit.evidence, 1):
        yield from heading(3, f"E{i} {text(evidence.instrument)} ({text(evidence.step)})")
        yield from (f"**Warning.** {warning}\n" for warning in outline.warnings_about(audit, evidence))
        yield f"{text(evidence.result.summary)}\n"
        yield f"Verdict: **{VERDICT[evidence.result.verdict].label}**. {VERDICT[evidence.result.verdict].meaning}"
        yield from _results(evidence)
        yield from _provenance(audit, digest, evidence)


def _results(evidence: Evidence) -> Iterator[str]:
    result = evidence.result
    yield from heading(4, "Measurements")
    rows = (*result.measurements, *((result.flip_rate,) if result.flip_rate else ()))
    yield from table(("Quantity", "Value and interval"), ((code(m.name), number(m)) for m in rows))
    yield from heading(4, "Controls")
    outcomes = ((code(c.name), _outcome(c.passed, c.fatal), text(c.expected), number(c.observed)) for c in result.controls)
    yield from table(("Control", "Outcome", "Expected", "Observed"), outcomes)
    if result.figures:
        yield from heading(4, "Figures, in words")
        yield from (f"- {text(describe(figure))}" for figure in result.figures)
    if result.samples:
        yield from heading(4, "Samples")
        yield "Drawn at random by the run's seed. Model output is shown as it came and is never instructions."
    for sample in result.samples:
        yield f"\nGiven\n\n{fenced(sample.prompt)}\n\nWritten\n\n{fenced(sample.output)}"
        yield from (f"\n{text(note)}" for note in [sample.note] if note)


def _provenance(audit: Audit, digest: str, evidence: Evidence) -> Iterator[str]:
    registration, environment = outline.registration_of(audit, evidence), evidence.environment
    yield from heading(4, "What this evidence does not show")
    yield from _list(evidence.non_claims, "The instrument declared no blind spot.")
    yield from heading(4, "Where it comes from")
    if registration:
        lead = evidence.started_at - registration.registered_at
        order = "before" if lead.total_seconds() >= 0 else "after"
        yield f"- Hypothesis: {text(registration.card.hypothesis)}"
        yield f"- Registered {utc(registration.registered_at)}, {duration(lead)} {order} the start; seed {registration.seed}"
        yield f"- Settings: {', '.join(code(f'{key} = {value!r}') for key, value in registration.config.items()) or 'defaults'}"
        yield from (
            f"- Registered bar: {code(t.measurement)} {_bar(t)}; if not met: {text(t.response)}" for t in registration.thresholds
        )
        yield f"- Method: {registration.card.family}; source {text(registration.card.citation)}"
        yield from (
            f"- Data: {text(d.name)}, {d.n_rows:,} rows, from {text(d.source)}, {code(d.content)}" for d in registration.data
        )
    yield f"- Ran {utc(evidence.started_at)} to {utc(evidence.finished_at)}; valid until {evidence.expires}"
    yield f"- Access had: {'; '.join(f'{AXIS[axis]}: {level(axis, evidence.granted)}' for axis in AXIS)}"
    packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
    machine = f"Python {environment.python} on {environment.platform}; {environment.device}; {environment.dtype}"
    yield f"- Environment: {text(machine)}; {text(packages)}"
    yield f"- Evidence statement {code(digest)}"
    yield f"- Registration {code(evidence.registration)}"
    yield f"- Specification {code(evidence.spec)}"
    yield f"- Subject {code(evidence.subject.digest())}"


def _check(audit: Audit) -> Iterator[str]:
    yield from heading(2, "How to check this")
    yield "This file is a rendering; the signed statements are the evidence. With the store or the bundle, run:\n"
    yield "    auditgap evidence verify BUNDLE\n    auditgap evidence verify --store STORE\n"
    yield f"The ledger root printed there must be {code(audit.root)}, over {audit.n_statements:,} statements,"
    yield "as long as nothing was added after this report."
    yield from heading(3, "What this report does not show")
    yield "- Behaviour of any other subject, or of this one with other prompts, tools, middleware or engine than those measured."
    yield "- Failure modes that no instrument here reaches: what was not looked for was not found."
    yield from (f"- {text(name)}: {' '.join(text(spot) for spot in spots)}" for name, spots in outline.non_claims(audit).items())
    if missing := outline.not_measured(audit):
        yield from heading(3, "Not measured")
        yield from (f"- {m.evidence} {code(m.name)}: {text(m.reason)}" for m in missing)
    yield "\nA documentation aid, not legal advice. Meeting a criterion here is not conformity with any law or standard."


def number(m: Measurement) -> str:
    if m.status == "not_measured":
        return f"not measured: {text(m.reason)}"
    value = f"{short(m.value)} {text(m.unit)}"
    if m.interval.method == "exact":
        return f"{value} (computed: {full(m.value)}), n = {m.n:,}"
    interval = (
        f"{short(m.interval.low)} to {short(m.interval.high)}; {short(100 * m.interval.level)} %, {text(m.interval.method)}"
    )
    return f"{value} ({interval}), n = {m.n:,}"


def _bar(threshold: Threshold) -> str:
    end = "lower" if threshold.bound == "low" else "upper"
    return f"{COMPARATOR[threshold.comparator]} {short(threshold.value)} on the {end} end"


def _outcome(passed: bool, fatal: bool) -> str:
    return "passed" if passed else "failed" if fatal else "failed, bounds what may be said"


def _list(items: Iterable[str], none: str) -> list[str]:
    return [f"- {text(item)}" for item in items] or [none]
