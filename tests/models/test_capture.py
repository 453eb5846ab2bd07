"""Captured activations are the model's own, for every family, padding and batch."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_families import COMMON_FIRST, PROMPTS

from auditgap.errors import UsageError
from auditgap.models import add, capture, capture_tokens, editing, next_logits, stream, tokenize

SITES = ["resid_pre.0", "attn_out.1", "mlp_out.1", "z.2", "resid_post.2"]


@pytest.mark.parametrize("family", COMMON_FIRST)
def test_agrees_with_output_hidden_states(tiny, family):
    """Entry i is resid_pre.i; the last entry is after the final norm and is not resid_post of the last layer."""
    model = tiny(family)
    tokens = tokenize(model, PROMPTS)
    hf = copy.deepcopy(model.hf)
    with torch.no_grad():
        hidden = hf(**tokens._asdict(), output_hidden_states=True, use_cache=False).hidden_states
    found = capture_tokens(model, tokens, [*(f"resid_pre.{i}" for i in range(3)), "resid_post.2"])
    real = tokens.attention_mask.bool()
    for layer in range(3):
        assert torch.equal(found[f"resid_pre.{layer}"][real], hidden[layer][real])
    assert (found["resid_post.2"][real] - hidden[3][real]).abs().max() > 1e-2


@pytest.mark.parametrize("family", COMMON_FIRST)
def test_padding_and_batches_do_not_matter(tiny, family):
    model = tiny(family)
    together = capture(model, PROMPTS, SITES)
    alone = [capture(model, [prompt], SITES) for prompt in PROMPTS]
    for name in SITES:
        torch.testing.assert_close(together[name], torch.cat([x[name] for x in alone]), rtol=1e-5, atol=1e-5)


def test_order_and_batch_size_do_not_matter(tiny):
    model = tiny("llama")
    prompts = [" ".join(["w1", "w2", "the", "boy"] * 4)[: 3 * n] for n in (9, 2, 14, 5, 1)]
    reference = capture(model, prompts, SITES, batch_size=32)
    for batch_size in (1, 2, 5):
        for name, x in capture(model, prompts, SITES, batch_size=batch_size).items():
            torch.testing.assert_close(x, reference[name], rtol=1e-5, atol=1e-5)
        streamed = list(stream(model, prompts, SITES, batch_size=batch_size))
        assert [len(part["z.2"]) for part in streamed] == [len(prompts[i : i + batch_size]) for i in range(0, 5, batch_size)]
        torch.testing.assert_close(torch.cat([part["z.2"] for part in streamed]), reference["z.2"], rtol=1e-5, atol=1e-5)


def test_reducers(tiny):
    model, site = tiny("llama"), "resid_post.1"
    tokens = tokenize(model, PROMPTS)
    full = capture_tokens(model, tokens, [site])[site]
    rows = [x[m.bool()] for x, m in zip(full, tokens.attention_mask, strict=True)]
    expected = {
        "last": lambda x: x[-1],
        "mean": lambda x: x.mean(0),
        "max": lambda x: x.amax(0),
        0: lambda x: x[0],
        1: lambda x: x[1],
        -2: lambda x: x[-2],
    }
    spans = [slice(-2, None), slice(None, 2), slice(1, -1), slice(-3, -1), slice(None), slice(0, 1)]
    cases = [*expected.items(), *((span, lambda x, span=span: x[span].mean(0)) for span in spans)]
    for positions, reduce in cases:
        found = capture(model, PROMPTS, [site], positions=positions)[site]
        torch.testing.assert_close(found, torch.stack([reduce(x) for x in rows]), rtol=1e-5, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from(["w1", "w2 w3", "the boy w4 w5", "she ."]), min_size=1, max_size=6), st.integers(1, 4))
def test_a_row_is_its_prompts_alone(tiny, prompts, batch_size):
    model = tiny("qwen2")
    found = capture(model, prompts, ["resid_post.1"], positions="mean", batch_size=batch_size)["resid_post.1"]
    for prompt, row in zip(prompts, found, strict=True):
        torch.testing.assert_close(
            row, capture(model, [prompt], ["resid_post.1"], positions="mean")["resid_post.1"][0], rtol=1e-4, atol=1e-5
        )


def test_captures_are_copies_and_may_be_trained_on(tiny):
    """An in-place edit downstream must not reach a capture, and a capture is an ordinary tensor."""
    model = tiny("llama")
    clean = capture(model, PROMPTS, ["resid_post.0"])["resid_post.0"]

    def in_place(x):
        x -= 1.0
        return x

    with editing(model, {"resid_pre.1": in_place}):
        found = capture(model, PROMPTS, ["resid_post.0", "resid_post.2"])["resid_post.0"]
    assert torch.equal(found, clean)
    weight = torch.zeros(32, requires_grad=True)
    (found @ weight).sum().backward()
    assert weight.grad is not None
    assert not found.is_inference()


def test_stops_after_the_deepest_site(tiny):
    model, reached = tiny("llama"), []
    handles = [layer.register_forward_hook(lambda *_, i=i: reached.append(i)) for i, layer in enumerate(model.layers)]
    handles.append(model.hf.lm_head.register_forward_hook(lambda *_: reached.append("head")))
    capture(model, PROMPTS, ["attn_out.1", "resid_pre.0"])
    for handle in handles:
        handle.remove()
    assert reached == [0]


def test_half_precision_is_returned_as_float32(tiny):
    found = capture(tiny("llama", "bfloat16"), PROMPTS, ["resid_post.1"], positions="mean")["resid_post.1"]
    full = capture(tiny("llama"), PROMPTS, ["resid_post.1"], positions="mean")["resid_post.1"]
    assert found.dtype == torch.float32
    assert (found - full).abs().max() <= 2e-2 * full.abs().max()


def test_leaves_everything_as_found(tiny, left_as_found):
    model = tiny("gemma2")
    with left_as_found(model):
        capture(model, PROMPTS, model.sites.names())
        next(stream(model, PROMPTS, ["resid_post.1"], batch_size=1))
        with pytest.raises(UsageError):
            capture(model, PROMPTS, ["resid_post.9"])
    with left_as_found(model), editing(model, {"resid_pre.1": add(torch.ones(32))}):
        pass


def test_capture_inside_an_edit_sees_it(tiny):
    model, ones = tiny("llama"), torch.ones(32)
    before = capture(model, PROMPTS, ["resid_pre.1"])["resid_pre.1"]
    with editing(model, {"resid_pre.1": add(ones, scale=2.0)}):
        torch.testing.assert_close(capture(model, PROMPTS, ["resid_pre.1"])["resid_pre.1"], before + 2.0)


def test_gradients_flow_through_inputs_embeds_under_hooks(tiny):
    model = tiny("llama")
    tokens = tokenize(model, PROMPTS[:1])
    embeddings = model.hf.get_input_embeddings()(tokens.input_ids).requires_grad_(True)
    with editing(model, {"resid_post.1": add(torch.ones(32))}):
        logits = model.hf(
            inputs_embeds=embeddings, attention_mask=tokens.attention_mask, position_ids=tokens.position_ids, use_cache=False
        ).logits
        edited = next_logits(model, PROMPTS[:1])
    torch.testing.assert_close(logits[:, -1].detach(), edited)
    (gradient,) = torch.autograd.grad(logits[0, -1, 3], embeddings)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: capture(m, [], ["resid_pre.0"]), "expected at least one prompt"),
        (lambda m: capture(m, "the boy", ["resid_pre.0"]), "got one string 'the boy'; wrap it in a list"),
        (lambda m: capture(m, [""], ["resid_pre.0"]), "prompt 0 is empty"),
        (lambda m: capture(m, ["w1"], []), "expected at least one site"),
        (lambda m: capture(m, ["w1 w2", "w1"], ["resid_pre.0"], positions=2), "position 2 asked, prompt 1 has 2 tokens"),
        (lambda m: capture(m, ["w1"], ["resid_pre.0"], positions=-3), "position -3 asked, prompt 0 has 2 tokens"),
        (
            lambda m: capture(m, ["w1 w2", "w1"], ["resid_pre.0"], positions=slice(-3, None)),
            "tokens -3: asked, prompt 1 has 2 tokens; choose a shorter span",
        ),
        (lambda m: capture(m, ["w1 w2"], ["resid_pre.0"], positions=slice(2, -1)), "tokens 2:-1 asked, prompt 0 has 3 tokens"),
        (lambda m: capture(m, ["w1 w2"], ["resid_pre.0"], positions=slice(0, 3, 2)), "neighbouring tokens, got one with step 2"),
        (lambda m: capture(m, ["w1"], ["resid_pre.0"], batch_size=0), "expected a batch_size of at least 1, got 0"),
        (lambda m: capture(m, ["w1 " * 60], ["resid_pre.0"]), "prompt 0 has 61 tokens, the model's context holds 48"),
    ],
)
def test_bad_input_is_refused(tiny, call, message):
    with pytest.raises(UsageError, match=message):
        call(tiny("llama"))
