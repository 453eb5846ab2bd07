"""The write solver finds the residual sites of every family, and refuses what it does not understand."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_families import FAMILIES, PARALLEL, PROMPTS
from torch import nn

from auditgap.errors import SiteError, UsageError
from auditgap.models import capture_tokens, tokenize, validate_sites
from auditgap.models.solver import find_layers, find_sites, solve_writes

WRITES = {
    "gpt2": ("attn", "mlp"),
    "gpt-j": ("attn", "mlp"),
    "gpt-neox": ("attention", "mlp"),
    "gpt-neox-sequential": ("attention", "mlp"),
    "falcon": ("self_attention", "mlp"),
    "bloom": ("self_attention", "mlp"),
    "opt": ("self_attn", "fc2"),
} | dict.fromkeys(("gemma2", "gemma3", "olmo2"), ("post_attention_layernorm", "post_feedforward_layernorm"))


@pytest.mark.parametrize("family", FAMILIES)
def test_writes_of_every_family(tiny, family):
    sites = tiny(family).sites
    for block in sites.blocks:
        assert (block.attn.module, block.mlp.module) == WRITES.get(family, ("self_attn", "mlp"))
        assert {block.attn.coefficient, block.mlp.coefficient} == {0.5 if family == "granite" else 1.0}
        assert block.attn.carries == block.mlp.carries == (family == "bloom")
        assert block.sequential == (family not in PARALLEL)
        assert block.remainder <= 1e-6
        assert block.update_remainder <= 1e-5
    assert sites.d_z == (64 if family == "gemma2" else 32)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stream_adds_up(tiny, family):
    """resid_mid = resid_pre + attn_out, resid_post = resid_mid + mlp_out, and one block's end is the next one's start."""
    model = tiny(family)
    tokens, names = tokenize(model, PROMPTS), model.sites.names()
    real = tokens.attention_mask.bool()
    x = {name: values[real] for name, values in capture_tokens(model, tokens, names).items()}
    for layer in range(model.n_layers):
        pre, attn, mlp, post = (x[f"{kind}.{layer}"] for kind in ("resid_pre", "attn_out", "mlp_out", "resid_post"))
        torch.testing.assert_close(pre + attn + mlp, post, rtol=1e-5, atol=1e-5)
        assert attn.abs().max() > 1e-3
        assert mlp.abs().max() > 1e-3
        if family not in PARALLEL:
            torch.testing.assert_close(x[f"resid_mid.{layer}"], pre + attn, rtol=1e-5, atol=1e-5)
        if layer:
            assert torch.equal(pre, x[f"resid_post.{layer - 1}"])


def test_z_is_the_input_of_the_output_projection(tiny):
    for family in ("llama", "qwen3", "mixtral", "gemma2"):
        model = tiny(family)
        tokens = tokenize(model, PROMPTS[:1])
        raw = []
        handle = model.layers[1].self_attn.register_forward_hook(lambda m, a, out, raw=raw: raw.append(out[0].clone()))
        z = capture_tokens(model, tokens, ["z.1", "resid_post.1"])["z.1"]
        handle.remove()
        torch.testing.assert_close(z @ model.layers[1].self_attn.o_proj.weight.T, raw[0])


@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral", "bloom", "gpt-neox"])
def test_bfloat16_finds_the_same_sites(tiny, family):
    half, full = tiny(family, "bfloat16"), tiny(family)
    assert [b[:4] for b in half.sites.blocks] == [b[:4] for b in full.sites.blocks]
    assert half.hf.dtype == torch.bfloat16
    assert max(b.remainder for b in half.sites.blocks) <= 1e-6


def test_validation_measures_what_it_promises(tiny, left_as_found):
    model = tiny("llama")
    with left_as_found(model):
        validity = validate_sites(model)
    assert validity.hooked_difference == 0.0
    assert validity.remainder <= 1e-6
    assert validity.padded_difference <= 1e-6
    assert validity.anticausal_difference <= 1e-6


def test_a_map_serves_an_independent_copy(tiny):
    model = tiny("llama")
    copied = dataclasses.replace(model, hf=copy.deepcopy(model.hf))
    copied.hf.get_input_embeddings().weight.data += 1.0
    tokens = tokenize(model, PROMPTS)
    mine, theirs = (capture_tokens(m, tokens, ["resid_pre.0"])["resid_pre.0"] for m in (model, copied))
    torch.testing.assert_close(theirs, mine + 1.0)


@given(
    st.lists(st.floats(0.1, 2.0), min_size=2, max_size=2),
    st.sampled_from([0.0, 1.0]),
    st.integers(0, 2**31),
    st.permutations(range(4)),
)
def test_solver_recovers_planted_coefficients(planted, stream, seed, order):
    """Two of four children are writes; the others, a duplicate and one called twice must not be chosen."""
    g = torch.Generator().manual_seed(seed)
    pre, *x = torch.randn(5, 2, 5, 8, generator=g, dtype=torch.float64)
    children = {f"c{i}": x[i] for i in order}
    first, second = sorted(children)[:2]
    post = planted[0] * children[first] + planted[1] * children[second] + stream * pre
    children |= {"dropout": children[first].clone(), "twice": post - pre}
    calls = dict.fromkeys(children, 1) | {"twice": 2}
    found = solve_writes(children, calls, pre, post, tolerance=1e-5)
    assert found is not None
    assert dict(zip(found.modules, found.coefficients, strict=True)) == pytest.approx(
        dict(zip((first, second), planted, strict=True)), abs=1e-4
    )
    assert found.stream == pytest.approx(stream, abs=1e-4)


def test_solver_is_silent_on_unrelated_children():
    pre, post, *x = torch.randn(6, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    children = {f"c{i}": child for i, child in enumerate(x)}
    assert solve_writes(children, dict.fromkeys(children, 1), pre, post, tolerance=1e-6) is None


class _Gated(nn.Module):
    """A block whose output is not a sum of its children and its input."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x, **kwargs):
        return x * torch.sigmoid(self.block(x, **kwargs))


