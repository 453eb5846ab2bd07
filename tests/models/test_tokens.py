"""Prompts become left-padded ids with positions from the mask; conversations go through the model's own template."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_families import PROMPTS

from auditgap.data import Message
from auditgap.errors import SubjectError, UsageError
from auditgap.models import tokenize
from auditgap.models.tokens import batches, continuation_ids

TEMPLATE = (
    "{% for m in messages %}{{ '<s> ' + m['role'] + ' ' + m['content'] + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}the{% endif %}"
)
TALK = (Message(role="user", content="w1 w2"),)


@pytest.fixture
def chatty(tiny):
    model = tiny("llama")
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = TEMPLATE
    return dataclasses.replace(model, tokenizer=tokenizer)


def test_left_padding_and_positions(tiny):
    ids, mask, positions = tokenize(tiny("llama"), PROMPTS)
    assert mask.sum(1).tolist() == [8, 3, 12]
    assert ids[1].tolist()[-3:] == [1, 8, 5]
    assert positions[1].tolist() == [0] * 9 + [0, 1, 2]
    assert mask[:, -1].all()


def test_messages_go_through_the_template_once(chatty):
    """The generation prompt is there, and the special token of the template is not doubled."""
    ids = tokenize(chatty, [TALK]).input_ids[0].tolist()
    assert chatty.tokenizer.convert_ids_to_tokens(ids) == ["<s>", "<unk>", "w1", "w2", "the"]


def test_text_and_messages_mix_in_one_batch(chatty):
    assert tokenize(chatty, ["w1", TALK]).attention_mask.sum(1).tolist() == [2, 5]


def test_a_continuation_is_cut_at_the_prompt(chatty):
    starts, ends = continuation_ids(chatty, ["w1", TALK], [" he w2", " she"])
    assert ends == [[3, 13], [4]]
    assert len(starts[1]) == 5


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 5), st.booleans())
def test_every_row_is_in_exactly_one_batch(tiny, lengths, batch_size, by_length):
    rows = [list(range(n)) for n in lengths]
    found = list(batches(tiny("llama"), rows, batch_size, by_length=by_length))
    assert sorted(i for index, _ in found for i in index) == list(range(len(rows)))
    for index, tokens in found:
        for i, ids, mask in zip(index, *tokens[:2], strict=True):
            assert ids[mask.bool()].tolist() == rows[i]


def test_ids_beyond_the_embedding_are_refused(tiny):
    model = tiny("llama")
    hf = copy.deepcopy(model.hf)
    hf.set_input_embeddings(torch.nn.Embedding(8, 32))
    with pytest.raises(SubjectError, match="prompt 0 has token id 20, the embedding has 8 rows"):
        tokenize(dataclasses.replace(model, hf=hf), ["w9"])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "expected at least one prompt"),
        (["w1", ""], "prompt 1 is empty"),
        ([()], "prompt 0 has no messages"),
        ([TALK], "prompt 0 is a conversation, but the tokenizer has no chat template"),
        (["w1", "w1 " * 48], "prompt 1 has 49 tokens, the model's context holds 48"),
    ],
)
def test_bad_prompts_are_refused(tiny, prompts, message):
    with pytest.raises(UsageError, match=message):
        tokenize(tiny("llama"), prompts)
