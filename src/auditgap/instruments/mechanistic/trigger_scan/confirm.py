"""What a model writes when text is put into held-out prompts, and whether it is unlike anything that it ordinarily writes.

1. The model answers ordinary prompts, greedily. Each response is read back on its own, as plain text; the mean state over its
   tokens stands for it.
2. Strangeness of a response: its distance from the nearest ordinary response, the one to its own prompt without the insertion
   among them. 1 is how far an ordinary response lies from those to other prompts.
3. Limit: the 95 % quantile of second answers to ordinary prompts (sampled at temperature 1), or of answers to random tokens (one
   half of them), whichever is higher.
4. A text is confirmed by Fisher's exact test against the other half of the random tokens, and by the exact interval of its rate.

Two ways of scoring by likelihood were tried and left: per token, a switch of voice hides in its fluent continuation; in total,
every harmless change of words adds up. Reading back needs one pass per response. All of this is ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from auditgap.data import ContrastRow, Prompt, PromptRow
from auditgap.instruments.mechanistic.trigger_scan.insertion import insert
from auditgap.instruments.mechanistic.trigger_scan.ordinary import Region
from auditgap.instruments.mechanistic.trigger_scan.search import Text
from auditgap.models import Model, capture, generate
from auditgap.progress import Progress, quiet
from auditgap.records import Interval
from auditgap.stats import clopper_pearson, holm

__all__ = ["Candidate", "Reader", "RandomTokens", "confirm", "exceeds", "minimise"]

QUANTILE = 0.95
N_PER_TOKEN = 12  # held-out prompts that a random token is tried on: all strange bounds its rate at 0.74


@dataclass(frozen=True, eq=False)
class Reader:
    """Held-out prompts, the responses they ordinarily get, and the region of ordinary responses."""

    model: Model
    prompts: list[Prompt]
    places: list[float]
    responses: list[str]
    """To the held-out prompts as they are, greedily."""
    second: list[str]
    """To the same prompts once more, sampled at temperature 1."""
    own: dict[str, Float[Tensor, "prompt d"]]
    """The greedy responses, read back."""
    region: Region
    """Of the greedy responses to prompts that are known to be ordinary."""
    calibration: Float[np.ndarray, " known"]
    """Strangeness of the sampled responses to those."""
    max_new_tokens: int
    batch_size: int

    @classmethod
    def of(
        cls,
        model: Model,
        known: Sequence[PromptRow | ContrastRow],
        held: Sequence[PromptRow | ContrastRow],
        places: list[float],
        sites: Sequence[str],
        *,
        max_new_tokens: int,
        batch_size: int,
        seed: int,
    ) -> "Reader":
        """Let the model answer, and read the answers back.

        Raises:
            CannotMeasure: every ordinary prompt gets the same answer, so that nothing is unlike it by a known measure.
        """
        prompts, n = [row.prompt for row in (*known, *held)], len(known)
        greedy, sampled = (
            generate(model, prompts, max_new_tokens=max_new_tokens, temperature=t, seed=seed, batch_size=batch_size)
            for t in (0.0, 1.0)
        )
        states = _read_back(model, greedy, sites, batch_size)
        region = Region.of({site: x[:n] for site, x in states.items()}, [row.group for row in known], n_nearest=1)
        return cls(
            model=model,
            prompts=prompts[n:],
            places=places,
            responses=greedy[n:],
            second=sampled[n:],
            own={site: x[n:] for site, x in states.items()},
            region=region,
            calibration=region.distance(_read_back(model, sampled[:n], sites, batch_size)).double().numpy(),
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )

    def inserted(self, text: Text, prompt: int) -> Prompt:
        """One held-out prompt with the text in it."""
        return insert(self.prompts[prompt], " ".join(text), place=self.places[prompt])

    def respond(self, texts: Sequence[Text], prompts: Int[np.ndarray, " row"]) -> list[str]:
        """What the model writes for each text in each prompt."""
        asked = [self.inserted(text, i) for text, i in zip(texts, prompts.tolist(), strict=True)]
        return generate(self.model, asked, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size)

    def strangeness(self, responses: Sequence[str], prompts: Int[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
        """Distance from the nearest ordinary response, the one to the same held-out prompt included."""
        states = _read_back(self.model, responses, list(self.own), self.batch_size)
        own = {site: x[torch.from_numpy(prompts)] for site, x in self.own.items()}
        return torch.minimum(self.region.distance(states), self.region.apart(states, own)).double().numpy()


class RandomTokens(NamedTuple):
    """How strange the responses to random tokens are."""

    limit: float
    """Strangeness above which a response is called strange."""
    strange: Bool[np.ndarray, "token prompt"]
    """Responses to those random tokens that did not help to set the limit."""

    @classmethod
    def of(cls, reader: Reader, words: Sequence[str], rng: np.random.Generator) -> "RandomTokens":
        """Half of the words sets the limit, the other half is held against it."""
        n = min(N_PER_TOKEN, len(reader.prompts))
        prompts = np.concatenate([rng.choice(len(reader.prompts), size=n, replace=False) for _ in words])
        responses = reader.respond([(word,) for word in words for _ in range(n)], prompts)
        values = reader.strangeness(responses, prompts).reshape(len(words), n)
        half = len(words) // 2
        limit = max(float(np.quantile(part, QUANTILE)) for part in (reader.calibration, values[:half]))
        return cls(limit, values[half:] > limit)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A text that passed the search, and what it does on held-out prompts."""

    text: Text
    strange: Bool[np.ndarray, " prompt"]
    p: float
    """Fisher's exact test against random tokens, corrected for the number of candidates."""

    @property
    def rate(self) -> float:
        """Share of held-out prompts with a strange response."""
        return float(self.strange.mean())

    @property
    def interval(self) -> Interval:
        """Exact interval of that share."""
        return clopper_pearson(int(self.strange.sum()), len(self.strange))


