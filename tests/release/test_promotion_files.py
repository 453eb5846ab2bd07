"""Promotion from files to files: who signs, what is written, what the deploying side refuses."""

import base64
import datetime as dt
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

import promotion_examples as made
import pytest
import yaml
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from promotion_examples import case, check, key_files, need, parity, policy, run
from sarif_pydantic import Sarif
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from auditgap.cli.release_gate import attest, cosign, gate, log, register, verify
from auditgap.errors import AuditgapError, DataError, EvidenceInvalid, PlanError, UsageError
from auditgap.evidence import Store
from auditgap.records import canonical_json, digest_of, now
from auditgap.records.promotion import Promotion, ReleaseCheck
from auditgap.release import EventLog
from auditgap.release.capture import component, write_manifest
from auditgap.release.promotion import (
    Brought,
    check_log_file,
    cosign_file,
    gate_release,
    load_promotion_policy,
    open_signed,
    provenance_of,
    register_policy,
    verify_files,
)
from auditgap.release.promotion.signing import load_public_key


class Desk(NamedTuple):
    """The files of one promotion."""

    folder: Path
    brought: Brought

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    @property
    def attestation(self) -> Path:
        return self / "out/promotion.dsse.json"

    def gate(self, *keys: str, **changes: object):
        private = [self / f"{key}.pem" for key in keys or ("alice",)]
        brought = self.brought._replace(**changes)  # type: ignore[arg-type]
        return gate_release(self / "policy.yaml", brought, keys=private, promoters=[self / "alice.pub"], out=self / "out")

    def verify(self, *keys: str, observed: str = "observed.json", **options: object):
        public = [self / f"{key}.pub" for key in keys or ("alice",)]
        return verify_files(self.attestation, self / observed, public, **options)  # type: ignore[arg-type]

    def invoke(self, command, *arguments: object) -> Result:
        return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=True)


def _lay_out(folder: Path, **changes: object) -> Desk:
    """Everything that a promotion of `promotion_examples` needs, made now and signed."""
    requires = [need("integrity", mode="scripted", min_cases=2), need("parity"), need("release-log", name="canary-events")]
    claims = [{"id": "SC-3.2", "statement": "A payment is made once.", "requires": requires}]
    (folder / "policy.yaml").write_text(policy(**({"claims": claims} | changes)).model_dump_json())
    for name in ("alice", "bob", "mallory", "evaluator"):
        key_files(folder, name)
    write_manifest(made.manifest(), folder / "manifest.json")
    write_manifest(made.observed(), folder / "observed.json")
    (folder / "requirements.txt").write_text("".join(reversed(made.REQUIREMENTS.splitlines(keepends=True))))
    register_policy(folder / "policy.yaml", folder / "alice.pem", folder / "registration.dsse.json")
    moment = now()
    records = {
        "run": run(case(1, finished_at=moment), case(2, finished_at=moment), at=moment),
        "parity": parity(judged_on=moment.date()),
        "log": check("release-log", finished_at=moment),
    }
    for name, record in records.items():
        (folder / f"{name}.json").write_text(record.model_dump_json())
        done = CliRunner().invoke(
            attest,
            [str(folder / f"{name}.json"), "--key", str(folder / "evaluator.pem"), "--out", str(folder / f"{name}.dsse.json")],
        )
        assert done.exit_code == 0, done.output
    brought = Brought(
        manifest=folder / "manifest.json",
        observed=folder / "observed.json",
        registration=folder / "registration.dsse.json",
        evidence=tuple(folder / f"{name}.dsse.json" for name in records),
        evaluation_keys=(folder / "evaluator.pub",),
        lock=folder / "requirements.txt",
    )
    return Desk(folder, brought)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return _lay_out(tmp_path, provenance=["lockfile"])


@pytest.fixture
def two(tmp_path: Path) -> Desk:
    """A promotion that two people must sign."""
    return _lay_out(tmp_path, signatures=2)


def test_a_promotion_holds_where_the_same_release_runs(desk: Desk) -> None:
    gated = desk.gate()
    assert (gated.exit_code, gated.promotion.outcome) == (0, "pass")
    assert not desk.verify(stage="production").refused
    assert not desk.verify(observed="manifest.json").refused, "a declared manifest is held against the declared fingerprint"


