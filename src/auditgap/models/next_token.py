"""What the next-token logits say: how far they lean to some answers, and how far an edit moved them."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

__all__ = ["behaviour_score", "kl_nats"]


def behaviour_score(
    logits: Float[Tensor, "prompt vocab"], answers: Sequence[int], foils: Sequence[int] = ()
) -> Float[Tensor, " prompt"]:
    """How strongly the model leans to the answers at the next token, in logits: above 0 it prefers them.

    With foils logsumexp(answers) - logsumexp(foils); without, the log-odds of the answers, log(P + 1e-8) - log(1 - P + 1e-8).
    """
    logits = logits.double()
    if foils:
        return logits[:, list(answers)].logsumexp(-1) - logits[:, list(foils)].logsumexp(-1)
    p = logits.softmax(-1)[:, list(answers)].sum(-1)
    return (p + 1e-8).log() - (1 - p + 1e-8).log()


def kl_nats(base: Float[Tensor, "prompt vocab"], edited: Float[Tensor, "prompt vocab"]) -> Float[Tensor, " prompt"]:
    """KL(base || edited) of the next token: 0 if the edit changed no prediction."""
    p, q = base.double().log_softmax(-1), edited.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)
