"""The whole road: registered before it runs, resumed after an interruption, refused where it differs, decided, reported."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml
from pydantic import JsonValue

import auditgap
from auditgap.auditing import granted, measure, prepare
from auditgap.data import located
from auditgap.errors import DataError, PlanError, RegistrationError, StoreError, UsageError
from auditgap.evidence import Store, verify
from auditgap.instruments import Instrument, configure, registered
from auditgap.models import Model, open_model
from auditgap.plan import load_plan

EXAMPLES = Path(__file__).parents[1] / "examples"
STEP = {
    "id": "preference",
    "instrument": "option-preference",
    "data": "pairs.jsonl",
    "config": {"n_resamples": 200, "n_permutations": 99},
}
CRITERION = {
    "id": "small",
    "claim": "association-bounded",
    "instrument": "option-preference",
    "measurement": "association",
    "comparator": "<=",
    "threshold": 1.0,
    "bound": "high",
    "min_n": 5,
    "severity": "fail",
    "response": "Do not use it here.",
    "rationale": "r",
    "review_by": "2099-01-01",
}


@pytest.fixture(scope="module")
def model(stories: Path) -> Model:
    return open_model(stories)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A plan of one quick step, with its data and policy beside it."""
    shutil.copyfile(EXAMPLES / "data" / "names-pairs.jsonl", tmp_path / "pairs.jsonl")
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump({"name": "p", "criteria": [CRITERION]}))
    return write(tmp_path / "plan.yaml", {})


def write(path: Path, update: dict[str, object]) -> Path:
    plan = {
        "name": "quick",
        "policy": "policy.yaml",
        "reassess_by": "2099-01-01",
        "claims": ["association-bounded"],
        "steps": [STEP],
    }
    path.write_text(yaml.safe_dump(plan | update))
    return path


def test_an_audit_finds_the_association_and_blocks(model: Model, plan: Path, tmp_path: Path) -> None:
    outcome = auditgap.audit(model, plan, tmp_path / "s")
    ((_, evidence),) = outcome.evidence
    assert evidence.result.verdict == "supported"
    assert (outcome.decision.outcome, outcome.exit_code) == ("fail", 1)
    assert any("Do not use it here." in reason for reason in outcome.decision.reasons)
    assert evidence.granted.model == "M5" and evidence.granted.independence == "self"
    assert verify(tmp_path / "s").ok
    assert "<!doctype html>" in outcome._repr_html_()
    with Store.open(tmp_path / "s") as store:
        (registration,) = store.registrations()
        assert registration.record.thresholds[0].value == 1.0
        assert registration.leaf < store.evidence()[0].leaf
        rows = store.get_blob(registration.record.data[0].content).decode().splitlines()
        assert len(rows) == 1 + registration.record.data[0].n_rows  # a header, then every row: the data can be had again
    (gap,) = auditgap.gap(tmp_path / "s", claims=["association-bounded"])
    assert gap.support == "defeated"
    assert auditgap.gate(tmp_path / "s", tmp_path / "policy.yaml").decision.outcome == "fail"


def test_a_wide_bar_passes_once_the_missing_rerun_is_accepted(model: Model, plan: Path, tmp_path: Path) -> None:
    accept = {"reason": "F1.no-independent-rerun", "why": "one auditor", "who": "a person", "review_by": "2099-01-01"}
    policy = {"name": "p", "criteria": [CRITERION | {"threshold": 6.0}], "accept": [accept]}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    write(plan, {"steps": [STEP | {"config": STEP["config"] | {"bound": 6.0}}]})
    outcome = auditgap.audit(model, plan, tmp_path / "s")
    assert (outcome.decision.outcome, outcome.exit_code) == ("pass-with-disclosed-gap", 0)
    assert any("Accepted by a person" in gap for gap in outcome.decision.disclosed)


def test_the_same_command_again_measures_nothing_twice(model: Model, plan: Path, tmp_path: Path) -> None:
    first = auditgap.audit(model, plan, tmp_path / "s")
    again = auditgap.audit(model, plan, tmp_path / "s")
    assert [digest for digest, _ in first.evidence] == [digest for digest, _ in again.evidence]


def test_two_stores_get_the_same_result(model: Model, plan: Path, tmp_path: Path) -> None:
    one, two = (auditgap.audit(model, plan, tmp_path / name).evidence[0][1] for name in ("a", "b"))
    assert one.result.canonical() == two.result.canonical() and one.spec == two.spec


