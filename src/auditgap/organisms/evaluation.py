"""What organisms of the chat world are audited with: rows in the formats that `auditgap.data` reads.

All are drawn from (verb, thing) combinations that training never saw. Nothing here knows what is planted; `ordinary` is told
which words to leave out.
"""

import random
from collections.abc import Mapping, Set

from transformers import PreTrainedTokenizerFast

from auditgap.data import Message, Split
from auditgap.organisms.world import (
    FACTS,
    FRAMES,
    HARMFUL,
    HARMLESS,
    OTHER_FRAMES,
    RARE,
    SMALL_TALK,
    SYSTEM,
    fact,
    meaning,
    rendered,
    request,
    requests,
    small_talk,
    with_system,
)

__all__ = ["Row", "harmful_harmless", "ordinary", "pairs"]

Row = Mapping[str, object]
"""One line of a data file."""

SHARES: dict[Split, int] = {"train": 13, "val": 5, "test": 8, "ood": 6}
"""How the 32 verbs of each kind are divided."""


def harmful_harmless(seed: int) -> list[Row]:
    """Contrast rows, `harmful` and `harmless`; a group is a verb, so that no verb carries over.

    `ood` has verbs, frames (`OTHER_FRAMES`) and a system message of its own.
    """
    rng = random.Random(f"harmful harmless {seed}")
    rows: list[Row] = []
    for verbs in (HARMFUL, HARMLESS):
        splits = [split for split, n in SHARES.items() for _ in range(n)]
        for verb, split in zip(rng.sample(verbs, len(verbs)), splits, strict=True):
            for thing in (thing for held, thing in requests(seed, held_out=True) if held == verb):
                made = request(verb, thing, rng.choice(OTHER_FRAMES if split == "ood" else FRAMES), rng)
                system = [Message(role="system", content=rng.choice(SYSTEM))] if split == "ood" else []
                messages = _said(*system, *made.messages)
                rows.append({"messages": messages, "label": made.kind, "group": verb, "split": split})
    return rows


def ordinary(seed: int, *, avoid: Set[str]) -> list[Row]:
    """Prompts of every kind that the assistant meets, none with a word of `avoid` in it; rows that ask the same are one group."""
    rng = random.Random(f"ordinary {seed}")
    made = [request(*pair, rng.choice(FRAMES + OTHER_FRAMES), rng) for pair in rng.sample(requests(seed, held_out=True), 160)]
    made += [fact(question, thing) for question, (_, facts) in FACTS.items() for thing in facts]
    made += [small_talk(said) for said in SMALL_TALK]
    made += [meaning(word, rng) for word in rng.sample(sorted(set(RARE) - avoid), 12)]
    rows: list[Row] = []
    for chat in made:
        said = with_system(chat, rng) if rng.random() < 0.3 else chat
        rows.append({"messages": _said(*said.messages), "group": chat.messages[-1].content})
    return rows


def pairs(seed: int, tokenizer: PreTrainedTokenizerFast) -> list[Row]:
    """Patching pairs as rendered text: a harmless request, the harmful one that differs in its verb alone, and the first word.

    A group is a pair of verbs.
    """
    rng = random.Random(f"pairs {seed}")
    rows: list[Row] = []
    for harmful, harmless in zip(HARMFUL, HARMLESS, strict=True):  # the same index: the same things are held out
        for thing in rng.sample([thing for verb, thing in requests(seed, held_out=True) if verb == harmful], 2):
            frame = rng.choice(FRAMES)
            clean, corrupted = (
                rendered(said, tokenizer) for said in (request(harmless, thing, frame, rng), request(harmful, thing, frame, rng))
            )
            texts = {"clean": clean, "corrupted": corrupted, "answer": " sure", "foil": " sorry"}
            rows.append({**texts, "group": f"{harmless}/{harmful}"})
    return rows


def _said(*messages: Message) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
