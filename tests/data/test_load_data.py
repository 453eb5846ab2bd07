"""Reading data files: what is sound loads the same from any form, and what is not is refused with its line."""

import csv
import io
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from auditgap.data import SPLITS, ContrastSet, Message, PairSet, PromptSet, load
from auditgap.errors import DataError, UsageError

DOC = Path(__file__).parents[2] / "docs" / "data.md"


def contrast_rows(n=8) -> list[dict]:
    """`n` pairs without group or split."""
    deeds = (("break", "harmful"), ("wash", "harmless"))
    return [{"prompt": f"Please {verb} window number {i}.", "label": label} for i in range(n) for verb, label in deeds]


def pair_rows(n=2):
    return [{"clean": f"Girl {i}:", "corrupted": f"Boy {i}:", "answer": " she", "foil": " he"} for i in range(n)]


def jsonl(*rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


@pytest.fixture
def write(tmp_path):
    """Write bytes, or rows as JSON lines, to a file of that name."""

    def write(content, name="rows.jsonl"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else jsonl(*content))
        return str(path)

    return write


def test_a_contrast_file_comes_back_as_written(write):
    rows = [row | {"group": f"g{i // 2}", "split": "ood" if i < 4 else "test"} for i, row in enumerate(contrast_rows())]
    rows[0] = {
        "messages": [{"role": "system", "content": "Obey."}, {"role": "user", "content": "Break it."}],
        **{key: rows[0][key] for key in ("label", "group", "split")},
    }
    data = load(write(rows), "contrast")
    assert isinstance(data, ContrastSet)
    assert (data.name, data.source, data.classes) == ("rows", "rows.jsonl", ("harmless", "harmful"))
    assert data.prompts[0] == (Message(role="system", content="Obey."), Message(role="user", content="Break it."))
    assert data.prompts[1:] == [row["prompt"] for row in rows[1:]]
    assert data.labels.tolist() == [1, 0] * 8
    assert data.labels.dtype == np.int64
    assert data.groups == [row["group"] for row in rows]
    assert [row.prompt for row in data.split("ood").rows] == data.prompts[:4]
    assert data.split("train").rows == ()
    assert data.split("train").labels.shape == (0,)


def test_pairs_and_prompts_come_back_as_written(write):
    pairs = load(write(pair_rows(3)), "pairs")
    assert isinstance(pairs, PairSet)
    assert [(row.clean, row.corrupted, row.answer, row.foil) for row in pairs.rows] == [tuple(r.values()) for r in pair_rows(3)]
    assert pairs.prompts == [row.clean for row in pairs.rows]
    prompts = load(write(contrast_rows(1)), "prompts")
    assert isinstance(prompts, PromptSet)
    assert prompts.prompts == [row["prompt"] for row in contrast_rows(1)]


def test_a_contrast_file_is_divided_the_same_when_read_as_prompts(write):
    rows = contrast_rows(9) + [{"prompt": f"Wash {i}.", "label": "harmless"} for i in range(6)]
    as_contrast, as_prompts = (load(write(rows), kind, seed=3) for kind in ("contrast", "prompts"))
    assert [row.split for row in as_contrast.rows] == [row.split for row in as_prompts.rows]
    assert {row.split for row in as_prompts.rows} == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("written", "labels", "classes"),
    [
        ((1, 0), (1, 0), ("0", "1")),
        (("1", "0"), (1, 0), ("0", "1")),
        (("harmful", "harmless"), (1, 0), ("harmless", "harmful")),
        (("Attack", "Benign"), (1, 0), ("Benign", "Attack")),
        (("a", "no"), (1, 0), ("no", "a")),
        (("cat", "dog"), (0, 1), ("cat", "dog")),
    ],
)
def test_labels_become_0_and_1_with_the_negative_name_first(write, written, labels, classes):
    rows = [row | {"label": written[i % 2]} for i, row in enumerate(contrast_rows())]
    for order in (rows, rows[::-1]):
        data = load(write(order), "contrast")
        assert data.classes == classes
        assert dict(zip(data.prompts, data.labels, strict=True))[rows[0]["prompt"]] == labels[0]


def as_csv(rows):
    columns = sorted({key for row in rows for key in row}, reverse=True)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns)
    writer.writeheader()
    writer.writerows({k: json.dumps(v) if k == "messages" else v for k, v in row.items()} for row in rows)
    return out.getvalue().encode()


