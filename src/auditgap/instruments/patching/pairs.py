"""Pairs of prompts made ready for patching, and the statistics of a grid of effects."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from auditgap.data import PairRow, PairSet, Split
from auditgap.errors import DataError
from auditgap.models import Model, token_id, tokenize
from auditgap.models.patch import Direction
from auditgap.stats import max_statistic_p

__all__ = [
    "Columns",
    "Pairs",
    "align",
    "best_cell",
    "cell_interval",
    "elsewhere",
    "group_means",
    "n_same_conclusion",
    "random_site_p",
    "read_pairs",
    "sign_flip_p",
]


class Columns(NamedTuple):
    """Token positions that mean the same in every pair."""

    labels: tuple[str, ...]
    positions: Int[np.ndarray, "pair column"]


def align(first: Sequence[int], last: Sequence[int], lengths: Sequence[int]) -> Columns:
    """Columns of the grid: where the difference starts, where it ends and what follows, and what leads up to the prompt's end.

    `first` and `last` are the first and last differing token. A model gathers a word of several tokens on its last one, so that
    is the anchor. The window is the shortest tail (tokens from there to the end) of any pair, so every pair has every column;
    where all tails are equally long, one set of columns is enough. Tokens inside a difference of three or more have no column.
    """
    start, end, tails = np.asarray(first), np.asarray(last), np.asarray(lengths) - np.asarray(last)
    window = int(tails.min())
    steps = np.arange(window)
    anchor = "difference" if (start == end).all() else "difference end"
    named = [anchor, *(f"{anchor}+{step}" for step in range(1, window))]
    positions = [end[:, None] + steps]
    if (tails > window).any():
        named += [*(f"prompt end-{step}" for step in range(window - 1, 0, -1)), "prompt end"]
        positions.append((end + tails - window)[:, None] + steps)
    elif window > 1:
        named[-1] = "prompt end"
    if (start < end).any():
        return Columns(("difference start", *named), np.concatenate([start[:, None], *positions], axis=1))
    return Columns(tuple(named), np.concatenate(positions, axis=1))


def sign_flip_p(effects: Float[np.ndarray, "group cell"], *, n_flips: int, seed: int) -> float:
    """How often the best cell of a grid this wide would do as well if each group's effects had a random sign.

    One row per independent group; signs are flipped for whole rows, so dependence between cells is kept.
    """
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(n_flips, len(effects)))
    return max_statistic_p(float(effects.mean(axis=0).max()), (signs @ effects / len(effects)).max(axis=1))


def group_means(
    effects: Float[np.ndarray, "pair cell"], groups: Sequence[str], rows: Sequence[int]
) -> Float[np.ndarray, "group cell"]:
    """Mean effects of each group among these rows, groups in alphabetical order."""
    names = sorted({groups[row] for row in rows})
    return np.stack([effects[[row for row in rows if groups[row] == name]].mean(axis=0) for name in names])


def best_cell(
    by_way: Mapping[Direction, Float[np.ndarray, "group cell"]], weights: Float[np.ndarray, "draw group"] | None = None
) -> Int[np.ndarray, " draw"]:
    """The cell whose weaker mean effect of the two ways is largest, for each weighting of the groups; even ones if None."""
    means = [values.mean(axis=0)[None] if weights is None else weights @ values for values in by_way.values()]
    return np.min(means, axis=0).argmax(axis=1)


def n_same_conclusion(
    choosing: Mapping[Direction, Float[np.ndarray, "group cell"]],
    judging: Mapping[Direction, Float[np.ndarray, "judge cell"]],
    *,
    min_effect: float,
    n_resamples: int,
    seed: int,
) -> int:
    """In how many resamples of the groups the whole procedure, choice of the cell included, concludes the same.

    The cell is chosen on the first groups; the conclusion is whether both mean effects of the second reach `min_effect` there.
    """
    rng = np.random.default_rng(seed)

    def draws(by_way: Mapping[Direction, NDArray[np.float64]]) -> NDArray[np.float64]:
        n_groups = len(by_way["denoising"])
        return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples) / n_groups

    cells, weights = best_cell(choosing, draws(choosing)), draws(judging)
    drawn = np.min([np.take_along_axis(weights @ values, cells[:, None], axis=1)[:, 0] for values in judging.values()], axis=0)
    truth = min(values.mean(axis=0)[best_cell(choosing)[0]] for values in judging.values())
    return int(((drawn >= min_effect) == (truth >= min_effect)).sum())


def elsewhere(effects: Float[np.ndarray, "head pos"], *, first: int, head: int, position: int) -> Float[np.ndarray, " site"]:
    """The effects at a layer's other sites from the first difference on: other positions, and other heads of any position."""
    others = np.ones(effects.shape, dtype=bool)
    others[:, :first] = False
    others[head, position] = False
    return effects[others]


