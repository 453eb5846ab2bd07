"""Rule sets: per regime, what counts as training compute, where the lines are, and how sure we are of the text.

Every activity is decided in every rule set, `open` included, so that a line can never slip through undecided.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from auditgap.errors import UsageError, nearest
from auditgap.governance.compute.lineage import Decision
from auditgap.governance.compute.quantity import PlainFlop
from auditgap.governance.compute.records import Activity, Line, Output
from auditgap.governance.document import by_id, parse
from auditgap.governance.failure_mode import Citation
from auditgap.records import Date, Number, Pin, Record, Verified

__all__ = ["CapabilityRoute", "FlopLine", "ModifierRule", "Rule", "RuleSet", "Tolerance", "rule_sets", "rules_for"]

FOLDER = Path(__file__).parents[1] / "compute_rules"

Status = Literal["in force", "adopted, not yet in force", "rescinded"]


class Rule(Record):
    """What a regime says of one activity."""

    activity: Activity
    output: Output | None = None
    """Of generation: which output the rule is about."""
    decision: Decision
    why: str
    pin: Pin
    verified: Verified


class FlopLine(Record):
    """A number of FLOP at which a duty begins."""

    id: str
    title: str
    flop: PlainFlop
    comparator: Literal[">", ">="]
    activities: tuple[Activity, ...] = tuple(get_args(Activity))
    """What the line looks at, where that is not everything that the rules count."""
    further: str = ""
    """Conditions beside FLOP that this tool does not check."""
    pin: Pin
    verified: Verified


class Tolerance(Record):
    """How far a reported estimate may lie from the truth."""

    fraction: Number = Field(gt=0, lt=1)
    pin: Pin
    verified: Verified


class ModifierRule(Record):
    """When someone who changes a model becomes the provider of the changed one."""

    divisor: Number = Field(gt=1)
    """The line lies at the original's training compute divided by this."""
    unknown_systemic: PlainFlop
    """Stands for the original's compute where that cannot be estimated and the original has systemic risk."""
    unknown_other: PlainFlop
    pin: Pin
    verified: Verified


class CapabilityRoute(Record):
    """A way into the regime that looks at what a model can do instead of what it cost."""

    id: str
    title: str
    pin: Pin
    verified: Verified


class RuleSet(Record):
    """How one regime counts compute."""

    id: str
    title: str
    issuer: str
    edition: str
    status: Status
    effective_from: Date | None = None
    effective_to: Date | None = None
    sources: tuple[Citation, ...] = Field(min_length=1)
    review_date: Date
    rules: tuple[Rule, ...]
    lines: tuple[FlopLine, ...] = Field(min_length=1)
    tolerance: Tolerance
    modifier: ModifierRule | None = None
    capability: tuple[CapabilityRoute, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        kinds = [(rule.activity, rule.output) for rule in self.rules]
        for activity in get_args(Activity):
            for output in get_args(Output) if activity == "generation" else (None,):
                if kinds.count((activity, output)) != 1:
                    asked = f"{activity} ({output})" if output else activity
                    raise ValueError(
                        f"expected one rule for {asked}, got {kinds.count((activity, output))}; decide it, or say open"
                    )
        if odd := [rule.activity for rule in self.rules if rule.output is not None and rule.activity != "generation"]:
            raise ValueError(f"expected output on generation rules only, got it on {odd[0]}; remove it")
        return self

    def rule_for(self, line: Line) -> Rule:
        """The one rule about a line."""
        return next(rule for rule in self.rules if (rule.activity, rule.output) == (line.activity, line.output))


def rule_sets() -> dict[str, RuleSet]:
    """Every shipped rule set by id.

    Raises:
        PlanError: a file is malformed, or leaves an activity undecided.
    """
    return dict(_shipped())


@cache
def _shipped() -> dict[str, RuleSet]:
    return by_id(FOLDER, (parse(path, RuleSet) for path in sorted(FOLDER.glob("*.yaml"))))


def rules_for(ids: Iterable[str] = ()) -> tuple[RuleSet, ...]:
    """The rule sets of those ids; without ids, all that are not rescinded.

    Raises:
        UsageError: there is none of that id; the message gives the nearest.
    """
    known = rule_sets()
    asked = tuple(dict.fromkeys(ids))
    for name in asked:
        if name not in known:
            raise UsageError(f"no rule set '{name}'{nearest(name, known)}")
    return tuple(known[name] for name in asked) or tuple(rules for rules in known.values() if rules.status != "rescinded")
