"""attribution-patching: exact where the model is linear, right about a planted path, and caught where its gradient is blind."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_models import BASIS, FILLERS, build, carry, read, write
from torch import nn
from transformers import LlamaForCausalLM

from auditgap.data import ContrastSet, PairRow, PairSet, load
from auditgap.errors import CannotMeasure, DataError, UsageError
from auditgap.instruments.mechanistic.attribution_patching import AttributionPatching
from auditgap.instruments.mechanistic.attribution_patching.agreement import (
    Halves,
    halves,
    pearson,
    random_ranking_p,
    recall,
    spearman,
    top,
    upper_bounds,
)
from auditgap.instruments.mechanistic.attribution_patching.attention import Attention, key_effects, query_effects
from auditgap.instruments.mechanistic.attribution_patching.estimate import Estimates, Method, estimate
from auditgap.instruments.mechanistic.attribution_patching.exact import NodeSet, Patcher
from auditgap.instruments.mechanistic.attribution_patching.findings import Exact, missed_effect, missed_rate
from auditgap.instruments.mechanistic.attribution_patching.nodes import Kind, Layout, available
from auditgap.instruments.patching.pairs import align, read_pairs
from auditgap.instruments.patching.runs import Runs
from auditgap.models import Model, open_model
from auditgap.records import Control, Measured, NotMeasured, Result

NAMES = Path(__file__).parents[2] / "examples" / "data" / "names-pairs.jsonl"
EVERY: tuple[Kind, ...] = ("resid_pre", "attn_out", "mlp_out", "z", "q", "k")
GIRLS, BOYS = [f"g{i}" for i in range(12)], [f"b{i}" for i in range(12)]
SPLITS = ("train", "val", "train", "test")
FAST = {"n_resamples": 100, "min_gap": 0.5, "n_blind": 24, "n_halves": 24, "n_sweep_pairs": 4}


def value(result: Result, name: str) -> float:
    found = result.measurement(name)
    assert isinstance(found, Measured), found
    return found.value


def control(result: Result, name: str) -> Control:
    return next(control for control in result.controls if control.name == name)


def pair(i: int, template: str = "w1 {} w2", *, swap: bool = True, **changed: str) -> PairRow:
    """`{}` is a girl's name in one prompt and a boy's in the other; every second pair is the other way round."""
    girl, boy = (template.replace("{}", names[i % 12]) for names in (GIRLS, BOYS))
    sides = {"clean": girl, "corrupted": boy, "answer": "yes", "foil": "no"}
    if swap and i % 2:
        sides = {"clean": boy, "corrupted": girl, "answer": "no", "foil": "yes"}
    return PairRow(**(sides | {"group": f"pair {i:02}", "split": SPLITS[i % 4]} | changed))


def pairs(rows: list[PairRow]) -> PairSet:
    return PairSet(name="made", source="made.jsonl", rows=tuple(rows))


def names() -> list[PairRow]:
    """The name, followed by one or two words."""
    return [pair(i, " ".join(["w1 {}", *FILLERS[4 : 4 + i // 4 % 2], FILLERS[i % 12]])) for i in range(24)]


def mark(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
    for girl, boy in zip(GIRLS, BOYS, strict=True):
        write(hf, ids[girl], BASIS[1])
        write(hf, ids[boy], -BASIS[1])


def travels(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
    """Layer 1 carries the mark of the name to every later token, where the answer is read off it."""
    mark(hf, ids)
    carry(hf, layer=1, source=BASIS[1], target=8 * BASIS[2])
    read(hf, ids["yes"], 2 * BASIS[2])
    read(hf, ids["no"], -2 * BASIS[2])


def saturates(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
    """As `travels`, but the answer passes a gate that a boy's name shuts: there its gradient is 0. A faint path goes round it."""
    mark(hf, ids)
    carry(hf, layer=1, source=BASIS[1], target=8 * BASIS[2])
    carry(hf, layer=2, source=BASIS[1], target=0.3 * BASIS[4])
    mlp = hf.model.layers[2].mlp
    mlp.gate_proj.weight[0] = 5 * BASIS[2]
    mlp.up_proj.weight[0] = 0.5 * BASIS[0]
    mlp.down_proj.weight[:, 0] = BASIS[3]
    read(hf, ids["yes"], BASIS[3] + BASIS[4])
    read(hf, ids["no"], -BASIS[3] - BASIS[4])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return build(tmp_path_factory.mktemp("travels"), [*GIRLS, *BOYS], travels)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return build(tmp_path_factory.mktemp("saturates"), [*GIRLS, *BOYS], saturates)