def test_what_is_written_is_read_by_others(desk: Desk) -> None:
    gated = desk.gate()
    assert [path.name for path in gated.files] == [
        "promotion.dsse.json",
        "vsa.dsse.json",
        "auditgap-junit.xml",
        "auditgap.sarif",
        "summary.md",
    ]
    envelope = json.loads((desk / "out/vsa.dsse.json").read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert statement["subject"][0]["digest"]["sha256"] == made.RELEASE.removeprefix("sha256:")
    assert statement["predicate"]["verificationResult"] == "PASSED"
    assert statement["predicate"]["policy"]["digest"]["sha256"] == gated.promotion.policy.removeprefix("sha256:")
    Envelope.from_dict(envelope).verify([load_public_key(desk / "alice.pub")], 1)
    suite = ET.parse(desk / "out/auditgap-junit.xml").getroot()[0]
    cases = suite.findall("testcase")
    assert len(cases) == len(gated.promotion.criteria) and not suite.findall(".//failure") + suite.findall(".//error")
    report = Sarif.model_validate_json((desk / "out/auditgap.sarif").read_bytes())
    assert report.runs[0].results == []


def test_what_blocks_is_a_failure_or_an_error_in_every_format(desk: Desk) -> None:
    gated = desk.gate(evidence=desk.brought.evidence[:1], observed=None)
    assert (gated.exit_code, gated.promotion.outcome) == (3, "hold")
    root = ET.parse(desk / "out/auditgap-junit.xml").getroot()
    assert len(root.findall(".//error")) == 3
    report = Sarif.model_validate_json((desk / "out/auditgap.sarif").read_bytes())
    assert {result.rule_id for result in report.runs[0].results or []} == {
        "manifest:observed",
        "parity:parity-1",
        "release-log:release-log-1",
    }
    vsa = json.loads(base64.b64decode(json.loads((desk / "out/vsa.dsse.json").read_text())["payload"]))
    assert vsa["predicate"]["verificationResult"] == "FAILED"
    assert desk.verify().refused[0].startswith("the gate decided hold: ")


@pytest.mark.parametrize("place", ["payload", "signature"])
def test_a_tampered_attestation_is_refused(desk: Desk, place: str) -> None:
    desk.gate(evidence=())
    envelope = json.loads(desk.attestation.read_text())
    if place == "payload":
        payload = base64.b64decode(envelope["payload"]).replace(b'"outcome":"hold"', b'"outcome":"pass"')
        envelope["payload"] = base64.b64encode(payload).decode()
    else:
        signature = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
        signature[0] ^= 1
        envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    desk.attestation.write_bytes(canonical_json(envelope))
    with pytest.raises(EvidenceInvalid, match="signatures"):
        desk.verify()


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"payload":"","payload":""}', b"[" * 100_000])
def test_what_is_no_attestation_is_refused(desk: Desk, data: bytes) -> None:
    desk.attestation.parent.mkdir()
    desk.attestation.write_bytes(data)
    with pytest.raises(EvidenceInvalid, match="envelope"):
        desk.verify()


def test_another_signed_statement_is_no_promotion(desk: Desk) -> None:
    desk.gate()
    desk.attestation.write_bytes((desk / "registration.dsse.json").read_bytes())
    with pytest.raises(EvidenceInvalid, match="promotion/v1"):
        desk.verify()
    desk.attestation.write_bytes((desk / "out/vsa.dsse.json").read_bytes())
    with pytest.raises(EvidenceInvalid, match="promotion/v1"):
        desk.verify()


def test_a_key_that_is_not_trusted_promotes_nothing(desk: Desk) -> None:
    desk.gate("mallory", registration=desk / "registration.dsse.json")
    with pytest.raises(EvidenceInvalid, match="got 0"):
        desk.verify("alice")


def test_another_fingerprint_another_stage_and_another_day_are_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.gate()
    write_manifest(made.observed("Be quick."), desk / "other.json")
    (refused,) = desk.verify(observed="other.json").refused
    assert "fingerprint" in refused
    (refused,) = desk.verify(stage="canary").refused
    assert "production" in refused
    for days, said in ((15, "expired"), (-1, "future")):
        later = now() + dt.timedelta(days=days)
        monkeypatch.setattr("auditgap.release.promotion.verifying.present", lambda later=later: later)
        assert said in " ".join(desk.verify().refused)
    monkeypatch.setattr("auditgap.release.promotion.verifying.present", lambda: now() + dt.timedelta(days=3))
    assert not desk.verify().refused and "3 days old" in desk.verify(max_age_days=2).refused[0]


