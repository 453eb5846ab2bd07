"""Gradients at named sites against finite differences, and the attention that the QK fix recomputes, in every family."""

import pytest
import torch
from tiny_families import COMMON_FIRST

from auditgap.errors import SiteError, UsageError
from auditgap.instruments.mechanistic.attribution_patching.attention import attending, read_attention, unpadded
from auditgap.models import editing
from auditgap.models.generate import final_logits
from auditgap.models.gradients import embed, integrated_gradients, site_gradients

IDS = torch.tensor([[1, 12, 13, 6, 14, 15], [1, 20, 5, 21, 22, 23]])
OWN_ATTENTION = {"gemma2", "gpt-j", "bloom"}  # soft-caps or alibi: not torch's kernel


def difference(logits, _row):
    return logits[:, 3] - logits[:, 4]


def value(model, ids):
    return difference(final_logits(model, unpadded(model, ids), keep=1)[:, 0], None)


@pytest.mark.parametrize("family", COMMON_FIRST)
def test_equals_finite_differences_at_every_kind_of_site(tiny, family):
    """Five-point differences of step 2e-3; norms run in float32 whatever the dtype, which leaves about 1e-3 of noise.

    Larger steps take the experts of qwen3-moe across a tie of their router, where there is no derivative.
    """
    model = tiny(family)
    sites = [name for name in model.sites.names() if name.endswith(".1")]
    gradients = site_gradients(model, IDS, sites, metric=difference)
    for name in sites:
        step = torch.randn(gradients[name].shape[-1], generator=torch.Generator().manual_seed(0))
        sizes = torch.tensor([1.0, -1.0, 2.0, -2.0])

        def edit(x, step=step, sizes=sizes):
            x[:, 2] += 2e-3 * sizes[:, None] * step  # the same prompt in each row, moved by another step
            return x

        with editing(model, {name: edit}):
            logits = final_logits(model, unpadded(model, IDS[:1].expand(4, -1)), keep=1)[:, 0].double()
        one, back, two, two_back = difference(logits, None).tolist()
        expected = (8 * (one - back) - (two - two_back)) / (12 * 2e-3)
        assert (gradients[name][0, 2] @ step).item() == pytest.approx(expected, rel=0.01, abs=5e-3), name


def test_integrated_gradients_sum_to_the_difference(tiny):
    model, start, end = tiny("llama"), IDS[:1], IDS[1:]
    total = value(model, end) - value(model, start)
    moved = (embed(model, end) - embed(model, start)).float()
    for n_steps, tolerance in ((5, 0.3), (50, 0.02)):
        gradient = integrated_gradients(model, start, end, ["resid_pre.0"], metric=difference, n_steps=n_steps)["resid_pre.0"]
        assert (moved * gradient).sum().item() == pytest.approx(total.item(), rel=tolerance)


def test_one_step_is_the_gradient_at_the_middle(tiny):
    model, start, end = tiny("gpt2"), IDS[:1], IDS[1:]
    middle = (embed(model, start) + embed(model, end)) / 2
    one = integrated_gradients(model, start, end, ["attn_out.1"], metric=difference, n_steps=1)
    at = site_gradients(model, start, ["attn_out.1"], metric=difference, embeddings=middle)
    torch.testing.assert_close(one, at)


@pytest.mark.parametrize("family", ["llama", "gpt-neox", "granite", "bloom", "gemma3"])
def test_a_dropped_layer_passes_gradients_along_the_stream_only(tiny, family):
    model = tiny(family)
    sites = ["resid_pre.1", "resid_pre.2", "attn_out.0", "attn_out.1", "mlp_out.1"]
    whole = site_gradients(model, IDS, sites, metric=difference)
    dropped = site_gradients(model, IDS, sites, metric=difference, dropped=1)
    torch.testing.assert_close(dropped["resid_pre.2"], whole["resid_pre.2"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dropped["resid_pre.1"], dropped["resid_pre.2"], rtol=1e-4, atol=1e-5)
    assert not dropped["attn_out.1"].any() and not dropped["mlp_out.1"].any()
    assert (whole["resid_pre.1"] - whole["resid_pre.2"]).abs().max() > 1e-3


def test_rows_do_not_mix_and_nothing_is_left_behind(tiny, left_as_found):
    model = tiny("llama")
    with left_as_found(model):
        both = site_gradients(model, IDS, ["z.0", "resid_post.2"], metric=difference)
    for row in (0, 1):
        alone = site_gradients(model, IDS[row : row + 1], ["z.0", "resid_post.2"], metric=difference)
        for name, gradient in alone.items():
            torch.testing.assert_close(gradient[0], both[name][row], rtol=1e-4, atol=1e-6)


def test_bad_calls_are_refused(tiny):
    model = tiny("llama")
    with pytest.raises(UsageError, match=r"layer 7 asked in 'z.7', the model has 3 \(0-2\)"):
        site_gradients(model, IDS, ["z.7"], metric=difference)
    with pytest.raises(UsageError, match="layer 3 asked"):
        site_gradients(model, IDS, ["z.0"], metric=difference, dropped=3)
    with pytest.raises(UsageError, match="at least one site, got none"):
        site_gradients(model, IDS, [], metric=difference)
    with pytest.raises(UsageError, match=r"at least 1 step, got .* 0 steps"):
        integrated_gradients(model, IDS, IDS, ["z.0"], metric=difference, n_steps=0)
    with pytest.raises(SiteError, match=r"gradient at z\.0 is not finite"):
        site_gradients(model, IDS, ["z.0"], metric=lambda logits, row: difference(logits, row) * float("nan"))


# Attention as it ran


@pytest.mark.parametrize("family", [f for f in COMMON_FIRST if getattr(f, "values", [f])[0] not in OWN_ATTENTION])
def test_recomputed_attention_is_what_each_head_passes_on(tiny, family):
    """`read_attention` compares with `z` itself, so that it returns at all is the test; distinct keys show grouped queries."""
    model = tiny(family)
    config = model.hf.config
    found = read_attention(model, IDS)
    distinct = 1 if family == "falcon" else getattr(config, "num_key_value_heads", None) or model.n_heads
    assert [layer.key.shape[1] for layer in found] == [distinct] * model.n_layers
    assert {layer.query.shape[1] for layer in found} == {model.n_heads}


@pytest.mark.parametrize("family", sorted(OWN_ATTENTION))
def test_attention_of_another_kernel_is_refused_not_guessed(tiny, family):
    with pytest.raises(SiteError, match=r"calls torch's attention kernel 0 times for 3 layers"):
        read_attention(tiny(family), IDS)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_queries_and_keys_can_be_watched_without_a_trace(tiny, family, left_as_found):
    model, seen = tiny(family), []
    with left_as_found(model):
        bare = final_logits(model, unpadded(model, IDS), keep=1)
        with attending(model, lambda layer, query, key: seen.append((layer, query.shape[1]))):
            watched = final_logits(model, unpadded(model, IDS), keep=1)
        with attending(model, lambda layer, query, key: (2 * query, key) if layer == 2 else None):
            edited = final_logits(model, unpadded(model, IDS), keep=1)
        again = final_logits(model, unpadded(model, IDS), keep=1)
    assert torch.equal(bare, watched) and torch.equal(bare, again)
    assert (edited - bare).abs().max() > 1e-3
    assert seen == [(layer, 4) for layer in range(3)]
