"""The MCP proxy as a running thing: its files, and its place on stdin and stdout."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from auditgap.governance import parse
from auditgap.release.events import EventLog
from auditgap.release.faults import FaultPlan, Injector
from auditgap.release.injection.exchange import Exchange, Limits
from auditgap.release.injection.mcp_stdio import serve_stdio
from auditgap.release.observation import observe_into

__all__ = ["exchanging", "proxy_stdio"]


@contextmanager
def exchanging(
    *, plan: Path | None = None, events: Path | None = None, observe: Path | None = None, name: str | None = None
) -> Iterator[Exchange]:
    """An exchange with its files: fault plan (none: nothing is changed), event stream and observations.

    Raises:
        PlanError: the plan is malformed, or a fault's channel or settings do not fit its kind.
    """
    faults = FaultPlan() if plan is None else parse(plan, FaultPlan)
    with closing(EventLog(events, last=1000)) as log:
        yield Exchange(Injector(faults, log), server=name, observe=observe_into(observe) if observe else None)


def proxy_stdio(command: Sequence[str], exchange: Exchange, *, limits: Limits | None = None) -> None:
    """Be the MCP server on this process's stdin and stdout, with `command` behind it, until the client leaves.

    Raises:
        UsageError: the command cannot be started, or stdin or stdout is not a pipe.
        CannotMeasure: the server ended while the client was there, flooded, or takes no input.
    """
    asyncio.run(serve_stdio(command, exchange, limits=limits))
