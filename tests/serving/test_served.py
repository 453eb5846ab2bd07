"""The server as people use it: OpenAI's own client, verdicts for those who may see them, policies that act."""

import json

import httpx
import openai
import pytest

from auditgap.errors import CannotMeasure, StoreError, UsageError
from auditgap.models import generate, open_model
from auditgap.monitor import score
from auditgap.records.monitor import MonitorPolicy
from auditgap.serving.entries import Begun, Ended
from auditgap.serving.ledger import read_ledger
from auditgap.serving.running import serving, who_may_ask
from auditgap.serving.service import Settings
from auditgap.serving.tenants import ANONYMOUS

NO = "I will not go on."


@pytest.fixture(scope="module")
def served(serve, make):
    with serve([make()]) as found:
        yield found


def client(served, tenant="alice") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.tokens[tenant], max_retries=0, timeout=30)


def ask(served, content="a b c", tenant="alice", **options):
    options = {"model": "tiny", "temperature": 0, "max_tokens": 6} | options
    return client(served, tenant).chat.completions.create(messages=[{"role": "user", "content": content}], **options)


def lines(served, kind=Ended) -> list:
    return [line for line in read_ledger(served.ledger) if isinstance(line, kind)]


def test_chat_and_completion_say_what_the_model_says(served, model):
    expected = generate(model, ["a b c"], max_new_tokens=6)[0]
    chat = ask(served)
    assert expected.endswith(chat.choices[0].message.content) and chat.choices[0].finish_reason == "length"
    text = client(served).completions.create(model="tiny", prompt="a b c", max_tokens=6, temperature=0)
    assert text.choices[0].text == expected
    assert (text.usage.prompt_tokens, text.usage.completion_tokens, text.usage.total_tokens) == (3, 6, 9)
    assert [card.id for card in client(served).models.list()] == ["tiny"]
    assert client(served).models.retrieve("tiny").id == "tiny"


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1.5, "seed": 3, "top_p": 0.8}, {"stop": ["q", "j"]}])
def test_a_stream_is_the_whole_in_pieces(served, options):
    whole = ask(served, max_tokens=30, **options)
    stream = list(ask(served, max_tokens=30, stream=True, stream_options={"include_usage": True}, **options))
    *pieces, last, counts = stream
    assert "".join(piece.choices[0].delta.content for piece in pieces) == whole.choices[0].message.content
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason and counts.usage == whole.usage
    assert len({piece.id for piece in stream}) == 1 and len(pieces) > 1
    text = client(served).completions.create(model="tiny", prompt="a b c", max_tokens=9, temperature=0, stream=True)
    assert len("".join(piece.choices[0].text for piece in text).split()) == 9


def test_a_real_model_is_served_word_for_word(serve, stories):
    real = open_model(stories)
    expected = generate(real, ["Once upon a time"], max_new_tokens=30)[0]
    with serve(on=real, name="stories") as found:
        text = client(found).completions.create(model="stories", prompt="Once upon a time", max_tokens=30, temperature=0)
        assert text.choices[0].text == expected
        stream = client(found).completions.create(
            model="stories", prompt="Once upon a time", max_tokens=30, temperature=0, stream=True
        )
        assert "".join(piece.choices[0].text for piece in stream) == expected


def test_verdicts_are_for_those_who_may_see_them(served, model, make):
    seen = ask(served, "a z c").model_extra["auditgap"]
    (verdict,) = seen["verdicts"]
    expected = score(model, make(), ["a z c "], max_new_tokens=6)[0].watched[0]
    assert verdict["flagged"] and verdict["flagged_after"] == 0 and seen["intervention"] is None
    assert verdict["score"] == pytest.approx(expected.score, abs=1e-4) and verdict["coverage"] == seen["coverage"] == 1.0
    *_, last = ask(served, "a z c", stream=True)
    assert last.model_extra["auditgap"]["verdicts"] == seen["verdicts"]
    assert "auditgap" not in ask(served, "a z c", tenant="bob").model_extra
    assert not any("auditgap" in piece.model_extra for piece in ask(served, "a z c", tenant="bob", stream=True))
    quiet = ask(served, "a b c", max_tokens=1).model_extra["auditgap"]
    assert not quiet["verdicts"][0]["flagged"]


