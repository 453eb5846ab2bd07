"""Capability beside FLOP: bars, routes, and the blind spot."""

import pytest
from compute_examples import EXAMPLES, against, ledger, model, result, update
from hypothesis import given
from hypothesis import strategies as st

from auditgap.errors import PlanError
from auditgap.governance.compute import Ledger, read_ledger, rule_sets


def evidence(score: object, *, bar: float = 0.65, **fields: object) -> dict[str, object]:
    return {"benchmark": "questions", "score": score, "bar": bar, "registered": "2026-05-01", "measured": "2026-06-01"} | fields


def book(flop: float, *results: dict[str, object]) -> Ledger:
    return ledger(model("m", update(flop), capability=list(results)))


@pytest.fixture(scope="module")
def pair() -> Ledger:
    return read_ledger(EXAMPLES / "blind-spot.yaml")


def test_equal_capability_on_both_sides_of_the_line(pair: Ledger) -> None:
    dense, sparse = against(pair, "dense"), against(pair, "sparse")
    assert dense.total.counted.mid == pytest.approx(1.5e25, rel=1e-3) and sparse.total.counted.mid == pytest.approx(
        8e24, rel=1e-3
    )
    assert (dense.verdict, dense.best_estimate) == ("above", "above")
    assert (sparse.verdict, sparse.best_estimate) == ("straddles", "below")
    assert dense.blind_spot is None
    assert sparse.blind_spot is not None
    for part in ("8.00e24", "1.00e25", "2 of 2", "Article 51(1)(a) and (b)", "catches dense, with no more capability"):
        assert part in sparse.blind_spot
    assert sparse.all_parameters == "above"


def test_no_evidence_no_note(pair: Ledger) -> None:
    silent = pair.model_copy(update={"models": tuple(m.model_copy(update={"capability": ()}) for m in pair.models)})
    assert against(silent, "sparse").blind_spot is None
    assert result(silent, "sparse").regimes[0].routes[0].trigger == "no evidence"


@pytest.mark.parametrize(
    ("score", "verdict", "trigger", "noted"),
    [
        (0.64, "below", "not reached", False),
        (0.65, "above", "reached", True),
        ({"low": 0.6, "mid": 0.7, "high": 0.8}, "straddles", "unclear", False),
        ({"low": 0.66, "mid": 0.7, "high": 0.8}, "above", "reached", True),
        ("71 %", "above", "reached", True),
    ],
)
def test_a_score_against_its_bar(score: object, verdict: str, trigger: str, noted: bool) -> None:
    found = result(book(1e24, evidence(score)), "m")
    assert found.capability[0].verdict == verdict
    assert found.regimes[0].routes[0].trigger == trigger
    assert (against(book(1e24, evidence(score)), "m").blind_spot is not None) == noted


@pytest.mark.parametrize(("score", "verdict"), [(0.3, "above"), (0.65, "above"), (0.9, "below")])
def test_a_benchmark_where_lower_is_better(score: float, verdict: str) -> None:
    assert result(book(1e24, evidence(score, better="lower")), "m").capability[0].verdict == verdict


@given(st.floats(min_value=1e20, max_value=1e27), st.floats(min_value=0, max_value=1))
def test_more_compute_or_less_capability_never_adds_a_note(flop: float, score: float) -> None:
    noted = against(book(flop, evidence(score)), "m").blind_spot is not None
    assert noted == (flop <= 1e25 and score >= 0.65)


def test_any_result_above_its_bar_is_enough_and_is_named() -> None:
    found = against(book(1e24, evidence(0.1), evidence(0.9, benchmark="tasks")), "m").blind_spot
    assert found is not None and "1 of 2 capability results reach their registered bar (tasks)" in found


def test_a_bar_set_after_the_score_counts_and_is_called_late() -> None:
    late = evidence(0.7, registered="2026-07-01")
    assert result(book(1e24, late), "m").capability[0].registered_first is False
    assert "set after its score" in str(against(book(1e24, late), "m").blind_spot)
    assert "set after its score" not in str(against(book(1e24, evidence(0.7)), "m").blind_spot)


def test_a_regime_without_a_capability_route_says_so_and_a_rescinded_one_is_silent() -> None:
    rules = rule_sets()
    strong = book(1e24, evidence(0.7))
    assert "no other way in" in str(against(strong, "m", "frontier-model", rules["us-ca-sb53"]).blind_spot)
    assert against(strong, "m", "reporting", rules["us-eo-14110"]).blind_spot is None


def test_a_model_that_shows_less_is_not_compared() -> None:
    strong, weak = evidence(0.9), evidence(0.7)
    both = ledger(model("big", update(2e25), capability=[strong]), model("small", update(1e24), capability=[weak]))
    assert "catches" not in str(against(both, "small").blind_spot)
    level = ledger(model("big", update(2e25), capability=[weak]), model("small", update(1e24), capability=[strong]))
    assert "catches big" in str(against(level, "small").blind_spot)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bar": "high"}, r"capability\.0\.bar: .*expected a number of score"),
        ({"registered": "May"}, r"capability\.0\.registered"),
        ({"better": "up"}, r"capability\.0\.better"),
    ],
)
def test_bad_evidence_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        book(1e24, evidence(0.7) | change)
