"""What can be patched: a site of a layer, one head of it where it is divided, at a column of aligned positions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from auditgap.errors import SiteError
from auditgap.instruments.mechanistic.attribution_patching.attention import read_attention
from auditgap.instruments.patching.pairs import Columns, Pairs
from auditgap.models import Model
from auditgap.models.patch import Metric

__all__ = ["Kind", "Layout", "Node", "available", "logit_difference"]

Kind = Literal["resid_pre", "attn_out", "mlp_out", "z", "q", "k"]
"""`q` and `k` are the queries and keys as attention compares them, after norms and rotation."""


class Node(NamedTuple):
    """One thing that can be patched."""

    kind: Kind
    layer: int
    column: int
    head: int
    """0 where the site is not divided; for `k` one of the distinct key heads, which several query heads share in GQA."""


@dataclass(frozen=True, eq=False)
class Layout:
    """All nodes, and where they are in each pair."""

    heads: Mapping[Kind, int]
    """How many parts each kind has; 1 if it is not divided."""
    layers: Sequence[int]
    columns: Columns

    @property
    def nodes(self) -> list[Node]:
        """Every node: by kind, layer, column, head."""
        n_columns = len(self.columns.labels)
        return [
            Node(kind, layer, column, head)
            for kind, n_heads in self.heads.items()
            for layer in self.layers
            for column in range(n_columns)
            for head in range(n_heads)
        ]

    def only(self, kinds: Iterable[Kind]) -> "Layout":
        """The nodes of some kinds, in the same order."""
        wanted = set(kinds)
        return Layout({kind: n for kind, n in self.heads.items() if kind in wanted}, self.layers, self.columns)

    def pick(
        self, values: Mapping[tuple[Kind, int], Float[Tensor, "batch pos head"]], rows: Sequence[int]
    ) -> Float[np.ndarray, "batch node"]:
        """The values of some pairs at the nodes, in the order of `nodes`."""
        at, batch = torch.from_numpy(self.columns.positions[list(rows)]), torch.arange(len(rows))[:, None]
        parts = [values[kind, layer][batch, at].flatten(1) for kind in self.heads for layer in self.layers]
        return torch.cat(parts, dim=1).double().numpy()

    def name(self, node: Node) -> str:
        """`z.3 head 2 at 'prompt end'`."""
        head = f" head {node.head}" if self.heads[node.kind] > 1 else ""
        return f"{node.kind}.{node.layer}{head} at '{self.columns.labels[node.column]}'"


def available(model: Model, kinds: Sequence[Kind], input_ids: Int[Tensor, "row pos"]) -> tuple[dict[Kind, int], dict[Kind, str]]:
    """How many parts each kind has in this model, and for those that it does not let us patch, why."""
    heads: dict[Kind, int] = {}
    missing: dict[Kind, str] = {}
    for kind in dict.fromkeys(kinds):
        if kind in ("resid_pre", "attn_out", "mlp_out"):
            heads[kind] = 1
        elif model.sites.d_z is None:
            missing[kind] = (
                f"{model.subject.architecture} has no single attention output projection, so its heads cannot be told apart"
            )
        elif kind == "z":
            heads[kind] = model.n_heads
        else:
            try:
                attention = read_attention(model, input_ids)
            except SiteError as error:
                missing[kind] = str(error)
            else:
                heads[kind] = model.n_heads if kind == "q" else attention[0].key.shape[1]
    return heads, missing


def logit_difference(pairs: Pairs) -> Metric:
    """Logit of each pair's answer less that of its foil."""

    def metric(logits: Float[Tensor, "row vocab"], pair: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
        answer, foil = (ids.to(logits.device)[pair] for ids in (pairs.answer, pairs.foil))
        every = torch.arange(len(pair), device=logits.device)
        return logits[every, answer] - logits[every, foil]

    return metric