@pytest.mark.parametrize("what", ["settings", "data", "thresholds", "seed"])
def test_a_run_that_differs_from_its_registration_is_refused(model: Model, plan: Path, tmp_path: Path, what: str) -> None:
    import dataclasses

    loaded = load_plan(plan)
    with Store.open(tmp_path / "s") as store:
        (prepared,) = prepare(model, loaded, store)
        if what == "settings":
            prepared = dataclasses.replace(prepared, instrument=prepared.instrument.model_copy(update={"bound": 0.5}))
        elif what == "data":
            prepared = dataclasses.replace(prepared, data=prepared.data.split("train"))
        elif what == "thresholds":
            loosened = loaded.policy.criteria[0].model_copy(update={"threshold": 9.0})
            loaded = loaded._replace(policy=loaded.policy.model_copy(update={"criteria": (loosened,)}))
        else:
            loaded = loaded._replace(plan=loaded.plan.model_copy(update={"seed": 7}))
        with pytest.raises(RegistrationError, match=f"registered with {what}"):
            measure(model, prepared, loaded.terms(prepared.step), store)
        assert store.evidence() == []


NEUTRAL = STEP | {"instrument": "sensitive-attribute", "config": STEP["config"] | {"neutral": "neutral.jsonl"}}


def test_every_path_of_a_plan_starts_from_its_folder(
    model: Model, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run from elsewhere and from beside the plan it is the same run, and what is signed is what the plan says."""
    shutil.copyfile(tmp_path / "pairs.jsonl", tmp_path / "neutral.jsonl")
    write(plan, {"steps": [NEUTRAL], "claims": []})
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    first = auditgap.audit(model, Path("../plan.yaml"), tmp_path / "s")
    monkeypatch.chdir(tmp_path)
    again = auditgap.audit(model, "plan.yaml", "s")
    assert [digest for digest, _ in first.evidence] == [digest for digest, _ in again.evidence] != []
    with Store.open("s") as store:
        registered = {registration.record.spec(): registration.record for registration in store.registrations()}
    (registration,) = registered.values()
    assert registration.config["neutral"] == "neutral.jsonl"
    assert registration.references == {"neutral": registration.data[0].content}


def test_a_model_beside_the_plan_is_found_and_one_beside_the_user_is_refused(
    stories: Path, model: Model, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(plan, {"steps": [STEP | {"instrument": "contamination", "config": {"reference": "models/base"}}]})
    (away := tmp_path / "away" / "models").mkdir(parents=True)
    (away / "base").symlink_to(stories, target_is_directory=True)
    monkeypatch.chdir(away.parent)
    with pytest.raises(PlanError, match="as seen from the plan"):
        auditgap.audit(model, plan, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    (tmp_path / "models").symlink_to(away, target_is_directory=True)
    with Store.open(tmp_path / "s") as store:
        (prepared,) = prepare(model, load_plan(plan), store)
        assert prepared.registration.references == {"reference": model.subject.digest()}


def test_only_names_of_models_and_data_are_looked_for_beside_the_plan(tmp_path: Path) -> None:
    (tmp_path / "yes").mkdir()
    config: dict[str, JsonValue] = {"base": "a/b/c", "contrast": "shipped:ordinary"}
    found = configure("model-diff", config).located(tmp_path)
    assert found == configure("model-diff", config | {"base": str(tmp_path / "a/b/c")})
    config = {"checkpoints": ["a", "b"], "steps": [1, 2], "answers": ["yes"], "foils": ["no"]}
    series = configure("phase-transition", config)
    beside = {"checkpoints": (str(tmp_path / "a"), str(tmp_path / "b"))}
    assert series.located(tmp_path).model_dump() == series.model_dump() | beside
    for stays in ("shipped:ordinary", "hub:org/name@main/x.jsonl", "/data/x.jsonl", "org/name"):
        assert located(stays, tmp_path) == stays
    assert located("data/x.jsonl", tmp_path) == str(tmp_path / "data/x.jsonl")


def test_every_instrument_that_reads_more_than_the_subject_says_where_in_a_location() -> None:
    reading = {name for name, cls in registered().items() if cls.references is not Instrument.references}
    assert reading == {name for name, cls in registered().items() if cls.locations()}


def test_kill_minus_nine_loses_nothing_that_was_finished(stories: Path, plan: Path, tmp_path: Path) -> None:
    write(plan, {"steps": [STEP, STEP | {"id": "second", "config": STEP["config"] | {"bound": 0.5}}]})
    code = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(Path(auditgap.__file__).parents[1])!r})
        import auditgap
        from auditgap.instruments.behavioural.option_preference import OptionPreference
        measure = OptionPreference.measure
        def slow(self, *args, **kwargs):
            if self.bound == 0.5:
                print("second", flush=True); time.sleep(60)
            return measure(self, *args, **kwargs)
        OptionPreference.measure = slow
        auditgap.audit({str(stories)!r}, {str(plan)!r}, {str(tmp_path / "s")!r})
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "second\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert verify(tmp_path / "s").ok
    with Store.open(tmp_path / "s") as store:
        (kept,) = store.evidence()
    resumed = auditgap.audit(stories, plan, tmp_path / "s")
    assert [evidence.step for _, evidence in resumed.evidence] == ["preference", "second"]
    assert resumed.evidence[0][0] == kept.digest


@pytest.mark.parametrize(
    ("update", "error", "message"),
    [
        ({"steps": []}, PlanError, "steps"),
        ({"stps": []}, PlanError, "stps.*known fields: .*steps"),
        ({"steps": [STEP, STEP]}, PlanError, "step ids must be unique, repeated: preference"),
        ({"reassess_by": "2020-01-01"}, PlanError, "has passed"),
        ({"subject": "sha256:" + "0" * 64}, PlanError, "write a plan for this one"),
        ({"steps": [STEP | {"instrument": "option-preferense"}]}, UsageError, "did you mean 'option-preference'"),
        ({"steps": [STEP | {"config": {"bond": 1}}]}, UsageError, "did you mean 'bound'"),
        ({"steps": [STEP | {"data": "none.jsonl"}]}, DataError, "cannot read"),
        ({"policy": "none.yaml"}, PlanError, "none.yaml"),
        ({"documents": ["card.md"]}, PlanError, "card.md"),
        ({"claims": ["association-bound"]}, UsageError, "did you mean 'association-bounded'"),
        ({"frameworks": ["nist"]}, UsageError, "nist"),
    ],
)
def test_a_wrong_plan_is_refused_before_anything_runs(
    model: Model, plan: Path, tmp_path: Path, update: dict[str, object], error: type[Exception], message: str
) -> None:
    write(plan, update)
    with pytest.raises(error, match=message):
        auditgap.audit(model, plan, tmp_path / "s")
    if (tmp_path / "s").exists():
        with Store.open(tmp_path / "s") as store:
            assert store.evidence() == []


def test_a_store_that_cannot_be_written_is_an_error_with_a_next_step(model: Model, plan: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError):
        auditgap.audit(model, plan, tmp_path / "file")


def test_one_instrument_runs_without_a_store_and_shows_in_a_notebook(model: Model, plan: Path) -> None:
    finding = auditgap.run("option-preference", model, data=str(plan.parent / "pairs.jsonl"), config=STEP["config"])
    shown = finding._repr_html_()
    assert finding.result.summary.split(" ")[0] in shown and "no evidence" in shown
    assert json.loads(finding.result.model_dump_json())["verdict"] == "supported"


def test_the_deciding_half_starts_without_torch() -> None:
    code = "import sys, auditgap.judge, auditgap.cli; auditgap.gap; auditgap.gate; sys.exit('torch' in sys.modules)"
    started = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert time.monotonic() - started < 60  # a hang, not a speed


def test_an_instrument_that_cannot_measure_leaves_its_reason_and_the_rest_runs(model: Model, plan: Path, tmp_path: Path) -> None:
    write(plan, {"steps": [STEP | {"id": "few", "data": "few.jsonl"}, STEP]})
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()][:3]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row | {"group": "one"}) + "\n" for row in rows))
    outcome = auditgap.audit(model, plan, tmp_path / "s")
    few, whole = (evidence.result for _, evidence in outcome.evidence)
    assert few.verdict == "inconclusive" and few.measurements[0].status == "not_measured"
    assert whole.verdict == "supported"
    assert verify(tmp_path / "s").ok


@pytest.mark.parametrize(("role", "access"), [("base", "M6"), ("checkpoint@400", "M6"), ("control", "M5"), ("pairs", "M5")])
def test_only_an_earlier_checkpoint_raises_the_access(model: Model, plan: Path, tmp_path: Path, role: str, access: str) -> None:
    loaded = load_plan(plan)
    with Store.open(tmp_path / "s") as store:
        (prepared,) = prepare(model, loaded, store)
        registration = prepared.registration.model_copy(update={"references": {role: "sha256:" + "0" * 64}})
        had = granted(model, registration, loaded.terms(prepared.step), store, registration.registered_at)
    assert had.model == access
