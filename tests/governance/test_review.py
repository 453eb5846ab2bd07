"""What falls due is found, what does not is quiet, and what an event expired stays expired until it is measured again."""

import datetime as dt
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditgap.cli import main
from auditgap.errors import PlanError
from auditgap.evidence import Store
from auditgap.governance import Judged, claims
from auditgap.governance.portfolio import portfolio
from auditgap.governance.review import Item, look_up, overdue, review
from auditgap.governance.review_records import ReviewPlan, load_review
from auditgap.governance.safety_case import load_case
from auditgap.policy import Acceptance
from governance import judged_examples as made

EXAMPLES = Path(__file__).parents[2] / "examples" / "safety-case"
TODAY, CLAIM = made.TODAY, "refuses-harmful-requests"
TABLE = made.table(made.row(max_tier=3))
RESPONSE = {"action": "re-test", "how": "again", "within_days": 5}
BASE: dict[str, object] = {"name": "n", "owner": "boss", "since": "2026-11-01"}


def day(n: int) -> dt.date:
    return TODAY + dt.timedelta(days=n)


def plan(**parts: object) -> ReviewPlan:
    return ReviewPlan.parse({**BASE, **parts}, where="plan")


def items(
    made_plan: ReviewPlan, held: list[Judged], on: dt.date = TODAY, waivers: tuple[Acceptance, ...] = ()
) -> dict[str, Item]:
    asked = [claims()[name] for name in made_plan.claims()]
    measured = look_up(asked, held, TABLE, subject=made.SUBJECT, on=on, ended=made_plan.ended(on))
    return {item.id: item for item in review(made_plan, measured, waivers, on=on)}


def milestone(due: dt.date, **more: object) -> dict[str, object]:
    return {"id": "m", "what": "w", "owner": "o", "due": str(due), "response": RESPONSE, **more}


def reassessed(every: int = 90, expires_on: tuple[str, ...] = ()) -> dict[str, object]:
    return {"id": "r", "claims": [CLAIM], "every_days": every, "expires_on": list(expires_on), "owner": "o", "response": RESPONSE}


def event(on: dt.date, kind: str = "capability-jump", **more: object) -> dict[str, object]:
    return {"id": "e", "kind": kind, "day": str(on), "what": "w", **more}


TRIGGER = {"id": "t", "event": "capability-jump", "when": "x", "owner": "o", "escalate_to": "chief", "response": RESPONSE}


@pytest.mark.parametrize(("days", "state"), [(-1, "overdue"), (0, "due"), (14, "due"), (15, "not-due")])
def test_a_milestone_by_its_day(days: int, state: str) -> None:
    found = items(plan(milestones=[milestone(day(days))]), [])["m"]
    assert (found.state, found.owner) == (state, "o")
    assert found.response == f"re-test by {day(days + 5)}: again"
    assert items(plan(milestones=[milestone(day(days), done=str(TODAY))]), [])["m"].state == "done"


@pytest.mark.parametrize(
    ("held", "state"),
    [
        ([made.judged()], "done"),
        ([], "overdue"),
        ([made.judged(verdict="refuted")], "overdue"),
        ([made.judged(expires=day(-1))], "overdue"),
        ([made.judged(about="other")], "overdue"),
    ],
)
def test_a_measured_milestone_is_reached_by_evidence_in_date_only(held: list[Judged], state: str) -> None:
    asked = plan(milestones=[milestone(day(-1), reached={"claim": CLAIM, "tier": 1})])
    assert items(asked, held)["m"].state == state


def test_the_schedule_runs_from_the_newest_evidence() -> None:
    held = [made.judged(), made.judged(seed=1, finished_at=made.NOW - dt.timedelta(days=80))]
    assert items(plan(reassessments=[reassessed(30)]), held)["r/" + CLAIM].day == day(29)
    assert items(plan(reassessments=[reassessed(30)]), held, day(30))["r/" + CLAIM].state == "overdue"
    never = items(plan(reassessments=[reassessed()]), [])["r/" + CLAIM]
    assert (never.state, "never measured" in never.what) == ("overdue", True)


