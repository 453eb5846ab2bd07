"""An opened subject: the unmodified Hugging Face model, its tokenizer, its sites and what of it can be reached."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from auditgap.models.sites import SiteMap
from auditgap.records import ModelAccess, Subject

__all__ = ["Model"]


@dataclass(frozen=True, eq=False)
class Model:
    """A subject ready to be measured: in eval mode, parameters frozen, every site validated.

    Sites are paths, so `dataclasses.replace(model, hf=copy.deepcopy(model.hf))` is an independent model that may be trained
    (`requires_grad_(True)` first) and measured with the same functions.
    """

    subject: Subject
    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sites: SiteMap
    granted: ModelAccess
    """What could be reached, measured by trying when the model was opened."""

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer blocks."""
        layers = self.hf.get_submodule(self.sites.layers_path)
        return layers if isinstance(layers, nn.ModuleList) else nn.ModuleList(layers.children())

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.sites.blocks)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.sites.d_model

    @property
    def n_heads(self) -> int:
        """Number of query heads."""
        return self.hf.config.get_text_config().num_attention_heads

    @property
    def vocab_size(self) -> int:
        """Number of logits, which may exceed the number of tokens."""
        return self.hf.config.get_text_config().vocab_size

    @property
    def n_embeddings(self) -> int:
        """Rows of the embedding: every token id must lie below."""
        weight = self.hf.get_input_embeddings().weight
        return weight.shape[0]  # type: ignore[index]

    @property
    def context_length(self) -> int | None:
        """The longest prompt in tokens; None if the architecture states none."""
        return getattr(self.hf.config.get_text_config(), "max_position_embeddings", None)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.hf.device

    @property
    def attention_kernel(self) -> str:
        """The attention implementation in use (`sdpa`, `eager`, ...): part of the environment, it moves logits by about 1e-6."""
        return self.hf.config.get_text_config()._attn_implementation or "eager"
