"""`auditgap case`: an argument with its evidence - check it, weigh it, draw it, report the risks that remain."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import click

from auditgap.cli.options import as_json, json_flag, table

if TYPE_CHECKING:
    from auditgap.governance.safety_case import Case, JudgedCase

__all__ = ["command"]

_file = click.argument("file", type=click.Path(dir_okay=False))
_store = click.option("--store", help="Evidence store; without it the structure is all there is, and every leaf is full doubt.")
_subject = click.option("--subject", help="Subject digest or prefix, where neither the case nor the store settles it.")
_on = click.option("--on", type=click.DateTime(["%Y-%m-%d"]), help="Judge as of this day [default: today].")
_doubts = click.option("--doubts", type=click.Path(dir_okay=False), help="Table of doubts [default: ours, uncalibrated].")
_out = click.option("--out", type=click.Path(dir_okay=False), help="File to write [default: stdout].")


@click.group("case")
def command() -> None:
    """A safety case: claims, arguments, evidence and defeaters, and what is left of it today."""


@command.command("show")
@_file
@_store
@_subject
@_on
@_doubts
@json_flag
def show(file: str, store: str | None, subject: str | None, on: dt.datetime | None, doubts: str | None, as_json_: bool) -> None:
    """Print doubt, health and timeliness of every part, or with --json the case in SACM's shape."""
    from auditgap.governance.safety_case import sacm

    case, judged = _judged(file, store, subject, on, doubts)
    if as_json_:
        as_json(sacm(case, judged))
        return
    nodes, kinds = case.nodes(), case.kinds()
    rows = [(s.id, kinds[s.id], s.at_most, s.health, s.timeliness, nodes[s.id].text, "; ".join(s.why)) for s in judged.standings]
    table(case.name, ("part", "kind", "doubt at most", "health", "timeliness", "says", "why"), rows)
    click.echo("\n".join(_foot(case, judged)))


@command.command("check")
@_file
@_store
@_subject
@_on
@_doubts
@json_flag
def check(file: str, store: str | None, subject: str | None, on: dt.datetime | None, doubts: str | None, as_json_: bool) -> None:
    """List what is open: exit 0 if nothing is, 1 if something is, 2 if the file does not hold together."""
    _, judged = _judged(file, store, subject, on, doubts)
    if as_json_:
        as_json({"open_points": list(judged.open_points), "case": judged.model_dump(mode="json")})
    else:
        click.echo("\n".join([*judged.open_points, f"{len(judged.open_points)} open points"]))
    raise click.exceptions.Exit(1 if judged.open_points else 0)


@command.command("draw")
@_file
@_store
@_subject
@_on
@_doubts
@_out
def draw(file: str, store: str | None, subject: str | None, on: dt.datetime | None, doubts: str | None, out: str | None) -> None:
    """Draw the case as one SVG in GSN notation; with a store, each part says what is left of it."""
    from auditgap.report.gsn import gsn_svg

    case, judged = _judged(file, store, subject, on, doubts)
    _write(gsn_svg(case, judged if store else None), out)


@command.command("risks")
@_file
@_store
@_subject
@_on
@_out
def risks(file: str, store: str | None, subject: str | None, on: dt.datetime | None, out: str | None) -> None:
    """Write a risk report as Markdown: capability, threat model, mitigation, residual risk; what is missing is said."""
    from auditgap.governance import assess_claim, claims, licences_for
    from auditgap.governance.safety_case import holdings, load_risks
    from auditgap.records import now
    from auditgap.report.risk import render_risks

    report, today, known = load_risks(file), on.date() if on else now().date(), claims()
    about, held = holdings(store, subject or report.subject, until=today) if store else (None, [])
    names, licences = report.claims() if about else (), licences_for(held)
    found = {c: assess_claim(known[c], held, licences, subject=about, today=today) for c in names} if about else {}
    _write(render_risks(report, found, held, subject=about, on=today), out)


def _judged(
    file: str, store: str | None, subject: str | None, on: dt.datetime | None, doubts: str | None
) -> "tuple[Case, JudgedCase]":
    from auditgap.governance import claims, licences_for
    from auditgap.governance.safety_case import doubt_table, holdings, judge_case, load_case
    from auditgap.records import now

    case = load_case(file)
    weights = doubt_table(Path(doubts)) if doubts else doubt_table()
    today = on.date() if on else now().date()
    about, held = holdings(store, subject or case.subject, until=today) if store else (None, [])
    return case, judge_case(case, held, claims(), licences_for(held), weights, subject=about, today=today)


def _foot(case: "Case", judged: "JudgedCase") -> list[str]:
    """What the numbers rest on."""
    lines = [f"subject: {judged.subject or 'none, no store was given'}; on {judged.today}"]
    lines += [f"doubts entered by: {judged.doubt_entered_by}; the bound holds given {judged.n_assumptions} assumption(s)"]
    lines += [f"prepared by: {case.prepared_by}; reviewed independently by: {case.reviewed_by or 'nobody'}"]
    return lines + [f"open: {point}" for point in judged.open_points]


def _write(text: str, out: str | None) -> None:
    if out is None:
        click.echo(text, nl=False)
        return
    Path(out).write_text(text, encoding="utf-8")
    click.echo(out)
