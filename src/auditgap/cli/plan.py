"""`auditgap plan`: what is due around a subject, and whether the work under way aims at the gaps that are open."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import click

from auditgap.cli.options import as_json, json_flag, store, table

if TYPE_CHECKING:
    from auditgap.governance.review import Measured
    from auditgap.governance.review_records import ReviewPlan
    from auditgap.records import Date

__all__ = ["command"]

_file = click.argument("file", type=click.Path(dir_okay=False))
_subject = click.option("--subject", help="Subject digest or prefix, where neither the plan nor the store settles it.")
_on = click.option("--on", type=click.DateTime(["%Y-%m-%d"]), help="Look as of this day [default: today].")


@click.group("plan")
def command() -> None:
    """Decisions under uncertainty: what was promised beforehand, and whose turn it is."""


@command.command("review")
@_file
@store
@_subject
@_on
@json_flag
def review(file: str, store: str, subject: str | None, on: dt.datetime | None, as_json_: bool) -> None:
    """Milestones, escalations, reassessments and waivers on a day: exit 1 if one is overdue or expired, else 0."""
    from auditgap.governance.review import overdue
    from auditgap.governance.review import review as reviewed
    from auditgap.governance.safety_case import load_case
    from auditgap.policy import load_policy

    plan, measured, today = _looked_up(file, store, subject, on)
    waivers = load_policy(Path(file).parent / plan.policy).accept if plan.policy else ()
    case = load_case(Path(file).parent / plan.case) if plan.case else None
    items = reviewed(plan, measured, waivers, case, on=today)
    if as_json_:
        as_json({"on": str(today), "items": items})
    else:
        rows = [(i.state, str(i.day), i.id, i.what, i.owner, i.response) for i in items]
        table(f"{plan.name} on {today}", ("state", "day", "item", "what", "owner", "response"), rows)
    raise click.exceptions.Exit(1 if overdue(items) else 0)


@command.command("portfolio")
@_file
@store
@_subject
@_on
@json_flag
def portfolio(file: str, store: str, subject: str | None, on: dt.datetime | None, as_json_: bool) -> None:
    """Lines of evidence by kind, maturity and failure mode; effort beside the steps of gap that each aims at."""
    from auditgap.governance.portfolio import portfolio as viewed

    plan, measured, today = _looked_up(file, store, subject, on)
    found = viewed(plan.portfolio, {claim: m.assessment for claim, m in measured.items()})
    if as_json_:
        as_json(found)
        return
    columns = ("line", "kind", "maturity", "person-days", "execution steps", "structural steps", "owner", "note")
    rows = [
        (v.id, v.kind, v.maturity, f"{v.effort_person_days:g}", str(v.execution_steps), str(v.structural_steps), v.owner, v.note)
        for v in found.lines
    ]
    table(f"{plan.name} on {today}", columns, rows)
    kinds = ("near-term-measurement", "theory", "translation")
    cells = [(mode, *(", ".join(by.get(kind, ())) or "none" for kind in kinds)) for mode, by in found.failure_modes.items()]
    table("lines per failure mode", ("failure mode", *kinds), cells)
    click.echo(f"open gaps that no line aims at: {', '.join(found.unaddressed) or 'none'}")


def _looked_up(
    file: str, store: str, subject: str | None, on: dt.datetime | None
) -> "tuple[ReviewPlan, dict[str, Measured], Date]":
    from auditgap.evidence import Store
    from auditgap.governance import claims, licences_for
    from auditgap.governance.review import look_up
    from auditgap.governance.review_records import load_review
    from auditgap.governance.safety_case import holdings
    from auditgap.incidents import dossiers, with_incidents
    from auditgap.records import now

    plan = load_review(file)
    with Store.open(store, create=False) as opened:
        plan = with_incidents(plan, dossiers(opened))
    today, known = on.date() if on else now().date(), claims()
    about, held = holdings(store, subject or plan.subject, until=today)
    asked = [known[claim] for claim in plan.claims()]
    return plan, look_up(asked, held, licences_for(held), subject=about, on=today, ended=plan.ended(today)), today