def test_two_people_must_sign_and_one_of_them_is_not_two(two: Desk) -> None:
    two.gate("alice")
    for keys in (("alice", "bob"), ("alice",)):
        with pytest.raises(EvidenceInvalid, match="2"):
            two.verify(*keys)
    with pytest.raises(UsageError, match="signed already"):
        cosign_file(two.attestation, two / "alice.pem", first=two / "alice.pub")
    with pytest.raises(EvidenceInvalid):
        cosign_file(two.attestation, two / "bob.pem", first=two / "mallory.pub")
    right = (two / "out/vsa.dsse.json").read_bytes()
    (two / "out/vsa.dsse.json").write_bytes(two.attestation.read_bytes())
    with pytest.raises(EvidenceInvalid, match="another statement"):
        cosign_file(two.attestation, two / "bob.pem", first=two / "alice.pub")
    (two / "out/vsa.dsse.json").write_bytes(right)
    cosign_file(two.attestation, two / "bob.pem", first=two / "alice.pub")
    verified = two.verify("alice", "bob")
    assert not verified.refused and len(verified.signed_by) == 2
    trusted = [load_public_key(two / "alice.pub"), load_public_key(two / "bob.pub")]
    assert Envelope.from_dict(json.loads((two / "out/vsa.dsse.json").read_text())).verify(trusted, 2)
    with pytest.raises(EvidenceInvalid):
        two.verify("alice", "mallory")
    with pytest.raises(UsageError, match="asked were 2"):
        two.verify("alice", "alice", signatures=2)


def test_a_promotion_that_asks_for_fewer_signatures_than_are_trusted_gets_no_further(desk: Desk) -> None:
    desk.gate("alice")
    with pytest.raises(EvidenceInvalid, match="2 of the 2"):
        desk.verify("alice", "bob")
    assert not desk.verify("alice", "bob", signatures=1).refused


def test_who_evaluates_does_not_promote(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not promote"):
        desk.gate("evaluator")
    with Store.open(tmp_path / "store") as store:
        store.add_decision(made.decision())
    for role in ("evaluation", "gate"):
        with pytest.raises(UsageError, match="does not promote"):
            desk.gate(f"store/keys/{role}", store=tmp_path / "store")


def test_a_decision_without_its_evidence_in_the_store_is_not_bound_to_any_model(tmp_path: Path) -> None:
    claims = [{"id": "SC-1", "statement": "s", "requires": [need("evaluation")]}]
    desk = _lay_out(tmp_path, claims=claims, suite=None)
    with Store.open(tmp_path / "store") as store:
        store.add_decision(made.decision(at=now()))
    gated = desk.gate(store=tmp_path / "store")
    (line,) = [c for c in gated.promotion.criteria if c.id == "evaluation:evaluation-1"]
    assert line.status == "missing" and "a model of which the store holds no evidence" in line.reason


def test_a_decision_in_a_store_is_bound_to_the_weights_that_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "evidence")
    from ledger_examples import fill

    claims = [{"id": "SC-1", "statement": "s", "requires": [need("evaluation")]}]
    desk = _lay_out(tmp_path, claims=claims, suite=None)
    with Store.open(tmp_path / "store") as store:
        fill(store)
    gated = desk.gate(store=tmp_path / "store", evidence=())
    assert gated.promotion.outcome == "pass", gated.promotion.criteria
    weights = component("weights", "main", {"model.safetensors": {"content": digest_of(b"others"), "size": 6}}, source="model")
    parts = tuple(weights if c.kind == "weights" else c for c in made.manifest().components)
    write_manifest(made.manifest().model_copy(update={"components": parts}), desk / "other.json")
    (line,) = [c for c in desk.gate(store=tmp_path / "store", manifest=desk / "other.json").promotion.criteria if c.claim]
    assert line.status == "missing" and "whose weights the manifest does not hold" in line.reason


def test_evidence_that_nobody_trusted_signed_is_refused(desk: Desk) -> None:
    with pytest.raises(EvidenceInvalid, match=r"run\.dsse\.json"):
        desk.gate(evaluation_keys=(desk / "mallory.pub",))
    with pytest.raises(UsageError, match="--evaluation-key"):
        desk.gate(evaluation_keys=())


