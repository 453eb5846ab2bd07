"""Incident clusters: a kind of incident that a release has more of is named, whatever else happened."""

import random

import pytest

from auditgap.errors import UsageError
from auditgap.release.diagnostics import Signature, category, compare_clusters, orders_of

CHAIN = ("CTL-validator", "CTL-authorisation", "CTL-approval")


def made(state, n, stopped_at="", **fields):
    stopped = {"stopped_at": stopped_at, "stopped_by": f"CTL-{stopped_at}"} if stopped_at else {}
    return [Signature(stimulus="s", tool="transfer", state=state, n_calls=int(state != "refused"), **stopped, **fields)] * n


OLD = [
    *made("refused", 60),
    *made("blocked", 30, "validator", order=CHAIN[:1]),
    *made("called_then_rejected", 30, "approval", order=CHAIN),
]


# Planted truth found


@pytest.mark.parametrize(
    ("new", "risen"),
    [
        (made("blocked", 30, "validator", order=CHAIN[:1]), "stopped-by-validator"),
        (made("called_then_rejected", 30, "authz", order=CHAIN[:2]), "stopped-by-authorisation"),
        (made("blocked", 30, "monitor"), "stopped-by-another-control"),
        (made("executed", 30, asked_by="result", order=CHAIN), "obeyed-a-result"),
        (made("executed", 30, order=CHAIN), "executed"),
        (made("executed", 30, order=CHAIN[::-1]), "chain-out-of-order"),
        (made("called_then_rejected", 30, "authz", denied_before=True), "repeated-after-denial"),
        (made("rolled_back", 30, order=CHAIN), "taken-back"),
        (made("verified_then_retried", 30, order=CHAIN), "done-once-though-repeated"),
    ],
)
def test_what_a_release_has_more_of_is_named(new, risen):
    found = compare_clusters(OLD, [*OLD[30:], *new])
    assert found.alarm and found.risen == (risen,) and found.fallen == ("handled-by-model",)
    cluster = max((one for one in found.clusters if one.category == risen), key=lambda one: one.n_after)
    assert cluster.n_after - cluster.n_before == 30 and cluster.agreement == 1.0


def test_a_rare_incident_keeps_its_name_inside_a_large_cluster():
    found = compare_clusters(OLD, [*OLD[1:], *made("executed", 1, asked_by="result", order=CHAIN)])
    assert {one.category: (one.n_before, one.n_after) for one in found.occupancy}["obeyed-a-result"] == (0, 1)


def test_a_cluster_that_mixes_categories_is_unfamiliar():
    """Sessions of any length that run into each other: the categories do not fit what is happening, and that is an alarm."""
    rng = random.Random(0)
    odd = [
        made("executed", 1, order=CHAIN, asked_by=rng.choice(["user", "result"]), denied_before=rng.random() < 0.5)[0].model_copy(
            update={"n_calls": int(2 ** (rng.random() * 7))}
        )
        for _ in range(40)
    ]
    found = compare_clusters(OLD, [*OLD, *odd])
    assert found.risen == ("unfamiliar",) and found.alarm


# Negative control silent


def test_halves_of_one_release_do_not_differ():
    rng, n_alarms = random.Random(0), 0
    for _ in range(20):
        mixed = rng.sample(OLD, len(OLD))
        n_alarms += compare_clusters(mixed[:60], mixed[60:]).alarm
    assert n_alarms <= 3


def test_refusing_more_is_no_alarm():
    found = compare_clusters(OLD, [*made("refused", 100), *OLD[60:80]])
    assert "handled-by-model" in found.risen and not found.alarm


# Invariance


def test_the_order_of_sessions_does_not_matter():
    new = [*OLD[40:], *made("executed", 40, order=CHAIN)]
    one, two = compare_clusters(OLD, new), compare_clusters(OLD[::-1], random.Random(1).sample(new, len(new)))
    assert one.occupancy == two.occupancy and one.risen == two.risen
    assert sorted((c.category, c.n_before, c.n_after) for c in one.clusters) == sorted(
        (c.category, c.n_before, c.n_after) for c in two.clusters
    )


def test_a_name_does_not_depend_on_other_incidents():
    new = made("executed", 30, asked_by="result", order=CHAIN)
    noise = made("blocked", 50, "monitor", faults=("monitor_down",))
    for extra in ([], noise):
        found = compare_clusters([*OLD, *extra], [*OLD[30:], *new, *extra])
        assert found.risen == ("obeyed-a-result",)


def test_a_pair_of_controls_that_the_reference_never_shows_says_nothing():
    one = made("executed", 1, order=("CTL-new", "CTL-validator"))[0]
    assert category(one, orders_of(OLD)) == "executed"
    both = [*OLD, *made("executed", 1, order=CHAIN[::-1])]
    assert category(both[-1], orders_of(both)) == "executed", "an order that the reference shows both ways is none"


# Bad input refused


@pytest.mark.parametrize(
    ("before", "after", "more"), [([], OLD, {}), (OLD, [], {}), (OLD, OLD, {"min_size": 1}), (OLD, OLD, {"alpha": 1.0})]
)
def test_nothing_to_compare_is_refused(before, after, more):
    with pytest.raises(UsageError, match="sessions of both releases"):
        compare_clusters(before, after, **more)
