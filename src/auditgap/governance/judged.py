"""Evidence as a judge sees it: with its registration and its signer, and why it may not count."""

from typing import Literal, NamedTuple

from auditgap.records import Claim, Digest, Evidence, Registration, Verdict

__all__ = ["Judged", "agrees", "bearing_on", "opposes", "problems"]


class Judged(NamedTuple):
    """One piece of stored evidence."""

    digest: Digest
    evidence: Evidence
    registration: Registration
    keyid: str
    """Key that signed the evidence: two keys stand for two parties."""


def problems(judged: Judged) -> list[str]:
    """Why the numbers may not be believed; empty if they may.

    A verdict `invalid`, a fatal control that failed or was owed and not run, evidence that is not its registration's.
    """
    evidence, registration, result = judged.evidence, judged.registration, judged.evidence.result
    ran = {control.name for control in result.controls}
    found = [f"fatal control '{c.name}' failed (expected {c.expected})" for c in result.controls if c.fatal and not c.passed]
    found += [f"control '{name}' is owed and was not run" for name in registration.card.controls if name not in ran]
    if result.verdict == "invalid":
        found.append("its verdict is invalid")
    for what, registered, got in (
        ("specification", registration.spec(), evidence.spec),
        ("subject", registration.subject, evidence.subject.digest()),
        ("step", registration.step, evidence.step),
        ("instrument", (registration.card.name, registration.card.version), (evidence.instrument, evidence.version)),
    ):
        if registered != got:
            found.append(f"its {what} differs from the registered one")
    return found


def bearing_on(claim: Claim, judged: Judged) -> Literal["supported", "refuted"] | None:
    """The verdict of this evidence that would speak for the claim; None if it does not bear on it."""
    imported = judged.evidence.imported
    if imported is not None and claim.id in imported.claims and claim.modality != "process":
        return "supported"
    for bearing in claim.bearings:
        if bearing.instrument == judged.evidence.instrument and bearing.dataset in (None, judged.evidence.step):
            return bearing.supports_when
    return None


def agrees(claim: Claim, judged: Judged) -> bool:
    """True if the verdict speaks for the claim."""
    return judged.evidence.result.verdict == bearing_on(claim, judged)


def opposes(claim: Claim, judged: Judged) -> bool:
    """True if the verdict speaks against the claim."""
    opposite: dict[Verdict | None, Verdict] = {"supported": "refuted", "refuted": "supported"}
    return judged.evidence.result.verdict == opposite.get(bearing_on(claim, judged), "")
