"""The server under fault: everything that clients do wrong, slowly, too often or half."""

import asyncio
import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from auditgap.records.monitor import MonitorPolicy
from auditgap.serving.entries import Begun, Ended
from auditgap.serving.ledger import read_ledger

LONG = {"model": "tiny", "prompt": "a b c", "max_tokens": 4000, "temperature": 0}
LIMITS = {"max_new_tokens": 4000}


def small(**options) -> dict:
    return {"model": "tiny", "prompt": "a b", "max_tokens": 1, "temperature": 0} | options


def lines(served, kind=Ended) -> list:
    return [line for line in read_ledger(served.ledger) if isinstance(line, kind)]


def wait_until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def raw(served, body: bytes, *, tenant: str = "alice", receive_buffer: int | None = None) -> socket.socket:
    """A request on a bare socket."""
    host, port = served.url.removeprefix("http://").split(":")
    found = socket.socket()
    if receive_buffer:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    found.connect((host, int(port)))
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {served.tokens[tenant]}\r\n"
    found.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_place_and_leaves_a_line(serve, make, stream):
    body = json.dumps(LONG | {"stream": stream}).encode()
    with serve([make()], limits=LIMITS | {"concurrent": 1}) as served, served.client() as alice, raw(served, body) as gone:
        wait_until(lambda: lines(served, Begun) and served.service.n_admitted == 1)
        assert alice.post("/v1/completions", json=small()).json()["error"]["code"] == "concurrent"
        gone.close()
        wait_until(lambda: served.service.n_admitted == 0)
        assert alice.post("/v1/completions", json=small()).status_code == 200
    cut, whole = lines(served)
    assert (cut.outcome, cut.reason) == ("cut", "the client went away") and cut.n_output_tokens < 4000
    assert whole.outcome == "length"


def test_a_request_that_waits_is_cut_without_reaching_the_model(serve):
    with serve(batch_size=1, limits=LIMITS) as served, raw(served, json.dumps(LONG | {"stream": True}).encode()) as first:
        wait_until(lambda: b"data:" in first.recv(4096))
        with raw(served, json.dumps(LONG).encode()):
            wait_until(lambda: len(lines(served, Begun)) == 2)
        wait_until(lambda: lines(served))
        (cut,) = lines(served)
        assert (cut.outcome, cut.n_output_tokens, cut.queued_ms) == ("cut", 0, None)


def test_a_slow_reader_is_cut_and_holds_nobody_up(serve, monkeypatch):
    class Narrow(socket.socket):
        """A listening socket whose connections buffer little, so that a reader who does not read is soon noticed."""

        def listen(self, *backlog):
            self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            super().listen(*backlog)

    with monkeypatch.context() as patch:
        patch.setattr("auditgap.release.injection.hosting.socket.socket", Narrow)
        starting = serve(limits=LIMITS, send_timeout_s=0.2)
        served = starting.__enter__()
    try:
        body = json.dumps(LONG | {"stream": True}).encode()
        with raw(served, body, receive_buffer=2048), served.client("bob") as bob:
            wait_until(lambda: lines(served, Begun))
            assert bob.post("/v1/completions", json=small()).status_code == 200
            wait_until(lambda: served.service.n_admitted == 0)
    finally:
        starting.__exit__(None, None, None)
    cut = next(line for line in lines(served) if line.tenant == "alice")
    assert (cut.outcome, cut.reason) == ("cut", "the reader is too slow") and 0 < cut.n_output_tokens < 4000


@pytest.mark.anyio
async def test_unread_text_is_cut_at_the_send_timeout(serve):
    """The same without a kernel's buffers in between: a connection that never takes its second piece."""
    from auditgap.serving.answering import Answer, ReaderGone
    from auditgap.serving.wire import Completion

    with serve(limits=LIMITS, send_timeout_s=0.1) as served:
        body, sent = json.dumps(LONG | {"stream": True}).encode(), []

        async def receive():
            if sent:
                await asyncio.sleep(60)
            sent.append(None)
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message)
            if len(sent) > 2:
                await asyncio.sleep(60)

        headers = [(b"authorization", f"Bearer {served.tokens['alice']}".encode()), (b"content-type", b"application/json")]
        with pytest.raises(ReaderGone, match="too slow"):
            await Answer(served.service, Completion)({"type": "http", "headers": headers}, receive, send)
        await asyncio.to_thread(wait_until, lambda: lines(served))
        (cut,) = lines(served)
        assert (cut.outcome, cut.reason) == ("cut", "the reader is too slow") and served.service.n_admitted == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"model": "tiny", "prompt": "\xff\xfe"}', "invalid_utf8"),
        (b"\x80", "invalid_utf8"),
        ('{"model": "tiny", "prompt": "é"}'.encode("utf-16"), "invalid_utf8"),
        (b'{"model": "tiny", "prompt": "\\ud800"}', "invalid_unicode"),
        (b'{"model": "tiny", "prompt": "a", "user": "\\udfff"}', "invalid_unicode"),
        (b"", "invalid_json"),
        (b"not json", "invalid_json"),
        (b'{"model": "tiny", "prompt": "a", "temperature": NaN}', "invalid_json"),
        (b'{"model": "tiny", "model": "tiny", "prompt": "a"}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"model": "tiny", "prompt": "a", "seed": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b'{"model": "tiny", "prompt": "a", "temperature": 1e999}', "invalid_value"),
        (b"[]", "invalid_value"),
        (b"null", "invalid_value"),
        (b"{}", "missing_parameter"),
    ],
)
def test_a_body_that_is_not_a_request_is_refused(shared_server, body, code):
    with shared_server.client() as alice:
        answer = alice.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


