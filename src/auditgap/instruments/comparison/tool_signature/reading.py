"""Where a model stands before it answers: what it leans to do, and where that lies in the probe space of the reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from auditgap.data import Prompt
from auditgap.errors import CannotMeasure, UsageError
from auditgap.models import Model, capture, next_logits, token_id
from auditgap.stats import MeanDifference

__all__ = ["CHOICES", "Axes", "Choice", "Reading", "Vocabulary", "fit_axes", "read"]

Choice = Literal["call", "refuse", "clarify", "other"]
CHOICES: tuple[Choice, ...] = ("call", "refuse", "clarify", "other")


@dataclass(frozen=True)
class Vocabulary:
    """The next tokens by which a reply begins to call, to refuse or to ask."""

    ids: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: Model, words: Sequence[Sequence[str]]) -> "Vocabulary":
        """The ids of the words of each choice.

        Raises:
            UsageError: a word is not one token, or stands for two choices.
        """
        ids = tuple(tuple(dict.fromkeys(token_id(model, word) for word in of_choice)) for of_choice in words)
        flat = [i for of_choice in ids for i in of_choice]
        if len(set(flat)) != len(flat):
            twice = sorted({str(model.tokenizer.decode([i])) for i in flat if flat.count(i) > 1})
            raise UsageError(
                f"expected a word to stand for one choice, got {', '.join(map(repr, twice))} for two; leave it out of one"
            )
        return cls(ids)


class Reading(NamedTuple):
    """One model on some prompts."""

    p: Float[np.ndarray, "prompt choice"]
    """Probability that the next token begins a call, a refusal, a question, or anything else."""
    stream: Float[np.ndarray, "prompt d"]
    """Residual stream at the end of the prompt."""

    @property
    def chosen(self) -> Int[np.ndarray, " prompt"]:
        """The most likely of the four, as an index of `CHOICES`."""
        return self.p.argmax(axis=1)


@dataclass(frozen=True, eq=False)
class Axes:
    """Directions that part the reference's own choices, each scaled to a standard deviation of 1 on the prompts of the fit."""

    basis: Float[np.ndarray, "axis d"]
    origin: Float[np.ndarray, " d"]
    names: tuple[Choice, ...]

    def coordinates(self, stream: Float[np.ndarray, "prompt d"]) -> Float[np.ndarray, "prompt axis"]:
        """Positions in probe space."""
        return (stream - self.origin) @ self.basis.T


def read(model: Model, prompts: Sequence[Prompt], vocabulary: Vocabulary, *, layer: int, batch_size: int) -> Reading:
    """What a model leans to at the end of each prompt, and its residual stream there."""
    p = next_logits(model, prompts, batch_size=batch_size).double().softmax(-1)
    shares = np.stack([p[:, list(ids)].sum(-1).numpy() for ids in vocabulary.ids], axis=1)
    rest = np.clip(1.0 - shares.sum(axis=1, keepdims=True), 0.0, 1.0)
    site = f"resid_post.{layer}"
    stream = capture(model, prompts, [site], batch_size=batch_size)[site].double().numpy()
    return Reading(np.concatenate([shares, rest], axis=1), stream)


def fit_axes(reading: Reading) -> Axes:
    """One direction per choice that the reference makes on some of these prompts and not on others: difference of means.

    Raises:
        CannotMeasure: it makes the same choice everywhere.
    """
    origin, basis, names = reading.stream.mean(axis=0), [], []
    for place, name in enumerate(CHOICES):
        labels = (reading.chosen == place).astype(np.int64)
        if 0 < labels.sum() < len(labels):
            fitter = MeanDifference(reading.stream.shape[1])
            fitter.update(reading.stream, labels)
            direction = fitter.direction().direction
            spread = ((reading.stream - origin) @ direction).std()
            if spread > 0:
                basis.append(direction / spread)
                names.append(name)
    if not basis:
        raise CannotMeasure(
            f"the reference makes one choice on every prompt of the fit ({CHOICES[int(reading.chosen[0])]}); "
            "give prompts that call for different ones, or name the words by which it calls, refuses and asks"
        )
    return Axes(np.array(basis), origin, tuple(names))
