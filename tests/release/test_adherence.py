"""Adherence states: an action that is refused less and blocked more is an alarm, and resampled runs of one release are not."""

import json
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, fisher_exact

from auditgap.cli.release_diagnose import diagnose as command
from auditgap.errors import PlanError, UsageError
from auditgap.records.integrity import ADHERENCE
from auditgap.release import Event
from auditgap.release.cases import Suite, load_suite, register, run_suite
from auditgap.release.cases.running import try_once
from auditgap.release.diagnostics import (
    compare_adherence,
    compare_scripted,
    diagnose,
    diagnose_files,
    read_run_or_stream,
    read_signature,
    signatures,
    vectors_of_run,
    vectors_of_sessions,
)

pytestmark = pytest.mark.usefixtures("effects_in_memory")
OLD = {"a": {"refused": 60}, "b": {"refused": 30, "blocked": 30}}


@pytest.fixture(scope="module")
def shipped():
    return load_suite()


@pytest.fixture(scope="module")
def suite(shipped):
    """Three cases about the validator."""
    return Suite(tuple(pair for pair in shipped.cases if pair[0].id[:7] in ("RIC-090", "RIC-093", "RIC-094")))


def run(suite, **kwargs):
    return run_suite(suite, register(suite), **kwargs)


# Planted truth found


def test_refusing_that_is_left_to_the_validator_is_an_alarm_without_any_harm():
    found = compare_adherence(OLD, {"a": {"refused": 20, "blocked": 40}, "b": OLD["b"]})
    assert (found.verdict, found.direction, found.gave, found.got) == ("alarm", "downstream", "refused", "blocked")
    assert {cut.reached: round(cut.shift, 3) for cut in found.cuts if cut.shift} == dict.fromkeys(
        ("clarified", "verified_then_retried", "called_then_rejected", "blocked"), 0.333
    )
    assert found.says.startswith("alarm: downstream, from refused to blocked")


def test_harm_is_an_alarm_and_safer_is_a_move():
    worse = {"a": OLD["a"], "b": {"refused": 30, "executed": 30}}
    assert (compare_adherence(OLD, worse).verdict, compare_adherence(OLD, worse).got) == ("alarm", "executed")
    back = compare_adherence(worse, OLD)
    assert (back.verdict, back.direction, back.gave, back.got) == ("moved", "upstream", "executed", "blocked")


def test_a_question_in_place_of_a_refusal_is_a_move_and_no_alarm():
    found = compare_adherence({"a": {"refused": 60}}, {"a": {"clarified": 60}})
    assert (found.verdict, found.direction) == ("moved", "downstream")


def test_stimuli_are_matched_so_that_one_run_of_each_is_enough():
    before = {str(i): {"refused" if i % 2 else "executed": 1} for i in range(60)}
    after = before | {str(i): {"blocked": 1} for i in range(1, 30, 2)}
    assert compare_adherence(before, after).verdict == "alarm"


def test_scripted_calls_need_no_test(suite):
    whole, weaker = run(suite), run(suite, without=["CTL-validator"])
    moves = compare_scripted(*(vectors_of_run(one, mode="scripted") for one in (whole, weaker)))
    assert {move.case[:7] for move in moves if move.alarm} >= {"RIC-090", "RIC-093"}
    found = diagnose(whole, weaker)
    assert found.verdict == "alarm" and found.scripted == moves and found.adherence is None
    assert diagnose(whole, whole).verdict == "no shift"


# Negative control silent


def test_a_release_against_itself_has_no_shift_only_with_runs_enough():
    assert compare_adherence(OLD, OLD).verdict == "inconclusive"
    many = {name: {state: 10 * n for state, n in vector.items()} for name, vector in OLD.items()}
    assert compare_adherence(many, many).verdict == "no shift"


def test_false_alarms_stay_below_alpha():
    rng, n_false = np.random.default_rng(0), 0
    rates = {"a": [0.7, 0.1, 0, 0.1, 0.1, 0, 0], "b": [0.1, 0, 0.1, 0.3, 0.3, 0.1, 0.1]}
    for seed in range(40):
        one, two = (
            {k: dict(zip(ADHERENCE, map(int, rng.multinomial(25, p)), strict=True)) for k, p in rates.items()} for _ in "ab"
        )
        n_false += compare_adherence(one, two, n_permutations=99, seed=seed).verdict in ("alarm", "moved")
    assert binom.sf(n_false - 1, 40, 0.05) > 0.01, n_false


# Invariance


@given(st.lists(st.integers(0, 9), min_size=14, max_size=14))
@settings(max_examples=10, deadline=None)
def test_releases_exchanged_turn_every_shift_round(counts):
    one, two = ({"a": dict(zip(ADHERENCE, half, strict=True)), "b": {"refused": 5}} for half in (counts[:7], counts[7:]))
    there, back = (compare_adherence(x, y, n_permutations=99) for x, y in ((one, two), (two, one)))
    assert [cut.shift for cut in back.cuts] == pytest.approx([-cut.shift for cut in there.cuts])
    for a, b in zip(there.cuts, back.cuts, strict=True):
        assert (-b.interval.high, -b.interval.low) == pytest.approx((a.interval.low, a.interval.high))


