import datetime as dt

import pytest
from ledger_examples import CARD, SUBJECT, assessment, decision, evidence, registration

from auditgap.errors import EvidenceInvalid, RegistrationError, StoreError, UsageError
from auditgap.evidence import Store, verify
from auditgap.evidence.checkpoint import parse_checkpoint
from auditgap.evidence.ledger import leaf_of
from auditgap.evidence.merkle import verify_consistency, verify_inclusion
from auditgap.records import digest_of, now


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s") as opened:
        yield opened


def test_what_was_added_comes_back_with_who_signed_it(store):
    plan = registration()
    registered = store.register(plan)
    ran = store.add_evidence(evidence(plan, registered))
    judged = store.add_assessment(assessment(ran))
    decided = store.add_decision(decision(judged, evidence=ran))
    assert [(s.digest, s.record, s.role) for s in store.registrations()] == [(registered, plan, "evaluation")]
    assert [(s.digest, s.record.result.verdict, s.role) for s in store.evidence()] == [(ran, "supported", "evaluation")]
    assert [(s.digest, s.record.claim) for s in store.assessments()] == [(judged, "truthful")]
    assert [(s.digest, s.role, s.keyid) for s in store.decisions()] == [(decided, "gate", store.keyring.show()["gate"])]
    assert [row.kind for row in store.statements()] == ["key", "registration", "evidence", "assessment", "key", "decision"]
    assert store.registration(registered) == plan
    assert store.find_registration(plan.spec()) == registered
    assert len(store) == 6
    assert verify(store.folder).ok


def test_the_first_statement_is_the_evaluation_key_even_if_a_decision_comes_first(store):
    store.add_decision(decision())
    assert [key[:1] + key[-1:] for key in list(store.keys())] == [("evaluation", 0), ("gate", 1)]
    assert verify(store.folder).ok


def test_store_opened_again_holds_the_same(store, tmp_path):
    store.register(registration())
    root, checkpoint = store.root(), store.checkpoint()
    with Store.open(tmp_path / "s", create=False) as again:
        assert (again.root(), again.checkpoint(), len(again)) == (root, checkpoint, 2)
        again.register(registration("next"))
    store.register(registration("third"))  # catches up with the other one
    assert len(store) == 4
    assert verify(store.folder).ok


def test_registering_the_same_run_again_gives_the_first_registration(store):
    first = store.register(registration(at=now() - dt.timedelta(days=1)))
    assert store.register(registration()) == first
    assert len(store.registrations()) == 1
    assert store.register(registration(value=0.8)) != first


def test_adding_the_same_statement_twice_writes_it_once(store):
    plan = registration()
    result = evidence(plan, store.register(plan))
    assert store.add_evidence(result) == store.add_evidence(result)
    assert len(store.evidence()) == 1


def test_evidence_is_found_by_specification_so_that_a_run_resumes(store):
    plan = registration()
    digest = store.register(plan)
    assert store.evidence_for(plan.spec()) == []
    store.add_evidence(evidence(plan, digest))
    assert [s.record.step for s in store.evidence_for(plan.spec())] == ["probe"]
    assert store.evidence_for(registration(seed=1).spec()) == []
    store.add_evidence(evidence(plan, digest, auroc=0.91))  # an independent re-run
    assert len(store.evidence_for(plan.spec())) == 2


def test_evidence_without_registration_is_refused(store):
    plan = registration()
    with pytest.raises(RegistrationError, match="not earlier in the ledger: sign the registration first"):
        store.add_evidence(evidence(plan, digest_of(b"never")))
    assert store.evidence() == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"spec": registration(value=0.1).spec()}, "specification"),  # thresholds moved after the fact
        ({"spec": registration(seed=9).spec()}, "specification"),
        ({"step": "other"}, "step"),
        ({"instrument": "other"}, "instrument"),
        ({"version": "2"}, "instrument version"),
        ({"subject": SUBJECT.model_copy(update={"n_parameters": 4})}, "subject"),
        ({"started_at": now() - dt.timedelta(days=1)}, "before it was registered"),
    ],
)
def test_evidence_of_another_run_than_registered_is_refused(store, change, what):
    plan = registration()
    result = evidence(plan, store.register(plan))
    with pytest.raises(RegistrationError, match=what):
        store.add_evidence(result.model_copy(update=change))
    assert store.evidence() == []
    store.add_evidence(result)


def test_evidence_citing_another_kind_is_refused(store):
    plan = registration()
    ran = store.add_evidence(evidence(plan, store.register(plan)))
    with pytest.raises(RegistrationError, match="as registration, but that statement is a evidence"):
        store.add_evidence(evidence(plan, ran))


def test_decision_and_assessment_cite_what_is_there(store):
    with pytest.raises(UsageError, match="assessment cites evidence"):
        store.add_assessment(assessment(digest_of(b"never")))
    with pytest.raises(UsageError, match="decision cites assessment"):
        store.add_decision(decision(digest_of(b"never")))
    with pytest.raises(UsageError, match="decision cites evidence"):
        store.add_decision(decision(evidence=digest_of(b"never")))
    assert len(store) == 0  # not even a key was left behind


