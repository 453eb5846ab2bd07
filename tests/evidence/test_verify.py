"""Verification finds and names every alteration; what it cannot find is stated here too."""

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ledger_examples import assessment, decision, evidence, fill, registration

from auditgap.errors import EvidenceInvalid, StoreError, UsageError
from auditgap.evidence import Store, Verification, verify
from auditgap.evidence.checkpoint import parse_checkpoint, sign_checkpoint
from auditgap.evidence.keys import Keyring
from auditgap.evidence.ledger import leaf_of
from auditgap.evidence.merkle import root
from auditgap.records import digest_of

N_STATEMENTS = 8
COLUMNS = ("digest", "kind", "subject", "step", "instrument", "spec", "created_at", "envelope")


@contextmanager
def _sql(folder: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(folder / "auditgap.db")
    with connection:
        yield connection
    connection.close()


def _flip(value: bytes | str, place: int) -> bytes | str:
    """One byte changed, to something that still is text if it was text."""
    if isinstance(value, str):
        place %= len(value)
        return value[:place] + ("0" if value[place] != "0" else "1") + value[place + 1 :]
    altered = bytearray(value)
    altered[place % len(value)] ^= 1
    return bytes(altered)


def _kinds(verification: Verification) -> set[str]:
    return {problem.kind for problem in verification.problems}


def test_untouched_store_verifies(filled):
    verification = verify(filled)
    assert verification.problems == ()
    assert (verification.ok, verification.n_statements) == (True, N_STATEMENTS)
    with Store.open(filled) as store:
        assert verification.root == store.root()
        assert verification.checkpoint == store.checkpoint()
        assert verification.roots_of_trust == {k.role: k.fingerprint for k in reversed(store.keys())}
    verification.raise_if_invalid()


def test_verification_prints_as_json(filled):
    document = json.loads(verify(filled).model_dump_json())
    assert (document["ok"], document["problems"]) == (True, [])


@pytest.mark.parametrize("place", [0, 40, 300, -60, -1])
@pytest.mark.parametrize("leaf", range(N_STATEMENTS))
def test_flipped_byte_in_an_envelope_names_the_record(filled, leaf, place):
    with _sql(filled) as sql:
        digest, envelope = sql.execute("SELECT digest, envelope FROM statement WHERE leaf = ?", (leaf,)).fetchone()
        sql.execute("UPDATE statement SET envelope = ? WHERE leaf = ?", (_flip(envelope, place), leaf))
    verification = verify(filled)
    assert (leaf, digest) in {(p.leaf, p.digest) for p in verification.problems if p.kind == "statement"}
    with pytest.raises(EvidenceInvalid, match=digest):
        verification.raise_if_invalid()


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("leaf", range(N_STATEMENTS))
def test_altered_column_names_the_record(filled, leaf, column):
    with _sql(filled) as sql:
        (value,) = sql.execute(f"SELECT {column} FROM statement WHERE leaf = ?", (leaf,)).fetchone()
        sql.execute(f"UPDATE statement SET {column} = ? WHERE leaf = ?", ("x" if value is None else _flip(value, 9), leaf))
    named = [p for p in verify(filled).problems if p.leaf == leaf and p.kind == "statement"]
    assert named
    if column not in ("digest", "envelope"):
        assert f"differs from the signed payload in {column}" in named[0].what


def test_envelope_stored_as_text_or_bad_utf8_does_not_crash_the_verifier(filled):
    with _sql(filled) as sql:
        sql.execute("UPDATE statement SET envelope = 'text' WHERE leaf = 1")
        sql.execute("UPDATE statement SET step = CAST(x'ff00fe' AS TEXT) WHERE leaf = 2")
        sql.execute("UPDATE checkpoint SET note = CAST(x'ff' AS TEXT) WHERE size = 3")
    assert {1, 2} <= {p.leaf for p in verify(filled).problems if p.kind == "statement"}
    assert 2 in {p.leaf for p in verify(filled).problems if p.kind == "checkpoint"}


@pytest.mark.parametrize("size", range(1, N_STATEMENTS + 1))
def test_flipped_byte_in_a_checkpoint_names_it(filled, size):
    for place in (0, 25, 60, 100, -3):
        with _sql(filled) as sql:
            (note,) = sql.execute("SELECT note FROM checkpoint WHERE size = ?", (size,)).fetchone()
            sql.execute("UPDATE checkpoint SET note = ? WHERE size = ?", (_flip(note, place), size))
        problems = verify(filled).problems
        assert [(p.kind, p.leaf) for p in problems] == [("checkpoint", size - 1)], place
        assert f"checkpoint {size}:" in problems[0].what
        with _sql(filled) as sql:
            sql.execute("UPDATE checkpoint SET note = ? WHERE size = ?", (note, size))


def test_checkpoint_recorded_under_another_size_is_found(filled):
    with _sql(filled) as sql:
        sql.execute("UPDATE checkpoint SET note = (SELECT note FROM checkpoint WHERE size = 3) WHERE size = 4")
    assert "of size 3 is recorded as of size 4" in verify(filled).problems[0].what


def test_altered_or_missing_blob_is_named(filled):
    with Store.open(filled) as store:
        digests = store.snapshot().blobs
    assert len(digests) == 2
    for digest in digests:
        path = filled / "blobs" / "sha256" / digest[7:9] / digest[9:]
        content = path.read_bytes()
        for altered in (_flip(content, 0), content + b"x", b""):
            path.write_bytes(altered)
            assert [(p.kind, p.digest) for p in verify(filled).problems] == [("blob", digest)]
        path.unlink()
        assert [(p.kind, p.digest) for p in verify(filled).problems] == [("blob", digest)]
        path.write_bytes(content)
    assert verify(filled).ok


def test_attack_record_altered_together_with_its_digest(filled):
    with _sql(filled) as sql:
        (envelope,) = sql.execute("SELECT envelope FROM statement WHERE leaf = 2").fetchone()
        document = json.loads(envelope)
        payload = base64.b64decode(document["payload"]).replace(b'"0.9"', b'"1.0"')
        altered = json.dumps(document | {"payload": base64.b64encode(payload).decode()}).encode()
        sql.execute("UPDATE statement SET envelope = ?, digest = ? WHERE leaf = 2", (altered, digest_of(altered)))
    verification = verify(filled)
    assert "does not hold" in next(p.what for p in verification.problems if p.leaf == 2 and p.kind == "statement")
    assert "checkpoint" in _kinds(verification)


def test_attack_statement_deleted_in_the_middle(filled):
    with _sql(filled) as sql:
        sql.execute("DELETE FROM statement WHERE leaf = 2")
    verification = verify(filled)
    assert "expected leaf 2, got 3: a statement was taken out" in next(
        p.what for p in verification.problems if p.kind == "ledger"
    )
    assert {"checkpoint", "citation"} <= _kinds(verification)


def test_attack_statements_renumbered_after_a_deletion(filled):
    with _sql(filled) as sql:
        sql.execute("DELETE FROM statement WHERE leaf = 6")
        sql.execute("UPDATE statement SET leaf = 6 WHERE leaf = 7")
        sql.execute("DELETE FROM checkpoint WHERE size = 8")
    assert {"checkpoint", "statement"} <= _kinds(verify(filled))  # signed by a key that is not active there


def test_attack_order_swapped_so_that_evidence_precedes_its_registration(filled):
    with _sql(filled) as sql:
        for old, new in ((1, 99), (2, 1), (99, 2)):
            sql.execute("UPDATE statement SET leaf = ? WHERE leaf = ?", (new, old))
    verification = verify(filled)
    assert "not earlier in the ledger" in next(p.what for p in verification.problems if p.kind == "citation" and p.leaf == 1)
    assert "checkpoint" in _kinds(verification)


def test_attack_decision_added_by_someone_without_the_keys(filled, tmp_path):
    """They can make keys, envelopes and rows, but no checkpoint."""
    with Store.open(tmp_path / "theirs") as store:
        store.add_decision(decision())
        forged = store.snapshot().rows
    with _sql(filled) as sql:
        for leaf, row in enumerate(forged[1:], N_STATEMENTS):
            values = (leaf, row.digest, *row.columns, row.envelope)
            names = ("leaf", "digest", *row.columns._fields, "envelope")
            sql.execute(f"INSERT INTO statement ({','.join(names)}) VALUES ({','.join('?' * len(names))})", values)
    verification = verify(filled)
    assert {p.leaf for p in verification.problems if p.kind == "statement"} == {8, 9}
    assert "the last checkpoint covers 8 statements, there are 10" in [
        p.what for p in verification.problems if p.kind == "ledger"
    ]


def test_attack_first_gate_key_added_by_someone_without_the_evaluation_key(tmp_path):
    """Where no gate key exists yet, a self-signed one reads well; the checkpoint that must cover it cannot be forged."""
    with Store.open(tmp_path / "ours") as store:
        store.register(registration())
    with Store.open(tmp_path / "theirs", keys=tmp_path / "stolen") as store:
        store.add_decision(decision())
        forged = store.snapshot()
        intruder = Keyring(tmp_path / "stolen").first("gate")
    with _sql(tmp_path / "ours") as sql:
        for leaf, row in enumerate(forged.rows[1:], 2):
            names = ("leaf", "digest", *row.columns._fields, "envelope")
            values = (leaf, row.digest, *row.columns, row.envelope)
            sql.execute(f"INSERT INTO statement ({','.join(names)}) VALUES ({','.join('?' * len(names))})", values)
        (note,) = sql.execute("SELECT note FROM checkpoint WHERE size = 2").fetchone()
        leaves = [leaf_of(digest) for (digest,) in sql.execute("SELECT digest FROM statement ORDER BY leaf")]
        checkpoint = parse_checkpoint(note)._replace(size=4, root=root(leaves))
        sql.execute("INSERT INTO checkpoint VALUES (4, ?)", (sign_checkpoint(checkpoint, intruder),))
    verification = verify(tmp_path / "ours")
    assert _kinds(verification) == {"checkpoint"}
    assert "not signed by the evaluation key" in verification.problems[0].what


def test_attack_owner_signs_evidence_that_was_never_registered(tmp_path, monkeypatch):
    """The keys' owner can sign anything; a verifier still sees that the registration is missing or late."""
    monkeypatch.setattr("auditgap.evidence.appender.check_citations", lambda *_: None)
    with Store.open(tmp_path) as store:
        plan = registration()
        unregistered = store.add_evidence(evidence(plan, digest_of(b"never")))
        digest = store.register(plan)
        moved = store.add_evidence(evidence(registration(value=0.1), digest))
        judged = store.add_assessment(assessment(digest_of(b"never")))
        decided = store.add_decision(decision(digest_of(b"never")))
    verification = verify(tmp_path)
    assert {p.digest: p.kind for p in verification.problems} == dict.fromkeys((unregistered, moved, judged, decided), "citation")


def test_truncated_ledger_is_found_with_a_checkpoint_kept_elsewhere_and_only_with_it(filled):
    with Store.open(filled) as store:
        kept = store.checkpoint()
        older = store.snapshot().checkpoints[4][1]
    with _sql(filled) as sql:
        sql.execute("DELETE FROM statement WHERE leaf = 7")
        sql.execute("DELETE FROM checkpoint WHERE size = 8")
    assert verify(filled).ok  # what cannot be seen from inside: docs/evidence.md says so
    assert verify(filled, known_checkpoint=older).ok
    verification = verify(filled, known_checkpoint=kept)
    assert [p.kind for p in verification.problems] == ["ledger"]
    assert "covers 8 statements, the ledger holds 7: it was truncated" in verification.problems[0].what


def test_ledger_rewritten_by_its_owner_is_found_with_a_checkpoint_kept_elsewhere(filled, tmp_path):
    """Truncate, then append other statements with the true keys."""
    with Store.open(filled) as store:
        kept = store.checkpoint()
    with _sql(filled) as sql:
        sql.execute("DELETE FROM statement WHERE leaf = 7")
        sql.execute("DELETE FROM checkpoint WHERE size = 8")
    with Store.open(filled) as store:
        store.register(registration("something else"))
    assert verify(filled).ok
    assert "are not those that it was signed for" in verify(filled, known_checkpoint=kept).problems[0].what


def test_known_checkpoint_of_another_ledger_or_with_a_bad_signature_is_refused(filled, tmp_path):
    with Store.open(tmp_path / "other") as store:
        store.register(registration())
        foreign = store.checkpoint()
    assert "it is of another ledger" in verify(filled, known_checkpoint=foreign).problems[0].what
    with Store.open(filled) as store:
        own = store.checkpoint()
    assert verify(filled, known_checkpoint=own.rstrip("\n")).ok  # as it comes out of a chat window
    assert not verify(filled, known_checkpoint=_flip(own, -20)).ok
    assert "expected a signed checkpoint" in verify(filled, known_checkpoint="hello").problems[0].what


def test_made_up_ledger_is_found_with_a_fingerprint_and_only_with_it(filled, tmp_path):
    with Store.open(filled) as store:
        pins = {k.role: k.fingerprint for k in reversed(store.keys())}
    with Store.open(tmp_path / "forged") as store:
        fill(store)
    assert verify(tmp_path / "forged").ok
    for trusted in (pins["evaluation"], pins["gate"], tuple(pins.values())):
        assert verify(filled, trusted=trusted).ok
        assert _kinds(verify(tmp_path / "forged", trusted=trusted)) == {"key"}
    rotated = verify(filled, trusted=Keyring(filled / "keys").show()["evaluation"])
    assert _kinds(rotated) == {"key"}  # trust begins with the first key of a role, not with its latest


def test_empty_ledger_verifies_nothing(tmp_path):
    Store.open(tmp_path).close()
    assert [p.what for p in verify(tmp_path).problems] == ["there is no statement, so nothing was verified"]


def test_verifying_writes_nothing(filled):
    before = {path.relative_to(filled): path.read_bytes() for path in filled.rglob("*") if path.is_file()}
    assert verify(filled).ok
    assert {path.relative_to(filled): path.read_bytes() for path in filled.rglob("*") if path.is_file()} == before


def test_store_without_its_private_keys_verifies(filled):
    for path in (filled / "keys").glob("*.pem"):
        path.unlink()
    assert verify(filled).ok


def test_what_is_neither_store_nor_bundle_is_refused(filled, tmp_path):
    with pytest.raises(UsageError, match=f"give its folder, {filled}"):
        verify(filled / "auditgap.db")
    with pytest.raises(StoreError, match="no evidence store at"):
        verify(tmp_path / "missing.zip")
    (tmp_path / "text.zip").write_text("not a zip")
    assert "is not a whole bundle" in verify(tmp_path / "text.zip").problems[0].what
