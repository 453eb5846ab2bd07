"""An integrity case: what is tried, what goes wrong meanwhile, and what must hold. And the stimuli that cases share."""

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from auditgap.errors import PlanError, nearest
from auditgap.governance import parse
from auditgap.records import Number, Record, canonical_json, digest_of
from auditgap.records.integrity import AdherenceState, Mode
from auditgap.release.agent.control import Layer
from auditgap.release.faults import Channel, Fault, FaultKind, FaultPlan, Match, When

__all__ = [
    "Attribution",
    "Case",
    "CaseFault",
    "ControlRef",
    "Declared",
    "Expectation",
    "Intent",
    "LiveStats",
    "Sabotage",
    "Stats",
    "Step",
    "Stimuli",
    "Stimulus",
    "StimulusRef",
    "digest_with",
    "load_cases",
    "load_stimuli",
    "shipped",
]


class ControlRef(Record):
    """The control that the case is about."""

    id: str
    layer: Layer


class StimulusRef(Record):
    """Stimuli of a file `stimuli/<suite>.yaml`."""

    suite: str
    ids: tuple[str, ...] = Field(min_length=1)


class CaseFault(Record):
    """One fault, with the fields of a fault plan; an id is given by position where it is left out."""

    id: str | None = Field(default=None, min_length=1)
    channel: Annotated[Channel, BeforeValidator(lambda name: name.removeprefix("mcp.") if isinstance(name, str) else name)]
    """As in a fault plan; `mcp.tools/call` is the same as `tools/call`."""
    kind: FaultKind
    match: Match = Match()
    when: When = When()
    params: dict[str, JsonValue] = Field(default_factory=dict)


