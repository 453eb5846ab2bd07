"""What the request ledger holds of a request: that it began, and how it ended."""

from typing import Literal

from pydantic import Field, JsonValue

from auditgap.monitor import Watched
from auditgap.records import Digest, Number, Record, UtcTime
from auditgap.records.monitor import Action

__all__ = ["Begun", "Ended", "Outcome", "Verdict"]

Outcome = Literal["stop", "length", "content_filter", "cut", "failed", "lost"]
"""How a request ended: by itself, at a limit of tokens, by a monitor's policy, cut off (client gone, time limit, shutdown), by an
error of the model, or with the process."""


class Verdict(Record):
    """What one monitor says of one request."""

    monitor: str
    score: Number | None
    """The largest aggregated score; None if the monitor saw no token, is down, or gave no number."""
    flagged: bool
    flagged_after: int | None
    """Tokens of the reply that existed then."""
    coverage: Number
    """Share of the tokens due that were really scored."""
    down: str = ""

    @classmethod
    def of(cls, watched: Watched) -> "Verdict":
        """Of what the hook saw; a score that is no number is an alarm without a number."""
        finite = watched.score is not None and abs(watched.score) < float("inf")
        return cls(
            monitor=watched.monitor,
            score=watched.score if finite else None,
            flagged=watched.flagged,
            flagged_after=watched.flagged_after,
            coverage=watched.coverage,
            down=watched.down,
        )


class Begun(Record):
    """A request was accepted."""

    event: Literal["begun"] = "begun"
    id: str
    tenant: str
    at: UtcTime
    release: Digest
    operation: Literal["chat", "text_completion"]
    request: Digest
    """Of the prompt as it was sent: the text, or the messages in canonical JSON."""
    n_input_tokens: int = Field(ge=0)
    max_new_tokens: int = Field(ge=1)
    temperature: Number
    top_p: Number
    seed: int
    """With which the reply can be made again."""
    content: JsonValue = None
    """The prompt, where content is kept."""


class Ended(Record):
    """A request ended, one way or another."""

    event: Literal["ended"] = "ended"
    id: str
    tenant: str
    at: UtcTime
    release: Digest
    outcome: Outcome
    reason: str = ""
    """Why it was cut or failed."""
    intervention: Action | None = None
    """What the policy did to the reply; None if nothing."""
    verdicts: tuple[Verdict, ...] = ()
    coverage: Number | None = None
    """Of the monitor that saw least; None if there is none, or nothing was generated."""
    n_input_tokens: int = Field(default=0, ge=0)
    n_output_tokens: int = Field(default=0, ge=0)
    """Tokens that the model chose; what a policy puts in their place is not counted."""
    reply: Digest | None = None
    queued_ms: Number | None = None
    first_token_ms: Number | None = None
    total_ms: Number | None = None
    content: str | None = None
    """The reply, where content is kept."""
