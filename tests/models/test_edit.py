"""Edits change what they say, in every family, and leave nothing behind; an ablation is checked, not believed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tiny_families import COMMON_FIRST, PARALLEL, PROMPTS

from auditgap.errors import UsageError
from auditgap.models import ablating, add, capture_tokens, editing, next_logits, project_out, replace, tokenize

ENDS = ["resid_post.0", "resid_post.1", "resid_post.2"]


def _unit(seed: int = 0, d: int = 32) -> torch.Tensor:
    vector = torch.randn(d, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm()


@pytest.mark.parametrize("family", COMMON_FIRST)
def test_an_added_vector_arrives_in_the_stream(tiny, family):
    """Added to a write or to the stream, a vector shows in the stream at full size: coefficients are undone."""
    model = tiny(family)
    tokens = tokenize(model, PROMPTS[:1])
    before = capture_tokens(model, tokens, model.sites.names())
    for edited, seen in {
        "resid_pre.1": "resid_pre.1",
        "attn_out.1": "resid_post.1" if family in PARALLEL else "resid_mid.1",
        "resid_mid.1": "resid_mid.1",
        "mlp_out.1": "resid_post.1",
        "resid_post.1": "resid_post.1",
        "z.1": "z.1",
    }.items():
        if edited not in before:
            continue
        vector = torch.linspace(-1, 1, before[edited].shape[-1])
        with editing(model, {edited: add(vector)}):
            after = capture_tokens(model, tokens, [edited, seen, "resid_post.0", "resid_post.2"])
        if not (family in PARALLEL and edited == "attn_out.1"):
            torch.testing.assert_close(after[seen], before[seen] + vector, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(after[edited], before[edited] + vector, rtol=1e-4, atol=1e-4)
        assert torch.equal(after["resid_post.0"], before["resid_post.0"])
        assert (after["resid_post.2"] - before["resid_post.2"]).abs().max() > 1e-4


@pytest.mark.parametrize("family", COMMON_FIRST)
def test_an_ablated_direction_is_gone_from_every_block(tiny, family):
    """And it was there before: without the context the same number is large."""
    model, unit = tiny(family), _unit()
    tokens = tokenize(model, PROMPTS)
    real = tokens.attention_mask.bool()
    present = [(x[real] @ unit).abs().max() for x in capture_tokens(model, tokens, ENDS).values()]
    with ablating(model, unit) as ablation:
        logits = next_logits(model, PROMPTS)
        left = [
            ((x[real] @ unit).abs().max() / x[real].norm(dim=-1).mean()).item()
            for x in capture_tokens(model, tokens, ENDS).values()
        ]
    assert min(present) > 0.05
    assert max(left) <= 1e-5
    assert 0.0 < ablation.max_residual <= 1e-5
    assert (logits - next_logits(model, PROMPTS)).abs().max() > 1e-4


def test_the_post_condition_sees_a_direction_that_is_written_back(tiny):
    model, unit = tiny("gemma2"), _unit()
    with editing(model, {"mlp_out.1": add(unit, scale=5.0)}), ablating(model, unit) as ablation:
        next_logits(model, PROMPTS)
    assert ablation.max_residual <= 1e-5, "an outer edit of a write is projected away"
    for site in ("mlp_out.1", "resid_post.1"):
        with ablating(model, unit) as ablation, editing(model, {site: add(unit, scale=5.0)}):
            next_logits(model, PROMPTS)
        assert ablation.max_residual > 0.05


def test_ablation_in_half_precision_is_looser(tiny):
    with ablating(tiny("llama", "bfloat16"), _unit()) as ablation:
        next_logits(tiny("llama", "bfloat16"), PROMPTS)
    assert 0.0 < ablation.max_residual <= 2e-2


@given(npst.arrays("float32", (2, 3, 8), elements=st.floats(-10, 10, width=32)), st.integers(0, 2**31))
def test_projection_is_idempotent_and_orthogonal(values, seed):
    x, unit = torch.from_numpy(values), _unit(seed, 8)
    once = project_out(unit)(x)
    assert (once @ unit).abs().max() <= 1e-4
    torch.testing.assert_close(project_out(unit)(once), once, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(once + (x @ unit)[..., None] * unit, x, rtol=1e-4, atol=1e-4)


def test_replace_broadcasts(tiny):
    model = tiny("llama")
    tokens = tokenize(model, PROMPTS)
    full = torch.randn(*tokens.input_ids.shape, 32, generator=torch.Generator().manual_seed(0))
    for values in (full, full[0], full[0, 0]):
        with editing(model, {"attn_out.0": replace(values)}):
            found = capture_tokens(model, tokens, ["attn_out.0"])["attn_out.0"]
        assert torch.equal(found, values.expand_as(found))


def test_an_identity_edit_changes_nothing(tiny):
    for family in ("llama", "granite", "gpt-neox"):
        model = tiny(family)
        names = [name for name in model.sites.names() if not name.startswith("resid_mid")]
        with editing(model, {name: lambda x: x for name in names}):
            edited = next_logits(model, PROMPTS)
        assert torch.equal(edited, next_logits(model, PROMPTS))


def test_nothing_stays_behind_even_after_an_error(tiny, left_as_found):
    model = tiny("mixtral")
    before = next_logits(model, PROMPTS)
    with left_as_found(model):
        with pytest.raises(ZeroDivisionError), editing(model, {"z.0": lambda x: x * 2}), ablating(model, _unit()):
            next_logits(model, PROMPTS)
            raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError), editing(model, {"mlp_out.1": lambda x: x * (1 // 0)}):
            next_logits(model, PROMPTS)
        with pytest.raises(UsageError), editing(model, {"resid_pre.0": lambda x: x, "resid_pre.7": lambda x: x}):
            pass
    assert torch.equal(next_logits(model, PROMPTS), before)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda x: x[:, :1], r"must return \(1, 8, 32\) torch.float32, got \(1, 1, 32\) torch.float32"),
        (lambda x: x.double(), "got .* torch.float64"),
        (lambda x: None, "got NoneType"),
        (replace(torch.zeros(5, 31)), r"expected values that broadcast to \(1, 8, 32\), got \(5, 31\)"),
    ],
)
def test_an_edit_of_the_wrong_shape_is_refused(tiny, edit, message):
    with pytest.raises(UsageError, match=message), editing(tiny("llama"), {"resid_pre.1": edit}):
        next_logits(tiny("llama"), PROMPTS[:1])


def test_only_unit_vectors_of_the_right_width_are_projected(tiny):
    for bad in (torch.ones(32), torch.zeros(32), torch.full((32,), float("nan"))):
        with pytest.raises(UsageError, match="expected a unit vector, got norm"):
            project_out(bad)
    with pytest.raises(UsageError, match="expected a direction of width 32"), ablating(tiny("llama"), _unit(0, 8)):
        pass
