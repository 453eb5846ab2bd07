"""activation-patching against a model in which what travels, from where and in which layer, is set by hand."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted_models import BASIS, FILLERS, build, carry, read, write

from auditgap.data import ContrastSet, PairRow, PairSet
from auditgap.errors import CannotMeasure, DataError, UsageError
from auditgap.instruments.mechanistic.activation_patching import ActivationPatching
from auditgap.instruments.mechanistic.activation_patching.interventions import CORRUPTIONS, patch_locus
from auditgap.instruments.mechanistic.activation_patching.off_task import off_task
from auditgap.instruments.mechanistic.activation_patching.search import candidate_layers
from auditgap.instruments.mechanistic.activation_patching.specifications import ablation, conclusions
from auditgap.instruments.patching.locus import Held, Locus
from auditgap.instruments.patching.pairs import (
    align,
    best_cell,
    cell_interval,
    elsewhere,
    n_same_conclusion,
    random_site_p,
    read_pairs,
    sign_flip_p,
)
from auditgap.instruments.patching.runs import GridSite, Patch, Runs, sweep
from auditgap.models import Model, open_model
from auditgap.records import Grid, Measured, NotMeasured, Result

GIRLS, BOYS = [f"g{i}" for i in range(12)], [f"b{i}" for i in range(12)]
SPLITS = ("train", "val", "train", "test")
FAST = {"n_resamples": 200, "min_gap": 0.5}
TRANSPORT = 1  # the layer whose attention carries the mark from the name to the last token


def value(result: Result, name: str) -> float:
    found = result.measurement(name)
    assert isinstance(found, Measured), found
    return found.value


def grid(result: Result, name: str) -> tuple[Grid, np.ndarray]:
    figure = next(figure for figure in result.figures if figure.name == name)
    assert isinstance(figure, Grid)
    return figure, np.array(figure.values)


def carries_a_mark(hf, ids: dict[str, int]) -> None:
    for girl, boy in zip(GIRLS, BOYS, strict=True):
        write(hf, ids[girl], BASIS[1])
        write(hf, ids[boy], -BASIS[1])
    carry(hf, layer=TRANSPORT, source=BASIS[1], target=8 * BASIS[2])
    read(hf, ids["yes"], 2 * BASIS[2])
    read(hf, ids["no"], -2 * BASIS[2])


def pair(i: int, template: str, **changed: str) -> PairRow:
    """`{}` is a girl's name in one prompt and a boy's in the other; every second pair is the other way round."""
    girl, boy = (template.replace("{}", names[i % 12]) for names in (GIRLS, BOYS))
    sides = {"clean": girl, "corrupted": boy, "answer": "yes", "foil": "no"}
    if i % 2:
        sides = {"clean": boy, "corrupted": girl, "answer": "no", "foil": "yes"}
    return PairRow(**(sides | {"group": f"pair {i:02}", "split": SPLITS[i % 4]} | changed))


def pairs(rows: list[PairRow]) -> PairSet:
    return PairSet(name="made", source="made.jsonl", rows=tuple(rows))


def one_name(n: int = 24) -> list[PairRow]:
    """The name at two places, followed by three or four words."""
    return [
        pair(i, " ".join([*FILLERS[: 1 + i % 3 // 2], "{}", *FILLERS[4 : 6 + i // 4 % 2], FILLERS[i % 12]])) for i in range(n)
    ]


DATA = pairs(one_name())


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return build(tmp_path_factory.mktemp("carries"), [*GIRLS, *BOYS], carries_a_mark)


@pytest.fixture(scope="module")
def found(planted: Model) -> Result:
    return ActivationPatching(**FAST).measure(planted, DATA, seed=0)


# Planted truth


def test_the_grid_shows_where_the_mark_is_and_when_it_moves(found: Result) -> None:
    for name in ("denoising.resid_pre", "noising.resid_pre"):
        figure, effects = grid(found, name)
        assert figure.columns[0] == "difference" and figure.columns[-1] == "prompt end"
        before, after = effects[: TRANSPORT + 1], effects[TRANSPORT + 1 :]
        np.testing.assert_allclose(before[:, 0], 1, atol=0.1)
        np.testing.assert_allclose(after[:, -1], 1, atol=0.1)
        np.testing.assert_allclose(before[:, -1], 0, atol=0.1)
        np.testing.assert_allclose(after[:, 0], 0, atol=0.1)
        np.testing.assert_allclose(effects[:, figure.columns.index("difference+1")], 0, atol=0.1)


@pytest.mark.parametrize(("layer", "column"), [(TRANSPORT, "difference"), (TRANSPORT + 1, "prompt end")])
def test_the_planted_place_is_supported(planted: Model, layer: int, column: str) -> None:
    result = ActivationPatching(layers=(layer,), **FAST).measure(planted, DATA, seed=0)
    assert result.verdict == "supported"
    assert f"resid_pre.{layer} at '{column}'" in result.summary
    assert value(result, "effect.denoising.max") == pytest.approx(1, abs=0.1)
    assert value(result, "effect.noising") == pytest.approx(1, abs=0.1)
    assert value(result, "effect.unrelated_source") == pytest.approx(0, abs=0.1)
    assert value(result, "effect.random_vector") < 0.6
    assert value(result, "p.search") < 0.01 and value(result, "p.random_site") < 0.01
    assert value(result, "effect.random_site.noising") == pytest.approx(0, abs=0.1)
    assert value(result, "effect.same_answer_source") == pytest.approx(1, abs=0.1)
    for kind in ("resample", "mean"):
        assert value(result, f"effect.{kind}_ablation") == pytest.approx(1, abs=0.15), kind
    assert value(result, "effect.zero_ablation") > 0.85  # a zero stream leaves the norm nothing but noise to blow up: too much
    assert value(result, "reliability") == 1
    assert set(result.properties) >= {
        "intervention", "necessity", "sufficiency", "specificity", "consistency", "held-out", "two-ablations", "search-null"
    }  # fmt: skip
    assert all(control.passed for control in result.controls), [c for c in result.controls if not c.passed]
    assert result.flip_rate is not None and result.flip_rate.n >= 28 and result.flip_rate.value == 0


def test_attention_output_of_the_transport_layer_is_the_carrier(planted: Model) -> None:
    result = ActivationPatching(site="attn_out", layers=(TRANSPORT,), **FAST).measure(planted, DATA, seed=0)
    assert result.verdict == "supported"
    assert f"attn_out.{TRANSPORT} at 'prompt end'" in result.summary
    every = read_pairs(planted, pairs(one_name(4)))
    mlp = sweep(planted, every, site="mlp_out", direction="denoising", max_rows=64)
    assert max(np.abs(effects).max() for effects in mlp) < 0.2


def test_the_head_that_carries_is_named(planted: Model) -> None:
    """`carry` uses the first value row and the first output column: head 0 of the transport layer, and no other."""
    result = ActivationPatching(site="z", layers=(0, TRANSPORT, 2), **FAST).measure(planted, DATA, seed=0)
    assert result.verdict == "supported"
    assert f"z.{TRANSPORT} head 0 at 'prompt end'" in result.summary
    assert (value(result, "locus.layer"), value(result, "locus.head")) == (TRANSPORT, 0)
    figure, by_head = grid(result, "denoising.z.heads")
    assert figure.columns == ("0", "1", "2", "3") and figure.x_label == "head"
    assert by_head[TRANSPORT, 0] == pytest.approx(1, abs=0.1)
    by_head[TRANSPORT, 0] = 0
    assert np.abs(by_head).max() < 0.1


def test_ablations_of_an_innocent_place_destroy_nothing(planted: Model) -> None:
    every = read_pairs(planted, DATA)
    column = np.array(every.last) + 1  # the word after the name, in the layer that reads the name
    at = patch_locus(Runs(planted, every, 32), Locus("resid_pre", TRANSPORT, 0, 0), column, chosen_on=range(12), seed=0)
    assert tuple(at.by_kind) == CORRUPTIONS
    for kind, contrast in at.by_kind.items():
        gap = at.clean.logit_diff - contrast.corrupted.logit_diff
        assert gap.mean() > 0.5, f"{kind} must take the behaviour away"
        assert np.abs(at.clean.logit_diff - contrast.noised.logit_diff).max() < 0.15 * gap.mean(), kind
        assert np.abs(contrast.denoised.logit_diff - contrast.corrupted.logit_diff).max() < 0.15 * gap.mean(), kind


def test_exact_zeros_where_nothing_can_change(found: Result) -> None:
    observed = {control.name: control.observed for control in found.controls}
    for name in ("identity-patch", "before-first-difference"):  # exactly: the planted model is dense
        assert isinstance(observed[name], Measured) and observed[name].value == 0.0
    assert observed["sweep-agreement"].value < 1e-4


@pytest.mark.parametrize("site", get_args(GridSite))
def test_the_sweep_equals_one_patched_run_at_a_time(planted: Model, site: GridSite) -> None:
    """Two implementations of one idea: the walk through the layers, and a hook per run."""
    every = read_pairs(planted, pairs(one_name(4)))
    runs = Runs(planted, every, batch_size=2)
    clean, corrupted = (runs.read(prompts).logit_diff for prompts in (every.clean, every.corrupted))
    swept = sweep(planted, every, site=site, direction="denoising", max_rows=64)
    for layer, back, head in ((0, 1, 0), (1, 2, 3), (1, 1, 0), (3, 4, 1)):
        locus, positions = Locus(site, layer, head if site == "z" else 0, 0), np.array(every.lengths)[:, None] - back
        part = locus.part(planted)
        vectors = runs.vectors(every.clean, locus.name, positions)[..., part]
        patched = runs.read(every.corrupted, Patch(locus.name, positions, vectors, part)).logit_diff
        by_sweep = [effects[layer, locus.head, at] for effects, at in zip(swept, positions[:, 0], strict=True)]
        np.testing.assert_allclose((patched - corrupted) / (clean - corrupted), by_sweep, atol=1e-4)


def test_ood_rows_are_measured_apart(planted: Model) -> None:
    rows = [
        row.model_copy(update={"split": "ood", "group": f"ood {i}"}) if i % 4 == 3 else row for i, row in enumerate(one_name(32))
    ]
    result = ActivationPatching(**FAST).measure(planted, pairs(rows), seed=0)
    assert value(result, "effect.denoising.ood") == pytest.approx(1, abs=0.1)
    assert "out-of-distribution" in result.properties
    assert result.measurement("effect.denoising.max").n == 8  # the val rows alone: the test rows became ood


# Negative controls


def test_a_difference_spread_over_four_tokens_is_refuted(planted: Model) -> None:
    spread = [pair(i, f"w1 {{}} w2 {{}} w3 {{}} w4 {{}} {FILLERS[i % 12]}") for i in range(24)]
    result = ActivationPatching(layers=(TRANSPORT,), **FAST).measure(planted, pairs(spread), seed=0)
    assert result.verdict == "refuted"
    assert value(result, "effect.denoising.max") < 0.4
    assert not {"necessity", "sufficiency"} & set(result.properties)


def test_answers_that_the_prompt_does_not_decide_are_not_supported(planted: Model) -> None:
    """Random labels: with foil and answer swapped in two of three pairs, most pairs show no such behaviour."""
    rows = [
        row if i % 3 == 0 else row.model_copy(update={"answer": row.foil, "foil": row.answer})
        for i, row in enumerate(one_name(36))
    ]
    result = ActivationPatching(min_groups=4, **FAST).measure(planted, pairs(rows), seed=0)
    assert result.verdict == "inconclusive"
    assert value(result, "pairs.with_gap") == pytest.approx(1 / 3)


def test_an_unplanted_model_cannot_be_measured(tmp_path: Path) -> None:
    model = build(tmp_path, [*GIRLS, *BOYS], lambda hf, ids: None)
    with pytest.raises(CannotMeasure, match=r"at least 5 groups of pairs with a gap of 0.5 logits in train.* got 0; 0 of all 24"):
        ActivationPatching(**FAST).measure(model, DATA, seed=0)


# Invariance


def test_batch_size_row_order_and_memory_bound_do_not_matter(planted: Model, found: Result) -> None:
    other = ActivationPatching(batch_size=3, max_rows=60, **FAST).measure(planted, pairs(one_name()[::-1]), seed=0)
    for one, two in zip(found.measurements, other.measurements, strict=True):
        assert (one.name, one.status) == (two.name, two.status)
        if isinstance(one, Measured) and isinstance(two, Measured):
            assert two.value == pytest.approx(one.value, abs=1e-4), one.name
    assert other.verdict == found.verdict


def test_same_seed_same_record_and_nothing_left_behind(planted: Model, found: Result) -> None:
    state = torch.random.get_rng_state()
    assert ActivationPatching(**FAST).measure(planted, DATA, seed=0).canonical() == found.canonical()
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in planted.hf.modules())


# Refusal


def test_bad_pairs_are_refused_with_every_row(planted: Model) -> None:
    longer, same = pair(1, "{} w1", corrupted="g1 w1 w2"), pair(2, "{} w1", corrupted="g2 w1")
    with pytest.raises(DataError, match=r"row 2 \(3 and 4\), row 4 \(3 and 4\)"):
        ActivationPatching().measure(planted, pairs([pair(0, "{} w1"), longer, pair(2, "{} w1"), longer]), seed=0)
    with pytest.raises(DataError, match="same tokens in row 3"):
        ActivationPatching().measure(planted, pairs([pair(0, "{} w1"), pair(1, "{} w1"), same]), seed=0)
    with pytest.raises(UsageError, match="to be one token"):
        ActivationPatching().measure(planted, pairs([pair(0, "{} w1", answer="yes no")]), seed=0)


def test_bad_settings_are_refused(planted: Model) -> None:
    with pytest.raises(UsageError, match=r"layer 9 asked.*the model has 4 \(0-3\)"):
        ActivationPatching(layers=(9,)).measure(planted, DATA, seed=0)
    with pytest.raises(UsageError, match="reads pairs, got a ContrastSet"):
        ActivationPatching().measure(planted, ContrastSet(name="x", source="x", rows=(), classes=("a", "b")), seed=0)
    with pytest.raises(ValueError, match="site"):
        ActivationPatching(site="pattern")


# The maths

PLACES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(1, 6)), min_size=1, max_size=6)


@given(PLACES)
def test_columns_mean_the_same_in_every_pair(places: list[tuple[int, int, int]]) -> None:
    first = [start for start, _, _ in places]
    last = [start + extra for start, extra, _ in places]
    lengths = [start + extra + tail for start, extra, tail in places]
    labels, positions = align(first, last, lengths)
    assert len(set(labels)) == len(labels) == positions.shape[1]
    assert ((positions >= np.array(first)[:, None]) & (positions < np.array(lengths)[:, None])).all()
    named = dict(zip(labels, positions.T, strict=True))
    if "difference start" in named:
        assert named["difference start"].tolist() == first
    assert named.get("difference end", named.get("difference")).tolist() == last
    if "prompt end" in named:
        assert named["prompt end"].tolist() == [length - 1 for length in lengths]


def test_sign_flips_count_every_cell_that_was_searched() -> None:
    rng = np.random.default_rng(0)
    assert sign_flip_p(np.ones((10, 3)), n_flips=9999, seed=0) == pytest.approx(2**-10, abs=0.001)
    ps = [sign_flip_p(rng.standard_normal((10, 40)), n_flips=199, seed=seed) for seed in range(200)]
    assert np.mean(np.array(ps) <= 0.05) == pytest.approx(0.05, abs=0.05)  # 40 cells, and still one false alarm in 20


def test_best_cell_is_best_in_its_weaker_way() -> None:
    ways = {"denoising": np.array([[1.0, 0.6, 0.0]]), "noising": np.array([[0.1, 0.5, 1.0]])}
    assert best_cell(ways).tolist() == [1]


def test_a_clear_conclusion_returns_and_a_coin_does_not() -> None:
    clear = {way: np.tile([0.9, 0.1], (8, 1)) for way in ("denoising", "noising")}
    count = lambda held: n_same_conclusion(clear, held, min_effect=0.5, n_resamples=400, seed=0)  # noqa: E731
    assert count(clear) == 400
    even = {way: np.array([[0.0, 0.0], [1.01, 0.0]] * 4) for way in ("denoising", "noising")}
    assert 0.5 < count(even) / 400 < 0.8


def test_elsewhere_leaves_out_the_place_and_the_shared_prefix() -> None:
    effects = np.array([[9.0, 0.9, 0.2, 0.4], [9.0, 0.1, 0.3, 0.5]])
    assert elsewhere(effects[:1], first=1, head=0, position=1).tolist() == [0.2, 0.4]
    assert elsewhere(effects, first=2, head=1, position=3).tolist() == [0.2, 0.4, 0.3]
    assert len(elsewhere(effects[:1, :2], first=1, head=0, position=1)) == 0


def test_random_sites_are_matched_pair_by_pair() -> None:
    """A locus no better than the rest is not told from it; one that beats every draw has the smallest p there is."""
    rng = np.random.default_rng(0)
    others = [rng.standard_normal((2, 6)) for _ in range(8)]
    ps = [random_site_p(rng.standard_normal((2, 8)), others, n_draws=199, seed=seed) for seed in range(200)]
    assert 0.4 < np.mean(ps) < 0.65
    assert random_site_p(np.full((2, 8), 9.0), others, n_draws=199, seed=0) == 1 / 200
    one_way = np.stack([np.full(8, 9.0), np.full(8, -9.0)])
    assert random_site_p(one_way, others, n_draws=199, seed=0) == 1, "its weaker way counts"
    assert np.isnan(random_site_p(np.ones((2, 1)), [np.empty((2, 0))], n_draws=9, seed=0))


def test_cell_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(0)
    low, high = cell_interval(rng.standard_normal((30, 400)), n_resamples=400, seed=0)
    assert np.mean((low <= 0) & (high >= 0)) == pytest.approx(0.94, abs=0.04)


def test_a_share_of_means_is_that_of_numpy_and_needs_a_whole() -> None:
    held = Held([0, 1, 2], ["a", "b", "c", "d"], 0, 200)
    part, whole = np.array([1.0, 2.0, 3.0, 99.0]), np.array([2.0, 4.0, 6.0, 0.0])
    share, interval = held.ratio(part, whole)
    assert share == interval.low == interval.high == 0.5
    assert held.ratio(part, -whole)[0] == 0


def test_an_ablation_that_takes_nothing_away_is_not_measured(planted: Model) -> None:
    every = read_pairs(planted, DATA)
    at = patch_locus(Runs(planted, every, 32), Locus("resid_pre", 1, 0, 0), np.array(every.last), chosen_on=range(12), seed=0)
    held = Held(list(range(24)), every.groups, 0, 100)
    missing = ablation(at, held, "zero", min_gap=1e3)
    assert isinstance(missing, NotMeasured) and "does not take the behaviour away" in missing.reason
    assert not [name for name in conclusions(at, held, min_gap=1e3, min_effect=0.5) if "zero" in name]
    assert len(conclusions(at, held, min_gap=0.1, min_effect=0.5)) == 32


def test_unrelated_prompts_are_hardly_moved_where_nothing_is_read(planted: Model) -> None:
    """They hold no names, so the carrier's output is the same in all of them and its mean takes nothing away."""
    idle = off_task(planted, Locus("z", TRANSPORT, 0, 0), [0, 2], batch_size=16, seed=0)
    assert len(idle.groups) == 72 and idle.kl_nats.max() < 1e-3 and not idle.changed.any()
    kl, changed = idle.measured(seed=0, n_resamples=100)
    assert isinstance(kl, Measured) and isinstance(changed, Measured)
    assert changed.interval.high > 0, "no change in 72 prompts bounds the rate, and does not make it 0"
    none, _ = idle._replace(groups=[]).measured(seed=0, n_resamples=100)
    assert isinstance(none, NotMeasured) and "at least 2 prompts" in none.reason


