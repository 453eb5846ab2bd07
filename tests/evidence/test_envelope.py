"""Signing, and every way in which an envelope could be made to say something that its signer did not."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from ledger_examples import assessment, decision, evidence, registration

from auditgap.errors import EvidenceInvalid
from auditgap.evidence.envelope import PAYLOAD_TYPE, open_envelope, public_key, read_unverified, sign
from auditgap.evidence.keys import KeyRecord, fingerprint
from auditgap.evidence.kinds import columns, parse, payload
from auditgap.evidence.ledger import KeyHistory, Row, Stored, read
from auditgap.records import digest_of, now

EVALUATION = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
GATE = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
TRUSTED = [public_key(EVALUATION.public_key().public_bytes_raw())]
PLAN = registration()
SIGNED = sign(payload(PLAN), EVALUATION)


def _key(role, key, leaf):
    record = KeyRecord(role=role, public_key=key.public_key().public_bytes_raw().hex(), replaces=None, created_at=now())
    return Stored(digest_of(b"%d" % leaf), leaf, record, record.keyid, role)


HISTORY = KeyHistory((_key("evaluation", EVALUATION, 0), _key("gate", GATE, 1)))


def _read(data: bytes, history: KeyHistory = HISTORY):
    return read(Row(5, digest_of(data), data), history)


def _altered(**changes) -> bytes:
    return json.dumps(json.loads(SIGNED) | changes).encode()


def test_signed_record_comes_back():
    stored = _read(SIGNED)
    assert stored.record == PLAN
    assert (stored.leaf, stored.role, stored.keyid) == (5, "evaluation", fingerprint(EVALUATION))


def test_signature_verifies_with_cryptography_alone():
    """Pre-authentication encoding written out from the DSSE protocol."""
    envelope = json.loads(SIGNED)
    body, kind = base64.b64decode(envelope["payload"]), b"application/vnd.in-toto+json"
    pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)
    EVALUATION.public_key().verify(base64.b64decode(envelope["signatures"][0]["sig"]), pae)
    assert json.loads(body)["_type"] == "https://in-toto.io/Statement/v1"
    assert json.loads(body)["predicateType"] == "https://auditgap.dev/registration/v1"


def test_signing_is_deterministic_and_independent_of_key_order():
    again = PLAN.model_copy(update={"config": dict(reversed(PLAN.config.items()))})
    assert sign(payload(again), EVALUATION) == SIGNED


def test_opening_reads_the_kept_bytes_and_never_serialises_again():
    """Whitespace inside the signed payload survives, although no serialiser of ours would print it."""
    spaced = json.dumps({"_type": "https://in-toto.io/Statement/v1", "a": 1}, indent=3).encode()
    assert open_envelope(sign(spaced, EVALUATION), TRUSTED).payload == spaced


@pytest.mark.parametrize(
    "record", [PLAN, evidence(PLAN, digest_of(b"r")), assessment(digest_of(b"e")), decision(digest_of(b"a"))]
)
def test_every_kind_survives_signing_and_reading(record):
    key = GATE if columns(record).kind == "decision" else EVALUATION
    assert _read(sign(payload(record), key)).record == record


def test_attack_payload_swap():
    other = base64.b64encode(payload(registration(value=0.1))).decode()
    with pytest.raises(EvidenceInvalid, match=r"signature by .* does not hold"):
        _read(_altered(payload=other))


def test_attack_payload_type_confusion():
    with pytest.raises(EvidenceInvalid, match="expected payload type"):
        _read(_altered(payloadType="application/json"))


def test_attack_payload_type_signed_as_something_else():
    """A signature over the same bytes under another payload type must not count as one over a statement."""
    body, kind = payload(PLAN), b"text/plain"
    signature = EVALUATION.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body))
    forged = [{"keyid": fingerprint(EVALUATION), "sig": base64.b64encode(signature).decode()}]
    with pytest.raises(EvidenceInvalid, match="does not hold"):
        _read(_altered(signatures=forged, payloadType=PAYLOAD_TYPE))


def test_attack_signature_stripping():
    with pytest.raises(EvidenceInvalid, match="exactly one signature, got 0"):
        _read(_altered(signatures=[]))


def test_attack_second_signature_added():
    extra = json.loads(sign(payload(PLAN), GATE))["signatures"]
    with pytest.raises(EvidenceInvalid, match="exactly one signature, got 2"):
        _read(_altered(signatures=json.loads(SIGNED)["signatures"] + extra))


def test_attack_decision_signed_by_the_evaluation_key():
    with pytest.raises(
        EvidenceInvalid, match="decision must be signed by the gate key, this one is signed by the evaluation key"
    ):
        _read(sign(payload(decision()), EVALUATION))


def test_attack_evidence_signed_by_the_gate_key():
    with pytest.raises(
        EvidenceInvalid, match="evidence must be signed by the evaluation key, this one is signed by the gate key"
    ):
        _read(sign(payload(evidence(PLAN, digest_of(b"r"))), GATE))


def test_attack_keyid_confusion():
    """A stranger's signature that carries a trusted key's id, and a trusted signature that carries another id."""
    stranger = json.loads(sign(payload(PLAN), Ed25519PrivateKey.generate()))["signatures"][0]
    with pytest.raises(EvidenceInvalid, match="does not hold"):
        _read(_altered(signatures=[stranger | {"keyid": fingerprint(EVALUATION)}]))
    own = json.loads(SIGNED)["signatures"][0]
    with pytest.raises(EvidenceInvalid, match="does not hold"):
        _read(_altered(signatures=[own | {"keyid": fingerprint(GATE)}]))
    with pytest.raises(EvidenceInvalid, match="expected a signature by a key active here"):
        _read(_altered(signatures=[own | {"keyid": digest_of(b"?")}]))


def test_attack_untrusted_key():
    with pytest.raises(EvidenceInvalid, match="expected a signature by a key active here"):
        _read(sign(payload(PLAN), Ed25519PrivateKey.generate()))


def test_attack_predicate_type_confusion():
    """An evidence record under the type of a decision, truly signed."""
    document = read_unverified(SIGNED).statement | {"predicateType": "https://auditgap.dev/decision/v1"}
    with pytest.raises(EvidenceInvalid, match=r"not what https://auditgap\.dev/decision/v1 says"):
        _read(sign(json.dumps(document).encode(), GATE))


def test_attack_subject_of_the_statement_is_not_that_of_the_record():
    document = read_unverified(SIGNED).statement | {"subject": [{"name": "probe", "digest": {"sha256": "0" * 64}}]}
    with pytest.raises(EvidenceInvalid, match="not the canonical form"):
        _read(sign(json.dumps(document, sort_keys=True, separators=(",", ":")).encode(), EVALUATION))


def test_attack_repeated_names_on_which_parsers_disagree():
    body = payload(PLAN).replace(b'{"_type":', b'{"_type":"x","_type":', 1)
    with pytest.raises(EvidenceInvalid, match="repeats a name"):
        _read(sign(body, EVALUATION))
    with pytest.raises(EvidenceInvalid, match="repeats a name"):
        _read(SIGNED.replace(b'{"payload":', b'{"payload":"", "payload":', 1))


def test_attack_second_first_key():
    """Once a role has a key, nobody can introduce another one that signs itself."""
    intruder = Ed25519PrivateKey.generate()
    record = _key("gate", intruder, 0).record
    with pytest.raises(EvidenceInvalid, match="expected a signature by a key active here"):
        _read(sign(payload(record), intruder))


def test_attack_key_of_one_role_signs_in_another():
    record = _key("gate", EVALUATION, 0).record
    with pytest.raises(EvidenceInvalid, match="serves one role, once"):
        _read(sign(payload(record), EVALUATION), KeyHistory(HISTORY.keys[:1]))


def test_attack_key_replaced_by_the_other_role():
    new = _key("gate", Ed25519PrivateKey.generate(), 0).record.model_copy(update={"replaces": fingerprint(GATE)})
    with pytest.raises(EvidenceInvalid, match="must be signed by the gate key"):
        _read(sign(payload(new), EVALUATION))


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_any_flipped_bit_is_refused(place, bit):
    altered = bytearray(SIGNED)
    altered[place % len(SIGNED)] ^= 1 << bit
    with pytest.raises(EvidenceInvalid):
        read(Row(5, digest_of(SIGNED), bytes(altered)), HISTORY)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_our_own_error(data):
    with pytest.raises(EvidenceInvalid):
        open_envelope(data, TRUSTED)


@pytest.mark.parametrize(
    "data", [b"[]", b"{}", b"null", b'{"payload":1,"payloadType":"x","signatures":[]}', b"[" * 100_000, b"\xff"]
)
def test_what_is_no_envelope_is_refused(data: bytes):
    with pytest.raises(EvidenceInvalid):
        open_envelope(data, TRUSTED)


def test_a_record_without_a_kind_is_refused():
    with pytest.raises(TypeError, match="no statement holds a Interval"):
        columns(evidence(PLAN, digest_of(b"r")).result.measurements[0].interval)


def test_parse_reports_an_unknown_predicate_type():
    body = json.dumps({"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://example.org/v1"}).encode()
    with pytest.raises(EvidenceInvalid, match="expected one of the predicate types"):
        parse(open_envelope(sign(body, EVALUATION), TRUSTED))
