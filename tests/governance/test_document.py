"""Strict YAML: one meaning, or a message that says where."""

from pathlib import Path

import pytest
from pydantic import Field

from auditgap.errors import PlanError
from auditgap.governance import by_id, parse, read
from auditgap.records import Access, Axis, Date, Pin, Record


class Item(Record):
    id: str
    required: Access = Access()
    pins: dict[Axis, Pin] = Field(default_factory=dict)


class File(Record):
    review_date: Date
    items: tuple[Item, ...]


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "table.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_good_file_becomes_a_record(write):
    path = write("review_date: 2027-01-31\nitems:\n  - {id: a, required: {model: M4, time: 20}}\n")
    found = parse(path, File)
    assert found.review_date.isoformat() == "2027-01-31"
    assert (found.items[0].required.model.value, found.items[0].required.time) == ("M4", 20)


def test_layout_comments_and_key_order_do_not_matter(write):
    one = parse(write("review_date: 2027-01-31\nitems: [{id: a, required: {time: 20, model: M4}}]\n"), File)
    other = parse(write("# c\nitems:\n- required:\n    model: M4\n    time: 20\n  id: a\nreview_date: 2027-01-31\n"), File)
    assert one == other


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", r"line 2.*'a' is given twice"),
        ("x: {b: 1, b: 2}\n", "'b' is given twice"),
        ("on: 1\n", "expected a text key, got True"),
        ("1.10: x\n", "expected a text key, got 1.1"),
        ("? [a]\n: 1\n", "expected a text key"),
        ("a: &x 1\nb: *x\n", "alias '\\*x' is not allowed"),
        ("a: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("a: [1\n", "line 2"),
        ("a: 1\n---\nb: 2\n", "another document"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(write, text, said):
    with pytest.raises(PlanError, match=said):
        read(write(text))


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(PlanError, match="expected a readable UTF-8 file"):
        read(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="expected a readable UTF-8 file"):
        read(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("review_date: 2027-01-31\nitems: [{id: a, requird: {}}]", r"items\.a\.requird: unknown field - did you mean 'required'"),
        ("review_date: 2027-01-31\nitems: [{id: a, required: {modle: M4}}]", r"items\.a\.required\.modle.*did you mean 'model'"),
        (
            "review_date: 2027-01-31\nitems: [{id: a, pins: {model: {source: s, paragraph: p, reeding: explicit}}}]",
            r"items\.a\.pins\.model\.reeding: unknown field - did you mean 'reading'",
        ),
        ("review_date: 2027-01-31\nitems: [{id: a, required: {model: M9}}]", r"items\.a\.required\.model.*'M9'"),
        ("review_date: 2027-01-31\nitems: [{id: 3.10}]", r"items\.3\.1\.id: .*string.*got 3\.1"),
        ("items: []", "review_date: this field is required"),
        ("- a\n- b\n", "expected a mapping with the fields review_date, items, got list"),
        ("", "expected a mapping"),
    ],
)
def test_a_complaint_names_file_item_field_and_nearest_name(write, text, said):
    with pytest.raises(PlanError, match=said) as caught:
        parse(write(text), File)
    assert "table.yaml" in str(caught.value)


def test_an_id_used_twice_is_refused():
    with pytest.raises(PlanError, match="id 'a' is used twice"):
        by_id(Path("f.yaml"), [Item(id="a"), Item(id="a")])