def _find(hf, **changes):
    sizes = {"n_layers": 3, "n_heads": 4, "d_model": 32} | changes
    return find_sites(hf, **sizes, input_ids=torch.arange(18).view(2, 9))


def test_an_unknown_block_is_refused_by_name(tiny):
    hf = copy.deepcopy(tiny("llama").hf)
    hf.model.layers[1] = _Gated(hf.model.layers[1])
    with pytest.raises(SiteError, match=r"LlamaForCausalLM: model\.layers\.1 \(_Gated\): no sum of its children"):
        _find(hf)


def test_a_layer_list_that_is_not_there_is_refused_with_candidates(tiny):
    with pytest.raises(SiteError, match=r"expected a ModuleList of 7 blocks .* found: model\.layers \(3\)"):
        find_layers(tiny("llama").hf, 7)


def test_validation_refuses_a_model_that_looks_ahead(tiny):
    model = tiny("llama")
    hf = copy.deepcopy(model.hf)
    inner = hf.model.layers[1].mlp

    class Mixing(nn.Module):
        def forward(self, x):
            return inner(x.flip(1)).flip(1) + x.mean(1, keepdim=True)

    hf.model.layers[1].mlp = Mixing()
    with pytest.raises(SiteError, match="not a causal model"):
        validate_sites(dataclasses.replace(model, hf=hf))


def test_validation_refuses_a_site_without_effect(tiny):
    model = tiny("llama")
    hf = copy.deepcopy(model.hf)
    hf.model.layers[2].self_attn.o_proj.weight.data.zero_()
    with pytest.raises(SiteError, match=r"an edit at z\.2 does not change the logits"):
        validate_sites(dataclasses.replace(model, hf=hf))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resid_pst.1", r"got 'resid_pst\.1' - did you mean 'resid_post'\?"),
        ("resid_post", "expected a site such as resid_post.0"),
        ("resid_post.x", "expected a site such as resid_post.0"),
        ("resid_post.-1", "expected a site such as resid_post.0"),
        ("resid_post.3", r"layer 3 asked in 'resid_post\.3', the model has 3 \(0-2\); did you mean 'resid_post\.2'\?"),
    ],
)
def test_unknown_sites_are_refused(tiny, name, message):
    with pytest.raises(UsageError, match=message):
        tiny("llama").sites.check([name])


def test_parallel_blocks_have_no_middle(tiny):
    sites = tiny("gpt-neox").sites
    assert not [name for name in sites.names() if name.startswith("resid_mid")]
    with pytest.raises(UsageError, match=r"'resid_mid\.0' does not exist here: attention and MLP .* in parallel"):
        sites.check(["resid_mid.0"])


def test_describe_has_a_row_for_every_site(tiny):
    for family in ("llama", "granite", "bloom", "gpt-neox"):
        sites = tiny(family).sites
        assert [row.site for row in sites.describe()] == sites.names()
    assert tiny("granite").sites.describe()[2].module == "0.5 * model.layers.0.self_attn (output)"
