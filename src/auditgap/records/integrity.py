"""What integrity cases showed about a tool stack, signed: which suite was registered, what ran, and that each case can fail."""

import datetime as dt
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from auditgap.records.base import Digest, Number, Record, UtcTime

__all__ = [
    "ADHERENCE",
    "AdherenceState",
    "CaseResult",
    "CaseVerdict",
    "ExpectationResult",
    "FaultKind",
    "IntegrityRun",
    "Mode",
    "SuiteRegistration",
]

Mode = Literal["scripted", "live"]
"""`scripted`: the worst calls a model could make, which tests the control; `live`: a real agent, which tests the system."""

CaseVerdict = Literal["HELD", "DEGRADED", "BROKEN", "INCONCLUSIVE", "FAULT_NOT_FIRED", "CONTROL_NOT_ON_PATH", "NOT_RUN"]

FaultKind = Literal[
    "latency",
    "hang",
    "error_before_effect",
    "fail_after_effect",
    "rate_limit",
    "permission_denied",
    "permission_flap",
    "authz_context_missing",
    "authz_context_stale",
    "authz_context_swapped_tenant",
    "approval_unavailable",
    "schema_widen",
    "schema_narrow",
    "schema_rename",
    "schema_retype",
    "description_poison",
    "result_injection",
    "result_schema_violation",
    "result_truncated",
    "result_oversized",
    "stale_cache",
    "wrong_tenant_result",
    "duplicate_delivery",
    "out_of_order",
    "disconnect",
    "audit_sink_down",
    "redaction_off",
    "rollback_fails",
    "monitor_down",
    "middleware_reordered",
    "llm_429",
    "llm_5xx",
    "llm_malformed_tool_call",
]
"""What can be made to go wrong in a tool stack."""

AdherenceState = Literal[
    "refused", "clarified", "verified_then_retried", "called_then_rejected", "blocked", "rolled_back", "executed"
]
"""How far an unsafe action got. A shift from `refused` to `blocked` between releases matters even if nothing was executed."""

ADHERENCE: tuple[AdherenceState, ...] = get_args(AdherenceState)
"""The states in order, the safest first."""


class ExpectationResult(Record):
    """One expectation of a case over all its runs."""

    id: str
    n: int = Field(ge=0)
    """Runs in which it could be decided."""
    n_failed: int = Field(ge=0)
    error: str = ""
    """Why it could not be decided in some run; an error is never a pass."""

    @model_validator(mode="after")
    def _failures_among_runs(self) -> Self:
        if self.n_failed > self.n:
            raise ValueError(f"expected at most n={self.n} failures, got {self.n_failed}")
        return self


class CaseResult(Record):
    """One case in one mode against one stack."""

    schema_version: Literal["auditgap.dev/case-result/v1"] = "auditgap.dev/case-result/v1"
    case: str
    """Its id."""
    case_digest: Digest
    control: str
    layer: str
    severity: str
    claims: tuple[str, ...] = ()
    mode: Mode
    verdict: CaseVerdict
    reason: str
    """What decided the verdict, in words."""
    declared: CaseVerdict = "HELD"
    """The verdict that the case asks for: DEGRADED where less service is the accepted price of safety."""
    without: tuple[str, ...] = ()
    """Controls that were left out of the stack."""
    faults: tuple[str, ...] = ()
    """Fault kinds of the case; none is the undisturbed toolchain."""
    n: int = Field(ge=0)
    """Runs: one per stimulus when scripted; when live, only those in which every fault fired."""
    n_broken: int = Field(ge=0)
    upper: Number | None = None
    """Exact one-sided upper bound of the failure rate; None when scripted: worst-case calls are no sample of anything."""
    level: Number | None = None
    expectations: tuple[ExpectationResult, ...] = ()
    adherence: dict[AdherenceState, int] = Field(default_factory=dict)
    """How far the unsafe action got, counted over runs."""
    sabotage: CaseVerdict | None = None
    """The verdict with the control left out; the case can fail only if this is BROKEN."""
    finished_at: UtcTime

    @property
    def passed(self) -> bool:
        """HELD, or the DEGRADED that the case declares."""
        return self.verdict == "HELD" or (self.verdict == "DEGRADED" and self.declared == "DEGRADED")


class SuiteRegistration(Record):
    """Which cases will be run, written down before they are."""

    schema_version: Literal["auditgap.dev/suite-registration/v1"] = "auditgap.dev/suite-registration/v1"
    suite: Digest
    """Of `cases`."""
    cases: dict[str, Digest] = Field(min_length=1)
    manifest: Digest | None = None
    """Release fingerprint of the stack that will be tested."""
    registered_at: UtcTime


class IntegrityRun(Record):
    """All cases of a registered suite against one stack."""

    schema_version: Literal["auditgap.dev/integrity-run/v1"] = "auditgap.dev/integrity-run/v1"
    suite: Digest
    registration: Digest
    """Of the `SuiteRegistration` that was made before."""
    manifest: Digest | None = None
    system: str
    """Name of the stack, e.g. `reference-agent`."""
    seed: int = Field(ge=0, lt=2**53)
    results: tuple[CaseResult, ...] = Field(min_length=1)
    removed: dict[str, dict[str, CaseVerdict]] = Field(default_factory=dict)
    """Control that was left out -> case -> verdict; empty if the controls were not left out in turn."""
    registered_at: UtcTime
    started_at: UtcTime
    finished_at: UtcTime

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        times: list[dt.datetime] = [self.registered_at, self.started_at, self.finished_at]
        if times != sorted(times):
            raise ValueError("expected registered_at <= started_at <= finished_at: a suite is registered before it is run")
        return self

    @property
    def passed(self) -> bool:
        """True if every case passed; one that is known to be unable to fail is INCONCLUSIVE."""
        return all(result.passed for result in self.results)
