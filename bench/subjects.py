"""The models that are timed: random weights, because only shapes matter for speed, saved and opened as a user would."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from auditgap.models import Model, Tokens, open_model

__all__ = ["N_LAYERS", "llama", "pair", "random_tokens"]

N_LAYERS = 12
VOCABULARY = 8000


def llama(folder: Path, *, width: int = 512, hidden: int = 1408) -> Model:
    """A Llama of 12 layers and 8 heads; `w17` is token 17."""
    torch.manual_seed(0)
    shape = {"hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": N_LAYERS, "num_attention_heads": 8}
    config = LlamaConfig(**shape, num_key_value_heads=8, vocab_size=VOCABULARY, max_position_embeddings=512)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = WhitespaceSplit()
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="w0", bos_token="w1", eos_token="w2", pad_token="w2"
    ).save_pretrained(folder)
    return open_model(folder)


def random_tokens(n_rows: int, n_pos: int) -> Tokens:
    """A batch without padding."""
    ids = torch.randint(3, VOCABULARY, (n_rows, n_pos), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    return Tokens(ids, mask, mask.cumsum(-1) - 1)


def pair(n_pos: int, first: int, *, every: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean and corrupted prompt that differ at token `first`, or at every token from there on."""
    clean = random_tokens(1, n_pos).input_ids
    corrupted = clean.clone()
    where = slice(first, None if every else first + 1)
    corrupted[:, where] = 3 + (clean[:, where] + 1) % (VOCABULARY - 3)
    return clean, corrupted
