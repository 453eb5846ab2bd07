"""A served model with monitors against the same without: 16 clients on loopback, 32 tokens in and 32 out.

Both servers run in this process, each with a model object of its own, and take turns, neither always second; the clients are
another process, so that they share no interpreter with the server. A batch waits until all clients are in it: how requests fall
into batches otherwise moves a turn by a third, with monitors or without, hiding what they cost. Wall time, because clients wait
for it; the server's CPU time beside it, which other work on the machine moves less. `python -m bench.serving` runs this alone.
"""

import os

for _library in ("OMP", "OPENBLAS", "MKL"):  # read when NumPy and torch load
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import json  # noqa: E402
import random  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import ExitStack, contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import NamedTuple  # noqa: E402

import torch  # noqa: E402
import transformers  # noqa: E402

from auditgap.models import open_model  # noqa: E402
from auditgap.monitor import Monitor  # noqa: E402
from auditgap.records import Interval, NotMeasured  # noqa: E402
from auditgap.records.monitor import MonitorPolicy, OperatingPoint  # noqa: E402
from auditgap.serving import worker  # noqa: E402
from auditgap.serving.running import fingerprint, serving  # noqa: E402
from auditgap.serving.service import Settings  # noqa: E402
from auditgap.serving.tenants import ANONYMOUS  # noqa: E402
from bench.monitoring import monitor_of  # noqa: E402
from bench.rows import Row, measured  # noqa: E402
from bench.subjects import llama  # noqa: E402
from bench.timing import Spread, spread  # noqa: E402

__all__ = ["serving_rows"]

N_CLIENTS, N_EACH, N_PROMPT, N_NEW = 16, 2, 32, 32
_CLIENTS = """
import asyncio, json, sys, time
import httpx

async def one(http, url, body, n):
    found = []
    for _ in range(n):
        began = time.perf_counter()
        answer = (await http.post(url + "/v1/completions", json=body)).raise_for_status().json()
        found.append(time.perf_counter() - began)
        assert answer["usage"]["completion_tokens"] == body["max_tokens"], answer
    return found

async def main():
    async with httpx.AsyncClient(timeout=600, verify=False) as http:
        while line := await asyncio.to_thread(sys.stdin.readline):
            url, bodies, n = json.loads(line)
            found = await asyncio.gather(*(one(http, url, body, n) for body in bodies))
            print(json.dumps(sum(found, [])), flush=True)

asyncio.run(main())
"""


class Turn(NamedTuple):
    """One turn of one server."""

    wall_s: float
    cpu_s: float
    p95_s: float


def serving_rows(folder: Path, *, n_turns: int) -> list[Row]:
    """Throughput with monitors over throughput without, and the 95th percentile of latency likewise."""
    turns = _turns(folder, n_turns)
    n_tokens = N_CLIENTS * N_EACH * N_NEW
    also = {
        "tokens per second without": n_tokens / statistics.median(turn.wall_s for turn in turns["off"]),
        "95th percentile without, s": statistics.median(turn.p95_s for turn in turns["off"]),
    }
    note = (
        "12 monitors, one per layer, on the prompt's end and every new token; random Llama of 12 layers x 512, one thread; "
        "every batch holds all clients."
    )
    return [
        measured(
            f"served requests, {N_CLIENTS} clients, throughput with monitors",
            _ratio(turns, "off", "on", "wall_s"),
            goal=0.97,
            better="higher",
            note=note,
            also=also | {"by the server's CPU time": _ratio(turns, "off", "on", "cpu_s").median},
        ),
        measured(
            f"served requests, {N_CLIENTS} clients, 95th percentile of latency with monitors",
            _ratio(turns, "on", "off", "p95_s"),
            goal=1.05,
            better="lower",
            note=note,
        ),
    ]


def _turns(folder: Path, n_turns: int) -> dict[str, list[Turn]]:
    worker.GATHER_S = 1.0
    llama(folder / "served")
    words = random.Random(0)
    prompts = [" ".join(f"w{words.randrange(3, 8000)}" for _ in range(N_PROMPT)) for _ in range(N_CLIENTS)]
    bodies = [{"model": "m", "prompt": prompt, "max_tokens": N_NEW, "temperature": 0} for prompt in prompts]
    found: dict[str, list[Turn]] = {"on": [], "off": []}
    with ExitStack() as stack:
        urls = {way: stack.enter_context(_server(folder, way)) for way in found}
        clients = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", _CLIENTS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        for turn in range(1 + n_turns):
            for way in sorted(urls, reverse=turn % 2 == 1):  # neither is always second
                began, cpu = time.perf_counter(), time.process_time()
                print(
                    json.dumps([urls[way], [{"model": "m", **body} for body in bodies], N_EACH]), file=clients.stdin, flush=True
                )
                latencies = json.loads(clients.stdout.readline())
                wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
                if turn:  # the first warms up
                    found[way].append(Turn(wall_s, cpu_s, statistics.quantiles(latencies, n=20)[-1]))
        clients.stdin.close()
    return found


@contextmanager
def _server(folder: Path, way: str) -> Iterator[str]:
    model, policy = open_model(folder / "served"), MonitorPolicy()
    model.hf.lm_head.weight[2] = 0.0  # the end token never wins: every reply has all its tokens
    monitors = [_with_threshold(monitor_of(model, f"m{i}", i)) for i in range(model.n_layers)] if way == "on" else []
    with serving(
        model,
        monitors,
        policy=policy,
        settings=Settings(name="m", release=fingerprint(model, monitors, policy)),
        ledger=folder / f"{way}.jsonl",
        tenants=(),
        everybody=ANONYMOUS,
        batch_size=N_CLIENTS,
    ) as (url, _):
        yield url


def _with_threshold(monitor: Monitor) -> Monitor:
    unknown = {key: NotMeasured(name=key, reason="made up") for key in ("test_fpr", "test_fpr_contrast", "test_tpr")}
    interval = Interval(low=0.0, high=0.01, level=0.9, method="none")
    point = OperatingPoint(
        max_fpr=0.01, confidence=0.95, threshold=1e9, n_calibration=0, n_exceeding=0, calibration_fpr=interval, **unknown
    )
    return Monitor(monitor.card.model_copy(update={"operating_points": (point,)}), monitor.weights)


def _ratio(turns: dict[str, list[Turn]], above: str, below: str, field: str) -> Spread:
    return spread([getattr(a, field) / getattr(b, field) for a, b in zip(turns[above], turns[below], strict=True)])


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        rows = serving_rows(Path(name), n_turns=int(sys.argv[1]) if len(sys.argv) > 1 else 15)
    print(json.dumps([row.model_dump(mode="json") for row in rows], indent=2))
