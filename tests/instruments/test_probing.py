"""Read-outs and their fits: a peer for each method, the same answer from vectors and from tokens in blocks, flat memory."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from auditgap.errors import CannotMeasure, UsageError
from auditgap.instruments.probing import attention
from auditgap.instruments.probing import tokens as tokens_module
from auditgap.instruments.probing.attention import fit_attention
from auditgap.instruments.probing.baselines import random_features
from auditgap.instruments.probing.fits import fit, fit_logistic, moments
from auditgap.instruments.probing.readouts import read
from auditgap.instruments.probing.tokens import Tokens, capture_to_disk, token_means
from auditgap.models import capture, open_model
from auditgap.stats import auroc, fit_logistic_streaming

LINEAR = ("logistic", "difference-in-means", "lda")
PROMPTS = ["Once upon a time, there was a girl.", "Tom ran", "The dog saw a big red ball and it ran home"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def model(stories):
    return open_model(stories)


def tokens_of(rows: list[np.ndarray]) -> Tokens:
    """Ragged rows as they lie on disk; what lies beyond a row's end is rubbish on purpose."""
    lengths = np.array([len(row) for row in rows])
    values = np.full((len(rows), lengths.max(), rows[0].shape[1]), 1e3, dtype=np.float32)
    for i, row in enumerate(rows):
        values[i, : len(row)] = row
    return Tokens(values, lengths, np.arange(len(rows)))


def ragged(seed: int, n: int = 40, d: int = 6, shift: float = 1.0) -> tuple[Tokens, np.ndarray]:
    rng, labels = np.random.default_rng(seed), np.arange(n) % 2
    rows = [rng.standard_normal((int(rng.integers(2, 7)), d)) + 0.5 for _ in range(n)]
    for row, label in zip(rows, labels, strict=True):
        row[:, 0] += shift * label
    return tokens_of(rows), labels


def stacked(tokens: Tokens, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = [tokens.values[i, : tokens.lengths[i]] for i in tokens.rows]
    return np.concatenate(rows), np.concatenate(
        [np.repeat(labels[..., i : i + 1], len(row), -1) for i, row in enumerate(rows)], -1
    )


def needle(seed: int, n: int = 80, d: int = 16, n_pos: int = 12) -> tuple[Tokens, np.ndarray]:
    """One token of each prompt is marked along axis 1 and carries the label along axis 0; the others are loud noise there."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 2
    rows = [rng.standard_normal((n_pos, d)) for _ in range(n)]
    for row, label in zip(rows, labels, strict=True):
        row[:, 0] *= 3
        where = rng.integers(n_pos)
        row[where, 1] += 6
        row[where, 0] = 2.0 * (2 * label - 1)
    return tokens_of(rows), labels


# Planted truth found: each method against a peer


@pytest.mark.parametrize(("n", "d"), [(60, 8), (40, 200)])
def test_logistic_fits_agree_with_scikit_learn(n, d):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d)) + 0.7
    labels = np.stack([(x[:, 0] + rng.standard_normal(n) > 0.7).astype(int), rng.permutation(np.arange(n) < n // 4).astype(int)])
    weights, biases = fit_logistic(x, labels, strengths=[1e-3, 1e-1, 1.0])
    for i, c in enumerate([1e-3, 1e-1, 1.0]):
        for k, y in enumerate(labels):
            peer = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x, y)
            assert weights[i, k] == pytest.approx(peer.coef_[0], abs=2e-4 * np.abs(peer.coef_).max())
            assert biases[i, k] == pytest.approx(peer.intercept_[0], abs=1e-3)


def test_mean_differences_are_differences_of_means():
    x, y = np.random.default_rng(0).standard_normal((20, 5)), np.arange(20) % 2
    found = fit(x, y[None], method="difference-in-means", strengths=[1.0], standardise=False)
    assert found.weights[0, 0] == pytest.approx(x[y == 1].mean(0) - x[y == 0].mean(0))
    assert found.scores((x[y == 1].mean(0) + x[y == 0].mean(0))[None] / 2) == pytest.approx(0)


class Given:
    """A covariance estimator for scikit-learn: the class's own covariance, shrunk by a given share towards a given target."""

    def __init__(self, shrinkage: float = 0.0, target: float = 0.0) -> None:
        self.shrinkage, self.target = shrinkage, target

    def fit(self, x: np.ndarray) -> "Given":
        covariance = np.cov(x.T, bias=True)
        self.covariance_ = (1 - self.shrinkage) * covariance + self.shrinkage * self.target * np.eye(len(covariance))
        return self


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize(("n", "d"), [(80, 6), (30, 90)])
def test_lda_agrees_with_scikit_learn_given_the_shrinkage_of_scikit_learn(n, d, standardise):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 3
    labels = np.stack([(np.arange(n) % 3 == 0).astype(int), rng.permutation(np.arange(n) % 2)])
    found = fit(x, labels, method="lda", strengths=[1.0], standardise=standardise)
    z = (x - x.mean(0)) / (x.std(0) if standardise else 1.0)
    covariance, shrinkage = ledoit_wolf(z)
    for k, y in enumerate(labels):
        estimator = Given(shrinkage, float(np.trace(covariance)) / d)
        peer = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=estimator).fit(z, y)
        expected = z @ peer.coef_[0] + peer.intercept_[0]
        assert found.scores(x)[0, k] == pytest.approx(expected, abs=1e-6 * np.abs(expected).max())


