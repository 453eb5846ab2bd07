"""What patching does, exactly: any set of nodes at once, one row of a batch for each set; and the sweep of all single nodes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from auditgap.errors import SiteError
from auditgap.instruments.mechanistic.attribution_patching.attention import (
    Attention,
    Visit,
    attending,
    read_attention,
)
from auditgap.instruments.mechanistic.attribution_patching.nodes import Kind, Layout, Node, logit_difference
from auditgap.instruments.patching.pairs import Pairs
from auditgap.instruments.patching.runs import unpadded
from auditgap.models import Edit, Model, capture_tokens, editing, head_sweep, patching_sweep
from auditgap.models.generate import final_logits
from auditgap.models.patch import Direction, PatchSite

__all__ = ["NodeSet", "Patcher"]

ATTENDED: tuple[Kind, ...] = ("q", "k")


class NodeSet(NamedTuple):
    """Nodes of one pair that are patched together."""

    pair: int
    nodes: Sequence[Node]


@dataclass(frozen=True, eq=False)
class Patcher:
    """Patched runs of pairs; effects are shares of the pair's gap."""

    model: Model
    pairs: Pairs
    layout: Layout
    clean: Float[np.ndarray, " pair"]
    """Logit difference of the clean run."""
    corrupted: Float[np.ndarray, " pair"]
    direction: Direction
    max_rows: int

    def effects(self, sets: Sequence[NodeSet], *, own: bool = False) -> Float[np.ndarray, " set"]:
        """What patching each set does; with `own` vectors of the recipient itself, which must do nothing."""
        found: dict[int, float] = {}
        by_length: defaultdict[int, list[int]] = defaultdict(list)
        for index, one in enumerate(sets):
            by_length[self.pairs.lengths[one.pair]].append(index)
        for _, indices in sorted(by_length.items()):
            for start in range(0, len(indices), self.max_rows):
                part = indices[start : start + self.max_rows]
                found |= zip(part, self._run([sets[index] for index in part], own=own), strict=True)
        values = np.array([found[index] for index in range(len(sets))], dtype=np.float64)
        return self._shares(values[:, None], [one.pair for one in sets])[:, 0]

    def each(self, nodes: Sequence[Node], pairs: Sequence[int], *, own: bool = False) -> Float[np.ndarray, "pair node"]:
        """What patching each of these nodes alone does, in each of these pairs."""
        sets = [NodeSet(pair, [node]) for pair in pairs for node in nodes]
        return self.effects(sets, own=own).reshape(len(pairs), len(nodes))

    def sweep(self, pairs: Sequence[int]) -> Float[np.ndarray, "pair node"]:
        """What patching each node of the layout alone does, by the one-pass sweep where there is one."""
        nodes, taken = self.layout.nodes, self.pairs.take(pairs)
        found = np.empty((len(pairs), len(nodes)))
        one_by_one = [index for index, node in enumerate(nodes) if node.kind in ATTENDED]
        found[:, one_by_one] = self.each([nodes[index] for index in one_by_one], pairs)
        swept = self.layout.only(kind for kind in self.layout.heads if kind not in ATTENDED)
        order = [index for index, node in enumerate(nodes) if node.kind in swept.heads]
        for rows in taken.by_length(len(pairs)) if order else ():
            of = [pairs[row] for row in rows]
            raw = swept.pick(self._swept(swept, taken.take(rows)), of)
            found[np.ix_(rows, order)] = self._shares(raw, of)
        return found

    def _swept(self, layout: Layout, batch: Pairs) -> dict[tuple[Kind, int], Float[Tensor, "pair pos head"]]:
        """Logit differences of the patched runs of pairs of one length."""
        found: dict[tuple[Kind, int], Tensor] = {}
        ends = torch.stack(batch.clean), torch.stack(batch.corrupted)
        metric, rows = logit_difference(batch), max(self.max_rows, self.model.n_layers)
        for kind in layout.heads:
            if kind == "z":
                raw = head_sweep(self.model, *ends, metric=metric, direction=self.direction, max_rows=rows).effects.mT
            else:
                by_site = patching_sweep(
                    self.model, *ends, metric=metric, site=_swept_site(kind), direction=self.direction, max_rows=rows
                )
                raw = by_site.effects[..., None]
            found |= {(kind, layer): raw[:, layer] for layer in layout.layers}
        return found

    def _shares(self, logit_diff: Float[np.ndarray, "pair node"], pairs: Sequence[int]) -> Float[np.ndarray, "pair node"]:
        """How much of each pair's gap a patched run restored, or destroyed."""
        clean, corrupted = (x[list(pairs)][:, None] for x in (self.clean, self.corrupted))
        moved = logit_diff - corrupted if self.direction == "denoising" else clean - logit_diff
        return moved / (clean - corrupted)

    def _run(self, sets: Sequence[NodeSet], *, own: bool) -> Float[np.ndarray, " set"]:
        """Logit difference of each patched run, of pairs of one length."""
        which = sorted({one.pair for one in sets})
        taken = self.pairs.take(which)
        recipient, donor = (taken.corrupted, taken.clean) if self.direction == "denoising" else (taken.clean, taken.corrupted)
        source = torch.stack(recipient if own else donor)
        cells: defaultdict[tuple[Kind, int], list[tuple[int, int, int, int]]] = defaultdict(list)
        for row, one in enumerate(sets):
            for kind, layer, column, head in one.nodes:
                position = int(self.layout.columns.positions[one.pair, column])
                cells[kind, layer].append((row, which.index(one.pair), position, head))
        places = {key: torch.tensor(found).T for key, found in cells.items()}
        sites = {f"{key[0]}.{key[1]}": key for key in places if key[0] not in ATTENDED}
        values = capture_tokens(self.model, unpadded(self.model, source), list(sites)) if sites else {}
        edits = {site: _put(places[key], values[site], self.layout.heads[key[0]]) for site, key in sites.items()}
        attended = {key: place for key, place in places.items() if key[0] in ATTENDED}
        compared = read_attention(self.model, source) if attended else []
        rows = torch.stack([recipient[which.index(one.pair)] for one in sets])
        with ExitStack() as stack:
            stack.enter_context(editing(self.model, edits))
            if attended:
                stack.enter_context(attending(self.model, _put_attended(attended, compared)))
            logits = final_logits(self.model, unpadded(self.model, rows), keep=1)[:, 0]
        pair = torch.tensor([which.index(one.pair) for one in sets], device=logits.device)
        return logit_difference(taken)(logits.double(), pair).cpu().numpy()


