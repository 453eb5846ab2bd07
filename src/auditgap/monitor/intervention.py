"""What a flag does to a reply, before its next token is chosen.

1. A token's score is known in the same forward pass that computes the logits of the next one. So a request that is flagged at the
   end of its prompt is stopped, refused or steered before its first token.
2. stop, refuse, escalate: the logits of a flagged row are replaced so that only one token can follow: the next of the fixed text,
   and then the end of text. That holds for greedy choice and for sampling, and costs no wait for the device.
3. steer: a registered direction is added to a flagged row at a site that lies behind every probe, from that token on.

Logits processors that run afterwards can undo it: a minimum length forbids the end token. Generate without one.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from auditgap.errors import UsageError
from auditgap.models import Model
from auditgap.models.generate import end_ids
from auditgap.records import digest_of
from auditgap.records.monitor import MonitorPolicy, Steering

__all__ = ["Script", "direction_digest", "force", "reply_ids", "steer"]

FORCING = ("stop", "refuse", "escalate")


def reply_ids(model: Model, policy: MonitorPolicy) -> Int[Tensor, " token"] | None:
    """The tokens that a flagged reply goes on with: the policy's text and the end token; None if the policy changes no reply.

    Raises:
        UsageError: the model has no end token, so that a reply cannot be stopped.
    """
    if policy.action not in FORCING:
        return None
    ends = end_ids(model)
    if not len(ends):
        raise UsageError(f"action '{policy.action}' ends replies, but the model has no end-of-text token; use 'log' or 'steer'")
    text = [] if policy.action == "stop" else model.tokenizer(policy.text, add_special_tokens=False)["input_ids"]
    end = model.tokenizer.eos_token_id if model.tokenizer.eos_token_id is not None else int(ends[0])
    return torch.tensor([*text, end], device=model.device)


class Script:
    """How far each flagged row of a batch is in the fixed text."""

    def __init__(self, ids: Int[Tensor, " token"], n_requests: int) -> None:
        self._ids = ids
        self._n_said = torch.zeros(n_requests, dtype=torch.long, device=ids.device)

    def apply(
        self, logits: Float[Tensor, "request pos vocab"], flagged: Bool[Tensor, " request"]
    ) -> Float[Tensor, "request pos vocab"]:
        """The logits with those of the next token of flagged rows forced."""
        token = self._ids[self._n_said.clamp(max=len(self._ids) - 1)]
        self._n_said = self._n_said + flagged
        last = force(logits[:, -1], token, flagged)[:, None]
        return last if logits.shape[1] == 1 else torch.cat([logits[:, :-1], last], 1)


def force(
    logits: Float[Tensor, "request vocab"], token: Int[Tensor, " request"], where: Bool[Tensor, " request"]
) -> Float[Tensor, "request vocab"]:
    """Logits under which only `token` can follow, in the rows `where`; the others as they were."""
    only = torch.full_like(logits, -torch.inf).scatter_(1, token[:, None], 0.0)
    return torch.where(where[:, None], only, logits)


def steer(
    x: Float[Tensor, "request pos d"], direction: Float[Tensor, " d"], scale: float, where: Bool[Tensor, " request"]
) -> Float[Tensor, "request pos d"]:
    """`scale * direction` added at the last position of the rows `where`."""
    added = x.clone()
    added[:, -1] += where[:, None] * (scale * direction).to(x.device, x.dtype)
    return added


def direction_digest(direction: Float[Tensor, " d"]) -> str:
    """How a direction is named in a policy: the digest of its float32 bytes."""
    return digest_of(direction.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())


def check_steering(model: Model, steering: Steering, direction: Tensor | None, probed: list[str]) -> Tensor:
    """The direction, if it is the registered one and its site lies behind every probe.

    Raises:
        UsageError: none was given, another than the registered one, of another width, or for a site before a probe.
    """
    if direction is None or direction.shape != (model.d_model,):
        got = "none" if direction is None else f"shape {tuple(direction.shape)}"
        raise UsageError(f"the policy steers: expected direction= with a vector of width {model.d_model}, got {got}")
    if direction_digest(direction) != steering.direction:
        raise UsageError(f"expected the registered direction {steering.direction}, got {direction_digest(direction)}")
    order = model.sites.names()
    model.sites.check([steering.site])
    if late := [site for site in probed if order.index(site) > order.index(steering.site)]:
        raise UsageError(
            f"steering at {steering.site} would come before the probe at {late[0]} has spoken; choose {late[0]} or a later site"
        )
    return direction.to(model.device, model.hf.dtype)
