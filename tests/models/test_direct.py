"""Direct effects against the one thing they must be: a sum that gives the untouched model's logit difference."""

import copy
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_families import COMMON_FIRST, PARALLEL
from torch import Tensor, nn

from auditgap.errors import SiteError
from auditgap.models import Model, capture_tokens, editing, next_logits, open_model, token_id, tokenize
from auditgap.models.anatomy import Anatomy, Norm, find_anatomy
from auditgap.models.direct import Component, Frozen, components, direct_effects, freeze, path_effects, write_sites
from auditgap.models.flow import trace_flow
from auditgap.models.hooks import visiting
from auditgap.models.lens import read_lens

Tiny = Callable[..., Model]
CLEAN, CORRUPTED = ["the girl w1 w2 , she", "w3 boy w4 w5 . a"], ["the boy w1 w2 , she", "w3 girl w4 w5 . a"]
HE, SHE = torch.tensor([3, 3]), torch.tensor([4, 4])
N_POS = 7  # with <s>
KINDS_OF_BLOCK = [
    "gemma2",
    "gpt-neox",
    "bloom",
    *(pytest.param(f, marks=pytest.mark.slow) for f in ("llama", "gpt2", "granite", "olmo2")),
]
"""Post-norm, parallel, residual inside the modules; slow: plain, biases, scaled writes, post-norm again."""
TOLERANCE = 1e-5  # float32; the worst of 20 families is 4e-7


def run(model: Model, prompts: list[str] = CLEAN, anatomy: Anatomy | None = None) -> Frozen:
    return freeze(model, anatomy or find_anatomy(model), tokenize(model, prompts), HE[: len(prompts)], SHE[: len(prompts)])


def stream_change(model: Model) -> dict[str, Tensor]:
    kinds = [f"{kind}.{layer}" for layer in range(model.n_layers) for kind in ("resid_pre", "attn_out", "mlp_out")]
    clean, corrupted = (capture_tokens(model, tokenize(model, p), [*kinds, "resid_post.2"]) for p in (CLEAN, CORRUPTED))
    return {site: clean[site] - corrupted[site] for site in clean}


