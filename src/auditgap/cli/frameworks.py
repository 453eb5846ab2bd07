"""`auditgap frameworks`: the rule books and what each duty presupposes."""

import click

from auditgap.cli.options import as_json, json_flag, table

__all__ = ["command"]


@click.group("frameworks")
def command() -> None:
    """List frameworks, or show one: duties, presupposed claims, required access, sources."""


@command.command("list")
@json_flag
def list_(as_json_: bool) -> None:
    """One line per framework."""
    from auditgap.governance import frameworks

    found = list(frameworks().values())
    if as_json_:
        as_json(found)
    else:
        rows = [(f.id, f.edition, str(len(f.requirements)), str(f.review_date), f.title) for f in found]
        table("frameworks", ("id", "edition", "requirements", "reviewed", "title"), rows)


@command.command("show")
@click.argument("framework_id")
@json_flag
def show(framework_id: str, as_json_: bool) -> None:
    """Every requirement of one framework."""
    from auditgap.governance import framework
    from auditgap.records import Access

    found = framework(framework_id)
    if as_json_:
        as_json(found)
        return
    rows = []
    for r in found.requirements:
        floor = Access()
        needs = ", ".join(f"{axis} {value}" for axis, value in r.required if value != getattr(floor, axis))
        rows.append((r.id, r.title, ", ".join(r.claims) or "no hook", needs, r.verified, r.text_ref))
    table(f"{found.title} ({found.edition})", ("id", "title", "claims", "required access", "verified", "text"), rows)
