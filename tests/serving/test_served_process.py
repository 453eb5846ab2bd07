"""The command as a process of its own: killed with -9, started again, stopped with SIGTERM; and memory over many requests."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from auditgap.alarms import read_lines
from auditgap.cli.monitor_serve import serve as serve_command
from auditgap.cli.monitor_serve import token, traffic
from auditgap.errors import UsageError
from auditgap.monitor import save
from auditgap.serving.entries import Begun, Ended
from auditgap.serving.ledger import read_ledger

PROGRAM = "from auditgap.cli.monitor_serve import serve; serve()"
N_CLIENTS = 16


class Process:
    """A running server."""

    def __init__(self, process: subprocess.Popen, url: str, secret: str) -> None:
        self.process, self.url, self.headers = process, url, {"Authorization": f"Bearer {secret}"}

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=30)

    @property
    def resident_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def many(self, n_requests: int) -> list[str]:
        """Ids of so many small requests, sixteen at a time."""
        return asyncio.run(self._many(n_requests // N_CLIENTS))

    async def _many(self, n_each: int) -> list[str]:
        found: list[str] = []

        async def one() -> None:
            async with httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=60) as http:
                for i in range(n_each):
                    body = {"model": "tiny", "prompt": f"a {'bcdz'[i % 4]}", "max_tokens": 1}
                    found.append((await http.post("/v1/completions", json=body)).raise_for_status().json()["id"])

        await asyncio.gather(*(one() for _ in range(N_CLIENTS)))
        return found


@pytest.fixture
def start(model_folder, make, tmp_path):
    save(make(), tmp_path / "monitor")
    made = CliRunner().invoke(token, ["alice"])
    (tmp_path / "tokens").write_text(f"{made.stdout.strip()} requests_per_minute=1000000 max_new_tokens=4000\n")
    (tmp_path / "tokens").chmod(0o600)
    secret = made.stderr.split()[-1]
    options = ["--monitor", tmp_path / "monitor", "--tokens", tmp_path / "tokens", "--ledger", tmp_path / "requests.jsonl"]
    command = [sys.executable, "-c", PROGRAM, model_folder, *options, "--listen", "127.0.0.1:0", "--name", "tiny", "--drain", "2"]

    @contextmanager
    def run() -> Iterator[Process]:
        with (tmp_path / "stderr").open("ab") as errors:
            process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            yield Process(process, process.stdout.readline().split()[0], secret)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    return run


def test_kill_9_and_restart_lose_nothing_that_was_answered(start, serve, make, tmp_path):
    ledger = tmp_path / "requests.jsonl"
    with start() as server, ThreadPoolExecutor(1) as pool, server.client() as alice:
        answered = server.many(160)
        before = server.resident_mb
        answered += server.many(320)
        assert server.resident_mb - before < 8
        running = pool.submit(
            alice.post, "/v1/completions", json={"model": "tiny", "prompt": "a b", "max_tokens": 4000, "temperature": 0}
        )
        while not any(isinstance(line, Begun) and line.max_new_tokens == 4000 for line in read_ledger(ledger)):
            time.sleep(0.01)
        os.kill(server.process.pid, signal.SIGKILL)
        with pytest.raises(httpx.HTTPError):
            running.result()
    assert set(answered) <= {line.id for line in read_ledger(ledger) if isinstance(line, Ended)}
    with serve([make()], ledger=ledger) as again, again.client() as alice:
        last = alice.post("/v1/completions", json={"model": "tiny", "prompt": "z", "max_tokens": 2}).json()["id"]
    lines = list(read_ledger(ledger))
    begun, ended = ([line.id for line in lines if isinstance(line, kind)] for kind in (Begun, Ended))
    assert sorted(begun) == sorted(ended) and len(set(begun)) == len(begun) == 482 and ended[-1] == last
    assert [line.outcome for line in lines if isinstance(line, Ended)].count("lost") == again.service.ledger.n_recovered == 1
    printed = CliRunner().invoke(traffic, [str(ledger)]).stdout_bytes
    (tmp_path / "traffic.jsonl").write_bytes(printed)
    with (tmp_path / "traffic.jsonl").open("rb") as file:
        records = [record for line in read_lines(file, "traffic") for record in line.records]
    assert len(records) == 482 and sum(record.flags.get("probe", 0) for record in records) == 16 * (10 // 4 + 20 // 4) + 1


@pytest.mark.slow
def test_ten_thousand_small_requests_leave_every_line_and_flat_memory(start, tmp_path):
    with start() as server:
        warm = server.many(1008)
        before = server.resident_mb
        answered = server.many(10_000)
        grown = server.resident_mb - before
        server.process.kill()
    assert grown < 10, f"{grown:.1f} MB"
    with start() as server:
        warm += server.many(16)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    ended = [line.id for line in read_ledger(tmp_path / "requests.jsonl") if isinstance(line, Ended)]
    assert sorted(ended) == sorted(warm + answered) and len(answered) == 10_000
    assert (tmp_path / "stderr").read_text() == ""


def test_options_that_do_not_fit_are_refused(model_folder):
    runner = CliRunner()
    assert runner.invoke(serve_command, [str(model_folder), "--listen", "8000"]).exit_code == 2
    for options in ([], ["--insecure-no-auth", "--listen", "0.0.0.0:0"], ["--tokens", "nowhere"]):
        refused = runner.invoke(serve_command, [str(model_folder), *options])
        assert isinstance(refused.exception, UsageError) and "token" in str(refused.exception)
