"""Monitors fed by any inference engine: it hands over features, the feed keeps the requests apart.

An engine that computes activations elsewhere (another process, other kernels, tokens of many requests in one flat batch) sends
`Features`: some tokens of one request at every site that the monitors read. What it did not compute, because a prefix cache held
it, it must say (`n_hidden`), and that lowers the coverage.

The engine names itself with its flags. A monitor speaks only if it was calibrated on that engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from auditgap.errors import CannotMeasure, UsageError
from auditgap.monitor.artefact import Monitor, uncalibrated
from auditgap.monitor.panel import Panel, Run, Watched
from auditgap.records import Subject
from auditgap.records.monitor import Engine, MonitorPolicy

__all__ = ["FeatureFeed", "Features"]


@dataclass(frozen=True, eq=False)
class Features:
    """Some tokens of one request, in order, none of them sent before."""

    request_id: str
    engine: str
    """Digest of the `Engine` record of what computed them."""
    dtype: str
    values: Mapping[str, Float[Tensor, "token d"]]
    """By site."""
    is_prompt: bool
    """Whether these are tokens of the prompt."""
    ends_prompt: bool = False
    """Whether the last of them is the last of the prompt: prompts may come in pieces."""
    n_hidden: int = 0
    """Tokens before them that were never computed."""


class FeatureFeed:
    """The requests that an engine is working on, each scored on its own.

    Raises:
        CannotMeasure: a monitor is not calibrated on this subject and engine, and the policy refuses to go on without it.
    """

    def __init__(
        self, monitors: Sequence[Monitor], *, subject: Subject, engine: Engine, policy: MonitorPolicy | None = None
    ) -> None:
        rule = policy or MonitorPolicy()
        self.engine, self.down = engine, dict[str, str]()
        speaking: list[Monitor] = []
        for monitor in monitors:
            found = uncalibrated(monitor.card, subject, engine, template=subject.chat_template)
            reason = str(found) if found else "" if monitor.card.at(rule.max_fpr) else f"no threshold at {rule.max_fpr:g}"
            if reason:
                self.down[monitor.card.name] = reason
            else:
                speaking.append(monitor)
        if self.down and rule.when_down == "refuse":
            reasons = "; ".join(f"monitor '{name}' is down: {reason}" for name, reason in self.down.items())
            raise CannotMeasure(f"{reasons}. Calibrate it on this engine, or let the policy pass (when_down: pass)")
        limits = [point.threshold for monitor in speaking if (point := monitor.card.at(rule.max_fpr))]
        self.panel = Panel.of(speaking, limits)
        self._open: dict[str, Run] = {}

    @property
    def sites(self) -> list[str]:
        """Where the monitors read: every `Features` must hold these."""
        return list(self.panel.packed)

    def observe(self, features: Features) -> list[Watched]:
        """Score these tokens; what is known of the request so far.

        Raises:
            CannotMeasure: they come from another engine or in another dtype than the feed was opened for.
            UsageError: a site is missing, or there is no token.
        """
        self._check(features)
        run = self._open.setdefault(features.request_id, Run(self.panel, 1))
        scores, one = self._scores(features), torch.ones(1, dtype=torch.bool)
        if features.is_prompt:
            real, hidden = one.expand(1, len(scores)), torch.tensor([features.n_hidden])
            run.prompt(scores[None], real, hidden, is_end=features.ends_prompt)
        else:
            for token in scores:
                run.token(token[None], one)
        return run.watched(0)

    def finish(self, request_id: str) -> list[Watched]:
        """What the monitors say of a request that ended, was cancelled or failed; it is forgotten.

        Raises:
            UsageError: no such request is open.
        """
        if request_id not in self._open:
            raise UsageError(f"no open request '{request_id}'; open: {', '.join(sorted(self._open)[:5]) or 'none'}")
        return self._open.pop(request_id).watched(0)

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._open

    def _check(self, features: Features) -> None:
        if features.engine != self.engine.digest() or features.dtype != self.engine.dtype:
            raise CannotMeasure(
                f"request '{features.request_id}': expected features of engine {self.engine.digest()} in {self.engine.dtype}, "
                f"got {features.engine} in {features.dtype}; a monitor speaks only on the engine it was calibrated on"
            )
        if missing := [site for site in self.sites if site not in features.values]:
            raise UsageError(
                f"request '{features.request_id}': expected features at {', '.join(self.sites)}, got none at {missing}"
            )
        lengths = {len(x) for x in features.values.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise UsageError(
                f"request '{features.request_id}': expected the same tokens at every site, at least one, got {lengths}"
            )

    def _scores(self, features: Features) -> Float[Tensor, "token probe"]:
        n_tokens = len(next(iter(features.values.values())))
        parts = [part.scores(features.values[site].to("cpu")) for site, part in self.panel.packed.items()]
        return self.panel.joined(parts) if parts else torch.zeros(n_tokens, 0)
