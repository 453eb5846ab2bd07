"""Read-outs carried from one model to the other, where it is known whether the label kept its place."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_models import BASIS, FILLERS, assert_no_vector, build, contrast, control, relabelled, rows, value, write
from torch import Tensor
from transformers import LlamaForCausalLM

from auditgap.data import ContrastSet, PromptRow, PromptSet, Split
from auditgap.errors import CannotMeasure, DataError
from auditgap.instruments.comparison.model_diff import ModelDiff
from auditgap.instruments.comparison.model_diff.transfer import drop_interval
from auditgap.instruments.probing.probe import Fold
from auditgap.models import Model, open_model
from auditgap.records import Interval, Measured, Result
from auditgap.stats import auroc

MARKED, PLAIN = [f"p{i}" for i in range(20)], [f"q{i}" for i in range(20)]
SPLITS: list[Split] = [("train", "val", "train", "test", "test")[i % 5] for i in range(20)]
LABELLED = contrast(rows(MARKED, 1, SPLITS), rows(PLAIN, 0, SPLITS))
PROMPTS = PromptSet(
    name="made",
    source="made",
    rows=tuple(PromptRow(prompt=f"{FILLERS[i]} {FILLERS[(i + 5) % 12]}", group=FILLERS[i], split="test") for i in range(12)),
)
FAST = {"n_noise": 19, "n_flips": 19, "n_permutations": 99, "n_resamples": 200}


def model(folder: Path, mark: Tensor | None) -> Model:
    """A model in which marked words hold `mark`, and every word something of its own; two of these differ in the mark alone."""

    def plant(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
        rng = torch.Generator().manual_seed(7)
        for word in (*MARKED, *PLAIN):
            write(hf, ids[word], torch.randn(6, generator=rng) @ BASIS[1:7])
        for word in MARKED if mark is not None else ():
            write(hf, ids[word], mark)

    return build(folder, [*MARKED, *PLAIN], plant, n_layers=2)


def saved(data: ContrastSet, folder: Path) -> str:
    (folder / "labelled.jsonl").write_text("\n".join(row.model_dump_json(exclude_none=True) for row in data.rows))
    return str(folder / "labelled.jsonl")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    model(folder, 4 * BASIS[1])
    return folder


def measure(base: Path, subject: Model, folder: Path, data: ContrastSet = LABELLED, **config) -> Result:
    settings = {"base": str(base), "contrast": saved(data, folder), **FAST, **config}
    return ModelDiff(**settings).measure(subject, PROMPTS, seed=0)


# Planted truth


def test_a_label_that_moved_is_read_at_home_and_not_away(base: Path, tmp_path: Path) -> None:
    r = measure(base, model(tmp_path / "moved", 4 * BASIS[2]), tmp_path)
    for kind in ("probe", "direction"):
        assert value(r, f"transfer.{kind}.base") > 0.95 and value(r, f"transfer.{kind}.subject") > 0.95
        for way in ("base_to_subject", "subject_to_base"):
            assert value(r, f"transfer.{kind}.{way}") < 0.85
            drop = r.measurement(f"transfer.{kind}.{way}.drop")
            assert isinstance(drop, Measured) and drop.interval.low > 0.1, drop
            assert drop.value == pytest.approx(
                value(r, f"transfer.{kind}.{way.partition('_')[0]}") - value(r, f"transfer.{kind}.{way}")
            )
    assert value(r, "transfer.direction.cosine") < 0.6
    assert not control(r, "transfer-null").passed


def test_a_label_that_stayed_carries_over_both_ways(base: Path, tmp_path: Path) -> None:
    r = measure(base, model(tmp_path / "stronger", 5 * BASIS[1]), tmp_path)
    for kind in ("probe", "direction"):
        for way in ("base_to_subject", "subject_to_base"):
            assert value(r, f"transfer.{kind}.{way}") > 0.95
            drop = r.measurement(f"transfer.{kind}.{way}.drop")
            assert isinstance(drop, Measured) and abs(drop.value) < 0.05
            assert drop.interval.low <= 0 <= drop.interval.high and drop.interval.low < drop.interval.high
    assert value(r, "transfer.direction.cosine") > 0.95
    assert control(r, "transfer-null").passed
    table = next(figure for figure in r.figures if figure.name == "transfer")
    assert table.columns == ("base", "subject") and len(table.rows) == len(table.values) == 4
    curve = next(figure for figure in r.figures if figure.name == "transfer-layers")
    assert len(curve.x) == len(curve.reference) == 2
    assert "The base's probe for 1 against 0" in r.summary
    assert_no_vector(r)


def test_a_label_that_was_lost_shows_one_way_only(base: Path, tmp_path: Path) -> None:
    r = measure(base, model(tmp_path / "lost", None), tmp_path)
    drop = r.measurement("transfer.probe.base_to_subject.drop")
    assert isinstance(drop, Measured) and drop.interval.low > 0.1
    back = r.measurement("transfer.probe.subject_to_base.drop")
    assert back.status == "not_measured" and "nothing to lose" in back.reason


# Negative control


def test_labels_that_mean_nothing_carry_nothing_over(base: Path, tmp_path: Path) -> None:
    words = [*MARKED, *PLAIN]
    drawn = np.random.default_rng(1).permutation(np.arange(40) % 2)
    noise = relabelled(LABELLED, dict(zip(words, map(int, drawn), strict=True)))
    r = measure(base, model(tmp_path / "stronger", 5 * BASIS[1]), tmp_path, noise)
    assert not control(r, "transfer-null").passed
    assert value(r, "transfer.probe.base_to_subject") < 0.9


def test_without_labelled_prompts_nothing_else_changes_and_the_gap_is_named(base: Path, tmp_path: Path) -> None:
    subject = model(tmp_path / "moved", 4 * BASIS[2])
    with_labels = measure(base, subject, tmp_path)
    without = ModelDiff(base=str(base), **FAST).measure(subject, PROMPTS, seed=0)
    absent = [m for m in without.measurements if m.name.startswith("transfer.")]
    assert len(absent) == 4 and all(m.status == "not_measured" and "set `contrast`" in m.reason for m in absent)
    assert control(without, "transfer-null").observed.status == "not_measured"
    rest = [m for m in with_labels.measurements if not m.name.startswith("transfer.")]
    assert rest == [m for m in without.measurements if m not in absent]
    assert with_labels.verdict == without.verdict and with_labels.summary.startswith(without.summary)


# Invariance


def test_row_order_and_batch_size_do_not_matter_and_one_seed_gives_one_record(base: Path, tmp_path: Path) -> None:
    subject = model(tmp_path / "moved", 4 * BASIS[2])
    one = measure(base, subject, tmp_path)
    assert measure(base, subject, tmp_path).canonical() == one.canonical()
    other = measure(base, subject, tmp_path, LABELLED.model_copy(update={"rows": LABELLED.rows[::-1]}), batch_size=7)
    for a, b in zip(one.measurements, other.measurements, strict=True):
        assert a.name == b.name
        if a.name.startswith("transfer.") and isinstance(a, Measured) and isinstance(b, Measured):
            assert b.value == pytest.approx(a.value, abs=0.01), a.name


def test_the_labelled_prompts_are_referenced_by_their_digest(base: Path, tmp_path: Path) -> None:
    config = ModelDiff(base=str(base), contrast=saved(LABELLED, tmp_path))
    digests = config.references()
    assert digests["base"] == open_model(base).subject.digest() and set(digests) == {"base", "contrast"}
    saved(LABELLED.model_copy(update={"rows": LABELLED.rows[:-1]}), tmp_path)
    assert config.references()["contrast"] != digests["contrast"]


# Refusal


def test_labelled_prompts_that_are_too_few_or_broken_are_refused(base: Path, tmp_path: Path) -> None:
    subject = model(tmp_path / "same", 4 * BASIS[1])
    short = LABELLED.model_copy(update={"rows": tuple(r for r in LABELLED.rows if r.split != "val" or r.group in ("p1", "q1"))})
    with pytest.raises(CannotMeasure, match=r"at least 4 groups of each class in train, val and test; val has 1"):
        measure(base, subject, tmp_path, short)
    with pytest.raises(DataError, match="cannot read"):
        ModelDiff(base=str(base), contrast=str(tmp_path / "nowhere.jsonl")).measure(subject, PROMPTS, seed=0)


# The maths


@given(st.integers(0, 500))
@settings(max_examples=15, deadline=None)
def test_the_paired_interval_of_a_drop_is_no_wider_than_one_that_ignores_the_pairing(seed: int) -> None:
    """What both scores find hard cancels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 2
    hard = rng.standard_normal(60)
    home = labels + hard + 0.1 * rng.standard_normal(60)
    away = labels + hard + 0.1 * rng.standard_normal(60)
    fold = Fold(np.zeros((0, 60, 0)), labels, [str(i) for i in range(60)])
    wide = Interval(low=0.5, high=1.0, level=0.95, method="x")
    paired = drop_interval(home, away, fold, wide, wide, n_resamples=200, seed=seed)
    apart = drop_interval(home, away[np.argsort(labels + rng.random(60) * 0.1)][np.argsort(np.argsort(labels))], fold, wide, wide,
                          n_resamples=200, seed=seed)  # fmt: skip
    assert paired.high - paired.low < apart.high - apart.low


def test_the_drop_of_equal_scores_is_exactly_zero_and_of_two_perfect_ones_is_not() -> None:
    labels = np.arange(16) % 2
    fold, sure = (
        Fold(np.zeros((0, 16, 0)), labels, [str(i) for i in range(16)]),
        Interval(low=0.8, high=1.0, level=0.95, method="x"),
    )
    assert drop_interval(labels * 1.0, labels * 1.0, fold, sure, sure, n_resamples=200, seed=0) == Interval.exact(0.0)
    other = labels + np.linspace(0, 0.5, 16)
    assert auroc(other, labels) == 1.0
    doubt = drop_interval(labels * 1.0, other, fold, sure, sure, n_resamples=200, seed=0)
    assert (doubt.low, doubt.high) == (pytest.approx(-0.2), pytest.approx(0.2))
