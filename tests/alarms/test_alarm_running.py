"""Watching files and pipes: a kill changes nothing, a changed file is refused, nothing is handed on twice."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from auditgap.alarms import AlarmPolicy, load_alarm_policy, read_checkpoint, watch_traffic
from auditgap.cli.monitor_watch import watch as command
from auditgap.errors import DataError, RegistrationError, StoreError

POLICY = """
name: p
streams:
  - {name: refusals, signal: refused, budget: 0.05, kind: continuous, average_run_length: 5000, rearm_events: 300,
     response: Roll back., owner: on call, deadline_hours: 4}
  - {name: reports, signal: reported, budget: 0.05, kind: once, alpha: 0.01,
     response: Stop the canary., owner: release owner, deadline_hours: 1}
"""


@pytest.fixture
def policy(tmp_path):
    (tmp_path / "alarms.yaml").write_text(POLICY)
    return load_alarm_policy(tmp_path / "alarms.yaml")


def rows(n, *, refused_from=10**9, start=0):
    """Every 25th reply refuses; from `refused_from` on every third does."""
    for index in range(start, start + n):
        refuses = index % 3 == 0 if index >= refused_from else index % 25 == 0
        yield json.dumps({"id": index, "reply": "I cannot." if refuses else "Sure.", "reported": index % 50 == 0}) + "\n"


def write(path, *parts, mode="w"):
    with path.open(mode) as file:
        for part in parts:
            file.writelines(part)
    return path


def told(result):
    """A result without the times at which it was read."""
    document = result.model_dump(mode="json")
    return json.dumps({**document, "alarms": [{**a, "raised_at": None} for a in document["alarms"]]})


def test_a_change_is_announced_once_and_quiet_traffic_is_quiet(policy, tmp_path):
    quiet = watch_traffic(policy, str(write(tmp_path / "q.jsonl", rows(2000))))
    assert quiet.exit_code == 0 and quiet.n_records == 2000 and not quiet.alarms
    seen = []
    loud = watch_traffic(policy, str(write(tmp_path / "l.jsonl", rows(2000, refused_from=1000))), on_alarm=seen.append)
    assert loud.exit_code == 1 and tuple(seen) == loud.alarms
    assert [alarm.stream for alarm in seen] == ["refusals"] and seen[0].where.endswith(f"line {seen[0].at_record}")


def test_a_watch_that_goes_on_ends_as_one_that_never_stopped(policy, tmp_path):
    file, state = tmp_path / "t.jsonl", tmp_path / "state.json"
    whole = watch_traffic(policy, str(write(file, rows(3000, refused_from=1200))))
    write(file, rows(700, refused_from=1200))
    first = watch_traffic(policy, str(file), state=state)
    write(file, rows(2300, refused_from=1200, start=700), mode="a")
    second = watch_traffic(policy, str(file), state=state)
    assert told(whole) == told(second.model_copy(update={"alarms": (*first.alarms, *second.alarms)}))
    again = watch_traffic(policy, str(file), state=state)
    assert not again.alarms and again.n_records == 3000 and again.exit_code == 1  # the alarm stands
    assert read_checkpoint(state).line == 3000 and list(tmp_path.glob("*.new")) == []


def test_the_next_days_file_is_more_of_the_same_stream(policy, tmp_path):
    state = tmp_path / "state.json"
    whole = watch_traffic(policy, str(write(tmp_path / "all.jsonl", rows(2000))))
    watch_traffic(policy, str(write(tmp_path / "1.jsonl", rows(900))), state=state)
    second = watch_traffic(policy, str(write(tmp_path / "2.jsonl", rows(1100, start=900))), state=state)
    assert told(second) == told(whole)


def test_kill_minus_nine_changes_nothing(policy, tmp_path):
    """Killed mid-way, several times; the alarms in the end are those of a watch that was left alone."""
    file, state = write(tmp_path / "t.jsonl", rows(24_000, refused_from=10_000)), tmp_path / "state.json"
    whole = watch_traffic(policy, str(file))
    script = (
        "import sys; from pathlib import Path; from auditgap.alarms import *\n"
        "watch_traffic(load_alarm_policy(Path(sys.argv[1])), sys.argv[2], state=Path(sys.argv[3]))"
    )
    n_killed = 0
    for _ in range(3):
        seen = read_checkpoint(state).line if state.exists() else 0
        process = subprocess.Popen([sys.executable, "-c", script, tmp_path / "alarms.yaml", file, state])
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if state.exists() and read_checkpoint(state).line > seen + 2000:
                os.kill(process.pid, signal.SIGKILL)
                n_killed += 1
                break
            time.sleep(0.01)
        process.wait()
    assert n_killed and read_checkpoint(state).line < 24_000
    last = watch_traffic(policy, str(file), state=state)
    alarms = read_checkpoint(state).watch.alarms
    assert told(last.model_copy(update={"alarms": alarms})) == told(whole)


def test_an_alarm_that_was_not_handed_on_is_handed_on_again_as_the_same_record(policy, tmp_path):
    file, state = write(tmp_path / "t.jsonl", rows(2000, refused_from=1000)), tmp_path / "state.json"

    def fails(alarm):
        raise StoreError("disk full")

    with pytest.raises(StoreError):
        watch_traffic(policy, str(file), state=state, on_alarm=fails)
    kept = read_checkpoint(state).watch.alarms
    seen = []
    watch_traffic(policy, str(file), state=state, on_alarm=seen.append)
    assert len(kept) == 1 and seen == list(kept)
    watch_traffic(policy, str(file), state=state, on_alarm=fails)  # nothing left to hand on


def test_a_bad_line_stops_the_watch_and_what_came_before_is_kept(policy, tmp_path):
    file, state = tmp_path / "t.jsonl", tmp_path / "state.json"
    write(file, rows(300), ['{"reply": 3}\n'], rows(100, start=300))
    for _ in range(2):
        with pytest.raises(DataError, match="line 301: reply: expected text, got 3"):
            watch_traffic(policy, str(file), state=state)
    assert read_checkpoint(state).line == 300
    assert read_checkpoint(state).watch.n_records == 300


def test_a_bad_first_line_and_one_whose_end_comes_later(policy, tmp_path):
    file, state = write(tmp_path / "t.jsonl", ["{\n"]), tmp_path / "state.json"
    for _ in range(2):
        with pytest.raises(DataError, match="line 1: expected one JSON object"):
            watch_traffic(policy, str(file), state=state)
    write(file, ['{"reply": "Sure."}'])
    assert watch_traffic(policy, str(file), state=state).n_records == 1
    write(file, ["\n"], rows(10), mode="a")
    assert watch_traffic(policy, str(file), state=state).n_records == 11
    write(file, [])
    assert watch_traffic(policy, str(file), state=state).n_records == 11


def test_what_goes_wrong_with_an_alarm_is_not_blamed_on_the_file(policy, tmp_path):
    def fails(alarm):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        watch_traffic(policy, str(write(tmp_path / "t.jsonl", rows(2000, refused_from=100))), on_alarm=fails)
    with pytest.raises(DataError, match="Is a directory"):
        watch_traffic(policy, str(tmp_path))


def test_a_file_that_changed_or_shrank_is_refused(policy, tmp_path):
    file, state = write(tmp_path / "t.jsonl", rows(300)), tmp_path / "state.json"
    watch_traffic(policy, str(file), state=state)
    lines = file.read_text().splitlines(keepends=True)
    write(file, lines[:200])
    with pytest.raises(DataError, match="expected the file that was read up to line 300"):
        watch_traffic(policy, str(file), state=state)
    write(file, lines[:299], [lines[299].replace("Sure.", "Soon.")])
    with pytest.raises(DataError, match="shorter or differs"):
        watch_traffic(policy, str(file), state=state)


def test_a_state_that_is_cut_or_of_another_policy_is_refused(policy, tmp_path):
    file, state = write(tmp_path / "t.jsonl", rows(300)), tmp_path / "state.json"
    watch_traffic(policy, str(file), state=state)
    whole = state.read_bytes()
    for cut in (0, 1, len(whole) // 2, len(whole) - 3):
        state.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"state\.json: expected the state of a watch, got"):
            watch_traffic(policy, str(file), state=state)
    state.write_bytes(whole)
    changed = AlarmPolicy.parse({**json.loads(policy.model_dump_json()), "name": "q"}, where="policy")
    with pytest.raises(RegistrationError, match="a policy is declared"):
        watch_traffic(changed, str(file), state=state)
    with pytest.raises(DataError, match=r"cannot read .*no\.jsonl"):
        watch_traffic(policy, str(tmp_path / "no.jsonl"))
    with pytest.raises(StoreError, match="cannot write the state"):
        watch_traffic(policy, str(file), state=tmp_path / "none" / "state.json")


# the command


def run(*arguments, **kwargs):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], **kwargs)


def test_the_command_says_what_it_found_and_its_exit_code_says_it_again(policy, tmp_path):
    declared = tmp_path / "alarms.yaml"
    loud = run(write(tmp_path / "l.jsonl", rows(2000, refused_from=1000)), "--policy", declared)
    assert loud.exit_code == 1
    assert "ALARM refusals at event" in loud.output and "now      Roll back. (on call, within 4 h)" in loud.output
    assert "average run length >= 5,000 events" in loud.output
    quiet = run(write(tmp_path / "q.jsonl", rows(500)), "--policy", declared, "--json")
    assert quiet.exit_code == 0
    assert [stream["n"] for stream in json.loads(quiet.output)["streams"]] == [500, 500]


def test_a_stream_that_nobody_feeds_is_not_quiet(policy, tmp_path):
    blind = run(write(tmp_path / "b.jsonl", ['{"reply": "Sure."}\n'] * 10), "--policy", tmp_path / "alarms.yaml")
    assert blind.exit_code == 3 and "BLIND" in blind.output


def test_standard_input_is_followed(policy, tmp_path, monkeypatch):
    class Stdin:
        buffer = io.BytesIO("".join(rows(2000, refused_from=1000)).encode())

    monkeypatch.setattr(sys, "stdin", Stdin())
    result = watch_traffic(policy, "-", state=tmp_path / "s.json")
    assert len(result.alarms) == 1 and result.alarms[0].where.startswith("-: line ")
    Stdin.buffer = io.BytesIO("".join(rows(10)).encode())
    assert watch_traffic(policy, "-", state=tmp_path / "s.json").n_records == 2010
