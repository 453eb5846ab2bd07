"""What instruments that edit a direction share: the rule that chooses one, the directions that mean nothing, the scores."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp, rel_entr, softmax
from sklearn.decomposition import PCA

from auditgap.errors import UsageError
from auditgap.instruments.directions.nulls import covariance_directions, random_directions, top_component
from auditgap.instruments.directions.search import Rule, Table, Tried, draws, mean_difference
from auditgap.models import behaviour_score, kl_nats
from auditgap.stats import flip_rate

# The rule that chooses


RULE = Rule(n_layers=10, max_depth=0.8, max_kl_nats=0.1, induce_min=0.0)
GOLDEN = [  # position, layer, bypass, induce, KL: worked out by hand from the rule of arXiv:2406.11717, appendix C
    (-2, 0, math.nan, math.nan, math.nan, "NaN"),
    (-2, 3, -9.0, 2.0, 0.2, "KL"),  # lower bypass than the answer, but it disturbs other prompts
    (-2, 4, -8.0, -0.1, 0.05, "induce"),
    (-2, 5, -5.0, 3.0, 0.1, None),
    (-2, 6, -6.0, 0.0, 0.1, None),  # the answer: KL and induce touch their bars, neither crosses
    (-2, 8, -20.0, 9.0, 0.0, "layer 8"),  # 8 >= int(0.8 * 10)
    (-1, 2, math.nan, 9.0, 0.0, "NaN"),  # one score is enough
    (-1, 3, -6.0, 5.0, 0.0, None),  # a tie goes to the first in the order of the search
    (-1, 7, -2.0, 1.0, 0.01, None),  # the last layer that is not too late
    (-1, 9, -30.0, -5.0, 0.5, "layer 8"),  # fails three filters: the first is named
]


def table(entries) -> tuple[Table, np.ndarray]:
    columns = np.array([[*entry[1:5]] for entry in entries], dtype=float)
    return Table(*(columns[:, i, None] for i in (1, 2, 3))), columns[:, 0].astype(int)


def test_selection_finds_the_known_answer_and_says_why_not_the_others() -> None:
    scores, layers = table(GOLDEN)
    assert RULE.choose(scores, layers).tolist() == [4]
    for (*_, expected), reason in zip(GOLDEN, RULE.reasons(scores, layers), strict=True):
        assert reason is None if expected is None else expected in reason
    for drop, then in ((4, (-1, 3)), (7, (-2, 6))):
        rest = [entry for i, entry in enumerate(GOLDEN) if i != drop]
        chosen = rest[RULE.choose(*table(rest))[0]]
        assert chosen[:2] == then
    assert RULE.choose(*table(GOLDEN[:3])).tolist() == [-1]


@pytest.mark.parametrize("dropped", ["KL", "induce", "layer 8"])
def test_every_filter_decides_over_a_row_of_the_table(dropped: str) -> None:
    """With that filter off, a row that it dropped is chosen instead."""
    off = {"KL": {"max_kl_nats": 9.0}, "induce": {"induce_min": -9.0}, "layer 8": {"max_depth": 1.0}}[dropped]
    entries = [entry for entry in GOLDEN if entry[5] in (None, dropped)]
    assert entries[RULE._replace(**off).choose(*table(entries))[0]][5] == dropped


SCORE = st.one_of(st.sampled_from([-1.0, 0.0, 0.05, 0.1, 0.2, math.nan]), st.floats(-3, 3))
ENTRIES = st.lists(st.tuples(st.just(-1), st.integers(0, 9), SCORE, SCORE, SCORE), min_size=1, max_size=12)


@given(ENTRIES)
def test_the_choice_is_that_of_a_plain_loop(entries) -> None:
    """Peer: the published procedure as a loop with early exits and a stable sort by descending -bypass."""
    kept = []
    for index, (_, layer, bypass, induce, kl) in enumerate(entries):
        if math.isnan(bypass) or math.isnan(induce) or math.isnan(kl):
            continue
        if layer >= int(10 * (1.0 - 0.2)) or kl > 0.1 or induce < 0.0:
            continue
        kept.append((-bypass, index))
    expected = sorted(kept, key=lambda item: item[0], reverse=True)[0][1] if kept else -1
    assert RULE.choose(*table(entries))[0] == expected


@given(ENTRIES, st.randoms(use_true_random=False))
def test_order_decides_ties_only_and_looser_bars_never_shrink_the_field(entries, random) -> None:
    scores, layers = table(entries)
    chosen = RULE.choose(scores, layers)[0]
    shuffled = random.sample(entries, len(entries))
    again = RULE.choose(*table(shuffled))[0]
    assert (chosen < 0) == (again < 0)
    if chosen >= 0:
        assert entries[chosen][2] == shuffled[again][2]
        looser = RULE._replace(max_depth=1.0, max_kl_nats=9.0, induce_min=-9.0)
        assert entries[looser.choose(scores, layers)[0]][2] <= entries[chosen][2]


@given(st.integers(0, 10_000))
def test_weights_give_the_means_of_the_drawn_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups, labels = [f"g{i // 2}" for i in range(12)], np.arange(12) // 6
    scores = rng.standard_normal((3, 2, 12))
    scores[1, :, labels == 1] = np.nan
    tried = Tried(rng.standard_normal(12), *scores)
    weights = draws(groups, 5, rng)
    assert (weights.sum(1) == 12).all() and (weights[:, ::2] == weights[:, 1::2]).all(), "groups are drawn whole"
    found = tried.table(labels, weights)
    for draw, weight in enumerate(weights.astype(int)):
        drawn = np.repeat(np.arange(12), weight)
        for got, values, label in ((found.bypass, scores[0], 1), (found.induce, scores[1], 0), (found.kl_nats, scores[2], 0)):
            its = drawn[labels[drawn] == label]
            expected = values[:, its].mean(1) if len(its) else np.full(2, np.nan)
            np.testing.assert_allclose(got[:, draw], expected, atol=1e-12)
    np.testing.assert_allclose(tried.table(labels).bypass[:, 0], scores[0][:, labels == 1].mean(1))
    assert tried.unedited(labels).kl_nats == 0


# Directions that mean nothing


def test_random_directions_have_the_norm_and_no_other_resemblance() -> None:
    like = torch.zeros(400, dtype=torch.float64)
    like[0] = 3.0
    drawn = torch.stack(random_directions(like, 200, np.random.default_rng(0)))
    torch.testing.assert_close(drawn.norm(dim=1), torch.full((200,), 3.0, dtype=torch.float64))
    assert (drawn @ like / 9).std().item() == pytest.approx(1 / 400**0.5, rel=0.2)


def test_matched_directions_vary_like_the_prompts_of_a_class() -> None:
    """Wide along one axis, narrow along the rest; the class difference lies along another and is not part of it."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    x = torch.from_numpy(rng.standard_normal((400, 6)) * np.array([9.0, 1, 1, 1, 1, 1]))
    x[labels == 1, 3] += 50.0
    like = mean_difference(x, labels)
    drawn = torch.stack(covariance_directions(x, labels, like, 500, rng))
    torch.testing.assert_close(drawn.norm(dim=1), like.norm().expand(500))
    shares = (drawn.square().sum(0) / drawn.square().sum()).numpy()
    assert shares[0] > 0.7 and shares[3] < 0.1
    assert covariance_directions(torch.from_numpy(labels[:, None] * np.ones((1, 6))), labels, like, 3, rng) == []


