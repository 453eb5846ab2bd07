"""Captures and patches against TransformerLens 4.3.0's TransformerBridge, on a real model and on a random GPT-2.

Tolerance 1e-4: the Bridge is defined against eager attention, which differs from sdpa by about 2e-6 (float32).
"""

import warnings

import pytest
import torch
from tiny_families import CONFIGS

from auditgap.models import Model, capture_tokens, head_sweep, open_model, patching_sweep, tokenize

pytestmark = pytest.mark.peer

PROMPT = {"stories": "Once upon a time, there was a little {}. One day,", "gpt2": "the {} w1 w2 , w3"}
HOOKS = {
    "resid_pre": "hook_resid_pre", "resid_mid": "hook_resid_mid", "resid_post": "hook_resid_post", "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out", "z": "attn.hook_z",
}  # fmt: skip


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
        theirs = cache[f"blocks.{layer}.{HOOKS[kind]}"].float()
        torch.testing.assert_close(found[name], theirs.flatten(2), rtol=1e-4, atol=1e-4)


def difference(logits, _pairs):
    return logits[:, 3] - logits[:, 4]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"])
def test_patching_agrees(ours, bridge, site):
    """Every layer, at the first difference and at two positions after it, denoising, by their loop of hooked forward passes."""
    model, prompt = ours
    clean, corrupted = (tokenize(model, [prompt.format(who)]).input_ids for who in ("girl", "boy"))
    sweep = patching_sweep(model, clean, corrupted, metric=difference, site=site)
    stream = HOOKS["resid_mid"] if site == "resid_mid" else None
    hook = "hook_attn_out" if stream else HOOKS[site]
    assert_theirs(bridge, clean, corrupted, sweep, hook, lambda layer, pos: sweep.effects[0, layer, pos], stream=stream)


@pytest.mark.filterwarnings("ignore")
def test_patching_of_heads_agrees(ours, bridge):
    """stories260K has eight heads over four keys: its `z` is patched by query head."""
    model, prompt = ours
    clean, corrupted = (tokenize(model, [prompt.format(who)]).input_ids for who in ("girl", "boy"))
    sweep = head_sweep(model, clean, corrupted, metric=difference)
    for head in (0, model.n_heads - 1):
        assert_theirs(
            bridge, clean, corrupted, sweep, HOOKS["z"], lambda layer, pos, h=head: sweep.effects[0, layer, h, pos], head=head
        )


def assert_theirs(bridge, clean, corrupted, sweep, hook_name, ours_at, *, head=slice(None), stream=None):
    """`stream`: a hook that shows the stream and does not edit it, as the Bridge's resid_mid, which edits what the MLP reads.

    The stream is then moved from corrupted to clean by what `hook_name` adds to it.
    """
    n_pos = clean.shape[1]
    with torch.no_grad():
        _, cache = bridge.run_with_cache(clean, prepend_bos=False)
        _, corrupted_cache = bridge.run_with_cache(corrupted, prepend_bos=False)
        for layer in range(sweep.effects.shape[1]):
            name = f"blocks.{layer}.{hook_name}"
            for pos in {sweep.first[0], (sweep.first[0] + n_pos) // 2, n_pos - 1}:
                where = (slice(None), pos, head) if cache[name].ndim == 4 else (slice(None), pos)

                def patch(x, hook, where=where, name=name, layer=layer):
                    x = x.clone()
                    if stream is None:
                        x[where] = cache[name][where]
                    else:
                        mid = f"blocks.{layer}.{stream}"
                        x[where] += cache[mid][where] - corrupted_cache[mid][where]
                    return x

                logits = bridge.run_with_hooks(corrupted, fwd_hooks=[(name, patch)], prepend_bos=False)
                expected = difference(logits[:, -1], None)[0].item()
                assert ours_at(layer, pos).item() == pytest.approx(expected, abs=1e-4)
