"""`auditgap monitor fit` and `score`, as a user calls them."""

import json

import pytest
from click.testing import CliRunner

from auditgap.cli.monitor import command
from auditgap.errors import CannotMeasure


@pytest.fixture(scope="module")
def files(tmp_path_factory, model):
    """A contrast set whose classes end in other words, ordinary traffic, and the model's folder."""
    folder = tmp_path_factory.mktemp("files")
    model.hf.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    words = "abcdefghijklmnopqrstuvwxyz"
    pairs = [f"{x} {y}" for x in words for y in words]
    rows = [
        {"prompt": f"{p} {end}", "label": label, "group": p} for p in pairs[:120] for end, label in (("a", "plain"), ("z", "zed"))
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ordinary = [f"{p} {x} a" for p in pairs[120:620] for x in "bcdef"]
    (folder / "traffic.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in ordinary))
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"{p} {e}"}) + "\n" for p in pairs[-3:] for e in "az"))
    return folder


def _run(*arguments: object):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=True)


def test_fit_then_score(files, other):
    out = files / "monitor"
    made = _run(
        "fit",
        files / "model",
        "--data",
        files / "data.jsonl",
        "--traffic",
        files / "traffic.jsonl",
        "--out",
        out,
        "--layers",
        "1,2",
    )
    assert made.exit_code == 0, made.output
    assert "watches for: zed" in made.output and "1.00%" in made.output and "AUROC on test" in made.output
    scored = _run(
        "score", files / "model", "--monitor", out, "--prompts", files / "prompts.jsonl", "--max-new-tokens", 3, "--json"
    )
    rows = json.loads(scored.output)
    assert [row["flagged"] for row in rows] == [False, True] * 3 and all(row["coverage"] == 1.0 for row in rows)
    shown = _run("score", files / "model", "--monitor", out, "--prompts", files / "prompts.jsonl")
    assert "before the reply" in shown.output and "flagged 3 of 6" in shown.output
    other.hf.save_pretrained(files / "other")
    other.tokenizer.save_pretrained(files / "other")
    refused = _run("score", files / "other", "--monitor", out, "--prompts", files / "prompts.jsonl")
    assert isinstance(refused.exception, CannotMeasure) and refused.exception.exit_code == 3
    passed = _run(
        "score", files / "other", "--monitor", out, "--prompts", files / "prompts.jsonl", "--when-down", "pass", "--json"
    )
    assert all(row["score"] is None and row["coverage"] == 0.0 for row in json.loads(passed.output))


def test_bad_options_are_refused(files):
    assert (
        "expected layers as"
        in _run("fit", files / "model", "--data", files / "data.jsonl", "--out", files / "x", "--layers", "a").output
    )
    assert (
        _run("score", files / "model", "--monitor", files / "none", "--prompts", files / "prompts.jsonl").exception.exit_code == 2
    )
