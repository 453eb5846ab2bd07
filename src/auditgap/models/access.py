"""How much of an opened model can be reached: each level is tried, from the outside in, and the first failure ends the climb."""

from collections.abc import Callable

import torch

from auditgap.errors import AuditgapError
from auditgap.models.capture import capture_tokens
from auditgap.models.edit import add, editing
from auditgap.models.model import Model
from auditgap.models.tokens import Tokens
from auditgap.models.validate import random_ids
from auditgap.records import ModelAccess

__all__ = ["measure_access"]


def measure_access(model: Model) -> ModelAccess:
    """The highest level whose own try, and every lower one, succeeds. M6 needs a second model, so it is never granted here."""
    ids = random_ids(model, n_rows=1, n_pos=5)
    mask = torch.ones_like(ids)
    tokens = Tokens(ids, mask, mask.cumsum(-1) - 1)
    tries: tuple[tuple[ModelAccess, Callable[[Model, Tokens], bool]], ...] = (
        (ModelAccess.M1, _samples_text),
        (ModelAccess.M2, _shows_logits),
        (ModelAccess.M3, _shows_activations),
        (ModelAccess.M4, _gives_gradients_and_takes_edits),
        (ModelAccess.M5, _trains),
    )
    granted = ModelAccess.M0
    for level, attempt in tries:
        try:
            if not attempt(model, tokens):
                break
        except (AuditgapError, RuntimeError, NotImplementedError, ValueError, TypeError):
            break  # out of reach, whatever the cause: the level below is what was granted
        granted = level
    return granted


def _logits(model: Model, tokens: Tokens) -> torch.Tensor:
    return model.hf(**tokens._asdict(), use_cache=False).logits[:, -1].float()


def _samples_text(model: Model, tokens: Tokens) -> bool:
    with torch.no_grad():
        token = _logits(model, tokens).argmax(-1).tolist()
    return isinstance(model.tokenizer.decode(token), str)


def _shows_logits(model: Model, tokens: Tokens) -> bool:
    with torch.no_grad():
        return bool(_logits(model, tokens).isfinite().all())


def _shows_activations(model: Model, tokens: Tokens) -> bool:
    site = f"resid_post.{model.n_layers - 1}"
    return bool(capture_tokens(model, tokens, [site])[site].isfinite().all())


def _gives_gradients_and_takes_edits(model: Model, tokens: Tokens) -> bool:
    embeddings = model.hf.get_input_embeddings()(tokens.input_ids).detach().requires_grad_(True)
    inputs = {"attention_mask": tokens.attention_mask, "position_ids": tokens.position_ids}
    logits = model.hf(inputs_embeds=embeddings, **inputs, use_cache=False).logits[:, -1].float()
    (gradient,) = torch.autograd.grad(logits.max(), embeddings)
    noise = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), editing(model, {"resid_pre.0": add(noise)}):
        edited = _logits(model, tokens)
    return bool(gradient.isfinite().all() and gradient.abs().max() > 0 and (edited - logits).abs().max() > 0)


def _trains(model: Model, tokens: Tokens) -> bool:
    """A gradient reaches the last block's parameters; restored as found."""
    parameters = list(model.layers[-1].parameters())
    before = [p.requires_grad for p in parameters]
    try:
        for p in parameters:
            p.requires_grad_(True)
        gradients = torch.autograd.grad(_logits(model, tokens).max(), parameters, allow_unused=True)
    finally:
        for p, was in zip(parameters, before, strict=True):
            p.requires_grad_(was)
    return any(g is not None and bool(g.isfinite().all()) and bool(g.abs().max() > 0) for g in gradients)