def linear_change(frozen: Frozen, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """What every write and the target change by when the frozen run gets another embedding and other MLP outputs."""
    generator = torch.Generator().manual_seed(seed)
    moved = {
        site: x + torch.randn(x.shape, generator=generator) for site, x in frozen.writes.items() if not site.startswith("z.")
    }
    seen: dict[str, Tensor] = {}
    edits = {site: lambda _, x=x: x.clone() for site, x in moved.items()}
    reads = [(site, lambda x, site=site: seen.update({site: x.clone()})) for site in write_sites(frozen.model)]
    with torch.no_grad(), frozen.still(), editing(frozen.model, edits), visiting(frozen.model, reads):
        target = frozen.forward()
    return {site: seen[site] - frozen.writes[site] for site in seen}, target - frozen.target


# Planted truth: identities that must hold


@pytest.mark.parametrize("family", COMMON_FIRST)
def test_contributions_and_biases_sum_to_the_logit_difference(tiny: Tiny, family: str) -> None:
    model = tiny(family)
    frozen = run(model)
    logits = next_logits(model, CLEAN)
    torch.testing.assert_close(frozen.target, logits[:, 3] - logits[:, 4])
    torch.testing.assert_close(frozen.run(), frozen.target, atol=1e-5, rtol=1e-5)
    for effects in (direct_effects(frozen), path_effects(frozen)):
        assert effects.error.max() < TOLERANCE
        assert effects.values.abs().sum() > 0.1
    assert direct_effects(frozen).values[..., :-1].abs().max() == 0.0  # only the last position meets the unembedding


@pytest.mark.parametrize("family", KINDS_OF_BLOCK)
def test_errors_of_all_parts_sum_to_the_gap(tiny: Tiny, family: str) -> None:
    model = tiny(family)
    frozen, gap = run(model), run(model).target - run(model, CORRUPTED).target
    parts = trace_flow(frozen).errors(stream_change(model), gap)
    torch.testing.assert_close(parts.sum(1), gap.double(), atol=1e-5, rtol=1e-5)
    if family in PARALLEL:
        assert parts[:, 1:-1:2].abs().max() == 0.0


@pytest.mark.parametrize("family", KINDS_OF_BLOCK)
def test_edges_into_a_head_and_into_the_target_are_all_that_reaches_it(tiny: Tiny, family: str) -> None:
    """With patterns and scales frozen a head is linear: what its inputs bring must be what its output changes by."""
    model = tiny(family)
    graph = trace_flow(run(model))
    change, target = linear_change(graph.frozen, seed=0)
    assert torch.allclose(graph.edges(None, torch.ones(2, N_POS).bool(), change).sum((1, 2)), target, atol=1e-4)
    width = graph.z[2].shape[-1] // model.n_heads
    for head in range(model.n_heads):
        channels, at = slice(head * width, (head + 1) * width), torch.zeros(2, N_POS).bool()
        at[:, -1] = True
        expected = (graph.z[2][:, -1, channels] * change["z.2"][:, -1, channels]).sum(-1)
        found = graph.edges(Component("head", 2, head), at, change)
        assert torch.allclose(found.sum((1, 2)), expected, atol=1e-5)
        assert found[:, 1 + 2 * (model.n_heads + 1) :].abs().max() == 0.0  # nothing of its own layer or later


@pytest.mark.parametrize("family", KINDS_OF_BLOCK)
def test_edges_into_an_mlp_are_its_derivative(tiny: Tiny, family: str) -> None:
    """The one part that is not linear: held to a finite difference of the MLP's own output in the frozen run."""
    model = tiny(family)
    graph, everywhere = trace_flow(run(model)), torch.ones(2, N_POS).bool()
    change = {site: torch.zeros_like(x) for site, x in graph.frozen.writes.items()}
    step = torch.randn(change["resid_pre.0"].shape, generator=torch.Generator().manual_seed(0))
    change["resid_pre.0"] = step
    found = graph.edges(Component("mlp", 0, 0), everywhere, change).sum((1, 2))
    seen: list[Tensor] = []
    from auditgap.models import editing

    # Only the MLP's own input moves: attention of layer 0 keeps its output.
    attn = capture_tokens(model, graph.frozen.tokens, ["attn_out.0"])["attn_out.0"]
    for sign in (1, -1):
        edits = {"resid_pre.0": lambda x, sign=sign: x + sign * 1e-3 * step, "attn_out.0": lambda _: attn.clone()}
        reads = [("mlp_out.0", lambda x: seen.append(x.clone()))]
        with torch.no_grad(), graph.frozen.still(), editing(model, edits), visiting(model, reads):
            graph.frozen.forward()
    derivative = (graph.stream[1] * (seen[0] - seen[1])).sum((1, 2)) / 2e-3
    assert torch.allclose(found, derivative, atol=2e-3, rtol=2e-2)


def test_a_soft_cap_that_bites_is_held(tiny: Tiny) -> None:
    model = dataclasses.replace(tiny("gemma2"), hf=copy.deepcopy(tiny("gemma2").hf))
    model.hf.config.final_logit_softcapping = 0.5
    frozen = run(model)
    assert frozen.ratio.min() < 0.9  # the cap moves these logits
    assert direct_effects(frozen).error.max() < TOLERANCE and path_effects(frozen).error.max() < TOLERANCE


def test_heads_of_a_real_model_by_hand(stories: Path) -> None:
    """Head contributions computed from the weights alone: z_h W_O^h, scaled by the final RMS norm, against W_U."""
    model = open_model(stories)
    prompts = ["Once upon a time, there was a little girl. One day,"]
    she, he = token_id(model, " she"), token_id(model, " he")
    frozen = freeze(model, find_anatomy(model), tokenize(model, prompts), torch.tensor([she]), torch.tensor([he]))
    assert frozen.target.item() == pytest.approx(5.675, abs=0.01)  # measured by others: 5.68
    effects = direct_effects(frozen)
    weight = model.hf.lm_head.weight
    last = capture_tokens(model, frozen.tokens, ["resid_post.4"])["resid_post.4"][0, -1]
    scale = (last.square().mean() + model.hf.config.rms_norm_eps).sqrt()
    reader = model.hf.model.norm.weight * (weight[she] - weight[he]) / scale
    for layer in range(5):
        z = frozen.writes[f"z.{layer}"][0, -1].view(8, 8)
        by_hand = (
            torch.stack([model.layers[layer].self_attn.o_proj.weight[:, 8 * h : 8 * h + 8] @ z[h] for h in range(8)]) @ reader
        )
        torch.testing.assert_close(effects.values[0, 1 + 9 * layer : 9 + 9 * layer, -1], by_hand, atol=1e-5, rtol=1e-4)
    assert effects.constant.abs().max() == 0.0  # no biases


# Negative controls: the sum can fail


def test_a_norm_that_bends_or_a_write_that_is_missed_shows_in_the_sum(tiny: Tiny) -> None:
    model = tiny("llama")
    anatomy = find_anatomy(model)
    values = {name: torch.ones_like(mask) for name, mask in anatomy.values.items()}  # as if queries and keys were values
    assert path_effects(run(model, anatomy=Anatomy(anatomy.norms, values))).error.max() > 1e-3
    norms = {name: norm for name, norm in anatomy.norms.items() if name != "model.norm"}
    assert direct_effects(run(model, anatomy=Anatomy(norms, anatomy.values))).error.max() > 1e-3


def test_only_values_are_values(tiny: Tiny) -> None:
    assert {n.rpartition(".")[2] for n, m in find_anatomy(tiny("qwen2")).values.items() if m.all()} == {"v_proj"}
    assert {n.rpartition(".")[2] for n, m in find_anatomy(tiny("qwen2")).values.items() if not m.any()} == {"q_proj", "k_proj"}
    fused = next(iter(find_anatomy(tiny("gpt2")).values.values()))
    assert fused.tolist() == [False] * 64 + [True] * 32  # query, key, value


# Invariance


def test_padding_and_batch_do_not_matter(tiny: Tiny) -> None:
    model = tiny("gpt2")
    together, alone = run(model, ["w1 w2 w3 w4 girl", "boy"]), run(model, ["boy"])
    for effects in (direct_effects, path_effects):
        one, two = effects(together), effects(alone)
        torch.testing.assert_close(one.values[1, :, -2:], two.values[0], atol=1e-5, rtol=1e-4)
        assert one.values[1, :, :-2].abs().max() < 1e-6  # padding adds nothing
        torch.testing.assert_close(one.constant[1:], two.constant, atol=1e-5, rtol=1e-4)


def test_nothing_is_left_behind(tiny: Tiny, left_as_found: Callable[[Model], AbstractContextManager[None]]) -> None:
    model = tiny("llama")
    with left_as_found(model):
        graph = trace_flow(run(model))
        graph.edges(components(model)[-1], torch.ones(2, N_POS).bool(), graph.frozen.writes)
        direct_effects(graph.frozen)


# Refusal


def test_what_cannot_be_frozen_is_refused(tiny: Tiny) -> None:
    with pytest.raises(SiteError, match="take float32 or float64, the model is open in bfloat16"):
        find_anatomy(tiny("llama", "bfloat16"))
    model = dataclasses.replace(tiny("llama"), hf=copy.deepcopy(tiny("llama").hf))

    class Gated(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x).tanh()

    class Twice(Gated):
        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) + self.inner(x)

    class PowerNorm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / x.abs().pow(3).mean(-1, keepdim=True).pow(1 / 3)

    norm, model.hf.model.norm = model.hf.model.norm, PowerNorm()
    with pytest.raises(SiteError, match=r"model.norm \(PowerNorm\): expected gain \* \(x - mean\) / scale"):
        find_anatomy(model)
    model.hf.model.norm = norm
    values = model.layers[1].self_attn.v_proj
    model.layers[1].self_attn.v_proj = Gated(values)
    with pytest.raises(SiteError, match="layer 1: with one token, z is not linear"):
        find_anatomy(model)
    model.layers[1].self_attn.v_proj = Twice(values)
    with pytest.raises(SiteError, match=r"layers.1.self_attn.v_proj.inner is called more than once"):
        find_anatomy(model)


