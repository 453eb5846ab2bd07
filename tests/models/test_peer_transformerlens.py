"""Captures and patches against TransformerLens 4.3.0's TransformerBridge, on a real model and on a random GPT-2.

Tolerance 1e-4: the Bridge is defined against eager attention, which differs from sdpa by about 2e-6 (float32).
"""

import warnings

import pytest
import torch
from tiny_families import CONFIGS

from auditgap.models import Model, capture_tokens, open_model, patching_sweep, tokenize

pytestmark = pytest.mark.peer

PROMPT = {"stories": "Once upon a time, there was a little {}. One day,", "gpt2": "the {} w1 w2 , w3"}
HOOKS = {"resid_pre": "hook_resid_pre", "resid_post": "hook_resid_post", "attn_out": "hook_attn_out", "mlp_out": "hook_mlp_out"}


@pytest.fixture(params=["stories", "gpt2"])
def ours(request, tiny) -> tuple[Model, str]:
    if request.param == "gpt2":
        assert CONFIGS["gpt2"]().model_type == "gpt2"
        return tiny("gpt2"), PROMPT["gpt2"]
    return open_model(request.getfixturevalue("stories")), PROMPT["stories"]


@pytest.fixture
def bridge(ours):
    """The same weights, wrapped by TransformerLens."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lens = pytest.importorskip("transformer_lens", reason="TransformerLens is not installed: the `peer` dependency group")
        from transformer_lens.model_bridge import TransformerBridge

        assert lens is not None
        folder = ours[0].hf.name_or_path
        return TransformerBridge.boot_transformers(folder, hf_model=_eager(folder), tokenizer=ours[0].tokenizer, device="cpu")


def _eager(folder: str):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


@pytest.mark.filterwarnings("ignore")
def test_captures_agree(ours, bridge):
    model, prompt = ours
    tokens = tokenize(model, [prompt.format("girl")])
    names = [f"{kind}.{layer}" for kind in HOOKS for layer in range(model.n_layers)]
    found = capture_tokens(model, tokens, names)
    with torch.no_grad():
        _, cache = bridge.run_with_cache(tokens.input_ids, prepend_bos=False)
    for name in names:
        kind, layer = name.split(".")
        torch.testing.assert_close(found[name], cache[f"blocks.{layer}.{HOOKS[kind]}"].float(), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_patching_agrees(ours, bridge):
    """Every layer and position of resid_pre, denoising, by their loop of hooked forward passes."""
    model, prompt = ours
    clean, corrupted = (tokenize(model, [prompt.format(who)]).input_ids for who in ("girl", "boy"))

    def difference(logits, _pairs):
        return logits[:, 3] - logits[:, 4]

    sweep = patching_sweep(model, clean, corrupted, metric=difference)
    with torch.no_grad():
        _, cache = bridge.run_with_cache(clean, prepend_bos=False)
        for layer in range(model.n_layers):
            name = f"blocks.{layer}.hook_resid_pre"
            for pos in range(clean.shape[1]):

                def patch(x, hook, pos=pos, name=name):
                    x = x.clone()
                    x[:, pos] = cache[name][:, pos]
                    return x

                logits = bridge.run_with_hooks(corrupted, fwd_hooks=[(name, patch)], prepend_bos=False)
                expected = difference(logits[:, -1], None)[0].item()
                assert sweep.effects[0, layer, pos].item() == pytest.approx(expected, abs=1e-4)
