"""The search over layers and tokens as one object: what was tried, what the rule takes, and pictures of both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from auditgap.instruments.directions.bench import Bench, Rows
from auditgap.instruments.directions.search import Place, Rule, Table, Tried, directions_at, draws, try_on
from auditgap.progress import Progress
from auditgap.records import Curve, Figure, Grid

__all__ = ["Candidates", "search"]

SHOWN = (
    ("bypass", "Score of label-1 prompts with the direction ablated (val)", "logits"),
    ("induce", "Score of label-0 prompts with the direction added (val)", "logits"),
    ("kl_nats", "KL of label-0 predictions under ablation (val)", "nats"),
)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Every candidate with what it did on val."""

    rule: Rule
    directions: dict[Place, Float[Tensor, "labelling d_model"]]
    """Row 0 under the true labels, the others under labels that mean nothing."""
    tried: Tried
    val: Rows

    @property
    def places(self) -> list[Place]:
        """Every place, in the order of the search."""
        return list(self.directions)

    @property
    def table(self) -> Table:
        """The selection scores on val as it is."""
        return self.tried.table(self.val.labels)

    @property
    def chosen(self) -> Place | None:
        """What the rule takes; None if it drops everything."""
        return self._named(self.rule.choose(self.table, self._layers))[0]

    @property
    def most_bypassing(self) -> Place | None:
        """What the rule takes if a candidate need not induce: the one whose ablation lowers the behaviour most."""
        return self._named(self.rule._replace(induce_min=-np.inf).choose(self.table, self._layers))[0]

    def rejected(self) -> dict[Place, str]:
        """Why the others cannot be taken."""
        reasons = self.rule.reasons(self.table, self._layers)
        return {place: why for place, why in zip(self.places, reasons, strict=True) if why is not None}

    def survivors(self) -> list[Place]:
        """What passes every filter, the smallest bypass first."""
        rejected, bypass = self.rejected(), dict(zip(self.places, self.table.bypass[:, 0], strict=True))
        return sorted((place for place in self.places if place not in rejected), key=lambda place: bypass[place])

    def picks(self, n: int, seed: int) -> list[Place | None]:
        """What the rule takes on each of n resamples of the groups of val."""
        weights = draws(self.val.groups, n, np.random.default_rng(seed))
        return self._named(self.rule.choose(self.tried.table(self.val.labels, weights), self._layers))

    def under(self, labelling: int) -> dict[Place, Float[Tensor, " d_model"]]:
        """The directions of one labelling at every place that the depth limit leaves."""
        return {place: found[labelling] for place, found in self.directions.items() if place.layer < self.rule.cutoff}

    def figures(self, picks: Sequence[Place | None]) -> tuple[Figure, ...]:
        """The selection scores and the choices on resamples by layer, or by layer and token where more than one is searched.

        Where there was no direction stands the score without an edit.
        """
        scores = [
            (name, title, unit, np.where(np.isnan(found[:, 0]), plain[0, 0], found[:, 0]))
            for (name, title, unit), found, plain in zip(SHOWN, self.table, self.tried.unedited(self.val.labels), strict=True)
        ]
        often = np.array([sum(pick == place for pick in picks) / len(picks) for place in self.places])
        scores.append(("chosen", "How often resamples of val choose it", "share of resamples", often))
        return tuple(_figure(f"candidates.{name}", title, unit, self.places, values) for name, title, unit, values in scores)

    @property
    def _layers(self) -> NDArray[np.int64]:
        return np.array([place.layer for place in self.places])

    def _named(self, chosen: NDArray[np.intp]) -> list[Place | None]:
        return [self.places[index] if index >= 0 else None for index in chosen]


def search(
    bench: Bench,
    train: Rows,
    val: Rows,
    positions: Sequence[int],
    labellings: Sequence[NDArray[np.int64]],
    rule: Rule,
    progress: Progress,
) -> Candidates:
    """Find a candidate at every place on train, and try it on val."""
    places = [Place(position, layer) for position in positions for layer in range(rule.n_layers)]
    directions = directions_at(bench, train, places, labellings, progress)
    tried = try_on(bench, val, {place: found[0] for place, found in directions.items()}, progress)
    return Candidates(rule, directions, tried, val)


def _figure(name: str, title: str, unit: str, places: Sequence[Place], values: NDArray[np.float64]) -> Figure:
    layers, positions = (tuple(sorted(set(axis))) for axis in ((p.layer for p in places), (p.position for p in places)))
    of = dict(zip(places, map(float, values), strict=True))
    if len(positions) == 1:
        y = tuple(of[Place(positions[0], layer)] for layer in layers)
        return Curve(name=name, title=title, x_label="layer", y_label=unit, x=tuple(map(float, layers)), y=y)
    return Grid(
        name=name,
        title=f"{title}, {unit}",
        x_label="token, from the end",
        y_label="layer",
        columns=tuple(map(str, positions)),
        rows=tuple(map(str, layers)),
        values=tuple(tuple(of[Place(position, layer)] for position in positions) for layer in layers),
    )
