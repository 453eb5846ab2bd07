"""What a proxy saw go past: the material of an observed release manifest."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from auditgap.records import Record
from auditgap.release.events import append_privately, read_lines

__all__ = ["Observation", "Observer", "observe_into", "read_observations"]


class Observation(Record):
    """One thing as it was sent or received on the shipped path."""

    what: Literal["server", "tools", "request"]
    """`server`: identity, protocol version, capabilities; `tools`: the list that the agent got; `request`: as sent to a model."""
    server: str | None = None
    """Name of the tool server or model endpoint."""
    content: JsonValue


Observer = Callable[[Observation], None]


def observe_into(path: Path) -> Observer:
    """Append each observation to a JSONL file; one that was written before is not written again."""
    seen: set[str] = set()
    lock = threading.Lock()

    def observe(observation: Observation) -> None:
        with lock:
            if (digest := observation.digest()) in seen:
                return
            seen.add(digest)
            with append_privately(path) as file:
                file.write(observation.model_dump_json() + "\n")

    return observe


def read_observations(path: Path) -> tuple[Observation, ...]:
    """The observations of a file.

    Raises:
        PlanError: a line is not an observation.
    """
    return tuple(Observation.parse(document, where=where) for where, document in read_lines(path))