def test_unknown_registration_says_so(store):
    with pytest.raises(RegistrationError, match="no registration sha256"):
        store.registration(digest_of(b"never"))
    assert store.find_registration(digest_of(b"never")) is None


def test_record_that_cannot_be_canonical_is_refused(store):
    with pytest.raises(UsageError, match="cannot be signed"):
        store.register(registration().model_copy(update={"seed": 2**60}))
    assert len(store) == 0


def test_fractions_of_a_second_and_other_time_zones_are_stored_as_utc_seconds(store):
    at = dt.datetime(2026, 3, 1, 12, 0, 0, 987654, tzinfo=dt.timezone(dt.timedelta(hours=5)))
    digest = store.register(registration(at=at))
    assert store.registration(digest).registered_at == dt.datetime(2026, 3, 1, 7, tzinfo=dt.UTC)


def test_statement_is_found_by_the_beginning_of_its_digest(store):
    digest = store.register(registration())
    for prefix in (digest, digest[:12], digest.removeprefix("sha256:")[:8]):
        assert store.get(prefix).digest == digest
    assert store.statement(digest)["predicate"]["step"] == "probe"
    assert store.statement(digest)["subject"][0]["digest"]["sha256"] == SUBJECT.digest().removeprefix("sha256:")
    with pytest.raises(UsageError, match="found 0"):
        store.get("0" * 64)
    for wrong in ("", "sha256:", "ab%_", "xyz0", "f" * 65):
        with pytest.raises(UsageError, match="expected the beginning of a statement's digest"):
            store.get(wrong)


def test_ambiguous_prefix_lists_what_it_could_be(store):
    digests = [store.register(registration(seed=seed)) for seed in range(17)]  # two of them begin with the same digit
    first = [digest[7] for digest in digests]
    shared = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(UsageError, match=rf"found \d+: .*sha256:{shared}\w+, sha256:{shared}"):
        store.get(shared)


def test_proofs_from_the_store_verify(store):
    for seed in range(6):
        store.register(registration(seed=seed))
    old = parse_checkpoint(store.checkpoint())
    for seed in range(6, 9):
        store.register(registration(seed=seed))
    new = parse_checkpoint(store.checkpoint())
    proof = store.consistency_proof(old.size)
    assert verify_consistency(old_size=old.size, old_root=old.root, size=new.size, root=new.root, proof=proof)
    for row in store.statements():
        proof = store.inclusion_proof(row.leaf)
        assert verify_inclusion(leaf_of(row.digest), row.leaf, size=new.size, root=new.root, proof=proof)
    assert store.root() == f"sha256:{new.root.hex()}"


def test_blob_is_kept_once_and_checked_when_read(store):
    digest = store.put_blob(b"rows")
    assert store.put_blob(b"rows") == digest == digest_of(b"rows")
    assert store.get_blob(digest) == b"rows"
    path = store.folder / "blobs" / "sha256" / digest[7:9] / digest[9:]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    path.write_bytes(b"r0ws")
    with pytest.raises(EvidenceInvalid, match=f"blob {digest} holds other bytes"):
        store.get_blob(digest)
    path.unlink()
    with pytest.raises(StoreError, match=f"blob {digest} is not in"):
        store.get_blob(digest)
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        store.get_blob("../../etc/passwd")


def test_empty_store_has_no_checkpoint_and_does_not_count_as_false(store):
    assert store
    assert (len(store), store.checkpoint(), store.keys(), store.evidence()) == (0, None, [], [])


def test_altered_statement_is_refused_when_it_is_read(store):
    plan = registration()
    store.register(plan)
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE statement SET step = 'other' WHERE leaf = 1")
    with pytest.raises(EvidenceInvalid, match=r"statement 1 .*differs from the signed payload in step"):
        store.registrations()


def test_nothing_is_appended_to_a_ledger_that_does_not_match_its_checkpoint(store):
    for seed in range(3):
        store.register(registration(seed=seed))
    with store._engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM statement WHERE leaf = 3")
    with Store.open(store.folder) as fresh, pytest.raises(EvidenceInvalid, match="does not match its last signed checkpoint"):
        fresh.register(registration("next"))
    with pytest.raises(EvidenceInvalid, match="does not match its last signed checkpoint"):
        store.register(registration("next"))


def test_database_url_keeps_keys_and_blobs_where_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/ledger.db"
    with Store.open(url, keys=tmp_path / "k", blobs=str(tmp_path / "b")) as store:
        store.register(registration())
        store.put_blob(b"x")
    assert (tmp_path / "k" / "evaluation.pem").exists()
    assert (tmp_path / "b" / "sha256").is_dir()
    assert not (tmp_path / ".auditgap").exists()
    with Store.open(url) as store:
        store.put_blob(b"y")
    assert (tmp_path / ".auditgap" / "blobs").is_dir()


def test_blobs_go_to_any_fsspec_file_system(tmp_path):
    with Store.open(tmp_path, blobs="memory://bucket/blobs") as store:
        digest = store.put_blob(b"rows")
        assert store.get_blob(digest) == b"rows"
        assert not (tmp_path / "blobs").exists()


def test_card_that_changed_is_another_specification(store):
    first = store.register(registration())
    changed = registration().model_copy(update={"card": CARD.model_copy(update={"version": "2"})})
    assert store.register(changed) != first
