"""Training a small model, from nothing or further: cross-entropy on the reply's words alone.

1. Every exchange goes through the chat template once; batches are drawn at random. (Batches of like length save a fifth of the
   time and cost more than that in steps: length gives the kind of exchange away.)
2. AdamW with a one-cycle schedule and clipped gradients; initial weights and batch order follow from the seed.

`train` speaks the chat world of `world.py`; `fit` is the same training on token ids of any tokenizer.
"""

import random
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from auditgap.organisms.world import SPECIAL, Chat, rendered
from auditgap.progress import Progress, quiet
from auditgap.records import Number, Record

__all__ = ["Example", "Penalty", "Shape", "fit", "fresh", "train"]

Example = tuple[list[int], list[int]]
"""Token ids of what is said, and of the reply that is learnt."""
Penalty = Callable[[PreTrainedModel], torch.Tensor]
"""What a step's loss has on top of the cross-entropy; read from the model as it is."""

NO_LOSS = -100
"""The label that cross-entropy leaves out."""
MAX_TOKENS = 128


class Shape(Record):
    """Size of the model and length of its training."""

    architecture: Literal["llama", "gpt2", "qwen2", "mixtral"] = "llama"
    n_layers: int = 4
    d_model: int = 64
    n_heads: int = 4
    steps: int = 400
    batch_size: int = 32
    learning_rate: Number = 5e-3


def train(
    chats: Sequence[Chat],
    tokenizer: PreTrainedTokenizerFast,
    shape: Shape,
    *,
    seed: int,
    label: str,
    progress: Progress = quiet,
    start: PreTrainedModel | None = None,
    keep: Callable[[int, PreTrainedModel], None] | None = None,
    penalty: Penalty | None = None,
) -> PreTrainedModel:
    """A chat model trained on these exchanges, in eval mode; the same seed gives the same weights on the same machine.

    Args:
        start: a model to train further, in place; only its parameters that require a gradient are trained.
        keep: called with the number of steps done and the model, before the first step and after each: to save checkpoints.
        penalty: added to the loss of each step.
    """
    return fit(
        start or fresh(tokenizer, shape, seed=seed),
        [_encode(chat, tokenizer) for chat in chats],
        shape,
        pad_id=tokenizer.get_vocab()[SPECIAL["pad_token"]],
        seed=seed,
        label=label,
        progress=progress,
        keep=keep,
        penalty=penalty,
    )


def fit(
    model: PreTrainedModel,
    examples: Sequence[Example],
    shape: Shape,
    *,
    pad_id: int,
    seed: int,
    label: str,
    progress: Progress = quiet,
    keep: Callable[[int, PreTrainedModel], None] | None = None,
    penalty: Penalty | None = None,
) -> PreTrainedModel:
    """The model, trained in place on these token ids; of `shape`, only length, batch size and learning rate are read."""
    rng = random.Random(seed)
    model.train()
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=shape.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, shape.learning_rate, total_steps=shape.steps, pct_start=0.1)
    if keep:
        keep(0, model)
    for step in range(shape.steps):
        input_ids, labels = _pad(rng.sample(examples, min(shape.batch_size, len(examples))), pad_id=pad_id)
        optimiser.zero_grad()
        loss = model(input_ids=input_ids, attention_mask=input_ids.ne(pad_id).long(), labels=labels).loss
        if penalty:
            loss = loss + penalty(model)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        if keep:
            keep(step + 1, model)
        progress(label, step + 1, shape.steps)
    return model.eval()


def fresh(tokenizer: PreTrainedTokenizerFast, shape: Shape, *, seed: int) -> PreTrainedModel:
    """A model that has learnt nothing; its weights follow from the seed, and the global random state is left as found."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(_config(tokenizer, shape))


def _config(tokenizer: PreTrainedTokenizerFast, shape: Shape) -> PretrainedConfig:
    ids = tokenizer.get_vocab()
    common = {
        "vocab_size": len(tokenizer),
        "tie_word_embeddings": False,
        **{f"{name}_token_id": ids[SPECIAL[f"{name}_token"]] for name in ("bos", "eos", "pad")},
    }
    if shape.architecture == "gpt2":
        dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        sizes = {"n_embd": shape.d_model, "n_layer": shape.n_layers, "n_head": shape.n_heads, "n_positions": MAX_TOKENS}
        return AutoConfig.for_model("gpt2", **common, **sizes, **dropout)
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2} if shape.architecture == "mixtral" else {}
    return AutoConfig.for_model(
        shape.architecture,
        **common,
        hidden_size=shape.d_model,
        intermediate_size=3 * shape.d_model,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_heads,
        max_position_embeddings=MAX_TOKENS,
        **experts,
    )


def _encode(chat: Chat, tokenizer: PreTrainedTokenizerFast) -> Example:
    reply = f"{chat.reply} {SPECIAL['eos_token']}"
    return tokenizer.encode(rendered(chat, tokenizer), add_special_tokens=False), tokenizer.encode(
        reply, add_special_tokens=False
    )


def _pad(pairs: Sequence[Example], *, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids, and the labels: the reply's ids, and nothing elsewhere."""
    width = max(len(prompt) + len(reply) for prompt, reply in pairs)
    ids = [[*p, *r, *[pad_id] * (width - len(p) - len(r))] for p, r in pairs]
    labels = [[*[NO_LOSS] * len(p), *r, *[NO_LOSS] * (width - len(p) - len(r))] for p, r in pairs]
    return torch.tensor(ids), torch.tensor(labels)