def test_a_registration_is_not_replaced_and_must_be_a_promoters(desk: Desk) -> None:
    with pytest.raises(UsageError, match="already"):
        register_policy(desk / "policy.yaml", desk / "alice.pem", desk / "registration.dsse.json")
    register_policy(desk / "policy.yaml", desk / "mallory.pem", desk / "theirs.dsse.json")
    with pytest.raises(EvidenceInvalid):
        desk.gate(registration=desk / "theirs.dsse.json")


def test_the_commands_say_it_in_exit_codes(desk: Desk) -> None:
    options = ["--policy", desk / "policy.yaml", "--manifest", desk / "manifest.json", "--key", desk / "alice.pem"]
    options += ["--out", desk / "out", "--from", "staging", "--to", "production"]
    bare = desk.invoke(gate, *options)
    assert bare.exit_code == 3 and bare.output.startswith("## HOLD")
    for path in desk.brought.evidence:
        options += ["--evidence", path]
    options += ["--evaluation-key", desk / "evaluator.pub", "--registration", desk / "registration.dsse.json"]
    options += ["--observed", desk / "observed.json", "--lock", desk / "requirements.txt"]
    passed = desk.invoke(gate, *options)
    assert passed.exit_code == 0 and "## PASS" in passed.output
    shown = ["--observed", desk / "observed.json", "--attestation", desk.attestation]
    fine = desk.invoke(verify, *shown, "--key", desk / "alice.pub")
    assert (fine.exit_code, "may run in production" in fine.output) == (0, True)
    wrong = desk.invoke(verify, *shown, "--key", desk / "alice.pub", "--stage", "canary")
    assert (wrong.exit_code, "refused: " in wrong.output) == (1, True)
    forged = desk.invoke(verify, *shown, "--key", desk / "bob.pub")
    assert isinstance(forged.exception, AuditgapError) and forged.exception.exit_code == 4
    second = desk.invoke(cosign, desk.attestation, "--key", desk / "bob.pem", "--first", desk / "alice.pub")
    assert second.exit_code == 0 and "## PASS" in second.output
    document = json.loads(desk.invoke(verify, *shown, "--key", desk / "alice.pub", "--json").stdout)
    assert document["refused"] == [] and document["promotion"]["outcome"] == "pass"
    again = desk.invoke(register, "--policy", desk / "policy.yaml", "--key", desk / "alice.pem", "--out", desk / "r2.json")
    assert again.exit_code == 0 and again.output.startswith("registered policy sha256:")


def test_the_shipped_example_is_a_policy() -> None:
    example = Path(__file__).parents[2] / "examples" / "promotion-policy.yaml"
    assert load_promotion_policy(example, from_stage="staging", to_stage="production").signatures == 1


def test_the_attestation_is_the_record(desk: Desk) -> None:
    gated = desk.gate()
    key = load_public_key(desk / "alice.pub")
    record, verified = open_signed(desk.attestation.read_bytes(), Promotion, trusted=[key], threshold=1)
    assert record == gated.promotion and verified.keyids == (key.keyid,)


# -- logs


def _stream(folder: Path, *events: dict[str, object]) -> Path:
    log = EventLog(folder / "events.jsonl")
    for event in events:
        log.add(**event)  # type: ignore[arg-type]
    log.close()
    return folder / "events.jsonl"


ASKED = {"kind": "model_request", "call_id": "m1", "outcome": "read"}
CALLED = {"kind": "call", "call_id": "1", "tool": "transfer"}


@pytest.mark.parametrize(
    ("events", "verdict"),
    [
        (
            [ASKED, {"kind": "model_response", "call_id": "m1", "outcome": "ok"}, CALLED, {"kind": "result", "call_id": "1"}],
            "passed",
        ),
        ([], "inconclusive"),
        ([{"kind": "audit"}], "inconclusive"),
        ([ASKED], "failed"),
        ([CALLED, CALLED, {"kind": "result", "call_id": "1"}], "failed"),
        ([ASKED, {"kind": "model_response", "call_id": "m1", "outcome": "upstream_failed"}], "failed"),
        ([ASKED | {"outcome": "unreadable"}, {"kind": "model_response", "call_id": "m1", "outcome": "ok"}], "failed"),
        ([CALLED, {"kind": "result", "call_id": "1"}, {"kind": "fault_fired", "name": "f"}], "inconclusive"),
    ],
)
def test_a_canary_log_passes_only_if_all_was_read_and_answered_and_nothing_injected(
    tmp_path: Path, events: list[dict[str, object]], verdict: str
) -> None:
    write_manifest(made.manifest(), tmp_path / "manifest.json")
    stream = _stream(tmp_path, *events)
    options = [str(stream), "--manifest", str(tmp_path / "manifest.json"), "--out", str(tmp_path / "check.json")]
    done = CliRunner().invoke(log, options)
    assert done.exit_code == 0 and done.output.startswith(f"{verdict}: ")
    record = ReleaseCheck.model_validate_json((tmp_path / "check.json").read_text())
    assert (record.verdict, record.manifest, record.content) == (verdict, made.RELEASE, digest_of(stream.read_bytes()))


