"""A promotion in the formats that CI systems and policy engines read: written by the same writers as an audit's decision.

A release stands in the place of the model: its fingerprint is the subject, its manifest file the artefact that findings point at.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auditgap.exchange.export.in_toto import verification_summary
from auditgap.exchange.export.junit import junit
from auditgap.exchange.export.sarif import sarif
from auditgap.records import Decision, Digest, FileDigest, Subject, digest_of
from auditgap.records.promotion import Promotion
from auditgap.release.promotion.signing import sign_payload, sign_record
from auditgap.report import Audit
from auditgap.report.numbers import visible

__all__ = ["FILES", "VSA_FILE", "as_audit", "summary", "vsa_of", "write_outputs"]

VSA_FILE = "vsa.dsse.json"
FILES = ("promotion.dsse.json", VSA_FILE, "auditgap-junit.xml", "auditgap.sarif", "summary.md")


class _Release(Subject):
    """A release where writers expect a model: they read its name, its digest and its files."""

    fingerprint: Digest

    def digest(self) -> str:
        return self.fingerprint


def as_audit(promotion: Promotion, *, digest: Digest, manifest: FileDigest, root: str) -> Audit:
    """The promotion as what the writers of decisions read.

    Args:
        digest: of the signed promotion.
        manifest: the file that findings point at.
        root: of the store that held the evidence.
    """
    release = _Release(
        name=promotion.name,
        architecture="release",
        weights=(manifest,),
        tokenizer=(),
        dtype="none",
        n_parameters=1,  # no writer of decisions reads it
        fingerprint=promotion.manifest,
    )
    decision = Decision(
        subject=promotion.manifest,
        policy=promotion.policy,
        outcome=promotion.outcome,
        reasons=tuple(f"{c.id}: {c.reason}" for c in promotion.criteria if c.status != "met") or ("Every criterion is met.",),
        criteria=promotion.criteria,
        disclosed=(),
        assessments=(),
        decided_at=promotion.decided_at,
    )
    return Audit(
        subject=release,
        decision=decision,
        decision_digest=digest,
        assessments=[],
        evidence=[],
        registrations={},
        claims={},
        requirements={},
        root=root,
        n_statements=0,
        generated_at=promotion.decided_at,
    )


def summary(promotion: Promotion) -> str:
    """The promotion in Markdown, for `$GITHUB_STEP_SUMMARY` and for people."""
    lines = [
        f"## {promotion.outcome.upper()}: {_cell(promotion.name)}, {_cell(promotion.from_stage)} to {_cell(promotion.to_stage)}",
        "",
        f"Release `{promotion.manifest}`, policy version {promotion.version} `{promotion.policy}`, "
        f"decided {promotion.decided_at:%Y-%m-%d %H:%M} UTC, holds until {promotion.expires:%Y-%m-%d %H:%M} UTC.",
        "",
        "| | line | claim | why | evidence |",
        "|---|---|---|---|---|",
    ]
    for c in promotion.criteria:
        evidence = f"`{c.evidence[7:19]}`" if c.evidence else "none"
        lines.append(f"| {c.status} | {_cell(c.id)} | {_cell(c.claim) or '-'} | {_cell(c.reason)} | {evidence} |")
    if promotion.response:
        lines += ["", "**Now**, as written before the run:", *(f"- {_cell(response)}" for response in promotion.response)]
    if promotion.provenance:
        lines += ["", "**Provenance**"]
        for item in promotion.provenance:
            said = [*item.verified, *(f"WRONG: {text}" for text in item.wrong), *(f"open: {text}" for text in item.open)]
            lines.append(f"- {item.kind} {_cell(item.name)} `{item.content[7:19]}`: {_cell('; '.join(said))}")
    needed = promotion.signatures_needed
    lines += [
        "",
        f"It holds with the signatures of {needed} promotion key{'s' if needed > 1 else ''}.",
        "",
        "**It does not say**",
    ]
    return "\n".join([*lines, *(f"- {text}" for text in promotion.non_claims)]) + "\n"


def vsa_of(promotion: Promotion) -> bytes:
    """The statement of the SLSA verification summary, to be signed: the same promotion always gives the same bytes."""
    unread = FileDigest(path="release-manifest", content=promotion.manifest, size=0)
    return verification_summary(as_audit(promotion, digest=promotion.digest(), manifest=unread, root=""))


def write_outputs(
    folder: Path, promotion: Promotion, manifest: Path, root: str, keys: Sequence[Ed25519PrivateKey]
) -> tuple[Path, ...]:
    """Write the promotion and its VSA, both signed by every key, and JUnit, SARIF and the summary."""
    envelope = sign_record(promotion, keys)
    audit = as_audit(promotion, digest=digest_of(envelope), manifest=FileDigest.of(manifest), root=root)
    documents = (
        envelope,
        sign_payload(vsa_of(promotion), keys),
        junit(audit).encode(),
        json.dumps(sarif(audit), indent=2, ensure_ascii=False).encode() + b"\n",
        summary(promotion).encode(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / name for name in FILES)
    for path, document in zip(paths, documents, strict=True):
        path.write_bytes(document)
    return paths


def _cell(text: str) -> str:
    """Text on one line of a Markdown table: nothing in it ends the cell or becomes markup."""
    plain = " ".join(visible(text).split())
    return plain.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'").replace("](", "\\](")