def test_lda_is_near_the_automatic_shrinkage_of_scikit_learn_where_rows_abound():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4000, 10)) @ rng.standard_normal((10, 10)), np.arange(4000) % 2
    x[:, 0] += y
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x, y)  # one covariance for each class
    mine = fit(x, y[None], method="lda", strengths=[1.0]).scores(x)[0, 0]
    assert np.corrcoef(mine, peer.decision_function(x))[0, 1] > 0.999


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("method", LINEAR)
def test_fitting_tokens_in_blocks_is_fitting_their_rows(method, standardise, monkeypatch):
    monkeypatch.setattr(tokens_module, "BLOCK_BYTES", 500)
    tokens, y = ragged(0)
    assert len(list(tokens.blocks())) > 5
    labels = np.stack([y, np.roll(y, 1), (np.arange(len(y)) % 3 == 0).astype(int)])
    x, of_tokens = stacked(tokens, labels)
    settings = {"method": method, "strengths": [0.01, 1.0], "standardise": standardise}
    mine, peer = fit(tokens, labels, **settings), fit(x, of_tokens, **settings)
    assert mine.weights == pytest.approx(peer.weights, abs=2e-4 * np.abs(peer.weights).max())
    assert mine.bias == pytest.approx(peer.bias, abs=1e-3)


def test_the_streamed_logistic_fit_is_that_of_stats():
    tokens, y = ragged(3)
    x, of_tokens = stacked(tokens, y[None])
    centre, spread = moments(tokens)
    found = fit(tokens, y[None], method="logistic", strengths=[0.1])
    peer = fit_logistic_streaming((x - centre) / spread, of_tokens[0], l2=1 / (0.1 * len(x)), tolerance_nats=1e-12)
    assert found.weights[0, 0] * spread == pytest.approx(peer.weights, abs=1e-3 * np.abs(peer.weights).max())


def test_attention_finds_the_token_that_carries_the_label():
    (train, y), (test, truth) = needle(0), needle(1)
    settings = {"strengths": [0.1]}
    attended = fit(train, y[None], method="attention-pooled", **settings)
    over_all = fit(token_means(train), y[None], method="logistic", **settings)
    assert auroc(attended.scores(test)[0, 0], truth) > 0.97
    assert auroc(over_all.scores(token_means(test))[0, 0], truth) < 0.9
    assert attended.query is not None
    assert np.abs(attended.query[0, 0]).argmax() == 1


def test_attention_fits_at_least_as_well_as_the_mean_it_starts_from():
    train, y = needle(0)
    centre, spread = moments(train)
    z = (token_means(train) - centre) / spread
    for c in (1e-3, 1e-1):
        weights, bias = fit_logistic(z, y[None], strengths=[c])
        found = fit_attention(train, y[None], centre=centre, spread=spread, strengths=[c])
        mean_scores = z @ weights[0, 0] + bias[0, 0]
        scores = read(tokens_of(list((train.values - centre) / spread)), found.weights, found.bias, found.query)[0, 0]

        def loss(scores: np.ndarray, *parameters: np.ndarray, c: float = c) -> float:
            return float(np.logaddexp(0, -(2 * y - 1) * scores).mean() + sum((p**2).sum() for p in parameters) / (2 * c * len(y)))

        assert loss(scores, found.weights, found.query) <= 1.001 * loss(mean_scores, weights[0])


