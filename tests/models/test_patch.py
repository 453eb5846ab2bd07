"""The one-pass sweep against the naive loop of patched forward passes, which is its definition."""

import pytest
import torch
from tiny_families import COMMON_FIRST, CONFIGS, EXPERTS, PARALLEL
from transformers import GptOssConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from auditgap.errors import SiteError, UsageError
from auditgap.models import capture_tokens, editing, head_sweep, open_model, patching_sweep, project_out, tokenize
from auditgap.models import patch as patch_module
from auditgap.models import walk as walk_module
from auditgap.models.replay import forward
from auditgap.models.suffix import keeping_keys
from auditgap.models.tokens import Tokens

OWN_ATTENTION = ["bloom", "falcon", "gpt-j"]
"""Families whose attention does not look its kernel up where it can be met: whole rows."""

CLEAN = torch.tensor([[1, 12, 13, 6, 14, 15, 16], [1, 20, 6, 21, 22, 23, 24]])
CORRUPTED = torch.tensor([[1, 12, 13, 5, 14, 17, 16], [1, 20, 5, 21, 22, 23, 24]])


def _difference(logits, _pairs):
    return logits[:, 3] - logits[:, 4]


def _tokens(ids) -> Tokens:
    mask = torch.ones_like(ids)
    return Tokens(ids, mask, mask.cumsum(-1) - 1)


def _last_logits(model, ids):
    with torch.no_grad():
        return model.hf(**_tokens(ids)._asdict(), use_cache=False).logits[:, -1].float()


def _naive(model, clean, corrupted, site, direction, metric=_difference):
    """One forward pass per pair, layer and position, the definition of the sweep."""
    return _patched_runs(model, clean, corrupted, site, direction, metric, [[pos] for pos in range(clean.shape[1])])


def _naive_by_layer(model, clean, corrupted, site, direction):
    """The same with one row per position, to save time over many families."""
    return _patched_runs(model, clean, corrupted, site, direction, _difference, [list(range(clean.shape[1]))])


def _patched_runs(model, clean, corrupted, site, direction, metric, groups):
    donor, recipient = (clean, corrupted) if direction == "denoising" else (corrupted, clean)
    effects = torch.zeros(len(clean), model.n_layers, clean.shape[1])
    for pair in range(len(clean)):
        for layer in range(model.n_layers):
            name = f"{site}.{layer}"
            values = capture_tokens(model, _tokens(donor[pair : pair + 1]), [name])[name][0].to(model.hf.dtype)
            for group in groups:

                def patch(x, group=group, values=values):
                    x[range(len(group)), group] = values[group]
                    return x

                with editing(model, {name: patch}):
                    logits = _last_logits(model, recipient[pair : pair + 1].expand(len(group), -1))
                effects[pair, layer, group] = metric(logits, torch.full((len(group),), pair))
    return effects


def _naive_heads(model, clean, corrupted):
    """One row per head and position; a head's slice of `z` is the h-th of equal parts."""
    n_pos, n_heads, width = clean.shape[1], model.n_heads, model.sites.d_z // model.n_heads
    effects = torch.zeros(len(clean), model.n_layers, n_heads, n_pos)
    for pair in range(len(clean)):
        for layer in range(model.n_layers):
            name = f"z.{layer}"
            values = capture_tokens(model, _tokens(clean[pair : pair + 1]), [name])[name][0]
            for head in range(n_heads):
                part = slice(head * width, (head + 1) * width)

                def patch(x, part=part, values=values):
                    x[range(n_pos), range(n_pos), part] = values[:, part]
                    return x

                with editing(model, {name: patch}):
                    logits = _last_logits(model, corrupted[pair : pair + 1].expand(n_pos, -1))
                effects[pair, layer, head] = _difference(logits, None)
    return effects


@pytest.mark.parametrize("family", COMMON_FIRST)
def test_equals_the_naive_loop(tiny, family):
    """Five tokens, with sliding windows of four in Gemma and Mistral."""
    model, clean, corrupted = tiny(family), CLEAN[1:, :5], CORRUPTED[1:, :5]
    ways = [("resid_pre", "denoising"), ("attn_out", "noising"), ("mlp_out", "denoising"), ("resid_post", "noising")]
    if family not in PARALLEL:
        ways.append(("resid_mid", "denoising"))
    for site, direction in ways:
        sweep = patching_sweep(model, clean, corrupted, metric=_difference, site=site, direction=direction)
        expected = _naive_by_layer(model, clean, corrupted, site, direction)
        assert (sweep.effects - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())
        assert sweep.rows == ("full" if family in OWN_ATTENTION else "suffix")