def _swept_site(kind: Kind) -> PatchSite:
    if kind not in ("resid_pre", "attn_out", "mlp_out"):
        raise SiteError(f"expected an undivided site, got {kind}")
    return kind


def _put(place: Int[Tensor, "4 cell"], values: Float[Tensor, "pair pos d"], n_heads: int) -> Edit:
    row, pair, position, head = place
    parts = values.unflatten(-1, (n_heads, -1))[pair, position, head]

    def edit(x: Tensor) -> Tensor:
        by_head = x.unflatten(-1, (n_heads, -1)).clone()
        by_head[row, position, head] = parts.to(x.device, x.dtype)
        return by_head.flatten(-2)

    return edit


def _put_attended(places: Mapping[tuple[Kind, int], Int[Tensor, "4 cell"]], source: Sequence[Attention]) -> Visit:
    def visit(layer: int, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        if ("q", layer) in places:
            row, pair, position, head = places["q", layer]
            query = query.clone()
            query[row, head, position] = source[layer].query[pair, head, position].to(query)
        if ("k", layer) in places:
            row, pair, position, head = places["k", layer]
            distinct = source[layer].key
            copies = key.unflatten(
                1, (distinct.shape[1], -1)
            ).clone()  # some kernels get each key once, others once per query head
            copies[row, head, :, position] = distinct[pair, head, position][:, None].to(key)
            key = copies.flatten(1, 2)
        return query, key

    return visit
