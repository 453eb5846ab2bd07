"""Where measuring meets deciding: a model and a plan become signed evidence.

1. Open the subject; measure what access it really grants.
2. Read every data set, configure every instrument: nothing has run yet, so a mistake in the plan costs nothing.
3. Sign each step's registration (instrument, settings, data digests, thresholds, seed) into the ledger.
4. Run the steps that have no evidence yet; sign each result into the ledger as soon as it exists.
5. Judge: assessments and a decision (`judge.py`), signed with the gate key.

Step 4 is what makes an interrupted audit resume: the same command finds the finished evidence by its specification.
"""

import datetime as dt
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue

from auditgap import judge
from auditgap.data import Dataset, load
from auditgap.errors import CannotMeasure, PlanError, RegistrationError
from auditgap.evidence import Store, Stored
from auditgap.instruments import Instrument, Progress, configure, quiet
from auditgap.instruments.contract import EARLIER_ROLES
from auditgap.models import Model, open_model
from auditgap.plan import LoadedPlan, Step, Terms, load_plan
from auditgap.records import (
    Access,
    Digest,
    Environment,
    Evidence,
    ModelAccess,
    NotMeasured,
    Registration,
    Result,
    Subject,
    now,
)

__all__ = ["Finding", "Prepared", "audit", "finish", "measure", "prepare", "register", "run"]

_COMPUTES = ("auditgap", "numpy", "scipy", "scikit-learn", "torch", "transformers", "tokenizers", "peft")


