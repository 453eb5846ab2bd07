"""Several monitors at once, and what is known of the requests of one batch so far. Knows no engine: it is fed scores and masks.

1. A token's scores under all probes come in; each monitor's probes are averaged (`multi_max`: after aggregation).
2. Monitors of one position policy and aggregation share a state.
3. After every token the largest value so far is kept, and when it first passed the monitor's threshold.

Everything stays on the device. Whoever reads a number waits for it; nobody else does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from auditgap.monitor.aggregation import State, start, update, value
from auditgap.monitor.artefact import Monitor
from auditgap.monitor.packing import Packed, in_order, pack
from auditgap.records.monitor import Aggregation, PositionPolicy

__all__ = ["Panel", "Run", "Tally", "Watched"]


class Watched(NamedTuple):
    """What one monitor says of one request."""

    request: int
    """In the order in which requests reached the model."""
    monitor: str
    score: float | None
    """The largest aggregated score; None if the monitor is down or saw no token."""
    latest: float | None
    """The aggregated score after the last token."""
    flagged: bool
    flagged_after: int | None
    """Tokens of the reply that existed when it was flagged: 0 is before the first; None if it was not."""
    n_scored: int
    n_due: int
    """Tokens that the position policy asks for, hidden ones among them."""
    n_tokens: int
    """Tokens of prompt and reply that the engine had before it, hidden ones among them."""
    down: str = ""
    """Why the monitor could not speak; empty if it could."""

    @property
    def coverage(self) -> float:
        """Share of the tokens due that were really scored."""
        return self.n_scored / self.n_due if self.n_due else 0.0


class _Group(NamedTuple):
    """Monitors that read the same tokens and aggregate alike."""

    position: PositionPolicy
    how: Aggregation
    monitors: tuple[int, ...]
    mix: Float[Tensor, "probe monitor"] | None
    """Averages the probes of each monitor. None if it has all probes there are, one for each."""
    thresholds: Float[Tensor, " monitor"]


class Tally(NamedTuple):
    """What is known of a batch under one group of monitors."""

    state: State
    peak: Float[Tensor, "request monitor"]
    flagged_after: Int[Tensor, "request monitor"]
    """-1 while not flagged."""
    n_missed: Int[Tensor, " request"]
    """Tokens that were due and not scored; the others are counted by the state."""


@dataclass(frozen=True, eq=False)
class Panel:
    """Monitors with the thresholds in use, packed."""

    names: tuple[str, ...]
    packed: Mapping[str, Packed]
    groups: tuple[_Group, ...]

    @classmethod
    def of(cls, monitors: Sequence[Monitor], thresholds: Sequence[float], *, device: torch.device | str = "cpu") -> "Panel":
        """The monitors side by side; a threshold of infinity flags nothing."""
        packed = pack([readout for monitor in monitors for readout in monitor.readouts], device=device) if monitors else {}
        owners = torch.tensor([i for i, monitor in enumerate(monitors) for _ in monitor.weights], device=device)
        kinds: list[tuple[PositionPolicy, Aggregation]] = [(m.card.position, m.card.aggregation) for m in monitors]
        groups = []
        for position, how in dict.fromkeys(kinds):
            held = tuple(i for i, kind in enumerate(kinds) if kind == (position, how))
            owned = torch.stack([owners == i for i in held], 1).float()
            mix = None if len(held) == len(owners) else owned / owned.sum(0)
            limits = torch.tensor([thresholds[i] for i in held], dtype=torch.float32, device=device)
            groups.append(_Group(position, how, held, mix, limits))
        return cls(tuple(monitor.card.name for monitor in monitors), packed, tuple(groups))

    def joined(self, parts: Sequence[Float[Tensor, "*token _"]]) -> Float[Tensor, "*token probe"]:
        """The scores of all sites side by side, probes in order; of one site, as they come."""
        return torch.cat(list(parts), -1)[..., in_order(list(self.packed.values()))] if len(parts) > 1 else parts[0]

    @property
    def reads_whole_prompt(self) -> bool:
        """Whether any monitor wants more of a prompt than its end."""
        return any(group.position == "every_token" for group in self.groups)


class Run:
    """The requests of one batch, from prompt to end: a streaming fitter of their scores."""

    def __init__(self, panel: Panel, n_requests: int, *, device: torch.device | str = "cpu") -> None:
        self.panel, self.n_requests = panel, n_requests
        self.n_steps = 0
        """New tokens that have passed through the model."""
        none = torch.zeros(n_requests, dtype=torch.long, device=device)
        self.n_tokens = none
        self.tallies = tuple(_fresh(group, n_requests, device) for group in panel.groups)

    def prompt(
        self,
        scores: Float[Tensor, "request pos probe"],
        real: Bool[Tensor, "request real"],
        hidden: Int[Tensor, " request"],
        *,
        is_end: bool = True,
    ) -> None:
        """The scores of the prompt, or of a piece of it: of all its tokens, or of the last alone.

        `hidden` tokens were never computed; `is_end` says that the last token is the last of the prompt.
        """
        self.n_tokens = self.n_tokens + hidden + real.sum(1)
        last = torch.ones(self.n_requests, dtype=torch.bool, device=scores.device)
        found = []
        for group, tally in zip(self.panel.groups, self.tallies, strict=True):
            if group.position == "every_token":
                for pos in range(scores.shape[1]):
                    tally = _absorb(group, tally, scores[:, pos], real[:, pos], 0)
                found.append(tally._replace(n_missed=tally.n_missed + hidden))
            else:
                found.append(_absorb(group, tally, scores[:, -1], last, 0) if is_end else tally)
        self.tallies = tuple(found)

    def token(self, scores: Float[Tensor, "request probe"], running: Bool[Tensor, " request"]) -> None:
        """The scores of one new token of each request that is still running."""
        self.n_steps += 1
        self.n_tokens = self.n_tokens + running
        self.tallies = tuple(
            tally if group.position == "prompt_end" else _absorb(group, tally, scores, running, self.n_steps)
            for group, tally in zip(self.panel.groups, self.tallies, strict=True)
        )

    def unscored(self, real: Bool[Tensor, "request pos"]) -> None:
        """Tokens that passed by without being scored: they are due, and lower the coverage."""
        self.n_tokens = self.n_tokens + real.sum(1)
        self.tallies = tuple(
            tally if group.position == "prompt_end" else tally._replace(n_missed=tally.n_missed + real.sum(1))
            for group, tally in zip(self.panel.groups, self.tallies, strict=True)
        )

    @property
    def flagged(self) -> Bool[Tensor, " request"]:
        """Which requests any monitor has flagged; stays on the device."""
        none = torch.zeros_like(self.n_tokens, dtype=torch.bool)
        return torch.stack([none, *((tally.flagged_after >= 0).any(1) for tally in self.tallies)]).any(0)

    def watched(self, first: int) -> list[Watched]:
        """Every request under every monitor, requests counted from `first`; waits for the device."""
        found: list[list[Watched]] = [[] for _ in range(self.n_requests)]
        n_tokens = self.n_tokens.tolist()
        for group, tally in zip(self.panel.groups, self.tallies, strict=True):
            peaks, latest = tally.peak.tolist(), _value(group, tally.state).tolist()
            after, scored, missed = tally.flagged_after.tolist(), tally.state.n.tolist(), tally.n_missed.tolist()
            names = [self.panel.names[monitor] for monitor in group.monitors]
            for row, seen in enumerate(scored):
                counts = (seen, seen + missed[row], n_tokens[row])
                for name, peak, last, at in zip(names, peaks[row], latest[row], after[row], strict=True):
                    numbers = (peak, last) if seen else (None, None)
                    found[row].append(Watched(first + row, name, *numbers, at >= 0, at if at >= 0 else None, *counts))
        order = {name: i for i, name in enumerate(self.panel.names)}
        return [watched for row in found for watched in sorted(row, key=lambda each: order[each.monitor])]


def _fresh(group: _Group, n_requests: int, device: torch.device | str) -> Tally:
    n_columns = len(group.monitors) if group.mix is None or not _by_probe(group) else len(group.mix)
    peak = torch.full((n_requests, len(group.monitors)), -torch.inf, device=device)
    state = start(group.how, n_requests, n_columns, device=device)
    return Tally(state, peak, torch.full_like(peak, -1, dtype=torch.long), torch.zeros_like(state.n))


def _absorb(group: _Group, tally: Tally, scores: Tensor, seen: Tensor, n_before: int) -> Tally:
    """One more token; a score that is no number is an alarm, because nobody can say that it is none."""
    state = update(group.how, tally.state, scores if _by_probe(group) else _by_monitor(group, scores), seen)
    peak = torch.maximum(tally.peak, _value(group, state).nan_to_num(torch.inf, torch.inf, -torch.inf))
    passed = (peak > group.thresholds) & (tally.flagged_after < 0)
    return Tally(state, peak, torch.where(passed, n_before, tally.flagged_after), tally.n_missed)


def _value(group: _Group, state: State) -> Tensor:
    found = value(group.how, state)
    return _by_monitor(group, found) if _by_probe(group) else found


def _by_probe(group: _Group) -> bool:
    """Whether probes are aggregated one by one, and their monitor is the average of that."""
    return group.mix is not None and group.how.kind == "multi_max"


def _by_monitor(group: _Group, scores: Float[Tensor, "request probe"]) -> Float[Tensor, "request monitor"]:
    return scores if group.mix is None else scores @ group.mix