@pytest.fixture(scope="module")
def shared_server(serve, make):
    with serve([make()], limits={"max_body_bytes": 200_000}) as served:
        yield served


def test_an_oversized_body_is_refused_before_it_is_whole(shared_server):
    with shared_server.client() as alice:
        answer = alice.post("/v1/completions", json=small(prompt="a " * 150_000))
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")

        def endless():
            for _ in range(100):
                yield b" " * 10_000

        chunked = alice.post("/v1/completions", content=endless(), headers={"Content-Type": "application/json"})
        assert chunked.status_code == 413
        assert alice.post("/v1/completions", json=small()).status_code == 200


def test_a_body_that_never_arrives_is_given_up(serve):
    with serve(body_timeout_s=0.2) as served:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.tokens['alice']}\r\n"
            slow.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{{".encode())
            assert slow.recv(4096).startswith(b"HTTP/1.1 408 ")
        wait_until(lambda: served.service.n_admitted == 0)


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer no"}, {"Authorization": b"Bearer \xff\xfe"}, {"Authorization": "Basic x"}]
)
def test_a_bad_token_learns_nothing(shared_server, header):
    before = len(lines(shared_server))
    with httpx.Client(base_url=shared_server.url) as nobody:
        for answer in (nobody.get("/v1/models", headers=header), nobody.post("/v1/completions", json=small(), headers=header)):
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["type"] == "authentication_error" and "tiny" not in answer.text
    assert len(lines(shared_server)) == before


def test_limits_are_each_tenants_own(serve):
    limits = {"requests_per_minute": 3, "max_prompt_tokens": 4}
    with serve(limits=limits) as served, served.client() as alice, served.client("bob") as bob:
        assert [alice.post("/v1/completions", json=small()).status_code for _ in range(3)] == [200] * 3
        refused = alice.post("/v1/completions", json=small())
        assert refused.status_code == 429 and refused.json()["error"]["code"] == "rate"
        assert 15 <= int(refused.headers["retry-after"]) <= 21
        assert bob.post("/v1/completions", json=small()).status_code == 200
        long = bob.post("/v1/completions", json=small(prompt="a b c d e"))
        assert long.status_code == 400 and "4 are allowed" in long.json()["error"]["message"]


def test_a_full_line_is_said_and_turns_are_taken(serve):
    body = json.dumps(LONG | {"stream": True}).encode()
    with serve(batch_size=1, max_waiting=3, limits=LIMITS) as served, raw(served, body) as holding:
        wait_until(lambda: b"data:" in holding.recv(4096))
        with ThreadPoolExecutor(3) as pool, served.client() as alice, served.client("bob") as bob:
            waiting = [pool.submit(client.post, "/v1/completions", json=small()) for client in (alice, alice)]
            wait_until(lambda: served.service.n_admitted == 3)
            waiting.append(pool.submit(bob.post, "/v1/completions", json=small()))
            wait_until(lambda: served.service.n_admitted == 4 and len(lines(served, Begun)) == 4)
            full = bob.post("/v1/completions", json=small())
            assert (full.status_code, full.json()["error"]["code"], full.headers["retry-after"]) == (429, "queue", "1")
            holding.close()
            assert [each.result().status_code for each in waiting] == [200] * 3
    assert [line.tenant for line in lines(served)] == ["alice", "alice", "bob", "alice"]


def test_no_text_and_no_score_reaches_another_tenant(serve, make):
    """Sixteen at a time in common batches: everybody gets what it gets alone."""
    letters = {"alice": "zab", "bob": "bcd"}
    prompts = {f"{t}{i}": (t, " ".join(of[(i + j) % 3] for j in range(1 + i))) for t, of in letters.items() for i in range(8)}

    def ask(served, who):
        tenant, prompt = prompts[who]
        with served.client(tenant) as client:
            return client.post("/v1/completions", json=small(prompt=prompt, max_tokens=8)).json()

    with serve([make()], batch_size=16, policy=MonitorPolicy(action="refuse", text="NO")) as served:
        alone = {who: ask(served, who) for who in prompts}
        with ThreadPoolExecutor(16) as pool:
            together = dict(zip(prompts, pool.map(lambda who: ask(served, who), prompts), strict=True))
    for who, answer in together.items():
        assert answer["choices"] == alone[who]["choices"] and answer["usage"] == alone[who]["usage"]
        if who.startswith("bob"):
            assert "auditgap" not in answer
            continue
        ours, theirs = answer["auditgap"]["verdicts"], alone[who]["auditgap"]["verdicts"]
        assert [v["flagged_after"] for v in ours] == [v["flagged_after"] for v in theirs]
        assert ours[0]["score"] == pytest.approx(theirs[0]["score"], abs=1e-4)
    assert any(answer["choices"][0]["finish_reason"] == "content_filter" for answer in together.values())
    by_id = {answer["id"]: who for who, answer in (*alone.items(), *together.items())}
    assert all(line.tenant == prompts[by_id[line.id]][0] for line in lines(served))


def test_a_model_that_raises_fails_these_requests_only(serve, make, model, monkeypatch, caplog):
    def broken(*args, **kwargs):
        raise RuntimeError("quoting the prompt: a b secret")

    with serve([make()]) as served, served.client() as alice:
        with monkeypatch.context() as patch:
            patch.setattr(type(model.hf.model), "forward", broken)
            answer = alice.post("/v1/completions", json=small())
            stream = alice.post("/v1/completions", json=small(stream=True))
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "model_error")
        assert '"code":"model_error"' in stream.text and "[DONE]" not in stream.text
        assert alice.post("/v1/completions", json=small()).status_code == 200
    assert [(line.outcome, line.reason) for line in lines(served)][:2] == [("failed", "RuntimeError")] * 2
    assert "RuntimeError in the model" in caplog.text
    assert not any("secret" in text for text in (caplog.text, answer.text, stream.text, served.ledger.read_text()))


