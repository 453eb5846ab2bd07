"""A direction out of the weights is the same as out of the activations, where that form exists; where not, it is refused."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from tiny_families import FAMILIES, PROMPTS

from auditgap.errors import CannotMeasure, UsageError
from auditgap.models import Model, ablating, next_logits, orthogonalising, residual_writers, tokenize

POST_NORM = ["gemma2", "gemma3", "olmo2"]
REFUSED = [*POST_NORM, "bloom"]
KINDS = ["llama", "llama-tied", "qwen2", "gpt2", "mixtral"]
"""Untied, tied, biased inputs, biased outputs with learned positions, experts: every other family is of one of these kinds."""
EXACT = KINDS + [pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name not in {*KINDS, *REFUSED}]


def unit(d: int = 32) -> torch.Tensor:
    vector = torch.randn(d, generator=torch.Generator().manual_seed(0))
    return vector / vector.norm()


def logits(model: Model) -> torch.Tensor:
    """Of the last token, in the model's own precision."""
    with torch.no_grad():
        return model.hf(**tokenize(model, PROMPTS)._asdict(), use_cache=False).logits[:, -1].double()


def difference(model: Model, form: Callable[[Model], object]) -> tuple[float, float]:
    """Largest effect of ablation by hooks, and the share of it by which another form differs."""
    base = logits(model)
    with ablating(model, unit()):
        hooked = logits(model)
    with form(model):
        edited = logits(model)
    effect = (hooked - base).abs().max().item()
    return effect, (edited - hooked).abs().max().item() / effect


def digest(model: Model) -> str:
    weights = hashlib.sha256()
    for name, tensor in sorted(model.hf.state_dict().items()):
        weights.update(name.encode() + tensor.numpy().tobytes())
    return weights.hexdigest()


# The two forms agree


@pytest.mark.parametrize("family", EXACT)
def test_the_weight_form_equals_the_hooks_in_float32(tiny, family):
    """Every family without a norm after its projections, mixtures of experts included."""
    effect, off = difference(tiny(family), lambda model: orthogonalising(model, unit()))
    assert effect > 0.05
    assert off < 2e-5


@pytest.mark.parametrize("family", [name for name in KINDS if name != "mixtral"])  # whose experts reject float64
def test_the_weight_form_equals_the_hooks_in_float64(tiny, family):
    """Untied, tied, biased and with learned positions: 0 to rounding in double precision, as it must be for an identity."""
    effect, off = difference(tiny(family, "float64"), lambda model: orthogonalising(model, unit()))
    assert effect > 0.05
    assert off < 1e-13


@contextmanager
def forgetting(model: Model, *, head_too: bool = False, left_out: tuple[str, ...] = ()) -> Iterator[None]:
    """The weight form as it is often written: a tied head is edited with the embedding, some parameters are left as they are."""
    kept = {name: model.hf.get_submodule(name).get_parameter("bias") for name in biases(model)} if "bias" in left_out else {}
    tables = {name: model.hf.get_submodule(name).weight for name in left_out if name != "bias"}
    head = model.hf.get_output_embeddings()
    original = head.weight
    with orthogonalising(model, unit()):
        for name, bias in kept.items():
            model.hf.get_submodule(name).bias = bias
        for name, weight in tables.items():
            model.hf.get_submodule(name).weight = weight
        if head_too:
            head.weight = model.hf.get_input_embeddings().weight
        try:
            yield
        finally:
            head.weight = original


def biases(model: Model) -> list[str]:
    return [writer.module for writer in residual_writers(model) if writer.parameter == "bias"]


@pytest.mark.parametrize(
    ("family", "shortcut", "low", "high"),
    [
        ("llama-tied", {"head_too": True}, 0.02, 0.5),
        ("gpt2", {"left_out": ("bias",)}, 0.05, 1.0),
        ("gpt2", {"left_out": ("transformer.wpe",)}, 0.05, 1.0),
    ],
)
def test_every_shortcut_is_another_intervention(tiny, family, shortcut, low, high):
    """What the exact form takes care of matters: each shortcut is off by a sizeable share of the effect, in double precision.

    Seen: 0.08, 0.18 and 0.30. Other random models (4 layers, d 64, jitter 0.2, float64) gave 0.16 for the tied head and 0.54 for
    the biases; how much depends on the model, that it is far from 0 does not.
    """
    _, off = difference(tiny(family, "float64"), lambda model: forgetting(model, **shortcut))
    assert low < off < high