# The maths


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31), st.booleans())
def test_a_norm_at_its_own_scale_is_the_norm(seed: int, centred: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    gain, bias, x = (torch.randn(*shape, generator=generator) for shape in ((7,), (7,), (3, 7)))
    peer = nn.LayerNorm(7) if centred else nn.RMSNorm(7, eps=1e-5)
    with torch.no_grad():
        peer.weight.copy_(gain)
        if centred:
            peer.bias.copy_(bias)
        y = peer(x)
        norm = Norm(gain, bias if centred else torch.zeros(7), centred)
        torch.testing.assert_close(norm.frozen(x, norm.scale(x, y)), y, atol=1e-4, rtol=1e-3)


# The lens


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "opt", "granite", "bloom"])
def test_the_last_depth_of_the_lens_is_the_output(tiny: Tiny, family: str) -> None:
    model = tiny(family)
    prompts = [*CLEAN, "boy"]
    found = read_lens(model, prompts, torch.tensor([[3, 4, 20]] * 3).numpy(), batch_size=2)
    assert found.difference < 1e-5
    assert found.logits.shape == (3, model.n_layers + 1, 3)
    own = next_logits(model, prompts)
    torch.testing.assert_close(torch.from_numpy(found.logits[:, -1]).float(), own[:, [3, 4, 20]], atol=1e-5, rtol=1e-5)
    assert found.top[:, -1].tolist() == own.argmax(1).tolist()
    embedding = read_lens(model, ["boy"], torch.tensor([[3]]).numpy())
    assert embedding.logits[0, 0, 0] == pytest.approx(found.logits[2, 0, 0], abs=1e-5)  # another batch, the same reading