def test_an_error_of_ours_shows_no_traceback_and_no_prompt(serve, monkeypatch, caplog):
    from auditgap.serving.service import Service

    with serve() as served, served.client() as alice:
        monkeypatch.setattr(Service, "_limit", lambda *_: 1 / 0)
        answer = alice.post("/v1/completions", json=small(prompt="secret"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "ZeroDivisionError while answering" in caplog.text
    assert not any(word in caplog.text + answer.text for word in ("secret", "Traceback"))


def test_a_ledger_that_cannot_be_written_closes_the_server(serve, monkeypatch):
    with serve() as served, served.client() as alice:
        assert alice.post("/v1/completions", json=small()).status_code == 200

        def full(_file):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fdatasync", full)
        assert alice.post("/v1/completions", json=small()).status_code == 503
        monkeypatch.undo()
        assert alice.post("/v1/completions", json=small()).json()["error"]["code"] == "not_ready"
        assert alice.get("/readyz").json() == {"status": "the ledger cannot be written"}
    assert len(lines(served)) == len(lines(served, Begun)) == 1


def test_a_time_limit_ends_a_request(serve):
    with serve(limits=LIMITS, request_timeout_s=0.2) as served, served.client() as alice:
        answer = alice.post("/v1/completions", json=LONG)
        stream = alice.post("/v1/completions", json=LONG | {"stream": True})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "timeout") and '"code":"timeout"' in stream.text
    assert [(line.outcome, line.reason) for line in lines(served)] == [("cut", "the time limit")] * 2


def test_stopping_finishes_what_it_can_and_cuts_the_rest(serve):
    before = set(threading.enumerate())
    with ThreadPoolExecutor(2) as pool:
        with serve(limits=LIMITS, drain_s=0.5) as served:
            client = served.client()
            short = pool.submit(client.post, "/v1/completions", json=LONG | {"max_tokens": 30})
            long = pool.submit(client.post, "/v1/completions", json=LONG)
            wait_until(lambda: len(lines(served, Begun)) == 2)
        client.close()
    assert short.result().status_code == 200
    assert (long.result().status_code, long.result().json()["error"]["code"]) == (503, "stopped")
    assert [(line.outcome, line.reason) for line in lines(served)] == [("length", ""), ("cut", "the server stops")]
    assert set(threading.enumerate()) <= before


def test_while_it_stops_nothing_new_is_accepted(serve):
    with serve() as served, served.client() as alice:
        served.service.stopping = True
        assert alice.get("/readyz").status_code == 503 and alice.get("/healthz").status_code == 200
        refused = alice.post("/v1/completions", json=small())
        assert refused.status_code == 503 and refused.headers["retry-after"]


def test_a_worker_survives_that_its_only_job_is_cut_while_it_gathers(model):
    from auditgap.serving.decoding import Sampling
    from auditgap.serving.jobs import Job
    from auditgap.serving.worker import Worker

    async def many() -> None:
        ended: list[str] = []
        worker = Worker(model, [], MonitorPolicy(), batch_size=2, on_end=lambda job, finished: ended.append(finished.outcome))
        worker.start()
        try:
            for _ in range(20):
                job = Job("j", "alice", [5], Sampling(1), ())
                worker.submit(job)
                await asyncio.sleep(0.001)  # it is woken, and waits for company
                worker.cut(job, "gone")
            worker.submit(Job("k", "alice", [5], Sampling(1), ()))
            await asyncio.to_thread(wait_until, lambda: len(ended) == 21)
            assert worker.is_alive and ended[-1] == "length" and "cut" in ended
        finally:
            worker.close()

    asyncio.run(many())
