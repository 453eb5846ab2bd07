"""logit-lens against a model in which the layer that brings the answer to the last token is set by hand."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_attribution_graph import (
    BOYS,
    DATA,
    GIRLS,
    ROWS,
    SPLITS,
    TRANSPORT,
    carries_a_mark,
    control,
    holds_back,
    pair,
    pairs,
    value,
)

from auditgap.data import PairRow, PromptSet
from auditgap.errors import CannotMeasure, UsageError
from auditgap.instruments.mechanistic.logit_lens import LogitLens, decided_depth
from auditgap.models import Model, open_model
from auditgap.records import Curve, Measured, Result

from planted_models import build  # isort: skip

FAST = {"n_resamples": 200, "min_rate": 0.7}  # 12 of 12 groups still allow 0.735


def curve(result: Result, name: str) -> Curve:
    found = next(figure for figure in result.figures if figure.name == name)
    assert isinstance(found, Curve)
    return found


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return build(tmp_path_factory.mktemp("carries"), [*GIRLS, *BOYS], carries_a_mark)


@pytest.fixture(scope="module")
def found(planted: Model) -> Result:
    return LogitLens(max_share=0.5, **FAST).measure(planted, DATA, seed=0)


# Planted truth


def test_the_answer_is_readable_from_the_layer_that_brings_it(found: Result) -> None:
    assert found.verdict == "supported" and value(found, "depth") == TRANSPORT + 1
    assert value(found, "readable") == 1
    gaps = curve(found, "gap-by-depth")
    assert gaps.y[0] == pytest.approx(0, abs=1e-3) and gaps.y[TRANSPORT] < 0.01 * gaps.y[TRANSPORT + 1]
    assert gaps.y[-1] == pytest.approx(value(found, "gap.output"))
    assert value(found, "decided_share") <= (TRANSPORT + 1) / 4
    assert all(c.passed for c in found.controls) and set(found.properties) == {"held-out", "search-null", "random-baseline"}


def test_the_last_depth_is_the_output(found: Result) -> None:
    observed = {c.name: c.observed for c in found.controls}["last-layer"]
    assert isinstance(observed, Measured) and observed.value < 1e-5


def test_an_answer_held_back_is_counted(tmp_path: Path) -> None:
    model = build(tmp_path, [*GIRLS, *BOYS, "stop"], holds_back)
    rows = [
        r.model_copy(update={"clean": f"stop {r.clean}", "corrupted": f"stop {r.corrupted}"}) if i % 8 in (1, 4, 7) else r
        for i, r in enumerate(ROWS)
    ]
    result = LogitLens(max_share=0.5, **FAST).measure(model, pairs(rows), seed=0)
    held_out = [row for row in rows if row.split in ("val", "test")]
    assert value(result, "discrepancy.suppressed") == pytest.approx(np.mean([r.clean.startswith("stop") for r in held_out]) / 2)
    assert value(result, "discrepancy.unsupported") == 0 and value(result, "readout.agreement") == 1


# Negative controls


def test_before_that_layer_it_is_not_supported(planted: Model) -> None:
    result = LogitLens(max_share=0.25, **FAST).measure(planted, DATA, seed=0)
    assert value(result, "depth") == TRANSPORT and result.verdict in ("refuted", "inconclusive")
    assert not control(result, "random-tokens")


def test_a_random_model_is_not_supported(tmp_path: Path) -> None:
    model = build(tmp_path, [*GIRLS, *BOYS], lambda hf, ids: None)
    for share in (0.5, 1.0):
        assert LogitLens(max_share=share, **FAST).measure(model, DATA, seed=0).verdict != "supported"


def test_labels_that_mean_nothing_are_not_supported(planted: Model) -> None:
    """With answer and foil swapped in every second pair of each orientation, half are read wrongly."""
    rows = [r.model_copy(update={"answer": r.foil, "foil": r.answer}) if i % 8 in (0, 1, 6, 7) else r for i, r in enumerate(ROWS)]
    result = LogitLens(max_share=0.5, **FAST).measure(planted, pairs(rows), seed=0)
    assert result.verdict != "supported" and value(result, "readable") == pytest.approx(0.5)
    assert not control(result, "search-null")


# Invariance


def test_batch_size_row_order_and_padding_do_not_matter(planted: Model, found: Result) -> None:
    other = LogitLens(max_share=0.5, batch_size=3, **FAST).measure(planted, pairs(ROWS[::-1]), seed=0)
    for one, two in zip(found.measurements, other.measurements, strict=True):
        assert isinstance(one, Measured) and isinstance(two, Measured)
        assert two.value == pytest.approx(one.value, abs=1e-4), one.name


# Refusal


def test_bad_input_is_refused(planted: Model) -> None:
    with pytest.raises(UsageError, match="reads pairs, got a PromptSet"):
        LogitLens().measure(planted, PromptSet(name="x", source="x", rows=()), seed=0)
    with pytest.raises(CannotMeasure, match="at least 5 groups of pairs in train, got 2"):
        LogitLens().measure(planted, pairs(ROWS[:4]), seed=0)
    with pytest.raises(UsageError, match="to be one token"):
        LogitLens().measure(planted, pairs([pair(i, answer="yes no") for i in range(24)]), seed=0)
    with pytest.raises(ValueError, match="min_rate"):
        LogitLens(min_rate=0.5)


# The maths


@given(arrays(np.float64, (4, 5), elements=st.sampled_from([-1.0, 1.0])))
def test_decided_is_the_first_depth_after_which_nothing_changes(readout: np.ndarray) -> None:
    for row, depth in zip(readout, decided_depth(readout), strict=True):
        assert (row[depth:] == row[-1]).all() and (depth == 0 or row[depth - 1] != row[-1])


# A real model


def test_a_real_model_says_it_in_the_last_block_only(stories: Path) -> None:
    starts = [
        "Once upon a time, there was a little {}. One day,", "There was a {} who liked to play. One day,", "The {} was sad. So",
        "In a small town lived a {}. In the morning,", "The {} went to the park. Then", "A {} had a red ball. One day,",
        "Once there was a happy {}. Every day,", "One day, a {} saw a big dog.", "There once was a {} in a big house. At night,",
        "Long ago there was a {}. One morning,", "A {} and a dog were friends. Today,", "The {} was very hungry. So",
    ]  # fmt: skip
    rows = [
        PairRow(clean=s.format("girl"), corrupted=s.format("boy"), answer=" she", foil=" he", group=s, split=SPLITS[i % 4])
        for i, s in enumerate(starts)
    ]
    result = LogitLens(max_share=1.0, **FAST).measure(open_model(stories), pairs(rows), seed=0)
    gaps = curve(result, "gap-by-depth").y
    assert value(result, "readable") == 1 and gaps[-1] > 2 > 10 * max(np.abs(gaps[:-1]).min(), 0.01)
    assert max(gaps[:-1]) < 0.5 * gaps[-1]  # patching found the same: the last layer's attention brings it
