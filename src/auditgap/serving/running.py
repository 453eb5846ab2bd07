"""A served model as a running thing: opened, watched, reachable, and stopped in order."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from auditgap.errors import UsageError
from auditgap.models import Model
from auditgap.monitor import Monitor, engine_of
from auditgap.records import Digest, canonical_json, digest_of
from auditgap.records.monitor import MonitorPolicy
from auditgap.release.injection.hosting import hosted, is_loopback
from auditgap.serving.app import make_app
from auditgap.serving.jobs import Finished, Job
from auditgap.serving.ledger import RequestLedger
from auditgap.serving.service import Service, Settings
from auditgap.serving.telemetry import Telemetry
from auditgap.serving.tenants import ANONYMOUS, Tenant, load_tenants
from auditgap.serving.worker import Worker

__all__ = ["fingerprint", "serving", "who_may_ask"]


def who_may_ask(tokens: Path | None, *, host: str, insecure_no_auth: bool) -> tuple[Sequence[Tenant], Tenant | None]:
    """The tenants of a file, or everybody.

    Raises:
        UsageError: there is no file and nobody said that there shall be none, or others than this machine could come in.
    """
    if tokens is not None:
        if insecure_no_auth:
            raise UsageError("expected --tokens or --insecure-no-auth, got both")
        return load_tenants(tokens), None
    if not insecure_no_auth:
        raise UsageError("expected --tokens FILE; make one with 'auditgap monitor token NAME', or see --insecure-no-auth")
    if not is_loopback(host):
        raise UsageError(f"others can reach {host}: --insecure-no-auth is for loopback addresses; give --tokens FILE")
    return (), ANONYMOUS


def fingerprint(model: Model, monitors: Sequence[Monitor], policy: MonitorPolicy) -> Digest:
    """What is served, where no release manifest says it: model, engine, monitors and what they do."""
    parts = {
        "subject": model.subject.digest(),
        "engine": engine_of(model).digest(),
        "monitors": sorted(monitor.card.digest() for monitor in monitors),
        "policy": policy.digest(),
    }
    return digest_of(canonical_json(parts))


@contextmanager
def serving(
    model: Model,
    monitors: Sequence[Monitor],
    *,
    policy: MonitorPolicy,
    settings: Settings,
    ledger: Path,
    tenants: Sequence[Tenant],
    everybody: Tenant | None = None,
    batch_size: int = 8,
    drain_s: float = 10.0,
    host: str = "127.0.0.1",
    port: int = 0,
    telemetry: Telemetry | None = None,
) -> Iterator[tuple[str, Service]]:
    """Serve from threads while the block lasts: the address, and the service. At its end: accept nothing more, finish what runs
    or cut it after `drain_s`, write the ledger, close.

    Raises:
        CannotMeasure: a monitor is down and the policy refuses to go on without it.
        UsageError: a policy that steers or does not fit the model, or an address that cannot be had.
        StoreError: the ledger cannot be written, or another server has it.
    """
    if policy.action == "steer":
        raise UsageError("expected a policy that logs, stops, refuses or escalates; a served model is not steered")
    if not tenants and everybody is None:
        raise UsageError("expected tenants, got none; nobody could ask")
    held: list[Service] = []

    def on_end(job: Job, finished: Finished) -> None:
        held[0].ended(job, finished)

    written = RequestLedger(ledger)
    try:
        worker = Worker(model, monitors, policy, batch_size=batch_size, on_end=on_end)
        worker.start()
    except BaseException:
        written.close()
        raise
    service = Service(settings, worker, written, telemetry or Telemetry(settings.release), tenants=tenants, everybody=everybody)
    held.append(service)
    try:
        with hosted(make_app(service), host=host, port=port) as url:
            try:
                yield url, service
            finally:
                service.drain(drain_s)
    finally:
        service.close()
