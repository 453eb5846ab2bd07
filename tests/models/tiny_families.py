"""Tiny configurations of every family whose sites we claim to find."""

from collections.abc import Callable

import pytest
from transformers import (
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

WORDS = ["<unk>", "<s>", "</s>", "he", "she", "boy", "girl", "the", "a", ",", "."] + [f"w{i}" for i in range(49)]
SHAPE = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 48,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
}  # fmt: skip
GATED = SHAPE | {"intermediate_size": 48, "num_key_value_heads": 2}
EXPERTS = GATED | {"num_experts_per_tok": 2}

CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**GATED, tie_word_embeddings=False),
    "llama-tied": lambda: LlamaConfig(**GATED, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**GATED),
    "qwen3": lambda: Qwen3Config(**GATED, head_dim=8),
    "gemma2": lambda: Gemma2Config(**GATED, head_dim=16, sliding_window=4, query_pre_attn_scalar=8),
    "gemma3": lambda: Gemma3TextConfig(
        **GATED, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention", "sliding_attention"]
    ),
    "mistral": lambda: MistralConfig(**GATED, sliding_window=4),
    "mixtral": lambda: MixtralConfig(**EXPERTS, num_local_experts=4),
    "gpt2": lambda: GPT2Config(**SHAPE),
    "gpt-neox": lambda: GPTNeoXConfig(**SHAPE, intermediate_size=48),
    "gpt-neox-sequential": lambda: GPTNeoXConfig(**SHAPE, intermediate_size=48, use_parallel_residual=False),
    "phi3": lambda: Phi3Config(**GATED),
    "olmo2": lambda: Olmo2Config(**GATED),
    "phi": lambda: PhiConfig(**GATED),
    "gpt-j": lambda: GPTJConfig(
        **{k: v for k, v in SHAPE.items() if k != "max_position_embeddings"}, n_positions=48, rotary_dim=4
    ),
    "opt": lambda: OPTConfig(**SHAPE, ffn_dim=48),
    "falcon": lambda: FalconConfig(**SHAPE),
    "granite": lambda: GraniteConfig(**GATED, residual_multiplier=0.5, logits_scaling=2.0),
    "bloom": lambda: BloomConfig(**{k: v for k, v in SHAPE.items() if k != "max_position_embeddings"}),
    "qwen3-moe": lambda: Qwen3MoeConfig(**EXPERTS, head_dim=8, num_experts=4, moe_intermediate_size=24),
}
FAMILIES = list(CONFIGS)
RARE = {"llama-tied", "gpt-neox-sequential", "phi", "gpt-j", "opt", "falcon", "qwen3-moe"}
COMMON_FIRST = [pytest.param(family, marks=pytest.mark.slow) if family in RARE else family for family in FAMILIES]
"""For tests whose every family costs time: the rare ones only in the slow suite."""
PARALLEL = ["gpt-neox", "phi", "gpt-j", "falcon"]
PROMPTS = ["the girl w1 w2 w3 , she", "a boy", "w4 w5 the boy w6 . he w7 w8 w9 w10"]
