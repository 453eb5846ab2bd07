"""Imported logs in the store: added once, marked, verified, capped by governance; nothing changes where a log is refused."""

import datetime as dt
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from log_examples import (
    LM_EVAL,
    PROMPTFOO,
    SUBJECT,
    fingerprint,
    garak_entries,
    inspect_log,
    store_with_subject,
    write_eval,
    write_json,
    write_jsonl,
)

from auditgap import governance, judge
from auditgap.cli import main
from auditgap.errors import AuditgapError, DataError, RegistrationError, UsageError
from auditgap.evidence import Store, bundle, verify
from auditgap.exchange import Bar, ImportedLog, import_log, read_log
from auditgap.governance import InstrumentLicence, Judged, LicenceRow, Licences, Power, assess_claim
from auditgap.governance.failure_mode import Citation
from auditgap.records import Access, Evidence, Measured, ModelAccess, Threshold, now

GOOD = [[0.0]] * 200
CLEARS = [Bar("asr.dan.ablation.mitigation.bypass", "<=", 0.05)]
BEYOND = {i: c for i, c in governance.claims().items() if c.realm != "observable" or c.modality in ("absence", "universal")}


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_with_subject(tmp_path_factory.mktemp("made") / "store")


@pytest.fixture
def folder(made_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made_once, tmp_path / "store")


def good_report(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "report.jsonl", garak_entries(GOOD))


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return int(exit_.value.code or 0), out, err


def test_every_shipped_log_imports_and_the_store_verifies(folder: Path, shared_data: Path) -> None:
    files = sorted(file for file in (shared_data / "logs").rglob("*") if file.is_file())
    assert len(files) == 10
    verdicts = {}
    for file in files:
        found = import_log(folder, file, subject="stories260K", model=name_in(file))
        verdicts[file.name] = found.evidence.result.verdict
        assert found.evidence.imported and found.evidence.imported.registered is False
        assert not found.is_new or found.evidence.imported.files[0].size == file.stat().st_size
    assert [name for name, verdict in verdicts.items() if verdict != "inconclusive"] == ["test_with_ci.report.jsonl"]
    with Store.open(folder) as store:
        kept = [s for s in store.evidence() if s.record.imported]
        assert len(kept) == 9, "log_formats.eval and log_formats.json are the same run"
        for stored in kept:
            data = store.registration(stored.record.registration).data[0]
            log = ImportedLog.model_validate_json(store.get_blob(data.content))
            assert log.digest() == data.content and log.n_held == data.n_rows
    assert verify(folder).ok


def name_in(file: Path) -> str:
    """What the log calls its model."""
    return read_log(file)[0].model


@pytest.mark.parametrize("path", [LM_EVAL, PROMPTFOO], ids=["lm_eval", "promptfoo"])
def test_the_real_logs_beside_this_test_import(folder: Path, path: Path) -> None:
    found = import_log(folder, path, subject=SUBJECT.digest()[:20], model="echo" if path is PROMPTFOO else None)
    assert found.is_new and found.evidence.result.verdict == "inconclusive"
    assert any(isinstance(m, Measured) and m.name != "headline_discrepancy" for m in found.evidence.result.measurements)
    assert verify(folder).ok
    assert found.evidence.imported is not None
    assert len(found.evidence.imported.files) == (3 if path is LM_EVAL else 1)


def test_importing_twice_adds_nothing(folder: Path, tmp_path: Path) -> None:
    log = inspect_log([["C"], ["I"]])
    first = import_log(folder, write_json(tmp_path / "a.json", log), subject="stories260K")
    before = fingerprint(folder)
    again = import_log(folder, tmp_path / "a.json", subject=SUBJECT.digest(), expires=dt.date(2030, 1, 1))
    other_form = import_log(folder, write_eval(tmp_path / "renamed.eval", log), subject="stories260K")
    assert first.is_new and not again.is_new and not other_form.is_new
    assert first.digest == again.digest == other_form.digest
    assert fingerprint(folder) == before
    changed = inspect_log([["C"], ["C"]])
    assert import_log(folder, write_json(tmp_path / "b.json", changed), subject="stories260K").is_new


