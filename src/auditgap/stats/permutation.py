"""What a search finds where there is nothing to find: nulls by permuting labels, with the whole search inside.

1. Permute the labels as the design allows, so that every relabelling was as likely as the real one.
2. Redo the whole search (every layer, position and setting) and keep the best value it finds.
3. The p-value is the share of those bests that reach what was observed, the observed one counted among them.

Source: P. H. Westfall, S. S. Young, Resampling-Based Multiple Testing (1993); T. E. Nichols, A. P. Holmes, Human Brain Mapping
15 (2002) 1-25; for the added one, B. Phipson, G. K. Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) article 39.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from auditgap.stats.checks import group_codes, numbers, two_classes

__all__ = ["max_statistic_p", "permute_labels"]


def permute_labels(
    labels: ArrayLike, groups: Sequence[object] | NDArray[np.generic], rng: np.random.Generator
) -> NDArray[np.int64]:
    """The labels, exchanged as the null hypothesis allows.

    Groups that hold one label swap it as a whole with other such groups. Groups that hold both (a harmful and a harmless
    wording of one request) exchange labels inside: for a pair, a coin flip. So rows that belong together stay so.

    Raises:
        UsageError: no rows, another number of groups than labels, other values than 0 and 1, or one class only.
    """
    truth = two_classes(labels)
    codes = group_codes(groups, n=len(truth))
    by_group = np.argsort(codes, kind="stable")
    permuted = np.empty_like(truth)
    permuted[by_group] = truth[np.lexsort((rng.random(len(truth)), codes))]  # inside each group; no change where all are equal
    share = np.bincount(codes, weights=truth) / np.bincount(codes)
    pure = (share == 0.0) | (share == 1.0)
    label_of = share.astype(np.int64)
    label_of[pure] = rng.permutation(label_of[pure])
    return np.where(pure[codes], label_of[codes], permuted)


def max_statistic_p(observed: float, null_maxima: ArrayLike) -> float:
    """The chance that a search this wide finds a value this large where there is nothing: (1 + count) / (1 + K).

    Never below 1 / (1 + K): 999 relabellings cannot say more than p = 0.001.

    Raises:
        UsageError: no null values, or NaN.
    """
    null = numbers(null_maxima, name="null_maxima")
    value = float(numbers([observed], name="observed")[0])
    # Values that differ by rounding alone are ties, and ties count against the finding.
    tolerance = 100 * np.finfo(np.float64).eps * abs(value) if np.isfinite(value) else 0.0
    return float((1 + np.count_nonzero(null >= value - tolerance)) / (1 + len(null)))
