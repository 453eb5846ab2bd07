"""From a model and prompts to what the probe is fitted on: one vector a prompt and place, or every token."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from auditgap.data import SPLITS, ContrastSet, Split, as_text
from auditgap.errors import CannotMeasure
from auditgap.instruments.mechanistic.linear_probe.transfer import MIN_GROUPS
from auditgap.instruments.probing.baselines import random_features
from auditgap.instruments.probing.controls import Folds
from auditgap.instruments.probing.probe import Fold
from auditgap.instruments.probing.tokens import Tokens, capture_to_disk, token_means
from auditgap.models import Model, Positions, capture
from auditgap.models.tokens import prompt_ids
from auditgap.models.untrained import untrained

__all__ = ["Position", "Reader", "bag_of_tokens", "in_one_order", "require_groups"]

Span = Annotated[str, Field(pattern=r"^(-?\d+)?:(-?\d+)?$")]
"""Tokens by Python's slice notation, their mean taken: `-5:` is the last five."""

Position = Literal["last", "mean", "max", "every"] | int | Span


def require_groups(data: ContrastSet) -> None:
    """Check that there are groups enough to fit, choose and score.

    Raises:
        CannotMeasure: a split has fewer than 4 of a class.
    """
    short = []
    for split in ("train", "val", "test"):
        for label, name in enumerate(data.classes):
            n_groups = len({row.group for row in data.split(split).rows if row.label == label})
            if n_groups < MIN_GROUPS:
                short.append(f"{split} has {n_groups} of '{name}'")
    if short:
        raise CannotMeasure(
            f"{data.source}: expected at least {MIN_GROUPS} groups of each class in train, val and test; {', '.join(short)}. "
            "Add rows, or leave out 'split' everywhere to have the groups divided"
        )


def in_one_order(data: ContrastSet) -> ContrastSet:
    """The rows sorted by content: the digest of a set does not depend on their order, so neither may a result."""
    return data.model_copy(update={"rows": tuple(sorted(data.rows, key=lambda row: row.canonical()))})


@dataclass(frozen=True)
class Reader:
    """Which places of a model are read, and how."""

    sites: Sequence[str]
    positions: Sequence[Position]
    all_tokens: bool
    """At position `every`: whether the prompts that are scored keep their tokens too, or their mean, which linear scores need."""
    batch_size: int

    def read(self, model: Model, data: ContrastSet, *, folder: Path) -> Folds:
        """One vector a prompt for each site at each position, position by position; tokens lie on disk below `folder`.

        Raises:
            CannotMeasure: an activation is not finite, or the disk cannot hold every token.
            UsageError: a site is unknown, or a prompt has no such position.
        """
        if tuple(self.positions) != ("every",):
            return _split(data, np.concatenate([self._vectors(model, data, _policy(position)) for position in self.positions]))
        folds = {}
        for split in SPLITS:
            part = data.split(split)
            features, tokens = np.zeros((len(self.sites), 0, 1)), list[Tokens]()
            if part.rows and (self.all_tokens or split == "train"):
                (folder / split).mkdir(parents=True)
                tokens = capture_to_disk(model, part.prompts, self.sites, folder=folder / split, batch_size=self.batch_size)
                features = np.stack([token_means(place) for place in tokens])
            elif part.rows:
                features = self._vectors(model, part, "mean")
            folds[split] = _split(part, features)[split]._replace(tokens=tokens)
        return folds

    def read_untrained(self, model: Model, data: ContrastSet, *, folder: Path, max_parameters: int, seed: int) -> Folds | str:
        """The same of the model with fresh weights, but for `ood`; the reason if it is too large to be built again."""
        if model.subject.n_parameters > max_parameters:
            return f"{model.subject.n_parameters} parameters, at most {max_parameters} are built again: max_untrained_parameters"
        seen = data.model_copy(update={"rows": tuple(row for row in data.rows if row.split != "ood")})
        return self.read(untrained(model, seed=seed), seen, folder=folder)

    def _vectors(self, model: Model, data: ContrastSet, positions: Positions) -> Float[np.ndarray, "site row d"]:
        captured = capture(model, data.prompts, self.sites, positions=positions, batch_size=self.batch_size)
        features = np.stack([captured[name].numpy() for name in self.sites])
        if not np.isfinite(features).all():
            broken = self.sites[int(np.flatnonzero(~np.isfinite(features).all(axis=(1, 2)))[0])]
            raise CannotMeasure(
                f"{broken}: expected finite activations, got NaN or infinity; open the model in float32 or bfloat16"
            )
        return features


def bag_of_tokens(model: Model, data: ContrastSet, *, seed: int) -> Folds:
    """Each prompt as a random projection of its bag of tokens, as wide as the residual stream."""
    return _split(data, random_features(prompt_ids(model, data.prompts), width=model.d_model, seed=seed)[None])


def _policy(position: Position) -> Positions:
    if position in ("last", "mean", "max") or isinstance(position, int):
        return position
    start, _, stop = str(position).partition(":")
    return slice(int(start) if start else None, int(stop) if stop else None)


def _split(data: ContrastSet, features: Float[np.ndarray, "place row d"]) -> Folds:
    groups, texts, datasets = data.groups, [as_text(prompt) for prompt in data.prompts], [row.dataset for row in data.rows]
    at: dict[Split, list[int]] = {split: [i for i, row in enumerate(data.rows) if row.split == split] for split in SPLITS}
    return {
        split: Fold(
            features[:, rows],
            data.labels[rows],
            [groups[i] for i in rows],
            [texts[i] for i in rows],
            datasets=[datasets[i] for i in rows],
        )
        for split, rows in at.items()
    }
