"""What is left of the behaviour when a graph is cut out of the model, or the rest of the model is cut away: by doing it.

A node that is cut writes what it wrote in the corrupted run (resample), or the mean of what it wrote in both (mean); all others
compute from what then reaches them, attention patterns included.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from auditgap.instruments.mechanistic.attribution_graph.graph import Roles
from auditgap.instruments.patching.pairs import Pairs
from auditgap.models import Edit, Model, Tokens, capture_tokens, editing, tokenize
from auditgap.models.direct import write_sites
from auditgap.models.generate import final_logits

__all__ = ["Cut", "cut_targets", "faithfulness", "random_graphs", "restored"]

MIN_WAY_LOGITS = 0.1  # between the clean run and all cut, below which a share of the way means nothing

Donor = Literal["resample", "mean"]


class Cut(NamedTuple):
    """A graph (component by role), what stays, and what the cut nodes write instead."""

    graph: Bool[np.ndarray, "component role"]
    keep: Literal["graph", "rest"] = "graph"
    donor: Donor = "resample"


def cut_targets(
    model: Model, pairs: Pairs, roles: Roles, cuts: Sequence[Cut], *, batch_size: int
) -> Float[np.ndarray, "cut pair"]:
    """Logit of the answer less that of the foil on each clean prompt under each cut."""
    found = np.zeros((len(cuts), len(pairs.rows)))
    sites = write_sites(model)
    for rows in pairs.by_length(batch_size):
        clean, corrupted = (
            tokenize(model, [prompts[row] for row in rows]) for prompts in (pairs.prompts("clean"), pairs.prompts("corrupted"))
        )
        wrote = [
            {site: x.to(model.device) for site, x in capture_tokens(model, run, sites).items()} for run in (clean, corrupted)
        ]
        donors = {"resample": wrote[1], "mean": {site: (wrote[0][site] + wrote[1][site]) / 2 for site in sites}}
        jobs = [(i, j) for i in range(len(cuts)) for j in range(len(rows))]
        for start in range(0, len(jobs), batch_size):
            job = jobs[start : start + batch_size]
            keep = np.stack([_kept(cuts[i], roles.of[rows[j]]) for i, j in job])
            other = {site: torch.stack([donors[cuts[i].donor][site][j] for i, j in job]) for site in sites}
            at = torch.tensor([rows[j] for _, j in job])
            tokens = Tokens(*(x[[j for _, j in job]] for x in clean))
            targets = _targets(model, tokens, pairs.answer[at], pairs.foil[at], torch.from_numpy(keep).to(model.device), other)
            for (i, j), value in zip(job, targets, strict=True):
                found[i, rows[j]] = value
    return found


def _kept(cut: Cut, of: Int[np.ndarray, " pos"]) -> Bool[np.ndarray, "component pos"]:
    """Which components stay at which position; before the first difference nothing can change."""
    inside = np.where(of >= 0, cut.graph[:, of], False)
    return inside if cut.keep == "graph" else ~inside


def _targets(
    model: Model,
    tokens: Tokens,
    answer: Int[Tensor, " row"],
    foil: Int[Tensor, " row"],
    keep: Bool[Tensor, "row component pos"],
    other: dict[str, Float[Tensor, "row pos _"]],
) -> list[float]:
    edits: dict[str, Edit] = {"resid_pre.0": _choose_each(keep[:, :1], other["resid_pre.0"])}
    for layer in range(model.n_layers):
        first = 1 + layer * (model.n_heads + 1)
        edits[f"z.{layer}"] = _choose_each(keep[:, first : first + model.n_heads], other[f"z.{layer}"])
        edits[f"mlp_out.{layer}"] = _choose_each(keep[:, first + model.n_heads, None], other[f"mlp_out.{layer}"])
    with editing(model, edits):
        logits = final_logits(model, tokens, keep=1)[:, -1].double().cpu()
    every = torch.arange(len(logits))
    return (logits[every, answer.cpu()] - logits[every, foil.cpu()]).tolist()


def _choose_each(keep: Bool[Tensor, "row part pos"], other: Float[Tensor, "row pos width"]) -> Edit:
    """Take `other` where the part (a head's share of the width, or all of it) is not kept."""
    wide = keep.transpose(1, 2).repeat_interleave(other.shape[-1] // keep.shape[1], dim=-1)
    return lambda x: torch.where(wide, x, other.to(x.dtype))


def restored(
    targets: Float[np.ndarray, "*cut pair"], clean: Float[np.ndarray, " pair"], floor: Float[np.ndarray, "*cut pair"]
) -> Float[np.ndarray, "*cut pair"]:
    """Share of the way from `floor` (all cut) back to the clean run; NaN where they are less than 0.1 logits apart."""
    way = clean - floor
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(way >= MIN_WAY_LOGITS, (targets - floor) / way, np.nan)


def faithfulness(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 if the cut model does what the whole one does, 0 if it is off by the whole gap or more, whichever way.

    A graph that restores 150 % left out what holds the answer back, so it scores 0.5, not 1.5.
    """
    return np.clip(1 - np.abs(1 - share), 0, 1)


def random_graphs(
    graph: Bool[np.ndarray, "component role"], kinds: Sequence[str], *, n_draws: int, rng: np.random.Generator
) -> list[Bool[np.ndarray, "component role"]]:
    """Graphs with the same embedding nodes, and as many heads and MLPs, drawn anew from all roles.

    The embedding stays because a graph that does not read the difference cannot show it: without that the null would be too easy.
    """
    kind = np.repeat(np.asarray(kinds), graph.shape[1])
    flat, found = graph.ravel(), []
    members = [np.flatnonzero(kind == name) for name in ("head", "mlp")]
    has_others = any(0 < flat[part].sum() < len(part) for part in members)
    while len(found) < n_draws:
        drawn = flat & (kind == "embedding")
        for part in members:
            drawn[rng.choice(part, size=int(flat[part].sum()), replace=False)] = True
        if not has_others or (drawn != flat).any():  # the graph itself is no random graph
            found.append(drawn.reshape(graph.shape))
    return found
