"""The report on a release as Markdown: the same parts and numbers in the same order, figures in words."""

from collections.abc import Iterator

from auditgap.errors import UsageError
from auditgap.governance.integrity import Cell, Matrix
from auditgap.records import CriterionResult
from auditgap.records.parity import Delta, Equivalence
from auditgap.report import release as view
from auditgap.report import release_summary as summary
from auditgap.report.markdown import number
from auditgap.report.markup import code, heading, table, text
from auditgap.report.numbers import short, utc
from auditgap.report.parity_figure import check_shift, describe_shift
from auditgap.report.release import CaseRow, Controls, Release, Shown
from auditgap.report.words import STATUS

__all__ = ["render_release_markdown"]


def render_release_markdown(release: Release) -> str:
    """The whole report as one Markdown document: the decision first, then what it rests on.

    Raises:
        UsageError: there is no record to report on.
    """
    summary.check_release(release)
    rows = view.cases(release)
    parts = (
        _decision(release),
        _criteria(release),
        _cases(rows),
        _controls(view.controls(release)),
        _matrix(release, rows),
        _parity(release),
        _records(release),
    )
    return "\n".join(line for part in parts for line in part) + "\n"


def _decision(release: Release) -> Iterator[str]:
    decided = release.promotion.record if release.promotion else None
    name = decided.name if decided else (release.runs[0].record.system if release.runs else "parity")
    fingerprint, shown = summary.named(release), summary.standing(release)
    yield f"# Release report: {text(name)}"
    yield ""
    yield f"Release {code(fingerprint)}." if fingerprint else "No record names a release."
    yield f"Written {utc(release.generated_at)}. Results older than {release.max_age_days} days are stale."
    yield from heading(2, f"Promotion: {shown.label}")
    yield shown.text
    yield from (f"\n**Warning.** {text(warning)}" for warning in summary.warnings(release))
    yield ""
    for what, fact in summary.facts(release):
        yield f"- {what}: {_loud(fact)}{f' ({text(fact.text)})' if fact.text else ''}"
    if decided is None:
        return
    if decided.response:
        yield from heading(3, "What follows, as written before the run")
        yield from (f"- {text(response)}" for response in decided.response)
    needed = f"{decided.signatures_needed} promotion key{'' if decided.signatures_needed == 1 else 's'}"
    yield f"\nDecided {utc(decided.decided_at)}; holds until {utc(decided.expires)} with the signatures of {needed}."
    yield f"Policy {code(decided.policy)}."


def _criteria(release: Release) -> Iterator[str]:
    yield from heading(2, "Promotion criteria")
    if release.promotion is None:
        yield "No promotion was brought, so there are no criteria to show."
        return
    columns = ("Criterion", "Claim", "Result", "If not met", "Why", "Evidence")
    yield from table(columns, map(_criterion, release.promotion.record.criteria))
    if provenance := release.promotion.record.provenance:
        yield from heading(3, "Provenance")
        for item in provenance:
            said = [*(f"**WRONG**: {text(w)}" for w in item.wrong), *(f"verified: {text(v)}" for v in item.verified)]
            said += [f"not checked: {text(o)}" for o in item.open]
            yield f"- {item.kind} {text(item.name)} {code(item.content)}: {'; '.join(said)}"


def _criterion(c: CriterionResult) -> tuple[str, ...]:
    why = text(c.reason) + (f" ({number(c.measurement)})" if c.measurement else "")
    why += "" if c.status == "met" else f" Response: {text(c.response)}"
    return text(c.id), text(c.claim) or "-", STATUS[c.status].label, c.severity, why, code(c.evidence) if c.evidence else "none"


def _cases(rows: list[CaseRow]) -> Iterator[str]:
    yield from heading(2, "Integrity cases")
    if not rows:
        yield "No integrity run was brought: whether any control holds is not known."
        return
    columns = ("Case", "Verdict", "Control", "Mode", "Without it", "n", "Bound", "Why", "Run")
    yield from table(columns, map(_case, rows))


def _case(row: CaseRow) -> tuple[str, ...]:
    r = row.result
    bound = "none" if r.upper is None else f"rate at most {short(r.upper)}" + (f" ({short(100 * r.level)} %)" if r.level else "")
    broken = f", {r.n_broken} broken" if r.n_broken else ""
    errors = "".join(f"; {text(e.id)}: {text(e.error)}" for e in r.expectations if e.error)
    why = (text(r.reason) or "no reason recorded") + errors
    named = (text(r.case), _loud(row.shown), text(r.control), r.mode, r.sabotage or "not run")
    return (*named, f"{r.n}{broken}", bound, why, row.run)


def _controls(tables: list[Controls]) -> Iterator[str]:
    yield from heading(2, "Controls, each left out in turn")
    if not tables:
        yield "No integrity run was brought."
    for each in tables:
        if not each.rows:
            yield f"{each.run}: no control was left out in turn, so nothing here shows that a missing one would be noticed."
            continue
        yield f"{each.run}, {text(each.system)}.\n"
        columns = ("Control", "Left out", "Its cases that break", "All cases that break", "Unnoticed by")
        yield from table(
            columns,
            (
                (
                    text(seen.row.control),
                    _loud(seen.shown),
                    f"{len(seen.row.guards) - len(seen.row.missed)} of {len(seen.row.guards)}",
                    str(len(seen.row.broken)),
                    text(", ".join(seen.row.missed)) or "none",
                )
                for seen in each.rows
            ),
        )
        yield from heading(3, f"{each.run}: cases by controls")
        by_case = zip(each.cases, *((shown for _, shown in seen.cases) for seen in each.rows), strict=True)
        rows = ((text(case), *map(_loud, cells)) for case, *cells in by_case)
        yield from table(("Case", *(text(seen.row.control) for seen in each.rows)), rows)


