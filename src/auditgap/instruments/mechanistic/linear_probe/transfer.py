"""From one data set to another: the probe fitted on some, scored on one that it has not seen.

Near-perfect on its own data and at chance on the next is the usual way in which a probe misleads. Rows of `train` and `val` fit
and choose, rows of `test` and `ood` are scored; each fit repeats the search over places and strengths.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from auditgap.errors import UsageError
from auditgap.instruments.probing.controls import Folds, area_of
from auditgap.instruments.probing.fits import Method
from auditgap.instruments.probing.probe import Fold, Probe, search
from auditgap.records import Grid, Measured, Measurement, NotMeasured

__all__ = ["MIN_GROUPS", "Transfer", "transfer"]

MIN_GROUPS = 4  # of each class in each split


class Transfer(NamedTuple):
    """What carries over."""

    measurements: tuple[Measurement, ...]
    grids: tuple[Grid, ...]


def transfer(folds: Folds, *, method: Method, strengths: Sequence[float], n_resamples: int, seed: int) -> Transfer:
    """The AUROC on each data set of a probe fitted on all others, and the matrix of one data set by one.

    Raises:
        UsageError: two data sets differ only in letters that the name of a measurement cannot show.
    """
    names = sorted({name for fold in folds.values() for name in fold.datasets if name is not None})
    if len(names) < 2:
        reason = f"the rows name {len(names)} data sets, two are needed; give them a 'dataset'"
        return Transfer((NotMeasured(name="auroc.left_out", reason=reason),), ())
    if len({_slug(name) for name in names}) < len(names):
        raise UsageError(f"expected data sets whose names differ in letters or digits, got {', '.join(names)}")
    draws = {"n_resamples": n_resamples, "seed": seed}

    def fitted(fit_on: dict[str, Fold]) -> Probe:
        return search(fit_on["train"], fit_on["val"], method=method, strengths=strengths, seed=seed).probe

    def scored(name: str, probe: Probe, on: str, about: str) -> Measured:
        parts = [fold.take(_rows(fold, on)) for fold in (folds["test"], folds["ood"])]
        scores = np.concatenate([probe.scores(part) for part in parts if part.groups])
        labels = np.concatenate([part.labels for part in parts])
        rows = Fold(np.zeros((0, len(labels), 0)), labels, [group for part in parts for group in part.groups])
        return area_of(name, scores, rows, **draws, about=about)

    def left_out(name: str) -> Measurement:
        others = {
            split: folds[split].take(np.setdiff1d(np.arange(len(folds[split].groups)), _rows(folds[split], name)))
            for split in _FIT
        }
        key = f"auroc.left_out.{_slug(name)}"
        if name not in testable:
            return NotMeasured(name=key, reason=f"test and ood hold fewer than {MIN_GROUPS} groups of a class of it")
        if not all(_enough(fold) for fold in others.values()):
            return NotMeasured(name=key, reason=f"train or val of the others holds fewer than {MIN_GROUPS} groups of a class")
        return scored(key, fitted(others), name, about=f"on {name}, fitted and chosen on the others")

    own = {name: {split: fold.take(_rows(fold, name)) for split, fold in folds.items()} for name in names}
    testable = [name for name in names if _enough(own[name]["test"], own[name]["ood"])]
    trainable = [name for name in names if all(_enough(own[name][split]) for split in _FIT)]
    probes = {name: fitted(own[name]) for name in trainable}
    cells = [[scored("auroc", probe, on, about="") for on in testable] for probe in probes.values()]
    return Transfer(tuple(left_out(name) for name in names), _grids(cells, trainable, testable) if trainable and testable else ())


_FIT = ("train", "val")


def _rows(fold: Fold, name: str) -> Int[np.ndarray, " row"]:
    return np.array([i for i, dataset in enumerate(fold.datasets) if dataset == name], dtype=np.int64)


def _enough(*parts: Fold) -> bool:
    return all(
        len({group for part in parts for group, own in zip(part.groups, part.labels, strict=True) if own == label}) >= MIN_GROUPS
        for label in (0, 1)
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _grids(cells: list[list[Measured]], rows: list[str], columns: list[str]) -> tuple[Grid, ...]:
    def grid(name: str, title: str, values: list[list[float]]) -> Grid:
        return Grid(
            name=name,
            title=title,
            x_label="scored on",
            y_label="fitted on",
            columns=tuple(columns),
            rows=tuple(rows),
            values=tuple(tuple(line) for line in values),
        )

    title = "AUROC from one data set to another"
    return (
        grid("transfer", title, [[cell.value for cell in line] for line in cells]),
        grid("transfer-low", f"{title}: low end of the 95 % interval", [[cell.interval.low for cell in line] for line in cells]),
        grid(
            "transfer-high", f"{title}: high end of the 95 % interval", [[cell.interval.high for cell in line] for line in cells]
        ),
    )
