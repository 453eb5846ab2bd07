"""Closing: refused until a case breaks what shipped and holds on the fix, and then the gate asks for it."""

import datetime as dt
from pathlib import Path

import pytest
from incident_examples import case, gate_of, opened, planted, triaged, widened
from pydantic import ValidationError

from auditgap.errors import PlanError, UsageError
from auditgap.evidence import Store
from auditgap.incidents import Closed, add_case, close_incident, prove, read_case, with_case, write_case
from auditgap.incidents.corpus import check_corpus
from auditgap.incidents.reference import Tools, reference_release
from auditgap.records import Closing, now
from auditgap.release.cases import Suite, load_stimuli, load_suite, shipped
from auditgap.release.promotion import PromotionPolicy, load_promotion_policy

PLANT = planted("tool")
KNOWN, POLICY = gate_of("scripted")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_case(tmp_path / "corpus", KNOWN, load_stimuli(shipped(), KNOWN))
    return tmp_path / "corpus"


@pytest.fixture
def triaged_store(store: Store) -> Store:
    opened(store, PLANT.bad)
    triaged(store)
    return store


def _close(store: Store, corpus: Path, **changes: object) -> Closed:
    settings: dict[str, object] = {
        "affected": PLANT.bad,
        "fix": PLANT.good,
        "policy": POLICY,
        "corpus": corpus,
        "out": corpus.parent / "next.yaml",
        "contained_at": now(),
    }
    chosen, stimuli = changes.pop("case", PLANT.case), changes.pop("stimuli", PLANT.stimuli)
    return close_incident(store, "INC-1", chosen, stimuli, **(settings | changes))  # type: ignore[arg-type]


def test_a_case_that_breaks_and_holds_closes_it_and_raises_the_policy(triaged_store: Store, corpus: Path) -> None:
    closed = _close(triaged_store, corpus)
    assert closed.refused == () and closed.policy == load_promotion_policy(corpus.parent / "next.yaml")
    need = closed.policy.claims[0].requires[0]  # type: ignore[union-attr]
    assert need.evidence == "integrity" and (need.cases, need.min_cases) == ((PLANT.case.id,), 2)
    (closing,) = triaged_store.of(Closing)
    assert (closing.record.policy_before, closing.record.policy_after) == (POLICY.digest(), closed.policy.digest())  # type: ignore[union-attr]
    assert closing.record.suite_after == load_suite(corpus).digest() != POLICY.suite
    assert set(load_suite(corpus).digests()) == {KNOWN.id, PLANT.case.id}


def _untouched(store: Store, corpus: Path) -> bool:
    return not store.of(Closing) and not (corpus.parent / "next.yaml").exists() and len(list(corpus.glob("*.yaml"))) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"case": None, "stimuli": ()}, "there is no regression case"),
        ({"case": KNOWN, "stimuli": load_stimuli(shipped(), KNOWN)}, "HELD on the affected release"),
        ({"fix": reference_release("v13", tools=Tools(widened(), version="2"))}, "BROKEN on the fix"),
        ({"fix": PLANT.bad}, "fingerprint of the affected release"),
        ({"contained_at": None}, "not contained"),
    ],
)
def test_what_is_not_proven_stays_open_and_nothing_is_written(
    changes: dict[str, object], says: str, triaged_store: Store, corpus: Path
) -> None:
    policy = POLICY
    closed = _close(triaged_store, corpus, **changes, policy=policy)
    assert any(says in reason for reason in closed.refused), closed.refused
    assert closed.policy is None and closed.dossier.state == "triaged" and _untouched(triaged_store, corpus)


def test_without_triage_it_stays_open(store: Store, corpus: Path) -> None:
    opened(store, PLANT.bad)
    assert _close(store, corpus).refused == ("it was not triaged",)
    assert _untouched(store, corpus)


def test_a_case_that_cannot_fail_proves_nothing() -> None:
    """With the wrong control left out the case still holds: it does not depend on the control that it names."""
    idle = case(907, "wrong-control", "CTL-rate-limit", "pay-negative")
    proof = prove(idle, PLANT.stimuli, PLANT.bad, PLANT.good)
    assert proof.affected.verdict == "BROKEN"
    assert any("on the fix" in reason for reason in proof.missing)


def test_what_makes_no_sense_is_refused(triaged_store: Store, corpus: Path) -> None:
    with pytest.raises(UsageError, match="is about release"):
        _close(triaged_store, corpus, affected=PLANT.good)
    with pytest.raises(UsageError, match="found 0"):
        close_incident(
            triaged_store,
            "INC-9",
            PLANT.case,
            PLANT.stimuli,
            affected=PLANT.bad,
            fix=PLANT.good,
            policy=POLICY,
            corpus=corpus,
            out=corpus.parent / "next.yaml",
        )
    with pytest.raises(UsageError, match="a model or two without"):
        _close(triaged_store, corpus, fix=planted("model").good)
    with pytest.raises(UsageError, match="requirement of mode scripted"):
        _close(triaged_store, corpus, requirement="elsewhere")
    (corpus.parent / "next.yaml").write_text("kept")
    with pytest.raises(UsageError, match="there already"):
        _close(triaged_store, corpus)
    assert (corpus.parent / "next.yaml").read_text() == "kept" and not triaged_store.of(Closing)


def test_what_is_closed_or_a_false_alarm_is_not_closed_again(triaged_store: Store, corpus: Path) -> None:
    triaged(triaged_store, false_alarm=True)
    with pytest.raises(UsageError, match="false-alarm: there is nothing to close"):
        _close(triaged_store, corpus)
    triaged(triaged_store, why="It was real after all.")
    assert not _close(triaged_store, corpus).refused
    with pytest.raises(UsageError, match="closed: there is nothing to close"):
        _close(triaged_store, corpus)
    with pytest.raises(UsageError, match="is closed"):
        triaged(triaged_store)


