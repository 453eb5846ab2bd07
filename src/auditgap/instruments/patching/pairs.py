"""Pairs of prompts made ready for patching, single patches at chosen places, and the statistics of a grid of effects."""

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
from auditgap.models import Edit, Model, capture_tokens, editing, next_logits, patching_sweep, token_id, tokenize
from auditgap.models.patch import Direction, PatchSite
from auditgap.stats import max_statistic_p

__all__ = [
    "Columns",
    "Pairs",
    "Patch",
    "Reading",
    "Runs",
    "align",
    "best_cell",
    "group_means",
    "mean_elsewhere",
    "n_same_conclusion",
    "read_pairs",
    "sign_flip_p",
    "sweep",
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


def mean_elsewhere(
    cells: Sequence[Float[np.ndarray, " _"]], first: Sequence[int], positions: Int[np.ndarray, " pair"]
) -> Float[np.ndarray, " pair"]:
    """The mean effect over a layer's other positions from the first difference on: what a random one would give; NaN if none."""
    found = np.full(len(cells), np.nan)
    for row, effects in enumerate(cells):
        rest = np.delete(effects, positions[row])[first[row] :]
        if len(rest):
            found[row] = rest.mean()
    return found


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


class Reading(NamedTuple):
    """What is kept of the next-token logits of one run of every pair."""

    answer: Float[np.ndarray, " pair"]
    foil: Float[np.ndarray, " pair"]
    total: Float[np.ndarray, " pair"]
    """logsumexp over the vocabulary."""

    @property
    def logit_diff(self) -> Float[np.ndarray, " pair"]:
        """Logit of the answer less that of the foil."""
        return self.answer - self.foil

    @property
    def log_prob(self) -> Float[np.ndarray, " pair"]:
        """Log-probability of the answer, in nats."""
        return self.answer - self.total

    def max_change(self, other: "Reading") -> float:
        """The largest difference from another run, in logits."""
        return float(np.abs(np.array(self) - np.array(other)).max())


class Patch(NamedTuple):
    """One vector for each pair, to be put at one position of one site."""

    site: str
    """e.g. `resid_pre.3`."""
    positions: Int[np.ndarray, " pair"]
    values: Float[Tensor, "pair d_model"]


class Runs(NamedTuple):
    """Runs of one prompt of every pair, one patch at a time: the plain way, to which the sweep is held."""

    model: Model
    pairs: Pairs
    batch_size: int

    def vectors(self, prompts: Sequence[str], site: str, positions: Int[np.ndarray, " pair"]) -> Float[Tensor, "pair d_model"]:
        """The activation at each pair's position."""
        found: dict[int, Tensor] = {}
        for rows in self.pairs.by_length(self.batch_size):
            x = capture_tokens(self.model, tokenize(self.model, [prompts[row] for row in rows]), [site])[site]
            found |= zip(rows, x[torch.arange(len(rows)), torch.from_numpy(positions[rows])], strict=True)
        return torch.stack([found[row] for row in range(len(prompts))])

    def read(self, prompts: Sequence[str], patch: Patch | None = None) -> Reading:
        """The next token of each run, untouched or patched, in batches of the same shape: no change is no difference."""
        found: dict[int, Tensor] = {}
        for rows in self.pairs.by_length(self.batch_size):
            with editing(self.model, {patch.site: _put(patch, rows)} if patch else {}):
                logits = next_logits(self.model, [prompts[row] for row in rows], batch_size=len(rows)).double()
            every = torch.arange(len(rows))
            answer, foil = logits[every, self.pairs.answer[rows]], logits[every, self.pairs.foil[rows]]
            found |= zip(rows, torch.stack([answer, foil, logits.logsumexp(-1)], dim=1), strict=True)
        answer, foil, total = torch.stack([found[row] for row in range(len(prompts))]).numpy().T
        return Reading(answer, foil, total)


def sweep(
    model: Model, pairs: Pairs, *, site: PatchSite, direction: Direction, max_rows: int
) -> list[Float[np.ndarray, "layer _"]]:
    """Effect of patching each layer and position of each pair, as a share of the pair's gap: 1 restores or destroys all of it."""
    found: dict[int, NDArray[np.float64]] = {}
    for rows in pairs.by_length(len(pairs.rows)):
        batch = pairs.take(rows)
        answer, foil = batch.answer.to(model.device), batch.foil.to(model.device)

        def metric(
            logits: Float[Tensor, "row vocab"], pair: Int[Tensor, " row"], answer: Tensor = answer, foil: Tensor = foil
        ) -> Float[Tensor, " row"]:
            every = torch.arange(len(pair), device=pair.device)
            return logits[every, answer[pair]] - logits[every, foil[pair]]

        raw = patching_sweep(
            model,
            torch.stack(batch.clean),
            torch.stack(batch.corrupted),
            metric=metric,
            site=site,
            direction=direction,
            max_rows=max(max_rows, model.n_layers),
        )
        patched, clean, corrupted = raw.effects.double(), *(x.double()[:, None, None] for x in (raw.clean, raw.corrupted))
        effects = (patched - corrupted if direction == "denoising" else clean - patched) / (clean - corrupted)
        found |= zip(rows, effects.numpy(), strict=True)
    return [found[row] for row in range(len(pairs.rows))]


def _put(patch: Patch, rows: list[int]) -> Edit:
    at, values = torch.from_numpy(patch.positions[rows]), patch.values[rows]

    def edit(x: Tensor) -> Tensor:
        patched = x.clone()
        patched[torch.arange(len(rows)), at] = values.to(x.device, x.dtype)
        return patched

    return edit
