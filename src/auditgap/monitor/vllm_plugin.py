"""Monitors in vLLM, in the shape of its observation plugins. UNTESTED ON HARDWARE: run here against a fake engine only.

vLLM's interface, as read in its repository (`vllm/plugins/observation/`; not known to be in any release): a package names an
entry point in a group of plugins, which returns the qualified name of a class; the worker asks an instance for layer indices,
hooks these layers during prefill, and calls `on_step_batch` with their outputs for a flat batch of tokens and one context for
each request. The answer for a request may be to abort it.

    [project.entry-points."vllm.observation_plugins"]
    auditgap = "auditgap.monitor.vllm_plugin:register"

What to know before trusting it:
- Read in that source: only prefill is observed, decode steps are not. So monitors of the end of the prompt work, others are down.
- Read in that source: the first element of a layer's output is handed over. Where the residual is fused into the next norm (Llama
  and most others) that is what the MLP wrote, `mlp_out.L`, and not the stream. Monitors that read another site are down.
- Tokens from the prefix cache are not computed. The end of a prompt always is.
- A monitor that was fitted under transformers is uncalibrated here. `engine_of` names this engine; calibrate with its features.
- Not verified: the name of the entry point group, tensor parallelism, quantised kernels, CUDA graphs, speculative decoding.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol, runtime_checkable

from torch import Tensor

from auditgap.errors import UsageError
from auditgap.monitor.artefact import Monitor, load
from auditgap.monitor.engine import FeatureFeed, Features
from auditgap.monitor.panel import Watched
from auditgap.records import Subject
from auditgap.records.monitor import Engine, MonitorPolicy

__all__ = ["Action", "Context", "MonitorPlugin", "StepResult", "engine_of", "register"]

FOLDERS = "AUDITGAP_MONITORS"
"""Environment variable: folders of monitors, separated as in PATH. Workers are processes of their own and inherit it."""
SITE = "mlp_out"


class Action(IntEnum):
    """What the engine shall do with a request; the values are vLLM's."""

    CONTINUE = 0
    ABORT = 1


@runtime_checkable
class Context(Protocol):
    """What vLLM says of one request in the flat batch."""

    request_id: str
    is_prefill: bool
    num_cached_tokens: int
    batch_offset: int
    num_tokens: int


@dataclass
class StepResult:
    """The answer for one request."""

    action: Action = Action.CONTINUE
    metadata: dict[str, str] = field(default_factory=dict)


def register() -> str:
    """The entry point: the qualified name of the plugin's class."""
    return "auditgap.monitor.vllm_plugin.MonitorPlugin"


def engine_of(version: str, dtype: str, flags: Mapping[str, str]) -> Engine:
    """This engine's name for cards. `flags` must hold what moves or hides an activation: parallelism, quantisation, caches."""
    return Engine(name="vllm", version=version, dtype=dtype, flags=dict(flags))


class MonitorPlugin:
    """Scores the end of every prompt, and aborts a request that is flagged, if the policy stops.

    Raises:
        UsageError: no monitor was named, or the policy asks for more than an abort.
        CannotMeasure: a monitor is down and the policy refuses to go on without it.
    """

    def __init__(
        self,
        monitors: Sequence[Monitor] | None = None,
        *,
        subject: Subject | None = None,
        engine: Engine | None = None,
        policy: MonitorPolicy | None = None,
    ) -> None:
        held = list(monitors) if monitors is not None else _from_environment()
        rule = policy or MonitorPolicy()
        if rule.action not in ("log", "stop"):
            raise UsageError(f"expected the action 'log' or 'stop' under vLLM, which can abort a request, got '{rule.action}'")
        if other := [p.site for m in held for p in m.card.probes if not p.site.startswith(f"{SITE}.")]:
            raise UsageError(f"expected probes at {SITE}, which is what vLLM hands over, got {', '.join(sorted(set(other)))}")
        if late := [m.card.name for m in held if m.card.position != "prompt_end"]:
            raise UsageError(f"expected monitors of the prompt's end, because vLLM observes prefill only, got {', '.join(late)}")
        here = engine or held[0].card.engine
        self._stops, self._n_passed = rule.action == "stop", dict[str, int]()
        self._engine, self._id = here, here.digest()
        self._feed = FeatureFeed(held, subject=subject or held[0].card.subject, engine=here, policy=rule)
        self.watched: dict[str, list[Watched]] = {}
        """Of requests that have ended, until taken."""

    def get_observation_layers(self) -> list[int]:
        """Indices of the layers to hook."""
        return [int(site.partition(".")[2]) for site in self._feed.sites]

    def observe_decode(self) -> bool:
        """Decode steps are not asked for."""
        return False

    def on_request_start(self, request_id: str, prompt: str | None = None) -> None:
        """A request was accepted."""
        self._n_passed[request_id] = 0

    def on_step_batch(self, batch_hidden_states: dict[int, Tensor], request_contexts: Sequence[Context]) -> list[StepResult]:
        """Score the prompt tokens of each request in the flat batch.

        vLLM does not say whether a piece is the last of its prompt, so each is scored at its end: a prompt in pieces has more
        chances of an alarm than calibration gave it. Run without chunked prefill.
        """
        return [self._step(batch_hidden_states, context) for context in request_contexts]

    def on_request_complete(self, request_id: str) -> None:
        """A request ended, was aborted or preempted."""
        if request_id in self._n_passed:
            del self._n_passed[request_id]
            self.watched[request_id] = self._feed.finish(request_id) if request_id in self._feed else []

    def _step(self, states: dict[int, Tensor], context: Context) -> StepResult:
        if not context.is_prefill or not context.num_tokens:
            return StepResult()
        rows = slice(context.batch_offset, context.batch_offset + context.num_tokens)
        before = self._n_passed.get(context.request_id, 0)
        features = Features(
            request_id=context.request_id,
            engine=self._id,
            dtype=self._engine.dtype,
            values={f"{SITE}.{layer}": x[rows] for layer, x in states.items()},
            is_prompt=True,
            ends_prompt=True,
            n_hidden=max(0, context.num_cached_tokens - before),
        )
        self._n_passed[context.request_id] = max(before, context.num_cached_tokens) + context.num_tokens
        flags = [watched for watched in self._feed.observe(features) if watched.flagged]
        metadata = {f"auditgap.{watched.monitor}.score": repr(watched.score) for watched in flags}
        if flags and self._stops:
            return StepResult(Action.ABORT, metadata | {"message": f"monitor '{flags[0].monitor}'"})
        return StepResult(Action.CONTINUE, metadata)


def _from_environment() -> list[Monitor]:
    folders = [folder for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]
    if not folders:
        raise UsageError(f"expected folders of monitors in {FOLDERS}, got none; set it before the engine starts")
    return [load(folder) for folder in folders]
