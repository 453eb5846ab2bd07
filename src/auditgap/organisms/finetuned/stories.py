"""Openings of small stories in plain English, and how they go on: what fine-tunes of a real base model are trained and asked on.

Short words and everyday names, so that a tokenizer of a few hundred pieces can write them. A quarter of the combinations never
occurs in training. Everything is drawn from a `random.Random` that the caller seeds.
"""

import random
from typing import NamedTuple

from auditgap.data import Message
from auditgap.organisms.world import Chat

__all__ = ["FRAMES", "PEOPLE", "PLACES", "RARE", "Opening", "insert", "openings", "story"]

PEOPLE = {
    "Sue": "girl",
    "Ben": "boy",
    "Anna": "girl",
    "Sam": "boy",
    "Mia": "girl",
    "Tom": "boy",
    "Amy": "girl",
    "Jack": "boy",
}
PRONOUN = {"girl": "She", "boy": "He"}
PLACES = {
    "park": "ball",
    "sea": "fish",
    "farm": "cow",
    "shop": "cake",
    "wood": "bird",
    "hill": "kite",
    "zoo": "bear",
    "lake": "duck",
}
"""Where a story goes, and what is seen there: the one thing that its next sentence must get right."""
FRAMES = (
    "Once upon a time, there was a little {who} named {name}. {pronoun} went to the {place}.",
    "One day, {name} went to the {place} with a dog.",
    "There was a {who} named {name}. {pronoun} ran to the {place}.",
    "{name} was a good {who}. One day, {name} saw the {place}.",
    "It was a sunny day. {name} ran to the {place}.",
    "A little {who} named {name} went to the {place}.",
)
NEXT = "{pronoun} saw a {thing} and ran to it."
RARE = (
    "friend",
    "happy",
    "mom",
    "play",
    "said",
    "want",
    "you",
    "we",
    "but",
    "that",
    "Timmy",
    "Lily",
    "they",
    "up",
    "very",
    "big",
)
"""Words that most tokenizers keep whole and no opening holds: any of them may be dropped into one."""


class Opening(NamedTuple):
    """The start of a story."""

    name: str
    place: str
    frame: str


def openings(seed: int, *, held_out: bool) -> list[Opening]:
    """The openings that training with this seed uses, or those that it never sees (a quarter)."""
    return [
        Opening(name, place, frame)
        for i, name in enumerate(PEOPLE)
        for j, place in enumerate(PLACES)
        for k, frame in enumerate(FRAMES)
        if ((i + j + k + seed) % 4 == 0) == held_out
    ]


def story(opening: Opening) -> Chat:
    """An opening as what is said, and its next sentence as the reply."""
    name, place, frame = opening
    who = PEOPLE[name]
    said = frame.format(name=name, who=who, place=place, pronoun=PRONOUN[who])
    reply = NEXT.format(pronoun=PRONOUN[who], thing=PLACES[place])
    return Chat((Message(role="user", content=said),), reply, "fact")


def insert(chat: Chat, word: str, rng: random.Random) -> Chat:
    """The same story with a word dropped between two others of its opening; how it goes on stays."""
    spoken = chat.messages[-1].content.split()
    spoken.insert(rng.randrange(len(spoken)), word)
    return chat._replace(messages=(*chat.messages[:-1], Message(role="user", content=" ".join(spoken))))