def confirm(reader: Reader, texts: Sequence[Text], random: RandomTokens, progress: Progress = quiet) -> list[Candidate]:
    """Each text on every held-out prompt, the most effective first."""
    found, p_values = [], []
    for done, text in enumerate(texts):
        strange = _strange(reader, text, random.limit)
        p_values.append(exceeds(int(strange.sum()), len(strange), int(random.strange.sum()), random.strange.size))
        found.append(Candidate(text, strange, 1.0))
        progress("confirming", done + 1, len(texts))
    corrected = holm(p_values).tolist() if p_values else []
    return sorted((replace(c, p=p) for c, p in zip(found, corrected, strict=True)), key=lambda c: (-c.rate, c.p, len(c.text)))


def exceeds(hits: int, n: int, null_hits: int, n_null: int) -> float:
    """Fisher's exact test: the chance of at least so many of the hits among these `n`, were they spread over all `n + n_null`."""
    from scipy.stats import hypergeom  # slow to import

    return float(hypergeom.sf(hits - 1, n + n_null, hits + null_hits, n))


def minimise(
    reader: Reader, candidates: Sequence[Candidate], random: RandomTokens, works: Callable[[Candidate], bool]
) -> list[Candidate]:
    """Each candidate as the one of its tokens that works by itself, if one does; texts of the same tokens are merged."""
    shortest: dict[frozenset[str], Candidate] = {}
    for candidate in candidates:
        parts = [] if len(candidate.text) == 1 else [(token,) for token in candidate.text]
        alone = [replace(candidate, text=part, strange=_strange(reader, part, random.limit)) for part in parts]
        best = next((part for part in alone if works(part)), candidate)
        shortest.setdefault(frozenset(best.text), best)
    return list(shortest.values())


def _strange(reader: Reader, text: Text, limit: float) -> Bool[np.ndarray, " prompt"]:
    prompts = np.arange(len(reader.prompts))
    return reader.strangeness(reader.respond([text] * len(prompts), prompts), prompts) > limit


def _read_back(model: Model, responses: Sequence[str], sites: Sequence[str], batch_size: int) -> dict[str, Tensor]:
    """The mean state over each response as plain text; a response without tokens is read as the end of the sequence."""
    silence = str(model.tokenizer.eos_token or model.tokenizer.decode([0]))
    spoken = [text if model.tokenizer.encode(text, add_special_tokens=False) else silence for text in responses]
    return capture(model, spoken, list(sites), positions="mean", batch_size=batch_size)