def _matrix(release: Release, rows: list[CaseRow]) -> Iterator[str]:
    yield from heading(2, "Toolchain states by safety expectations")
    if not release.runs:
        yield "No integrity run was brought, so every cell is empty."
        return
    grid = view.grid(release)
    filled = [cell for cell in grid.cells if cell.status != "empty"]
    yield f"{len(filled)} of {len(grid.cells)} cells are filled. An empty cell was not tried: nothing is known there."
    yield from (f"\nMode {mode}: nothing was run, so all of its cells are empty." for mode in view.not_run(release))
    for mode in grid.modes:
        yield from heading(3, mode)
        lines = (
            (text(state), *(_short(grid.cell(state, expectation, mode), rows) for expectation in grid.expectations))
            for state in grid.states
        )
        yield from table(("State", *map(text, grid.expectations)), lines)
    yield from heading(3, "Filled cells")
    yield from _filled(grid, rows)


def _short(cell: Cell, rows: list[CaseRow]) -> str:
    shown = view.cell_standing(cell, rows)
    return "empty" if cell.status == "empty" else f"{_loud(shown)} n = {cell.n}"


def _filled(grid: Matrix, rows: list[CaseRow]) -> Iterator[str]:
    columns = ("State", "Expectation", "Mode", "Result", "n", "Failed", "Bound", "Cases", "Evidence", "Oldest")
    yield from table(columns, (_cell(cell, rows) for cell in grid.cells if cell.status != "empty"))


def _cell(cell: Cell, rows: list[CaseRow]) -> tuple[str, ...]:
    bound = "none" if cell.upper is None else f"rate at most {short(cell.upper)} (95 %)"
    oldest = f"{utc(cell.oldest)} ({'fresh' if cell.fresh else 'stale'})" if cell.oldest else "none"
    counts = (_loud(view.cell_standing(cell, rows)), str(cell.n), str(cell.n_failed), bound)
    evidence = ", ".join(map(code, cell.evidence))
    return (text(cell.state), text(cell.expectation), cell.mode, *counts, text(", ".join(cell.cases)), evidence, oldest)


def _parity(release: Release) -> Iterator[str]:
    yield from heading(2, "Parity with the evaluated release")
    if release.parity is None:
        yield "No parity record was brought: whether what ships is what was evaluated is not known."
        return
    record = release.parity.record
    yield f"Evaluated {code(record.before)}, to ship {code(record.after)}, judged as of {record.judged_on}."
    yield f"{record.n_identical} components identical, {len(record.deltas)} differ.\n"
    if record.deltas:
        columns = ("Component", "Class", "Covered", "What differs", "By what")
        yield from table(columns, (_delta(delta, release) for delta in record.deltas))
    yield from heading(3, "Behaviours, before and after")
    if not record.shifts():
        yield "No behaviour was tested for equivalence: no rate of before and after is known here."
    yield from (f"- {_shift(test)}" for test in record.shifts())


def _delta(delta: Delta, release: Release) -> tuple[str, ...]:
    differs = "; ".join(f"{code(f.rule)} {f'at {code(f.path)}' if f.path else ''}: {text(f.says)}" for f in delta.findings)
    by = delta.coverage
    match by.status:
        case "waived":
            said = f"{text(by.approver)} accepts it until {by.expires}: {text(by.reason)}"
        case "uncovered":
            said = text(by.why)
        case "re-evaluated":
            said = f"measured again: {', '.join(map(code, by.evidence))}"
        case "equivalence":
            said = f"equivalence of {text(by.behaviour)}"
        case "not-needed":
            said = "not needed"
    return text(f"{delta.kind} {delta.id}"), delta.delta_class, _loud(view.delta_standing(delta, release)), differs, said


def _shift(test: Equivalence) -> str:
    try:
        check_shift(test)
    except UsageError as error:
        return f"This figure cannot be drawn: {text(str(error))}"
    return f"{text(describe_shift(test))} {' '.join(map(code, test.evidence))}".rstrip()


def _records(release: Release) -> Iterator[str]:
    yield from heading(2, "Records")
    columns = ("Label", "Kind", "Record", "Signed by")
    yield from table(
        columns,
        (
            (label, kind, code(given.record.digest()), ", ".join(map(code, given.keyids)) or "no verified signature")
            for label, kind, given in summary.records(release)
        ),
    )
    yield ""
    for label, ran in view.evidence_labels(release).items():
        about = code(ran.manifest) if ran.manifest else "none that it names"
        registered = f"suite {code(ran.suite)}, registered {utc(ran.registered_at)}"
        yield f"- {label}: stack {text(ran.system)}, release {about}, {registered}."
    yield from heading(3, "What this report does not show")
    yield from (f"- {text(said)}" for said in (release.promotion.record.non_claims if release.promotion else ()))
    yield "- States and expectations whose cells are empty: what was not tried was not shown to hold."
    yield "- Controls and tools of any other stack than the one that the run names."
    yield "\nA documentation aid, not legal advice."


def _loud(shown: Shown) -> str:
    """A standing in words, in bold where it is bad news."""
    return f"**{text(shown.label)}**" if shown.standing == "failed" else text(shown.label)
