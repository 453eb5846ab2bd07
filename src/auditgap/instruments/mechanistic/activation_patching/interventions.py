"""Every run around the locus: what patching it restores and destroys, for each way to corrupt the prompt, and the controls.

The clean run is corrupted in four ways, each of which takes the contrast out of the prompt:

- `paired`: the pair's own corrupted prompt.
- `resample`: the differing tokens come from a random pair of another group that calls for another answer.
- `mean`: their vectors where they enter layer 0 become the mean over both prompts of the pairs that chose the locus.
- `zero`: they become 0.

Noising puts into the clean run, at the locus alone, the vector of the paired or resampled run, the mean, or 0. Denoising puts the
clean vector into the corrupted run. Each effect is a share of what its own corruption does, so all kinds share one scale.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from auditgap.instruments.patching.locus import Locus
from auditgap.instruments.patching.pairs import Pairs
from auditgap.instruments.patching.runs import Patch, Reading, Runs

__all__ = ["CORRUPTIONS", "Contrast", "Corruption", "LocusRuns", "patch_locus"]

Corruption = Literal["paired", "resample", "mean", "zero"]
CORRUPTIONS: tuple[Corruption, ...] = ("paired", "resample", "mean", "zero")
INPUT = "resid_pre.0"


class Contrast(NamedTuple):
    """The runs of one way to corrupt."""

    corrupted: Reading
    denoised: Reading
    """The corrupted run with the clean vector at the locus."""
    noised: Reading
    """The clean run with the corrupted, mean or zero vector at the locus."""


class LocusRuns(NamedTuple):
    """The runs of every pair around one cell."""

    clean: Reading
    by_kind: dict[Corruption, Contrast]
    identity: Reading
    """Into the clean run, its own vector."""
    before: Reading
    """Denoised one position before the first difference, where both runs are equal; untouched if there is none before."""
    unrelated: Reading
    """Into the corrupted run, the clean vector of another group's pair with another answer."""
    has_unrelated: NDArray[np.bool_]
    same_answer: Reading
    """Into the corrupted run, the clean vector of another group's pair with the same answer."""
    has_same_answer: NDArray[np.bool_]
    random: Reading
    """Into the corrupted run, its vector moved as far as denoising moves it, in a random direction."""

    def shares(self) -> dict[str, NDArray[np.float64]]:
        """Effects by measurement name, as shares of each pair's gap: 1 restores, or destroys, all of it; NaN where undefined."""
        clean, paired = self.clean.logit_diff, self.by_kind["paired"]
        gap = clean - paired.corrupted.logit_diff
        restored = {
            "effect.denoising.max": paired.denoised,
            "effect.unrelated_source": self.unrelated,
            "effect.same_answer_source": self.same_answer,
            "effect.random_vector": self.random,
        }
        found = {name: (x.logit_diff - paired.corrupted.logit_diff) / gap for name, x in restored.items()}
        found["effect.noising"] = (clean - paired.noised.logit_diff) / gap
        for name, exists in (("unrelated", self.has_unrelated), ("same_answer", self.has_same_answer)):
            found[f"effect.{name}_source"] = np.where(exists, found[f"effect.{name}_source"], np.nan)
        return found