@pytest.mark.parametrize("family", COMMON_FIRST)
def test_heads_equal_the_naive_loop(tiny, family):
    model, clean, corrupted = tiny(family), CLEAN[1:, :5], CORRUPTED[1:, :5]
    sweep = head_sweep(model, clean, corrupted, metric=_difference)
    expected = _naive_heads(model, clean, corrupted)
    assert (sweep.effects - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())
    assert sweep.effects.shape == (1, 3, 4, 5)


def test_heads_of_several_pairs_and_chunks(tiny, left_as_found):
    model = tiny("qwen2")
    with left_as_found(model):
        whole = head_sweep(model, CLEAN, CORRUPTED, metric=_difference)
        torch.testing.assert_close(whole.effects, _naive_heads(model, CLEAN, CORRUPTED), rtol=1e-5, atol=1e-5)
        few = head_sweep(model, CLEAN, CORRUPTED, metric=_difference, max_rows=5)
        torch.testing.assert_close(few.effects, whole.effects, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral"])
def test_whole_rows_give_the_same(tiny, family, monkeypatch):
    model = tiny(family)
    suffix = patching_sweep(model, CLEAN, CORRUPTED, metric=_difference)
    monkeypatch.setattr(patch_module, "_rows_that_hold", lambda *_: "full")
    full = patching_sweep(model, CLEAN, CORRUPTED, metric=_difference)
    assert (suffix.rows, full.rows) == ("suffix", "full")
    torch.testing.assert_close(suffix.effects, full.effects, rtol=1e-5, atol=1e-5)


def _spoil(function, monkeypatch, name, error=None):
    def wrong(*args, **kwargs):
        if error is not None:
            raise error
        found = function(*args, **kwargs)
        return [x + 0.1 for x in found] if isinstance(found, list) else found + 0.1

    monkeypatch.setattr(walk_module, name, wrong)


@pytest.mark.parametrize("error", [None, TypeError("no such argument")])
def test_rows_that_would_be_wrong_are_not_used(tiny, monkeypatch, error):
    model = tiny("phi3")
    monkeypatch.setattr(patch_module, "_checked", {})
    _spoil(walk_module.run_suffixes, monkeypatch, "run_suffixes", error)
    sweep = patching_sweep(model, CLEAN, CORRUPTED, metric=_difference)
    assert sweep.rows == "full"
    torch.testing.assert_close(sweep.effects, _naive(model, CLEAN, CORRUPTED, "resid_pre", "denoising"), rtol=1e-5, atol=1e-5)
    _spoil(walk_module.call_block, monkeypatch, "call_block")
    patch_module._checked.clear()
    with pytest.raises(SiteError, match=r"do not equal the model's own forward pass \(suffix rows: .*; full rows: logits differ"):
        patching_sweep(model, CLEAN, CORRUPTED, metric=_difference)


def test_edits_around_a_sweep_hold_in_it(tiny):
    """One that treats all tokens alike leaves suffixes right; one that counts positions does not, and that is noticed."""
    model = tiny("llama")
    unit = torch.nn.functional.normalize(torch.randn(model.d_model, generator=torch.Generator().manual_seed(0)), dim=0)

    def third_token(x):
        return torch.cat([x[:, :2], 2 * x[:, 2:3], x[:, 3:]], dim=1)

    patching_sweep(model, CLEAN, CORRUPTED, metric=_difference)
    for edit, rows in ((project_out(unit), "suffix"), (third_token, "full")):
        with editing(model, {"mlp_out.1": edit}):
            sweep = patching_sweep(model, CLEAN, CORRUPTED, metric=_difference)
            expected = _naive(model, CLEAN, CORRUPTED, "resid_pre", "denoising")
        assert sweep.rows == rows
        torch.testing.assert_close(sweep.effects, expected, rtol=1e-5, atol=1e-5)


def test_the_attention_table_is_as_before_and_other_models_never_notice(tiny, left_as_found):
    model, other = tiny("llama"), tiny("mistral")
    before = dict(ALL_ATTENTION_FUNCTIONS)
    alone = forward(other, CLEAN)
    with left_as_found(model), torch.no_grad():
        with keeping_keys(model, 1) as kept:
            assert torch.equal(forward(other, CLEAN), alone)
            assert not kept
        patching_sweep(model, CLEAN, CORRUPTED, metric=_difference)
        with pytest.raises(ZeroDivisionError):
            patching_sweep(model, CLEAN, CORRUPTED, metric=lambda logits, pairs: logits[:, 0] / (1 // 0))
    assert dict(ALL_ATTENTION_FUNCTIONS) == before
    assert all("forward" not in vars(layer) for layer in model.layers)


def test_equals_the_naive_loop_on_the_real_model(stories):
    model = open_model(stories)
    prompt = "Once upon a time, there was a little {}. One day,"
    clean, corrupted = (tokenize(model, [prompt.format(who)]).input_ids for who in ("girl", "boy"))

    def she_not_he(logits, _pairs):
        return logits[:, 358] - logits[:, 281]

    sweep = patching_sweep(model, clean, corrupted, metric=she_not_he)
    torch.testing.assert_close(
        sweep.effects, _naive(model, clean, corrupted, "resid_pre", "denoising", she_not_he), rtol=1e-5, atol=3e-5
    )
    assert (sweep.clean[0].item(), sweep.corrupted[0].item()) == pytest.approx((5.68, -3.90), abs=0.01)


def test_planted_truth_the_differing_token_carries_everything(tiny):
    """At layer 0 the one differing token is all there is: patching it gives the clean run, patching elsewhere nothing."""
    model = tiny("llama")
    sweep = patching_sweep(model, CLEAN[1:], CORRUPTED[1:], metric=_difference)
    assert sweep.first == [2]
    torch.testing.assert_close(sweep.effects[0, 0, 2], sweep.clean[0])
    others = [0, 1, 3, 4, 5, 6]
    torch.testing.assert_close(sweep.effects[0, 0, others], sweep.corrupted.expand(6), rtol=1e-5, atol=1e-5)
    assert abs(sweep.clean[0] - sweep.corrupted[0]) > 1e-2


def test_directions_mirror(tiny):
    model = tiny("qwen2")
    noising = patching_sweep(model, CLEAN, CORRUPTED, metric=_difference, direction="noising")
    mirrored = patching_sweep(model, CORRUPTED, CLEAN, metric=_difference, direction="denoising")
    torch.testing.assert_close(noising.effects, mirrored.effects)
    torch.testing.assert_close(noising.clean, mirrored.corrupted)


def test_chunks_do_not_matter(tiny, left_as_found):
    model = tiny("bloom")
    with left_as_found(model):
        whole = patching_sweep(model, CLEAN, CORRUPTED, metric=_difference, max_rows=10**6)
        for max_rows in (3, 7, 22):
            torch.testing.assert_close(
                patching_sweep(model, CLEAN, CORRUPTED, metric=_difference, max_rows=max_rows).effects,
                whole.effects,
                rtol=1e-5,
                atol=1e-5,
            )


def test_the_metric_knows_its_pair(tiny):
    model = tiny("llama")
    answers = torch.tensor([3, 9])

    def of_the_pair(logits, pairs):
        return logits[torch.arange(len(logits)), answers[pairs]]

    sweep = patching_sweep(model, CLEAN, CORRUPTED, metric=of_the_pair)
    torch.testing.assert_close(
        sweep.effects, _naive(model, CLEAN, CORRUPTED, "resid_pre", "denoising", of_the_pair), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(sweep.clean, _last_logits(model, CLEAN)[torch.arange(2), answers], rtol=1e-5, atol=1e-5)


def test_half_precision(tiny):
    sweep = patching_sweep(tiny("llama", "bfloat16"), CLEAN, CORRUPTED, metric=_difference)
    full = patching_sweep(tiny("llama"), CLEAN, CORRUPTED, metric=_difference)
    assert (sweep.effects - full.effects).abs().max() <= 0.05 * _last_logits(tiny("llama"), CLEAN).abs().max()


def test_half_precision_heads(tiny):
    half, full = (head_sweep(tiny("llama", dtype), CLEAN, CORRUPTED, metric=_difference) for dtype in ("bfloat16", "float32"))
    assert (half.effects - full.effects).abs().max() <= 0.05 * _last_logits(tiny("llama"), CLEAN).abs().max()


@pytest.mark.parametrize("family", ["llama-tied", "mixtral", "gpt2"])
def test_a_batch_of_one_gives_what_many_give(tiny, family):
    """Tied embeddings, mixture of experts, learned positions."""
    model = tiny(family)
    for run in (head_sweep, patching_sweep):
        together = run(model, CLEAN, CORRUPTED, metric=_difference)
        for pair in range(2):
            alone = run(model, CLEAN[pair : pair + 1], CORRUPTED[pair : pair + 1], metric=_difference)
            torch.testing.assert_close(alone.effects[0], together.effects[pair], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_a_padded_run_patched_at_the_same_token_gives_the_same(tiny, family, side):
    """The sweep pads nothing; a patched run in a padded batch must still be the one it speaks of."""
    model, n_pad = tiny(family), 3
    sweep = patching_sweep(model, CLEAN, CORRUPTED, metric=_difference, site="resid_post")
    padding = torch.full((2, n_pad), 30)
    ids = torch.cat([padding, CORRUPTED] if side == "left" else [CORRUPTED, padding], dim=1)
    mask = torch.ones_like(ids)
    mask[:, slice(0, n_pad) if side == "left" else slice(-n_pad, None)] = 0
    tokens = Tokens(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0))
    start = n_pad if side == "left" else 0
    for layer, pos in ((0, 3), (1, 5), (2, 6)):
        values = capture_tokens(model, _tokens(CLEAN), [f"resid_post.{layer}"])[f"resid_post.{layer}"][:, pos]

        def patch(x, pos=pos, values=values):
            x[:, start + pos] = values
            return x

        with torch.no_grad(), editing(model, {f"resid_post.{layer}": patch}):
            logits = model.hf(**tokens._asdict(), use_cache=False).logits[:, start + CLEAN.shape[1] - 1].float()
        torch.testing.assert_close(sweep.effects[:, layer, pos], _difference(logits, None), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_attention_sinks(tiny, monkeypatch):
    """GPT-OSS: a learned logit per head that takes attention away from all tokens; experts, grouped queries, sliding window."""
    config = EXPERTS | {"num_local_experts": 4, "head_dim": 8, "sliding_window": 4}
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    monkeypatch.setitem(CONFIGS, "gpt-oss", lambda: GptOssConfig(**config, layer_types=kinds, rope_parameters=rope))
    model, clean, corrupted = tiny("gpt-oss"), CLEAN[1:, :5], CORRUPTED[1:, :5]
    assert model.layers[0].self_attn.sinks.abs().max() > 0.01
    for site in ("resid_pre", "resid_mid", "attn_out"):
        sweep = patching_sweep(model, clean, corrupted, metric=_difference, site=site)
        expected = _naive_by_layer(model, clean, corrupted, site, "denoising")
        torch.testing.assert_close(sweep.effects, expected, rtol=1e-5, atol=1e-5)
    by_head = head_sweep(model, clean, corrupted, metric=_difference).effects
    torch.testing.assert_close(by_head, _naive_heads(model, clean, corrupted), rtol=1e-5, atol=1e-5)


def test_a_site_that_is_not_there_is_refused(tiny):
    with pytest.raises(UsageError, match=r"'resid_mid.0' does not exist here"):
        patching_sweep(tiny("gpt-neox"), CLEAN, CORRUPTED, metric=_difference, site="resid_mid")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corrupted": CORRUPTED[:, :-1]}, r"ids of one shape, got \(2, 7\) and \(2, 6\)"),
        ({"clean": CLEAN[:0], "corrupted": CLEAN[:0]}, "expected clean and corrupted ids of one shape"),
        ({"corrupted": torch.stack([CORRUPTED[0], CLEAN[1]])}, r"the same tokens in pairs \[1\]"),
        ({"site": "pattern"}, "expected site resid_pre, attn_out, resid_mid, mlp_out or resid_post, got 'pattern'"),
        ({"direction": "both"}, "expected direction denoising or noising"),
        ({"max_rows": 2}, "expected max_rows of at least n_layers = 3, got 2"),
    ],
)
def test_bad_input_is_refused(tiny, changes, message):
    from auditgap.models.patch import _check

    given = {"clean": CLEAN, "corrupted": CORRUPTED, "site": "resid_pre", "direction": "denoising", "max_rows": 64} | changes
    with pytest.raises(UsageError, match=message):
        _check(tiny("llama"), **given)
