"""The coverage matrix says of every failure mode and instrument what is known, and leaves no cell out."""

from auditgap.governance import failure_modes, licences
from auditgap.governance.coverage import coverage
from auditgap.records import NotMeasured
from auditgap.report import render_power
from governance.calibration_examples import calibration, cell

MODES = failure_modes()
NAMES = [entry.id for entry in licences().instruments]


def test_measured_power_is_shown_where_it_was_measured() -> None:
    weak = cell(measurement="n_confirmed_triggers", found=1)
    found = coverage(MODES.values(), NAMES, calibration(weak, cell()))
    (measured,) = [c for c in found if c.state == "measured"]
    assert (measured.failure_mode, measured.instrument) == ("trigger-backdoor", "trigger-scan")
    assert measured.best == cell(), "the stronger of two detectors speaks for the instrument"


def test_harder_plants_and_absent_rates_do_not_count_as_measured() -> None:
    absent = cell(power=NotMeasured(name="power", reason="no bar"))
    found = coverage(MODES.values(), NAMES, calibration(absent, cell(difficulty="trigger of two words")))
    assert not [c for c in found if c.state == "measured"]


def test_power_of_another_version_does_not_count_as_measured() -> None:
    found = coverage(MODES.values(), NAMES, calibration(cell()), versions={"trigger-scan": "3"})
    (other,) = [c for c in found if (c.failure_mode, c.instrument) == ("trigger-backdoor", "trigger-scan")]
    assert (other.state, other.reason) == ("not-measured", "power was measured with version 2, version 3 ran")
    assert [c.state for c in coverage(MODES.values(), NAMES, calibration(cell()), versions={"trigger-scan": "2"})].count(
        "measured"
    ) == 1


def test_no_cell_is_left_out_and_each_says_why() -> None:
    found = coverage(MODES.values(), NAMES, None)
    assert len(found) == len(MODES) * len(NAMES) and all(c.reason for c in found)
    assert {c.state for c in found} == {"not-measured", "cannot-reach"}
    assert coverage(MODES.values(), reversed(NAMES), None) == found


def test_the_page_shows_power_false_alarms_and_what_did_not_take() -> None:
    record = calibration(cell(found=9, decoy=1, n=10))
    page = render_power(record, coverage(MODES.values(), NAMES, record))
    assert "0.90 (0.55-1.00, n 10)" in page and "`answer_lost.best` > 0.5" in page
    assert "| trigger-backdoor | trigger-scan 0.55 |" in page
    assert "Cannot be reached by any instrument:" in page and "did not take" in page
