"""`auditgap release`: what a release is made of, whether it runs as declared, what differs from the evaluated one."""

from typing import TYPE_CHECKING

import click

from auditgap.cli.options import as_json, json_flag, table
from auditgap.cli.release_diagnose import diagnose
from auditgap.cli.release_gate import attest, cosign, gate, log, register, verify
from auditgap.cli.release_proxy import proxy_mcp
from auditgap.cli.release_proxy_model import proxy_model
from auditgap.cli.release_report import report
from auditgap.cli.release_test import faults, test

if TYPE_CHECKING:
    import datetime as dt

    from auditgap.records.parity import Delta

__all__ = ["command"]

_manifest = click.Path(dir_okay=False)
_on = click.option("--on", type=click.DateTime(["%Y-%m-%d"]), help="Judge as of this day [default: today].")


@click.group("release")
def command() -> None:
    """Prove that what was evaluated is what ships."""


@command.command("capture")
@click.option("--declared", type=_manifest, help="Release file (YAML).")
@click.option("--observed", type=_manifest, help="What the proxies saw (JSONL).")
@click.option("--name", help="Name of an observed release [default: the file's].")
@click.option("--out", type=_manifest, required=True, help="Manifest to write.")
def capture(declared: str | None, observed: str | None, name: str | None, out: str) -> None:
    """Write a release manifest, from what is declared or from what was observed."""
    from auditgap.release.capture import capture_declared, capture_observed_file, write_manifest

    if (declared is None) == (observed is None):
        raise click.UsageError("expected exactly one of --declared and --observed")
    manifest = capture_declared(declared) if declared else capture_observed_file(str(observed), name=name)
    write_manifest(manifest, out)
    click.echo(f"{out}: {len(manifest.components)} components, {manifest.captured}, fingerprint {manifest.fingerprint()}")


@command.command("show")
@click.argument("manifest", type=_manifest)
@json_flag
def show(manifest: str, as_json_: bool) -> None:
    """List the components of a manifest."""
    from auditgap.cli.render import short
    from auditgap.release.capture import read_manifest

    found = read_manifest(manifest)
    if as_json_:
        as_json({"fingerprint": found.fingerprint(), "manifest": found.model_dump(mode="json")})
        return
    rows = [(c.kind, c.id, c.safety_relevance, short(c.normal_digest), c.source) for c in found.components]
    table(f"{found.name} ({found.captured})", ("kind", "id", "relevance", "digest", "source"), rows)
    click.echo(f"fingerprint {found.fingerprint()}")


@command.command("diff")
@click.argument("before", type=_manifest)
@click.argument("after", type=_manifest)
@click.option("--waivers", type=_manifest, help="Coverage file (YAML): waivers, evidence, equivalence tests.")
@click.option("--store", help="Evidence store; without it, only waivers can cover a difference.")
@_on
@json_flag
def diff(before: str, after: str, waivers: str | None, store: str | None, on: "dt.datetime | None", as_json_: bool) -> None:
    """Compare the evaluated release with the one to ship: exit 0 if nothing safety-relevant is uncovered, 1 if held back."""
    from auditgap.release.parity import judge_files

    parity = judge_files(before, after, waivers=waivers, store=store, today=on.date() if on else None)
    if as_json_:
        as_json(parity.model_dump(mode="json") | {"changes": {f"{d.kind} {d.id}": d.change() for d in parity.deltas}})
    else:
        rows = [row for d in parity.deltas for row in _rows(d)]
        table(f"{before} -> {after}", ("class", "component", "rule", "what differs", "covered by"), rows)
        click.echo("\n".join(f"uncovered: {d.kind} {d.id}, change {d.change()}" for d in parity.uncovered()))
        click.echo(
            f"{parity.n_identical} identical, {len(parity.deltas)} differ, {len(parity.uncovered())} uncovered: {parity.verdict}"
        )
    raise click.exceptions.Exit(1 if parity.verdict == "held-back" else 0)


@command.command("check")
@click.argument("declared", type=_manifest)
@click.argument("observed", type=_manifest)
@json_flag
def check(declared: str, observed: str, as_json_: bool) -> None:
    """Compare what was declared with what was observed: exit 0 if they agree, 1 if anything differs."""
    from auditgap.release.capture import compare_declared_observed, read_manifest

    found = compare_declared_observed(read_manifest(declared), read_manifest(observed))
    if as_json_:
        as_json(found)
    else:
        rows = [(d.problem, f"{d.kind} {d.id}", d.says) for d in found.disagreements]
        table(f"{declared} against {observed}", ("problem", "component", "what differs"), rows)
        click.echo(f"not on the wire, not checked here: {', '.join(found.unobservable) or 'nothing'}")
        click.echo(f"{found.n_agreed} agree, {len(found.disagreements)} do not: {found.verdict}")
    raise click.exceptions.Exit(1 if found.verdict == "differs" else 0)


def _rows(delta: "Delta") -> list[tuple[str, str, str, str, str]]:
    """One row per finding; the class of each, the component and its coverage once."""
    by = delta.coverage.status if delta.coverage.status != "uncovered" else f"UNCOVERED: {delta.coverage.why}"
    rows = []
    for place, f in enumerate(delta.findings):
        what = f"{f.path}: {f.says}" if f.path else f.says
        rows.append((f.delta_class, f"{delta.kind} {delta.id}" if place == 0 else "", f.rule, what, by if place == 0 else ""))
    return rows


for added in (test, faults, proxy_mcp, proxy_model, register, log, attest, gate, cosign, verify, report, diagnose):
    command.add_command(added)