# Negative control silent


@pytest.mark.parametrize("method", [*LINEAR, "attention-pooled"])
def test_noise_is_silent_on_new_prompts_though_a_fit_reads_its_own_rows(method, monkeypatch):
    """The trap: on its own training rows every method reads noise."""
    monkeypatch.setattr(attention, "N_STEPS", 60)
    own, held_out = [], []
    for seed in range(10):
        (train, y), (test, truth) = ragged(seed, d=32, shift=0.0), ragged(100 + seed, d=32, shift=0.0)
        found = fit(train, y[None], method=method, strengths=[0.1])
        own.append(auroc(found.scores(train)[0, 0], y))
        held_out.append(auroc(found.scores(test)[0, 0], truth))
    assert np.mean(own) > 0.7
    assert np.mean(held_out) == pytest.approx(0.5, abs=0.07)


def test_random_features_see_the_bag_of_tokens_and_not_its_order():
    features = random_features([[5, 9, 7], [7, 5, 9], [9, 9, 7]], width=50, seed=0)
    assert features[0] == pytest.approx(features[1])
    assert np.abs(features[0] - features[2]).max() > 0.1
    assert (random_features([[5, 9]], width=50, seed=0) != random_features([[5, 9]], width=50, seed=1)).any()


# Invariance


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_the_order_of_rows_does_not_matter_to_a_fit(seed):
    rng = np.random.default_rng(seed)
    x, y, order = rng.standard_normal((24, 40)), np.arange(24) % 2, rng.permutation(24)
    for method in LINEAR:
        one = fit(x, y[None], method=method, strengths=[0.01])
        other = fit(x[order], y[order][None], method=method, strengths=[0.01])
        assert one.weights == pytest.approx(other.weights, abs=1e-5 * np.abs(one.weights).max() + 1e-7)


def test_the_order_of_tokens_and_of_rows_does_not_matter_to_attention():
    tokens, y = needle(0)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(y))
    moved = tokens_of([tokens.values[i][rng.permutation(12)] for i in order])
    one, other = (
        fit(x, labels[None], method="attention-pooled", strengths=[0.1]) for x, labels in ((tokens, y), (moved, y[order]))
    )
    assert one.scores(tokens)[0, 0, order] == pytest.approx(other.scores(moved)[0, 0], abs=1e-2)


@pytest.mark.parametrize("method", [*LINEAR, "attention-pooled"])
def test_fitting_labellings_together_or_alone_gives_the_same(method):
    tokens, y = ragged(0, n=30, d=8)
    labels = np.stack([np.random.default_rng(k).permutation(y) for k in range(6)])
    features = tokens if method == "attention-pooled" else token_means(tokens)
    together = fit(features, labels, method=method, strengths=[0.01]).weights
    alone = np.concatenate([fit(features, y[None], method=method, strengths=[0.01]).weights for y in labels], axis=1)
    assert together == pytest.approx(alone, abs=1e-3 * np.abs(alone).max())


@pytest.mark.parametrize("block_bytes", [1, 500, 1 << 22])
def test_the_size_of_blocks_and_what_lies_beyond_a_row_do_not_matter(block_bytes, monkeypatch):
    monkeypatch.setattr(tokens_module, "BLOCK_BYTES", block_bytes)
    tokens, _ = ragged(0)
    assert (len(list(tokens.blocks())) == len(tokens)) is (block_bytes == 1)
    rng = np.random.default_rng(0)
    weights, bias, query = rng.standard_normal((3, 6)), rng.standard_normal(3), rng.standard_normal((3, 6))
    expected = []
    for i in range(len(tokens)):
        x = tokens.values[i, : tokens.lengths[i]].astype(float)
        pattern = np.exp(x @ query.T)
        expected.append(((pattern / pattern.sum(0)) * (x @ weights.T)).sum(0) + bias)
    assert read(tokens, weights, bias, query) == pytest.approx(np.array(expected).T, abs=1e-5)
    part = tokens.take(np.array([4, 2])).take(np.array([1]))
    assert token_means(part) == pytest.approx(tokens.values[2, : tokens.lengths[2]].mean(0)[None], abs=1e-5)