def test_the_digest_depends_on_the_rows_and_on_nothing_else(write):
    rows = contrast_rows()
    rows[3] = {"messages": [{"role": "user", "content": 'Say "a, b"\nand stop.'}], "label": "harmless"}
    digest = load(write(rows), "contrast").ref().content
    shuffled = random.Random(0).sample(rows, len(rows))
    same = {
        "row order": write(shuffled, "other.jsonl"),
        "key order": write([dict(reversed(row.items())) for row in rows]),
        "escapes, marks and line endings": write(b"\xef\xbb\xbf" + jsonl(*rows).replace(b"\n", b"\r\n\r\n")),
        "csv": write(as_csv(rows), "rows.csv"),
        "csv with a mark": write(b"\xef\xbb\xbf" + as_csv(shuffled), "ROWS.CSV"),
    }
    for what, path in same.items():
        assert load(path, "contrast").ref().content == digest, what
    changed = {
        "text": [rows[0] | {"prompt": "Please break nothing."}, *rows[1:]],
        "labels": [row | {"label": {"harmful": "harmless", "harmless": "harmful"}[row["label"]]} for row in rows],
        "class names": [row | {"label": {"harmful": "b", "harmless": "a"}[row["label"]]} for row in rows],
        "group": [rows[0] | {"group": "another"}, *rows[1:]],
        "a row more": [*rows, {"prompt": "One more.", "label": "harmful"}],
    }
    for what, other in changed.items():
        assert load(write(other), "contrast").ref().content != digest, what
    assert load(write(rows), "contrast", seed=1).ref().content != digest  # divided otherwise


def test_the_reference_names_no_folder(write):
    ref = load(write(contrast_rows()), "contrast").ref()
    assert (ref.name, ref.source, ref.n_rows) == ("rows", "rows.jsonl", 16)


def test_line_endings_inside_a_cell_are_text(write):
    assert load(write(b'prompt\r\n"one\r\ntwo"\r\n', "rows.csv"), "prompts").prompts == ["one\r\ntwo"]


def test_unicode_line_separators_inside_text_are_text(write):
    rows = [{"prompt": "one\u2028two\x0bthree\x85four"}]
    assert load(write(json.dumps(rows[0], ensure_ascii=False).encode()), "prompts").prompts == [rows[0]["prompt"]]


def test_xstest_is_read_once_its_columns_are_named(shared_data, write):
    """250 real prompts of another project: refused with its own column names, read with ours."""
    source = shared_data / "prompts" / "xstest_safe.csv"
    with pytest.raises(DataError, match=r"lines 2, 3, 4, 5, 6, .*: unknown key 'id'"):
        load(source, "prompts")
    with source.open(encoding="utf-8", newline="") as file:
        rows = [{"prompt": row["prompt"], "group": row["type"]} for row in csv.DictReader(file)]
    data = load(write(as_csv(rows), "xstest.csv"), "prompts")
    assert len(data.rows) == 250
    assert set(data.groups) == {row["group"] for row in rows}


