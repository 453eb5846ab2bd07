"""From a store to a file: every format, the same bytes each time, and nothing without a decision."""

import base64
import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import pytest

from auditgap.cli import main
from auditgap.errors import StoreError, UsageError
from auditgap.evidence import Store
from auditgap.exchange.export import FORMATS, export, find_format
from auditgap.exchange.export.naming import uuid_of
from auditgap.records import digest_of
from auditgap.report import Audit

# Planted truth found


@pytest.fixture(scope="module")
def exported(store_folder: Path) -> dict[str, bytes]:
    return {name: export(store_folder, name) for name in FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_names_the_subject_and_what_was_not_measured(exported: dict[str, bytes], real: Audit, name: str) -> None:
    text = exported[name].decode()
    if FORMATS[name].file.endswith(".dsse.json"):
        text = base64.b64decode(json.loads(text)["payload"]).decode()
    assert real.subject.digest().removeprefix("sha256:") in text
    if name == "vsa":
        assert '"verificationResult":"FAILED"' in text
    elif not name.startswith("oscal-") or name in ("oscal-assessment-results", "oscal-poam"):
        assert "cosine_shift" in text or '"shift"' in text


def test_the_command_writes_a_file_or_stdout(capsys: pytest.CaptureFixture[str], store_folder: Path, tmp_path: Path) -> None:
    for args in (["--out", str(tmp_path / "new" / "a.sarif")], []):
        with pytest.raises(SystemExit) as stop:
            main(["export", "sarif", "--store", str(store_folder), *args])
        assert not stop.value.code
    path, _, document = capsys.readouterr().out.partition("\n")
    assert Path(path).read_text(encoding="utf-8") == document
    with pytest.raises(SystemExit):
        main(["export", "--list"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(FORMATS)


# Invariance


def test_the_same_store_gives_the_same_bytes_and_stays_as_it_was(store_folder: Path, exported: dict[str, bytes]) -> None:
    with Store.open(store_folder, create=False) as store:
        before = store.root(), len(store)
    again = subprocess.run([sys.executable, "-c", _AGAIN, str(store_folder)], check=True, capture_output=True, text=True)
    assert json.loads(again.stdout) == {name: digest_of(data) for name, data in exported.items()}
    with Store.open(store_folder, create=False) as store:
        assert (store.root(), len(store)) == before


_AGAIN = """
import json, sys
from auditgap.exchange.export import FORMATS, export
from auditgap.records import digest_of

print(json.dumps({name: digest_of(export(sys.argv[1], name)) for name in FORMATS}))
assert "torch" not in sys.modules, "the deciding half imports no torch"
"""
"""Another process, so another hash seed; later than the first, so another clock."""


@pytest.mark.parametrize("name", FORMATS)
def test_the_time_of_the_export_is_nowhere(real: Audit, name: str) -> None:
    later = real._replace(generated_at=real.generated_at + dt.timedelta(days=400))
    assert FORMATS[name].render(later) == FORMATS[name].render(real)


def test_a_uuid_depends_on_each_part_and_on_their_borders() -> None:
    assert uuid_of("a", "b") == uuid_of("a", "b")
    assert len({uuid_of("a", "b"), uuid_of("ab"), uuid_of("a", "", "b"), uuid_of("b", "a")}) == 4


# Bad input refused


def test_an_unknown_format_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="did you mean 'sarif'"):
        find_format("sarf")


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no evidence store"):
        export(tmp_path / "none", "sarif")
    assert not (tmp_path / "none").exists()


FORMS = ("cyclonedx", "model-card", "model-report", "annex-xi")


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in FORMS])
def test_without_a_decision_nothing_is_written_that_could_be_read_as_a_pass(held: Audit, name: str) -> None:
    undecided = held._replace(decision=None, decision_digest=None, assessments=[])
    with pytest.raises(UsageError, match="run 'auditgap gate' first"):
        FORMATS[name].render(undecided)
    other = held._replace(subject=held.subject.model_copy(update={"dtype": "float16"}))
    with pytest.raises(UsageError, match="expected a decision on subject"):
        FORMATS[name].render(other)


@pytest.mark.parametrize("name", FORMS)
def test_forms_without_a_decision_say_so_or_need_evidence(held: Audit, name: str) -> None:
    undecided = held._replace(decision=None, decision_digest=None, assessments=[])
    shown = FORMATS[name].render(undecided)
    assert "No decision" in shown if isinstance(shown, str) else "declarations" not in shown
    with pytest.raises(UsageError, match="nothing to export"):
        FORMATS[name].render(undecided._replace(evidence=[]))