def test_writers_are_what_enters_the_stream(tiny):
    def named(family: str) -> list[tuple[str, str]]:
        return [(writer.module, writer.parameter) for writer in residual_writers(tiny(family))]

    assert named("llama")[:3] == [
        ("model.embed_tokens", "weight"),
        ("model.layers.0.self_attn.o_proj", "weight"),
        ("model.layers.0.mlp.down_proj", "weight"),
    ]
    assert set(named("gpt2")) >= {("transformer.wpe", "weight"), ("transformer.h.1.mlp.c_proj", "bias")}
    assert ("model.layers.2.mlp.experts", "down_proj") in named("mixtral")
    assert len(named("llama")) == 1 + 2 * 3 and len(named("gpt2")) == 2 + 4 * 3


# Where there is no such form


@pytest.mark.parametrize("family", POST_NORM)
def test_post_norm_families_are_refused(tiny, left_as_found, family):
    model = tiny(family)
    with (
        left_as_found(model),
        pytest.raises(CannotMeasure, match="post_attention_layernorm writes to the stream and holds no matrix"),
        orthogonalising(model, unit()),
    ):
        pass


def test_a_norm_after_the_embedding_is_found_by_what_is_left(tiny, left_as_found):
    """No table of families: BLOOM has every matrix one looks for, and the check on random tokens refuses it."""
    model = tiny("bloom")
    before = digest(model)
    with (
        left_as_found(model),
        pytest.raises(CannotMeasure, match=r"BloomForCausalLM: with the weights edited 0\.\d+ of the direction is left"),
        orthogonalising(model, unit()),
    ):
        pass
    assert digest(model) == before


def test_only_unit_vectors_are_taken_out(tiny, left_as_found):
    with left_as_found(tiny("llama")):
        for bad in (2 * unit(), torch.zeros(32)):
            with pytest.raises(UsageError, match="expected a unit vector"), orthogonalising(tiny("llama"), bad):
                pass


# Everything is put back


@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "mixtral"])
def test_weights_come_back_bit_for_bit_even_after_an_error(tiny, left_as_found, family):
    model = tiny(family)
    before, said = digest(model), next_logits(model, PROMPTS)
    parameters = list(model.hf.parameters())
    with left_as_found(model):
        with orthogonalising(model, unit()):
            assert digest(model) != before
        with pytest.raises(ZeroDivisionError), orthogonalising(model, unit()):
            raise ZeroDivisionError
    assert digest(model) == before
    assert all(a is b for a, b in zip(parameters, model.hf.parameters(), strict=True)), "the same parameters, not copies"
    assert torch.equal(next_logits(model, PROMPTS), said)
    if family == "llama-tied":
        assert model.hf.get_input_embeddings().weight is model.hf.get_output_embeddings().weight


def test_a_tied_head_keeps_its_weights(tiny):
    model = tiny("llama-tied")
    head = model.hf.get_output_embeddings().weight
    with orthogonalising(model, unit()):
        assert model.hf.get_output_embeddings().weight is head
        assert (model.hf.get_input_embeddings().weight @ unit()).abs().max() < 1e-6
        assert (head @ unit()).abs().max() > 0.1


def test_half_precision_holds_to_its_rounding(tiny):
    model = tiny("llama", "bfloat16")
    base = next_logits(model, PROMPTS)
    with orthogonalising(model, unit()):
        edited = next_logits(model, PROMPTS)
    with ablating(model, unit()):
        hooked = next_logits(model, PROMPTS)
    assert (edited - hooked).abs().max() < 0.1 * (hooked - base).abs().max()