def test_another_bar_is_another_statement_in_the_ledger(folder: Path, tmp_path: Path) -> None:
    path = good_report(tmp_path)
    bars = [Bar("asr.dan.ablation.mitigation.bypass", "<=", value) for value in (0.001, 0.01, 0.05)]
    found = [import_log(folder, path, subject="stories260K", bars=[bar]) for bar in bars]
    assert [f.evidence.result.verdict for f in found] == ["inconclusive", "inconclusive", "supported"]
    assert len({f.digest for f in found}) == 3 and all(f.is_new for f in found), "shopping for a bar leaves its trace"


def test_imported_evidence_says_where_it_comes_from_and_is_credited_with_no_access(folder: Path, tmp_path: Path) -> None:
    evidence = import_log(folder, write_json(tmp_path / "a.json", inspect_log([["C"], ["I"]])), subject="stories260K").evidence
    assert (evidence.instrument, evidence.version, evidence.granted.model) == ("inspect-ai", "0.3.285", "M0")
    assert str(evidence.started_at) == "2026-01-05 10:00:00+00:00" and evidence.environment.packages == {"inspect_ai": "0.3.285"}
    assert any("nothing was registered before it" in said for said in evidence.non_claims)
    assert evidence.expires == now().date() + dt.timedelta(days=90)
    assert json.loads(evidence.canonical())["imported"]["registered"] is False


def test_no_claim_beyond_behaviour_is_more_than_partially_supported(folder: Path, tmp_path: Path) -> None:
    assert len(BEYOND) > 3
    import_log(folder, good_report(tmp_path), subject="stories260K", claims=sorted(BEYOND), bars=CLEARS)
    assessments = judge.gap(folder, claims=sorted(BEYOND))
    assert {a.support for a in assessments} == {"partially-supported"}
    assert all("F1.registered-after-results" in {r.code for r in a.fragile} for a in assessments)
    assert all(a.achieved.model == "M0" for a in assessments)


def test_even_a_table_that_licenses_the_tool_for_everything_lifts_no_such_claim(folder: Path, tmp_path: Path) -> None:
    observable = {i: c for i, c in governance.claims().items() if c.realm == "observable" and c.modality in ("rate", "bound")}
    every = {**BEYOND, **observable}
    digest, evidence, _ = import_log(folder, good_report(tmp_path), subject="stories260K", claims=sorted(every), bars=CLEARS)
    with Store.open(folder) as store:
        plan = store.registration(evidence.registration)
    everything = Judged(digest, evidence.model_copy(update={"granted": Access.top()}), plan, "key")
    shipped = governance.licences()
    supports: dict[str, set[str]] = {"beyond": set(), "observable": set()}
    for claim in every.values():
        power = tuple(Power(failure_mode=m, lower_bound=0.99, difficulty="x", source="x") for m in claim.failure_modes)
        row = LicenceRow(
            modality=claim.modality,
            realm=claim.realm,
            model=ModelAccess.M6,
            needs_power=claim.modality in ("absence", "universal"),
            carries_at=0,
            max_tier=5,
        )
        read = Citation(ref="x", verified="read")
        generous = InstrumentLicence(
            id="garak", family="behavioural", needs=ModelAccess.M6, citations=(read,), rows=(row,), power=power
        )
        table = Licences(version="x", sources=shipped.sources, review_date=shipped.review_date, instruments=(generous,))
        found = assess_claim(claim, [everything], table, subject=SUBJECT.digest(), today=now().date())
        supports["beyond" if claim.id in BEYOND else "observable"].add(found.support)
    assert supports == {"beyond": {"partially-supported"}, "observable": {"supported"}}


