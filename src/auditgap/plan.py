"""A plan: what will be measured on a subject, and the policy that will judge it.

A step names an instrument, its data and its settings. The thresholds are the policy's: each criterion that names the step's
instrument (and step, if it says so) is written into the step's registration, so the bar is signed before the number exists.

Every path in a plan starts from the plan's folder, wherever the command is run.
"""

import datetime as dt
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import Field, JsonValue

from auditgap.data import located
from auditgap.errors import PlanError
from auditgap.policy import Policy, load_policy
from auditgap.records import Date, Digest, Information, Record, Threshold

__all__ = ["LoadedPlan", "Plan", "Step", "Terms", "load_plan"]


class Step(Record):
    """One instrument on one data set."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    instrument: str
    data: str
    """A file next to the plan, `shipped:NAME`, or `hub:org/name@revision/path.jsonl`."""
    config: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings of the instrument. A model or data set named there is looked for next to the plan too; or it is a Hub id."""


class Plan(Record):
    """What a plan file says."""

    name: str
    seed: int = 0
    dtype: str = "float32"
    subject: Digest | None = None
    """If set, only this subject may be audited with the plan."""
    documents: tuple[str, ...] = ()
    """Files the developer gave the auditor; each one raises the measured information access to `docs`."""
    claims: tuple[str, ...] = ()
    frameworks: tuple[str, ...] = ()
    policy: str
    """Path of the gate policy, relative to the plan."""
    reassess_by: Date
    """Evidence expires on this day."""
    steps: tuple[Step, ...] = Field(min_length=1)


class Terms(NamedTuple):
    """What one measurement is made under: signed with its registration, checked again before it runs."""

    thresholds: tuple[Threshold, ...]
    seed: int
    expires: Date
    information: Information
    """What the developer gave the auditor."""


class LoadedPlan(NamedTuple):
    """A plan with its policy and the folder that its relative paths start from."""

    plan: Plan
    policy: Policy
    folder: Path

    def thresholds(self, step: Step) -> tuple[Threshold, ...]:
        """The policy's bars for one step, in the form that is registered."""
        return tuple(
            Threshold(
                measurement=criterion.measurement,
                comparator=criterion.comparator,
                value=criterion.threshold,
                bound=criterion.bound,
                response=criterion.response,
            )
            for criterion in self.policy.criteria
            if criterion.instrument == step.instrument and criterion.step in (None, step.id)
        )

    def terms(self, step: Step) -> Terms:
        """The terms of one step."""
        information = Information.DOCS if self.plan.documents else Information.NONE
        return Terms(self.thresholds(step), self.plan.seed, self.plan.reassess_by, information)

    def source(self, data: str) -> str:
        """A data source with relative paths resolved against the plan's folder."""
        return located(data, self.folder)


def load_plan(path: Path) -> LoadedPlan:
    """Read a plan and the policy it names.

    Raises:
        PlanError: not YAML, an unknown or missing field, a repeated step id, a reassessment day in the past.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is not YAML: {error}") from None
    plan = Plan.parse(document, where=str(path))
    ids = [step.id for step in plan.steps]
    if repeated := sorted({i for i in ids if ids.count(i) > 1}):
        raise PlanError(f"{path}: step ids must be unique, repeated: {', '.join(repeated)}")
    if plan.reassess_by <= dt.datetime.now(dt.UTC).date():
        raise PlanError(
            f"{path}: reassess_by is {plan.reassess_by}, which has passed; set the day on which the evidence should expire"
        )
    for document in plan.documents:
        if not (path.parent / document).is_file():
            raise PlanError(f"{path}: document '{document}' does not exist beside the plan; name files that were given")
    policy = load_policy(path.parent / plan.policy)
    for criterion in policy.criteria:
        if criterion.step is not None and criterion.step not in ids:
            raise PlanError(
                f"{plan.policy}: criterion '{criterion.id}' names step '{criterion.step}'; the plan has {', '.join(ids)}"
            )
    return LoadedPlan(plan, policy, path.parent)
