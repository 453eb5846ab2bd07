"""Frozen evidence: what was frozen comes back byte for byte, what was erased does not, and what was changed is damage."""

import json
from pathlib import Path

import pytest
from incident_examples import planted

from auditgap.errors import DataError, EvidenceInvalid, PlanError, StoreError, UsageError
from auditgap.evidence import Store, verify
from auditgap.evidence.blobs import Blobs, blob_path
from auditgap.incidents import erase, freeze, inspect, thaw, thaw_case
from auditgap.incidents.freezing import Frozen
from auditgap.release import EffectLedger, EventLog

ACCOUNT = "acme-payroll-7"


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Path]:
    """An event stream and an effect ledger, as a run leaves them."""
    log = EventLog(tmp_path / "events.jsonl")
    log.add("call", call_id="call-1", tool="transfer", content={"to": "supplier"}, detail={"note": ACCOUNT})
    log.add("result", call_id="call-1", tool="transfer", outcome="ok")
    log.close()
    EffectLedger(tmp_path / "effects.db").add("transfer", "inv-1", tenant="acme", detail={"account": ACCOUNT, "amount_cents": 5})
    return tmp_path / "events.jsonl", tmp_path / "effects.db"


def _frozen(folder: Path, run: tuple[Path, Path]) -> str:
    plant = planted("tool")
    return freeze(folder, plant.bad.manifest, events=run[0], effects=run[1], case=plant.case, stimuli=plant.stimuli)


def test_what_was_frozen_comes_back(tmp_path: Path, run: tuple[Path, Path]) -> None:
    plant, digest = planted("tool"), _frozen(tmp_path / "frozen", run)
    assert thaw_case(tmp_path / "frozen", digest) == (plant.case, plant.stimuli)
    effects, events = (thaw(tmp_path / "frozen", digest, name) for name in ("effects.json", "events.jsonl"))
    assert effects[0]["detail"] == {"account": ACCOUNT, "amount_cents": 5}  # type: ignore[index, call-overload]
    assert [event["kind"] for event in events] == ["call", "result"]  # type: ignore[index, call-overload, union-attr]
    assert {state.state for state in inspect(tmp_path / "frozen", digest)} == {"whole"}
    index = Frozen.model_validate_json(Blobs(str(tmp_path / "frozen")).get(digest))
    assert index.release == plant.bad.fingerprint and index.absent == {"bundle.zip": "no store was given"}


def test_reading_the_ledger_does_not_touch_it(tmp_path: Path, run: tuple[Path, Path]) -> None:
    before = {file.name: file.read_bytes() for file in tmp_path.glob("effects.db*")}
    _frozen(tmp_path / "frozen", run)
    assert {file.name: file.read_bytes() for file in tmp_path.glob("effects.db*")} == before


def test_sensitive_values_stand_only_in_their_openings_and_go_with_them(tmp_path: Path, run: tuple[Path, Path]) -> None:
    folder = tmp_path / "frozen"
    digest = _frozen(folder, run)
    index = Frozen.model_validate_json(Blobs(str(folder)).get(digest))
    members = {member.name: member for member in index.members}
    for name in ("effects.json", "events.jsonl"):
        assert ACCOUNT.encode() not in Blobs(str(folder)).get(members[name].content)
        for opening in members[name].openings:
            assert erase(folder, opening) and not erase(folder, opening)
    assert not any(ACCOUNT.encode() in file.read_bytes() for file in folder.rglob("*") if file.is_file())
    states = {state.name: (state.state, state.n_erased) for state in inspect(folder, digest)}
    assert states["effects.json"] == ("fields-erased", 1) and states["case.json"] == ("whole", 0)
    (effect,) = thaw(folder, digest, "effects.json")  # type: ignore[misc, union-attr]
    assert set(effect["detail"]) == {"$commitment"} and effect["key"] == "inv-1"  # type: ignore[index, call-overload, arg-type]


