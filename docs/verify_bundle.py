"""Verify an auditgap bundle with nothing but this file and `cryptography`: python verify_bundle.py BUNDLE.zip [FINGERPRINT ...]
1. The zip holds exactly the members that its manifest lists, once each, uncompressed, with the listed digests.
2. Every statement is a DSSE envelope, signed by the key that is active for its role at its place in the ledger.
3. What a statement cites came before it; evidence has the specification, step, subject and instrument of its registration.
4. The Merkle root over all statements is the one in the checkpoint, which the evaluation key signed.
5. Each FINGERPRINT begins the key chain of a role. Without one, anybody could have made the bundle: ask its owner.
Exit code 0: all of it holds. 4: it does not, and the first record that fails is named. Signed is not true: read docs/evidence.md.
"""

import base64
import hashlib
import json
import re
import sys
import zipfile

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MEMBER = r"manifest\.json|checkpoint\.txt|report\.html|statements/\d{6,9}\.json|blobs/sha256/[0-9a-f]{2}/[0-9a-f]{62}"
NOTE = r"(?P<text>(?P<origin>[^\s+]+)\n(?P<size>\d{1,18})\n(?P<root>\S{44})\n)\n— (?P=origin) (?P<sig>[\w+/]{91}=)\n"
KIND = r"https://auditgap\.dev/(key|registration|evidence|assessment|decision|calibration)/v1"
TYPES = ("application/vnd.in-toto+json", "https://in-toto.io/Statement/v1")
REGISTERED_AT = rb'"registered_at":"[^"]*"(?=,"schema_version":"auditgap\.dev/registration/v1")'


def need(holds, what):
    if not holds:
        raise ValueError(what)


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def members(path):
    found = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            fits = re.fullmatch(MEMBER, info.filename) and info.filename not in found and not info.compress_type
            need(fits, f"{info.filename} has no place in a bundle, or is there twice")
            found[info.filename] = archive.read(info)
    manifest = json.loads(found.pop("manifest.json"))
    version, listed = manifest["schema_version"], manifest["members"]
    differing = sorted(listed.keys() ^ found.keys())
    need(version == "auditgap.dev/bundle/v1" and not differing, f"{version}: manifest and zip differ in {differing}")
    for name, data in found.items():
        need(digest(data) == listed[name], f"{name} has digest {digest(data)}, the manifest says {listed[name]}")
        need(name[:6] != "blobs/" or digest(data) == "sha256:" + name[13:].replace("/", ""), f"{name} holds other bytes")
    return found


def read(data, active):
    """Kind, record, subject and record bytes of an envelope, if the right key signed it; `active` has the key of each role."""
    envelope = json.loads(data)
    ((keyid, signature),) = ((s["keyid"], base64.b64decode(s["sig"], validate=True)) for s in envelope["signatures"])
    statement = json.loads(payload := base64.b64decode(envelope["payload"], validate=True))
    need((envelope["payloadType"], statement["_type"]) == TYPES, "not an in-toto statement")
    kind, record = re.fullmatch(KIND, statement["predicateType"])[1], statement["predicate"]
    signer = active.get(role := record["role"] if kind == "key" else "gate" if kind == "decision" else "evaluation")
    if kind == "key":  # the first of a role signs itself
        need(record["replaces"] == (signer and digest(bytes.fromhex(signer))), "it does not replace the active key")
        signer = signer or record["public_key"]
    need(signer and keyid == digest(bytes.fromhex(signer)), f"not signed by the active {role} key")
    pae = f"DSSEv1 {len(TYPES[0])} {TYPES[0]} {len(payload)} ".encode() + payload
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer)).verify(signature, pae)
    exact = payload.partition(b'"predicate":')[2].rpartition(b',"predicateType":')[0]
    return kind, record, statement["subject"][0]["digest"]["sha256"], exact


def check_citations(kind, record, subject, earlier):
    cited = [(d, "assessment") for d in record["assessments"]] if kind == "decision" else []
    cited += [(c["evidence"], "evidence") for c in record["criteria"] if c["evidence"]] if kind == "decision" else []
    cited += [(d, "evidence") for d in record["evidence"]] if kind == "assessment" else []
    cited += [(record["registration"], "registration")] if kind == "evidence" else []
    for name, expected in cited:
        need(name in earlier and earlier[name][0] == expected, f"{expected} {name} is not earlier in the ledger")
    if kind == "evidence":
        _, plan, plan_subject, exact = earlier[record["registration"]]
        spec = digest(re.sub(REGISTERED_AT, b'"registered_at":"1970-01-01T00:00:00Z"', exact))
        registered = (spec, plan["step"], plan["card"]["name"], plan["card"]["version"], plan_subject)
        got = (*(record[field] for field in ("spec", "step", "instrument", "version")), subject)
        in_time = not plan["thresholds"] if "imported" in record else record["started_at"] >= plan["registered_at"]
        need(got == registered and in_time, f"registered {registered}, got {got}")


def root(leaves):
    split = 1 << ((len(leaves) - 1).bit_length() - 1) if len(leaves) > 1 else 0
    return leaves[0] if not split else hashlib.sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:])).digest()


def verify(path, fingerprints):
    where, active, first, earlier, leaves = path, {}, {}, {}, []
    try:
        found = members(path)
        for number, name in enumerate(sorted(name for name in found if name.startswith("statements/"))):
            where = f"{name} ({digest(found[name])})"
            kind, record, subject, exact = read(found[name], active)
            need(name == f"statements/{number:06d}.json", f"expected statement {number}")
            check_citations(kind, record, subject, earlier)
            if kind == "key":
                need(all(record["public_key"] != old[1].get("public_key") for old in earlier.values()), "a key came back")
                active[record["role"]] = record["public_key"]
                first.setdefault(record["role"], digest(bytes.fromhex(record["public_key"])))
            earlier[digest(found[name])] = (kind, record, subject, exact)
            leaves.append(hashlib.sha256(b"\x00" + hashlib.sha256(found[name]).digest()).digest())
        where, note = "checkpoint.txt", re.fullmatch(NOTE, found["checkpoint.txt"].decode())
        expected = (f"auditgap.dev/ledger/{next(iter(earlier))[7:39]}", len(leaves), root(leaves))
        need((note["origin"], int(note["size"]), base64.b64decode(note["root"])) == expected, "it is of another ledger")
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(active["evaluation"]))
        key.verify(base64.b64decode(note["sig"])[4:], note["text"].encode())
        need({*fingerprints} <= {*first.values()}, f"expected keys begun by {fingerprints}, got {first}")
    except Exception as error:  # whatever an attacker's bytes provoke: it did not verify
        print(f"NOT VERIFIED: {where}: {type(error).__name__} {error}")
        return 4
    print(f"verified {len(leaves)} signed statements and {len(found) - len(leaves) - 1} other files; keys begin with {first}")
    return 0


if __name__ == "__main__":
    sys.exit(verify(sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else __doc__)