def test_the_ledger_has_two_lines_with_digests_only(served):
    before = len(lines(served))
    answer = ask(served, "x y z", tenant="bob", seed=11)
    begun, ended = lines(served, Begun)[-1], lines(served)[-1]
    assert len(lines(served)) == before + 1 and begun.id == ended.id == answer.id
    assert (begun.tenant, begun.seed, begun.n_input_tokens, begun.max_new_tokens, begun.content) == ("bob", 11, 3, 6, None)
    assert (ended.tenant, ended.outcome, ended.n_output_tokens, ended.content) == ("bob", "length", 6, None)
    assert ended.verdicts[0].monitor == "probe" and ended.coverage == 1.0 and ended.release == begun.release
    assert 0 <= ended.queued_ms <= ended.first_token_ms <= ended.total_ms
    assert "x y z" not in served.ledger.read_text()


def test_content_is_kept_if_it_is_asked_for(serve, make):
    with serve([make()], keep_content=True) as found:
        answer = ask(found, "a z c")
    begun, ended = read_ledger(found.ledger)
    assert begun.content == [{"role": "user", "content": "a z c"}] and ended.content == answer.choices[0].message.content


@pytest.mark.parametrize(("action", "text"), [("stop", ""), ("refuse", NO), ("escalate", NO)])
def test_a_policy_acts_before_the_first_token(serve, make, caplog, action, text):
    with serve([make()], policy=MonitorPolicy(action=action, text=text)) as found:
        answer = ask(found, "a z c", max_tokens=2)
        stream = list(ask(found, "a z c", max_tokens=2, stream=True))
        ordinary = ask(found, "a b c", max_tokens=2)
    assert answer.choices[0].message.content == text and answer.choices[0].finish_reason == "content_filter"
    assert "".join(piece.choices[0].delta.content or "" for piece in stream) == text
    assert stream[-1].choices[0].finish_reason == "content_filter" and answer.usage.completion_tokens == 0
    assert answer.model_extra["auditgap"]["intervention"] == action
    assert ordinary.choices[0].finish_reason == "length" and ordinary.model_extra["auditgap"]["intervention"] is None
    assert [line.intervention for line in lines(found)] == [action, action, None]
    assert (f"escalated: {answer.id} of alice" in caplog.text) == (action == "escalate")


def test_a_policy_acts_in_the_middle_and_in_a_batch(serve, make, model):
    plain = generate(model, ["a b c "], max_new_tokens=20)[0].split()
    letter = next(word for i, word in enumerate(plain) if 3 <= i < 19 and word not in plain[:i] and word not in "abc")
    at = plain.index(letter)
    with serve([make(letter=letter)], policy=MonitorPolicy(action="refuse", text=NO)) as found:
        text = ask(found, max_tokens=20).choices[0].message.content
        pieces = ask(found, max_tokens=20, stream=True)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == text
    said, _, refusal = text.partition("\n\n")
    assert said.split() == plain[: at + 1] and refusal == NO
    assert lines(found)[0].n_output_tokens == lines(found)[0].verdicts[0].flagged_after == at + 1


def test_a_monitor_of_another_model_keeps_the_server_from_starting(serve, make, stories):
    real = open_model(stories)
    with pytest.raises(CannotMeasure, match="UNCALIBRATED"), serve([make()], on=real):
        pass
    with serve([make()], on=real, policy=MonitorPolicy(when_down="pass")) as found:
        text = client(found).completions.create(model="tiny", prompt="Once", max_tokens=2)
        assert "UNCALIBRATED" in text.model_extra["auditgap"]["verdicts"][0]["down"]
        assert text.model_extra["auditgap"]["coverage"] == 0.0


def test_health_readiness_and_metrics(served):
    with served.client() as alice, served.client("bob") as bob, httpx.Client(base_url=served.url) as nobody:
        assert nobody.get("/healthz").json() == {"status": "ok"} and nobody.get("/readyz").json() == {"status": "ready"}
        alice.post("/v1/completions", json={"model": "tiny", "prompt": "z", "max_tokens": 2})
        text = alice.get("/metrics").text
        assert bob.get("/metrics").json()["error"]["code"] == "not_operator" and bob.get("/metrics").status_code == 403
        assert nobody.get("/metrics").status_code == 401 and nobody.get("/openapi.json").status_code == 401
    assert 'auditgap_requests_total{operation="text_completion",outcome="ok"}' in text
    assert 'auditgap_verdicts_total{control="probe",verdict="flagged"}' in text and 'auditgap_tokens_total{scored="no"} 0' in text
    assert "alice" not in text and "bob" not in text