def test_a_commitment_cannot_be_guessed(tmp_path: Path, run: tuple[Path, Path]) -> None:
    """The same value has another commitment each time: a list of likely values does not find it."""
    indexes = [
        Frozen.model_validate_json(Blobs(str(folder)).get(_frozen(folder, run))) for folder in (tmp_path / "a", tmp_path / "b")
    ]
    effects = [next(m for m in index.members if m.name == "effects.json") for index in indexes]
    assert effects[0].openings != effects[1].openings and effects[0].content != effects[1].content
    assert next(m for m in indexes[0].members if m.name == "manifest.json").content in {m.content for m in indexes[1].members}


def test_the_whole_store_is_frozen_as_a_bundle_that_verifies(store: Store, tmp_path: Path) -> None:
    store.add(planted("tool").bad.manifest)
    digest = freeze(tmp_path / "frozen", planted("tool").bad.manifest, store=store)
    member = Frozen.model_validate_json(Blobs(str(tmp_path / "frozen")).get(digest)).members[0]
    (tmp_path / "bundle.zip").write_bytes(Blobs(str(tmp_path / "frozen")).get(member.content))
    assert member.name == "bundle.zip" and verify(tmp_path / "bundle.zip").ok


def test_an_empty_store_is_not_bundled(store: Store, tmp_path: Path) -> None:
    digest = freeze(tmp_path / "frozen", planted("tool").bad.manifest, store=store)
    assert Frozen.model_validate_json(Blobs(str(tmp_path / "frozen")).get(digest)).absent["bundle.zip"] == "the store was empty"
    with pytest.raises(UsageError, match="the store was empty"):
        thaw(tmp_path / "frozen", digest, "bundle.zip")


def test_changed_and_missing_files_are_told_apart(tmp_path: Path, run: tuple[Path, Path]) -> None:
    folder = tmp_path / "frozen"
    digest = _frozen(folder, run)
    members = {m.name: m for m in Frozen.model_validate_json(Blobs(str(folder)).get(digest)).members}
    (folder / blob_path(members["effects.json"].content)).write_bytes(b"[]")
    erase(folder, members["events.jsonl"].content)
    states = {state.name: state.state for state in inspect(folder, digest)}
    assert (states["effects.json"], states["events.jsonl"], states["manifest.json"]) == ("damaged", "erased", "whole")
    with pytest.raises(EvidenceInvalid):
        thaw(folder, digest, "effects.json")
    (folder / blob_path(digest)).write_bytes(b"{}")
    with pytest.raises(EvidenceInvalid):
        inspect(folder, digest)
    with pytest.raises(StoreError):
        inspect(tmp_path / "elsewhere", digest)


def test_a_case_whose_stimuli_were_erased_cannot_be_replayed(tmp_path: Path, run: tuple[Path, Path]) -> None:
    folder = tmp_path / "frozen"
    digest = _frozen(folder, run)
    case = next(m for m in Frozen.model_validate_json(Blobs(str(folder)).get(digest)).members if m.name == "case.json")
    for opening in case.openings:
        erase(folder, opening)
    with pytest.raises(PlanError, match=r"case\.json"):
        thaw_case(folder, digest)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    release, folder = planted("tool").bad.manifest, tmp_path / "frozen"
    (tmp_path / "notes.txt").write_text("not a stream\n" * 200)
    with pytest.raises(UsageError, match="no such file"):
        freeze(folder, release, effects=tmp_path / "none.db")
    with pytest.raises(DataError, match="effect ledger"):
        freeze(folder, release, effects=tmp_path / "notes.txt")
    with pytest.raises(UsageError, match="line 1"):
        freeze(folder, release, events=tmp_path / "notes.txt")
    (tmp_path / "other.jsonl").write_text(json.dumps({"kind": "call"}) + "\n")
    with pytest.raises(UsageError, match="line 1"):
        freeze(folder, release, events=tmp_path / "other.jsonl")
