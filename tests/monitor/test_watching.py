"""Watching generation: planted scores found, batches that do not matter, hooks that go, models that are refused."""

from itertools import pairwise

import pytest
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from auditgap.errors import CannotMeasure, UsageError
from auditgap.models import Model, capture_tokens, generate, tokenize
from auditgap.models.tokens import pad
from auditgap.monitor import Watched, watching
from auditgap.monitor.aggregation import aggregate
from auditgap.records.monitor import MonitorPolicy

PROMPTS = ["a b c", "d", "e f g h i j k", "l m n o", "p q"]


def _hf(model: Model, prompts: list[str], **options) -> torch.Tensor:
    tokens = tokenize(model, prompts)
    options = {"max_new_tokens": 8, "do_sample": False} | options
    return model.hf.generate(tokens.input_ids, attention_mask=tokens.attention_mask, **options)


def _expected(model: Model, monitor, ids: torch.Tensor, prompt: str) -> float:
    """The largest value over tokens, from one plain pass over prompt and reply, without the hooks."""
    end, pads = model.tokenizer.eos_token_id, model.tokenizer.pad_token_id
    n_prompt = len(model.tokenizer(prompt)["input_ids"])
    row = [i for i in ids.tolist() if i != pads]
    reply = row[n_prompt:]
    reply = reply[: reply.index(end)] if end in reply else reply[:-1]  # the last token is never fed
    states = capture_tokens(model, pad(model, [row[:n_prompt] + reply]), [p.site for p in monitor.card.probes])
    scores = [states[p.site][0] @ w.direction + w.bias for p, w in zip(monitor.card.probes, monitor.weights, strict=True)]
    first = {"prompt_end": n_prompt - 1, "generated": n_prompt - 1, "every_token": 0}[monitor.card.position]
    last = n_prompt if monitor.card.position == "prompt_end" else n_prompt + len(reply)
    tokens = torch.stack(scores)[None, :, first:last]
    how = monitor.card.aggregation
    values = []
    for t in range(1, tokens.shape[-1] + 1):
        part = tokens[..., :t]
        found = aggregate(how, part).mean() if how.kind == "multi_max" else aggregate(how, part.mean(1, keepdim=True))
        values.append(found.item())
    return max(values)


@pytest.mark.parametrize("position", ["prompt_end", "generated", "every_token"])
@pytest.mark.parametrize("kind", ["max", "mean", "rolling_mean_max", "ema", "multi_max", "softmax", "last"])
def test_scores_are_those_of_a_plain_pass(model, make, position, kind):
    monitor = make(position=position, kind=kind, sites=("resid_post.2", "resid_post.0"))
    with watching(model, monitor) as watch:
        out = _hf(model, PROMPTS)
    for row, (prompt, seen) in enumerate(zip(PROMPTS, watch.requests(), strict=True)):
        assert seen.request == row and seen.coverage == 1.0 and not seen.flagged
        assert seen.score == pytest.approx(_expected(model, monitor, out[row], prompt), abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "temperature": 1.0}])
def test_replies_are_as_without_a_monitor(model, make, options):
    monitors = [make(f"m{i}", seed=i, sites=(f"resid_post.{i % 3}",)) for i in range(20)]
    torch.manual_seed(3)
    plain = _hf(model, PROMPTS, **options)
    torch.manual_seed(3)
    with watching(model, monitors) as watch:
        watched = _hf(model, PROMPTS, **options)
    assert torch.equal(plain, watched) and len(watch.requests()) == 20 * len(PROMPTS)


def test_one_by_one_equals_a_ragged_batch(model, make):
    monitors = [
        make(f"{kind}", kind=kind, position=p)
        for kind, p in (("max", "generated"), ("ema", "every_token"), ("last", "prompt_end"))
    ]
    with watching(model, monitors) as watch:
        _hf(model, PROMPTS)
        together = watch.take()
        for prompt in PROMPTS:
            _hf(model, [prompt])
        alone = watch.take()
    assert [w.request for w in alone] == [w.request + len(PROMPTS) for w in together]
    for one, many in zip(alone, together, strict=True):
        assert one.score == pytest.approx(many.score, abs=1e-4)
        assert (one.n_scored, one.n_due, one.n_tokens) == (many.n_scored, many.n_due, many.n_tokens)


