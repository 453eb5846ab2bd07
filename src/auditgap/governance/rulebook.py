"""The text side of a framework: its ids, titles, dates, numbers, and the failure modes that it names.

Titles are short paraphrases. `depth` says how much of the text we had: what was not read is never reported as silence.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from auditgap.governance.failure_mode import Citation
from auditgap.records import Date, Number, Reading, Record, Verified

__all__ = ["Depth", "Duty", "FrameworkKind", "Naming", "Rulebook", "StatedNumber"]

FrameworkKind = Literal["law", "code", "standard", "guidance", "commitment", "company-policy"]
"""What binds: a statute or decree, a code under it, a standard, a public body's guidance, a promise, a company's own rules."""

Depth = Literal["text", "notes", "ids", "listed"]
"""How much we had: the text, notes or excerpts of it, the ids of its clauses only, or no more than its name."""


class Duty(Record):
    """One duty, as the text states it."""

    id: str = Field(min_length=1)
    title: str = Field(min_length=1)
    text_ref: str = Field(min_length=1)
    verified: Verified
    effective_from: Date | None = None
    effective_to: Date | None = None


class StatedNumber(Record):
    """A number that the text sets: who is covered, by when, how well."""

    id: str
    kind: Literal["scope", "deadline", "bar", "penalty"]
    """Who is covered; by when; what must be reached; what a breach costs."""
    quantity: str
    comparator: Literal["<", "<=", ">", ">="]
    value: Number
    unit: str
    text_ref: str = Field(min_length=1)
    verified: Verified
    duties: tuple[str, ...] = ()
    """Duties that the number belongs to; empty if to the framework as a whole."""
    note: str | None = None


class Naming(Record):
    """A failure mode that the text names."""

    failure_mode: str
    words: str
    """What stands there, in a few words."""
    text_ref: str = Field(min_length=1)
    reading: Reading
    """`inferred` where the text has another word for it."""
    verified: Verified


class Rulebook(Record):
    """A framework file."""

    id: str
    title: str
    issuer: str
    edition: str
    kind: FrameworkKind | None = None
    depth: Depth = "notes"
    dated: Date | None = None
    """The date that the edition bears."""
    effective_from: Date | None = None
    """Of every duty that gives no date of its own."""
    effective_to: Date | None = None
    applies_to: str | None = None
    """Whom it binds, in a sentence."""
    sources: tuple[Citation, ...] = Field(min_length=1)
    review_date: Date
    numbers: tuple[StatedNumber, ...] = ()
    names: tuple[Naming, ...] = ()
    duties: tuple[Duty, ...] = ()

    @model_validator(mode="after")
    def _deep_enough(self) -> Self:
        if self.depth == "listed" and (self.duties or self.numbers or self.names):
            raise ValueError(f"'{self.id}' is listed by name only; give the depth of what was read, or leave duties out")
        if self.depth != "listed" and not self.duties:
            raise ValueError(f"'{self.id}' has no duty; add some, or set depth: listed")
        return self
