"""Erasing a concept from vectors, so that no linear classifier can read it: least-squares concept erasure (LEACE).

1. Stream rows of x (the vectors) and z (the concept, one column per dimension): means, covariance, cross-covariance.
2. Shrink the covariance of x towards a multiple of the identity: with fewer rows than features it would be singular.
3. Whiten x by it, find the directions that covary with z, project them out, undo the whitening.

The erased x has no covariance with z on the rows of the fit, whatever the shrinkage: class means coincide there, and the best
linear classifier under any convex loss is a constant. Of all affine maps that do this it moves x least, in mean square.

Source: N. Belrose et al., LEACE, arXiv:2306.03819. Shrinkage: T. Bodnar, A. K. Gupta, N. Parolya, arXiv:1308.2608, equation 2.1
with the identity as target. The authors' code drops singular values up to 0.01, which leaves a weak concept in; here only
rounding is dropped. Its bound on the trace is left out: it can never bind, because projection and trace use one covariance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from auditgap.errors import UsageError

__all__ = ["Eraser", "Leace", "shrunk"]

MIN_CORRELATION = 1e-9  # of x with a column of z; below it is rounding


@dataclass(frozen=True, eq=False)
class Eraser:
    """An affine map that takes a concept out: x - write (read (x - mean))."""

    mean: NDArray[np.float64]
    write: NDArray[np.float64]
    """(d, rank): the directions along which x is moved."""
    read: NDArray[np.float64]
    """(rank, d): how much of each is in x; `read @ write` is the identity, so erasing twice is erasing once."""

    @property
    def rank(self) -> int:
        """Dimensions taken out: 1 for two classes, 0 if the concept could not be read in the first place."""
        return self.write.shape[1]

    def __call__(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """The rows (..., d) without the concept."""
        return x - (x - self.mean) @ self.read.T @ self.write.T


class Leace:
    """Streaming fitter: `update` with batches of rows, then `eraser`. Memory d^2; the batches' sizes do not matter."""

    def __init__(self, n_features: int, n_columns: int = 1, *, shrink: bool = True) -> None:
        """`n_features` is the width of x, `n_columns` that of z. Without `shrink` the sample covariance is used as it is."""
        self._shrink = shrink
        self._n = 0
        self._mean_x, self._mean_z = np.zeros(n_features), np.zeros(n_columns)
        self._scatter = np.zeros((n_features, n_features))
        self._cross = np.zeros((n_features, n_columns))
        self._spread = np.zeros(n_columns)

    def update(self, x: ArrayLike, z: ArrayLike) -> None:
        """Take in rows of x (row, d) and of z (row, k); labels are z of shape (row,).

        Raises:
            UsageError: other shapes, NaN or infinity.
        """
        rows = _rows("x", x, len(self._mean_x))
        concept = np.asarray(z, dtype=np.float64)
        concept = _rows("z", concept[:, None] if concept.ndim == 1 else concept, len(self._mean_z))
        if len(rows) != len(concept):
            raise UsageError(f"expected as many rows of x as of z, got {len(rows)} and {len(concept)}")
        if not len(rows):
            return
        self._n += len(rows)
        before_x, before_z = rows - self._mean_x, concept - self._mean_z
        self._mean_x += before_x.sum(axis=0) / self._n
        self._mean_z += before_z.sum(axis=0) / self._n
        after_z = concept - self._mean_z
        self._scatter += before_x.T @ (rows - self._mean_x)
        self._cross += before_x.T @ after_z
        self._spread += (before_z * after_z).sum(axis=0)

    def eraser(self) -> Eraser:
        """The eraser of all columns of z together.

        Raises:
            UsageError: fewer than two rows, or a column of z that is the same in every row.
        """
        return self._erasing(self._standardised(), self._whitening())

    def column_erasers(self) -> list[Eraser]:
        """One eraser for each column of z, which erases that column alone: a concept and its controls, in one pass.

        Raises:
            UsageError: as `eraser`.
        """
        columns, whiten = self._standardised(), self._whitening()
        return [self._erasing(columns[:, [column]], whiten) for column in range(columns.shape[1])]

    def _standardised(self) -> NDArray[np.float64]:
        """Covariance of x with z, each column of z scaled to variance 1."""
        if self._n < 2:
            raise UsageError(f"expected at least 2 rows to fit on, got {self._n}")
        if constant := np.flatnonzero(self._spread <= 0).tolist():
            raise UsageError(f"columns {constant} of z are the same in every row; a concept needs rows that differ in it")
        return self._cross / self._n / np.sqrt(self._spread / self._n)

    def _whitening(self) -> NDArray[np.float64]:
        """The inverse square root of the covariance of x, on the directions in which x varies by more than rounding."""
        covariance = self._scatter / self._n
        values, vectors = np.linalg.eigh(shrunk(covariance, n_rows=self._n) if self._shrink else covariance)
        eps = float(np.finfo(np.float64).eps)
        rounding = len(values) * max(eps * values[-1], (8 * eps * np.abs(self._mean_x).max()) ** 2)
        kept = values > rounding
        return (vectors[:, kept] / np.sqrt(values[kept])) @ vectors[:, kept].T

    def _erasing(self, covariance: NDArray[np.float64], whiten: NDArray[np.float64]) -> Eraser:
        left, singular, right = np.linalg.svd(whiten @ covariance, full_matrices=False)
        kept = singular > MIN_CORRELATION
        write = covariance @ right[kept].T / singular[kept]  # whitening undone, without the rounding of a second square root
        return Eraser(self._mean_x.copy(), write, left[:, kept].T @ whiten)


def shrunk(covariance: NDArray[np.float64], *, n_rows: int) -> NDArray[np.float64]:
    """A covariance mixed with the multiple of the identity that has its trace: closest to the true one for this many rows.

    Raises:
        UsageError: fewer than one row.

    Source: arXiv:1308.2608; distribution-free, optimal as features and rows grow together.
    """
    if n_rows < 1:
        raise UsageError(f"expected at least 1 row, got {n_rows}")
    d, trace = len(covariance), float(np.trace(covariance))
    spread = float((covariance**2).sum()) - trace**2 / d  # squared distance from the target; 0 if it is the target already
    weight = min(1.0, trace**2 / n_rows / spread) if spread > 0 else 1.0
    return (1 - weight) * covariance + weight * trace / d * np.eye(d)


def _rows(name: str, values: ArrayLike, width: int) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != width:
        raise UsageError(f"{name}: expected rows of {width} numbers, got shape {array.shape}")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise UsageError(f"{name}: expected finite numbers, got NaN or infinity in row {row} of the batch")
    return array
