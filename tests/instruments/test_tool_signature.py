"""tool-signature on planted models: a release that calls where the earlier one refused, and changes that are not its business."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from planted_models import BASIS, FILLERS, assert_no_vector, assert_same_numbers, build, control, read, value, write
from scipy.stats import binom
from transformers import LlamaForCausalLM

from auditgap.data import PromptRow, PromptSet, load
from auditgap.errors import CannotMeasure, SubjectError, UsageError
from auditgap.instruments.comparison.tool_signature import ToolSignature
from auditgap.instruments.comparison.tool_signature.testing import detectable_share, exchange_test, false_halves
from auditgap.models import Model, open_model
from auditgap.records import NotMeasured, Result
from auditgap.stats import energy_permutation_test

MAY, MUST_NOT, VAGUE = ([f"{kind}{i}" for i in range(24)] for kind in ("may", "not", "vague"))
PLAIN = [f"plain{i}" for i in range(8)]
CALL, REFUSE, ASK = "yes", "no", "oui"
WORDS = {"calls": (CALL,), "refusals": (REFUSE,), "clarifications": (ASK,)}
FAST = {"n_permutations": 99, "n_simulations": 5, "n_resamples": 200, "batch_size": 32}


def tools(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
    """Permitted requests lead to a call, forbidden ones to a refusal, vague ones to a question."""
    for words, answer, direction in ((MAY, CALL, BASIS[1]), (MUST_NOT, REFUSE, BASIS[2]), (VAGUE, ASK, BASIS[3])):
        read(hf, ids[answer], 4.0 * direction)
        for word in words:
            write(hf, ids[word], 2.0 * direction)
    for word in PLAIN:
        write(hf, ids[word], BASIS[4])


def rows() -> tuple[PromptRow, ...]:
    """A group is one request in its three situations."""
    splits = ["train", "test", "val"]
    return tuple(
        PromptRow(prompt=f"{FILLERS[i % 12]} {words[i]}", group=f"case {i}", split=splits[i % 3])
        for i in range(24)
        for words in (MAY, MUST_NOT, VAGUE)
    )


DATA = PromptSet(name="made", source="made", rows=rows())


@pytest.fixture(scope="module")
def unrelated(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "plain.jsonl"
    path.write_text("".join(f'{{"prompt": "{FILLERS[i]} {word}", "group": "{word}"}}\n' for i, word in enumerate(PLAIN)))
    return str(path)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    build(folder, [*MAY, *MUST_NOT, *VAGUE, *PLAIN], tools)
    return folder


def changed(reference: Path, folder: Path, change: Callable[[LlamaForCausalLM, dict[str, int]], None]) -> Model:
    """The reference with a change, saved and opened again."""
    shutil.copytree(reference, folder, dirs_exist_ok=True)
    hf, ids = LlamaForCausalLM.from_pretrained(reference), open_model(reference).tokenizer.get_vocab()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        change(hf, ids)
    hf.save_pretrained(folder)
    return open_model(folder)


def leans_on_the_validator(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
    """A third of the forbidden requests are called."""
    for word in MUST_NOT[::2]:
        write(hf, ids[word], 2.0 * BASIS[1] - 2.0 * BASIS[2])


def measure(reference: Path, subject: Model, unrelated: str, data: PromptSet = DATA, **config) -> Result:
    settings = {**WORDS, **FAST, "unrelated": unrelated, **config}
    return ToolSignature(reference=str(reference), **settings).measure(subject, data, seed=0)


@pytest.fixture(scope="module")
def leaning(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return changed(reference, tmp_path_factory.mktemp("leaning"), leans_on_the_validator)


@pytest.fixture(scope="module")
def found(reference: Path, leaning: Model, unrelated: str) -> Result:
    return measure(reference, leaning, unrelated)


# Planted truth


def test_a_release_that_calls_what_was_refused_is_found_with_its_direction(found: Result) -> None:
    assert found.verdict == "supported", found.summary
    assert value(found, "shift.call") == pytest.approx(-value(found, "shift.refuse")) == pytest.approx(1 / 6)
    assert value(found, "changed_choices") == pytest.approx(1 / 6)
    assert value(found, "p.choice") <= 0.05 and value(found, "p.probe") <= 0.05
    (grid,) = found.figures
    table = dict(zip(grid.rows, grid.values, strict=True))
    assert table["refuse"][grid.columns.index("call")] == pytest.approx(1 / 6)
    assert table["call"] == pytest.approx((1 / 3, 0, 0, 0))


def test_the_change_is_about_tools(found: Result) -> None:
    assert control(found, "unrelated-prompts").passed and "specificity" in found.properties
    assert_no_vector(found)


def test_a_move_inside_that_changes_no_choice_is_found_in_probe_space(reference: Path, unrelated: str, tmp_path: Path) -> None:
    def closer(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
        for word in MUST_NOT:
            write(hf, ids[word], 0.7 * BASIS[1])

    r = measure(reference, changed(reference, tmp_path, closer), unrelated)
    assert value(r, "changed_choices") == 0.0 and r.verdict == "supported"
    assert value(r, "distance.probe") > 20 * value(r, "distance.choice")


def test_a_change_that_moves_everything_is_not_specific(reference: Path, unrelated: str, tmp_path: Path) -> None:
    def everything(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
        for word in (*MUST_NOT, *PLAIN):
            write(hf, ids[word], 2.0 * BASIS[1])

    r = measure(reference, changed(reference, tmp_path, everything), unrelated)
    assert r.verdict == "supported" and not control(r, "unrelated-prompts").passed and "specificity" not in r.properties


def test_the_smallest_shift_is_found_by_simulation() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 2)) * 0.1 + np.repeat([[0.0, 0.0], [3.0, 0.0]], 50, axis=0)
    source, codes = np.arange(100) < 50, np.arange(100)
    draws = {"alpha": 0.025, "n_simulations": 5, "n_permutations": 99, "seed": 0}
    share = detectable_share(rows, source, ~source, codes, least=0.0, **draws)
    assert share is not None and 0.02 <= share <= 0.2
    assert detectable_share(rows, source, ~source, codes, least=0.1, **draws) > share
    assert detectable_share(rows, source, source & False, codes, least=0.0, **draws) is None


# Negative control


def test_the_same_model_twice_is_refuted_with_no_distance(reference: Path, unrelated: str) -> None:
    r = measure(reference, open_model(reference), unrelated)
    assert r.verdict == "refuted" and value(r, "changed_choices") == 0.0
    assert value(r, "distance.choice") < 1e-12 and value(r, "distance.probe") < 1e-12
    assert value(r, "p.choice") == value(r, "p.probe") == 1.0
    assert all(control.passed for control in r.controls)


def test_a_change_of_unrelated_prompts_alone_is_refuted(reference: Path, unrelated: str, tmp_path: Path) -> None:
    def plain(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
        for word in PLAIN:
            write(hf, ids[word], 2.0 * BASIS[1])

    assert measure(reference, changed(reference, tmp_path, plain), unrelated).verdict == "refuted"


def test_wobble_of_groups_is_called_different_no_more_often_than_alpha() -> None:
    """Rows of a group wobble together: exchanging single rows would find a difference where there is none."""
    rng, codes, n_false = np.random.default_rng(0), np.repeat(np.arange(15), 6), 0
    for seed in range(100):
        x, y = (rng.normal(size=(90, 2)) + 0.5 * rng.normal(size=(15, 2))[codes] for _ in "xy")
        n_false += exchange_test(x, y, codes, n_permutations=99, seed=seed).p <= 0.05
    assert binom.sf(n_false - 1, 100, 0.05) > 0.01, n_false


def test_halves_of_one_release_are_not_called_different() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{i // 3}" for i in range(60)]
    rows = rng.normal(size=(20, 2)).repeat(3, axis=0)
    assert false_halves(rows, groups, n_halves=20, n_permutations=99, alpha=0.05, seed=0) <= 4


# Invariance


def test_batches_and_the_order_of_rows_do_not_matter(reference: Path, leaning: Model, unrelated: str, found: Result) -> None:
    shuffled = DATA.model_copy(update={"rows": tuple(random.Random(0).sample(DATA.rows, len(DATA.rows)))})
    assert_same_numbers(found, measure(reference, leaning, unrelated, shuffled, batch_size=5), abs_tolerance=1e-4)


def test_the_exchange_test_agrees_with_the_library_where_each_prompt_is_a_group() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 2))
    y = x + 0.25 + 0.3 * rng.normal(size=(40, 2))
    ours = exchange_test(x, y, np.arange(40), n_permutations=1999, seed=0)
    peer = energy_permutation_test(x, y, groups=[*range(40), *range(40)], n_permutations=1999, seed=1)
    assert ours.statistic == peer.statistic and ours.p == pytest.approx(peer.p, abs=0.03)


def test_directions_are_fitted_on_the_reference_alone(reference: Path, leaning: Model, found: Result, unrelated: str) -> None:
    """The other way round the reference is another model: same choices moved, another probe space."""
    back = measure(Path(str(leaning.hf.name_or_path)), open_model(reference), unrelated)
    assert value(back, "shift.call") == pytest.approx(-value(found, "shift.call"))
    assert value(back, "distance.choice") == pytest.approx(value(found, "distance.choice"), rel=1e-3)
    assert value(back, "distance.probe") != pytest.approx(value(found, "distance.probe"), rel=1e-3)


def test_changes_that_cancel_are_silent_as_the_blind_spot_says(reference: Path, unrelated: str, tmp_path: Path) -> None:
    def crossed(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
        for may, must_not in zip(MAY, MUST_NOT, strict=True):
            write(hf, ids[may], 2.0 * (BASIS[2] - BASIS[1]))
            write(hf, ids[must_not], 2.0 * (BASIS[1] - BASIS[2]))

    r = measure(reference, changed(reference, tmp_path, crossed), unrelated)
    assert value(r, "changed_choices") == pytest.approx(2 / 3) and value(r, "shift.call") == pytest.approx(0.0)


# Refusal


def test_words_that_stand_for_two_choices_or_are_no_token_are_refused(reference: Path, leaning: Model, unrelated: str) -> None:
    with pytest.raises(UsageError, match="one choice, got 'no' for two"):
        measure(reference, leaning, unrelated, clarifications=("no",))
    with pytest.raises(UsageError, match="to be one token"):
        measure(reference, leaning, unrelated, calls=("yes no",))


def test_too_few_groups_and_other_data_are_refused(reference: Path, leaning: Model, unrelated: str) -> None:
    few = DATA.model_copy(update={"rows": DATA.rows[:30]})
    with pytest.raises(CannotMeasure, match="at least 8 groups in train"):
        measure(reference, leaning, unrelated, few)
    pairs = load(str(Path(__file__).parents[2] / "examples" / "data" / "names-pairs.jsonl"), "pairs")
    with pytest.raises(UsageError, match="reads a prompt set"):
        measure(reference, leaning, unrelated, pairs)


def test_a_reference_that_always_does_the_same_is_refused(reference: Path, leaning: Model, unrelated: str) -> None:
    with pytest.raises(CannotMeasure, match="one choice on every prompt"):
        measure(reference, leaning, unrelated, calls=("si",), refusals=("ja",), clarifications=("w1",))


def test_words_that_do_not_fit_the_model_fail_a_control(reference: Path, leaning: Model, unrelated: str) -> None:
    r = measure(reference, leaning, unrelated, calls=(CALL,), refusals=("si",), clarifications=("ja",))
    assert not control(r, "choices-cover").passed
    assert isinstance(r.measurement("detectable_share.choice"), NotMeasured)


def test_a_missing_reference_is_refused(leaning: Model, unrelated: str, tmp_path: Path) -> None:
    with pytest.raises(SubjectError):
        measure(tmp_path / "nothing", leaning, unrelated)
    with pytest.raises(UsageError, match="layer"):
        measure(Path(str(leaning.hf.name_or_path)), leaning, unrelated, layer=9)