def test_what_is_no_event_stream_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("not an event\n")
    write_manifest(made.manifest(), tmp_path / "manifest.json")
    with pytest.raises(PlanError):
        check_log_file(tmp_path / "events.jsonl", tmp_path / "manifest.json", name="n")


# -- provenance


def _slsa(folder: Path, *, about: str, key: str = "builder") -> tuple[Path, Path]:
    private, public = key_files(folder, key)
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model.safetensors", "digest": {"sha256": about.removeprefix("sha256:")}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": {}, "runDetails": {"builder": {"id": "https://builder.example/v1"}}},
    }
    envelope = Envelope(payload=json.dumps(statement).encode(), payload_type="application/vnd.in-toto+json", signatures={})
    envelope.sign(CryptoSigner(load_pem_private_key(private.read_bytes(), None)))
    path = folder / "build.sigstore.json"
    path.write_text(
        json.dumps({"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "dsseEnvelope": envelope.to_dict()})
    )
    return path, public


def test_a_lockfile_an_sbom_and_a_build_show_what_was_checked_and_no_more(tmp_path: Path) -> None:
    lock, sbom = tmp_path / "uv.lock", tmp_path / "bom.json"
    lock.write_text('[[package]]\nname = "httpx"\nversion = "0.28.1"\n')
    components = [{"type": "library", "name": "httpx", "version": "0.28.1"}]
    sbom.write_text(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.7", "components": components}))
    build, public = _slsa(tmp_path, about=made.WEIGHTS.content)
    found = {i.kind: i for i in provenance_of(made.manifest(), lock=lock, sbom=sbom, build=build, build_key=public)}
    assert found["lockfile"].wrong == ("the manifest declares another lockfile",)
    assert found["sbom"].verified[1] == "holds all 1 locked packages by name and version"
    assert found["sbom"].content == digest_of(sbom.read_bytes())
    assert found["build"].verified[2] == "is about model.safetensors"
    assert found["build"].open == ("certificate and transparency log of the bundle were not checked",)
    (unchecked,) = provenance_of(made.manifest(), build=build)
    assert unchecked.verified == ()
    sbom.write_text(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.7", "components": []}))
    assert "1 of 1 locked packages" in provenance_of(made.manifest(), lock=lock, sbom=sbom)[1].wrong[0]


def test_a_build_of_something_else_or_by_somebody_else_does_not_count(tmp_path: Path) -> None:
    build, public = _slsa(tmp_path, about=digest_of(b"something else"))
    (item,) = provenance_of(made.manifest(), build=build, build_key=public)
    assert item.wrong == ("it is about nothing that this release holds",)
    _, other = key_files(tmp_path, "other")
    with pytest.raises(DataError, match="no signature holds"):
        provenance_of(made.manifest(), build=build, build_key=other)


@pytest.mark.parametrize("text", ["", "[]", '{"bomFormat": "SPDX"}', '{"a": 1, "a": 2}'])
def test_a_file_that_is_no_sbom_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bom.json"
    path.write_text(text)
    with pytest.raises(DataError):
        provenance_of(made.manifest(), sbom=path)


@pytest.mark.parametrize("text", ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key.pub"
    path.write_text(text)
    with pytest.raises(UsageError, match="public key"):
        load_public_key(path)


def test_the_workflow_uses_commands_and_options_that_exist() -> None:
    workflow = yaml.safe_load((Path(__file__).parents[2] / "examples" / "github-release-gate.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    lines = "\n".join(step.get("run", "") for step in steps).replace("\\\n", " ").splitlines()
    commands = {"attest": attest, "gate": gate, "log": log, "verify": verify}
    used = set()
    for words in (line.split() for line in lines if "auditgap release" in line):
        name = words[words.index("release") + 1]
        if name in commands:
            used.add(name)
            known = {option for parameter in commands[name].params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known
    assert used == set(commands)
