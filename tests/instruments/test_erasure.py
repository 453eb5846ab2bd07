"""erasure against models in which what is readable, and what is used, are set by hand and need not be the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from planted_models import (
    BASIS,
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

from auditgap.data import PairSet, load
from auditgap.errors import CannotMeasure, DataError, UsageError
from auditgap.instruments.mechanistic.erasure import Erasure
from auditgap.instruments.mechanistic.erasure.place import erase_last, mean_difference_eraser
from auditgap.models import Model, open_model
from auditgap.records import Result
from auditgap.stats.leace import Eraser, Leace

NUMBER = Path(__file__).parents[2] / "examples" / "data" / "number-contrast.jsonl"
ONES, ZEROS = [f"p{i}" for i in range(32)], [f"q{i}" for i in range(32)]
ENDS = ("end1", "end0")
SPLITS = ["train"] * 16 + ["val"] * 8 + ["test"] * 8
YES = Erasure(answers=("yes",), foils=("no",), n_shuffled=19, n_resamples=200)


DATA = contrast(rows(ONES, 1, SPLITS), rows(ZEROS, 0, SPLITS))


def used(hf, ids: dict[str, int]) -> None:
    """The mark is in the last word, and the answer is read off it."""
    read(hf, ids["no"], 0.75 * BASIS[0])
    read(hf, ids["yes"], 1.8 * BASIS[1])
    for word in ONES:
        write(hf, ids[word], BASIS[1])


def readable_but_unused(hf, ids: dict[str, int]) -> None:
    """The last word gives the label away; the answer comes from another word, fetched in the last layer."""
    for one, zero in zip(ONES, ZEROS, strict=True):
        write(hf, ids[one], BASIS[1])
        write(hf, ids[zero], -BASIS[1])
    carry(hf, layer=3, source=BASIS[1], target=8 * BASIS[2])
    read(hf, ids["yes"], 2 * BASIS[2])
    read(hf, ids["no"], -2 * BASIS[2])
    write(hf, ids["end1"], BASIS[3])
    write(hf, ids["end0"], -BASIS[3])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return build(tmp_path_factory.mktemp("used"), [*ONES, *ZEROS], used)


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return build(tmp_path_factory.mktemp("unused"), [*ONES, *ZEROS, *ENDS], readable_but_unused)


@pytest.fixture(scope="module")
def found(planted: Model) -> Result:
    return YES.measure(planted, DATA, seed=0)


# Planted truth


def test_a_behaviour_that_rests_on_the_label_goes_with_it(found: Result) -> None:
    assert found.verdict == "supported"
    assert value(found, "share_removed") == pytest.approx(1, abs=0.05)
    assert value(found, "difference.erased") == pytest.approx(0, abs=0.5)
    assert value(found, "p.shuffled") == 1 / 20
    assert value(found, "auroc.before") == 1
    assert {c.name for c in found.controls} == set(Erasure.card.controls)
    assert all(c.passed for c in found.controls), [c for c in found.controls if not c.passed]
    assert set(found.properties) >= {"intervention", "necessity", "specificity", "held-out", "random-baseline", "two-ablations"}
    assert found.flip_rate is not None and found.flip_rate.n == 4 and found.flip_rate.value == 0


def test_nothing_linear_is_left_where_the_eraser_was_fitted(found: Result) -> None:
    """Golden: logistic coefficients below 1e-4 on the fitting set, and class means that coincide to float32 inside the model."""
    assert value(found, "coefficient_after_erasure") < 1e-4
    assert value(found, "residual_after_erasure") < 1e-6
    assert control(found, "held-out-erasure").passed


def test_what_is_readable_but_not_used_is_refuted(unused: Model) -> None:
    data = contrast(rows(ONES, 1, SPLITS, last="end1"), rows(ZEROS, 0, SPLITS, last="end0"))
    result = YES.measure(unused, data, seed=0)
    assert control(result, "label-readable").passed and control(result, "behaviour-gap").passed
    assert result.verdict == "refuted"
    assert abs(value(result, "share_removed")) < 0.1
    assert not {"necessity", "two-ablations"} & set(result.properties)


def test_where_there_is_nothing_to_erase_nothing_is_claimed(unused: Model) -> None:
    """The last word is the same in all prompts, and at the input of layer 0 it has seen no other."""
    data = contrast(rows(ONES, 1, SPLITS, last="w1"), rows(ZEROS, 0, SPLITS, last="w1"))
    result = YES.model_copy(update={"layers": (0,)}).measure(unused, data, seed=0)
    assert result.verdict == "inconclusive"
    assert not control(result, "label-readable").passed and control(result, "behaviour-gap").passed
    assert value(result, "auroc.before") == 0.5 and value(result, "share_removed") == 0
    assert "necessity" not in result.properties


def test_ood_rows_are_scored_apart(planted: Model) -> None:
    ood = [
        row.model_copy(update={"split": "ood", "prompt": f"w3 {row.prompt}", "group": f"ood {row.group}"})
        for row in DATA.rows
        if row.split == "val"
    ]
    result = YES.measure(planted, contrast(list(DATA.rows), ood), seed=0)
    assert value(result, "share_removed.ood") == pytest.approx(1, abs=0.1)
    assert "out-of-distribution" in result.properties


# Negative controls


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_random_labels_are_not_supported(planted: Model, seed: int) -> None:
    labels = dict(zip([*ONES, *ZEROS], np.random.default_rng(seed).permutation([0, 1] * 32).tolist(), strict=True))
    result = YES.measure(planted, relabelled(DATA, labels), seed=0)
    assert result.verdict in ("inconclusive", "refuted")
    assert "necessity" not in result.properties


def test_a_group_in_two_splits_makes_it_invalid(planted: Model) -> None:
    leaking = [row.model_copy(update={"group": "p0"}) if row.group == "p31" else row for row in DATA.rows]
    result = YES.measure(planted, contrast(leaking), seed=0)
    assert result.verdict == "invalid" and result.properties == ()
    assert not control(result, "no-leakage").passed


# Invariance


def test_batch_size_and_row_order_do_not_matter(planted: Model, found: Result) -> None:
    other = YES.model_copy(update={"batch_size": 7}).measure(planted, contrast(list(reversed(DATA.rows))), seed=0)
    assert_same_numbers(found, other, abs_tolerance=1e-4)


def test_no_direction_leaves_memory(found: Result) -> None:
    assert_no_vector(found)


# Refusal


def test_bad_input_is_refused(planted: Model) -> None:
    with pytest.raises(DataError, match=r"split 'val' needs at least 2 group.*'marked'"):
        YES.measure(planted, contrast([row for row in DATA.rows if (row.label, row.split) != (1, "val")]), seed=0)
    with pytest.raises(UsageError, match="expected 'yes no' to be one token, got 2"):
        Erasure(answers=("yes no",)).measure(planted, DATA, seed=0)
    with pytest.raises(UsageError, match="cannot be answer and foil"):
        Erasure(answers=("yes",), foils=("yes",)).measure(planted, DATA, seed=0)
    with pytest.raises(UsageError, match="contrast data, got a PairSet"):
        YES.measure(planted, PairSet(name="x", source="x", rows=()), seed=0)
    with pytest.raises(UsageError, match=r"layer 9 asked.*the model has 4 \(0-3\)"):
        YES.model_copy(update={"layers": (9,)}).measure(planted, DATA, seed=0)
    with pytest.raises(CannotMeasure, match=r"a model of 4 layers has none from 1 to 0\.2 of its depth"):
        YES.model_copy(update={"max_depth": 0.2}).measure(planted, DATA, seed=0)


# The edit


def test_the_edit_is_the_eraser_at_the_last_token_and_nothing_elsewhere() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((30, 6)), np.arange(30) % 2
    fitter = Leace(6)
    fitter.update(x, labels)
    eraser = fitter.eraser()
    tokens = torch.tensor(rng.standard_normal((4, 5, 6)))
    edited = erase_last(eraser)(tokens.clone())
    np.testing.assert_allclose(edited[:, -1].numpy(), eraser(tokens[:, -1].numpy()))
    assert torch.equal(edited[:, :-1], tokens[:, :-1])


def test_the_plain_projection_equalises_the_means_too() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(40) % 2
    x = rng.standard_normal((40, 5)) + labels[:, None]
    eraser = mean_difference_eraser(x, labels)
    assert isinstance(eraser, Eraser) and eraser.rank == 1
    erased = eraser(x)
    np.testing.assert_allclose(erased[labels == 1].mean(0), erased[labels == 0].mean(0), atol=1e-12)
    assert mean_difference_eraser(np.ones((4, 3)), np.array([0, 1, 0, 1])).rank == 0


# A real model


def test_a_real_model_needs_the_number_of_a_noun_to_choose_its_verb(stories: Path) -> None:
    """stories260K splits " were" into " we" and "re"; singular and plural subjects differ by 5 logits in it against " was"."""
    instrument = Erasure(answers=(" was",), foils=(" we",), n_shuffled=19, n_resamples=200)
    result = instrument.measure(open_model(stories), load(str(NUMBER), "contrast"), seed=0)
    assert result.verdict == "supported"
    assert value(result, "share_removed") > 0.75
    assert value(result, "share_removed.ood") > 0.5
    assert value(result, "residual_after_erasure") < 1e-5


def test_answers_and_foils_the_wrong_way_round_are_pointed_out(stories: Path) -> None:
    instrument = Erasure(answers=(" we",), foils=(" was",), layers=(2,), n_shuffled=19, n_resamples=200)
    result = instrument.measure(open_model(stories), load(str(NUMBER), "contrast"), seed=0)
    assert result.verdict == "inconclusive"
    assert "swap answers and foils" in result.measurement("share_removed").reason


def test_the_example_data_leak_no_noun() -> None:
    splits = {}
    for row in load(str(NUMBER), "contrast").rows:
        splits.setdefault(row.group, set()).add(row.split)
    assert all(len(found) == 1 for found in splits.values()) and len(splits) == 40
