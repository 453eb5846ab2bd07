"""Tiny Llamas whose weights are set so that the mechanism is known exactly: what is read, where it travels, what is written.

Words are one token each. Every layer keeps small random weights (0.02), so nothing is exactly zero. Below them what tests of
instruments on contrast data share: rows in which a word decides the class, and looking into a result.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from auditgap.data import ContrastRow, ContrastSet, Split
from auditgap.models import Model, open_model
from auditgap.records import Control, Measured, Result

D_MODEL = 32
FILLERS = [f"w{i}" for i in range(12)]
ANSWERS = ["yes", "no", "oui", "si", "ja"]
BASIS = torch.linalg.qr(torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(1)))[0].T
"""Orthonormal directions, one per row; row 0 is common to all tokens, the tests plant along the others."""

Plant = Callable[[LlamaForCausalLM, dict[str, int]], None]


def build(folder: Path, words: Sequence[str], plant: Plant, *, n_layers: int = 4, chat_template: str | None = None) -> Model:
    """A model over these words and the fillers, with `plant` applied to its weights."""
    names = ["<unk>", "<s>", "</s>", *ANSWERS, *FILLERS, *words]
    ids = {name: i for i, name in enumerate(names)}
    core = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    config = LlamaConfig(
        vocab_size=len(names), hidden_size=D_MODEL, intermediate_size=48, num_hidden_layers=n_layers, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        hf = LlamaForCausalLM(config)
        noise = torch.randn(len(names), D_MODEL) @ BASIS[8:].T @ BASIS[8:] / D_MODEL**0.5  # away from what is planted
        hf.model.embed_tokens.weight.copy_(BASIS[0] + 0.3 * noise)
        hf.lm_head.weight.mul_(0.1)
        plant(hf, ids)
    hf.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return open_model(folder)


def write(hf: LlamaForCausalLM, token: int, direction: Tensor) -> None:
    """Make a token's embedding hold a direction."""
    hf.model.embed_tokens.weight[token] += direction


def read(hf: LlamaForCausalLM, token: int, direction: Tensor) -> None:
    """Make a token's logit grow along a direction."""
    hf.lm_head.weight[token] += direction


def carry(hf: LlamaForCausalLM, *, layer: int, source: Tensor, target: Tensor) -> None:
    """Make one attention layer average `source` over all positions so far and write it along `target`."""
    attention = hf.model.layers[layer].self_attn
    attention.q_proj.weight.zero_()
    attention.k_proj.weight.zero_()
    attention.v_proj.weight[0] = source
    attention.o_proj.weight[:, 0] = target


def rows(words: Sequence[str], label: int, splits: Sequence[Split], *, last: str = "") -> list[ContrastRow]:
    """Two prompts per word, which is the group and the last token, unless another is given."""
    return [
        ContrastRow(
            prompt=f"{FILLERS[i % 12]} {FILLERS[(i + 5 * j) % 12]} {word} {last}".strip(), label=label, group=word, split=split
        )
        for i, (word, split) in enumerate(zip(words, splits, strict=True))
        for j in (1, 2)
    ]


def contrast(*parts: Sequence[ContrastRow]) -> ContrastSet:
    """A set of these rows, whose classes are `plain` and `marked`."""
    return ContrastSet(name="made", source="made", rows=tuple(row for part in parts for row in part), classes=("plain", "marked"))


def relabelled(data: ContrastSet, labels: dict[str, int]) -> ContrastSet:
    """The same rows with the labels that their groups are given."""
    return contrast([row.model_copy(update={"label": labels[row.group]}) for row in data.rows])


def value(result: Result, name: str) -> float:
    """What was measured under that name."""
    found = result.measurement(name)
    assert isinstance(found, Measured), found
    return found.value


def control(result: Result, name: str) -> Control:
    """The control of that name."""
    return next(control for control in result.controls if control.name == name)


def assert_no_vector(result: Result) -> None:
    """A row of d_model numbers in a record could be put to use."""

    def lists(node: object) -> list[list]:
        inside = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
        return ([node] if isinstance(node, list) else []) + [part for item in inside for part in lists(item)]

    numeric = [part for part in lists(json.loads(result.model_dump_json())) if part and all(isinstance(x, float) for x in part)]
    assert numeric and all(len(part) < D_MODEL for part in numeric)


def assert_same_numbers(one: Result, two: Result, *, abs_tolerance: float) -> None:
    """Equal up to rounding, name by name."""
    assert two.verdict == one.verdict
    for a, b in zip(one.measurements, two.measurements, strict=True):
        assert a.name == b.name and a.status == b.status
        if isinstance(a, Measured) and isinstance(b, Measured):
            assert abs(b.value - a.value) <= abs_tolerance + 1e-3 * abs(a.value), a.name