def test_a_corpus_that_the_policy_does_not_name_is_refused(triaged_store: Store, corpus: Path) -> None:
    (corpus / f"{KNOWN.id}.yaml").write_text((corpus / f"{KNOWN.id}.yaml").read_text().replace("incident", "accident"))
    with pytest.raises(UsageError, match="holds the case set"):
        _close(triaged_store, corpus)


def test_a_case_or_stimulus_of_the_same_id_is_not_replaced(corpus: Path) -> None:
    write_case(corpus, PLANT.case, PLANT.stimuli)
    check_corpus(corpus, PLANT.case, PLANT.stimuli, POLICY)
    with pytest.raises(UsageError, match="another case"):
        check_corpus(corpus, PLANT.case.model_copy(update={"severity": "low"}), PLANT.stimuli, POLICY)
    changed = tuple(stimulus.model_copy(update={"user": "bo"}) for stimulus in PLANT.stimuli)
    other = PLANT.case.model_copy(update={"id": "RIC-908-other"})
    with pytest.raises(UsageError, match="another stimulus"):
        check_corpus(corpus, other, changed, _naming(corpus))
    with pytest.raises(PlanError, match="sabotage"):
        check_corpus(corpus, PLANT.case.model_copy(update={"sabotage": None, "id": "RIC-909-x"}), PLANT.stimuli, _naming(corpus))


def _naming(corpus: Path) -> PromotionPolicy:
    return POLICY.model_copy(update={"suite": load_suite(corpus).digest()})


def test_new_stimuli_join_those_of_their_file(corpus: Path) -> None:
    new = tuple(s.model_copy(update={"id": "pay-negative-again"}) for s in PLANT.stimuli)
    again = PLANT.case.model_copy(
        update={"id": "RIC-910-again", "stimulus": PLANT.case.stimulus.model_copy(update={"ids": ("pay-negative-again",)})}
    )
    promised = check_corpus(corpus, again, new, POLICY)
    write_case(corpus, again, new)
    suite = load_suite(corpus)
    assert promised.digest() == suite.digest()
    assert (again, new) in suite.cases and len(suite.cases) == 2
    assert read_case("RIC-910", corpus) == (again, new)


def test_an_empty_corpus_begins_as_the_shipped_cases(tmp_path: Path) -> None:
    policy = POLICY.model_copy(update={"suite": load_suite().digest()})
    promised = check_corpus(tmp_path / "new", PLANT.case, PLANT.stimuli, policy)
    add_case(tmp_path / "new", PLANT.case, PLANT.stimuli)
    suite = load_suite(tmp_path / "new")
    assert promised.digest() == suite.digest() and set(suite.digests()) == {*load_suite().digests(), PLANT.case.id}
    rest = Suite(tuple(pair for pair in suite.cases if pair[0].id != PLANT.case.id))
    assert rest.digest() == load_suite().digest()


def test_adding_a_case_twice_changes_the_policy_once() -> None:
    once = with_case(POLICY, PLANT.case, mode="scripted", suite=PLANT.bad.fingerprint)
    twice = with_case(once, PLANT.case, mode="scripted", suite=PLANT.bad.fingerprint)
    assert once.claims == twice.claims and {POLICY.name} == {once.name, twice.name}
    assert [p.version for p in (POLICY, once, twice)] == [1, 2, 3]


def test_an_incident_that_a_known_case_shows_closes_without_raising_the_count(store: Store, tmp_path: Path) -> None:
    """The case was in the set and not required: it is required now, and was counted before."""
    write_case(tmp_path / "corpus", PLANT.case, PLANT.stimuli)
    policy = POLICY.model_copy(update={"suite": load_suite(tmp_path / "corpus").digest()})
    opened(store, PLANT.bad)
    triaged(store)
    closed = _close(store, tmp_path / "corpus", policy=policy)
    assert closed.policy is not None and closed.policy.suite == policy.suite
    need = closed.policy.claims[0].requires[0]
    assert need.evidence == "integrity" and (need.cases, need.min_cases) == ((PLANT.case.id,), 1)


def test_stimuli_are_not_written_outside_the_corpus(corpus: Path) -> None:
    outside = PLANT.case.model_copy(update={"stimulus": PLANT.case.stimulus.model_copy(update={"suite": "../../stolen"})})
    with pytest.raises(UsageError, match="name of a file"):
        check_corpus(corpus, outside, PLANT.stimuli, POLICY)
    with pytest.raises(UsageError, match="name of a file"):
        write_case(corpus, outside, PLANT.stimuli)


def test_unknown_cases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="found 0"):
        read_case("RIC-999")
    with pytest.raises(PlanError, match="folder of cases"):
        read_case("RIC-001", tmp_path / "none")


def test_no_closing_can_say_what_was_not_shown(triaged_store: Store, corpus: Path) -> None:
    closing = _close(triaged_store, corpus).dossier.closing
    assert closing is not None
    said = closing.record.model_dump()
    for spoiled, says in (
        ({"affected_verdict": "HELD"}, "BROKEN on the affected"),
        ({"fix_sabotage": "HELD"}, "BROKEN there without its control"),
        ({"fix": said["affected"]}, "nothing was changed"),
        ({"policy_after": said["policy_before"]}, "let it pass again"),
        ({"contained_at": said["closed_at"] + dt.timedelta(hours=1)}, "after closed_at"),
    ):
        with pytest.raises(ValidationError, match=says):
            Closing.model_validate(said | spoiled)
