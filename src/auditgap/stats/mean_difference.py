"""The difference of two class means, from batches: what data of any size leaves behind is two sums."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from auditgap.errors import CannotMeasure, UsageError

__all__ = ["ClassMeans", "MeanDifference"]


class ClassMeans(NamedTuple):
    """What `MeanDifference` found."""

    direction: NDArray[np.float64]
    """Mean of label 1 less mean of label 0; any norm."""
    mean: NDArray[np.float64]
    """Middle of the two means: a score `(x - mean) . direction` is positive on the side of label 1."""
    n: tuple[int, int]
    """Rows of label 0 and of label 1."""


class MeanDifference:
    """A streaming fitter: `update` with each batch, then `direction`. Sums are float64, so the order of batches does not matter.

    Source: as a probe, S. Marks, M. Tegmark, The Geometry of Truth (2023), arXiv:2310.06824.
    """

    def __init__(self, width: int) -> None:
        self._sums = np.zeros((2, width))
        self._n = np.zeros(2, dtype=np.int64)

    def update(self, features: ArrayLike, labels: ArrayLike) -> None:
        """Add a batch: one row of features per label, 0 or 1; a batch may hold one class only.

        Raises:
            UsageError: another width, another number of labels, another label, NaN or infinity.
        """
        rows, truth = np.asarray(features), np.asarray(labels)
        if rows.ndim != 2 or rows.shape[1] != self._sums.shape[1] or truth.shape != rows.shape[:1]:
            raise UsageError(
                f"expected rows of width {self._sums.shape[1]} and a label for each, got shapes {rows.shape} and {truth.shape}"
            )
        if not np.isin(truth, (0, 1)).all():
            raise UsageError(f"labels: expected 0 and 1, got {np.unique(truth)[:5].tolist()}")
        sums = np.stack([rows[truth == label].sum(0, dtype=np.float64) for label in (0, 1)])
        if not np.isfinite(sums).all():
            raise UsageError("expected finite features, got NaN or infinity; find where it arises, do not drop it")
        self._sums += sums
        self._n += np.bincount(truth.astype(np.int64), minlength=2)

    def direction(self) -> ClassMeans:
        """The difference of the class means so far.

        Raises:
            CannotMeasure: one class has not been seen.
        """
        if not self._n.all():
            raise CannotMeasure(f"expected rows of both labels, got {self._n[0]} of label 0 and {self._n[1]} of label 1")
        zero, one = self._sums / self._n[:, None]
        return ClassMeans(one - zero, (one + zero) / 2, (int(self._n[0]), int(self._n[1])))
