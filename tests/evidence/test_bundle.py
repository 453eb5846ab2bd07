"""A bundle verifies twice: with our verifier, and with docs/verify_bundle.py, which knows nothing of ours."""

import importlib.util
import io
import json
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_examples import decision, evidence, registration

from auditgap.errors import EvidenceInvalid, StoreError
from auditgap.evidence import Store, bundle, verify
from auditgap.records import canonical_json, digest_of

SCRIPT = Path(__file__).parents[2] / "docs" / "verify_bundle.py"
_spec = importlib.util.spec_from_file_location("verify_bundle", SCRIPT)
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)

Members = dict[str, bytes]


@pytest.fixture
def zipped(pristine: Path) -> Path:
    """The bundle of the filled store; not to be written to."""
    return pristine.parent / "bundle.zip"


def _members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _rezip(members: Members, path: Path, *, relist: bool) -> Path:
    """Write members as a bundle; `relist` also makes the manifest agree with them, as an attacker would."""
    if relist:
        manifest = json.loads(members["manifest.json"])
        manifest["members"] = {name: digest_of(data) for name, data in members.items() if name != "manifest.json"}
        members = members | {"manifest.json": canonical_json(manifest)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def _named(member: str) -> set[tuple[str, int | str | None]]:
    """Kind and name of the problems that an altered member may be reported as."""
    if member.startswith("statements/"):
        return {("statement", int(member[11:-5]))}
    if member.startswith("blobs/"):
        return {("blob", "sha256:" + member.removeprefix("blobs/sha256/").replace("/", ""))}
    return {("checkpoint", 7)} if member == "checkpoint.txt" else {("database", None)}


def _run_script(path: Path, *fingerprints: str) -> tuple[int, str]:
    ran = subprocess.run(
        [sys.executable, "-I", SCRIPT, path, *fingerprints], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stderr == ""
    return ran.returncode, ran.stdout


def test_bundle_verifies_with_both(zipped, pristine):
    verification = verify(zipped)
    assert verification.ok
    assert verification.root == verify(pristine).root
    pins = list(verification.roots_of_trust.values())
    assert _run_script(zipped) == _run_script(zipped, *pins)
    code, said = _run_script(zipped)
    assert code == 0
    assert "verified 8 signed statements and 2 other files" in said
    assert verification.roots_of_trust["evaluation"] in said


def test_script_needs_only_cryptography_and_is_short():
    source = SCRIPT.read_text()
    assert len(source.splitlines()) <= 120
    imported = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported - set(sys.stdlib_module_names) == {"cryptography"}


def test_equal_stores_give_equal_bytes(filled, tmp_path, zipped):
    with Store.open(filled) as store:
        report = tmp_path / "r.html"
        report.write_text("<p>report</p>")
        assert bundle(store, tmp_path / "again.zip").read_bytes() == zipped.read_bytes()
        assert bundle(store, tmp_path / "report.zip", report=report).read_bytes() != zipped.read_bytes()
    assert _members(tmp_path / "report.zip")["report.html"] == b"<p>report</p>"
    assert verify(tmp_path / "report.zip").ok
    assert _run_script(tmp_path / "report.zip")[0] == 0


def test_bundle_holds_exact_envelopes_and_no_private_key(zipped, pristine):
    members = _members(zipped)
    with Store.open(pristine) as store:
        rows = store.snapshot().rows
    assert [members[f"statements/{row.leaf:06d}.json"] for row in rows] == [row.envelope for row in rows]
    assert all(b"PRIVATE KEY" not in data for data in members.values())


def test_every_member_with_a_flipped_byte_is_named_by_both(zipped, tmp_path, capsys):
    """Once as found, once with a manifest that was made to agree."""
    members = _members(zipped)
    for name, data in members.items():
        for place in (1, len(data) // 2, -2):
            altered = bytearray(data)
            altered[place] ^= 1
            for relist in (False, True):
                if name == "manifest.json" and relist:
                    continue
                path = _rezip(members | {name: bytes(altered)}, tmp_path / "b.zip", relist=relist)
                problems = verify(path).problems
                assert problems, (name, place, relist)
                assert _named(name) & {(p.kind, p.digest if p.leaf is None else p.leaf) for p in problems}, (name, place, relist)
                assert script.verify(path, []) == 4, (name, place, relist)
                said = capsys.readouterr().out
                assert "NOT VERIFIED" in said
                assert name in said or name == "manifest.json"


def test_script_as_a_process_exits_4_and_names_the_record(zipped, tmp_path):
    members = _members(zipped)
    altered = members["statements/000002.json"].replace(b"c3VwcG9ydGVk", b"cmVmdXRlZCAg")
    path = _rezip(members | {"statements/000002.json": altered[:-9] + b"A" + altered[-8:]}, tmp_path / "b.zip", relist=True)
    code, said = _run_script(path)
    assert code == 4
    assert "NOT VERIFIED: statements/000002.json (sha256:" in said
    assert _run_script(tmp_path / "missing.zip")[0] == 4
    assert _run_script(zipped, digest_of(b"another key"))[0] == 4


@pytest.mark.parametrize("name", ["statements/000007.json", "statements/000002.json", "checkpoint.txt", "manifest.json"])
def test_missing_member_is_found_by_both(zipped, tmp_path, name, capsys):
    members = _members(zipped)
    del members[name]
    for relist in (False, True) if name != "manifest.json" else (False,):
        path = _rezip(members, tmp_path / "b.zip", relist=relist)
        assert not verify(path).ok
        assert script.verify(path, []) == 4
    capsys.readouterr()


def _with_statements(members: Members, envelopes: list[bytes]) -> Members:
    kept = {name: data for name, data in members.items() if not name.startswith("statements/")}
    return kept | {f"statements/{i:06d}.json": data for i, data in enumerate(envelopes)}


def test_reordered_statements_are_found_by_both(zipped, tmp_path, capsys):
    members = _members(zipped)
    envelopes = [members[f"statements/{i:06d}.json"] for i in range(8)]
    swapped = [envelopes[0], envelopes[2], envelopes[1], *envelopes[3:]]
    path = _rezip(_with_statements(members, swapped), tmp_path / "b.zip", relist=True)
    assert "citation" in {p.kind for p in verify(path).problems}
    assert script.verify(path, []) == 4
    assert "registration sha256:" in capsys.readouterr().out


@pytest.mark.parametrize("attack", ["unregistered", "moved-threshold", "before-registration", "cites-nothing"])
def test_what_the_owner_should_not_have_signed_is_found_by_both(tmp_path, monkeypatch, capsys, attack):
    """The store refuses these; an owner who patches the store can sign them, and still does not pass."""
    monkeypatch.setattr("auditgap.evidence.appender.check_citations", lambda *_: None)
    with Store.open(tmp_path / "s") as store:
        plan = registration()
        digest = store.register(plan)
        if attack == "unregistered":
            bad = store.add_evidence(evidence(plan, digest_of(b"never")))
        elif attack == "moved-threshold":
            bad = store.add_evidence(evidence(registration(value=0.1), digest))
        elif attack == "before-registration":
            early = evidence(plan, digest).model_copy(update={"started_at": plan.registered_at.replace(year=2020)})
            bad = store.add_evidence(early)
        else:
            bad = store.add_decision(decision(digest_of(b"never")))
        with pytest.raises(EvidenceInvalid, match=bad):
            bundle(store, tmp_path / "b.zip")
        monkeypatch.setattr("auditgap.evidence.check.Verification.raise_if_invalid", lambda self: None)
        bundle(store, tmp_path / "b.zip")
    assert bad in {p.digest for p in verify(tmp_path / "b.zip").problems if p.kind == "citation"}
    assert script.verify(tmp_path / "b.zip", []) == 4
    assert bad in capsys.readouterr().out


def test_script_accepts_a_registration_that_says_registered_at_elsewhere(tmp_path, capsys):
    """The script finds the time to blank by its neighbour; a setting of the same name must not confuse it."""
    with Store.open(tmp_path / "s") as store:
        plan = registration().model_copy(
            update={"config": {"registered_at": 'x"registered_at":"y', "f": 1e-7, "é": [1.0, 2.5e30]}}
        )
        store.add_evidence(evidence(plan, store.register(plan)))
        bundle(store, tmp_path / "b.zip")
    assert verify(tmp_path / "b.zip").ok
    assert script.verify(tmp_path / "b.zip", []) == 0
    capsys.readouterr()


def test_report_is_not_signed(filled, tmp_path):
    """What a bundle does not protect, written down as a test: see docs/evidence.md."""
    report = tmp_path / "r.html"
    report.write_text("passed")
    with Store.open(filled) as store:
        members = _members(bundle(store, tmp_path / "b.zip", report=report))
    assert verify(_rezip(members | {"report.html": b"failed"}, tmp_path / "c.zip", relist=True)).ok
    assert not verify(_rezip(members | {"report.html": b"failed"}, tmp_path / "c.zip", relist=False)).ok


@pytest.mark.parametrize(
    "name", ["../evil.json", "/etc/passwd", "statements/../../x.json", "statements\\000001.json", "extra.py", "a/"]
)
def test_attack_zip_slip(zipped, tmp_path, name, capsys):
    path = _rezip(_members(zipped) | {name: b"evil"}, tmp_path / "b.zip", relist=True)
    assert "has no member" in verify(path).problems[0].what
    assert script.verify(path, []) == 4
    capsys.readouterr()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.zip"]


def test_attack_symbolic_link(zipped, tmp_path):
    members = _members(zipped)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (stat.S_IFLNK if name == "checkpoint.txt" else stat.S_IFREG) << 16
            archive.writestr(info, data)
    assert "checkpoint.txt is a symbolic link" in verify(tmp_path / "b.zip").problems[0].what


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_attack_duplicated_member(zipped, tmp_path, capsys):
    path = tmp_path / "b.zip"
    path.write_bytes(zipped.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("statements/000002.json", b"another")
    assert "statements/000002.json twice" in verify(path).problems[0].what
    assert script.verify(path, []) == 4
    capsys.readouterr()


def test_attack_zip_bomb(zipped, tmp_path, capsys, monkeypatch):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _members(zipped).items():
            archive.writestr(name, data)
    assert "is compressed" in verify(path).problems[0].what
    assert script.verify(path, []) == 4
    capsys.readouterr()
    monkeypatch.setattr(sys.modules["auditgap.evidence.bundle"], "MAX_MEMBER_BYTES", 100)
    assert "the limit is 100" in verify(zipped).problems[0].what


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_zip_is_a_finding_and_never_another_error(zipped, tmp_path, data):
    content = bytearray(zipped.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    path = tmp_path / "damaged.zip"
    path.write_bytes(content)
    verification = verify(path)
    assert isinstance(verification.ok, bool)
    if verification.ok:  # only what carries no evidence was hit: a timestamp or an attribute of the zip
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == _members(zipped)


def test_invalid_store_is_not_bundled(filled, tmp_path):
    with Store.open(filled) as store:
        with store._engine.begin() as connection:
            connection.exec_driver_sql("UPDATE statement SET step = 'x' WHERE leaf = 1")
        with pytest.raises(EvidenceInvalid, match="statement 1"):
            bundle(store, tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()


def test_missing_report_is_refused(filled, tmp_path):
    with Store.open(filled) as store, pytest.raises(StoreError, match="No such file"):
        bundle(store, tmp_path / "b.zip", report=tmp_path / "none.html")
