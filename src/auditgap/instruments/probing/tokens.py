"""Every token of every prompt, kept on disk: whoever reads them holds a block of rows at a time.

A million tokens of a large model do not fit into memory, and a search reads them hundreds of times. So they are read from the
model once, written to a file that the caller deletes, and mapped from there.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from auditgap.data import Prompt
from auditgap.errors import CannotMeasure
from auditgap.models import Model, capture_tokens
from auditgap.models.tokens import batches, prompt_ids

__all__ = ["Tokens", "capture_to_disk", "token_means"]

BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of some rows at one place."""

    values: Float[np.ndarray, "prompt pos d"]
    """Mapped from disk; a row holds its prompt's tokens first and then nothing of meaning."""
    lengths: Int[np.ndarray, " prompt"]
    rows: Int[np.ndarray, " row"]
    """Which prompts are meant, in order."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """d_model, or the width of `z`."""
        return self.values.shape[2]

    @property
    def n_tokens(self) -> Int[np.ndarray, " row"]:
        """Tokens of each row."""
        return self.lengths[self.rows]

    def take(self, rows: Int[np.ndarray, " kept"]) -> "Tokens":
        """Some of the rows; nothing is read."""
        return replace(self, rows=self.rows[rows])

    def blocks(
        self, n_readouts: int = 1
    ) -> Iterator[tuple[slice, Float[np.ndarray, "part pos d"], Bool[np.ndarray, "part pos"]]]:
        """Rows in order, a few at a time: which, their tokens, and which of those are real.

        As few as keep a block, and `n_readouts` scores for each of its tokens, within `BLOCK_BYTES`.
        """
        longest = int(self.n_tokens.max(initial=1))
        step = max(1, BLOCK_BYTES // (longest * max(self.width, n_readouts) * self.values.itemsize))
        for start in range(0, len(self.rows), step):
            part = self.rows[start : start + step]
            n_pos = int(self.lengths[part].max())
            yield slice(start, start + len(part)), self.values[part, :n_pos], np.arange(n_pos) < self.lengths[part][:, None]


def token_means(features: Float[np.ndarray, "row d"] | Tokens) -> Float[np.ndarray, "row d"]:
    """One vector a row: the mean over its tokens, or the row itself where it is one vector already.

    The mean of a linear score over tokens is the score of this mean.
    """
    if not isinstance(features, Tokens):
        return features
    means = np.empty((len(features), features.width))
    for rows, x, real in features.blocks():
        means[rows] = (x * real[..., None]).sum(axis=1, dtype=np.float64) / real.sum(axis=1)[:, None]
    return means


def capture_to_disk(
    model: Model, prompts: Sequence[Prompt], sites: Sequence[str], *, folder: Path, batch_size: int
) -> list[Tokens]:
    """Every token's activation at each site, in one forward pass over the prompts; the files lie in `folder`.

    Raises:
        CannotMeasure: the disk cannot hold them, or an activation is not finite.
        UsageError: as `capture`.
    """
    model.sites.check(sites)
    ids = prompt_ids(model, prompts)
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    held: dict[str, np.memmap] = {}
    for index, tokens in batches(model, ids, batch_size, by_length=True):
        for site, x in capture_tokens(model, tokens, sites).items():
            if site not in held:
                shape = (len(ids), int(lengths.max()), x.shape[2])
                _require_disk(folder, n_bytes=4 * len(sites) * int(lengths.sum()) * x.shape[2] if not held else 0)
                held[site] = np.memmap(folder / f"{len(held)}-{site}", dtype=np.float32, mode="w+", shape=shape)
            if not x[tokens.attention_mask.bool().cpu()].isfinite().all():
                raise CannotMeasure(
                    f"{site}: expected finite activations, got NaN or infinity; open the model in float32 or bfloat16"
                )
            for row, padded in zip(index, x.numpy(), strict=True):  # left-padded: the tokens come last
                held[site][row, : lengths[row]] = padded[padded.shape[0] - lengths[row] :]
    every = np.arange(len(ids))
    return [Tokens(held[site], lengths, every) for site in sites]


def _require_disk(folder: Path, *, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise CannotMeasure(
            f"every token of these prompts takes {n_bytes / 2**30:.1f} GiB on disk at these layers, {free / 2**30:.1f} GiB are "
            "free for temporary files; choose fewer layers, or one token a prompt (`position`)"
        )
