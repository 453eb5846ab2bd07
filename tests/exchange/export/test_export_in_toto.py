"""in-toto: signed by the gate, opened by securesystemslib, and strictly parsed by the reference bindings."""

import json
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.predicates.vsa.v1 import vsa_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from auditgap.errors import StoreError
from auditgap.evidence import KeyRecord, Store
from auditgap.exchange.export import export, in_toto_test_result, verification_summary
from auditgap.exchange.export.in_toto import DISCLOSED, TEST_RESULT, VSA
from auditgap.report import Audit


def _gate_key(folder: Path) -> SSlibKey:
    with Store.open(folder, create=False) as store:
        known = store.keys()
        (gate,) = [row for row in known if row.role == "gate" and row.status == "active"]
        record = next(store.get(s.digest).record for s in store.statements() if s.subject == gate.fingerprint)
    assert isinstance(record, KeyRecord)
    return SSlibKey(gate.fingerprint, "ed25519", "ed25519", {"public": record.public_key})


def _checked(payload: bytes) -> dict:
    """The predicate, after the reference bindings have accepted every name in it."""
    document = json.loads(payload)
    Statement.copy_from_pb(ParseDict(document, statement_pb2.Statement())).validate()
    predicate = document["predicate"]
    if document["predicateType"] == VSA:
        (level,) = predicate["verifiedLevels"]  # the specification says array, the bindings' protobuf says string
        known = {name: value for name, value in predicate.items() if name != DISCLOSED} | {"verifiedLevels": level}
        ParseDict(known, vsa_pb2.VerificationSummary())
    else:
        assert document["predicateType"] == TEST_RESULT
        ParseDict(predicate, test_result_pb2.TestResult())
    return predicate


@pytest.mark.parametrize("name", ["held", "failed", "disclosed", "real"])
def test_the_reference_bindings_accept_both_statements(name: str, request: pytest.FixtureRequest) -> None:
    audit = request.getfixturevalue(name)
    for payload in (in_toto_test_result(audit), verification_summary(audit)):
        assert _checked(payload)


def test_a_hold_is_failed_and_a_release_with_gaps_is_a_warning_that_states_them(held: Audit, disclosed: Audit) -> None:
    assert _checked(verification_summary(held))["verificationResult"] == "FAILED"
    assert _checked(in_toto_test_result(disclosed))["result"] == "WARNED"
    summary = _checked(verification_summary(disclosed))
    assert summary["verificationResult"] == "PASSED" and disclosed.decision is not None
    assert summary[DISCLOSED] == list(disclosed.decision.disclosed)
    assert summary["policy"]["digest"]["sha256"] == disclosed.decision.policy.removeprefix("sha256:")


def test_every_statement_that_the_gate_read_is_named_once(real: Audit) -> None:
    named = [r["digest"]["sha256"] for r in _checked(verification_summary(real))["inputAttestations"]]
    read = {d for d, _ in real.evidence} | {d for d, _ in real.assessments} | {e.registration for _, e in real.evidence}
    assert sorted(named) == sorted(d.removeprefix("sha256:") for d in read)


@pytest.mark.parametrize("name", ["vsa", "test-result"])
def test_the_gate_key_signs_and_an_altered_payload_is_refused(store_folder: Path, name: str) -> None:
    envelope = Envelope.from_dict(json.loads(export(store_folder, name)))
    key = _gate_key(store_folder)
    assert envelope.verify([key], 1)
    assert _checked(envelope.payload)
    forged = Envelope(envelope.payload.replace(b"FAILED", b"PASSED"), envelope.payload_type, envelope.signatures)
    with pytest.raises(VerificationError):
        forged.verify([key], 1)


def test_without_the_gate_key_nothing_is_signed(store_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "auditgap.db").write_bytes((store_folder / "auditgap.db").read_bytes())
    with pytest.raises(StoreError, match="expects gate key"):
        export(copy, "vsa")
    assert not list(copy.glob("keys/*.pem"))
