"""What cited evidence is worth: judged alone for doubt, held against the whole store for what speaks against it."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditgap.errors import PlanError, UsageError
from auditgap.governance import Judged
from auditgap.governance.safety_case import DoubtTable, Leaf, doubt_table, holdings, judge_leaf
from auditgap.governance.safety_case.records import Citing, EnteredDoubt, Solution
from governance import judged_examples as made

CLAIM = made.claim("rate", "observable", "refusal-rate", "option-preference")
TABLE = made.table(made.row(carries_at=1, max_tier=3))
AGE = {"current": 0, "undated": 0, "stale": 1}


def cite(*cited: Citing, doubt: EnteredDoubt | None = None) -> Solution:
    return Solution(id="Sn", text="t", claim="claim", evidence=cited or (Citing(instrument="refusal-rate"),), doubt=doubt)


def judge(*held: Judged, solution: Solution | None = None, today: dt.date = made.TODAY) -> Leaf:
    return judge_leaf(solution or cite(), CLAIM, held, TABLE, doubt_table(), subject=made.SUBJECT, today=today)


def test_evidence_that_carries_the_claim_leaves_the_doubt_of_the_table() -> None:
    found = judge(made.judged())
    assert (found.support, found.tier, found.doubt, found.timeliness) == ("supported", 1, doubt_table().supported[1], "current")
    assert found.health == "amber" and "F1.no-independent-rerun" in found.fragile
    rerun = judge(made.judged(), made.judged(keyid="key-b"))
    assert rerun.health == "green" and not rerun.fragile


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ([], "the store holds no refusal-rate"),
        ([made.judged(about="other")], "is about another subject"),
        ([made.judged(controls=[made.control(passed=False)])], "does not count"),
        ([made.judged(verdict="refuted")], "speaks against 'claim'"),
        ([made.judged(), made.judged("option-preference", "refuted")], "evidence in the store that the case does not cite"),
    ],
)
def test_what_does_not_carry_the_claim_is_full_doubt_and_says_why(held: list[Judged], said: str) -> None:
    found = judge(*held)
    assert (found.doubt, found.health) == (1.0, "red")
    assert any(said in why for why in found.why)


def test_what_the_case_does_not_cite_does_not_help_it() -> None:
    strong = made.judged("option-preference")
    assert judge(strong).doubt == 1.0
    statement = cite(Citing(statement=strong.digest))
    assert judge(strong, made.judged(), solution=statement).evidence == (strong.digest,)


def test_a_close_name_is_offered() -> None:
    said = judge(made.judged("refusal-rat"), solution=cite(Citing(instrument="refusal-rates"))).why
    assert said == ("the store holds no refusal-rates - did you mean 'refusal-rat'?",)


def test_a_named_person_raises_doubt_and_never_lowers_it() -> None:
    more = EnteredDoubt(at_least=0.9, who="Reviewer", why="too few prompts")
    found = judge(made.judged(), solution=cite(doubt=more))
    assert found.doubt == 0.9 and "Reviewer sees a doubt of at least 0.9: too few prompts" in found.why
    less = more.model_copy(update={"at_least": 0.0})
    assert judge(made.judged(), solution=cite(doubt=less)).doubt == doubt_table().supported[1]


def test_an_old_run_beside_a_new_one_is_not_stale() -> None:
    old = made.judged(expires=made.TODAY - dt.timedelta(days=1))
    assert judge(old).timeliness == "stale"
    assert judge(old, made.judged(seed=1)).timeliness == "current"
    assert judge(old).expires == made.TODAY - dt.timedelta(days=1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(0, 40), st.integers(0, 40))
def test_as_days_pass_only_timeliness_moves_and_only_downwards(expiries: list[int], one: int, other: int) -> None:
    days = [made.TODAY + dt.timedelta(days=d) for d in expiries]
    held = [made.judged(seed=i, expires=day, keyid=key) for i, day in enumerate(days) for key in ("key-a", "key-b")]
    early, late = (judge(*held, today=made.TODAY + dt.timedelta(days=d)) for d in sorted((one, other)))
    assert AGE[late.timeliness] >= AGE[early.timeliness]
    assert (late.doubt, late.health, late.support) == (early.doubt, early.health, early.support)
    assert early.health == "green"
    assert late.timeliness == ("stale" if max(one, other) > max(expiries) else "current")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([(), made.GOOD]), st.integers(0, 3)), min_size=1, max_size=4))
def test_more_agreeing_evidence_never_raises_doubt(runs: list[tuple[tuple[str, ...], int]]) -> None:
    held = [made.judged(properties=shown, seed=seed) for shown, seed in runs]  # type: ignore[arg-type]
    doubts = [judge(*held[: n + 1]).doubt for n in range(len(held))]
    assert doubts == sorted(doubts, reverse=True)


def test_the_order_of_the_evidence_does_not_matter() -> None:
    held = [made.judged(), made.judged(seed=1), made.judged("option-preference", "refuted")]
    assert judge(*held) == judge(*reversed(held))


@pytest.mark.parametrize(
    "supported", [(1.0, 0.2, 0.3, 0.1, 0.1, 0.1), (1.0, 0.9, 0.9, 0.9, 0.9, 0.9), (1.5, 0.2, 0.1, 0.1, 0.1, 0.1)]
)
def test_a_table_in_which_better_evidence_leaves_more_doubt_is_refused(supported: tuple[float, ...], tmp_path) -> None:
    shipped = doubt_table()
    assert isinstance(shipped, DoubtTable) and "ours" in shipped.entered_by
    said = f"entered_by: me\nreview_date: 2027-01-01\nsources: [{{ref: r, verified: read}}]\nsupported: {list(supported)}\n"
    (tmp_path / "t.yaml").write_text(said + "partially_supported: [1.0, 0.8, 0.7, 0.6, 0.5, 0.5]\n")
    with pytest.raises(PlanError, match=r"never rise|swap them"):
        doubt_table(tmp_path / "t.yaml")


def test_no_store_is_no_evidence(tmp_path) -> None:
    from auditgap.evidence import Store

    with Store.open(tmp_path / "store"):
        pass
    with pytest.raises(UsageError, match="expected one subject in the store, found 0"):
        holdings(tmp_path / "store")
