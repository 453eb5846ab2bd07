"""The deploy side: may what is about to run be what was promoted?

(0) enough of the trusted keys signed these bytes; (1) the decision passes; (2) it is for this stage; (3) it has not expired;
(4) what runs has the fingerprint that was decided on. What the attestation says of itself can only make the check stricter.
"""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from securesystemslib.signer import SSlibKey  # pyright: ignore[reportPrivateImportUsage]

from auditgap.errors import EvidenceInvalid, UsageError
from auditgap.records import Digest
from auditgap.records import now as present
from auditgap.records.manifest import ReleaseManifest
from auditgap.records.promotion import Promotion
from auditgap.release.capture import read_manifest
from auditgap.release.promotion.signing import load_public_key, open_signed

__all__ = ["Verification", "verify_files", "verify_promotion"]

_CLOCK_SKEW = dt.timedelta(minutes=5)


class Verification(NamedTuple):
    """What a promotion says of what runs."""

    promotion: Promotion
    signed_by: tuple[Digest, ...]
    refused: tuple[str, ...]
    """Why it may not run; empty if it may."""


def verify_promotion(
    attestation: bytes,
    observed: ReleaseManifest,
    *,
    trusted: Sequence[SSlibKey],
    now: dt.datetime,
    stage: str | None = None,
    signatures: int | None = None,
    max_age_days: int | None = None,
) -> Verification:
    """Check an attestation against what runs.

    Args:
        attestation: the bytes of `promotion.dsse.json`.
        observed: manifest of what runs, as the proxies saw it; or, declared, as its configuration says.
        trusted: public keys of the people who may promote.
        now: the present.
        stage: where it is to run.
        signatures: keys that must have signed; all trusted ones if not given.
        max_age_days: the deploying side's own limit, where it is stricter than the promotion's.

    Raises:
        EvidenceInvalid: too few of the keys signed, a signature does not hold, or the bytes are no promotion.
        UsageError: no key is trusted, or more signatures are asked than there are keys.
    """
    n_keys = len({key.keyid for key in trusted})
    threshold = n_keys if signatures is None else signatures
    if not 1 <= threshold <= n_keys:
        raise UsageError(f"expected 1 to {n_keys} signatures of {n_keys} trusted keys, asked were {threshold}")
    promotion, verified = open_signed(attestation, Promotion, trusted=trusted, threshold=threshold)
    if len(verified.keyids) < promotion.signatures_needed:
        raise EvidenceInvalid(
            f"the promotion asks for the signatures of {promotion.signatures_needed} keys, {len(verified.keyids)} trusted signed"
        )
    return Verification(promotion, verified.keyids, tuple(_refusals(promotion, observed, stage, max_age_days, now)))


def verify_files(
    attestation: Path,
    observed: Path,
    keys: Sequence[Path],
    *,
    stage: str | None = None,
    signatures: int | None = None,
    max_age_days: int | None = None,
) -> Verification:
    """As `verify_promotion`, from files and now."""
    try:
        data = attestation.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read attestation {attestation}: {error.strerror or error}") from None
    return verify_promotion(
        data,
        read_manifest(observed),
        trusted=[load_public_key(path) for path in keys],
        now=present(),
        stage=stage,
        signatures=signatures,
        max_age_days=max_age_days,
    )


def _refusals(
    promotion: Promotion, observed: ReleaseManifest, stage: str | None, max_age_days: int | None, now: dt.datetime
) -> list[str]:
    found = []
    if promotion.outcome != "pass":
        found.append(f"the gate decided {promotion.outcome}: {'; '.join(promotion.response)}")
    if stage not in (None, promotion.to_stage):
        found.append(f"it promotes to {promotion.to_stage}, asked was {stage}")
    if promotion.decided_at > now + _CLOCK_SKEW:
        found.append(f"it says to be decided on {promotion.decided_at:%Y-%m-%d %H:%M} UTC, which is in the future")
    if promotion.expires <= now:
        found.append(f"it expired on {promotion.expires:%Y-%m-%d %H:%M} UTC; run the gate again")
    if max_age_days is not None and now - promotion.decided_at > dt.timedelta(days=max_age_days):
        found.append(f"it is {(now - promotion.decided_at).days} days old, at most {max_age_days} are allowed here")
    promoted = promotion.observed if observed.captured == "observed" else promotion.manifest
    if promoted != (runs := observed.fingerprint()):
        found.append(f"what runs has fingerprint {runs}, promoted was {promoted}; compare both with 'auditgap release diff'")
    return found
