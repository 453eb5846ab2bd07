"""Which of two answers a model prefers: accuracy whose chance level is known, whatever becomes of the format of its replies.

An item of a pair set is its clean question with the right answer and the foil. Beside it stands a benign item: the corrupted
question, which the model has no reason to fail, and for which the foil is right.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from auditgap.data import Dataset, PairRow, PairSet, Prompt
from auditgap.errors import CannotMeasure, UsageError
from auditgap.models import Model, log_likelihood
from auditgap.records import Control, Interval, Measured
from auditgap.stats import cluster_bootstrap, group_rate

__all__ = ["CHANCE", "by_group", "difference_of", "p_control", "rate_of", "right_choices", "rows_of"]

CHANCE, ALPHA = 0.5, 0.05
MIN_GROUPS = 5  # of fewer, not even a perfect result brings a sign-flip p to 0.05: 1 / 2^4 = 0.0625


def right_choices(
    model: Model, prompts: Sequence[Prompt], right: Sequence[str], wrong: Sequence[str], *, batch_size: int = 32
) -> Float[np.ndarray, " item"]:
    """1 where the right answer is likelier than the wrong one, 0 where it is not, a half where that cannot be said.

    The log-likelihood of the whole answer decides, so answers of unlike length are not on equal terms. A model that gives NaN
    under heavy noise is at chance.

    Raises:
        UsageError: an answer is empty or merges with the end of its prompt; the message names the row.
    """
    both = log_likelihood(model, [*prompts, *prompts], [*right, *wrong], batch_size=batch_size).double().numpy()
    for_right, for_wrong = np.split(both, 2)
    return np.where(for_right > for_wrong, 1.0, np.where(for_right < for_wrong, 0.0, CHANCE))


def by_group(values: Float[np.ndarray, "... row"], rows: Sequence[PairRow]) -> Float[np.ndarray, "... group"]:
    """The mean of each group, in order of first appearance: the independent units."""
    groups = [row.group for row in rows]
    members = [[i for i, group in enumerate(groups) if group == name] for name in dict.fromkeys(groups)]
    return np.stack([values[..., rows_of_group].mean(axis=-1) for rows_of_group in members], axis=-1)


def rows_of(data: Dataset, *, instrument: str) -> dict[str, tuple[PairRow, ...]]:
    """The rows of `train`, `val` and `test`.

    Raises:
        UsageError: the data are not pairs.
        CannotMeasure: a part has fewer than 5 groups.
    """
    if not isinstance(data, PairSet):
        raise UsageError(
            f"{instrument} reads pairs, got a {type(data).__name__}; give it rows with clean, corrupted, answer, foil"
        )
    parts = {name: data.split(name).rows for name in ("train", "val", "test")}
    if short := [f"{name} has {n}" for name, rows in parts.items() if (n := len({row.group for row in rows})) < MIN_GROUPS]:
        raise CannotMeasure(
            f"{data.source}: expected at least {MIN_GROUPS} groups of pairs in train, val and test; {', '.join(short)}. "
            "Add pairs, or leave out 'split' everywhere to have the groups divided"
        )
    return parts


def rate_of(name: str, right: Float[np.ndarray, " group"], about: str) -> Measured:
    """A rate in which each group counts once, with its exact interval."""
    rate = group_rate(right, [str(i) for i in range(len(right))])
    return Measured(name=name, value=rate.value, unit="rate", n=rate.n_groups, interval=rate.interval, about=about)


def difference_of(name: str, gaps: Float[np.ndarray, " group"], about: str, *, n_resamples: int, seed: int) -> Measured:
    """The mean of differences between two rates of the same groups.

    Groups are resampled with one more at either extreme, so that the interval does not close where all groups agree.

    Source: the two added groups after A. Agresti, B. A. Coull, The American Statistician 52 (1998) 119-126.
    """
    padded, value = np.append(gaps, [1.0, -1.0]), float(gaps.mean())
    drawn = cluster_bootstrap(lambda i: float(padded[i].mean()), range(len(padded)), n_resamples=n_resamples, seed=seed)
    interval = Interval(low=min(drawn.low, value), high=max(drawn.high, value), level=drawn.level, method="cluster-bootstrap+2")
    return Measured(name=name, value=value, unit="rate", n=len(gaps), interval=interval, about=about)


def p_control(name: str, measurement: str, p: float, n: int, about: str) -> Control:
    """A null that does not make a result invalid, but without which it is not supported."""
    observed = Measured(name=measurement, value=p, unit="p", n=n, interval=Interval.exact(p), about=about)
    return Control(name=name, passed=p <= ALPHA, observed=observed, expected=f"p <= {ALPHA:g}", fatal=False)