@pytest.fixture(scope="module")
def found(planted: Model) -> Result:
    return AttributionPatching(top_k=12, **FAST).measure(planted, pairs(names()), seed=0)


def prepared(model: Model, data: PairSet, kinds: tuple[Kind, ...] = EVERY, direction="denoising") -> tuple[Patcher, Layout]:
    every = read_pairs(model, data)
    runs = Runs(model, every, 32)
    clean, corrupted = (runs.read(prompts).logit_diff for prompts in (every.clean, every.corrupted))
    heads, _ = available(model, kinds, every.clean[0][None])
    layout = Layout(heads, range(model.n_layers), align(every.first, every.last, every.lengths))
    return Patcher(model, every, layout, clean, corrupted, direction, 512), layout


def estimated(patcher: Patcher, method: Method, *, n_steps: int = 5) -> Estimates:
    gaps, options = patcher.clean - patcher.corrupted, {"direction": patcher.direction, "n_steps": n_steps, "batch_size": 8}
    return estimate(patcher.model, patcher.pairs, patcher.layout, gaps, methods=[method], **options)[method]


# Exact where the model is linear


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model with grouped queries and nothing non-linear but the softmax: no norms, no MLP."""
    folder = tmp_path_factory.mktemp("bare")
    config = build(folder, [*GIRLS, *BOYS], lambda hf, ids: None, n_layers=2).hf.config
    config.num_key_value_heads = 2
    LlamaForCausalLM(config).save_pretrained(folder)
    model = open_model(folder)
    for block in model.layers:
        block.input_layernorm = nn.Identity()
        block.mlp.down_proj.weight.data.zero_()
    model.hf.model.norm = nn.Identity()
    for table in (model.hf.get_input_embeddings(), model.hf.lm_head):
        table.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    return model


def randomise(model: Model, seed: int, *, attends: int | None) -> None:
    """New weights; queries and keys only in layer `attends`, so that attention elsewhere is the same whatever the input."""
    generator = torch.Generator().manual_seed(seed)
    for layer, block in enumerate(model.layers):
        for name, projection in block.self_attn.named_children():
            keep = 0.0 if name in ("q_proj", "k_proj") and layer != attends else 1.0
            projection.weight.data = keep * torch.randn(projection.weight.shape, generator=generator) * 0.4


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["denoising", "noising"]))
def test_every_estimate_is_exact_on_a_linear_model(bare: Model, seed: int, direction) -> None:
    randomise(bare, seed, attends=None)
    patcher, _ = prepared(bare, pairs([pair(i) for i in range(3)]), ("resid_pre", "attn_out", "z"), direction)
    exact = patcher.sweep(range(3))
    scale = np.abs(exact).max()
    for method in ("atp", "integrated-gradients"):
        np.testing.assert_allclose(estimated(patcher, method, n_steps=2).passes[0], exact, atol=1e-4 * scale)


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10_000))
def test_the_qk_fix_is_exact_where_only_the_softmax_is_not_linear(bare: Model, seed: int) -> None:
    """Grouped queries: a key node moves both heads that share it. A plain gradient through the softmax is far off."""
    randomise(bare, seed, attends=1)
    patcher, layout = prepared(bare, pairs([pair(i) for i in range(3)]), ("q", "k"))
    assert layout.heads == {"q": 4, "k": 2}
    last = [i for i, node in enumerate(layout.nodes) if node.layer == 1]
    exact = patcher.sweep(range(3))[:, last]
    assert np.abs(exact).max() > 0.01
    np.testing.assert_allclose(estimated(patcher, "atp").passes[0][:, last], exact, atol=1e-4 * np.abs(exact).max())


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 4]), st.sampled_from([1.0, 30.0]))
def test_the_qk_fix_equals_recomputing_the_whole_softmax(seed: int, n_kv: int, size: float) -> None:
    """Also where attention is saturated, which is what the fix is for."""
    rng = torch.Generator().manual_seed(seed)
    query, value_, gradient = (torch.randn(2, 4, 5, 3, generator=rng, dtype=torch.float64) for _ in range(3))
    key, other = (size * torch.randn(2, n_kv, 5, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    bias = torch.zeros(5, 5, dtype=torch.float64).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    at = Attention(query, key, value_, bias.expand(2, 4, 5, 5), 0.7)
    by_key = key_effects(at, other, gradient)
    by_query = query_effects(at, torch.zeros_like(query), gradient)
    for position in range(5):
        for head in range(n_kv):
            patched = key.clone()
            patched[:, head, position] = other[:, head, position]
            expected = ((at._replace(key=patched).z - at.z) * gradient).sum((1, 2, 3))
            torch.testing.assert_close(by_key[:, position, head], expected)
        for head in range(4):
            patched = query.clone()
            patched[:, head, position] = 0
            expected = ((at._replace(query=patched).z - at.z) * gradient).sum((1, 2, 3))
            torch.testing.assert_close(by_query[:, position, head], expected)


# Two ways to patch exactly


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_single_patched_runs_equal_the_sweep_for_every_node(planted: Model, direction) -> None:
    patcher, layout = prepared(planted, pairs(names()[:2]), direction=direction)
    np.testing.assert_allclose(patcher.each(layout.nodes, range(2)), patcher.sweep(range(2)), atol=1e-4)
    assert np.abs(patcher.each(layout.nodes, range(2), own=True)).max() < 1e-5


def test_all_heads_of_a_position_together_are_its_attention_output(planted: Model) -> None:
    patcher, layout = prepared(planted, pairs(names()[:2]))
    whole = [node for node in layout.nodes if node.kind == "attn_out"]
    parts = [[n for n in layout.nodes if n.kind == "z" and (n.layer, n.column) == (w.layer, w.column)] for w in whole]
    by_heads = patcher.effects([NodeSet(1, nodes) for nodes in parts])
    np.testing.assert_allclose(by_heads, patcher.each(whole, [1])[0], atol=1e-5)


# Planted truth


def test_a_planted_path_is_found_and_nothing_beside_it(found: Result) -> None:
    assert found.verdict == "supported"
    assert value(found, "missed.effect") < 0.1
    assert found.measurement("missed.effect").interval.high < 0.1
    assert value(found, "missed.rate") == 0
    assert value(found, "recall.min_effect") == 1
    assert value(found, "pearson") > 0.95
    assert {c.name for c in found.controls} == set(AttributionPatching.card.controls)
    assert {c.name for c in found.controls if not c.passed} <= {"completeness"}
    assert set(found.properties) >= {"intervention", "held-out", "random-baseline"}
    attention = next(figure for figure in found.figures if figure.name == "exact.attn_out")
    effects = np.array(attention.values)
    assert effects[1, attention.columns.index("prompt end")] == pytest.approx(1, abs=0.1)
    assert np.abs(np.delete(effects, 1, axis=0)).max() < 0.1


def test_a_shut_gate_blinds_the_gradient_but_not_integrated_gradients(gated: Model) -> None:
    data, sites = pairs([pair(i, swap=False) for i in range(24)]), ("attn_out", "mlp_out")
    patcher, layout = prepared(gated, data, sites)
    node = next(
        i
        for i, n in enumerate(layout.nodes)
        if (n.kind, n.layer, layout.columns.labels[n.column]) == ("attn_out", 1, "prompt end")
    )
    exact = patcher.each([layout.nodes[node]], range(24)).mean()
    by_method = {method: estimated(patcher, method).scores()[node] for method in ("atp", "integrated-gradients")}
    assert exact > 0.8
    assert abs(by_method["atp"]) < 0.01
    assert abs(by_method["integrated-gradients"]) > 0.1, "its size is off, but it ranks second"
    verdicts = {
        method: AttributionPatching(method=method, sites=sites, top_k=2, min_effect=0.5, **FAST).measure(gated, data, seed=0)
        for method in ("atp", "integrated-gradients")
    }
    assert verdicts["integrated-gradients"].verdict == "supported"
    assert verdicts["atp"].verdict == "refuted"
    assert value(verdicts["atp"], "missed.effect") == pytest.approx(exact, abs=0.1)
    assert verdicts["atp"].flip_rate.value > 0


def test_integrated_gradients_explain_the_gap_given_steps_enough(planted: Model) -> None:
    """Half-way between the names there is no mark, and the last norm blows up what is left: five steps are too few here."""
    patcher, _ = prepared(planted, pairs(names()[:4]), ("attn_out",))
    errors = [np.abs(estimated(patcher, "integrated-gradients", n_steps=n).completeness - 1).max() for n in (5, 50)]
    assert errors[0] > 0.1 > 0.01 > errors[1]


# Negative controls


def test_a_search_that_stops_too_early_is_never_supported(planted: Model) -> None:
    """The attention output and its one head carry the same: with one node found, the other is missed."""
    result = AttributionPatching(top_k=1, sites=("attn_out", "z"), **FAST).measure(planted, pairs(names()), seed=0)
    assert result.verdict in ("refuted", "inconclusive")
    assert result.measurement("missed.effect").interval.high > 0.5


def test_an_unplanted_model_cannot_be_measured(tmp_path: Path) -> None:
    model = build(tmp_path, [*GIRLS, *BOYS], lambda hf, ids: None)
    with pytest.raises(CannotMeasure, match=r"at least 5 groups of pairs with a gap of 0.5 logits in train.* got 0; 0 of all 24"):
        AttributionPatching(**FAST).measure(model, pairs(names()), seed=0)


def test_a_blind_ranking_is_not_a_good_one() -> None:
    """Against counting: the share of random rankings that do as well."""
    rng = np.random.default_rng(0)
    hits = np.array([len(np.intersect1d(rng.permutation(30)[:5], np.arange(5))) for _ in range(4000)])
    for n_hits in range(1, 4):
        assert random_ranking_p(n_hits, k=5, n_nodes=30) == pytest.approx((hits >= n_hits).mean(), abs=0.03)
    assert random_ranking_p(0, k=5, n_nodes=30) == 1


# What may have been missed


def test_the_bound_holds_for_the_largest_effect_in_at_least_95_of_100_searches() -> None:
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        effects = 0.05 * rng.standard_normal(12)
        member = np.argsort(rng.random((24, 12)), axis=1) < 6
        first, second = (mask @ effects + 0.05 * rng.standard_normal(24) for mask in (member, ~member))
        held.append(upper_bounds(Halves(np.arange(12), member, first, second)).max() >= np.abs(effects).max())
    assert np.mean(held) >= 0.95


def test_a_node_that_no_one_patched_alone_shows_in_the_halves(planted: Model) -> None:
    """Nothing verified but the halves: the planted attention output must push the bound up, and its absence bring it down."""
    patcher, layout = prepared(planted, pairs([pair(i) for i in range(24)]), ("attn_out",))
    rng, nodes = np.random.default_rng(0), layout.nodes
    carriers = [i for i, n in enumerate(nodes) if n.layer == 1 and layout.columns.labels[n.column] == "prompt end"]
    every = list(range(len(nodes)))
    with_it, without = (
        max(upper_bounds(one).max() for one in halves(patcher, rest, range(24), n_draws=24, rng=rng))
        for rest in (every, [i for i in every if i not in carriers])
    )
    assert with_it > 0.8
    assert without < 0.2


def test_bounds_say_what_is_known_and_what_is_not() -> None:
    effects = np.array([[0.9, 0.02, -0.2], [0.7, 0.0, -0.2]])
    verified = Exact(np.array([3, 5, 8]), effects, ["a", "b"], 100, 0)
    miss = missed_effect(verified, np.array([3]), np.array([0.15, 0.3]))
    assert (miss.value, miss.interval.low, miss.interval.high) == pytest.approx((0.2, 0.2, 0.3))
    assert missed_effect(verified, np.array([3, 8]), np.empty(0)).interval.high == pytest.approx(0.01)
    rate = missed_rate(verified, np.array([3]), np.array([5, 8]), min_effect=0.1, n_rest=50)
    assert isinstance(rate, Measured) and rate.value == 0.5 and rate.n == 2 and rate.interval.low == 0
    none = missed_rate(verified, np.array([3]), np.array([3]), min_effect=0.1, n_rest=50)
    assert isinstance(none, NotMeasured) and "raise n_blind" in none.reason


def test_agreement_is_that_of_numpy_and_a_count() -> None:
    rng = np.random.default_rng(0)
    exact, scores = rng.standard_normal((2, 50))
    assert pearson(scores, exact) == pytest.approx(np.corrcoef(scores, exact)[0, 1])
    assert spearman(-exact, exact) == pytest.approx(1), "ranks go by size"
    assert recall(exact, exact, 7) == 1 and recall(scores, exact, 50) == 1
    assert top(np.array([0.1, -3.0, 3.0, 0.0]), 2).tolist() == [1, 2]
    assert np.isnan(pearson(np.ones(3), np.arange(3.0)))


# Invariance


FEW = AttributionPatching(top_k=6, sites=("attn_out", "k"), layers=(1,), **FAST)


@pytest.fixture(scope="module")
def few(planted: Model) -> Result:
    return FEW.measure(planted, pairs(names()), seed=0)


def test_batch_size_row_order_and_memory_bound_do_not_matter(planted: Model, few: Result) -> None:
    other = FEW.model_copy(update={"batch_size": 7, "max_rows": 100}).measure(planted, pairs(names()[::-1]), seed=0)
    for one, two in zip(few.measurements, other.measurements, strict=True):
        assert (one.name, one.status) == (two.name, two.status)
        if isinstance(one, Measured) and isinstance(two, Measured):
            assert two.value == pytest.approx(one.value, abs=1e-3), one.name
    assert other.verdict == few.verdict


def test_same_seed_same_record_and_nothing_left_behind(planted: Model, few: Result) -> None:
    state = torch.random.get_rng_state()
    assert FEW.measure(planted, pairs(names()), seed=0).canonical() == few.canonical()
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in planted.hf.modules())


# Refusal


def test_bad_pairs_are_refused_with_every_row(planted: Model) -> None:
    longer, same = pair(1, corrupted="w1 g1 w1 w2"), pair(2, corrupted="w1 g2 w2")
    with pytest.raises(DataError, match=r"row 2 \(4 and 5\), row 4 \(4 and 5\)"):
        AttributionPatching().measure(planted, pairs([pair(0), longer, pair(2), longer]), seed=0)
    with pytest.raises(DataError, match="same tokens in row 2"):
        AttributionPatching().measure(planted, pairs([pair(0), same]), seed=0)
    with pytest.raises(UsageError, match="to be one token"):
        AttributionPatching().measure(planted, pairs([pair(0, answer="yes no")]), seed=0)


def test_bad_settings_are_refused(planted: Model) -> None:
    with pytest.raises(UsageError, match=r"layer 9 asked.*the model has 4 \(0-3\)"):
        AttributionPatching(layers=(9,)).measure(planted, pairs(names()), seed=0)
    with pytest.raises(UsageError, match="reads pairs, got a ContrastSet"):
        AttributionPatching().measure(planted, ContrastSet(name="x", source="x", rows=(), classes=("a", "b")), seed=0)
    with pytest.raises(UsageError, match=r"top_k: expected fewer than the \d+ nodes there are, got 9999"):
        AttributionPatching(top_k=9999, **FAST).measure(planted, pairs(names()), seed=0)
    with pytest.raises(ValueError, match="sites"):
        AttributionPatching(sites=("pattern",))


def test_attention_that_cannot_be_recomputed_is_not_guessed(tmp_path: Path) -> None:
    """The eager kernel makes no call that could be watched: queries and keys are reported as not measured, with the reason."""
    model = build(tmp_path, [*GIRLS, *BOYS], travels)
    model.hf.set_attn_implementation("eager")
    result = AttributionPatching(sites=("attn_out", "q", "k"), layers=(1,), top_k=3, **FAST).measure(
        model, pairs(names()), seed=0
    )
    for kind in ("q", "k"):
        absent = result.measurement(f"nodes.{kind}")
        assert isinstance(absent, NotMeasured) and "calls torch's attention kernel 0 times for 4 layers" in absent.reason
    assert result.verdict == "supported"
    with pytest.raises(CannotMeasure, match="none of the sites q can be patched"):
        AttributionPatching(sites=("q",), **FAST).measure(model, pairs(names()), seed=0)


# A real model


def test_agreement_on_a_real_model(stories: Path) -> None:
    """The last layer, where the person of a name moves to the end of the prompt."""
    model = open_model(stories)
    data = load(str(NAMES), "pairs")
    lengths = [len(read.clean[0]) for read in (read_pairs(model, pairs([row])) for row in data.rows)]
    common = [length for length, _ in Counter(lengths).most_common(2)]  # few lengths are few batches
    data = pairs([row for row, length in zip(data.rows, lengths, strict=True) if length in common])
    instrument = AttributionPatching(sites=("attn_out", "mlp_out", "z"), top_k=12, layers=(4,), **FAST | {"min_gap": 1.0})
    result = instrument.measure(model, data, seed=0)
    assert value(result, "recall.top_k") >= 0.7
    assert value(result, "pearson") > 0.85
    assert value(result, "spearman") > 0.85
    assert value(result, "completeness") == pytest.approx(1, abs=0.1)
    assert control(result, "sweep-agreement").passed and control(result, "identity-patch").passed
    assert result.verdict in ("supported", "inconclusive")
