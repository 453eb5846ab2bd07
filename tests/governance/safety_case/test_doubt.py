"""Doubt is a bound whatever depends on what; evidence never raises it, defeaters never lower it, dates never enter it."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditgap.governance.safety_case import Case, Defeater, Goal, Leaf, Strategy, propagate
from governance.safety_case.case_examples import argued, built, leaf

TODAY = dt.date(2026, 11, 21)
RANK = {"red": 0, "amber": 1, "green": 2}
AGE = {"undated": 0, "current": 0, "stale": 1}
Argued = tuple[Case, dict[str, Leaf]]


def chain(*doubts: float) -> Argued:
    """A goal over a strategy over one goal per doubt, each with one solution."""
    leaves = {f"Sn{i}": leaf(f"Sn{i}", d) for i, d in enumerate(doubts)}
    goals = [Goal(id=f"L{i}", text="g", supported_by=(f"Sn{i}",)) for i in range(len(doubts))]
    top, strategy = (
        Goal(id="T", text="g", supported_by=("S",)),
        Strategy(id="S", text="s", supported_by=tuple(g.id for g in goals)),
    )
    return built([top, *goals], [strategy], leaves), leaves


def test_what_is_needed_together_adds_up() -> None:
    case, leaves = chain(0.1, 0.2, 0.05)
    found = propagate(case, leaves, TODAY)
    assert found["T"].doubt == pytest.approx(0.35)
    assert found["S"].why == ("rests most weakly on L1",)
    case, leaves = chain(0.5, 0.4, 0.3)
    assert propagate(case, leaves, TODAY)["T"].doubt == 1.0  # capped


def test_of_what_suffices_alone_the_least_doubt_counts() -> None:
    leaves = {"Sn0": leaf("Sn0", 0.3, "amber"), "Sn1": leaf("Sn1", 0.2, "red")}
    found = propagate(built([Goal(id="T", text="g", supported_by=("Sn0", "Sn1"))], [], leaves), leaves, TODAY)["T"]
    assert (found.doubt, found.health) == (0.2, "amber")


@settings(max_examples=60, deadline=None)
@given(argued(), st.data())
def test_no_joint_distribution_of_the_leaves_breaks_the_bound(made: Argued, data: st.DataObject) -> None:
    """Worlds with any weights: the share in which the top fails is at most the doubt, however the leaves depend on each other."""
    case, leaves = made
    worlds = data.draw(st.lists(st.sets(st.sampled_from(sorted(leaves) or ["none"])), min_size=1, max_size=6))
    failing = [{name for name in world if name in leaves} for world in worlds]
    share = {name: sum(name in world for world in failing) / len(worlds) for name in leaves}
    standings = propagate(case, {name: leaf(name, share[name]) for name in leaves}, TODAY)

    def holds(name: str, world: set[str]) -> bool:
        kind, below = case.kinds()[name], case.below(name)
        if kind == "solution":
            return name not in world
        if not below:
            return False
        if kind == "strategy":
            return all(holds(child, world) for child in below)
        goals = [child for child in below if case.kinds()[child] == "goal"]
        legs = [[child] for child in below if child not in goals] + ([goals] if goals else [])
        return any(all(holds(child, world) for child in leg) for leg in legs)

    for name, standing in standings.items():
        failed = sum(not holds(name, world) for world in failing) / len(worlds)
        assert failed <= standing.doubt + 1e-9


@settings(max_examples=60, deadline=None)
@given(argued(), st.data())
def test_more_evidence_never_raises_doubt(made: Argued, data: st.DataObject) -> None:
    case, leaves = made
    target = data.draw(st.sampled_from([goal.id for goal in case.goals]))
    new = leaf("new", data.draw(st.floats(0, 1)), data.draw(st.sampled_from(["green", "amber", "red"])))
    goals = [
        g.model_copy(update={"supported_by": (*g.supported_by, "new"), "undeveloped": None}) if g.id == target else g
        for g in case.goals
    ]
    more = {**leaves, "new": new}
    before, after = propagate(case, leaves, TODAY), propagate(built(goals, case.strategies, more), more, TODAY)
    for name, standing in before.items():
        assert after[name].doubt <= standing.doubt + 1e-12
        assert RANK[after[name].health] >= RANK[standing.health]


@settings(max_examples=60, deadline=None)
@given(argued(), st.data())
def test_a_defeater_never_lowers_doubt_and_an_open_one_makes_it_whole(made: Argued, data: st.DataObject) -> None:
    case, leaves = made
    target = data.draw(st.sampled_from([*(g.id for g in case.goals), *(s.id for s in case.strategies), *leaves]))
    status = data.draw(st.sampled_from(["open", "resolved", "accepted", "lapsed"]))
    more: dict[str, object] = {"resolved": {"reason": "r"}, "open": {}}.get(status, {"reason": "r", "who": "w"})
    if status in ("accepted", "lapsed"):
        more["until"] = TODAY + dt.timedelta(days=1 if status == "accepted" else -1)
    said = {"id": "D", "kind": "rebutting", "defeats": target, "text": "t", "status": status.replace("lapsed", "accepted")}
    attacked = case.model_copy(update={"defeaters": (Defeater.model_validate(said | more),)})
    before, after = propagate(case, leaves, TODAY), propagate(attacked, leaves, TODAY)
    for name, standing in before.items():
        assert after[name].doubt >= standing.doubt
        assert RANK[after[name].health] <= RANK[standing.health]
        assert after[name].timeliness == standing.timeliness
    if status in ("open", "lapsed"):
        assert (after[target].doubt, after[target].health) == (1.0, "red")
    else:
        assert after[target].doubt == before[target].doubt


@settings(max_examples=60, deadline=None)
@given(argued(), st.data())
def test_expiry_never_improves_timeliness_and_moves_no_number(made: Argued, data: st.DataObject) -> None:
    case, leaves = made
    expired = data.draw(st.sets(st.sampled_from(sorted(leaves) or ["none"])))
    older = {n: v.model_copy(update={"timeliness": "stale"}) if n in expired else v for n, v in leaves.items()}
    before, after = propagate(case, leaves, TODAY), propagate(case, older, TODAY)
    for name, standing in before.items():
        assert AGE[after[name].timeliness] >= AGE[standing.timeliness]
        assert (after[name].doubt, after[name].health) == (standing.doubt, standing.health)


def test_a_defeated_assumption_takes_every_branch_that_is_stated_in_it() -> None:
    case, leaves = chain(0.1, 0.1)
    said = case.model_dump() | {
        "assumptions": [{"id": "A", "text": "a"}],
        "defeaters": [{"id": "D", "kind": "undermining", "defeats": "A", "text": "t"}],
    }
    said["goals"][1]["in_context_of"] = ["A"]
    found = propagate(Case.model_validate(said, strict=False), leaves, TODAY)
    assert [found[name].doubt for name in ("T", "L0", "L1")] == [1.0, 1.0, 0.1]
    assert any("D stands" in why for why in found["L0"].why)


def test_a_case_past_its_review_day_is_stale_and_loses_no_doubt() -> None:
    case, leaves = chain(0.1)
    late = propagate(case.model_copy(update={"review_by": TODAY - dt.timedelta(days=1)}), leaves, TODAY)["T"]
    assert (late.timeliness, late.doubt, late.health) == ("stale", 0.1, "green")
