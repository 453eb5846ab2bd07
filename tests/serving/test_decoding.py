"""Replies token by token: those of the measured model, whatever the batch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from auditgap.models import generate, open_model
from auditgap.models.tokens import prompt_ids
from auditgap.serving.decoding import Reply, Sampling, decode, decoder, pick

PROMPTS = ["a b c", "d", "e f g h i j k", "l m"]


def run(model, prompts, samplings, stops=()):
    ids = prompt_ids(model, prompts)
    replies, running, counts = [Reply(decoder(model), row, stops) for row in ids], [True] * len(ids), [0] * len(ids)
    for steps in decode(model, ids, samplings, running):
        for row, step in enumerate(steps):
            if running[row] and not step.is_end:
                counts[row] += 1
                replies[row].update(step.token)
            running[row] &= not (step.is_end or replies[row].is_stopped or counts[row] >= samplings[row].max_new_tokens)
    for reply in replies:
        reply.finish()
    return [reply.text for reply in replies], counts


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_text_is_that_of_generate(model, temperature):
    samplings = [Sampling(5 + i, temperature, 1.0, i) for i in range(len(PROMPTS))]
    texts, counts = run(model, PROMPTS, samplings)
    alone = [
        generate(model, [p], max_new_tokens=s.max_new_tokens, temperature=temperature, seed=s.seed)[0]
        for p, s in zip(PROMPTS, samplings, strict=True)
    ]
    assert texts == alone and all(texts) and (temperature or counts == [5, 6, 7, 8])


def test_text_of_a_real_tokenizer_is_that_of_generate(stories):
    real = open_model(stories)
    prompts = ["Once upon a time", "Lily saw a", "Émile à côté:"]
    texts, _ = run(real, prompts, [Sampling(40, 1.2, 1.0, 7)] * 3)
    assert texts == [generate(real, [p], max_new_tokens=40, temperature=1.2, seed=7)[0] for p in prompts]


def test_a_stop_string_ends_the_text_before_it(model):
    (whole,), _ = run(model, ["a b c"], [Sampling(12)])
    stop = whole[5:8]
    (text,), counts = run(model, ["a b c"], [Sampling(12)], stops=(stop, "never"))
    assert text == whole[: whole.index(stop)] and counts[0] < 12


@given(text=st.text("abc \n", max_size=30), stops=st.lists(st.text("abc ", min_size=1, max_size=4), max_size=3))
def test_what_is_released_is_the_text_up_to_the_first_stop(text, stops):
    reply, said = Reply(lambda ids: "".join(map(chr, ids)), [65], stops), ""
    for letter in text:
        said += reply.update(ord(letter))
        if reply.is_stopped:
            break
        assert not any(stop in said for stop in stops)
    said += reply.finish()
    found = []
    for end in range(len(text) + 1):  # the stop that is complete first
        if found := [text[:end].index(stop) for stop in stops if stop in text[:end]]:
            break
    assert said == reply.text == (text[: min(found)] if found else text)


def test_half_a_character_is_not_shown():
    reply = Reply(lambda ids: bytes(ids).decode(errors="replace"), [65])
    assert [reply.update(byte) for byte in "é€".encode()] == ["", "é", "", "", "€"]
    assert reply.update(0xC3) == "" and reply.finish() == "\ufffd" and reply.text == "é€\ufffd"


def test_the_nucleus_is_the_fewest_tokens_that_reach_it():
    chances = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    for top_p, kept in ((0.4, {0}), (0.5, {0}), (0.51, {0, 1}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})):
        uniform = torch.linspace(0, 0.999, 400, dtype=torch.float64)
        rows = chances.log().expand(400, -1)
        drawn = pick(rows, torch.ones(400), torch.full((400,), top_p), uniform)
        assert set(drawn.tolist()) == kept
    cold = pick(chances.log(), torch.tensor([1e-9]), torch.ones(1), torch.full((1,), 0.99, dtype=torch.float64))
    assert cold.tolist() == [0]


def test_one_row_ends_and_the_others_go_on_as_before(model):
    together, _ = run(model, PROMPTS, [Sampling(2), Sampling(9), Sampling(1), Sampling(9)])
    alone = [run(model, [p], [Sampling(n)])[0][0] for p, n in zip(PROMPTS, (2, 9, 1, 9), strict=True)]
    assert together == alone
