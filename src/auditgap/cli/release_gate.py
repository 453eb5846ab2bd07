"""`auditgap release register | log | attest | gate | cosign | verify`: may it ship, and is what runs what was promoted?"""

from pathlib import Path

import click

from auditgap.cli.options import as_json, json_flag

__all__ = ["attest", "cosign", "gate", "log", "register", "verify"]

_IN = click.Path(exists=True, dir_okay=False, path_type=Path)
_STORE = click.Path(exists=True, file_okay=False, path_type=Path)
_NEW = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("register")
@click.option("--policy", type=_IN, required=True, help="Promotion policy (YAML).")
@click.option("--key", type=_IN, required=True, help="Promotion key (PEM, mode 0600).")
@click.option("--out", type=_NEW, default="registration.dsse.json", show_default=True, help="A new file.")
def register(policy: Path, key: Path, out: Path) -> None:
    """Sign the digests of the policy and its case set, before anything is run."""
    from auditgap.release.promotion import register_policy

    registration = register_policy(policy, key, out)
    click.echo(f"registered policy {registration.policy} in {out}")


@click.command("attest")
@click.argument("record", type=_IN)
@click.option("--key", type=_IN, required=True, help="Evaluation key (PEM, mode 0600), such as STORE/keys/evaluation.pem.")
@click.option("--out", type=_NEW, required=True, help="Signed file for `release gate --evidence`.")
def attest(record: Path, key: Path, out: Path) -> None:
    """Sign RECORD: an integrity run, a parity record or a release check, as --json printed it."""
    from auditgap.release.promotion import attest_file

    click.echo(f"{out}: {attest_file(record, key, out)}")


@click.command("log")
@click.argument("events", type=_IN)
@click.option("--manifest", type=_IN, required=True, help="The release that ran, as declared.")
@click.option("--name", default="canary-events", show_default=True, help="Name of the check in the promotion policy.")
@click.option("--out", type=_NEW, required=True, help="Check to write, for `release attest`.")
def log(events: Path, manifest: Path, name: str, out: Path) -> None:
    """Check the event stream of a canary run: everything read and answered, nothing injected."""
    from auditgap.release.promotion import check_log_file

    check = check_log_file(events, manifest, name=name)
    out.write_text(check.model_dump_json(indent=2) + "\n", encoding="utf-8")
    click.echo(f"{check.verdict}: {check.summary}")


@click.command("gate")
@click.option("--from", "from_stage", required=True, help="Stage that the release is in.")
@click.option("--to", "to_stage", required=True, help="Stage that it should go to.")
@click.option("--policy", type=_IN, required=True, help="Promotion policy (YAML).")
@click.option("--manifest", type=_IN, required=True, help="The release as declared.")
@click.option("--observed", type=_IN, help="The release as the proxies saw it on a canary run.")
@click.option("--registration", type=_IN, help="What `release register` wrote before the run.")
@click.option("--store", type=_STORE, help="Evidence store with the audit's decision.")
@click.option("--evidence", type=_IN, multiple=True, help="Signed integrity run, parity record or check; may be repeated.")
@click.option("--evaluation-key", type=_IN, multiple=True, help="Public key that signed --evidence; may be repeated.")
@click.option("--key", "keys", type=_IN, multiple=True, required=True, help="Promotion key; may be repeated.")
@click.option("--promotion-key", type=_IN, multiple=True, help="Public key of somebody else who may promote.")
@click.option("--lock", type=_IN, help="Lockfile of the release.")
@click.option("--sbom", type=_IN, help="CycloneDX SBOM of the release.")
@click.option("--build", type=_IN, help="SLSA provenance: a DSSE envelope or a Sigstore bundle.")
@click.option("--build-key", type=_IN, help="Public key that signed --build.")
@click.option("--out", type=_FOLDER, default="promotion", show_default=True, help="Folder for everything that is written.")
@json_flag
def gate(
    from_stage: str,
    to_stage: str,
    policy: Path,
    manifest: Path,
    observed: Path | None,
    registration: Path | None,
    store: Path | None,
    evidence: tuple[Path, ...],
    evaluation_key: tuple[Path, ...],
    keys: tuple[Path, ...],
    promotion_key: tuple[Path, ...],
    lock: Path | None,
    sbom: Path | None,
    build: Path | None,
    build_key: Path | None,
    out: Path,
    as_json_: bool,
) -> None:
    """Decide on a promotion and sign it. Default deny: exit 0 only if every line is met."""
    from auditgap.release.promotion import Brought, gate_release, summary

    brought = Brought(manifest, observed, registration, store, evidence, evaluation_key, lock, sbom, build, build_key)
    gated = gate_release(policy, brought, keys=keys, promoters=promotion_key, out=out, from_stage=from_stage, to_stage=to_stage)
    if as_json_:
        as_json(gated.promotion)
    else:
        click.echo(summary(gated.promotion), nl=False)
    for path in gated.files:
        click.echo(str(path), err=True)
    raise click.exceptions.Exit(gated.exit_code)


@click.command("cosign")
@click.argument("attestation", type=_IN)
@click.option("--key", type=_IN, required=True, help="The second person's promotion key.")
@click.option("--first", type=_IN, required=True, help="Public key of the person who signed before.")
def cosign(attestation: Path, key: Path, first: Path) -> None:
    """Add a second signature to ATTESTATION, and print what was signed."""
    from auditgap.release.promotion import cosign_file, summary

    click.echo(summary(cosign_file(attestation, key, first=first)), nl=False)


@click.command("verify")
@click.option("--observed", type=_IN, required=True, help="Manifest of what runs, as the proxies see it.")
@click.option("--attestation", type=_IN, required=True, help="promotion.dsse.json, as the gate wrote it.")
@click.option("--key", "keys", type=_IN, multiple=True, required=True, help="Public key that may promote; may be repeated.")
@click.option("--stage", help="Stage where it runs.")
@click.option("--signatures", type=click.IntRange(min=1), help="Keys that must have signed [default: all that are given].")
@click.option("--max-age-days", type=click.IntRange(min=1), help="Refuse an older promotion, expired or not.")
@json_flag
def verify(
    observed: Path,
    attestation: Path,
    keys: tuple[Path, ...],
    stage: str | None,
    signatures: int | None,
    max_age_days: int | None,
    as_json_: bool,
) -> None:
    """Check that what runs is what was promoted: exit 0 if so, 1 if not, 4 if the attestation is not genuine."""
    from auditgap.release.promotion import verify_files

    found = verify_files(attestation, observed, keys, stage=stage, signatures=signatures, max_age_days=max_age_days)
    if as_json_:
        as_json(found._asdict())
    else:
        lines = [f"refused: {reason}" for reason in found.refused]
        until = (
            f"{found.promotion.name}: may run in {found.promotion.to_stage} until {found.promotion.expires:%Y-%m-%d %H:%M} UTC"
        )
        click.echo("\n".join(lines or [until]))
    raise click.exceptions.Exit(1 if found.refused else 0)
