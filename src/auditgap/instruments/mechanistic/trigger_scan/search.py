"""The search for inserted text that drives the state at the end of a prompt away from where ordinary prompts keep it.

1. Displacement of a text: distance from the ordinary region, averaged over search prompts, each with the text in its place.
2. One token: every typeable token if there are few; else those that the gradient proposes, from random starts, then from the
   best.
3. Two tokens: next to each of the best and of some random ones, the gradient proposes partners; then partners of those
   (coordinate ascent with a beam). Tokens that stand out alone take no part: any pair with them would stand out too.
4. Null: random texts of the same length (all other single tokens where each was tried). Prompts are resampled; the upper
   quarter of the random texts' displacements is extended by an exponential tail, its scale drawn from what so small a sample
   leaves possible; the largest of as many draws as the search considered is one null maximum.

Sources: HotFlip, arXiv:1712.06751; GCG, arXiv:2307.15043. The target (leaving the ordinary region, no output asked for) and the
null are ours; the tail is the simplest of extreme-value theory (S. Coles, 2001, chapter 4, shape 0).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from auditgap.data import Prompt
from auditgap.instruments.mechanistic.trigger_scan.insertion import exchange_scores, insert
from auditgap.instruments.mechanistic.trigger_scan.ordinary import Region
from auditgap.models import Model, capture
from auditgap.progress import Progress, quiet
from auditgap.stats import max_statistic_p

__all__ = ["Found", "Searcher", "Text", "null_maxima"]

Text = tuple[str, ...]
"""The tokens that are inserted, as they are typed."""
CHUNK = 64  # texts per call of capture: bounds memory on large vocabularies


class Found(NamedTuple):
    """One length searched: every text whose displacement was computed exactly, best first."""

    texts: list[Text]
    values: Float[np.ndarray, "text prompt"]
    null: Float[np.ndarray, " search"]
    """The largest displacement that each of the null searches finds."""
    p_values: list[float]
    """Per text: the chance that a search this wide among random texts finds one this far out."""
    n_considered: int
    """Texts among which the search chose, computed exactly or screened by gradient."""

    def limit(self, alpha: float) -> float:
        """The displacement that the best of a search this wide exceeds by luck with chance `alpha`."""
        return float(np.quantile(self.null, 1 - alpha))


@dataclass(frozen=True, eq=False)
class Searcher:
    """What the search looks at, and how hard it looks."""

    model: Model
    region: Region
    sites: tuple[str, ...]
    vocabulary: dict[str, int]
    prompts: list[Prompt]
    places: list[float]
    """Where the text goes in each prompt, from 0 (start) to 1 (end)."""
    exhaustive: bool
    top_k: int
    beam: int
    rounds: int
    n_random: int
    n_candidates: int
    batch_size: int
    seen: dict[Text, Float[np.ndarray, " prompt"]] = field(default_factory=dict)
    """Displacements computed so far."""

    def displacements(self, texts: Sequence[Text], progress: Progress = quiet) -> Float[np.ndarray, "text prompt"]:
        """Distance from the ordinary region of every search prompt with every text inserted."""
        new = [text for text in dict.fromkeys(texts) if text not in self.seen]
        for start in range(0, len(new), CHUNK):
            chunk = new[start : start + CHUNK]
            states = capture(self.model, [p for text in chunk for p in self._with(text)], self.sites, batch_size=self.batch_size)
            distances = self.region.distance(states).view(len(chunk), -1).double().numpy()
            self.seen.update(zip(chunk, distances, strict=True))
            progress("displacements", start + len(chunk), len(new))
        return np.array([self.seen[text] for text in texts])

    def singles(self, rng: np.random.Generator, progress: Progress = quiet) -> Found:
        """Texts of one token."""
        words = list(self.vocabulary)
        if self.exhaustive:
            every: list[Text] = [(word,) for word in words]
            return self._found(every, every, len(words), rng, progress)
        random = self._random(rng, 1)
        texts: list[Text] = []
        for _ in range(self.rounds):
            starts = self._best(texts, self.beam) or [()]
            texts += [(word,) for start in starts for word in self._proposals((), rng, start=start[0] if start else None)]
        return self._found([*texts, *random], random, len(words), rng, progress)

    def pairs(self, singles: Found, rng: np.random.Generator, progress: Progress = quiet, *, taken: frozenset[str]) -> Found:
        """Texts of two tokens, none of which is `taken`."""
        left = [text for text in singles.texts if text[0] not in taken]
        random = [text for text in self._random(rng, 2) if not taken.intersection(text)]
        firsts = [text[0] for text in left[: self.beam]] + [text[0] for text in random[: self.beam]]
        texts: list[Text] = []
        for _ in range(self.rounds):
            texts += [(word, second) for word in firsts for second in self._proposals((word,), rng) if second not in taken]
            firsts = [text[1] for text in self._best(texts, self.beam)]
        return self._found([*texts, *random], random, len(self.vocabulary) * 2 * self.beam * self.rounds, rng, progress)

    def _with(self, text: Text) -> list[Prompt]:
        return [insert(p, " ".join(text), place=place) for p, place in zip(self.prompts, self.places, strict=True)]

    def _random(self, rng: np.random.Generator, length: int) -> list[Text]:
        words = list(self.vocabulary)
        return [tuple(rng.choice(words, size=length, replace=False).tolist()) for _ in range(self.n_random)]

    def _best(self, texts: Sequence[Text], n: int) -> list[Text]:
        texts = list(dict.fromkeys(texts))
        return [texts[i] for i in (-self.displacements(texts).mean(1)).argsort(kind="stable")[:n]] if texts else []

    def _proposals(self, before: Text, rng: np.random.Generator, start: str | None = None) -> list[str]:
        """The tokens that the gradient would put after `before`, starting from random ones or from `start`."""
        words = list(self.vocabulary)
        slots = [start or str(word) for word in rng.choice(words, size=len(self.prompts))]
        others = [words[(words.index(word) + 1) % len(words)] for word in slots]
        given, changed = (
            [insert(p, " ".join((*before, w)), place=x) for p, w, x in zip(self.prompts, filled, self.places, strict=True)]
            for filled in (slots, others)
        )
        scores = exchange_scores(self.model, given, changed, self.sites, self.region.distance)
        gains = scores[torch.tensor(list(self.vocabulary.values()))]
        return [words[i] for i in gains.argsort(descending=True, stable=True)[: self.top_k].tolist()]

    def _found(self, texts: Sequence[Text], random: list[Text], n: int, rng: np.random.Generator, progress: Progress) -> Found:
        texts = list(dict.fromkeys(texts))
        values = self.displacements(texts, progress)
        order = (-values.mean(1)).argsort(kind="stable")
        texts, values = [texts[i] for i in order], values[order]
        candidates = set(texts[: self.n_candidates])  # what is tested does not belong to its own null
        row = {text: i for i, text in enumerate(texts)}
        nulls = values[[row[text] for text in dict.fromkeys(random) if text not in candidates]]
        maxima = null_maxima(nulls, n_searched=n, rng=rng)
        return Found(texts, values, maxima, [max_statistic_p(mean, maxima) for mean in values.mean(1)], n)


def null_maxima(
    values: Float[np.ndarray, "text prompt"], *, n_searched: int, rng: np.random.Generator, n_searches: int = 999
) -> Float[np.ndarray, " search"]:
    """The largest mean that each of `n_searches` searches over `n_searched` random texts would find.

    `values` are those of a sample of random texts. Approximate: it trusts an exponential tail above their upper quartile.
    """
    n_prompts = values.shape[1]
    drawn = rng.integers(n_prompts, size=(n_searches, n_prompts))
    weights = np.stack([np.bincount(row, minlength=n_prompts) for row in drawn]) / n_prompts
    means = weights @ values.T
    start = np.quantile(means, 0.75, axis=1)
    above = np.clip(means - start[:, None], 0, None)
    scale = above.sum(1) / rng.gamma((above > 0).sum(1))  # sum / n is its estimate; the gamma draw, how far that may be off
    n_above = np.maximum(rng.binomial(n_searched, 0.25, size=n_searches), 1)
    return start - scale * np.log1p(-(rng.random(n_searches) ** (1 / n_above)))
