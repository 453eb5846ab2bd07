"""What reads the label without a trained model: a probe that does not beat these has found no more than they have.

| baseline | sees |
|---|---|
| `text-only` | TF-IDF of words and of pieces of words, and the length |
| `random-features` | the bag of tokens: the mean of a random vector for each |
| `untrained-model` | the activations of the same architecture with fresh weights |

Each goes through the same fit on `train` and the same choice on `val`.

Source: A. Conneau et al., ACL 2018, arXiv:1805.01070 (bag of vectors, untrained encoders); K. Zhang, S. Bowman, arXiv:1809.10040
(untrained weights as a baseline).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from auditgap.data import Split
from auditgap.instruments.probing.controls import Folds, area_of
from auditgap.instruments.probing.fits import Method
from auditgap.instruments.probing.probe import Fold, search
from auditgap.records import Control, NotMeasured
from auditgap.stats import auroc, cluster_bootstrap

__all__ = ["RIVALS", "random_features", "rival", "text_features", "text_only"]

RIVALS = {
    "untrained-model": "the same search in a model of this architecture with fresh weights",
    "random-features": "the same search in random projections of the bag of tokens",
}
"""The baselines that an instrument reads from the model, and what each is."""
TEXT_STRENGTHS = (1e-2, 1.0, 1e2)  # rows of a TF-IDF matrix have norm 1, not the square root of d


def rival(
    name: str,
    features: Folds | str,
    scores: Float[np.ndarray, " row"],
    test: Fold,
    *,
    method: Method,
    strengths: Sequence[float],
    about: str,
    standardise: bool = True,
    n_resamples: int,
    seed: int,
) -> Control:
    """Does a probe, with these scores on `test`, see more than the same search finds in other features of the same rows?

    `features` may be the reason why there are none. Where they are one vector a prompt, attention has nothing to pool and the
    search is that of `logistic`.
    """
    measured_as = f"{name.replace('-', '_')}.auroc"
    if isinstance(features, str):
        nothing = NotMeasured(name=measured_as, reason=features)
        return Control(name=name, passed=False, observed=nothing, expected="probe above it", fatal=False)
    if method == "attention-pooled" and not features["train"].tokens:
        method = "logistic"
    found = search(features["train"], features["val"], method=method, strengths=strengths, standardise=standardise, seed=seed)
    baseline = found.probe.scores(features["test"])
    gain = cluster_bootstrap(
        lambda rows: auroc(scores[rows], test.labels[rows]) - auroc(baseline[rows], test.labels[rows]),
        test.groups,
        n_resamples=n_resamples,
        seed=seed,
    )
    return Control(
        name=name,
        passed=gain.low > 0,
        observed=area_of(measured_as, baseline, test, n_resamples=n_resamples, seed=seed, about=about),
        expected=f"probe above it, 95 % interval of the difference above 0 (it is {gain.low:+.2f} to {gain.high:+.2f})",
        fatal=False,
    )


def text_only(folds: Folds, scores: Float[np.ndarray, " row"], *, n_resamples: int, seed: int) -> Control:
    """Does the probe see more than a classifier of the text alone?"""
    splits: tuple[Split, ...] = ("train", "val", "test")
    features = text_features(*(folds[split].texts for split in splits))
    return rival(
        "text-only",
        {split: _vectors(folds[split], x) for split, x in zip(splits, features, strict=True)},
        scores,
        folds["test"],
        about="TF-IDF and length only",
        method="logistic",
        strengths=TEXT_STRENGTHS,
        standardise=False,
        n_resamples=n_resamples,
        seed=seed,
    )


def text_features(train: Sequence[str], *others: Sequence[str]) -> list[Float[np.ndarray, "_ d"]]:
    """TF-IDF of words and of pieces of words, and the length: what needs no model. Vocabulary and scale come from `train`."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # a second to import, and only this control needs it

    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", max_features=4096).fit(train)
    pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), max_features=4096).fit(train)
    lengths = np.log1p([len(text) for text in train])

    def features(texts: Sequence[str]) -> Float[np.ndarray, "row d"]:
        length = (np.log1p([len(text) for text in texts]) - lengths.mean()) / (lengths.std() or 1.0)
        return np.column_stack([words.transform(texts).toarray(), pieces.transform(texts).toarray(), length])

    return [features(texts) for texts in (train, *others)]


def random_features(ids: Sequence[Sequence[int]], *, width: int, seed: int) -> Float[np.ndarray, "row width"]:
    """Each prompt as the mean of random vectors, one for each token id: its bag of tokens, projected at random."""
    seen, codes = np.unique(np.concatenate([np.asarray(row) for row in ids]), return_inverse=True)
    vectors = np.random.default_rng([seed, 4]).standard_normal((len(seen), width))
    ends = np.cumsum([len(row) for row in ids])[:-1]
    return np.stack([vectors[row].mean(axis=0) for row in np.split(codes, ends)])


def _vectors(fold: Fold, features: Float[np.ndarray, "row d"]) -> Fold:
    """The same rows seen as other vectors."""
    return Fold(features[None], fold.labels, fold.groups)
