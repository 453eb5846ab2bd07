"""A judge for the uncertain few that looks inside once more: what the model would say if it stopped earlier.

The end of the prompt is read through the model's own norm and unembedding at its last depths (`models.lens`). If one of the words
that open a harmful reply is the most likely at all of them, the judge says harmful; at none, harmless; else that it cannot tell.
It costs one forward pass and a few heads, so it is for few requests. An attribution graph of the same prompt is a dearer judge of
the same form: any callable from a text to an opinion will do.
"""

from collections.abc import Sequence

import numpy as np

from auditgap.errors import UsageError
from auditgap.models import Model, token_id
from auditgap.models.lens import read_lens
from auditgap.monitor.cascade import Judge, Opinion

__all__ = ["lens_judge"]


def lens_judge(model: Model, openings: Sequence[str], *, n_depths: int = 2) -> Judge:
    """A judge of rendered prompts by the words (each one token) that open harmful replies.

    Raises:
        UsageError: no openings, one that is no single token, or more depths than the model has.
    """
    if not openings or not 1 <= n_depths <= model.n_layers + 1:
        raise UsageError(f"expected openings and 1 to {model.n_layers + 1} depths, got {len(openings)} and {n_depths}")
    ids = np.array([token_id(model, word) for word in openings])

    def judge(text: str) -> Opinion:
        top = read_lens(model, [text], ids[None]).top[0, -n_depths:]
        seen = np.isin(top, ids)
        return "harmful" if seen.all() else "cannot tell" if seen.any() else "harmless"

    return judge