def test_with_one_stimulus_and_one_cut_p_is_that_of_fishers_test():
    table = [[12, 28], [22, 18]]
    before, after = ({"a": {"refused": a, "executed": b}} for a, b in table)
    found = compare_adherence(before, after, n_permutations=20_000)
    assert {round(cut.p, 12) for cut in found.cuts} == {round(found.cuts[0].p, 12)}
    assert found.cuts[0].p == pytest.approx(np.asarray(fisher_exact(table))[1], abs=0.006)


def test_stimuli_of_one_release_only_say_nothing():
    found = compare_adherence(OLD, OLD | {"c": {"executed": 500}})
    assert found.left_out == ("c",) and all(cut.shift == 0 for cut in found.cuts)


def test_a_stream_shows_the_states_that_the_ledger_shows(shipped):
    """Over every shipped case and stimulus; a stream cannot tell a question from a refusal, nor a lost answer from no effect."""
    seen, off = 0, Counter()
    for case, stimuli in shipped.cases:
        for stimulus in stimuli:
            trial = try_once(case, stimulus)
            state = read_signature(trial.events).state
            seen += 1
            if state != trial.adherence:
                off[trial.adherence, state] += 1
    assert seen > 60 and off.total() <= 0.15 * seen, off


# Bad input refused


def test_releases_with_nothing_in_common_are_refused(shipped, suite):
    with pytest.raises(UsageError, match="without one in common"):
        compare_adherence({"a": {"refused": 1}}, {"b": {"refused": 1}})
    with pytest.raises(UsageError, match="without one in common"):
        compare_scripted({"a": {"refused": 1}}, {"a": {}})
    with pytest.raises(UsageError, match="at least 19 permutations"):
        compare_adherence(OLD, OLD, n_permutations=5)
    other = run(shipped.only("RIC-040"))
    with pytest.raises(UsageError, match="the same suite"):
        diagnose(run(suite.only("RIC-090")), other)
    with pytest.raises(UsageError, match="one of each"):
        diagnose(other, (Event(seq=0, at_ms=0, kind="intent", tool="t"),))


def test_streams_without_sessions_are_refused():
    with pytest.raises(UsageError, match="'intent' event per session"):
        signatures([Event(seq=0, at_ms=0, kind="call", tool="t")])
    with pytest.raises(UsageError, match="divide the stream"):
        read_signature([Event(seq=i, at_ms=0, kind="intent", tool="t") for i in range(2)])


# The command


def _stream(path, n_called):
    lines = []
    for i in range(60):
        lines.append(Event(seq=len(lines), at_ms=0, kind="intent", tool="transfer", name=f"inv-{i}", outcome=None))
        if i < n_called:
            said = {"call_id": "c", "tool": "transfer"}
            lines.append(Event(seq=len(lines), at_ms=0, kind="call", **said))
            lines.append(
                Event(
                    seq=len(lines), at_ms=0, kind="control", name="CTL-v", outcome="denied", detail={"layer": "validator"}, **said
                )
            )
            lines.append(Event(seq=len(lines), at_ms=0, kind="result", outcome="error", **said))
    path.write_text("".join(f"{event.model_dump_json()}\n" for event in lines))
    return str(path)


def invoke(*arguments):
    result = CliRunner().invoke(command, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_command_alarms_on_streams_and_says_where_to(tmp_path):
    old, new = _stream(tmp_path / "old.jsonl", 2), _stream(tmp_path / "new.jsonl", 30)
    code, shown = invoke(old, new)
    assert code == 1 and "from refused to blocked" in shown and "stopped-by-validator" in shown
    assert invoke(new, old)[0] == 0
    assert invoke(old, old)[0] == 3 and invoke(old, old, "--margin", "0.3")[0] == 0
    assert invoke(old, new, "--match", "tool")[0] == 1
    assert json.loads(invoke(old, new, "--json")[1])["clusters"]["risen"] == ["stopped-by-validator"]
    assert vectors_of_sessions(signatures(read_run_or_stream(new))) == {"transfer": {"blocked": 30, "refused": 30}}


def test_the_command_reads_integrity_runs_and_refuses_what_is_neither(tmp_path, suite):
    for name, without in (("old", []), ("new", ["CTL-validator"])):
        (tmp_path / f"{name}.json").write_text(run(suite, without=without).model_dump_json(indent=1))
    code, shown = invoke(str(tmp_path / "old.json"), str(tmp_path / "new.json"))
    assert code == 1 and "RIC-090" in shown and "downstream" in shown
    (tmp_path / "bad.json").write_text("no JSON")
    with pytest.raises(PlanError, match=r"bad.json: expected an integrity run"):
        diagnose_files(tmp_path / "bad.json", tmp_path / "old.json")
    with pytest.raises(UsageError, match="expected a file of JSON"):
        diagnose_files(tmp_path / "none.json", tmp_path / "old.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="expected a file of JSON"):
        diagnose_files(tmp_path / "bytes.json", tmp_path / "old.json")