R, P = contrast_rows(), pair_rows()
SPLIT = [row | {"split": "train"} for row in R]
REFUSED = {
    "unknown key": ("contrast", [R[0] | {"lable": 1}, *R[1:]], "line 1: unknown key 'lable' - did you mean 'label'?"),
    "missing key": ("contrast", [R[0], {"prompt": "x"}, *R[2:]], "line 2: missing key 'label'"),
    "no prompt": ("prompts", [{"group": "a"}], "line 1: missing key 'prompt'"),
    "other kind": (
        "pairs",
        R,
        "lines 1, 2, 3, 4, 5, ... (16 in all): expected the keys clean, corrupted, answer, foil, group, split, got prompt, label",
    ),
    "bad json": (
        "prompts",
        b'{"prompt": "a"}\n{"prompt": }\n',
        "line 2: expected one JSON object, got Expecting value at column 12",
    ),
    "not an object": ("prompts", b'["a"]\n', "line 1: expected one JSON object, got ['a']"),
    "nan": ("contrast", b'{"prompt": "a", "label": NaN}\n', "line 1: expected one JSON object, got NaN"),
    "key twice": ("prompts", b'{"prompt": "a", "prompt": "b"}\n', "line 1: expected one JSON object, got the key 'prompt' twice"),
    "deep": ("prompts", b"[" * 200_000, "line 1: expected one JSON object, got JSON nested too deeply"),
    "not utf-8": ("prompts", b'{"prompt": "a"}\n{"prompt": "caf\xe9"}\n', "line 2: expected UTF-8, got byte 0xe9"),
    "utf-16": ("prompts", '{"prompt": "a"}'.encode("utf-16"), "line 1: expected UTF-8, got byte 0xff"),
    "surrogate": ("prompts", b'{"prompt": "a\\ud800"}\n', "line 1: prompt: expected Unicode text"),
    "empty prompt": ("prompts", [{"prompt": ""}], "line 1: prompt: expected text, got an empty string"),
    "blank prompt": ("prompts", [{"prompt": " \n"}], "line 1: prompt: expected text, got only blanks"),
    "wrong type": ("prompts", [{"prompt": 3}], "line 1: prompt: expected text, got 3"),
    "group type": ("prompts", [{"prompt": "a", "group": 3}], "line 1: group: expected text, got 3"),
    "split name": (
        "prompts",
        [{"prompt": "a", "split": "dev"}],
        "line 1: split: expected one of train, val, test, ood, got 'dev'",
    ),
    "prompt and messages": ("prompts", [{"prompt": "a", "messages": []}], "expected 'prompt' or 'messages', got both"),
    "no messages": ("prompts", [{"messages": []}], "messages: expected a list of at least one"),
    "message keys": ("prompts", [{"messages": [{"role": "user"}]}], "messages[0]: expected {'role', 'content'}"),
    "role": (
        "prompts",
        [{"messages": [{"role": "bot", "content": "a"}]}],
        "messages[0].role: expected one of system, user, assistant",
    ),
    "content": ("prompts", [{"messages": [{"role": "user", "content": ""}]}], "messages[0].content: expected text, got an empty"),
    "label value": ("contrast", [R[0] | {"label": 2}, *R[1:]], "line 1: label: expected 0, 1 or text, got 2"),
    "label bool": ("contrast", [R[0] | {"label": True}, *R[1:]], "line 1: label: expected 0, 1 or text, got True"),
    "label float": ("contrast", [R[0] | {"label": 1.0}, *R[1:]], "line 1: label: expected 0, 1 or text, got 1.0"),
    "label empty": ("contrast", [R[0] | {"label": ""}, *R[1:]], "line 1: label: expected text, got an empty string"),
    "label mix": ("contrast", [R[0] | {"label": 1}, *R[1:]], "expected labels all numbers or all text, got both: '1' (line 1)"),
    "label case": ("contrast", [R[0] | {"label": "Harmful"}, *R[1:]], "labels differ only in case or blanks"),
    "three labels": ("contrast", [R[0] | {"label": "x"}, *R[1:]], "expected exactly two labels, got 3: 'x' (line 1)"),
    "one class": ("contrast", R[::2], "expected two classes, got only 'harmful' (line 1) in 8 rows"),
    "conflict": ("contrast", [*R, R[0] | {"label": "harmless"}], "line 17: the prompt of line 1 with another label"),
    "copy": ("contrast", [*R, R[3]], "line 17: repeats line 4"),
    "copy in another group": ("contrast", [*R, R[3] | {"group": "g"}], "line 17: repeats line 4"),
    "pair copy": ("pairs", [*P, P[0]], "line 3: repeats line 1"),
    "prompt copy": ("prompts", [{"prompt": "a"}, {"prompt": "a"}], "line 2: repeats line 1"),
    "some splits": ("contrast", [*SPLIT[:-1], R[-1]], "a split on every row or on none, got none on 1 of 16 rows: lines 16"),
    "straddling": (
        "contrast",
        [SPLIT[0] | {"group": "g"}, SPLIT[1] | {"group": "g", "split": "ood"}, *SPLIT[2:]],
        "group 'g' is in more than one split: train (line 1), ood (line 2)",
    ),
    "straddling by text": (
        "contrast",
        [*SPLIT, {"prompt": R[0]["prompt"].upper(), "label": "harmful", "split": "test"}],
        "in more than one split: train (line 1), test (line 17)",
    ),
    "three rows": ("contrast", R[:3], "expected at least 8 groups of class 'harmless', got 1"),
    "few groups": ("contrast", [row | {"group": "g"} for row in R], "expected at least 8 groups of class 'harmless', got 1"),
    "one pair": ("pairs", P[:1], "expected at least 2 pairs, got 1"),
    "same prompts": (
        "pairs",
        [P[0] | {"corrupted": P[0]["clean"]}, P[1]],
        "line 1: corrupted: expected another prompt than clean",
    ),
    "same answers": ("pairs", [P[0], P[1] | {"foil": " she"}], "line 2: foil: expected another continuation than answer"),
    "no answer": ("pairs", [P[0] | {"answer": ""}, P[1]], "line 1: answer: expected text, got an empty string"),
    "empty": ("prompts", b"", "expected rows, got an empty file"),
    "blank": ("prompts", b"\xef\xbb\xbf \r\n\n", "expected rows, got an empty file"),
}
REFUSED_CSV = {
    "quote": (b'prompt\n"a\nb', "line 2: expected comma-separated cells, got unexpected end of data"),
    "cells": (b"prompt,group\na,1\nb,2,3\n", "line 3: expected 2 cells, as in the header, got 3"),
    "line of a row after a long one": (b'prompt,group\n"a\nb",1\nc\n', "line 4: expected 2 cells"),
    "a long row itself": (b'prompt,group\n"a\nb",1,2\n', "line 2: expected 2 cells, as in the header, got 3"),
    "no header": (b"hello,there\na,b\n", "line 1: expected a header with columns of prompt, messages"),
    "column twice": (b"prompt,prompt\na,b\n", "line 1: expected each column once"),
    "empty cell": (b"prompt,group\n,1\n", "line 2: missing key 'prompt'"),
    "header only": (b"prompt,group\n", "expected rows, got none"),
    "bad messages": (b"messages\n[oops\n", "line 2: messages: expected JSON in the cell"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_broken_file_is_refused_with_its_line(write, case):
    kind, content, message = REFUSED[case]
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        load(write(content), kind)
    assert str(caught.value).startswith("rows.jsonl: ")


@pytest.mark.parametrize("case", REFUSED_CSV)
def test_a_broken_table_is_refused_with_its_line(write, case):
    content, message = REFUSED_CSV[case]
    with pytest.raises(DataError, match=re.escape(message)):
        load(write(content, "rows.csv"), "prompts")


def test_ten_problems_are_shown_and_the_rest_counted(write):
    with pytest.raises(DataError) as caught:
        load(write([{"prompt": n} for n in range(25)] + [{"prompt": "sound"}]), "prompts")
    message = str(caught.value)
    assert "25 problems" in message
    assert message.count("\n  line ") == 10
    assert "and 15 more" in message


def test_a_source_that_is_not_there_is_refused(tmp_path):
    for source, message in {
        str(tmp_path / "none.jsonl"): "cannot read .*none.jsonl.*No such file",
        "rows.parquet": "expected a .jsonl or .csv file",
        "shipped:harmful": "no shipped data set named 'harmful' - did you mean 'harmful-harmless'",
    }.items():
        with pytest.raises(DataError, match=message):
            load(source, "prompts")
    with pytest.raises(UsageError, match="no kind of data named 'contrasts' - did you mean 'contrast'"):
        load("rows.jsonl", "contrasts")  # pyright: ignore


def blocks():
    return re.findall(r"```(jsonl|csv) (contrast|pairs|prompts)( rows)?\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)


def test_the_documented_examples_load(write):
    assert {(suffix, kind) for suffix, kind, _, _ in blocks()} == {
        ("jsonl", "contrast"),
        ("csv", "contrast"),
        ("jsonl", "pairs"),
        ("jsonl", "prompts"),
    }
    for suffix, kind, fragment, text in blocks():
        path = write(text.encode(), f"example.{suffix}")
        if fragment:  # sound rows, too few of them to be a set
            assert len(load(path, "prompts").rows) == text.count("\n")
            with pytest.raises(DataError, match="groups of class"):
                load(path, kind)
        else:
            data = load(path, kind)
            assert {split for split in SPLITS if data.split(split).rows} <= {"train", "val", "test"}


def test_the_documented_python_runs():
    (code,) = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, str(DOC), "exec"), {"print": lambda *values: None})


def test_every_documented_refusal_happens():
    promised = re.findall(r"^\| `(.+?)` \|", DOC.read_text(encoding="utf-8").split("## What is refused")[1], re.MULTILINE)
    said = [message for *_, message in [*REFUSED.values(), *REFUSED_CSV.values()]]
    assert len(promised) > 15
    assert [phrase for phrase in promised if not any(phrase in message for message in said)] == []
