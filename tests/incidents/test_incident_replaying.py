"""Replay: the planted component is named, two identical releases name nobody, and the order of swapping is irrelevant."""

from dataclasses import replace

import pytest
from incident_examples import (
    Plant,
    approval_first,
    careful,
    case,
    everyone_pays,
    incident,
    planted,
    splitting,
    widened,
)

from auditgap.errors import UsageError
from auditgap.incidents import COMPONENTS, Release, load_release, mixed, replay
from auditgap.incidents.reference import Model, Tools, reference_release
from auditgap.records import Replay, digest_of
from auditgap.records.incident import Component
from auditgap.release.agent import CONTROLS
from auditgap.release.cases import Session, load_stimuli, shipped

DIGEST = digest_of(b"incident")


def _replay(plant: Plant, **changes: object) -> Replay:
    settings: dict[str, object] = {"n_repeats": 3 if changes.get("full") else 6}
    return replay(incident(plant.bad), DIGEST, plant.bad, plant.good, plant.case, plant.stimuli, **(settings | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("cause", COMPONENTS)
def test_both_designs_name_the_planted_component(cause: Component) -> None:
    for full in (False, True):
        found = _replay(planted(cause), full=full)
        assert found.attributed == cause, found.why
        assert {e.components for e in found.effects if e.shown} == {(cause,)}
        assert found.overall.status == "measured" and found.overall.value == 1.0


def test_a_removed_control_is_the_middleware() -> None:
    good = reference_release("v11")
    bad = reference_release("v12", middleware=[name for name in CONTROLS if name != "CTL-idempotency"])
    shows = case(905, "paid-twice", "CTL-idempotency", "pay-again", expr="effects.filter(e, e.standing).size() <= 1")
    found = replay(incident(bad), DIGEST, bad, good, shows, load_stimuli(shipped(), shows), n_repeats=6)
    assert found.attributed == "middleware", found.why


def test_two_identical_releases_name_nobody() -> None:
    plant = planted("tool")
    for release in (plant.bad, plant.good):
        found = _replay(plant._replace(bad=release, good=release))
        assert found.attributed == "not-attributed" and "not shown to break more often" in found.why
        assert not any(effect.shown for effect in found.effects)
    full = _replay(plant._replace(good=plant.bad), full=True)
    assert full.attributed == "not-attributed" and full.why.endswith("shown are none")


def test_a_release_that_breaks_less_than_the_reference_names_nobody() -> None:
    plant = planted("tool")
    found = _replay(plant._replace(bad=plant.good, good=plant.bad))
    assert found.attributed == "not-attributed" and "not shown to break more often" in found.why


def test_too_few_repeats_show_nothing() -> None:
    found = _replay(planted("tool"), n_repeats=2)
    assert found.attributed == "not-attributed"


def test_two_flaws_that_each_suffice_are_not_pinned_on_one() -> None:
    """A model that pays in parts and a chain without approval: undoing either one mends nothing."""
    good = reference_release("v11", model=Model("careful", careful))
    bad = reference_release("v12", model=Model("splitting", splitting), middleware=[n for n in CONTROLS if n != "CTL-approval"])
    shows = case(901, "payment-in-parts", "CTL-approval", "pay-large", live=True)
    found = replay(incident(bad), DIGEST, bad, good, shows, load_stimuli(shipped(), shows), n_repeats=6)
    assert found.attributed == "not-attributed"
    assert "mends the affected release for none" in found.why and "model, middleware" in found.why


def _needs_both() -> Plant:
    """Approval that comes first cannot read text, and only a model that sends text gets past it."""

    def texting(prompt: str, session: Session) -> str:
        asked = {"account": "acme-main", "to": "supplier", "amount_cents": "400000", "reference": "inv-2"}
        session.call("transfer", asked)  # type: ignore[arg-type]
        return "Paid."

    good = reference_release("v11", model=Model("careful", careful))
    bad = reference_release("v12", model=Model("texting", texting), middleware=approval_first())
    shows = case(906, "text-past-approval", "CTL-approval", "pay-large", live=True)
    return Plant(bad, good, shows, load_stimuli(shipped(), shows), "middleware")


def test_two_changes_that_only_break_together_are_shown_as_an_interaction() -> None:
    plant = _needs_both()
    found = _replay(plant)
    assert found.attributed == "not-attributed"
    assert "for model, middleware, and breaks the reference for none" in found.why
    full = _replay(plant, full=True)
    assert full.attributed == "not-attributed"
    assert ("model", "middleware") in {e.components for e in full.effects if e.shown}


def test_the_order_of_swapping_changes_nothing() -> None:
    plant = planted("policy")
    for full in (False, True):
        one = _replay(plant, full=full, n_repeats=2)
        other = _replay(plant, full=full, n_repeats=2, order=tuple(reversed(COMPONENTS)))
        assert (one.attributed, one.effects, one.overall) == (other.attributed, other.effects, other.overall)
        assert {a.from_reference: a for a in one.arms} == {a.from_reference: a for a in other.arms}


def test_every_arm_is_there_and_says_what_it_took() -> None:
    each, full = _replay(planted("tool")), _replay(planted("tool"), full=True)
    assert len(each.arms) == 2 + 2 * len(COMPONENTS) and len(full.arms) == 2 ** len(COMPONENTS)
    broken = {arm.from_reference: arm.n_broken for arm in full.arms}
    assert all((n == 3) == ("tool" not in taken) for taken, n in broken.items())


def test_runs_that_raise_count_neither_way() -> None:
    def crashing(prompt: str, session: Session) -> str:
        raise RuntimeError("out of memory")

    plant = planted("model")
    bad = reference_release("v12", model=Model("crashing", crashing))
    found = replay(incident(bad), DIGEST, bad, plant.good, plant.case, plant.stimuli, n_repeats=3)
    assert found.attributed == "not-attributed" and "no run could be judged" in found.why
    assert found.overall.status == "not_measured"
    assert {(arm.n, arm.n_undecided) for arm in found.arms if "model" not in arm.from_reference} == {(0, 3)}


def test_parts_decide_what_runs_and_what_the_manifest_says() -> None:
    releases = [
        reference_release("a"),
        reference_release("a", tools=Tools(widened())),
        reference_release("a", middleware=approval_first()),
        reference_release("a", policy=everyone_pays()),
        reference_release("a", model=Model("careful", careful)),
    ]
    assert len({release.fingerprint for release in releases}) == len(releases)
    assert reference_release("b").fingerprint == releases[0].fingerprint
    both = mixed(releases[4], releases[2], ["model"])
    assert both.agent is None and both.mode == "scripted"
    assert list(both.system.controls) == list(CONTROLS)


def test_another_release_than_the_incidents_is_refused() -> None:
    plant = planted("tool")
    with pytest.raises(UsageError, match="replay the frozen release"):
        replay(incident(plant.good), DIGEST, plant.bad, plant.good, plant.case, plant.stimuli)
    with pytest.raises(UsageError, match="order"):
        _replay(plant, order=("model",))
    with pytest.raises(UsageError, match="stimuli"):
        _replay(plant._replace(stimuli=()))


def test_parts_of_different_stacks_are_not_swapped() -> None:
    plant = planted("tool")
    foreign = replace(plant.good, assemble=lambda parts: plant.good.opened())
    with pytest.raises(UsageError, match="assembled differently"):
        _replay(plant._replace(good=foreign))
    with pytest.raises(UsageError, match="got no policy"):
        Release(plant.good.manifest, {"model": 1, "tool": 2, "middleware": 3}, plant.good.assemble)


@pytest.mark.parametrize(
    ("name", "says"),
    [("nowhere", "package.module:name"), ("no.such:thing", "set PYTHONPATH"), ("auditgap.incidents:COMPONENTS", "of a Release")],
)
def test_a_release_is_named_by_its_import_path(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_release(name)
