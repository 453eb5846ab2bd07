"""The grid of effects, the cell that `train` chooses in it, and how likely a search this wide finds as much where nothing is."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from auditgap.errors import CannotMeasure
from auditgap.instruments.patching.locus import Locus, computed
from auditgap.instruments.patching.pairs import (
    Columns,
    Pairs,
    align,
    best_cell,
    cell_interval,
    elsewhere,
    group_means,
    n_same_conclusion,
    random_site_p,
    sign_flip_p,
)
from auditgap.instruments.patching.runs import GridSite, sweep
from auditgap.models import Model
from auditgap.models.patch import Direction
from auditgap.progress import Progress
from auditgap.records import Measured, Measurement, NotMeasured
from auditgap.stats import clopper_pearson

__all__ = ["WAYS", "Search", "candidate_layers", "search"]

WAYS: tuple[Direction, ...] = ("denoising", "noising")
N_DRAWS = 9999


@dataclass(frozen=True, eq=False)
class Search:
    """Effects of every cell on every pair, as shares of the pair's gap, and the cell that was chosen."""

    pairs: Pairs
    columns: Columns
    locus: Locus
    positions: Int[np.ndarray, " pair"]
    """The locus's column in each pair."""
    swept: dict[Direction, list[Float[np.ndarray, "layer head _"]]]
    """Of each pair, at every position."""
    searched: dict[Direction, Float[np.ndarray, "pair cell"]]
    """The cells that could be chosen: candidate layers, heads and columns."""

    @property
    def at_locus(self) -> Float[np.ndarray, "way pair"]:
        """What the sweep says at the locus."""
        layer, head = self.locus.layer, self.locus.head
        return np.array([[x[layer, head, at] for x, at in zip(self.swept[way], self.positions, strict=True)] for way in WAYS])

    def elsewhere(self, row: int) -> Float[np.ndarray, "way site"]:
        """The effects at the other sites of the same layer and kind, in one pair."""
        where = {"first": self.pairs.first[row], "head": self.locus.head, "position": int(self.positions[row])}
        return np.stack([elsewhere(self.swept[way][row][self.locus.layer], **where) for way in WAYS])

    def mean_elsewhere(self, way: Direction) -> Float[np.ndarray, " pair"]:
        """Their mean in each pair; NaN if there are none."""
        effects = [self.elsewhere(row)[WAYS.index(way)] for row in range(len(self.pairs.rows))]
        return np.array([x.mean() if len(x) else math.nan for x in effects])

    def by_group(self, rows: list[int]) -> dict[Direction, Float[np.ndarray, "group cell"]]:
        """Mean effects of the searched cells in each group."""
        return {way: group_means(effects, self.pairs.groups, rows) for way, effects in self.searched.items()}

    def map(
        self, way: Direction, rows: list[int], *, n_resamples: int, seed: int
    ) -> tuple[Float[np.ndarray, "layer head column"], Float[np.ndarray, "layer head column"]]:
        """Mean effect of every cell, searched or not, and the low end of its interval."""
        cells = _at_columns(self.swept[way], self.columns)
        groups = group_means(cells.reshape(len(cells), -1), self.pairs.groups, rows)
        low = cell_interval(groups, n_resamples=n_resamples, seed=seed)[0]
        return cells[rows].mean(axis=0), low.reshape(cells.shape[1:])

    def reliability(self, train: list[int], test: list[int], *, min_effect: float, n_resamples: int, seed: int) -> Measured:
        """How often the whole procedure, choice of the cell included, concludes the same on resampled groups."""
        on_train, on_test = self.by_group(train), self.by_group(test)
        n_same = n_same_conclusion(on_train, on_test, min_effect=min_effect, n_resamples=n_resamples, seed=seed)
        return Measured(
            name="reliability",
            value=n_same / n_resamples,
            unit="rate",
            n=len(on_test["denoising"]),
            interval=clopper_pearson(n_same, n_resamples),
            about="Share of bootstrap resamples of the groups, choice of locus included, that come to the same conclusion.",
        )

    def nulls(self, train: list[int], test: list[int], *, seed: int) -> tuple[Measurement, Measurement]:
        """The chance that the best of all searched cells, and the chance that random sites of the layer, do as well."""
        groups = self.by_group(train + test)
        p = max(sign_flip_p(effects, n_flips=N_DRAWS, seed=seed) for effects in groups.values())
        others = [self.elsewhere(row) for row in test]
        random = random_site_p(self.at_locus[:, test], others, n_draws=N_DRAWS, seed=seed)
        n_test, about = len({self.pairs.groups[row] for row in test}), "Chance that random sites of the locus's layer, one per"
        return (
            computed(
                "p.search",
                p,
                "p",
                len(groups["denoising"]),
                "Chance that the best cell of such a grid looks as good by luck; the larger of the two ways.",
            ),
            NotMeasured(name="p.random_site", reason="the layer has no other site from the first difference on")
            if math.isnan(random)
            else computed("p.random_site", random, "p", n_test, f"{about} held-out pair, do as well in their weaker way."),
        )


def search(
    model: Model,
    pairs: Pairs,
    site: GridSite,
    layers: Sequence[int],
    train: list[int],
    *,
    max_rows: int,
    progress: Progress,
) -> Search:
    """Sweep both ways, and choose the cell whose weaker way has the largest mean effect over the training groups."""
    columns = align(pairs.first, pairs.last, pairs.lengths)
    swept: dict[Direction, list[NDArray[np.float64]]] = {}
    for way in WAYS:
        progress("sweeps", len(swept), len(WAYS))
        swept[way] = sweep(model, pairs, site=site, direction=way, max_rows=max_rows)
    searched: dict[Direction, NDArray[np.float64]] = {
        way: _at_columns(effects, columns)[:, list(layers)].reshape(len(effects), -1) for way, effects in swept.items()
    }
    n_heads = swept["denoising"][0].shape[1]
    cells = list(itertools.product(layers, range(n_heads), range(len(columns.labels))))
    on_train: dict[Direction, NDArray[np.float64]] = {way: group_means(x, pairs.groups, train) for way, x in searched.items()}
    index = int(best_cell(on_train)[0])
    locus = Locus(site, *cells[index])
    return Search(pairs, columns, locus, columns.positions[:, locus.column], swept, searched)


def candidate_layers(model: Model, site: GridSite, asked: Sequence[int]) -> list[int]:
    """The layers asked for, or the middle half of the stream's boundaries: at layer 0's input is the prompt itself.

    Raises:
        UsageError: the model does not have that site or layer.
        CannotMeasure: too few layers to have a middle.
    """
    model.sites.check(f"{site}.{layer}" for layer in asked or range(model.n_layers))
    if asked:
        return sorted(set(asked))
    n, before = model.n_layers, site == "resid_post"  # the stream that leaves block l enters block l + 1
    middle = [layer - before for layer in range(max(1, math.ceil(n / 4)), 3 * n // 4 + 1)]
    if not middle:
        raise CannotMeasure(f"a model of {n} layer(s) has no middle layers in which to look; name them with 'layers'")
    return middle


def _at_columns(
    effects: Sequence[Float[np.ndarray, "layer head _"]], columns: Columns
) -> Float[np.ndarray, "pair layer head column"]:
    return np.stack([cells[:, :, at] for cells, at in zip(effects, columns.positions, strict=True)])
