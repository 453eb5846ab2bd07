"""direction-test against models in which the direction, or its absence, is set by hand."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from planted_models import (
    BASIS,
    D_MODEL,
    assert_no_vector,
    assert_same_numbers,
    build,
    carry,
    contrast,
    control,
    read,
    relabelled,
    rows,
    value,
    write,
)

from auditgap.data import ContrastRow, ContrastSet, Message, PairSet
from auditgap.errors import CannotMeasure, DataError, UsageError
from auditgap.instruments.directions.bench import Bench, Rows
from auditgap.instruments.directions.nulls import strongest
from auditgap.instruments.directions.search import Place, template_positions
from auditgap.instruments.directions.trial import Trial
from auditgap.instruments.mechanistic.direction_test import DirectionTest, cost
from auditgap.models import Model, open_model, token_id
from auditgap.models.tokens import prompt_ids
from auditgap.records import Curve, Grid, Measured, ModelAccess, Result

ONES, ZEROS = [f"p{i}" for i in range(20)], [f"q{i}" for i in range(20)]
SPLITS = ["train"] * 8 + ["val"] * 4 + ["test"] * 5 + ["ood"] * 3
END = "end"
N_LAYERS = 3
CHAT = "{% for m in messages %}ask {{ m.content }} close {% endfor %}reply"
FAST = {"n_random": 19, "n_shuffled": 19, "n_resamples": 100}
YES = DirectionTest(answers=("yes",), foils=("no",), **FAST)
LOOSE = YES.model_copy(update={"induce_min": -100.0, "max_kl_nats": 10.0})
DATA = contrast(rows(ONES, 1, SPLITS), rows(ZEROS, 0, SPLITS))


def quiet_answer(hf, ids: dict[str, int]) -> None:
    """Without a mark every prompt prefers `no`, by about 4 logits."""
    read(hf, ids["no"], 0.75 * BASIS[0])


def one_direction(hf, ids: dict[str, int]) -> None:
    quiet_answer(hf, ids)
    read(hf, ids["yes"], 1.8 * BASIS[1])
    for word in ONES:
        write(hf, ids[word], BASIS[1])


def four_directions(hf, ids: dict[str, int]) -> None:
    """Four unrelated ways to be marked, each with its own answer."""
    quiet_answer(hf, ids)
    for i, word in enumerate(ONES):
        write(hf, ids[word], 2 * BASIS[1 + i % 4])
    for i, answer in enumerate(("yes", "oui", "si", "ja")):
        read(hf, ids[answer], 1.8 * BASIS[1 + i])


def fetched_late(hf, ids: dict[str, int]) -> None:
    """The mark stays at its word until the last layer fetches it for the answer."""
    quiet_answer(hf, ids)
    read(hf, ids["yes"], 3 * BASIS[2])
    carry(hf, layer=N_LAYERS - 1, source=BASIS[1], target=6 * BASIS[2])
    for word in ONES:
        write(hf, ids[word], BASIS[1])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return build(tmp_path_factory.mktemp("one"), [*ONES, *ZEROS], one_direction, n_layers=N_LAYERS)


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Model:
    words = [*ONES, *ZEROS, END, "ask", "close", "reply"]
    return build(tmp_path_factory.mktemp("late"), words, fetched_late, n_layers=N_LAYERS, chat_template=CHAT)


@pytest.fixture(scope="module")
def found(planted: Model) -> Result:
    return YES.measure(planted, DATA, seed=0)


# Planted truth


def test_one_planted_direction_is_supported_and_called_brittle(found: Result) -> None:
    assert found.verdict == "supported"
    assert found.summary.startswith("The behaviour is brittle: it rests on one direction. Of the difference")
    assert "100% of 'marked' prompts prefer the answers, 0% with it ablated, 0% with it subtracted" in found.summary
    assert value(found, "share_removed") == pytest.approx(1.0, abs=0.1)
    assert value(found, "share_induced") == pytest.approx(1.0, abs=0.15)
    rates = [f"rate.{what}" for what in ("label1.base", "label1.ablated", "label1.subtracted", "label0.base", "label0.added")]
    assert [value(found, name) for name in rates] == [1, 0, 0, 0, 1]
    assert value(found, "rate.label1.bypassed") == 0
    assert value(found, "specificity") > 10
    assert value(found, "p.random") == value(found, "p.covariance") == value(found, "p.shuffled") == 1 / 20
    assert value(found, "advantage.top_component") > 0.5
    assert value(found, "reliability") > 0.95
    assert set(found.properties) >= {
        "intervention",
        "necessity",
        "sufficiency",
        "specificity",
        "random-baseline",
        "search-null",
        "held-out",
        "consistency",
    }
    assert all(control.passed for control in found.controls)
    assert [control.name for control in found.controls] == list(DirectionTest.card.controls)
    assert found.flip_rate is not None and found.flip_rate.value == 0


def test_ablation_holds_in_activations_and_in_weights(found: Result) -> None:
    assert 0 < value(found, "residual_after_ablation") < 1e-6
    assert value(found, "weight_form_difference") < 1e-4


def test_it_costs_nothing_on_other_text(found: Result) -> None:
    """The plant is no part of what predicts the fillers: to lose it moves their cross-entropy by next to nothing."""
    assert abs(value(found, "cross_entropy.change")) < 0.05
    about = found.measurement("cross_entropy.change").about
    assert "label-0 prompts of split `ood`" in about, "says which text it was"


def test_ood_rows_are_scored_apart(found: Result) -> None:
    assert value(found, "share_removed.ood") == pytest.approx(1.0, abs=0.1)
    assert "out-of-distribution" in found.properties


def test_the_dose_response_climbs_through_the_classes(found: Result) -> None:
    curve = next(figure for figure in found.figures if figure.name == "dose_response")
    assert isinstance(curve, Curve) and len(curve.x) >= 7 and (curve.x[0], curve.x[-1]) == (-2, 2)
    assert list(curve.y) == sorted(curve.y)
    unedited, full = curve.y[curve.x.index(0.0)], curve.y[curve.x.index(1.0)]
    assert unedited == pytest.approx(curve.reference[0] - value(found, "difference"))
    assert full == pytest.approx(curve.reference[0], abs=1.0)
    assert all(low <= y <= high for low, y, high in zip(curve.low, curve.y, curve.high, strict=True))


def test_a_direction_that_never_reaches_the_last_token_is_found_where_it_is(late: Model) -> None:
    data = contrast(rows(ONES, 1, SPLITS, last=END), rows(ZEROS, 0, SPLITS, last=END))
    result = LOOSE.model_copy(update={"positions": (-1, -2)}).measure(late, data, seed=0)
    assert value(result, "position") == -2
    assert value(result, "share_removed") > 0.7 and value(result, "share_induced") > 0.7
    assert "best of 6 candidates" in result.summary
    grids = {figure.name: figure for figure in result.figures if isinstance(figure, Grid)}
    assert set(grids) == {f"candidates.{name}" for name in ("bypass", "induce", "kl_nats", "chosen")}
    assert grids["candidates.bypass"].columns == ("-2", "-1") and grids["candidates.bypass"].rows == ("0", "1", "2")
    chosen = np.array(grids["candidates.chosen"].values)
    assert chosen[:, 0].sum() == pytest.approx(1.0) and (chosen[:, 1] == 0).all()


@pytest.mark.slow
def test_at_the_last_token_alone_it_is_not_found(late: Model) -> None:
    result = LOOSE.measure(late, contrast(rows(ONES, 1, SPLITS, last=END), rows(ZEROS, 0, SPLITS, last=END)), seed=0)
    assert result.verdict != "supported" and not {"necessity", "sufficiency"} & set(result.properties)


@pytest.mark.slow
def test_a_mark_coded_on_both_sides_of_zero_is_one_direction_too(tmp_path: Path) -> None:
    """Ablation then stops half-way: a test that looked at label 1 alone would refute, and call a brittle behaviour robust."""

    def both_sides(hf, ids: dict[str, int]) -> None:
        read(hf, ids["yes"], 2 * BASIS[1])
        for words, sign in ((ONES, 1), (ZEROS, -1)):
            for word in words:
                write(hf, ids[word], sign * BASIS[1])

    result = LOOSE.measure(build(tmp_path, [*ONES, *ZEROS], both_sides, n_layers=N_LAYERS), DATA, seed=0)
    assert result.verdict == "supported"
    assert value(result, "share_bypassed") == pytest.approx(0.5, abs=0.1)
    assert value(result, "share_removed") == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
def test_the_same_effect_without_foils(planted: Model) -> None:
    result = DirectionTest(answers=("yes",), induce_min=-10.0, max_kl_nats=1.0, **FAST).measure(planted, DATA, seed=0)
    assert value(result, "share_removed") > 0.8


# Negative controls


def test_four_directions_are_refuted_as_one(tmp_path: Path) -> None:
    model = build(tmp_path, [*ONES, *ZEROS], four_directions, n_layers=N_LAYERS)
    result = LOOSE.model_copy(update={"answers": ("yes", "oui", "si", "ja")}).measure(model, DATA, seed=0)
    assert result.verdict == "refuted"
    assert 0.1 < value(result, "share_removed") < 0.5 and value(result, "share_bypassed") < 0.5
    assert "necessity" not in result.properties
    assert result.summary.startswith("No direction was found on which 50% of the behaviour rests")


def test_a_behaviour_that_survives_ablation_is_not_brittle_however_much_of_the_difference_goes(tmp_path: Path) -> None:
    """A second, constant push towards the answer: without the direction both classes prefer it."""

    def pushed(hf, ids: dict[str, int]) -> None:
        one_direction(hf, ids)
        for word in (*ONES, *ZEROS):
            write(hf, ids[word], BASIS[5])
        read(hf, ids["yes"], BASIS[5])

    result = YES.measure(build(tmp_path, [*ONES, *ZEROS], pushed, n_layers=N_LAYERS), DATA, seed=0)
    assert value(result, "share_removed") > 0.5
    assert value(result, "rate.label1.base") == value(result, "rate.label1.ablated") == 1
    assert result.verdict == "inconclusive"


def test_the_twin_without_the_plant_is_not_supported(tmp_path: Path) -> None:
    result = LOOSE.measure(build(tmp_path, [*ONES, *ZEROS], quiet_answer, n_layers=N_LAYERS), DATA, seed=0)
    assert result.verdict == "inconclusive"
    assert result.measurement("share_removed").status == "not_measured"
    assert not {"necessity", "sufficiency"} & set(result.properties)
    assert not control(result, "behaviour-gap").passed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_random_labels_are_not_supported(planted: Model, seed: int) -> None:
    labels = dict(zip([*ONES, *ZEROS], np.random.default_rng(seed).permutation([0, 1] * 20).tolist(), strict=True))
    result = LOOSE.measure(planted, relabelled(DATA, labels), seed=0)
    assert result.verdict in ("inconclusive", "refuted")


def test_nothing_survives_the_filter_says_why_per_candidate(planted: Model, found: Result) -> None:
    result = YES.model_copy(update={"induce_min": 1e6}).measure(planted, DATA, seed=0)
    assert result.verdict == "inconclusive" and result.properties == ()
    assert result.measurement("share_removed").status == "not_measured"
    assert value(result, "rate.label1.bypassed") == 0 and "0% [0%" in result.summary  # removal needs no inducing candidate
    assert "layer 0, token -1: induce" in result.summary and "layer 2, token -1: from layer 2 on" in result.summary
    assert [control.name for control in result.controls] == list(DirectionTest.card.controls)
    names = {m.name for m in found.measurements} - {"rate.label1.base", "rate.label0.base"}
    assert {m.name for m in result.measurements} == names


# Invariance


def test_batch_size_and_row_order_do_not_matter(planted: Model, found: Result) -> None:
    reverse = contrast(list(reversed(DATA.rows)))
    other = YES.model_copy(update={"batch_size": 15}).measure(planted, reverse, seed=0)
    assert_same_numbers(found, other, abs_tolerance=1e-4)


def test_no_direction_leaves_memory(found: Result) -> None:
    assert_no_vector(found)


# Refusal


def test_bad_input_is_refused(planted: Model) -> None:
    with pytest.raises(DataError, match=r"split 'val' needs at least 1 group.*'marked'"):
        YES.measure(planted, contrast([row for row in DATA.rows if (row.label, row.split) != (1, "val")]), seed=0)
    with pytest.raises(UsageError, match="expected 'yes no' to be one token, got 2"):
        DirectionTest(answers=("yes no",)).measure(planted, DATA, seed=0)
    with pytest.raises(UsageError, match="cannot be answer and foil"):
        DirectionTest(answers=("yes",), foils=("yes", "no")).measure(planted, DATA, seed=0)
    with pytest.raises(UsageError, match="contrast data, got a PairSet"):
        YES.measure(planted, PairSet(name="x", source="x", rows=()), seed=0)
    with pytest.raises(UsageError, match="position -9 asked, prompt 0 has 4 tokens"):
        YES.model_copy(update={"positions": (-9,)}).measure(planted, DATA, seed=0)
    with pytest.raises(ValueError, match="doses"):
        DirectionTest(answers=("yes",), doses=(0.0, 1.0))
    with pytest.raises(ValueError, match="positions"):
        DirectionTest(answers=("yes",), positions=(0,))


# Where candidates are looked for


def test_positions_are_what_the_template_puts_after_the_instruction(late: Model) -> None:
    chats = [(Message(role="user", content=f"w1 {word}"),) for word in ("p1", "close", "w3")]
    assert template_positions(late, chats) == (-2, -1), "an instruction that ends like the template adds nothing"
    assert template_positions(late, ["w1 w2"]) == (-1,)
    assert template_positions(late, [*chats, "w1 w2"]) == (-1,)


@pytest.mark.slow
def test_conversations_are_searched_over_the_whole_template(late: Model) -> None:
    chats = [row.model_copy(update={"prompt": (Message(role="user", content=row.prompt),)}) for row in DATA.rows]
    result = LOOSE.measure(late, contrast(chats), seed=0)
    assert "best of 6 candidates" in result.summary
    assert all(isinstance(figure, Grid) for figure in result.figures if figure.name.startswith("candidates."))


# The search null


def test_the_strongest_of_a_grid_is_what_trying_all_of_it_gives(planted: Model) -> None:
    bench = Bench(planted, (token_id(planted, "yes"),), (token_id(planted, "no"),), 32)
    test = Rows.read(DATA.split("test"))
    trial = Trial(test, bench.scores(bench.base(test.prompts)), 0, 100)
    rng = np.random.default_rng(0)
    grid = {
        Place(-1, layer): 3 * BASIS[1 + layer].double() + 0.1 * torch.from_numpy(rng.standard_normal(D_MODEL))
        for layer in range(3)
    }
    each = [trial.weaker_effect(bench.edited(test, one, place.layer), trial.every) for place, one in grid.items()]
    assert strongest(bench, trial, grid) == pytest.approx(max(each), abs=1e-9)
    assert max(each) > 3 and np.ptp(each) > 3


# What it costs


def test_token_losses_are_those_of_the_models_own_loss(planted: Model) -> None:
    bench, test = Bench(planted, (0,), (1,), 16), Rows.read(DATA.split("test"))
    ragged = test._replace(prompts=[f"{'w1 ' * (i % 3)}{prompt}" for i, prompt in enumerate(test.prompts)])
    losses = cost.token_losses(bench, ragged)
    for i, ids in enumerate(prompt_ids(planted, ragged.prompts)):
        given = torch.tensor([ids])
        with torch.no_grad():
            expected = planted.hf(input_ids=given, labels=given).loss.item()
        assert losses.n_tokens[i] == len(ids) - 1
        assert losses.nats[i] / losses.n_tokens[i] == pytest.approx(expected, rel=1e-5)


def test_the_cost_is_taken_on_test_where_there_is_no_other_text(planted: Model) -> None:
    """Without what all tokens share the model no longer says `no` at every one; the mark, which label 0 lacks, is free."""
    bench, test, none = Bench(planted, (0,), (1,), 16), Rows.read(DATA.split("test")), Rows([], np.array([], dtype=np.int64), [])
    base, shared = cost.capability_cost(bench, test, none, BASIS[0], seed=0, n_resamples=100)
    _, marked = cost.capability_cost(bench, test, none, BASIS[1], seed=0, n_resamples=100)
    assert isinstance(base, Measured) and isinstance(shared, Measured) and isinstance(marked, Measured)
    assert "split `test`" in base.about and base.n == 5
    assert shared.value < -0.5 and shared.interval.high < 0
    assert abs(marked.value) < 0.05


def test_without_a_weight_form_the_reason_is_given(planted: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, test = Bench(planted, (0,), (1,), 16), Rows.read(DATA.split("test"))
    base = bench.base(test.prompts)
    ablated = bench.ablated(test.prompts, BASIS[1])[0]
    assert cost.weight_form_difference(bench, test, base, ablated, BASIS[1]).status == "measured"
    poorer = dataclasses.replace(bench, model=dataclasses.replace(planted, granted=ModelAccess.M4))
    assert "needs M5, granted is M4" in cost.weight_form_difference(poorer, test, base, ablated, BASIS[1]).reason
    assert "no logit" in cost.weight_form_difference(bench, test, base, base, BASIS[1]).reason

    def refuse(*_: object) -> None:
        raise CannotMeasure("a norm follows the projection")

    monkeypatch.setattr(cost, "orthogonalising", refuse)
    refused = cost.weight_form_difference(bench, test, base, ablated, BASIS[1])
    assert refused.status == "not_measured" and refused.reason == "a norm follows the projection"


# A real model


@pytest.mark.slow
def test_pronouns_of_a_real_model_are_not_moved_from_the_last_token(stories: Path) -> None:
    """stories260K keeps the person at the name until the last layer (see test_activation_patching): nothing to add at the end."""
    starts = [
        "Once upon a time, there was a little {}. One day,", "There was a {} who liked to play. One day,", "The {} was sad. So",
        "In a small town lived a {}. In the morning,", "The {} went to the park. Then", "A {} had a red ball. One day,",
        "Once there was a happy {}. Every day,", "One day, a {} saw a big dog.", "There once was a {} in a big house. At night,",
        "Long ago there was a {}. One morning,", "A {} and a dog were friends. Today,", "The {} was very hungry. So",
    ]  # fmt: skip
    splits = ["train"] * 5 + ["val"] * 3 + ["test"] * 4
    data = ContrastSet(
        name="pronouns", source="made", classes=("boy", "girl"),
        rows=tuple(
            ContrastRow(prompt=start.format(word), label=label, group=start, split=split)
            for start, split in zip(starts, splits, strict=True) for label, word in enumerate(("boy", "girl"))
        ),
    )  # fmt: skip
    model = open_model(stories)
    strict = YES.model_copy(update={"answers": (" she",), "foils": (" he",)})
    loose = strict.model_copy(update={"max_kl_nats": 10.0, "induce_min": -10.0})
    result = loose.measure(model, data, seed=0)
    assert value(result, "difference") > 3
    assert abs(value(result, "share_induced")) < 0.2
    assert value(result, "residual_after_ablation") < 1e-5
    assert result.verdict != "supported" and "sufficiency" not in result.properties
    assert strict.measure(model, data, seed=0).verdict == "inconclusive"