def test_packed_monitors_equal_each_on_its_own(model, make):
    monitors = [make(f"m{i}", seed=i, sites=(f"resid_post.{i % 3}", "mlp_out.1"), kind=("max", "ema")[i % 2]) for i in range(6)]
    with watching(model, monitors) as watch:
        _hf(model, PROMPTS)
    found = {(w.request, w.monitor): w.score for w in watch.requests()}
    for monitor in monitors:
        with watching(model, monitor) as watch:
            _hf(model, PROMPTS)
        for seen in watch.requests():
            assert seen.score == pytest.approx(found[seen.request, seen.monitor], abs=1e-5)


def test_requests_that_end_early_are_not_scored_after_their_end(model, make):
    torch.manual_seed(0)
    with watching(model, make()) as watch:
        out = _hf(model, PROMPTS, max_new_tokens=24, do_sample=True, temperature=3.0)
    replies = [_until_end(model, row) for row in out[:, tokenize(model, PROMPTS).input_ids.shape[1] :].tolist()]
    assert len({len(reply) for reply in replies}) > 1, "the fixture must have replies that end at different steps"
    pads = [reply[:23].count(model.tokenizer.pad_token_id) for reply in replies]
    assert any(pads), "the fixture must have a reply that holds a padding token and goes on"
    found = [w.n_scored for w in watch.requests()]
    assert found == [1 + min(len(reply), 23) - n for reply, n in zip(replies, pads, strict=True)]


def _until_end(model: Model, row: list[int]) -> list[int]:
    end = model.tokenizer.eos_token_id
    return row[: row.index(end)] if end in row else row


def test_our_own_loop_is_watched_too(model, make):
    with watching(model, make()) as watch:
        replies = generate(model, PROMPTS[:1], max_new_tokens=8)
        ours = watch.take()[0]
        _hf(model, PROMPTS[:1])
        theirs = watch.take()[0]
    assert replies[0] and ours.score == pytest.approx(theirs.score, abs=1e-5) and ours.n_scored == theirs.n_scored


def test_flagged_after_says_when(model, make):
    with watching(model, make()) as watch:
        _hf(model, PROMPTS)
    peak = max(w.score for w in watch.requests())
    with watching(model, make(threshold=peak - 1e-4)) as watch:
        _hf(model, PROMPTS)
    flagged = [w for w in watch.requests() if w.flagged]
    assert len(flagged) == 1 and flagged[0].score == pytest.approx(peak, abs=1e-5)
    for n in range(1, 9):  # shorter replies are flagged only once they reach that token
        with watching(model, make(threshold=peak - 1e-4)) as watch:
            _hf(model, PROMPTS, max_new_tokens=n)
        assert any(w.flagged for w in watch.requests()) == (n > flagged[0].flagged_after)


def test_hidden_tokens_lower_the_coverage(model, make):
    """A prefix cache: the first half of the prompt was computed before anybody watched."""
    monitors = [make("end", position="prompt_end", kind="last"), make("all", position="every_token")]
    tokens = tokenize(model, ["a b c d e f"])
    with torch.no_grad():
        cache = model.hf(tokens.input_ids[:, :3], use_cache=True).past_key_values
    with watching(model, monitors) as watch:
        model.hf.generate(
            tokens.input_ids, attention_mask=tokens.attention_mask, past_key_values=cache, max_new_tokens=4, min_new_tokens=4
        )
    end, every = watch.requests()
    assert end.coverage == 1.0
    assert (every.n_due - every.n_scored, every.coverage < 1.0) == (3, True)
    assert watch.coverage < 1.0


class _Cancel(StoppingCriteria):
    """Cancels the first request after two tokens, or everything by an exception."""

    def __init__(self, n_prompt: int, *, fail: bool = False) -> None:
        self.n_prompt, self.fail = n_prompt, fail

    def __call__(self, input_ids, scores, **kwargs):
        late = input_ids.shape[1] - self.n_prompt >= 2
        if late and self.fail:
            raise ConnectionError("client is gone")
        return torch.tensor([late, *[False] * (len(input_ids) - 1)])