BAD = [
    ({"tools": [{"type": "function"}]}, "tools", "invalid_value"),
    ({"n": 2}, "n", "invalid_value"),
    ({"logprobs": True}, "logprobs", "invalid_value"),
    ({"frequency_penalty": 0.5}, "frequency_penalty", "invalid_value"),
    ({"logit_bias": {"5": 1}}, "logit_bias", "invalid_value"),
    ({"response_format": {"type": "json_object"}}, "response_format.type", "invalid_value"),
    ({"reasoning_effort": "high"}, "reasoning_effort", "unsupported_parameter"),
    ({"temperature": 3}, "temperature", "invalid_value"),
    ({"temperature": True}, "temperature", "invalid_value"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ({"max_tokens": 100_000}, "", "context_length_exceeded"),
    ({"max_tokens": 2000}, "max_tokens", "invalid_value"),
    ({"max_tokens": 2, "max_completion_tokens": 2}, "", "invalid_value"),
    ({"stream_options": {"include_usage": True}}, "", "invalid_value"),
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "invalid_value"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "", "context_length_exceeded"),
    ({"messages": [{"role": "user", "content": "a " * 5000}]}, "", "context_length_exceeded"),
    ({"messages": "a"}, "messages", "invalid_value"),
    ({"messages": None}, "messages", "invalid_value"),
]


@pytest.mark.parametrize(("change", "param", "code"), BAD, ids=[f"{next(iter(c))}-{i}" for i, (c, _, _) in enumerate(BAD)])
def test_what_is_not_supported_is_refused_by_name(served, change, param, code):
    body = {"model": "tiny", "messages": [{"role": "user", "content": "a"}]} | change
    with served.client() as alice:
        answer = alice.post("/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"] or "", error["code"], error["type"]) == (400, param, code, "invalid_request_error")


def test_what_changes_nothing_is_accepted(served):
    neutral = {"n": 1, "frequency_penalty": 0, "logit_bias": {}, "user": "u", "metadata": {"a": "b"}, "store": False}
    answer = ask(served, **neutral, tools=[], response_format={"type": "text"}, stop=None)
    assert answer.choices[0].message.content == ask(served).choices[0].message.content


def test_another_model_path_or_method_has_the_form_of_every_error(served):
    with pytest.raises(openai.NotFoundError, match="no model 'gpt' here; it is 'tiny'"):
        ask(served, model="gpt")
    with served.client() as alice:
        for answer in (alice.get("/nowhere"), alice.delete("/v1/models"), alice.get("/v1/models/other")):
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"} and answer.status_code in (404, 405)


def test_who_may_ask_fails_closed(tmp_path):
    with pytest.raises(UsageError, match="expected --tokens FILE"):
        who_may_ask(None, host="127.0.0.1", insecure_no_auth=False)
    with pytest.raises(UsageError, match="others can reach"):
        who_may_ask(None, host="0.0.0.0", insecure_no_auth=True)
    with pytest.raises(UsageError, match="got both"):
        who_may_ask(tmp_path / "x", host="::1", insecure_no_auth=True)
    assert who_may_ask(None, host="localhost", insecure_no_auth=True) == ((), ANONYMOUS)


def test_without_tokens_only_names_of_this_machine_lead_in(serve):
    with serve(tenants=(), everybody=ANONYMOUS) as found, httpx.Client(base_url=found.url) as nobody:
        assert nobody.get("/v1/models").status_code == 200
        answer = nobody.get("/v1/models", headers={"Host": "evil.example:80"})
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "foreign_host"
        plain = nobody.post("/v1/completions", content=json.dumps({"model": "tiny", "prompt": "a"}))
        assert plain.status_code == 415  # what a form on a web page can send without asking


def test_what_cannot_be_served_is_refused(model, make, serve, tmp_path):
    settings = Settings(name="tiny", release="sha256:" + "ab" * 32)
    options = {"policy": MonitorPolicy(), "settings": settings, "ledger": tmp_path / "l", "tenants": ()}
    with pytest.raises(UsageError, match="nobody could ask"), serving(model, [], **options):
        pass
    with serve(ledger=tmp_path / "l"), pytest.raises(StoreError, match="another server"), serve(ledger=tmp_path / "l"):
        pass
    assert not any(len(module._forward_hooks) for module in model.hf.modules())
