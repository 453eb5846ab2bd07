"""The request ledger: acknowledged lines stay, half lines go aside, damage is named."""

import json
import multiprocessing
import os
import signal
import threading

import pytest

from auditgap.alarms import read_lines
from auditgap.errors import StoreError
from auditgap.monitor import Watched
from auditgap.records import now
from auditgap.serving.entries import Begun, Ended, Verdict
from auditgap.serving.ledger import RequestLedger, read_ledger, traffic

RELEASE = "sha256:" + "ab" * 32


def begun(name: str, **fields) -> Begun:
    fields = {"tenant": "alice", "operation": "chat", "n_input_tokens": 1, "max_new_tokens": 1, "seed": 0} | fields
    return Begun(id=name, at=now(), release=RELEASE, request=RELEASE, temperature=0.0, top_p=1.0, **fields)


def ended(name: str, **fields) -> Ended:
    return Ended(**{"id": name, "tenant": "alice", "at": now(), "release": RELEASE, "outcome": "stop"} | fields)


def write(ledger: RequestLedger, *lines) -> list:
    answers, done = [], threading.Event()

    def then(error):
        answers.append(error)
        if len(answers) == len(lines):
            done.set()

    for line in lines:
        ledger.append(line, then)
    assert done.wait(10)
    return answers


@pytest.fixture
def path(tmp_path):
    return tmp_path / "requests.jsonl"


def test_what_was_acknowledged_is_there(path):
    ledger = RequestLedger(path)
    lines = [begun("a"), ended("a", verdicts=(Verdict(monitor="m", score=0.1, flagged=False, flagged_after=None, coverage=1.0),))]
    assert write(ledger, *lines) == [None, None]
    assert list(read_ledger(path)) == lines  # while it is open
    ledger.close()
    ledger.close()
    assert list(read_ledger(path)) == lines and path.stat().st_mode & 0o077 == 0


def _write_until_killed(path, acknowledged) -> None:
    ledger = RequestLedger(path)
    for i in range(10**9):
        name = f"r{i}"
        ledger.append(begun(name), lambda error, name=name: os.write(acknowledged, f"{name}\n".encode()))


def test_kill_9_loses_nothing_that_was_acknowledged(path):
    reading, writing = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=_write_until_killed, args=(path, writing))
    process.start()
    said = b""
    while said.count(b"\n") < 200:
        said += os.read(reading, 1 << 16)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    os.close(writing)
    while more := os.read(reading, 1 << 16):
        said += more
    os.close(reading)
    acknowledged = said[: said.rfind(b"\n")].decode().split("\n")
    ledger = RequestLedger(path)
    ledger.close()
    lines = list(read_ledger(path))
    assert set(acknowledged) <= {line.id for line in lines if isinstance(line, Begun)}
    assert ledger.n_recovered == len([line for line in lines if isinstance(line, Ended) and line.outcome == "lost"])
    assert ledger.n_recovered >= len(acknowledged)


def test_half_a_line_goes_aside_and_what_had_begun_is_lost(path):
    ledger = RequestLedger(path)
    write(ledger, begun("a"), begun("b"), ended("a"))
    ledger.close()
    with path.open("ab") as file:
        file.write(b'{"event":"ended","id":"b","ten')
    assert len(list(read_ledger(path))) == 3
    ledger = RequestLedger(path)
    assert ledger.n_recovered == 1
    ledger.close()
    *_, last = read_ledger(path)
    assert (last.id, last.outcome, last.tenant) == ("b", "lost", "alice")
    assert path.with_name("requests.jsonl.torn").read_bytes() == b'{"event":"ended","id":"b","ten\n'
    again = RequestLedger(path)
    again.close()
    assert again.n_recovered == 0


def test_damage_a_second_server_and_a_folder_are_refused(path, tmp_path):
    ledger = RequestLedger(path)
    with pytest.raises(StoreError, match="another server"):
        RequestLedger(path)
    write(ledger, begun("a"))
    ledger.close()
    path.write_bytes(b'{"event":"begun"}\n' + path.read_bytes())
    with pytest.raises(StoreError, match=r"line 1: expected a line of a request ledger, .* fields are wrong"):
        RequestLedger(path)
    with pytest.raises(StoreError, match="can be written"):
        RequestLedger(tmp_path)
    with pytest.raises(StoreError, match="got"):
        list(read_ledger(tmp_path / "none"))


def test_a_full_disk_is_told_and_leaves_whole_lines(path, monkeypatch):
    ledger = RequestLedger(path)
    write(ledger, begun("a"))
    real = os.write

    def full(file, data):
        if len(data) > 20:
            return real(file, data[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    (error,) = write(ledger, begun("b"))
    assert error.errno == 28 and ledger.failed is error
    monkeypatch.undo()
    assert write(ledger, begun("c")) == [error]  # a ledger that failed says so until somebody looks
    ledger.close()
    assert [line.id for line in read_ledger(path)] == ["a"]


def test_traffic_is_what_the_alarms_read(path, tmp_path):
    verdict = Verdict(monitor="m", score=2.5, flagged=True, flagged_after=1, coverage=1.0)
    silent = Verdict(monitor="n", score=None, flagged=False, flagged_after=None, coverage=0.0, down="UNCALIBRATED")
    ledger = RequestLedger(path)
    write(ledger, begun("a", content="hi"), ended("a", verdicts=(verdict, silent), content="I cannot"), ended("b", tenant="bob"))
    ledger.close()
    out = tmp_path / "traffic.jsonl"
    out.write_text("".join(json.dumps(row) + "\n" for row in traffic(path)))
    with out.open("rb") as file:
        first, second = (line.records[0] for line in read_lines(file, "traffic"))
    assert first.scores == {"m": 2.5} and first.flags == {"m": True} and first.release == RELEASE
    assert (first.request, first.reply, first.stops) == ("hi", "I cannot", ("stop",)) and second.request is None
    assert [row["id"] for row in traffic(path, tenant="bob")] == ["b"]


def test_a_score_that_is_no_number_is_a_flag_without_a_number():
    verdict = Verdict.of(Watched(0, "m", float("inf"), float("nan"), True, 0, 3, 3, 3))
    assert verdict.score is None and verdict.flagged and verdict.coverage == 1.0