def test_the_middle_is_the_same_stream_for_every_site(planted: Model) -> None:
    assert candidate_layers(planted, "resid_pre", ()) == [1, 2, 3]
    assert candidate_layers(planted, "resid_post", ()) == [0, 1, 2]


# A real model


@pytest.fixture(scope="module")
def stories_model(stories: Path) -> Model:
    return open_model(stories)


def test_a_real_model_gathers_the_person_on_the_last_name_token_and_moves_it_in_the_last_layer(stories_model: Model) -> None:
    starts = [
        "Once upon a time, there was a little {}. One day,", "There was a {} who liked to play. One day,", "The {} was sad. So",
        "In a small town lived a {}. In the morning,", "The {} went to the park. Then", "A {} had a red ball. One day,",
        "Once there was a happy {}. Every day,", "One day, a {} saw a big dog.", "There once was a {} in a big house. At night,",
        "Long ago there was a {}. One morning,", "A {} and a dog were friends. Today,", "The {} was very hungry. So",
    ]  # fmt: skip
    rows = [
        PairRow(
            clean=start.format("girl"), corrupted=start.format("boy"), answer=" she", foil=" he", group=start, split=SPLITS[i % 4]
        )
        for i, start in enumerate(starts)
    ]
    result = ActivationPatching(n_resamples=200).measure(stories_model, pairs(rows), seed=0)
    assert result.verdict == "supported"
    assert "resid_pre.2 at 'difference end'" in result.summary or "resid_pre.3 at 'difference end'" in result.summary
    figure, resid = grid(result, "denoising.resid_pre")
    at = {name: resid[:, i] for i, name in enumerate(figure.columns)}
    assert at["difference end"][2:].min() > 0.8 > 0.6 > at["difference end"][0]  # early layers: spread over the word's tokens
    assert at["prompt end"].max() < 0.1  # not yet there when the last layer starts
    by_head = ActivationPatching(site="z", layers=(2, 3, 4), n_resamples=200).measure(stories_model, pairs(rows), seed=0)
    assert (
        by_head.verdict == "supported" and "z.4 head 2 at 'prompt end'" in by_head.summary
    )  # one head of the last layer brings it
