"""Directions of the residual stream: how they are found, tried and chosen.

Source: A. Arditi et al., Refusal in Language Models Is Mediated by a Single Direction (2024), arXiv:2406.11717.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from auditgap.data import ContrastSet, Prompt
from auditgap.models import Model, ablating, add, behaviour_score, editing, kl_nats, next_logits
from auditgap.records import Curve

__all__ = [
    "Bench",
    "Candidate",
    "Edited",
    "Rows",
    "Selection",
    "Tried",
    "candidate_curves",
    "mean_difference",
    "random_directions",
    "select",
]


class Candidate(NamedTuple):
    """What one candidate direction did on the validation rows; NaN where it could not be tried."""

    layer: int
    bypass: float
    """Mean score of label-1 prompts with the direction ablated: the lower, the more the behaviour needed it."""
    induce: float
    """Mean score of label-0 prompts with it added at its layer."""
    kl_nats: float
    """Mean KL(base || ablated) of the next token on label-0 prompts."""


class Edited(NamedTuple):
    """Behaviour scores of rows with one direction taken out, and put in."""

    ablated: NDArray[np.float64]
    """Every row with the direction ablated."""
    added: NDArray[np.float64]
    """Label-0 rows with the direction added at its layer; NaN for label 1."""


class Tried(NamedTuple):
    """What one direction did to each validation row."""

    layer: int
    scores: Edited
    kl_nats: NDArray[np.float64]
    """KL(base || ablated) of the next token."""

    def candidate(self, labels: NDArray[np.int64], drawn: NDArray[np.intp]) -> Candidate:
        """The three selection scores over the drawn rows; NaN if a class was not drawn."""
        ones, zeros = drawn[labels[drawn] == 1], drawn[labels[drawn] == 0]
        if not (len(ones) and len(zeros)):
            return Candidate(self.layer, math.nan, math.nan, math.nan)
        values = self.scores.ablated[ones], self.scores.added[zeros], self.kl_nats[zeros]
        return Candidate(self.layer, *(float(part.mean()) for part in values))


class Selection(NamedTuple):
    """Which candidate was chosen, and why others could not be."""

    chosen: int | None
    """Index in the table; None if the filter left nothing."""
    rejected: dict[int, str]


def select(
    candidates: Sequence[Candidate], *, n_layers: int, max_depth: float, max_kl_nats: float, induce_min: float
) -> Selection:
    """The candidate with the smallest bypass among those that pass the filter.

    Dropped: NaN, layers from `max_depth * n_layers` on (they write the answer rather than decide it), KL above `max_kl_nats`,
    induce below `induce_min`.

    Source: arXiv:2406.11717, appendix C.
    """
    cutoff = max(1, int(max_depth * n_layers))
    rejected = {}
    for index, candidate in enumerate(candidates):
        if any(math.isnan(value) for value in candidate[1:]):
            rejected[index] = "the class means do not differ, or a score is NaN"
        elif candidate.layer >= cutoff:
            rejected[index] = f"layer {candidate.layer} is not below {cutoff}"
        elif candidate.kl_nats > max_kl_nats:
            rejected[index] = f"KL {candidate.kl_nats:.3g} > {max_kl_nats:g} nats"
        elif candidate.induce < induce_min:
            rejected[index] = f"induce {candidate.induce:.3g} < {induce_min:g}"
    alive = [index for index in range(len(candidates)) if index not in rejected]
    return Selection(min(alive, key=lambda index: candidates[index].bypass, default=None), rejected)


def mean_difference(activations: Float[Tensor, "prompt d_model"], labels: NDArray[np.int64]) -> Float[Tensor, " d_model"]:
    """mean(label 1) - mean(label 0), accumulated in float64; exactly zero where the classes differ by rounding only."""
    ones, wide = torch.from_numpy(labels == 1), activations.double()
    difference = wide[ones].mean(0) - wide[~ones].mean(0)
    return difference if difference.norm() > 1e-6 * wide.norm(dim=1).max() else torch.zeros_like(difference)


def random_directions(like: Float[Tensor, " d_model"], n: int, rng: np.random.Generator) -> list[Float[Tensor, " d_model"]]:
    """Directions drawn evenly from the sphere on which `like` lies."""
    drawn = torch.from_numpy(rng.standard_normal((n, len(like))))
    return list(like.norm() * drawn / drawn.norm(dim=1, keepdim=True))


class Rows(NamedTuple):
    """The rows of one split, in an order that does not depend on the file."""

    prompts: list[Prompt]
    labels: NDArray[np.int64]
    groups: list[str]

    @classmethod
    def read(cls, data: ContrastSet) -> "Rows":
        """The rows of a set, sorted by content."""
        rows = sorted(data.rows, key=lambda row: row.canonical())
        return cls([row.prompt for row in rows], np.array([row.label for row in rows]), [row.group for row in rows])

    def of(self, label: int) -> list[Prompt]:
        """The prompts of one class."""
        return [prompt for prompt, its in zip(self.prompts, self.labels, strict=True) if its == label]


@dataclass(frozen=True, eq=False)
class Bench:
    """The model, read through one behaviour score, with and without an edit that lives for one call."""

    model: Model
    answers: tuple[int, ...]
    foils: tuple[int, ...]
    batch_size: int

    def base(self, prompts: Sequence[Prompt]) -> Float[Tensor, "prompt vocab"]:
        """Next-token logits as the model gives them."""
        return next_logits(self.model, prompts, batch_size=self.batch_size)

    def ablated(
        self, prompts: Sequence[Prompt], direction: Float[Tensor, " d_model"]
    ) -> tuple[Float[Tensor, "prompt vocab"], float]:
        """Logits with the direction projected out at every residual write, and the largest share of it that was left."""
        if not direction.norm() > 0:  # shuffled labels can cancel exactly; then there is nothing to remove
            return self.base(prompts), 0.0
        with ablating(self.model, (direction / direction.norm()).float()) as ablation:
            logits = self.base(prompts)
        return logits, ablation.max_residual

    def added(
        self, prompts: Sequence[Prompt], direction: Float[Tensor, " d_model"], layer: int, *, dose: float = 1.0
    ) -> Float[Tensor, "prompt vocab"]:
        """Logits with `dose` times the direction added to every position at one layer."""
        with editing(self.model, {f"resid_pre.{layer}": add(direction.float(), scale=dose)}):
            return self.base(prompts)

    def scores(self, logits: Float[Tensor, "prompt vocab"]) -> NDArray[np.float64]:
        """The behaviour score of each prompt."""
        return behaviour_score(logits, self.answers, self.foils).numpy()

    def edited(self, rows: Rows, direction: Float[Tensor, " d_model"], layer: int) -> Edited:
        """Each row's score with the direction taken out and, for label 0, put in."""
        ablated, added = self.ablated(rows.prompts, direction)[0], np.full(len(rows.labels), math.nan)
        added[rows.labels == 0] = self.scores(self.added(rows.of(0), direction, layer))
        return Edited(self.scores(ablated), added)

    def tried(self, rows: Rows, base: Float[Tensor, "prompt vocab"], direction: Float[Tensor, " d_model"], layer: int) -> Tried:
        """What one direction does to each row; `base` are the rows' logits without an edit."""
        if not direction.norm() > 0:
            nothing = np.full(len(rows.labels), math.nan)
            return Tried(layer, Edited(nothing, nothing), nothing)
        moved = kl_nats(base, self.ablated(rows.prompts, direction)[0]).numpy()
        return Tried(layer, self.edited(rows, direction, layer), moved)


def candidate_curves(table: Sequence[Candidate]) -> tuple[Curve, ...]:
    """Bypass, induce and KL by layer, where they have a value."""
    tried = [candidate for candidate in table if not any(math.isnan(value) for value in candidate[1:])]
    if not tried:
        return ()
    return tuple(
        Curve(
            name=f"candidates.{name}",
            title=title,
            x_label="layer",
            y_label=unit,
            x=tuple(float(candidate.layer) for candidate in tried),
            y=tuple(getattr(candidate, name) for candidate in tried),
        )
        for name, title, unit in (
            ("bypass", "Score of label-1 prompts with the layer's direction ablated (val)", "logits"),
            ("induce", "Score of label-0 prompts with the layer's direction added (val)", "logits"),
            ("kl_nats", "KL of label-0 predictions under ablation (val)", "nats"),
        )
    )