@dataclass(frozen=True, eq=False)
class Finding:
    """One instrument's result on one model, outside any audit: nothing was registered, so it is no evidence."""

    subject: Subject
    instrument: Instrument
    result: Result

    def _repr_html_(self) -> str:
        from auditgap.report import render_result

        return render_result(self.instrument.card, self.result, subject=self.subject.name)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A plan step with its instrument configured, its data read and its registration signed."""

    step: Step
    instrument: Instrument
    """As the plan says, which is what is signed."""
    data: Dataset
    registration: Registration
    digest: Digest
    folder: Path = Path()
    """From where the models and data sets are looked for that the instrument names."""


def run(
    instrument: str,
    model: Model | str | Path,
    *,
    data: str | Dataset,
    config: dict[str, JsonValue] | None = None,
    seed: int = 0,
    progress: Progress = quiet,
) -> Finding:
    """Run one instrument on any model and data, without a store.

    Raises:
        UsageError: unknown instrument or setting, malformed data.
        SubjectError: the model cannot be opened safely.
        CannotMeasure: the instrument's precondition does not hold.
    """
    configured = configure(instrument, config or {})
    dataset = load(data, configured.card.data, seed=seed) if isinstance(data, str) else data
    opened = model if isinstance(model, Model) else open_model(model)
    return Finding(opened.subject, configured, configured.measure(opened, dataset, seed=seed, progress=progress))


def audit(
    model: Model | str | Path,
    plan: Path | str,
    store: Path | str = ".auditgap",
    *,
    revision: str | None = None,
    adapter: str | Path | None = None,
    device: str = "cpu",
    progress: Callable[[str], Progress] = lambda step: quiet,
) -> judge.Outcome:
    """Audit a model by a plan: signed evidence, assessments and a decision in the store.

    The same call resumes after any interruption; what was finished is kept. `progress(step)` gives a step's progress callback.

    Raises:
        UsageError, PlanError, DataError: something in the plan is wrong; nothing was run.
        SubjectError: the model cannot be opened safely.
        StoreError: the store cannot be written.
    """
    loaded = load_plan(Path(plan))
    judge.check(claims=loaded.plan.claims, frameworks=loaded.plan.frameworks)
    for step in loaded.plan.steps:
        configure(step.instrument, step.config).located(loaded.folder)
    opened = (
        model
        if isinstance(model, Model)
        else open_model(model, revision=revision, adapter=adapter, dtype=loaded.plan.dtype, device=device)
    )
    if loaded.plan.subject not in (None, opened.subject.digest()):
        raise PlanError(
            f"the plan is for subject {loaded.plan.subject}, this model is {opened.subject.digest()}: write a plan for this one"
        )
    with Store.open(store) as opened_store:
        for prepared in prepare(opened, loaded, opened_store):
            finish(opened, prepared, loaded.terms(prepared.step), opened_store, progress(prepared.step.id))
        return judge.conclude(opened_store, loaded, opened.subject)


def prepare(model: Model, loaded: LoadedPlan, store: Store) -> list[Prepared]:
    """Configure every step and read its data; only then sign the registration of each."""
    prepared = []
    for step in loaded.plan.steps:
        instrument = configure(step.instrument, step.config)
        data = load(loaded.source(step.data), instrument.card.data, seed=loaded.plan.seed)
        prepared.append((step, instrument, data))
    return [
        register(model, step, instrument, data, loaded.terms(step), store, folder=loaded.folder)
        for step, instrument, data in prepared
    ]


def register(
    model: Model, step: Step, instrument: Instrument, data: Dataset, terms: Terms, store: Store, *, folder: Path = Path()
) -> Prepared:
    """Keep the rows as a blob and sign what will be measured, and under which terms."""
    registration = Registration(
        step=step.id,
        card=instrument.card,
        subject=model.subject.digest(),
        config=instrument.model_dump(mode="json"),
        data=(data.ref(),),
        references=instrument.located(folder).references(),
        thresholds=terms.thresholds,
        seed=terms.seed,
        registered_at=now(),
    )
    store.put_blob(data.content())
    return Prepared(step, instrument, data, registration, store.register(registration), folder)


def finish(model: Model, prepared: Prepared, terms: Terms, store: Store, progress: Progress = quiet) -> Stored[Evidence]:
    """The evidence of a registered step: what the store holds, or else what running it now gives, signed at once."""
    spec = prepared.registration.spec()
    if not store.evidence_for(spec):
        store.add_evidence(measure(model, prepared, terms, store, progress))
    return store.evidence_for(spec)[0]


def measure(model: Model, prepared: Prepared, terms: Terms, store: Store, progress: Progress = quiet) -> Evidence:
    """Run one registered step.

    Raises:
        RegistrationError: settings, data or subject are not those that were registered.
    """
    registration, running = store.registration(prepared.digest), prepared.instrument.located(prepared.folder)
    for what, registered, given in (
        ("subject", registration.subject, model.subject.digest()),
        ("settings", registration.config, prepared.instrument.model_dump(mode="json")),
        ("data", registration.data, (prepared.data.ref(),)),
        ("references", registration.references, running.references()),
        ("instrument", registration.card, prepared.instrument.card),
        ("thresholds", registration.thresholds, terms.thresholds),
        ("seed", registration.seed, terms.seed),
    ):
        if registered != given:
            raise RegistrationError(
                f"step '{prepared.step.id}' was registered with {what} {registered}, the run has {given}: "
                "start the audit again so that what runs is what is registered"
            )
    started = now()
    try:
        result = running.measure(model, prepared.data, seed=registration.seed, progress=progress)
    except CannotMeasure as error:
        result = not_measured(prepared.step, str(error))
    return Evidence(
        registration=prepared.digest,
        spec=registration.spec(),
        step=prepared.step.id,
        instrument=prepared.instrument.card.name,
        version=prepared.instrument.card.version,
        subject=model.subject,
        granted=granted(model, registration, terms, store, started),
        result=result,
        environment=environment(model),
        started_at=started,
        finished_at=now(),
        expires=terms.expires,
        non_claims=prepared.instrument.card.blind_spots,
    )


def not_measured(step: Step, reason: str) -> Result:
    """What is signed when an instrument's precondition does not hold: no number, and why. The gate treats it as missing."""
    absent = NotMeasured(name=step.instrument, reason=reason)
    return Result(measurements=(absent,), controls=(), verdict="inconclusive", summary=f"Not measured: {reason}")


def granted(model: Model, registration: Registration, terms: Terms, store: Store, at: dt.datetime) -> Access:
    """The access this audit really had, axis by axis.

    `model` was measured when the subject was opened; it is M6 where the run also read an earlier checkpoint. `information` counts
    documents that the plan found on disk. `time` is business days since the subject first appeared in the ledger. The rest is
    the floor: one deployed variant, bare model, self.
    """
    earlier = {digest for role, digest in registration.references.items() if role.partition("@")[0] in EARLIER_ROLES}
    others = earlier - {registration.subject}
    first = min((s.record.registered_at for s in store.registrations() if s.record.subject == model.subject.digest()), default=at)
    return Access(
        model=ModelAccess.M6 if others and model.granted is ModelAccess.M5 else model.granted,
        information=terms.information,
        time=int(np.busday_count(first.date(), at.date())),
    )


def environment(model: Model) -> Environment:
    """Versions and settings that could move a number."""
    packages = {}
    for name in _COMPUTES:
        packages[name] = version(name)
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        packages=packages,
        device=str(model.device),
        dtype=model.subject.dtype,
        attention=model.attention_kernel,
        threads=torch.get_num_threads(),
    )
