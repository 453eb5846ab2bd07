"""A flag acts before the next token; what was not flagged is left alone."""

import pytest
import torch

from auditgap.errors import UsageError
from auditgap.models import generate, tokenize
from auditgap.monitor import watching
from auditgap.monitor.intervention import direction_digest, force
from auditgap.records.monitor import MonitorPolicy, Steering

PROMPTS = ["a b c", "d e", "e f g h"]


def _new(model, *, sample: bool = False, **options) -> list[list[int]]:
    tokens = tokenize(model, PROMPTS)
    options = {"max_new_tokens": 8, "do_sample": sample} | options
    out = model.hf.generate(tokens.input_ids, attention_mask=tokens.attention_mask, **options)
    return out[:, tokens.input_ids.shape[1] :].tolist()


@pytest.fixture
def one_flagged(model, make):
    """A monitor that flags exactly the second prompt, at its end."""
    for seed in range(50):
        monitor = make(position="prompt_end", kind="last", seed=seed)
        with watching(model, monitor) as watch:
            _new(model)
        scores = [w.score for w in watch.requests()]
        if scores[1] > max(scores[0], scores[2]) + 0.1:
            return make(position="prompt_end", kind="last", seed=seed, threshold=scores[1] - 0.05)
    raise AssertionError("no direction puts the second prompt highest")


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize(("action", "text"), [("refuse", "x y z"), ("escalate", "w"), ("stop", "")])
def test_a_flagged_reply_is_replaced_from_its_first_token(model, one_flagged, action, text, sample):
    torch.manual_seed(5)
    plain = _new(model, sample=sample)
    torch.manual_seed(5)
    with watching(model, one_flagged, MonitorPolicy(action=action, text=text)) as watch:
        found = _new(model, sample=sample)
    expected = [*model.tokenizer(text, add_special_tokens=False)["input_ids"], model.tokenizer.eos_token_id]
    assert found[1][: len(expected)] == expected and set(found[1][len(expected) :]) <= {model.tokenizer.pad_token_id}
    assert found[0] == plain[0] and found[2] == plain[2]
    assert [w.flagged_after for w in watch.requests()] == [None, 0, None]


def test_our_own_loop_is_stopped_too(model, one_flagged):
    with watching(model, one_flagged, MonitorPolicy(action="refuse", text="x y z")):
        assert generate(model, [PROMPTS[1]], max_new_tokens=8)[0].split() == ["x", "y", "z"]


def test_a_flag_in_the_middle_keeps_what_was_said(model, make):
    with watching(model, make()) as watch:
        plain = _new(model, min_new_tokens=8)
    peak = max(w.score for w in watch.requests())
    monitor = make(threshold=peak - 1e-4)
    with watching(model, monitor, MonitorPolicy(action="refuse", text="x y")) as watch:
        found = _new(model)
    (flagged,) = [w for w in watch.requests() if w.flagged]
    row, n = flagged.request, flagged.flagged_after
    assert found[row][:n] == plain[row][:n]
    assert found[row][n : n + 3] == [*model.tokenizer("x y", add_special_tokens=False)["input_ids"], model.tokenizer.eos_token_id]
    assert flagged.n_scored == n + 1, "the policy's own text is not scored"


def test_steering_moves_flagged_rows_alone(model, one_flagged):
    direction = torch.randn(model.d_model, generator=torch.Generator().manual_seed(9))
    steering = Steering(site="resid_post.2", direction=direction_digest(direction), scale=30.0)
    plain = _new(model)
    with watching(model, one_flagged, MonitorPolicy(action="steer", steering=steering), direction=direction) as watch:
        found = _new(model)
    assert found[1] != plain[1] and found[0] == plain[0] and found[2] == plain[2]
    assert [w.flagged for w in watch.requests()] == [False, True, False]
    assert _new(model) == plain


def test_force_leaves_one_choice():
    logits = torch.randn(3, 7)
    found = force(logits, torch.tensor([1, 2, 3]), torch.tensor([True, False, True]))
    assert found.softmax(-1)[[0, 2], [1, 3]].tolist() == [1.0, 1.0] and torch.equal(found[1], logits[1])


def test_bad_steering_is_refused(model, make):
    direction = torch.ones(model.d_model)

    def policy(site: str) -> MonitorPolicy:
        return MonitorPolicy(action="steer", steering=Steering(site=site, direction=direction_digest(direction), scale=1.0))

    for site, given, match in (
        ("resid_post.2", None, "got none"),
        ("resid_post.2", direction * 2, "registered direction"),
        ("resid_post.2", direction[:4], "width 16"),
        ("resid_post.0", direction, "before the probe"),
        ("resid_post.8", direction, "layer 8"),
    ):
        with pytest.raises(UsageError, match=match), watching(model, make(), policy(site), direction=given):
            pass


def test_bad_policies_are_refused():
    for bad in ({"action": "refuse"}, {"action": "steer"}, {"max_fpr": 0.0}, {"action": "shout"}, {"when_down": "maybe"}):
        with pytest.raises(ValueError):
            MonitorPolicy.model_validate(bad)