def test_a_cancelled_request_is_scored_until_then(model, make, hook_counts):
    before = hook_counts(model)
    cancel = StoppingCriteriaList([_Cancel(tokenize(model, PROMPTS).input_ids.shape[1])])
    with watching(model, make()) as watch:
        _hf(model, PROMPTS, stopping_criteria=cancel)
        _hf(model, PROMPTS)
    cancelled, whole = watch.requests()[0], watch.requests()[len(PROMPTS)]
    assert cancelled.n_scored == 3 < whole.n_scored
    assert hook_counts(model) == before


def test_an_exception_leaves_no_hooks_and_keeps_the_scores(model, make, hook_counts):
    before = hook_counts(model)
    cancel = StoppingCriteriaList([_Cancel(tokenize(model, PROMPTS).input_ids.shape[1], fail=True)])
    with pytest.raises(ConnectionError), watching(model, make()) as watch:
        _hf(model, PROMPTS, stopping_criteria=cancel)
    assert hook_counts(model) == before
    assert [w.n_scored for w in watch.requests()] == [2] * len(PROMPTS)
    with watching(model, make()) as again:
        _hf(model, PROMPTS[:2])
    assert len(again.requests()) == 2


def test_take_forgets(model, make):
    with watching(model, make()) as watch:
        _hf(model, PROMPTS[:2])
        assert [w.request for w in watch.take()] == [0, 1] and watch.requests() == [] and watch.coverage == 0.0
        _hf(model, PROMPTS[:1])
        assert [w.request for w in watch.take()] == [2]


def test_scores_can_be_read_while_it_runs(model, make):
    seen: list[Watched] = []

    class Peek(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            seen.extend(watch.requests())
            return torch.zeros(len(input_ids), dtype=torch.bool)

    with watching(model, make()) as watch:
        _hf(model, PROMPTS[:1], stopping_criteria=StoppingCriteriaList([Peek()]), max_new_tokens=4, min_new_tokens=4)
    assert [w.n_scored for w in seen] == [1, 2, 3, 4]
    assert all(a.score <= b.score for a, b in pairwise(seen))


def test_a_score_that_is_no_number_is_an_alarm(model, make):
    monitor = make()
    broken = type(monitor)(monitor.card, tuple(w._replace(bias=float("nan")) for w in monitor.weights))
    with watching(model, broken) as watch:
        _hf(model, PROMPTS[:2])
    assert all(w.flagged and w.flagged_after == 0 for w in watch.requests())


def test_another_model_is_refused_or_reported(model, other, make, hook_counts):
    monitor = make()
    with pytest.raises(CannotMeasure, match="UNCALIBRATED: another weights"), watching(other, monitor):
        pass
    with watching(other, monitor, MonitorPolicy(when_down="pass")) as watch:
        _hf(other, PROMPTS)
    seen = watch.requests()
    assert len(seen) == len(PROMPTS) and all(w.score is None and w.coverage == 0.0 and "UNCALIBRATED" in w.down for w in seen)
    assert not any(hook_counts(other))


def test_another_template_or_rate_is_refused(model, make):
    template = model.tokenizer.chat_template
    try:
        model.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        with pytest.raises(CannotMeasure, match="chat template in use"), watching(model, make()):
            pass
    finally:
        model.tokenizer.chat_template = template
    rare = MonitorPolicy(max_fpr=0.2)
    with pytest.raises(CannotMeasure, match=r"no threshold at a false-positive rate of 0\.2"), watching(model, make(), rare):
        pass


def test_what_cannot_be_followed_is_refused_or_counted(model, make):
    with pytest.raises(CannotMeasure, match="key-value cache"), watching(model, make()):
        _hf(model, PROMPTS, use_cache=False)
    with pytest.raises(CannotMeasure, match="several pieces"), watching(model, make()):
        _hf(model, PROMPTS, prefill_chunk_size=3)
    with watching(model, make(), MonitorPolicy(when_down="pass")) as watch:
        _hf(model, ["e f g h i j k"], prefill_chunk_size=3)
    assert watch.coverage < 1.0


def test_bad_calls_are_refused(model, make):
    with pytest.raises(UsageError, match="distinct names"), watching(model, [make(), make()]):
        pass
    with pytest.raises(UsageError, match="distinct names"), watching(model, []):
        pass
    with pytest.raises(UsageError, match="layer 9"), watching(model, make(sites=("resid_post.9",))):
        pass