class Expectation(Record):
    """What must hold: a CEL expression over the world after the run, or the adherence states that are acceptable."""

    id: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    """The safety expectation: a column of the matrix, so cases with one concern share one id."""
    expr: str | None = None
    adherence_in: tuple[AdherenceState, ...] | None = Field(default=None, min_length=1)
    otherwise: Literal["BROKEN", "DEGRADED"] = "BROKEN"
    """The verdict if it does not hold: DEGRADED for service that was lost safely."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.expr is None) == (self.adherence_in is None):
            raise ValueError(f"expectation '{self.id}': expected one of expr and adherence_in")
        return self


class Attribution(Record):
    """Where the harm must be stopped; stopped elsewhere is DEGRADED: the layer that was relied on did nothing."""

    must_hold_at: Layer


class LiveStats(Record):
    """How much a live run must show."""

    n: int = Field(ge=1)
    max_rate: Number = Field(gt=0, lt=1)
    bound: Literal["clopper_pearson"]
    level: Number = Field(gt=0.5, lt=1)
    """One-sided."""


class Stats(Record):
    """Statistics per mode; a scripted run needs none."""

    live: LiveStats


class Sabotage(Record):
    """The proof that the case can fail."""

    disable: str
    must_become: Literal["BROKEN"]


class Declared(Record):
    """A verdict short of HELD that is accepted, and why."""

    verdict: Literal["DEGRADED"]
    why: str = Field(min_length=1)


class Case(Record):
    """One release-integrity case."""

    apiVersion: Literal["auditgap.dev/case/v1"]
    id: str = Field(pattern=r"^RIC-\d{3}-[a-z0-9-]+$")
    about: str = ""
    """One sentence for people."""
    control: ControlRef
    claims: tuple[str, ...] = ()
    """Crosswalk ids."""
    severity: Literal["low", "medium", "high", "critical"]
    stimulus: StimulusRef
    modes: tuple[Mode, ...] = Field(min_length=1)
    faults: tuple[CaseFault, ...] = ()
    """None of them: the toolchain is undisturbed, and the stimulus alone is the danger."""
    expect: tuple[Expectation, ...] = Field(min_length=1)
    attribution: Attribution | None = None
    declared: Declared | None = None
    stats: Stats | None = None
    sabotage: Sabotage | None = None

    def plan(self, seed: int = 0) -> FaultPlan:
        """The faults as a plan; those without an id are called `<kind>-<position>`."""
        return FaultPlan(
            seed=seed,
            faults=tuple(
                Fault.model_validate(
                    {"id": fault.id or f"{fault.kind}-{place}"} | {name: getattr(fault, name) for name in _SHARED}
                )
                for place, fault in enumerate(self.faults, start=1)
            ),
        )


_SHARED = ("channel", "kind", "match", "when", "params")


class Intent(Record):
    """The action that must not happen, or not twice: by which calls and effects it is recognised."""

    tool: str
    key: str
    """Its reference, or the account that it reads."""


class Step(Record):
    """One call of the scripted agent."""

    tool: str
    arguments: dict[str, JsonValue]
    after_s: Number = Field(default=0.0, ge=0)
    """Time that passes first."""
    times: int = Field(default=1, ge=1, le=1000)
    when_told: str | None = None
    """Only if this text was in a tool description or result before: an agent that obeys whatever it reads."""
    if_failed: bool = False
    """Only if the call before this one failed: an agent that tries again."""


class Stimulus(Record):
    """One situation: what a live agent is asked, and the worst that an agent could do, step by step."""

    id: str
    prompt: str = Field(min_length=1)
    user: str = "ana"
    approver: bool = True
    """What the person says who is asked for approval."""
    intent: Intent
    steps: tuple[Step, ...] = Field(min_length=1)


class Stimuli(Record):
    """A file of stimuli."""

    apiVersion: Literal["auditgap.dev/stimuli/v1"]
    id: str
    stimuli: tuple[Stimulus, ...] = Field(min_length=1)


def digest_with(case: Case, stimuli: Sequence[Stimulus]) -> str:
    """Digest of a case and the stimuli that it uses: either one changing makes it another case."""
    records = (case, *stimuli)
    return digest_of(canonical_json([record.model_dump(mode="json", context="canonical") for record in records]))


def shipped() -> Path:
    """The folder of the shipped cases."""
    return Path(str(files("auditgap.release.cases") / "suite"))


def load_cases(folder: Path) -> tuple[Case, ...]:
    """The cases of a folder, in order of their ids.

    Raises:
        PlanError: there are none, one does not say what it must, or two have the same id.
    """
    paths = sorted(folder.glob("*.yaml"))
    cases = sorted((parse(path, Case) for path in paths), key=lambda case: case.id)
    if not cases:
        raise PlanError(f"{folder}: expected case files (*.yaml), found none; an empty suite would pass by being empty")
    if repeated := sorted({case.id for case in cases if sum(other.id == case.id for other in cases) > 1}):
        raise PlanError(f"{folder}: case ids must be unique, repeated: {', '.join(repeated)}")
    return tuple(cases)


def load_stimuli(folder: Path, case: Case) -> tuple[Stimulus, ...]:
    """The stimuli of a case, from the folder's `stimuli/` or else from the shipped ones.

    Raises:
        PlanError: there is no such file or id.
    """
    name = f"{case.stimulus.suite}.yaml"
    path = next((p for p in (folder / "stimuli" / name, shipped() / "stimuli" / name) if p.is_file()), None)
    if path is None:
        known = sorted(p.stem for where in (folder, shipped()) for p in (where / "stimuli").glob("*.yaml"))
        raise PlanError(f"case '{case.id}': no stimuli '{case.stimulus.suite}'{nearest(case.stimulus.suite, known)}")
    found = {stimulus.id: stimulus for stimulus in _read_stimuli(path, path.stat().st_mtime_ns).stimuli}
    if unknown := [name for name in case.stimulus.ids if name not in found]:
        raise PlanError(f"case '{case.id}': {path.name} has no stimulus '{unknown[0]}'{nearest(unknown[0], found)}")
    return tuple(found[name] for name in case.stimulus.ids)


@lru_cache(maxsize=64)
def _read_stimuli(path: Path, changed_ns: int) -> Stimuli:
    """A file of stimuli, read once for all its cases and again when it has changed."""
    return parse(path, Stimuli)
