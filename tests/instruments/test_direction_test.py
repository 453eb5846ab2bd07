"""direction-test against models in which the direction, or its absence, is set by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted_models import BASIS, D_MODEL, FILLERS, build, read, write
from scipy.special import log_softmax, logsumexp, rel_entr, softmax

from auditgap.data import ContrastRow, ContrastSet, PairSet
from auditgap.errors import DataError, UsageError
from auditgap.instruments.directions.bench import (
    Candidate,
    mean_difference,
    random_directions,
    select,
)
from auditgap.instruments.mechanistic.direction_test import DirectionTest
from auditgap.models import Model, behaviour_score, kl_nats, open_model
from auditgap.records import Measured, Result
from auditgap.stats import flip_rate

ONES, ZEROS = [f"p{i}" for i in range(24)], [f"q{i}" for i in range(24)]
SPLITS = ["train"] * 12 + ["val"] * 6 + ["test"] * 6
FAST = {"n_random": 19, "n_shuffled": 19, "n_resamples": 200}
YES = DirectionTest(answers=("yes",), foils=("no",), **FAST)


def value(result: Result, name: str) -> float:
    found = result.measurement(name)
    assert isinstance(found, Measured), found
    return found.value


def rows(words: list[str], label: int, splits: list[str] = SPLITS) -> list[ContrastRow]:
    """Two prompts per word, which is the last token and the group."""
    return [
        ContrastRow(prompt=f"{FILLERS[i % 12]} {FILLERS[(i + 5 * j) % 12]} {word}", label=label, group=word, split=split)
        for i, (word, split) in enumerate(zip(words, splits, strict=True))
        for j in (1, 2)
    ]


def contrast(*parts: list[ContrastRow]) -> ContrastSet:
    return ContrastSet(name="made", source="made", rows=tuple(row for part in parts for row in part), classes=("plain", "marked"))


DATA = contrast(rows(ONES, 1), rows(ZEROS, 0))


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


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return build(tmp_path_factory.mktemp("one"), [*ONES, *ZEROS], one_direction)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return build(tmp_path_factory.mktemp("twin"), [*ONES, *ZEROS], quiet_answer)


@pytest.fixture(scope="module")
def found(planted: Model) -> Result:
    return YES.measure(planted, DATA, seed=0)


# Planted truth


def test_one_planted_direction_is_supported(found: Result) -> None:
    assert found.verdict == "supported"
    assert value(found, "share_removed") == pytest.approx(1.0, abs=0.1)
    assert value(found, "share_induced") == pytest.approx(1.0, abs=0.15)
    assert [value(found, f"rate.{what}") for what in ("label1.base", "label1.ablated", "label0.base", "label0.added")] == [
        1,
        0,
        0,
        1,
    ]
    assert value(found, "specificity") > 10
    assert value(found, "p.random") == value(found, "p.shuffled") == 1 / 20
    assert value(found, "reliability") > 0.95
    assert set(found.properties) >= {
        "intervention",
        "necessity",
        "sufficiency",
        "specificity",
        "random-baseline",
        "held-out",
        "consistency",
    }
    assert all(control.passed for control in found.controls)
    assert found.flip_rate is not None and found.flip_rate.value == 0


def test_ablation_holds_and_the_dose_response_climbs_through_the_classes(found: Result) -> None:
    assert 0 < value(found, "residual_after_ablation") < 1e-6
    curve = next(figure for figure in found.figures if figure.name == "dose_response")
    assert list(curve.y) == sorted(curve.y)
    unedited, full = curve.y[curve.x.index(0.0)], curve.y[curve.x.index(1.0)]
    assert unedited == pytest.approx(curve.reference[0] - value(found, "difference"))
    assert full == pytest.approx(curve.reference[0], abs=1.0)
    assert all(low <= y <= high for low, y, high in zip(curve.low, curve.y, curve.high, strict=True))


def test_the_same_effect_without_foils(planted: Model) -> None:
    result = DirectionTest(answers=("yes",), induce_min=-10.0, max_kl_nats=1.0, **FAST).measure(planted, DATA, seed=0)
    assert value(result, "share_removed") > 0.8


def test_ood_rows_are_scored_apart(planted: Model) -> None:
    ood = [row.model_copy(update={"split": "ood"}) for row in DATA.rows if row.split == "val"]
    result = YES.measure(
        planted, contrast(list(DATA.rows), [row.model_copy(update={"prompt": f"w3 {row.prompt}"}) for row in ood]), seed=0
    )
    assert value(result, "share_removed.ood") == pytest.approx(1.0, abs=0.1)
    assert "out-of-distribution" in result.properties


def test_a_mark_coded_on_both_sides_of_zero_is_one_direction_too(tmp_path: Path) -> None:
    """Ablation then stops half-way: a test that looked at label 1 alone would refute, and call a brittle behaviour robust."""

    def both_sides(hf, ids: dict[str, int]) -> None:
        read(hf, ids["yes"], 2 * BASIS[1])
        for words, sign in ((ONES, 1), (ZEROS, -1)):
            for word in words:
                write(hf, ids[word], sign * BASIS[1])

    model = build(tmp_path, [*ONES, *ZEROS], both_sides)
    result = DirectionTest(answers=("yes",), foils=("no",), max_kl_nats=10.0, **FAST).measure(model, DATA, seed=0)
    assert result.verdict == "supported"
    assert value(result, "share_bypassed") == pytest.approx(0.5, abs=0.1)
    assert value(result, "share_removed") == pytest.approx(1.0, abs=0.1)


# Negative controls


def test_four_directions_are_refuted_as_one(tmp_path: Path) -> None:
    model = build(tmp_path, [*ONES, *ZEROS], four_directions)
    instrument = DirectionTest(answers=("yes", "oui", "si", "ja"), foils=("no",), induce_min=-100.0, max_kl_nats=10.0, **FAST)
    result = instrument.measure(model, DATA, seed=0)
    assert result.verdict == "refuted"
    assert 0.1 < value(result, "share_removed") < 0.5 and value(result, "share_bypassed") < 0.5
    assert "necessity" not in result.properties


def test_the_twin_without_the_plant_is_not_supported(twin: Model) -> None:
    result = DirectionTest(answers=("yes",), foils=("no",), induce_min=-100.0, max_kl_nats=10.0, **FAST).measure(
        twin, DATA, seed=0
    )
    assert result.verdict == "inconclusive"
    assert result.measurement("share_removed").status == "not_measured"
    assert not {"necessity", "sufficiency"} & set(result.properties)
    assert not next(control for control in result.controls if control.name == "behaviour-gap").passed


@pytest.mark.parametrize("seed", range(2))
def test_random_labels_are_not_supported(planted: Model, seed: int) -> None:
    labels = dict(zip([*ONES, *ZEROS], np.random.default_rng(seed).permutation([0, 1] * 24).tolist(), strict=True))
    shuffled = contrast([row.model_copy(update={"label": labels[row.group]}) for row in DATA.rows])
    result = DirectionTest(answers=("yes",), foils=("no",), induce_min=-100.0, max_kl_nats=10.0, **FAST).measure(
        planted, shuffled, seed=0
    )
    assert result.verdict in ("inconclusive", "refuted")


def test_nothing_survives_the_filter_says_why_per_layer(planted: Model) -> None:
    result = DirectionTest(answers=("yes",), foils=("no",), induce_min=1e6, **FAST).measure(planted, DATA, seed=0)
    assert result.verdict == "inconclusive" and result.properties == ()
    assert result.measurement("share_removed").status == "not_measured"
    assert "layer 0: induce" in result.summary and "layer 3: layer 3 is not below 3" in result.summary
    assert {control.name for control in result.controls} == set(DirectionTest.card.controls)


# Invariance


def test_batch_size_and_row_order_do_not_matter(planted: Model, found: Result) -> None:
    reverse = contrast(list(reversed(DATA.rows)))
    other = DirectionTest(answers=("yes",), foils=("no",), batch_size=7, **FAST).measure(planted, reverse, seed=0)
    for one, two in zip(found.measurements, other.measurements, strict=True):
        assert one.name == two.name and one.status == two.status
        if isinstance(one, Measured) and isinstance(two, Measured):
            assert two.value == pytest.approx(one.value, rel=1e-3, abs=1e-5), one.name
    assert other.verdict == found.verdict


def test_same_seed_same_record_and_nothing_left_behind(planted: Model, found: Result) -> None:
    state = torch.random.get_rng_state()
    assert YES.measure(planted, DATA, seed=0).canonical() == found.canonical()
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in planted.hf.modules())


def test_no_direction_leaves_memory(found: Result) -> None:
    """A row of d_model numbers in a record could be put to use."""

    def lists(node: object) -> list[list]:
        inside = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
        return ([node] if isinstance(node, list) else []) + [found for item in inside for found in lists(item)]

    numeric = [part for part in lists(json.loads(found.model_dump_json())) if part and all(isinstance(x, float) for x in part)]
    assert numeric and all(len(part) < D_MODEL for part in numeric)


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
    with pytest.raises(ValueError, match="doses"):
        DirectionTest(answers=("yes",), doses=(0.0, 1.0))


# The maths


def test_selection_finds_the_known_answer_and_says_why_not_the_others() -> None:
    table = [
        Candidate(0, math.nan, math.nan, math.nan),
        Candidate(1, -9.0, 2.0, 0.2),  # lower bypass, but it disturbs other prompts
        Candidate(2, -8.0, -0.1, 0.05),  # does not induce
        Candidate(3, -5.0, 3.0, 0.1),
        Candidate(4, -6.0, 0.0, 0.05),  # the answer: both bars touched, none crossed
        Candidate(8, -20.0, 9.0, 0.0),  # too late
    ]
    chosen, rejected = select(table, n_layers=10, max_depth=0.8, max_kl_nats=0.1, induce_min=0.0)
    assert chosen == 4
    assert sorted(rejected) == [0, 1, 2, 5]
    assert "NaN" in rejected[0] and "KL" in rejected[1] and "induce" in rejected[2] and "layer 8" in rejected[5]
    assert select(table[:3], n_layers=10, max_depth=0.8, max_kl_nats=0.1, induce_min=0.0).chosen is None


@given(st.integers(0, 10_000))
def test_score_and_kl_agree_with_scipy(seed: int) -> None:
    a, b = 3 * np.random.default_rng(seed).standard_normal((2, 3, 7))
    score = behaviour_score(torch.tensor(a), [0, 1], [2, 3]).numpy()
    np.testing.assert_allclose(score, logsumexp(a[:, :2], axis=1) - logsumexp(a[:, 2:4], axis=1))
    p = softmax(a, axis=1)[:, [0, 1]].sum(1)
    np.testing.assert_allclose(
        behaviour_score(torch.tensor(a), [0, 1]).numpy(), np.log(p + 1e-8) - np.log(1 - p + 1e-8), rtol=1e-9
    )
    expected = rel_entr(np.exp(log_softmax(a, axis=1)), np.exp(log_softmax(b, axis=1))).sum(1)
    np.testing.assert_allclose(kl_nats(torch.tensor(a), torch.tensor(b)).numpy(), expected, rtol=1e-9)


def test_mean_difference_is_zero_where_only_rounding_differs() -> None:
    labels = np.array([0, 1, 1, 0])
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(mean_difference(x, labels), (x[[1, 2]].double().mean(0) - x[[0, 3]].double().mean(0)))
    same = torch.ones(4, 8) + torch.tensor([0.0, 1e-7, 0.0, 0.0])[:, None]
    assert mean_difference(same, labels).norm() == 0


def test_random_directions_have_the_norm_and_no_other_resemblance() -> None:
    like = torch.zeros(400, dtype=torch.float64)
    like[0] = 3.0
    drawn = torch.stack(random_directions(like, 200, np.random.default_rng(0)))
    torch.testing.assert_close(drawn.norm(dim=1), torch.full((200,), 3.0, dtype=torch.float64))
    assert (drawn @ like / 9).std().item() == pytest.approx(1 / 400**0.5, rel=0.2)


@given(st.lists(st.booleans(), min_size=2, max_size=12))
def test_flip_rate_is_the_share_of_pairs_that_differ(conclusions: list[bool]) -> None:
    pairs = [a != b for i, a in enumerate(conclusions) for b in conclusions[:i]]
    assert flip_rate({str(i): c for i, c in enumerate(conclusions)}).value == pytest.approx(np.mean(pairs))


def test_one_specification_cannot_flip() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        flip_rate({"only": True})


# A real model


@pytest.fixture(scope="module")
def stories_model(stories: Path) -> Model:
    return open_model(stories)


def test_pronouns_of_a_real_model_are_not_moved_from_the_last_token(stories_model: Model) -> None:
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
    loose = {"max_kl_nats": 10.0, "induce_min": -10.0}
    result = DirectionTest(answers=(" she",), foils=(" he",), **loose, **FAST).measure(stories_model, data, seed=0)
    assert value(result, "difference") > 3
    assert abs(value(result, "share_induced")) < 0.2
    assert value(result, "residual_after_ablation") < 1e-5
    assert result.verdict != "supported" and "sufficiency" not in result.properties
    strict = DirectionTest(answers=(" she",), foils=(" he",), **FAST).measure(stories_model, data, seed=0)
    assert strict.verdict == "inconclusive"
