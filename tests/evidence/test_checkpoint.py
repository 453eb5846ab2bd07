import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auditgap.errors import EvidenceInvalid
from auditgap.evidence.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint, sign_checkpoint

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
CHECKPOINT = Checkpoint("auditgap.dev/ledger/0123", 7, hashlib.sha256(b"root").digest())
NOTE = sign_checkpoint(CHECKPOINT, KEY)


def test_signed_checkpoint_opens():
    assert open_checkpoint(NOTE, PUBLIC) == parse_checkpoint(NOTE) == CHECKPOINT


def test_note_has_the_c2sp_form():
    """Checked by hand from the C2SP signed-note specification, not with our own parser."""
    text, signature_line = NOTE.split("\n\n")
    assert text.split("\n") == ["auditgap.dev/ledger/0123", "7", base64.b64encode(CHECKPOINT.root).decode()]
    dash, name, encoded = signature_line.rstrip("\n").split(" ")
    assert (dash, name) == ("—", "auditgap.dev/ledger/0123")
    signature = base64.b64decode(encoded)
    assert signature[:4] == hashlib.sha256(name.encode() + b"\n" + b"\x01" + PUBLIC).digest()[:4]
    KEY.public_key().verify(signature[4:], (text + "\n").encode())


def test_checkpoint_with_any_character_changed_fails():
    for i, character in enumerate(NOTE):
        for other in ("A", "B", "1", "\n"):
            if character != other:
                with pytest.raises(EvidenceInvalid):
                    open_checkpoint(NOTE[:i] + other + NOTE[i + 1 :], PUBLIC)


def test_checkpoint_by_another_key_fails():
    other = Ed25519PrivateKey.generate()
    with pytest.raises(EvidenceInvalid, match="not signed by the evaluation key"):
        open_checkpoint(sign_checkpoint(CHECKPOINT, other), PUBLIC)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "hello",
        NOTE.replace("\n7\n", "\n07\n"),
        NOTE.replace("\n7\n", "\n-7\n"),
        NOTE + NOTE,
        NOTE.rstrip("\n"),
        NOTE + "extra\n",
    ],
)
def test_malformed_note_is_refused(note):
    with pytest.raises(EvidenceInvalid, match="expected a signed checkpoint"):
        parse_checkpoint(note)
