"""Where a direction is looked for, and which one is taken.

1. Places: every layer, at the tokens of the chat template that follow the instruction, or at the last token of plain text.
2. Candidates: at each place mean(label 1) - mean(label 0) of the residual stream, on `train`.
3. On `val`: `bypass`, the score of label-1 rows with the direction ablated; `induce`, that of label-0 rows with it added at its
   layer; `kl_nats`, how far ablation moves the predictions of label-0 rows.
4. The rule: drop what has no score, layers from `max_depth` on (they write the answer rather than decide it), what moves other
   predictions too far, and what does not induce; of the rest take the smallest bypass, the first of equals.

Source: A. Arditi et al., Refusal in Language Models Is Mediated by a Single Direction (2024), arXiv:2406.11717, appendix C.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from auditgap.data import Prompt
from auditgap.instruments.directions.bench import Bench, Rows
from auditgap.models import Model, capture, kl_nats
from auditgap.models.tokens import prompt_ids
from auditgap.progress import Progress

__all__ = ["Place", "Rule", "Table", "Tried", "directions_at", "draws", "mean_difference", "template_positions", "try_on"]


class Place(NamedTuple):
    """Where a candidate was read off. Places are searched position by position, as the source does: ties go to the first."""

    position: int
    """Of the token, from the end: -1 is the last."""
    layer: int

    def __str__(self) -> str:
        return f"layer {self.layer}, token {self.position}"


def template_positions(model: Model, prompts: Sequence[Prompt]) -> tuple[int, ...]:
    """Positions, from the end, of what the chat template puts after the instruction; (-1,) if any prompt is plain text.

    They are the last tokens that stay where they are when the last message is emptied, the fewest over all prompts.
    """
    counts = []
    for prompt in prompts:
        if isinstance(prompt, str):
            return (-1,)
        emptied = (*prompt[:-1], prompt[-1].model_copy(update={"content": ""}))
        full, empty = (ids[::-1] for ids in prompt_ids(model, [prompt, emptied]))
        pairs = zip(full, empty, strict=False)
        counts.append(next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(full), len(empty))))
    return tuple(range(-max(1, min(counts)), 0))


def mean_difference(activations: Float[Tensor, "prompt d_model"], labels: NDArray[np.int64]) -> Float[Tensor, " d_model"]:
    """mean(label 1) - mean(label 0), accumulated in float64; exactly zero where the classes differ by rounding only."""
    ones, wide = torch.from_numpy(labels == 1), activations.double()
    difference = wide[ones].mean(0) - wide[~ones].mean(0)
    return difference if difference.norm() > 1e-6 * wide.norm(dim=1).max() else torch.zeros_like(difference)


def directions_at(
    bench: Bench, rows: Rows, places: Sequence[Place], labellings: Sequence[NDArray[np.int64]], progress: Progress
) -> dict[Place, Float[Tensor, "labelling d_model"]]:
    """The candidate of each place under each labelling of the rows; one position is held in memory at a time."""
    found: dict[Place, Tensor] = {}
    positions = dict.fromkeys(place.position for place in places)
    for done, position in enumerate(positions):
        progress("positions", done, len(positions))
        layers = [place.layer for place in places if place.position == position]
        sites = [f"resid_pre.{layer}" for layer in layers]
        activations = capture(bench.model, rows.prompts, sites, positions=position, batch_size=bench.batch_size)
        for layer, site in zip(layers, sites, strict=True):
            found[Place(position, layer)] = torch.stack([mean_difference(activations[site], labels) for labels in labellings])
    return {place: found[place] for place in places}


class Table(NamedTuple):
    """The three selection scores of each candidate, for each draw of the rows; NaN where there is none."""

    bypass: Float[np.ndarray, "candidate draw"]
    induce: Float[np.ndarray, "candidate draw"]
    kl_nats: Float[np.ndarray, "candidate draw"]


class Tried(NamedTuple):
    """What each candidate did to each row; NaN where there was no direction to try."""

    base: Float[np.ndarray, " row"]
    """Score without an edit."""
    ablated: Float[np.ndarray, "candidate row"]
    """Score with the direction ablated."""
    added: Float[np.ndarray, "candidate row"]
    """Score with it added, of label-0 rows."""
    kl_nats: Float[np.ndarray, "candidate row"]
    """KL(base || ablated) of the next token."""

    def table(self, labels: NDArray[np.int64], weights: Float[np.ndarray, "draw row"] | None = None) -> Table:
        """The scores, with each row counted as often as it was drawn; without weights once."""
        drawn = np.ones((1, len(labels))) if weights is None else weights

        def mean(values: NDArray[np.float64], label: int) -> NDArray[np.float64]:
            its, weight = values[:, labels == label], drawn[:, labels == label]
            n, tried = weight.sum(1), ~np.isnan(its).any(1, keepdims=True)
            total = np.where(tried, its, 0.0) @ weight.T
            return np.where(tried & (n > 0), total / np.maximum(n, 1), np.nan)

        return Table(mean(self.ablated, 1), mean(self.added, 0), mean(self.kl_nats, 0))

    def unedited(self, labels: NDArray[np.int64]) -> Table:
        """The scores of a candidate that does nothing."""
        base = self.base[None]
        return Tried(self.base, base, base, 0.0 * base).table(labels)


def try_on(bench: Bench, rows: Rows, directions: Mapping[Place, Float[Tensor, " d_model"]], progress: Progress) -> Tried:
    """Take each direction out of the rows and put it into those of label 0."""
    base = bench.base(rows.prompts)
    scores = np.full((3, len(directions), len(rows.labels)), np.nan)
    for index, (place, direction) in enumerate(directions.items()):
        progress("candidates", index, len(directions))
        if direction.norm() > 0:
            ablated = bench.ablated(rows.prompts, direction)[0]
            added = bench.steered(rows, direction, place.layer)
            scores[:, index] = bench.scores(ablated), added, kl_nats(base, ablated).numpy()
    return Tried(bench.scores(base), *scores)


class Rule(NamedTuple):
    """What a candidate must pass, and which of those that pass is taken."""

    n_layers: int
    max_depth: float
    max_kl_nats: float
    induce_min: float

    @property
    def cutoff(self) -> int:
        """The first layer that is too late."""
        return int(self.max_depth * self.n_layers)

    def failures(self, table: Table, layers: Int[np.ndarray, " candidate"]) -> dict[str, Bool[np.ndarray, "candidate draw"]]:
        """Which candidates each filter drops, in the order in which a reason is given."""
        late = np.broadcast_to((layers >= self.cutoff)[:, None], table.bypass.shape)
        return {
            "the class means do not differ, or a score is NaN": np.isnan(table.bypass + table.induce + table.kl_nats),
            f"from layer {self.cutoff} on": late,
            f"KL above {self.max_kl_nats:g} nats": table.kl_nats > self.max_kl_nats,
            f"induce below {self.induce_min:g}": table.induce < self.induce_min,
        }

    def choose(self, table: Table, layers: Int[np.ndarray, " candidate"]) -> Int[np.ndarray, " draw"]:
        """For each draw the candidate with the smallest bypass among those that no filter drops; -1 if there is none."""
        dropped = np.any(list(self.failures(table, layers).values()), axis=0)
        bypass = np.where(dropped, np.inf, table.bypass)
        return np.where(dropped.all(0), -1, bypass.argmin(0))

    def reasons(self, table: Table, layers: Int[np.ndarray, " candidate"]) -> list[str | None]:
        """For each candidate the first filter that drops it in the first draw; None if it passes."""
        failures = {reason: dropped[:, 0] for reason, dropped in self.failures(table, layers).items()}
        return [next((reason for reason, dropped in failures.items() if dropped[i]), None) for i in range(len(layers))]


def draws(groups: Sequence[str], n: int, rng: np.random.Generator) -> Float[np.ndarray, "draw row"]:
    """How often each row is drawn when as many groups as there are are drawn with replacement, n times."""
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    return rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n)[:, codes].astype(np.float64)
