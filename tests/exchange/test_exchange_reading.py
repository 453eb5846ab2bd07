"""Reading is bounded and fails with one clear error: damaged, oversized, lying and malformed files."""

import json
import re
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_examples import LM_EVAL, PROMPTFOO, SUBJECT, garak_entries, inspect_log, write_eval, write_json, write_jsonl

from auditgap.errors import DataError
from auditgap.exchange import Limits, read_log, result_of
from auditgap.exchange.reading import when


def refused(path: Path, match: str, limits: Limits | None = None) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read_log(path, limits=limits)
    assert str(path) in str(caught.value) and caught.value.exit_code == 2


def never_inflates(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> bytes:
        raise AssertionError("inflated something")

    monkeypatch.setattr(zipfile.ZipExtFile, "read", read)


def test_a_zip_bomb_is_refused_before_anything_is_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_eval(tmp_path / "a.eval", inspect_log([["C"]]))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples/9_epoch_1.json", b"0" * (8 << 20))
    never_inflates(monkeypatch)
    refused(path, r"expected to inflate at most 500-fold, declared is 1,0\d\d-fold: a decompression bomb")


@pytest.mark.parametrize(
    ("limits", "match"),
    [
        (Limits(archive_entries=2), "at most 2 entries, got 4"),
        (Limits(archive_bytes=300), "at most 300 bytes inflated, declared are"),
        (Limits(document_bytes=100), "at most 100 bytes, declared are"),
    ],
)
def test_an_archive_beyond_a_limit_is_refused_from_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits, match: str
) -> None:
    path = write_eval(tmp_path / "a.eval", inspect_log([["C"], ["I"], ["C"]]))
    never_inflates(monkeypatch)
    refused(path, match, limits)


@settings(max_examples=60, deadline=None)
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_an_archive_with_changed_bytes_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[float, int]]
) -> None:
    path = write_eval(tmp_path_factory.mktemp("changed") / "a.eval", inspect_log([["C"], ["I"]]))
    data = bytearray(path.read_bytes())
    for place, byte in changes:
        data[int(place * len(data))] = byte
    path.write_bytes(data)
    try:
        assert read_log(path)
    except DataError as error:
        assert str(path) in str(error)


def test_an_entry_larger_than_it_declares_is_refused(tmp_path: Path) -> None:
    path = write_eval(tmp_path / "a.eval", inspect_log([["C"] * 3]))
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("header.json").file_size
    data = path.read_bytes()
    assert data.count(struct.pack("<L", size)) == 2, "local header and directory"
    path.write_bytes(data.replace(struct.pack("<L", size), struct.pack("<L", size - 50)))
    refused(path, "header.json: expected a whole entry, got a damaged one")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["a.eval", "a.json", "results.json", "promptfoo.json"])
def test_a_truncated_log_is_refused(tmp_path: Path, name: str, keep: float) -> None:
    path = tmp_path / name
    if name == "a.eval":
        write_eval(path, inspect_log([["C"]] * 9))
    elif name == "a.json":
        write_json(path, inspect_log([["C"]] * 9))
    else:
        path.write_bytes((LM_EVAL if name == "results.json" else PROMPTFOO).read_bytes().rstrip())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    refused(path, "get a (fresh|whole) copy")


def test_a_truncated_report_names_its_last_line(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "r.jsonl", garak_entries([[0.0]] * 4))
    path.write_bytes(path.read_bytes()[:-9])
    refused(path, "line 8: expected JSON, .* get a whole copy")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "expected JSON"),
        (b"\xff\xfe{}", "expected UTF-8, got byte 0xff at position 0"),
        (b"[1, 2]", r"expected an object, got \[1, 2\]"),
        (b"not a log", "expected JSON"),
        (b'{"a": 1, "a": 2}', "the key 'a' twice in one object"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "expected JSON, got Exceeds"),
        (b'{"name": "x"}', "expected an Inspect AI log .* got JSON with the fields name"),
        (b"PK\x03\x04 and nothing", "expected a whole zip archive, got a damaged one"),
        (b"PK\x05\x06" + b"\0" * 18, "header.json is missing: .*inspect log recover"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path: Path, data: bytes, match: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    refused(path, match)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.json", "cannot read .*No such file")
    refused(tmp_path, "cannot read .*directory")


def test_lines_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "r.jsonl", garak_entries([[0.0]] * 3000))
    limits = Limits(document_bytes=1000, line_bytes=400)
    assert path.stat().st_size > 100 * limits.document_bytes
    assert len(read_log(path, limits=limits)[0].metrics[0].values) == 3000
    entries = garak_entries([[0.0]] * 3)
    entries[3]["goal"] = "x" * 500
    refused(write_jsonl(path, entries), "line 4: expected at most 400 bytes", limits)


def test_a_document_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    refused(
        write_json(tmp_path / "a.json", inspect_log([["C"]] * 9)),
        "expected at most 500 bytes of JSON",
        Limits(document_bytes=500),
    )


def test_another_compression_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.eval", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("header.json", "{}")
    refused(tmp_path / "a.eval", "compressed by deflate or Zstandard, got method 12")


def test_zstandard_is_read_or_its_package_is_named(tmp_path: Path) -> None:
    path = write_eval(tmp_path / "a.eval", inspect_log([["C"]]))
    data = path.read_bytes()
    method = re.compile(rb"(PK\x03\x04.{4}|PK\x01\x02.{6})\x08\x00", re.DOTALL)
    path.write_bytes(method.sub(lambda found: found[1] + b"\x5d\x00", data))  # deflated bytes that claim to be Zstandard
    refused(path, r"pip install zipfile-zstd|got a damaged one")


def test_text_that_could_steer_a_terminal_is_refused(tmp_path: Path) -> None:
    refused(write_json(tmp_path / "a.json", inspect_log([["C"]], model="\x1b[2Jgood")), "eval.model: expected one line of text")


@pytest.mark.parametrize(
    "document", [inspect_log([["C"], ["I"]]), json.loads(PROMPTFOO.read_text()), json.loads(LM_EVAL.read_text())]
)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_replaced_field_is_read_or_refused_and_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, document: dict, data: st.DataObject
) -> None:
    copy = json.loads(json.dumps(document))
    node: object = copy
    for _ in range(data.draw(st.integers(1, 5))):
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        parent, node = node, node[key]  # type: ignore[index]
    junk = st.sampled_from([None, True, -1, 1e308, float("nan"), float("inf"), 10**30, "", "x\ny", [], {}, [[]], {"a": None}])
    parent[key] = data.draw(junk)  # type: ignore[index]
    path = write_json(tmp_path_factory.mktemp("junk") / "a.json", copy)
    try:
        for log in read_log(path):
            assert result_of(log, SUBJECT).measurements
    except DataError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-01-05T10:00:00", "2026-01-05T10:00:00+00:00"),
        ("2026-01-05T10:00:00-05:00", "2026-01-05T15:00:00+00:00"),
        ("2026-01-05T10:00:00.123Z", "2026-01-05T10:00:00+00:00"),
        (0, "1970-01-01T00:00:00+00:00"),
    ],
)
def test_times_become_utc_to_the_second(written: object, expected: str) -> None:
    found = when(written, "x")
    assert found is not None and found.isoformat() == expected


@pytest.mark.parametrize("written", ["yesterday", 1e290, [], "0001-01-01T00:00:00+14:00", "0900-01-01"])
def test_what_is_no_time_is_refused(written: object) -> None:
    with pytest.raises(DataError, match="expected a"):
        when(written, "x")
