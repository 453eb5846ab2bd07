"""`auditgap frameworks`: the rule books, what each duty presupposes, and which failure modes they see."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from auditgap.cli.options import as_json, json_flag, table

if TYPE_CHECKING:
    from auditgap.governance import AccessChange, FrameworkDifference, Row
    from auditgap.records import Requirement

__all__ = ["command"]


@click.group("frameworks")
def command() -> None:
    """List frameworks, show one, compare two editions, or see which failure modes each is blind to."""


@command.command("list")
@json_flag
def list_(as_json_: bool) -> None:
    """One line per framework."""
    from auditgap.governance import frameworks

    found = list(frameworks().values())
    if as_json_:
        as_json(found)
        return
    columns = ("id", "edition", "kind", "read from", "requirements", "review by")
    rows = [(f.id, f.edition, f.kind or "", f.depth, str(len(f.requirements)), str(f.review_date)) for f in found]
    table("frameworks", columns, rows)


@command.command("show")
@click.argument("framework_id")
@json_flag
def show(framework_id: str, as_json_: bool) -> None:
    """Every requirement of one framework (ID, ID@EDITION or own file), with its numbers and the failure modes that it names."""
    from auditgap.governance import claims, edition

    found = edition(framework_id)
    presupposed = {name: claim for name, claim in claims().items() if any(name in r.claims for r in found.requirements)}
    if as_json_:
        as_json({**found.model_dump(mode="json"), "claims": {name: c.model_dump(mode="json") for name, c in presupposed.items()}})
        return
    click.echo(f"{found.title} ({found.edition}), {found.issuer}; read from: {found.depth}; review by {found.review_date}")
    click.echo("\n".join(f"source: {source.ref} ({source.verified})" for source in found.sources))
    click.echo(f"applies to: {found.applies_to or 'not noted'}\n")
    if found.numbers:
        rows = [(n.quantity, f"{n.comparator} {n.value:g} {n.unit}", n.text_ref, n.verified, n.note or "") for n in found.numbers]
        table("numbers", ("what", "number", "where", "verified", "note"), rows)
    if found.names:
        named = [(n.failure_mode, n.words, n.text_ref, n.reading) for n in found.names]
        table("failure modes named", ("failure mode", "words", "where", "reading"), named)
    if presupposed:
        rows = [(name, claim.modality, claim.realm, claim.statement) for name, claim in presupposed.items()]
        table("presupposed claims", ("claim", "modality", "realm", "statement"), rows)
    for requirement, row in zip(found.requirements, found.rows, strict=True):
        click.echo("\n".join(_lines(requirement, row)))


def _lines(requirement: "Requirement", row: "Row") -> Iterator[str]:
    """One duty: what the text says, then what we read into it."""
    since = f", from {requirement.effective_from}" if requirement.effective_from else ""
    yield f"\n{requirement.id}: {requirement.title} [{requirement.text_ref}; {requirement.verified}{since}]"
    if row.no_hook:
        yield f"  presupposes no claim: {row.no_hook}"
        return
    covers = f"{row.relationship}, covers {row.coverage}, {row.confidence} confidence, {row.status}"
    yield f"  presupposes  {', '.join(row.claims)} ({covers})"
    needs = [f"{axis} {getattr(row.required, axis)} ({row.pins[axis].reading})" for axis in row.raised()]
    yield f"  requires     {', '.join(needs)}"
    evidence = [f"{kind} ({reading})" for kind, reading in row.evidence.items()]
    yield f"  accepts      {', '.join(evidence)}; by {', '.join(row.accepts)}"
    if row.note:
        yield f"  note         {row.note}"


@command.command("diff")
@click.argument("before")
@click.argument("after")
@json_flag
def diff(before: str, after: str, as_json_: bool) -> None:
    """What differs from BEFORE to AFTER, each an ID, ID@EDITION or own file: duties, claims, required access, numbers."""
    from auditgap.governance import compare, edition

    found = compare(edition(before), edition(after))
    if as_json_:
        as_json(found)
        return
    rows = list(_differences(found)) or [("", "", "nothing differs", "")]
    table(f"{found.before} -> {found.after}", ("", "what", "which", "change"), rows)


def _differences(found: "FrameworkDifference") -> Iterator[tuple[str, str, str, str]]:
    """`-` only before, `+` only after, `~` in both and not the same."""
    for what, removed, added in (
        ("duty", found.duties_removed, found.duties_added),
        ("claim", found.claims_removed, found.claims_added),
        ("number", found.numbers_removed, found.numbers_added),
    ):
        yield from (("-", what, name, "") for name in removed)
        yield from (("+", what, name, "") for name in added)
    for duty in found.duties_changed:
        parts = [f"-{claim}" for claim in duty.claims_removed] + [f"+{claim}" for claim in duty.claims_added]
        parts += [" -> ".join(pair) for pair in (duty.title, duty.effective_from) if pair] + _moves(duty.access)
        yield "~", "duty", duty.duty, ", ".join(parts)
    for claim in found.claims_changed:
        yield "~", "claim", claim.claim, ", ".join(_moves(claim.access))


def _moves(changes: "Sequence[AccessChange]") -> list[str]:
    return [f"{change.axis} {change.before} -> {change.after}" for change in changes]


@command.command("matrix")
@json_flag
def matrix(as_json_: bool) -> None:
    """Which framework names, reaches or is silent about which failure mode."""
    from auditgap.governance import shipped_matrix

    rows = shipped_matrix()
    if as_json_:
        as_json(rows)
        return
    counted = []
    for number, row in enumerate(rows, 1):
        blind = ("not known", "not known") if row.blind is None else (str(row.blind), str(row.asked))
        counted.append((str(number), row.framework, row.depth, *blind))
    table("frameworks", ("", "framework", "read from", "blind to", "of these asked for"), counted)
    numbers = " ".join(f"{i:<2}" for i, _ in enumerate(rows, 1))
    sights = [(mode, " ".join(f"{row.cells[mode].mark:<2}" for row in rows)) for mode in rows[0].cells]
    table(
        "N named, r reached by required evidence, - silent, -! silent though asked for, ? not read",
        ("failure mode", numbers),
        sights,
    )