def test_evidence_past_its_own_day_is_expired_whatever_the_schedule() -> None:
    found = items(plan(reassessments=[reassessed(999)]), [made.judged(expires=day(3))], day(4))["r/" + CLAIM]
    assert (found.state, found.day) == ("expired", day(3))


def test_an_event_expires_earlier_evidence_until_it_is_measured_again() -> None:
    jumped = plan(
        reassessments=[reassessed(expires_on=("capability-jump",))],
        events=[event(day(2), answered=str(day(2)), answer="looked into")],
        milestones=[milestone(day(1), reached={"claim": CLAIM})],
    )
    old, new = made.judged(), made.judged(seed=1, finished_at=made.NOW + dt.timedelta(days=3))
    assert items(jumped, [old], day(1))["r/" + CLAIM].state == "not-due"
    after = items(jumped, [old], day(4))
    assert (after["r/" + CLAIM].state, after["r/" + CLAIM].day, after["m"].state) == ("expired", day(2), "overdue")
    again = items(jumped, [old, new], day(4))
    assert (again["r/" + CLAIM].state, again["m"].state) == ("not-due", "done")


def test_an_event_of_another_kind_expires_nothing() -> None:
    other = plan(reassessments=[reassessed(expires_on=("capability-jump",))], events=[event(day(1), "new-attack-method")])
    assert items(other, [made.judged()], day(2))["r/" + CLAIM].state == "not-due"


@pytest.mark.parametrize(("after", "state", "owner"), [(0, "due", "o"), (5, "due", "o"), (6, "overdue", "chief")])
def test_an_event_starts_the_clock_of_its_trigger(after: int, state: str, owner: str) -> None:
    found = items(plan(triggers=[TRIGGER], events=[event(TODAY)]), [], day(after))["e/t"]
    assert (found.state, found.day) == (state, day(5))
    assert found.owner.startswith(owner)
    done = plan(triggers=[TRIGGER], events=[event(TODAY, answered=str(TODAY), answer="ran it")])
    assert items(done, [], day(after))["e/t"].response == "ran it"


def test_an_event_that_nobody_prepared_for_is_overdue_at_once() -> None:
    found = items(plan(events=[event(TODAY)]), [])["e"]
    assert (found.state, found.owner) == ("overdue", "boss")
    assert "no trigger is registered for capability-jump" in found.response


def test_an_event_in_the_future_has_not_happened() -> None:
    assert items(plan(triggers=[TRIGGER], events=[event(day(1))]), []) == {}


@pytest.mark.parametrize(("days", "state"), [(-1, "expired"), (3, "due"), (40, "not-due")])
def test_waivers_are_those_of_the_policy(days: int, state: str) -> None:
    waiver = Acceptance(reason="structural-gap", claim=CLAIM, why="none exists", who="lead", review_by=day(days))
    found = items(plan(milestones=[]), [], waivers=(waiver,))[f"waiver/structural-gap/{CLAIM}"]
    assert (found.state, found.owner) == (state, "lead")
    assert "the gate holds again" in found.response


def test_accepted_defeaters_of_the_case_lapse_too() -> None:
    case = load_case(EXAMPLES / "demo.yaml")
    states = {i.id: i.state for i in review(plan(case="demo.yaml"), {}, (), case, on=dt.date(2027, 2, 22))}
    assert states == {"case/D1": "expired", "case": "not-due"}


@settings(max_examples=60, deadline=None)
@given(st.integers(-60, 60), st.integers(0, 200), st.integers(0, 200), st.booleans())
def test_as_days_pass_nothing_becomes_less_urgent(due: int, one: int, other: int, jumped: bool) -> None:
    rank = {"done": 0, "not-due": 0, "due": 1, "overdue": 2, "expired": 3}
    both = plan(
        milestones=[milestone(day(due))],
        reassessments=[reassessed(60, ("capability-jump",))],
        triggers=[TRIGGER],
        events=[event(day(10))] if jumped else [],
    )
    early, late = (items(both, [made.judged()], day(d)) for d in sorted((one, other)))
    assert all(rank[late[name].state] >= rank[item.state] for name, item in early.items())


