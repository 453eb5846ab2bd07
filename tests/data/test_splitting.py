"""Dividing rows: no group in two splits, both classes everywhere, and no dependence on the order of the rows."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditgap.data import ContrastRow, ContrastSet, Message
from auditgap.data.split import assign_splits, default_group
from auditgap.errors import DataError, UsageError

designs = st.lists(st.tuples(st.integers(0, 30).map(str), st.integers(0, 1)), min_size=1, max_size=120)


@given(designs, st.integers(0, 5), st.randoms(use_true_random=False))
def test_groups_stay_together_whatever_the_order(rows, seed, rng):
    groups, labels = [group for group, _ in rows], [label for _, label in rows]
    splits = assign_splits(groups, labels, seed=seed)
    split_of = dict(zip(groups, splits, strict=True))
    assert [split_of[group] for group in groups] == splits
    order = list(range(len(rows)))
    rng.shuffle(order)
    assert assign_splits([groups[i] for i in order], [labels[i] for i in order], seed=seed) == [splits[i] for i in order]


@given(st.integers(8, 60), st.integers(8, 60), st.integers(0, 100))
def test_each_class_is_divided_in_half_and_quarters(n_zero, n_one, seed):
    groups = [f"a{i}" for i in range(n_zero)] + [f"b{i}" for i in range(n_one)]
    labels = [0] * n_zero + [1] * n_one
    splits = assign_splits(groups, labels, seed=seed)
    for label, n in ((0, n_zero), (1, n_one)):
        counts = Counter(split for split, own in zip(splits, labels, strict=True) if own == label)
        assert abs(counts["train"] - n / 2) <= 1 and abs(counts["val"] - n / 4) <= 1 and abs(counts["test"] - n / 4) <= 1
        assert counts["val"] >= 2 and counts["test"] >= 2


@given(st.lists(st.sampled_from([(0,), (1,), (0, 1)]), min_size=8, max_size=60), st.integers(0, 20))
def test_eight_groups_of_a_class_reach_every_split(kinds, seed):
    rows = [(f"g{i}", label) for i, kind in enumerate(kinds) for label in kind]
    splits = assign_splits([group for group, _ in rows], [label for _, label in rows], seed=seed)
    for label in (0, 1):
        if sum(label in kind for kind in kinds) >= 8:
            assert {split for split, (_, own) in zip(splits, rows, strict=True) if own == label} == {"train", "val", "test"}


def test_another_seed_divides_otherwise_and_the_name_does_not_decide():
    groups = [f"{i:03d}" for i in range(200)]
    one, other = (assign_splits(groups, [0] * 200, seed=seed) for seed in (0, 1))
    assert one != other
    agreement = sum(a == b for a, b in zip(one, other, strict=True)) / 200
    assert agreement == pytest.approx(0.375, abs=0.12)  # 0.5^2 + 0.25^2 + 0.25^2, three and a half standard errors


def test_prompts_that_differ_in_form_alone_are_one_group():
    same = [
        "Wash the  car",
        "wash the car ",
        "WASH\tTHE\nCAR",
        "wash the ｃａｒ",
        (Message(role="user", content="Wash the car"),),
    ]
    assert {default_group(prompt) for prompt in same} == {"wash the car"}
    assert default_group("Wash the cars") != "wash the car"


def contrast(*rows):
    return ContrastSet(
        name="x",
        source="x.jsonl",
        classes=("harmless", "harmful"),
        rows=tuple(
            ContrastRow(prompt=f"p{i}", label=label, group=group, split=split) for i, (label, group, split) in enumerate(rows)
        ),
    )


def test_missing_classes_are_named():
    data = contrast((0, "a", "train"), (1, "a", "train"), (1, "b", "test"), (0, "c", "val"), (1, "d", "val"))
    data.require_classes("train", "val")
    with pytest.raises(DataError, match=r"split 'test' needs at least 1 group.* of class 'harmless', got 0"):
        data.require_classes("train", "test")
    with pytest.raises(DataError, match="split 'ood' needs at least 1"):
        data.require_classes("ood")
    with pytest.raises(DataError, match=r"split 'val' needs at least 2 .* got 1"):
        data.require_classes("val", min_groups=2)


def test_an_unknown_split_is_refused():
    with pytest.raises(UsageError, match="no split named 'tests' - did you mean 'test'"):
        contrast((0, "a", "train")).split("tests")  # pyright: ignore


def test_a_part_is_another_set_with_the_same_name():
    data = contrast((0, "a", "train"), (1, "b", "test"))
    part = data.split("test")
    assert (part.name, part.source, part.classes, part.groups) == (data.name, data.source, data.classes, ["b"])
    assert part.ref().n_rows == 1 and part.ref().content != data.ref().content
