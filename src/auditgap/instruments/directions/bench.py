"""Trying a direction of the residual stream: taking it out of the model, and putting it in, for one call at a time.

Source: A. Arditi et al., Refusal in Language Models Is Mediated by a Single Direction (2024), arXiv:2406.11717.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from auditgap.data import ContrastSet, Prompt
from auditgap.models import Model, ablating, add, behaviour_score, editing, next_logits

__all__ = ["Bench", "Edited", "Rows"]


class Edited(NamedTuple):
    """Behaviour scores of rows with one direction taken out, and put in."""

    ablated: NDArray[np.float64]
    """Every row with the direction ablated."""
    added: NDArray[np.float64]
    """Label-0 rows with the direction added at its layer; NaN for label 1."""


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

    def steered(
        self, rows: Rows, direction: Float[Tensor, " d_model"], layer: int, *, label: int = 0, dose: float = 1.0
    ) -> NDArray[np.float64]:
        """Scores of the rows of one class with the direction added; NaN for the other."""
        scores = np.full(len(rows.labels), math.nan)
        scores[rows.labels == label] = self.scores(self.added(rows.of(label), direction, layer, dose=dose))
        return scores

    def edited(self, rows: Rows, direction: Float[Tensor, " d_model"], layer: int) -> Edited:
        """Each row's score with the direction taken out and, for label 0, put in."""
        return Edited(self.scores(self.ablated(rows.prompts, direction)[0]), self.steered(rows, direction, layer))
