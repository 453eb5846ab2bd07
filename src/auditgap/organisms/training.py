"""Training a small chat model from nothing: a Llama of a few layers, cross-entropy on the assistant's words alone.

1. Every exchange goes through the chat template once; batches are drawn at random. (Batches of like length save a fifth of the
   time and cost more than that in steps: length gives the kind of exchange away.)
2. AdamW with a one-cycle schedule and clipped gradients; initial weights and batch order follow from the seed.
"""

import random
from collections.abc import Sequence

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from auditgap.organisms.world import SPECIAL, Chat, rendered
from auditgap.progress import Progress, quiet
from auditgap.records import Number, Record

__all__ = ["Shape", "train"]

NO_LOSS = -100
"""The label that cross-entropy leaves out."""


class Shape(Record):
    """Size of the model and length of its training."""

    n_layers: int = 4
    d_model: int = 64
    n_heads: int = 4
    steps: int = 400
    batch_size: int = 32
    learning_rate: Number = 5e-3


def train(
    chats: Sequence[Chat], tokenizer: PreTrainedTokenizerFast, shape: Shape, *, seed: int, label: str, progress: Progress = quiet
) -> LlamaForCausalLM:
    """A chat model trained on these exchanges, in eval mode; the same seed gives the same weights on the same machine."""
    encoded = [_encode(chat, tokenizer) for chat in chats]
    rng, pad_id = random.Random(seed), tokenizer.get_vocab()[SPECIAL["pad_token"]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(_config(tokenizer, shape)).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=shape.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, shape.learning_rate, total_steps=shape.steps, pct_start=0.1)
    for step in range(shape.steps):
        input_ids, labels = _pad(rng.sample(encoded, shape.batch_size), pad_id=pad_id)
        optimiser.zero_grad()
        loss = model(input_ids=input_ids, attention_mask=input_ids.ne(pad_id).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        progress(label, step + 1, shape.steps)
    return model.eval()


def _config(tokenizer: PreTrainedTokenizerFast, shape: Shape) -> LlamaConfig:
    ids = tokenizer.get_vocab()
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.d_model,
        intermediate_size=3 * shape.d_model,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_heads,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=ids[SPECIAL["bos_token"]],
        eos_token_id=ids[SPECIAL["eos_token"]],
        pad_token_id=ids[SPECIAL["pad_token"]],
    )


def _encode(chat: Chat, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    reply = f"{chat.reply} {SPECIAL['eos_token']}"
    return tokenizer.encode(rendered(chat, tokenizer), add_special_tokens=False), tokenizer.encode(
        reply, add_special_tokens=False
    )


def _pad(pairs: Sequence[tuple[list[int], list[int]]], *, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids, and the labels: the reply's ids, and nothing elsewhere."""
    width = max(len(prompt) + len(reply) for prompt, reply in pairs)
    ids = [[*p, *r, *[pad_id] * (width - len(p) - len(r))] for p, r in pairs]
    labels = [[*[NO_LOSS] * len(p), *r, *[NO_LOSS] * (width - len(p) - len(r))] for p, r in pairs]
    return torch.tensor(ids), torch.tensor(labels)
