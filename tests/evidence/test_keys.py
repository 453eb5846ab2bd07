import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from ledger_examples import decision, registration

from auditgap.errors import EvidenceInvalid, StoreError
from auditgap.evidence import Store, verify
from auditgap.evidence.envelope import sign
from auditgap.evidence.keys import Keyring, fingerprint
from auditgap.evidence.kinds import payload
from auditgap.evidence.ledger import KeyHistory, Row, read
from auditgap.records import digest_of


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _history(folder: Path) -> KeyHistory:
    """The key history of a store, read as a verifier reads it."""
    history = KeyHistory()
    with Store.open(folder, create=False) as store:
        for row in store.snapshot().rows:
            if row.columns.kind == "key":
                history = history.with_key(read(row, history))
    return history


def test_keys_are_made_on_first_use_and_only_their_owner_can_read_them(tmp_path):
    previous = os.umask(0)
    try:
        with Store.open(tmp_path / "s") as store:
            assert not store.keyring.folder.exists()
            store.register(registration())
            assert sorted(store.keyring.show()) == ["evaluation"]
            store.add_decision(decision())
            assert sorted(store.keyring.show()) == ["evaluation", "gate"]
    finally:
        os.umask(previous)
    folder = tmp_path / "s" / "keys"
    assert _mode(folder) == 0o700
    assert {_mode(path) for path in folder.glob("*.pem")} == {0o600}
    assert (folder / ".gitignore").read_text() == "*\n"
    assert len(list(folder.iterdir())) == 3  # no half-written file is left


def test_evaluation_and_gate_keys_are_distinct(filled):
    shown = Keyring(filled / "keys").show()
    assert shown["evaluation"] != shown["gate"]


def test_the_same_key_for_both_roles_is_refused(tmp_path):
    with Store.open(tmp_path) as store:
        store.register(registration())
        (tmp_path / "keys" / "gate.pem").write_bytes((tmp_path / "keys" / "evaluation.pem").read_bytes())
        (tmp_path / "keys" / "gate.pem").chmod(0o600)
        with pytest.raises(EvidenceInvalid, match="serves one role, once"):
            store.add_decision(decision())
    assert verify(tmp_path).ok


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_private_key_that_others_can_read_is_refused(tmp_path, mode):
    with Store.open(tmp_path) as store:
        store.register(registration())
        path = tmp_path / "keys" / "evaluation.pem"
        path.chmod(mode)
        with pytest.raises(StoreError, match=f"chmod 600 {path}"):
            store.register(registration("other"))
        path.chmod(0o600)
        store.register(registration("other"))


def test_private_key_is_never_replaced_by_a_new_one(tmp_path):
    with Store.open(tmp_path) as store:
        store.register(registration())
        (tmp_path / "keys" / "evaluation.pem").rename(tmp_path / "elsewhere.pem")
        with pytest.raises(StoreError, match=r"which is not in .*put its file back"):
            store.register(registration("other"))
        assert list((tmp_path / "keys").glob("*.pem")) == []


def test_rotation_retires_the_old_key_and_keeps_what_it_signed(filled):
    with Store.open(filled) as store:
        before, rows = store.keyring.show()["evaluation"], store.keys()
        fresh = store.rotate("evaluation")
        assert store.keyring.show()["evaluation"] == fresh != before
        after = store.keys()
        assert [(k.role, k.status) for k in after].count(("evaluation", "active")) == 1
        assert next(k for k in after if k.fingerprint == before).status == "retired"
        assert len(after) == len(rows) + 1
        assert store.keyring.find("evaluation", before)  # kept under another name, for other stores that use it
        store.register(registration("after"))
    assert verify(filled, trusted=rows[0].fingerprint).ok


def test_statement_signed_later_by_a_retired_key_does_not_verify(filled):
    history = _history(filled)
    retired = next(key for key in history.keys if key.record.role == "evaluation")
    key = Keyring(filled / "keys").find("evaluation", retired.record.keyid)
    data = sign(payload(registration("late")), key)
    row = Row(0, digest_of(data), data)
    last = max(k.leaf for k in history.keys)
    assert read(row._replace(leaf=last), history).record.step == "late"
    with pytest.raises(EvidenceInvalid, match="expected a signature by a key active here"):
        read(row._replace(leaf=last + 1), history)


def test_a_retired_key_cannot_come_back(filled):
    history, keyring = _history(filled), Keyring(filled / "keys")
    first, second = (key.record for key in history.keys if key.record.role == "evaluation")
    back = first.model_copy(update={"replaces": second.keyid})
    data = sign(payload(back), keyring.find("evaluation", second.keyid))
    with pytest.raises(EvidenceInvalid, match="serves one role, once"):
        read(Row(99, digest_of(data), data), history)


def test_rotation_cut_off_before_its_commit_changes_nothing(filled):
    with Store.open(filled) as store:
        before = store.keyring.show()
        store.keyring.stage("gate")  # what `rotate` does first
        store.add_decision(decision())
        assert store.keyring.show() == before
        store.rotate("gate")
    assert verify(filled).ok


def test_rotation_cut_off_after_its_commit_is_finished_by_the_next_use(filled, monkeypatch):
    with Store.open(filled) as store:
        monkeypatch.setattr(Keyring, "_promote", lambda self, role: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.rotate("gate")
        monkeypatch.undo()
        assert (filled / "keys" / "gate.next.pem").exists()
        store.add_decision(decision())
        assert not (filled / "keys" / "gate.next.pem").exists()
        rows = store.keys()
        assert store.keyring.show()["gate"] == next(k.fingerprint for k in rows if (k.role, k.status) == ("gate", "active"))
    assert verify(filled).ok


def test_fingerprint_is_the_digest_of_the_raw_public_key(tmp_path):
    key = Keyring(tmp_path).first("gate")
    assert fingerprint(key) == digest_of(key.public_key().public_bytes_raw())
    assert fingerprint(Keyring(tmp_path).first("gate")) == fingerprint(key)


def _encrypted(tmp_path: Path) -> bytes:
    key = Keyring(tmp_path / "other").first("gate")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def _elliptic(tmp_path: Path) -> bytes:
    return generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "message"),
    [(lambda _: b"", "is not an unencrypted"), (_encrypted, "is not an unencrypted"), (_elliptic, "expected an ed25519 key")],
)
def test_what_is_no_ed25519_key_is_refused(tmp_path, content, message):
    (tmp_path / "evaluation.pem").write_bytes(content(tmp_path))
    (tmp_path / "evaluation.pem").chmod(0o600)
    with pytest.raises(StoreError, match=message):
        Keyring(tmp_path).first("evaluation")


def test_keys_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "keys").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="keys"):
        Keyring(tmp_path / "keys").first("evaluation")