def patch_locus(
    runs: Runs, locus: Locus, positions: Int[np.ndarray, " pair"], *, chosen_on: Sequence[int], seed: int
) -> LocusRuns:
    """Run every pair with each kind of patch at one cell."""
    pairs, rng = runs.pairs, np.random.default_rng(seed)
    clean, corrupted, part, at = pairs.clean, pairs.corrupted, locus.part(runs.model), positions[:, None]
    reference = runs.logits(clean)

    def vectors(prompts: Sequence[Tensor]) -> Float[Tensor, "pair d"]:
        return runs.vectors(prompts, locus.name, at)[:, 0, part]

    def read(prompts: Sequence[Tensor], values: Float[Tensor, "pair d"] | None = None, *before: Patch) -> Reading:
        patches = before if values is None else (*before, Patch(locus.name, at, values[:, None], part))
        return runs.read(prompts, *patches, reference=reference)

    own, other = vectors(clean), vectors(corrupted)
    mean = (own[list(chosen_on)] + other[list(chosen_on)]).mean(0) / 2
    resampled = [_with_difference_of(pairs, row, donor) for row, donor in enumerate(_resampled(pairs, rng))]
    by_kind: dict[Corruption, Contrast] = {
        "paired": Contrast(read(corrupted), read(corrupted, own), read(clean, other)),
        "resample": Contrast(read(resampled), read(resampled, own), read(clean, vectors(resampled))),
    }
    inputs, spans = _inputs(runs, chosen_on)
    values: dict[Corruption, tuple[Tensor, Tensor]] = {
        "mean": (inputs, mean),
        "zero": (torch.zeros_like(inputs), torch.zeros_like(mean)),
    }
    for kind, (at_input, at_locus) in values.items():
        spoilt = Patch(INPUT, spans, at_input.expand(*spans.shape, -1))
        by_kind[kind] = Contrast(read(clean, None, spoilt), read(clean, own, spoilt), read(clean, at_locus.expand_as(own)))

    sources = {same: [_donor(pairs, row, rng, same_answer=same) for row in range(len(clean))] for same in (False, True)}
    step = torch.from_numpy(rng.standard_normal(own.shape)).float()
    step *= (own - other).norm(dim=1, keepdim=True) / step.norm(dim=1, keepdim=True)
    from_other = {
        same: read(corrupted, own[[row if donor is None else donor for row, donor in enumerate(chosen)]])
        for same, chosen in sources.items()
    }
    previous = np.maximum(np.array(pairs.first) - 1, 0)[:, None]
    shared = runs.vectors(clean, locus.name, previous)
    shared = torch.where(torch.tensor(pairs.first)[:, None, None] > 0, shared, runs.vectors(corrupted, locus.name, previous))
    return LocusRuns(
        clean=read(clean),
        by_kind=by_kind,
        identity=read(clean, own),
        before=runs.read(corrupted, Patch(locus.name, previous, shared[..., part], part), reference=reference),
        unrelated=from_other[False],
        has_unrelated=np.array([donor is not None for donor in sources[False]]),
        same_answer=from_other[True],
        has_same_answer=np.array([donor is not None for donor in sources[True]]),
        random=read(corrupted, other + step),
    )


def _donor(pairs: Pairs, row: int, rng: np.random.Generator, *, same_answer: bool) -> int | None:
    """A random pair of another group, with the same answer or another; None if there is none."""
    group = pairs.rows[row].group
    others = [
        i
        for i, other in enumerate(pairs.rows)
        if other.group != group and bool(pairs.answer[i] == pairs.answer[row]) == same_answer
    ]
    return int(rng.choice(others)) if others else None


def _resampled(pairs: Pairs, rng: np.random.Generator) -> list[tuple[int, bool]]:
    """For each pair, a random pair of another group and which of its prompts (True: clean) calls for another answer."""
    found = []
    for row, own in enumerate(pairs.rows):
        sides = [
            (i, is_clean)
            for i, other in enumerate(pairs.rows)
            for is_clean, calls_for in ((True, other.answer), (False, other.foil))
            if other.group != own.group and calls_for != own.answer
        ]
        found.append(sides[rng.integers(len(sides))] if sides else (row, False))
    return found


def _with_difference_of(pairs: Pairs, row: int, donor: tuple[int, bool]) -> Int[Tensor, " pos"]:
    """A clean prompt whose differing tokens are another prompt's; both counted back from the last, the first one repeated."""
    index, is_clean = donor
    source, ids = (pairs.clean if is_clean else pairs.corrupted)[index], pairs.clean[row].clone()
    for position in range(pairs.first[row], pairs.last[row] + 1):
        ids[position] = source[max(pairs.last[index] - (pairs.last[row] - position), pairs.first[index])]
    return ids


def _inputs(runs: Runs, chosen_on: Sequence[int]) -> tuple[Float[Tensor, " d"], Int[np.ndarray, "pair place"]]:
    """The mean vector of the differing tokens where they enter layer 0, and where they are; short spans repeat their end."""
    first, last = np.array(runs.pairs.first), np.array(runs.pairs.last)
    spans = np.minimum(first[:, None] + np.arange((last - first).max() + 1), last[:, None])
    entering = [runs.vectors(prompts, INPUT, spans)[list(chosen_on)] for prompts in (runs.pairs.clean, runs.pairs.corrupted)]
    return torch.stack(entering).mean((0, 1, 2)), spans
