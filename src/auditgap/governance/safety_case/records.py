"""The parts of a safety case, in the words of GSN v3: goals, strategies, solutions, context, assumptions, justifications.

A defeater is a part of its own: a stated reason to doubt another part, open until somebody resolves or accepts it by name.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from auditgap.records import Date, Digest, Number, Record

__all__ = [
    "ArgumentName",
    "Case",
    "Citing",
    "Defeater",
    "DefeaterKind",
    "EnteredDoubt",
    "Goal",
    "Id",
    "Kind",
    "Node",
    "Note",
    "Solution",
    "Strategy",
]

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
ArgumentName = Literal["inability", "control", "trustworthiness", "deference"]
DefeaterKind = Literal["rebutting", "undercutting", "undermining"]
Kind = Literal["goal", "strategy", "solution", "context", "assumption", "justification", "defeater"]


class Goal(Record):
    """A proposition that the case argues for."""

    id: Id
    text: str = Field(min_length=1)
    claim: str | None = None
    """Id from the catalogue of claims, if the proposition is one of them."""
    supported_by: tuple[Id, ...] = ()
    """Strategies and solutions, each of which suffices on its own; sub-goals, which are needed together."""
    in_context_of: tuple[Id, ...] = ()
    undeveloped: str | None = Field(default=None, min_length=1)
    """Why nothing supports it yet; required where nothing does."""


class Strategy(Record):
    """How the parts below carry the goal above. All of them are needed."""

    id: Id
    text: str = Field(min_length=1)
    argument: ArgumentName | None = None
    """One of the four kinds of argument; None for a plain decomposition."""
    holds: dict[str, Id] = Field(default_factory=dict)
    """Per condition of the kind of argument: the part of this case, below or beside, that answers it."""
    supported_by: tuple[Id, ...] = ()
    in_context_of: tuple[Id, ...] = ()
    undeveloped: str | None = Field(default=None, min_length=1)


class Citing(Record):
    """Evidence in a store: one signed statement, or all that an instrument has said."""

    statement: Digest | None = None
    instrument: str | None = None
    step: str | None = None
    """With `instrument`: only that plan step."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.statement is None) == (self.instrument is None) or (self.step and not self.instrument):
            raise ValueError("expected a statement's digest, or an instrument and perhaps its step, and not both")
        return self

    def __str__(self) -> str:
        if self.statement:
            return f"statement {self.statement.removeprefix('sha256:')[:12]}"
        return f"{self.instrument}" + (f" in step '{self.step}'" if self.step else "")


class EnteredDoubt(Record):
    """A named person's number: at least this much doubt remains. It can raise what the table gives, never lower it."""

    at_least: Number = Field(ge=0, le=1)
    who: str = Field(min_length=1)
    why: str = Field(min_length=1)


class Solution(Record):
    """What is cited as evidence for one claim; everything cited here is judged together."""

    id: Id
    text: str = Field(min_length=1)
    claim: str
    """Id from the catalogue of claims: what the evidence is evidence of."""
    evidence: tuple[Citing, ...] = Field(min_length=1)
    doubt: EnteredDoubt | None = None


class Note(Record):
    """A context, an assumption or a justification: words without support of their own."""

    id: Id
    text: str = Field(min_length=1)


class Defeater(Record):
    """A reason to doubt one part of the case."""

    id: Id
    kind: DefeaterKind
    """Rebutting: the goal is false. Undercutting: the step to it does not follow. Undermining: what it rests on is unsound."""
    defeats: Id
    text: str = Field(min_length=1)
    status: Literal["open", "resolved", "accepted"] = "open"
    reason: str | None = Field(default=None, min_length=1)
    who: str | None = Field(default=None, min_length=1)
    until: Date | None = None

    @model_validator(mode="after")
    def _accounted_for(self) -> Self:
        if self.status == "open" and (self.reason or self.who or self.until):
            raise ValueError(f"'{self.id}' is open: leave out reason, who and until, or say whether it is resolved or accepted")
        if self.status == "resolved" and (not self.reason or self.until):
            raise ValueError(f"'{self.id}' is resolved: give the reason, and no until")
        if self.status == "accepted" and not (self.reason and self.who and self.until):
            raise ValueError(f"'{self.id}' is accepted: give the reason, who accepts it and until when")
        return self

    def stands(self, today: Date) -> bool:
        """True while nothing answers it: open, or accepted until a day that has passed."""
        return self.status == "open" or (self.until is not None and self.until < today)


Node = Goal | Strategy | Solution | Note | Defeater


class Case(Record):
    """One safety case about one pinned subject in one setting."""

    name: str = Field(min_length=1)
    setting: str = Field(min_length=1)
    """Where and how the system will run: a case holds for that setting only."""
    subject: Digest | None = None
    """Digest of the subject that it is about; None leaves it to `--subject`."""
    prepared_by: str = Field(min_length=1)
    reviewed_by: str | None = None
    """Who reviewed it independently; None says that nobody has."""
    review_by: Date
    """Day after which the whole case is stale."""
    goals: tuple[Goal, ...] = Field(min_length=1)
    strategies: tuple[Strategy, ...] = ()
    solutions: tuple[Solution, ...] = ()
    context: tuple[Note, ...] = ()
    assumptions: tuple[Note, ...] = ()
    justifications: tuple[Note, ...] = ()
    defeaters: tuple[Defeater, ...] = ()

    def kinds(self) -> dict[str, Kind]:
        """What each id stands for, in the order of the file."""
        named: tuple[tuple[Kind, tuple[Node, ...]], ...] = (
            ("goal", self.goals),
            ("strategy", self.strategies),
            ("solution", self.solutions),
            ("context", self.context),
            ("assumption", self.assumptions),
            ("justification", self.justifications),
            ("defeater", self.defeaters),
        )
        return {node.id: kind for kind, nodes in named for node in nodes}

    def nodes(self) -> dict[str, Node]:
        """Every part by id, in the order of the file."""
        parts = (self.goals, self.strategies, self.solutions, self.context, self.assumptions, self.justifications, self.defeaters)
        return {node.id: node for nodes in parts for node in nodes}

    def below(self, node: str) -> tuple[str, ...]:
        """Ids of the parts that directly support a goal or a strategy; empty for the others."""
        part = self.nodes()[node]
        return part.supported_by if isinstance(part, Goal | Strategy) else ()

    def beside(self, node: str) -> tuple[str, ...]:
        """Ids of the context, assumptions and justifications that a goal or a strategy is stated in."""
        part = self.nodes()[node]
        return part.in_context_of if isinstance(part, Goal | Strategy) else ()

    def top(self) -> str:
        """The goal that nothing else rests on; a loaded case has exactly one."""
        used = {child for node in self.nodes() for child in self.below(node)}
        return next(goal.id for goal in self.goals if goal.id not in used)
