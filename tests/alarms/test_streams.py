"""A policy says what is watched before anything is; what could not alarm, or could not be silent, is refused when it is read."""

import numpy as np
import pytest

from auditgap.alarms import AlarmPolicy, StreamSpec, load_alarm_policy, reference_from
from auditgap.errors import PlanError, UsageError

STREAM = {
    "name": "refusals",
    "signal": "refused",
    "budget": 0.05,
    "kind": "once",
    "alpha": 0.01,
    "response": "Stop the canary.",
    "owner": "release owner",
    "deadline_hours": 4,
}
CONTINUOUS = {"kind": "continuous", "alpha": None, "average_run_length": 20000}


def spec(**changes):
    return StreamSpec.parse({**STREAM, **changes}, where="stream")


def policy(*streams, sharing="each"):
    return AlarmPolicy.parse({"name": "p", "sharing": sharing, "streams": list(streams)}, where="policy")


def test_a_policy_file_is_read_and_its_digest_is_that_of_its_content(tmp_path):
    text = """
name: assistant
streams:
  - {name: refusals, signal: refused, budget: 0.05, kind: once, alpha: 0.01,
     response: Stop the canary., owner: release owner, deadline_hours: 4}
"""
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text("# a remark\n" + text.replace("0.05", "5.0e-2"))
    (tmp_path / "c.yaml").write_text(text.replace("0.05", "0.06"))
    a, b, c = (load_alarm_policy(tmp_path / f"{name}.yaml") for name in "abc")
    assert a.digest() == b.digest() != c.digest()
    assert a.streams[0].hypothesis() == "the mean of 'refused' is at most 0.05, whatever went before"
    assert a.guarantee(a.streams[0]) == "false-alarm probability <= 0.01, however often one looks"


def test_shared_errors_raise_the_thresholds():
    once = [{**STREAM, "name": f"s{i}"} for i in range(4)]
    running = {**STREAM, **CONTINUOUS, "name": "r"}
    alone, split, joint = (policy(*once, running, sharing=sharing) for sharing in ("each", "split", "e-bh"))
    assert [p.threshold(p.streams[0]) for p in (alone, split, joint)] == [100, 400, 400]
    assert [p.threshold(p.streams[4]) for p in (alone, split, joint)] == [20000] * 3
    assert "of the 4 once streams together" in split.guarantee(split.streams[0])
    assert "e-BH" in joint.guarantee(joint.streams[0])
    assert "average run length >= 20,000 events" in joint.guarantee(joint.streams[4])
    two = policy(running, {**running, "name": "r2"}, sharing="split")
    assert two.threshold(two.streams[0]) == 40000


def test_a_reference_counts_values_that_did_not_set_its_edges():
    values = np.random.default_rng(0).normal(size=400)
    found = reference_from(values, n_bins=10)
    assert len(found.edges) == 9 and sum(found.counts) == 300
    assert found == reference_from(values.tolist(), n_bins=10)
    assert set(found.edges) <= set(values[::4].tolist())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 0}, "budget: expected strictly between 0 and 1, got 0"),
        ({"budget": 1}, "budget: expected strictly between 0 and 1, got 1"),
        ({"alpha": 1.0}, "alpha: expected a chance"),
        ({"alpha": None}, "expected alpha for a stream that alarms once"),
        ({"average_run_length": 1000}, "expected alpha for a stream that alarms once"),
        ({"kind": "continuous"}, "average_run_length for a continuous one"),
        ({"budget": None}, "expected one of budget, shares and reference, got none"),
        ({"shares": {"a": 0.9, "other": 0.2}}, "expected one of budget, shares and reference, got budget, shares"),
        ({"signal": "refusal"}, "no signal 'refusal' - did you mean 'refused'"),
        ({"signal": "kind"}, "the signal 'kind' is held to shares, got budget"),
        ({"signal": "score."}, "no signal 'score.'"),
        ({"signal": "kind", "budget": None, "shares": {"a": 0.5, "b": 0.6}}, "'other' among them"),
        ({"signal": "kind", "budget": None, "shares": {"a": 0.5, "other": 0.2}}, "a sum of at least 1, got 0.7"),
        ({"signal": "kind", "budget": None, "shares": {"a": 1.0, "other": 0.2}}, "each strictly between 0 and 1"),
        ({"signal": "reply_chars", "budget": None, "reference": {"edges": [1, 1], "counts": [1, 2, 3]}}, "edges: expected"),
        ({"signal": "reply_chars", "budget": None, "reference": {"edges": [1], "counts": [1, 2, 3]}}, "counts: expected 2"),
        ({"signal": "risky"}, "needs patterns"),
        ({"signal": "risky", "patterns": ["("]}, "expected a regular expression"),
        ({"signal": "reported", "patterns": ["x"]}, "patterns belong to"),
        ({"signal": "audited"}, "audit_floor belongs to the signal 'audited'"),
        ({"audit_floor": 0.1}, "audit_floor belongs to the signal 'audited'"),
        ({"signal": "audited", "audit_floor": 0}, "audit_floor: expected a probability"),
        ({"response": ""}, "response"),
        ({"deadline_hours": 0}, "deadline_hours"),
        ({"respnse": "x"}, "respnse"),
    ],
)
def test_a_stream_that_cannot_work_is_refused(changes, message):
    with pytest.raises(PlanError, match=message):
        spec(**changes)


def test_a_policy_that_cannot_work_is_refused(tmp_path):
    with pytest.raises(PlanError, match="expected each stream name once"):
        policy(STREAM, STREAM)
    with pytest.raises(PlanError, match="streams that share their error state the same one"):
        policy(STREAM, {**STREAM, "name": "b", "alpha": 0.05}, sharing="e-bh")
    with pytest.raises(PlanError, match="streams"):
        policy()
    with pytest.raises(PlanError, match=r"no\.yaml"):
        load_alarm_policy(tmp_path / "no.yaml")
    with pytest.raises(UsageError, match="expected values that differ"):
        reference_from([1.0] * 20)