def test_attention_does_not_look_beyond_the_end_of_a_row(monkeypatch):
    """Fitted row by row there is no padding, and fitted together there is: the same comes out."""
    monkeypatch.setattr(attention, "N_STEPS", 30)
    tokens, y = ragged(0)
    together = fit(tokens, y[None], method="attention-pooled", strengths=[0.1])
    monkeypatch.setattr(tokens_module, "BLOCK_BYTES", 1)
    alone = fit(tokens, y[None], method="attention-pooled", strengths=[0.1])
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=2e-3 * np.abs(other).max())


def test_a_mean_of_token_scores_is_the_score_of_the_mean():
    tokens, y = ragged(0)
    found = fit(tokens, y[None], method="logistic", strengths=[0.1])
    one_by_one = [
        (tokens.values[i, : tokens.lengths[i]] @ found.weights[0, 0] + found.bias[0, 0]).mean() for i in range(len(tokens))
    ]
    assert found.scores(tokens)[0, 0] == pytest.approx(one_by_one, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_tokens_on_disk_are_those_of_the_model(model, tmp_path, batch_size):
    sites = ["resid_pre.0", "resid_post.3"]
    places = capture_to_disk(model, PROMPTS, sites, folder=tmp_path, batch_size=batch_size)
    for site, place in zip(sites, places, strict=True):
        for policy, reduced in (
            ("mean", token_means(place)),
            ("last", np.stack([place.values[i, n - 1] for i, n in enumerate(place.lengths)])),
            (0, place.values[:, 0]),
        ):
            captured = capture(model, PROMPTS, [site], positions=policy)[site].numpy()
            assert reduced == pytest.approx(captured, abs=1e-4), (site, policy)


@pytest.mark.parametrize("method", [*LINEAR, "attention-pooled"])
def test_memory_does_not_grow_with_the_tokens(method, tmp_path, monkeypatch):
    """Eight times the tokens, from a file: the peak of what is allocated hardly moves. All of them would be 10 MiB."""

    def peak(n: int) -> int:
        values = np.memmap(tmp_path / f"{n}", dtype=np.float32, mode="w+", shape=(n, 40, 32))
        for start in range(0, n, 50):
            values[start : start + 50] = np.random.default_rng(start).standard_normal((50, 40, 32))
        tokens, labels = Tokens(values, np.full(n, 40), np.arange(n)), np.arange(n)[None] % 2
        tracemalloc.start()
        fit(tokens, labels, method=method, strengths=[0.1])
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    monkeypatch.setattr(tokens_module, "BLOCK_BYTES", 1 << 18)
    monkeypatch.setattr(attention, "N_STEPS", 5)
    few, many = peak(250), peak(2000)
    assert many < 1.25 * few + 100_000
    assert many < 6_000_000


# Bad input refused


def test_attention_refuses_one_vector_a_prompt():
    x, y = np.zeros((4, 3)), np.arange(4)[None] % 2
    with pytest.raises(UsageError, match="reads every token of a prompt, got one vector"):
        fit(x, y, method="attention-pooled", strengths=[1.0])
    with pytest.raises(UsageError, match="reads every token of a prompt, got one vector"):
        read(x, np.zeros(3), np.zeros(()), np.zeros(3))


def test_a_disk_too_small_is_refused_before_it_is_full(model, tmp_path, monkeypatch):
    monkeypatch.setattr(tokens_module.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(CannotMeasure, match="GiB on disk at these layers"):
        capture_to_disk(model, PROMPTS, ["resid_post.0"], folder=tmp_path, batch_size=2)


def test_tokens_that_are_not_finite_are_refused(model, tmp_path, monkeypatch):
    def broken(model, tokens, sites):
        return {site: torch.full((*tokens.input_ids.shape, 64), torch.nan) for site in sites}

    monkeypatch.setattr(tokens_module, "capture_tokens", broken)
    with pytest.raises(CannotMeasure, match=r"resid_post\.0: expected finite"):
        capture_to_disk(model, PROMPTS, ["resid_post.0"], folder=tmp_path, batch_size=2)
