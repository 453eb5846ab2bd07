"""Rows that say which data set they come from: read from either format, pinned by the digest, absent where nobody named one."""

import json

import pytest

from auditgap.data import ContrastRow, load
from auditgap.errors import DataError


def rows(**extra: str) -> list[dict]:
    return [{"prompt": f"{word} {i}", "label": label, **extra} for i in range(8) for label, word in enumerate(("wash", "break"))]


@pytest.fixture
def write(tmp_path):
    def write(content: str, name: str = "rows.jsonl") -> str:
        (tmp_path / name).write_text(content)
        return str(tmp_path / name)

    return write


def lines(items: list[dict]) -> str:
    return "".join(f"{json.dumps(item)}\n" for item in items)


def test_the_name_comes_back_from_either_format(write):
    joined = [*rows(dataset="stories"), *({**row, "prompt": f"new {row['prompt']}"} for row in rows(dataset="Chat 2"))]
    data = load(write(lines(joined)), "contrast")
    assert data.datasets == ["Chat 2", "stories"]
    assert [row.dataset for row in data.rows] == [row["dataset"] for row in joined]
    cells = "\n".join(f"{row['prompt']},{row['label']},{row['dataset']}" for row in joined)
    assert load(write(f"prompt,label,dataset\n{cells}\n", "rows.csv"), "contrast").ref().content == data.ref().content


def test_without_a_name_the_digest_is_what_it_was_before_there_were_names():
    """Taken with auditgap 0.1.0 before the field existed; a signed registration pins it, so it may never move."""
    shipped = load("shipped:harmful-harmless", "contrast")
    assert shipped.ref().content == "sha256:dc01960cc382acdb157d7dc66ba95f3a9ba1a78071cb926166dde951ec4164eb"
    assert shipped.datasets == []
    row = ContrastRow(prompt="p", label=0, group="g", split="test")
    assert row.dataset is None
    assert b"dataset" not in row.canonical()


def test_another_name_is_another_digest(write):
    digests = {load(write(lines(rows(**extra))), "contrast").ref().content for extra in ({}, {"dataset": "a"}, {"dataset": "b"})}
    assert len(digests) == 3


def test_prompts_ignore_the_name(write):
    assert load(write(lines(rows(dataset="a"))), "prompts").ref() == load(write(lines(rows())), "prompts").ref()


@pytest.mark.parametrize(("value", "got"), [(3, "got 3"), ("", "got an empty string"), (" ", "got only blanks")])
def test_a_name_that_is_no_text_is_refused(write, value, got):
    with pytest.raises(DataError, match=f"line 1: dataset: expected text, {got}"):
        load(write(lines([{**rows()[0], "dataset": value}, *rows()[1:]])), "contrast")


def test_pairs_have_no_data_set(write):
    row = {"clean": "a", "corrupted": "b", "answer": " c", "foil": " d", "dataset": "x"}
    with pytest.raises(DataError, match="unknown key 'dataset'"):
        load(write(lines([row])), "pairs")
