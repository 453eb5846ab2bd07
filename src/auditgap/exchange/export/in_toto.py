"""in-toto statements of a gate's decision: test-result v0.1, and the SLSA verification summary (VSA) v1.

Both are Statement v1 documents on the subject's digest, signed with the gate key in a DSSE envelope; policy engines that read
attestations can hold a release on them. PASSED means that every line of the decision that blocks was met; everything else,
including what could not be measured, is FAILED. Disclosed gaps travel with the summary.
Sources: in-toto attestation spec, predicates/test-result.md; https://slsa.dev/spec/v1.0/verification_summary.
"""

from auditgap.evidence.envelope import STATEMENT_TYPE
from auditgap.exchange.export.naming import Json, decided, hex_of, iso, line, shown, uri
from auditgap.exchange.export.standing import released, standing
from auditgap.records import Digest, canonical_json
from auditgap.report import Audit

__all__ = ["DISCLOSED", "TEST_RESULT", "VSA", "in_toto_test_result", "verification_summary"]

TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
VSA = "https://slsa.dev/verification_summary/v1"
DISCLOSED = "https://auditgap.dev/verification_summary/disclosed"
"""Extension field of the summary: what the decision passes with, in the open."""


def in_toto_test_result(audit: Audit) -> bytes:
    """Canonical bytes of the test-result statement: each line of the decision is a test, the policy is its configuration.

    Raises:
        UsageError: no gate has decided on the subject.
    """
    decision, _ = decided(audit)
    tests: dict[str, list[Json]] = {"passed": [], "noted": [], "failed": []}
    for c in decision.criteria:
        where = standing(c)
        tests["failed" if where == "undecided" else where].append(c.id)
    clean = decision.outcome == "pass" and not tests["noted"]
    predicate: dict[str, Json] = {
        "result": "FAILED" if not released(decision) else "PASSED" if clean else "WARNED",
        "configuration": _configuration(audit, decision.policy),
        "passedTests": tests["passed"],
        "warnedTests": tests["noted"],
        "failedTests": tests["failed"],
    }
    return _statement(audit, TEST_RESULT, predicate)


def verification_summary(audit: Audit) -> bytes:
    """Canonical bytes of the VSA statement: the gate as verifier, the policy by digest, every attestation it read.

    `verifiedLevels` holds AUDITGAP_PASS or AUDITGAP_PASS_WITH_DISCLOSED_GAP, or FAILED; no SLSA build level is claimed.

    Raises:
        UsageError: no gate has decided on the subject.
    """
    decision, _ = decided(audit)
    passed = released(decision)
    predicate: dict[str, Json] = {
        "verifier": {"id": uri("gate", "v1")},
        "timeVerified": iso(decision.decided_at),
        "resourceUri": uri("subject", audit.subject.digest()),
        "policy": _pinned("policy", decision.policy),
        "inputAttestations": [_pinned("statement", digest) for digest in _read(audit)],
        "verificationResult": "PASSED" if passed else "FAILED",
        "verifiedLevels": [f"AUDITGAP_{decision.outcome.upper().replace('-', '_')}" if passed else "FAILED"],
        "slsaVersion": "1.0",
        DISCLOSED: list(decision.disclosed),
    }
    return _statement(audit, VSA, predicate)


def _read(audit: Audit) -> list[Digest]:
    """Every ledger statement that the gate read, once each: registrations, evidence, assessments."""
    registered = [e.registration for _, e in audit.evidence]
    rest = [digest for digest, _ in (*audit.evidence, *audit.assessments)]
    cited = [c.evidence for c in audit.decision.criteria if c.evidence] if audit.decision else []
    return list(dict.fromkeys((*registered, *rest, *cited)))


def _configuration(audit: Audit, policy: Digest) -> list[Json]:
    """The policy and the registrations: what was fixed before the run."""
    registered = {e.registration: f"registration of {line(e.step)}" for _, e in audit.evidence}
    fixed = [{"name": name, **_pinned("statement", digest)} for digest, name in registered.items()]
    return [{"name": "policy", **_pinned("policy", policy)}, *fixed]


def _pinned(kind: str, digest: Digest) -> dict[str, Json]:
    return {"uri": uri(kind, digest), "digest": {"sha256": hex_of(digest)}}


def _statement(audit: Audit, predicate_type: str, predicate: dict[str, Json]) -> bytes:
    subject: list[Json] = [{"name": line(audit.subject.name), "digest": {"sha256": hex_of(audit.subject.digest())}}]
    document = {"_type": STATEMENT_TYPE, "subject": subject, "predicateType": predicate_type, "predicate": predicate}
    return canonical_json(shown(document))
