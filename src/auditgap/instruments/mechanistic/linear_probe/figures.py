"""What the search saw on `val`, and the ROC on `test`."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from auditgap.instruments.probing.controls import ALPHA
from auditgap.instruments.probing.probe import Fold, Search
from auditgap.records import Curve, Grid
from auditgap.stats import auroc_interval, roc

__all__ = ["roc_curve", "search_grid", "sweep"]


def sweep(found: Search, val: Fold, layers: Sequence[int], position: str, *, site: str, n_resamples: int, seed: int) -> Curve:
    """AUROC on `val` at each layer, at the chosen position."""
    first = found.chosen - found.chosen % len(layers)
    probes, areas = found.probes[first : first + len(layers)], found.val_aurocs[first : first + len(layers)]
    bands = [auroc_interval(probe.scores(val), val.labels, val.groups, n_resamples=n_resamples, seed=seed) for probe in probes]
    return Curve(
        name="layer-sweep",
        title=f"AUROC on val by layer, position {position}; line: what the whole search exceeds in 5 % of relabellings",
        x_label=f"layer ({site})",
        y_label="AUROC on val",
        x=tuple(float(layer) for layer in layers),
        y=tuple(areas.tolist()),
        low=tuple(band.low for band in bands),
        high=tuple(band.high for band in bands),
        reference=(float(np.quantile(found.null_maxima, 1 - ALPHA)),) * len(layers),
    )


def search_grid(found: Search, layers: Sequence[int], positions: Sequence[str], *, site: str) -> tuple[Grid, ...]:
    """AUROC on `val` at every place, where several positions were searched."""
    if len(positions) < 2:
        return ()
    areas = found.val_aurocs.reshape(len(positions), len(layers))
    return (
        Grid(
            name="search",
            title="AUROC on val at every place that was searched",
            x_label=f"layer ({site})",
            y_label="position",
            columns=tuple(str(layer) for layer in layers),
            rows=tuple(positions),
            values=tuple(tuple(row) for row in areas.tolist()),
        ),
    )


def roc_curve(scores: Float[np.ndarray, " row"], test: Fold) -> Curve:
    """The trade-off on `test`."""
    curve = roc(scores, test.labels)
    fpr = tuple(curve.fpr.tolist())
    return Curve(
        name="roc",
        title="ROC on test",
        x_label="false-positive rate",
        y_label="true-positive rate",
        x=fpr,
        y=tuple(curve.tpr.tolist()),
        reference=fpr,
    )
