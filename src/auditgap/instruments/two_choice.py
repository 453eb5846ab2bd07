"""Which of two answers a model prefers: accuracy whose chance level is known, whatever becomes of the format of its replies.

An item of a pair set is its clean question with the right answer and the foil. Beside it stands a benign item: the corrupted
question, which the model has no reason to fail, and for which the foil is right.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from auditgap.data import Dataset, PairRow, PairSet
from auditgap.errors import CannotMeasure, UsageError
from auditgap.models import Model, log_likelihood

__all__ = ["CHANCE", "by_group", "right_choices", "rows_of"]

CHANCE = 0.5
MIN_GROUPS = 5  # of fewer, not even a perfect result brings a sign-flip p to 0.05: 1 / 2^4 = 0.0625


def right_choices(
    model: Model, prompts: Sequence[str], right: Sequence[str], wrong: Sequence[str], *, batch_size: int = 32
) -> Float[np.ndarray, " item"]:
    """1 where the right answer is likelier than the wrong one, 0 where it is not, a half where that cannot be said.

    The log-likelihood of the whole answer decides, so answers of unlike length are not on equal terms. A model that gives NaN
    under heavy noise is at chance.

    Raises:
        UsageError: an answer is empty or merges with the end of its prompt; the message names the row.
    """
    both = log_likelihood(model, [*prompts, *prompts], [*right, *wrong], batch_size=batch_size).double().numpy()
    for_right, for_wrong = np.split(both, 2)
    return np.where(for_right > for_wrong, 1.0, np.where(for_right < for_wrong, 0.0, CHANCE))


def by_group(values: Float[np.ndarray, "... row"], rows: Sequence[PairRow]) -> Float[np.ndarray, "... group"]:
    """The mean of each group, in order of first appearance: the independent units."""
    groups = [row.group for row in rows]
    members = [[i for i, group in enumerate(groups) if group == name] for name in dict.fromkeys(groups)]
    return np.stack([values[..., rows_of_group].mean(axis=-1) for rows_of_group in members], axis=-1)


def rows_of(data: Dataset, *, instrument: str) -> dict[str, tuple[PairRow, ...]]:
    """The rows of `train`, `val` and `test`.

    Raises:
        UsageError: the data are not pairs.
        CannotMeasure: a part has fewer than 5 groups.
    """
    if not isinstance(data, PairSet):
        raise UsageError(
            f"{instrument} reads pairs, got a {type(data).__name__}; give it rows with clean, corrupted, answer, foil"
        )
    parts = {name: data.split(name).rows for name in ("train", "val", "test")}
    if short := [f"{name} has {n}" for name, rows in parts.items() if (n := len({row.group for row in rows})) < MIN_GROUPS]:
        raise CannotMeasure(
            f"{data.source}: expected at least {MIN_GROUPS} groups of pairs in train, val and test; {', '.join(short)}. "
            "Add pairs, or leave out 'split' everywhere to have the groups divided"
        )
    return parts