def random_site_p(
    at_locus: Float[np.ndarray, "way pair"],
    others: Sequence[Float[np.ndarray, "way _"]],
    *,
    n_draws: int,
    seed: int,
) -> float:
    """How often random sites, one of each pair's `others`, do as well in their weaker way; NaN if there are none."""
    used = [row for row, sites in enumerate(others) if sites.shape[1]]
    if not used:
        return math.nan
    rng = np.random.default_rng(seed)
    total = sum(others[row][:, rng.integers(others[row].shape[1], size=n_draws)] for row in used)
    observed = at_locus[:, used].mean(axis=1).min()
    return max_statistic_p(float(observed), np.min(total / len(used), axis=0))


def cell_interval(
    effects: Float[np.ndarray, "group cell"], *, n_resamples: int, seed: int, level: float = 0.95
) -> Float[np.ndarray, "2 cell"]:
    """Low and high end of each cell's mean, groups resampled; each cell on its own, not the grid as a whole."""
    n = len(effects)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples) / n
    return np.quantile(weights @ effects, [(1 - level) / 2, (1 + level) / 2], axis=0)


class Pairs(NamedTuple):
    """Pairs whose two prompts have equally many tokens, in an order that does not depend on the file."""

    rows: tuple[PairRow, ...]
    clean: list[Int[Tensor, " _"]]
    corrupted: list[Int[Tensor, " _"]]
    answer: Int[Tensor, " pair"]
    foil: Int[Tensor, " pair"]

    def prompts(self, role: Literal["clean", "corrupted"]) -> list[str]:
        """One prompt of every pair."""
        return [getattr(row, role) for row in self.rows]

    def of_splits(self, *splits: Split) -> list[int]:
        """Indices of the pairs of these splits."""
        return [index for index, row in enumerate(self.rows) if row.split in splits]

    @property
    def groups(self) -> list[str]:
        """The group of each pair."""
        return [row.group for row in self.rows]

    @property
    def lengths(self) -> list[int]:
        """Tokens per prompt."""
        return [len(ids) for ids in self.clean]

    @property
    def first(self) -> list[int]:
        """The position of each pair's first differing token."""
        return [int((a != b).nonzero()[0]) for a, b in zip(self.clean, self.corrupted, strict=True)]

    @property
    def last(self) -> list[int]:
        """The position of each pair's last differing token."""
        return [int((a != b).nonzero()[-1]) for a, b in zip(self.clean, self.corrupted, strict=True)]

    def take(self, rows: Sequence[int]) -> "Pairs":
        """Some of the pairs."""
        index = torch.tensor(rows, dtype=torch.long)
        return Pairs(
            tuple(self.rows[row] for row in rows),
            [self.clean[row] for row in rows],
            [self.corrupted[row] for row in rows],
            self.answer[index],
            self.foil[index],
        )

    def by_length(self, size: int) -> Iterator[list[int]]:
        """Indices of at most `size` pairs of equal length at a time: such a batch needs no padding."""
        buckets = defaultdict(list)
        for row, length in enumerate(self.lengths):
            buckets[length].append(row)
        for _, rows in sorted(buckets.items()):
            for start in range(0, len(rows), size):
                yield rows[start : start + size]


def read_pairs(model: Model, data: PairSet) -> Pairs:
    """Tokenise a set of pairs.

    Raises:
        DataError: prompts of a pair differ in length or not at all; the message names every such row.
        UsageError: an answer or foil is not one token.
    """
    uneven, same = [], []
    encoded = []
    for number, row in enumerate(data.rows, start=1):
        clean, corrupted = (tokenize(model, [prompt]).input_ids[0].cpu() for prompt in (row.clean, row.corrupted))
        if len(clean) != len(corrupted):
            uneven.append(f"row {number} ({len(clean)} and {len(corrupted)})")
        elif torch.equal(clean, corrupted):
            same.append(f"row {number}")
        encoded.append((row, clean, corrupted))
    if uneven:
        raise DataError(
            f"{data.source}: clean and corrupted must have equally many tokens, or no position corresponds to another; got "
            f"{', '.join(uneven)}; choose words that the tokenizer splits alike"
        )
    if same:
        raise DataError(f"{data.source}: clean and corrupted are the same tokens in {', '.join(same)}; there is nothing to patch")
    encoded.sort(key=lambda item: item[0].canonical())
    ids = {text: token_id(model, text) for row in data.rows for text in (row.answer, row.foil)}
    rows, clean, corrupted = ([item[part] for item in encoded] for part in range(3))
    answer, foil = (torch.tensor([ids[getattr(row, role)] for row in rows]) for role in ("answer", "foil"))
    return Pairs(tuple(rows), clean, corrupted, answer, foil)
