"""Faults that can be injected into a tool stack, and the plan that says where and when.

A plan is data: the same plan drives the MCP proxy, the model proxy and the injector in the process. Which occasions fire is
decided here alone, from counts and a seed, so a run can be repeated exactly.
"""

import random
import threading
from collections.abc import Collection
from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from auditgap.records import Number, Record
from auditgap.records.integrity import FaultKind
from auditgap.release.events import EventLog

__all__ = ["Channel", "Fault", "FaultKind", "FaultPlan", "Injector", "Match", "When"]

Channel = Literal[
    "tools/list",
    "tools/call",
    "model",
    "authorisation",
    "approval",
    "audit",
    "redaction",
    "rollback",
    "monitor",
    "middleware",
]
"""Where a fault acts: on the list of tools, a call or its result, a request to the model, or one of the controls."""


class Match(Record):
    """Which occasions a fault may act on; what is None matches everything."""

    tool: str | None = None
    server: str | None = None

    def holds(self, *, tool: str | None, server: str | None) -> bool:
        """True if the occasion is one of these."""
        return self.tool in (None, tool) and self.server in (None, server)


class When(Record):
    """Which of the matching occasions fire, counted from 1. Exactly one field is given; none of them means every occasion."""

    nth: int | None = Field(default=None, ge=1)
    """Only this one."""
    every: int | None = Field(default=None, ge=1)
    """Each k-th."""
    first: int | None = Field(default=None, ge=1)
    """This one and all after it: a tool that turns once it is trusted."""
    probability: Number | None = Field(default=None, gt=0, le=1)
    """Each with this chance, drawn with the plan's seed."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (given := sum(value is not None for value in self.model_dump().values())) > 1:
            raise ValueError(f"expected one of nth, every, first and probability, got {given}")
        return self

    def due(self, count: int, draw: float) -> bool:
        """True if occasion number `count` fires; `draw` is uniform in [0, 1)."""
        if self.nth is not None:
            return count == self.nth
        if self.every is not None:
            return count % self.every == 0
        if self.first is not None:
            return count >= self.first
        return self.probability is None or draw < self.probability


class Fault(Record):
    """One fault: what goes wrong, where, and on which occasions."""

    id: str = Field(min_length=1)
    channel: Channel
    kind: FaultKind
    match: Match = Match()
    when: When = When()
    params: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings of the kind; `auditgap release faults` lists them."""


class FaultPlan(Record):
    """What goes wrong in one run."""

    faults: tuple[Fault, ...] = ()
    seed: int = Field(default=0, ge=0, lt=2**53)

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        ids = [fault.id for fault in self.faults]
        if len(set(ids)) != len(ids):
            raise ValueError(f"fault ids must be unique, got {', '.join(ids)}")
        return self


class Injector:
    """Counts occasions, says which faults are due, and writes each firing into the event stream. Threads may share it."""

    def __init__(self, plan: FaultPlan, log: EventLog) -> None:
        self.plan = plan
        self.log = log
        self._lock = threading.Lock()
        self._counts = {fault.id: 0 for fault in plan.faults}
        self._draws = {fault.id: random.Random(f"{plan.seed}:{fault.id}") for fault in plan.faults}
        self._fired: set[str] = set()

    def due(
        self, channel: Channel, kinds: Collection[FaultKind] | None = None, *, tool: str | None = None, server: str | None = None
    ) -> tuple[Fault, ...]:
        """The faults that act on this occasion, in plan order. Each call is one occasion for every fault that matches it."""
        return tuple(
            fault
            for fault in self.plan.faults
            if fault.channel == channel
            and (kinds is None or fault.kind in kinds)
            and fault.match.holds(tool=tool, server=server)
            and self._counted(fault)
        )

    def fired(self, fault: Fault, *, call_id: str | None = None, tool: str | None = None, **detail: JsonValue) -> None:
        """Write down that the fault has acted: called by the code that applied it, after it did."""
        with self._lock:
            self._fired.add(fault.id)
        self.log.add("fault_fired", name=fault.id, call_id=call_id, tool=tool, outcome=fault.kind, detail=detail)

    def silent(self) -> tuple[str, ...]:
        """Faults of the plan that never acted: a case that rests on one of them has shown nothing."""
        with self._lock:
            return tuple(fault.id for fault in self.plan.faults if fault.id not in self._fired)

    def _counted(self, fault: Fault) -> bool:
        with self._lock:
            self._counts[fault.id] += 1
            return fault.when.due(self._counts[fault.id], self._draws[fault.id].random())