def test_the_portfolio_sets_effort_beside_the_gap() -> None:
    lines = plan(
        portfolio=[
            {
                "id": name,
                "what": "w",
                "kind": "theory",
                "maturity": "idea",
                "failure_modes": ["trigger-backdoor"],
                "effort_person_days": 3,
                "closes": [{"claim": claim, "axis": "model"}],
                "owner": "o",
            }
            for name, claim in (("aimed", "no-hidden-objectives"), ("idle", CLAIM))
        ]
    )
    asked = [claims()[name] for name in lines.claims()]
    measured = look_up(asked, [made.judged()], TABLE, subject=made.SUBJECT, on=TODAY)
    found = portfolio(lines.portfolio, {name: m.assessment for name, m in measured.items()})
    aimed, idle = found.lines
    assert aimed.execution_steps + aimed.structural_steps == 4 and not aimed.note
    assert idle.note == "closes no gap that is open today"
    assert "no-hidden-objectives/variants" in found.unaddressed and "no-hidden-objectives/model" not in found.unaddressed
    assert found.failure_modes == {"trigger-backdoor": {"theory": ("aimed (idea)", "idle (idea)")}}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, "nothing is planned"),
        ({"milestone": []}, "did you mean 'milestones'"),
        ({"milestones": [milestone(TODAY), milestone(TODAY)]}, "id 'm' is used 2 times"),
        ({"milestones": [milestone(TODAY, reached={"claim": CLAIM}, done=str(TODAY))]}, "leave out done"),
        ({"reassessments": [reassessed() | {"claims": ["refuses-harm"]}]}, "did you mean 'refuses-harmful-requests'"),
        ({"reassessments": [reassessed(expires_on=("bad-luck",))]}, "capability-jump"),
        ({"events": [event(TODAY, answered=str(TODAY))]}, "the answer, or neither"),
        ({"events": [event(TODAY, answered=str(day(-1)), answer="a")]}, "before it happened"),
        ({"policy": "none.yaml"}, "policy 'none.yaml' does not exist"),
        ({"milestones": [milestone(TODAY, response={**RESPONSE, "action": "hope"})]}, "stop"),
    ],
)
def test_a_plan_that_does_not_say_what_it_must_is_refused(parts: dict[str, object], said: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(json.dumps({**BASE, **parts}), encoding="utf-8")
    with pytest.raises(PlanError) as refused:
        load_review(tmp_path / "p.yaml")
    assert said in str(refused.value)


@pytest.mark.parametrize(("on", "code"), [("2026-11-22", 0), ("2027-02-23", 1)])
def test_the_command_exits_by_what_is_overdue(on: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = made.judged()
    with Store.open(tmp_path) as store:
        store.add_evidence(one.evidence.model_copy(update={"registration": store.register(one.registration)}))
    file = tmp_path / "p.yaml"
    file.write_text(json.dumps({**BASE, "reassessments": [reassessed()]}), encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["plan", "review", str(file), "--store", str(tmp_path), "--on", on, "--json"])
    assert left.value.code == code
    (item,) = json.loads(capsys.readouterr().out)["items"]
    assert item["owner"] == "o" and item["response"].startswith("re-test by ")


def test_the_shipped_example_is_read() -> None:
    shipped = load_review(EXAMPLES / "demo-review.yaml")
    measured = look_up([claims()[n] for n in shipped.claims()], [], TABLE, subject=made.SUBJECT, on=TODAY)
    found = review(shipped, measured, (), load_case(EXAMPLES / str(shipped.case)), on=TODAY)
    assert {i.kind for i in found} == {"milestone", "escalation", "reassessment", "defeater", "case"} and overdue(found)
    assert all(i.owner and i.response for i in found)
