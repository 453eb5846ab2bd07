"""The model proxy as a running thing: its files, its address, and who may use it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from auditgap.governance import parse
from auditgap.release.events import EventLog
from auditgap.release.faults import FaultPlan, Injector
from auditgap.release.injection.hosting import check_reach, hosted
from auditgap.release.injection.model_http import ModelProxy
from auditgap.release.observation import observe_into

__all__ = ["proxying"]


@contextmanager
def proxying(
    upstream: str,
    *,
    plan: Path | None = None,
    events: Path | None = None,
    observe: Path | None = None,
    name: str = "model",
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
) -> Iterator[tuple[str, Injector]]:
    """A proxy that serves from a thread while the block lasts: its address and its injector. Files not named are not kept.

    Raises:
        UsageError: an address is not one, or others could reach the proxy and it has no token.
        PlanError: the fault plan is malformed, or holds a fault that cannot act on a model.
    """
    check_reach(host, token)
    with closing(EventLog(events, last=1000)) as log:
        injector = Injector(FaultPlan() if plan is None else parse(plan, FaultPlan), log)
        seen = observe_into(observe) if observe else lambda observation: None
        proxy = ModelProxy(upstream, injector, seen, name=name, token=token)
        with hosted(proxy.app(), host=host, port=port) as url:
            yield url, injector
