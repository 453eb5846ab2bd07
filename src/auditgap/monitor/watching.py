"""Monitors inside generation: hooks on the model that ships, so that any loop that drives it is watched.

1. Before a pass, a hook on the whole model sees tokens, mask and cache. A pass that does not go on where the last one ended
   begins a new batch of requests; what its cache holds already was hidden from the monitors.
2. One hook per site that has probes: one matrix product. After the last of them the scores of this token are aggregated.
3. After the pass, a policy that stops or refuses replaces the logits of flagged rows (`intervention.py`).

Works under Hugging Face `generate` (greedy and sampling, batches, left-padded prompts of different lengths) and
`auditgap.models.generate`. End and padding tokens are not scored, so that a row that has ended adds nothing; text that goes on
after one is. The last token of a reply never passes through the model and is not due. No step waits for the device; reading does.

Not watched: beam search, assisted decoding and prefill in chunks, whose passes do not follow the tokens of one reply; generation
without a key-value cache; two generations at once on one model object (use one model object per thread).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from auditgap.errors import CannotMeasure, UsageError
from auditgap.models import Model
from auditgap.models.generate import end_ids
from auditgap.models.hooks import Visit, visiting
from auditgap.monitor.artefact import Monitor, engine_of, uncalibrated
from auditgap.monitor.intervention import Script, check_steering, reply_ids, steer
from auditgap.monitor.packing import Packed, Stacked
from auditgap.monitor.panel import Panel, Run, Watched
from auditgap.records import digest_of
from auditgap.records.monitor import MonitorPolicy

__all__ = ["Watch", "attached", "down", "watching"]

LOG = MonitorPolicy()


@contextmanager
def watching(
    model: Model, monitors: Monitor | Sequence[Monitor], policy: MonitorPolicy = LOG, *, direction: Tensor | None = None
) -> Iterator["Watch"]:
    """Watch every request that is generated inside the context; nothing stays behind, whatever happens.

    A monitor that was not calibrated on this model and engine, or not at the policy's rate, is down.

    Raises:
        CannotMeasure: a monitor is down and the policy refuses to go on without it.
        UsageError: two monitors of one name, or a policy that does not fit the model.
    """
    held = [monitors] if isinstance(monitors, Monitor) else list(monitors)
    names = [monitor.card.name for monitor in held]
    if not held or len(set(names)) < len(names):
        raise UsageError(f"expected monitors of distinct names, got {', '.join(names) or 'none'}")
    silent = {monitor.card.name: reason for monitor in held if (reason := down(monitor, model, policy))}
    if silent and policy.when_down == "refuse":
        reasons = "; ".join(f"monitor '{name}' is down: {reason}" for name, reason in silent.items())
        raise CannotMeasure(f"{reasons}. Fit it on this model and engine, or let the policy pass (when_down: pass)")
    speaking = [monitor for monitor in held if monitor.card.name not in silent]
    limits = [point.threshold for monitor in speaking if (point := monitor.card.at(policy.max_fpr))]
    with attached(model, Panel.of(speaking, limits, device=model.device), policy, direction=direction, down=silent) as watch:
        yield watch


def down(monitor: Monitor, model: Model, policy: MonitorPolicy) -> str:
    """Why the monitor cannot speak about this model under this policy; empty if it can."""
    card, template = monitor.card, model.tokenizer.chat_template
    in_use = digest_of(str(template).encode()) if template else None
    found = uncalibrated(card, model.subject, engine_of(model), template=in_use)
    if found:
        return str(found)
    if card.at(policy.max_fpr) is None:
        known = ", ".join(f"{point.max_fpr:g}" for point in card.operating_points) or "none"
        return f"no threshold at a false-positive rate of {policy.max_fpr:g}; it has: {known}"
    return ""


@contextmanager
def attached(
    model: Model,
    panel: Panel,
    policy: MonitorPolicy = LOG,
    *,
    direction: Tensor | None = None,
    down: Mapping[str, str] | None = None,
) -> Iterator["Watch"]:
    """The hooks of a panel, whatever it was calibrated on: for calibration itself; everybody else wants `watching`."""
    watch = Watch(model, panel, policy, down or {})
    visits: list[tuple[str, Visit]] = [(site, watch._reader(i, part)) for i, (site, part) in enumerate(panel.packed.items())]
    if policy.steering is not None:
        vector = check_steering(model, policy.steering, direction, list(panel.packed))
        visits.append((policy.steering.site, watch._steering(vector, policy.steering.scale)))
    with ExitStack() as stack:
        stack.callback(model.hf.register_forward_pre_hook(watch._before, with_kwargs=True).remove)
        stack.enter_context(visiting(model, visits))
        if policy.action in ("stop", "refuse", "escalate"):
            stack.callback(model.hf.register_forward_hook(watch._after).remove)
        yield watch


class Watch:
    """What the monitors have seen so far."""

    def __init__(self, model: Model, panel: Panel, policy: MonitorPolicy, down: Mapping[str, str]) -> None:
        self.down = dict(down)
        """Monitors that say nothing here, and why."""
        self._panel, self._policy, self._device = panel, policy, model.device
        self._reply = reply_ids(model, policy)
        pad = model.tokenizer.pad_token_id
        ends = end_ids(model)
        self._ends = ends if pad is None else torch.cat([ends, ends.new_tensor([pad])])
        self._done: list[Run] = []
        self._n_taken = 0
        self._run: Run | None = None
        self._script: Script | None = None
        self._mode: Literal["prompt", "token", "unscored"] = "prompt"
        self._length = 0
        self._real = self._hidden = self._running = torch.zeros(0)
        self._stacked = Stacked.of(list(panel.packed.values()))
        self._room = torch.zeros(0)
        """What passes at the sites in a pass of one token, to be scored together; `_shelves` are its parts, site by site."""
        self._shelves: tuple[Tensor, ...] = ()
        self._scores: dict[int, Tensor] = {}
        self._n_read = 0

    def requests(self) -> list[Watched]:
        """Every request under every monitor, requests that are still running included; waits for the device."""
        runs, found, first = [*self._done, *([self._run] if self._run else [])], [], self._n_taken
        for run in runs:
            of_run = run.watched(first) + [
                Watched(first + row, name, None, None, False, None, 0, n_tokens, n_tokens, reason)
                for row, n_tokens in enumerate(run.n_tokens.tolist())
                for name, reason in self.down.items()
            ]
            found += sorted(of_run, key=lambda watched: watched.request)
            first += run.n_requests
        return found

    def take(self) -> list[Watched]:
        """The same, and forget them: for a process that does not end."""
        found = self.requests()
        self._n_taken += sum(run.n_requests for run in self._done) + (self._run.n_requests if self._run else 0)
        self._done, self._run = [], None
        return found

    @property
    def coverage(self) -> float:
        """Share of all tokens due that were really scored, over requests and monitors; 0 if nothing was due."""
        found = self.requests()
        due = sum(watched.n_due for watched in found)
        return sum(watched.n_scored for watched in found) / due if due else 0.0

    def _before(self, _module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Read tokens, mask and cache of the pass that begins."""
        ids = args[0] if args else kwargs.get("input_ids")
        given = ids if ids is not None else kwargs["inputs_embeds"]
        n_rows, n_pos = given.shape[:2]
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        past = int(cache.get_seq_length()) if cache is not None else 0
        if kwargs.get("use_cache") is False:
            self._complain("a pass without a key-value cache")
        if mask is not None and mask.ndim != 2:
            self._complain(f"an attention mask of {mask.ndim} axes")
            mask = None
        self._n_read = 0
        run = self._run
        goes_on = run is not None and past > 0 and past == self._length and run.n_requests == n_rows
        self._length = past + n_pos
        if run is None or not goes_on or (n_pos > 1 and run.n_steps > 0):
            whole = given.new_ones((n_rows, past + n_pos), dtype=torch.bool) if mask is None else mask.bool()
            self._begin(n_rows, whole, n_pos, past)
        elif n_pos > 1:
            self._complain("a prompt in several pieces")
            run.unscored(given.new_ones((n_rows, n_pos), dtype=torch.bool) if mask is None else mask[:, -n_pos:].bool())
            self._mode = "unscored"
        else:
            self._running = torch.ones_like(self._running) if ids is None else ~torch.isin(ids[:, -1], self._ends)
            if self._script is not None:
                self._running = self._running & ~run.flagged  # what follows a flag is the policy's text, not the model's
            self._mode = "token"
        if not self._panel.packed:
            self._complete()

    def _begin(self, n_rows: int, whole: Tensor, n_pos: int, past: int) -> None:
        if self._run is not None:
            self._done.append(self._run)
        self._run = Run(self._panel, n_rows, device=self._device)
        self._script = None if self._reply is None else Script(self._reply, n_rows)
        self._real, self._hidden = whole[:, -n_pos:], whole[:, :past].sum(1)
        self._running = torch.ones(n_rows, dtype=torch.bool, device=self._device)
        if self._stacked is not None:
            self._room = self._stacked.room(n_rows)
            self._shelves = tuple(part[:, None] for part in self._room)
        self._mode = "prompt"

    def _complain(self, what: str) -> None:
        if self._policy.when_down == "refuse":
            raise CannotMeasure(
                f"the monitors cannot follow {what}; generate with a key-value cache, without beams, assistants or prefill in "
                "chunks, or let the policy pass (when_down: pass), which counts such tokens as not scored"
            )

    def _reader(self, site: int, part: Packed) -> Visit:
        def read(x: Tensor) -> None:
            if self._stacked is not None and self._mode == "token":
                self._shelves[site].copy_(x.detach() if x.requires_grad else x)
            else:
                whole = self._mode == "prompt" and self._panel.reads_whole_prompt
                self._scores[site] = part.scores(x if whole else x[:, -1:])
            self._n_read += 1
            if self._n_read == len(self._panel.packed):
                self._complete()

        return read

    def _complete(self) -> None:
        """All probes have read this token."""
        run = self._run
        if run is None or self._mode == "unscored":
            return
        if self._stacked is not None and self._mode == "token":
            run.token(self._stacked.scores(self._room), self._running)
            return
        none = torch.zeros(run.n_requests, 1, 0, device=self._device)
        scores = self._panel.joined([self._scores[site] for site in range(self._n_read)]) if self._n_read else none
        if self._mode == "token":
            run.token(scores[:, 0], self._running)
        else:
            run.prompt(scores, self._real, self._hidden)

    def _steering(self, vector: Tensor, scale: float) -> Visit:
        return lambda x: steer(x, vector, scale, self._run.flagged) if self._run is not None else None

    def _after(self, _module: nn.Module, _args: tuple, output: object) -> object:
        """The logits, with those of flagged rows forced."""
        if self._run is not None and self._script is not None:
            output.logits = self._script.apply(output.logits, self._run.flagged)  # type: ignore[attr-defined]
        return output