def test_the_top_component_is_that_of_pca_without_the_direction() -> None:
    rng = np.random.default_rng(1)
    labels, x = np.arange(60) % 2, torch.from_numpy(rng.standard_normal((60, 8)) * np.linspace(3, 1, 8))
    like = torch.from_numpy(rng.standard_normal(8))
    top = top_component(x, labels, like)
    assert top is not None and top.norm().item() == pytest.approx(like.norm().item())
    assert abs(top @ like) < 1e-9
    unit = (like / like.norm()).numpy()
    within = np.concatenate([x[labels == label].numpy() - x[labels == label].numpy().mean(0) for label in (0, 1)])
    peer = PCA(1).fit(within - np.outer(within @ unit, unit)).components_[0]
    assert abs(peer @ (top / top.norm()).numpy()) == pytest.approx(1.0)
    assert top_component(torch.ones(4, 8), np.array([0, 1, 0, 1]), like) is None


# The maths


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


@given(st.lists(st.booleans(), min_size=2, max_size=12))
def test_flip_rate_is_the_share_of_pairs_that_differ(conclusions: list[bool]) -> None:
    pairs = [a != b for i, a in enumerate(conclusions) for b in conclusions[:i]]
    assert flip_rate({str(i): c for i, c in enumerate(conclusions)}).value == pytest.approx(np.mean(pairs))


def test_one_specification_cannot_flip() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        flip_rate({"only": True})