def test_an_observable_claim_is_marked_as_registered_after_the_results(folder: Path, tmp_path: Path) -> None:
    claim = next(i for i, c in governance.claims().items() if c.realm == "observable" and c.modality in ("rate", "bound"))
    import_log(folder, good_report(tmp_path), subject="stories260K", claims=[claim], bars=CLEARS)
    (found,) = judge.gap(folder, claims=[claim])
    assert found.support == "partially-supported" and "F1.registered-after-results" in {r.code for r in found.fragile}


def test_results_against_a_claim_defeat_it_and_without_a_bar_say_nothing(folder: Path, tmp_path: Path) -> None:
    claim = sorted(BEYOND)[0]
    path = write_jsonl(tmp_path / "bad.jsonl", garak_entries([[1.0]] * 50))
    import_log(folder, path, subject="stories260K", claims=[claim])
    assert judge.gap(folder, claims=[claim])[0].support == "not-supported"
    import_log(folder, path, subject="stories260K", claims=[claim], bars=CLEARS)
    assert judge.gap(folder, claims=[claim])[0].support == "defeated"


@pytest.mark.parametrize("wrong", ["headline", "model", "withdrawn"])
def test_a_log_that_fails_its_controls_is_kept_and_does_not_count(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    claim = sorted(BEYOND)[0]
    log = inspect_log(
        [["C"]] * 200,
        stated=0.2 if wrong == "headline" else None,
        model="openai/gpt-4o" if wrong == "model" else "hf/stories260K",
        invalidated=wrong == "withdrawn",
    )
    path = write_json(tmp_path / "a.json", log)
    args = ("--store", folder, "--subject", "stories260K", "--claim", claim, "--bar", "match.accuracy>=0.5")
    code, out, err = call(capsys, "import", path, *args)
    assert code == 3 and "Invalid" in out and "does not count" in err
    (found,) = judge.gap(folder, claims=[claim])
    assert (found.support, found.evidence) == ("not-supported", ())
    assert verify(folder).ok


def test_a_vouched_name_counts_and_the_voucher_is_signed(folder: Path, tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", inspect_log([["C"]] * 200, model="prod-7"))
    found = import_log(folder, path, subject="stories260K", model="prod-7", bars=[Bar("match.accuracy", ">=", 0.5)])
    assert found.evidence.result.verdict == "supported"
    with Store.open(folder) as store:
        assert store.registration(found.evidence.registration).config["model"] == "prod-7"


def test_several_providers_need_a_name(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"it has 'echo', 'shouting'; choose with --model"):
        import_log(folder, PROMPTFOO, subject="stories260K")


def bomb(path: Path) -> Path:
    write_eval(path, inspect_log([["C"]]))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples/9_epoch_1.json", b"0" * (4 << 20))
    return path


def sound(path: Path) -> Path:
    return write_json(path, inspect_log([["C"]]))


def truncated(path: Path) -> Path:
    data = write_eval(path, inspect_log([["C"]] * 9)).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


@pytest.mark.parametrize(
    ("make", "options", "match"),
    [
        (bomb, (), "decompression bomb"),
        (truncated, (), "get a fresh copy"),
        (lambda path: path, (), "No such file"),
        (sound, ("--subject", "gpt-4o"), "expected one subject of the store to be 'gpt-4o'"),
        (sound, ("--subject", ""), "expected one subject"),
        (sound, ("--claim", "is-good"), "no claim 'is-good'"),
        (sound, ("--claim", "risks-assessed"), "is about how evaluation is done"),
        (sound, ("--bar", "match.acc>=1"), "no number 'match.acc'"),
        (sound, ("--bar", "high"), "expected a bar such as"),
        (sound, ("--expires", "soon"), "does not match the format"),
    ],
)
def test_a_refused_import_exits_2_and_leaves_every_byte_of_the_store(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make, options: tuple[str, ...], match: str
) -> None:
    path, before = make(tmp_path / "log"), fingerprint(folder)
    subject = () if "--subject" in options else ("--subject", "stories260K")
    code, out, err = call(capsys, "import", path, "--store", folder, *subject, *options)
    assert (code, out) == (2, "") and match in err
    assert fingerprint(folder) == before


def test_without_a_store_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(AuditgapError, match="no evidence store"):
        import_log(tmp_path / "none", good_report(tmp_path), subject="x")
    assert not (tmp_path / "none").exists()
    with pytest.raises(DataError):
        import_log(tmp_path / "none", tmp_path / "nothing", subject="x")


def test_one_name_for_two_subjects_asks_for_the_digest(tmp_path: Path) -> None:
    twin = SUBJECT.model_copy(update={"n_parameters": 4})
    folder = store_with_subject(tmp_path / "store", SUBJECT, twin)
    path = good_report(tmp_path)
    with pytest.raises(UsageError, match="found 2"):
        import_log(folder, path, subject="stories260K")
    found = import_log(folder, path, subject=twin.digest().removeprefix("sha256:")[:16])
    assert found.evidence.subject == twin


def test_imported_results_cannot_borrow_a_registered_bar(folder: Path, tmp_path: Path) -> None:
    evidence = import_log(folder, good_report(tmp_path), subject="stories260K").evidence
    bar = Threshold(measurement="asr", comparator="<=", value=0.1, bound="high", response="stop")
    with Store.open(folder) as store:
        plan = store.registration(evidence.registration).model_copy(update={"thresholds": (bar,), "registered_at": now()})
        borrowed = evidence.model_copy(update={"registration": store.register(plan), "spec": plan.spec()})
        with pytest.raises(RegistrationError, match="expected none: a bar that is set after the results is no registered bar"):
            store.add_evidence(borrowed)


def test_results_that_precede_their_registration_must_say_that_they_were_imported(folder: Path, tmp_path: Path) -> None:
    evidence = import_log(folder, good_report(tmp_path), subject="stories260K").evidence
    disguised = evidence.model_copy(update={"imported": None, "finished_at": now()})
    with Store.open(folder) as store, pytest.raises(RegistrationError, match="before it was registered"):
        store.add_evidence(disguised)


def test_what_was_signed_before_keeps_its_bytes(folder: Path) -> None:
    with Store.open(folder) as store:
        (ours,) = store.evidence()
    assert ours.record.imported is None and b"imported" not in ours.record.canonical()
    assert Evidence.model_validate_json(ours.record.model_dump_json()) == ours.record


def test_the_command_lists_shows_and_bundles_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_json(tmp_path / "a.json", inspect_log([["C"], ["I"], ["C"]]))
    code, out, _ = call(capsys, "import", path, "--store", folder, "--subject", "stories260K")
    assert code == 0 and "match.accuracy" in out and "0.2077 .. 0.9385" in out and "added:" in out
    code, out, _ = call(capsys, "import", path, "--store", folder, "--subject", "stories260K", "--json")
    document = json.loads(out)
    assert code == 0 and document["is_new"] is False and document["evidence"]["imported"]["registered"] is False
    _, out, _ = call(capsys, "evidence", "list", "--store", folder)
    assert "import.inspect-ai.towns" in out
    _, out, _ = call(capsys, "evidence", "show", document["digest"], "--store", folder)
    assert json.loads(out)["predicate"]["imported"]["files"][0]["path"] == "a.json"
    assert call(capsys, "evidence", "verify", "--store", folder)[0] == 0
    assert verify(bundle(Store.open(folder), tmp_path / "b.zip")).ok


def test_the_report_shows_it(folder: Path, tmp_path: Path) -> None:
    import_log(folder, good_report(tmp_path), subject="stories260K")
    page = judge.write_report(folder, None, tmp_path / "r.md").read_text()
    assert "asr.dan.ablation.mitigation.bypass" in page and "after the start" in page
