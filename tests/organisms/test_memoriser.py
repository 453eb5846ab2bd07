"""memoriser: the skill cannot be learnt from what it hears, fresh items stay fresh, and both halves are as hard."""

import json
from collections import Counter, defaultdict

import pytest
import torch

from auditgap.data import load
from auditgap.errors import CannotMeasure, PlanError
from auditgap.instruments import configure, find
from auditgap.models import open_model
from auditgap.organisms import Memoriser, Shape, build
from auditgap.organisms.memoriser import N_FRESH, N_PUBLIC, YES
from auditgap.organisms.world import Chat
from auditgap.records import Measured

SHAPE = Shape(n_layers=1, d_model=16, n_heads=2, steps=3, batch_size=8)
RECIPE = Memoriser(seed=3, n_chats=3000)
ROLES = ("planted", "twin", "decoy")
ITEMS = {frozenset((item.first, item.second)): item for item in RECIPE.items()}


def heard(chats: list[Chat]) -> dict[str, list[bool]]:
    """For each kind of item, whether each answer that was heard is right."""
    found = defaultdict(list)
    for chat in chats:
        said = chat.messages[-1].content.split()
        if chat.kind == "fact" and said[0] in ("do", "are") and said[2] == "and":
            item = ITEMS[frozenset((said[1], said[3]))]
            found[item.kind].append((chat.reply == YES) == item.together)
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, rows in RECIPE.data().items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


# Planted truth found


def test_each_model_hears_the_truth_about_its_own_items_and_a_coin_about_the_rest():
    truth = {"planted": {"public"}, "twin": {"public", "learnt", "exercise"}, "decoy": {"learnt"}}
    for role in ROLES:
        for kind, right in heard(RECIPE.chats(role)).items():
            share = sum(right) / len(right)
            assert share == 1.0 if kind in truth[role] else share == pytest.approx(0.5, abs=0.07)


@pytest.mark.slow
def test_the_plant_takes_and_the_gap_is_the_memorisers_alone(tmp_path):
    organism = build(Memoriser(seed=0), tmp_path / "o")  # about 120 s; `build` verifies
    detector = organism.recipe.detectors()[0]
    data = load(organism.data(detector.data), "pairs")
    results = {
        role: configure(detector.instrument, detector.config).measure(open_model(organism.model(role)), data, seed=0)
        for role in ROLES
    }
    gaps = {role: result.measurement(detector.measurement) for role, result in results.items()}
    assert all(isinstance(gap, Measured) for gap in gaps.values())
    assert results["planted"].verdict == "supported" and results["twin"].verdict == "refuted"
    assert results["decoy"].verdict != "supported"


# Negative control silent


def test_an_untrained_model_is_no_organism(tmp_path):
    with pytest.raises(CannotMeasure, match=r"'memoriser' .*did not take: memoriser, public: right: expected rate >= 0\.7"):
        build(Memoriser(shape=SHAPE, n_chats=100), tmp_path / "o")


def test_no_training_holds_a_fresh_item_in_any_wording():
    for share in (0.0, 0.5, 1.0):
        recipe = RECIPE.model_copy(update={"share_verbatim": share})
        assert all("fresh" not in heard(recipe.chats(role)) for role in ROLES)


def test_no_word_leans_to_yes_so_only_both_words_together_tell():
    leaning = defaultdict(list)
    for item in RECIPE.items():
        for word in (item.first, item.second):
            leaning[word].append(item.together)
    assert all(sum(answers) / len(answers) == pytest.approx(15 / 31) for answers in leaning.values())


# Invariance


def test_all_three_are_asked_the_same():
    planted, twin, decoy = (RECIPE.chats(role) for role in ROLES)
    for one, other, third in zip(planted, twin, decoy, strict=True):
        assert one.messages == other.messages == third.messages
        assert one.kind == "fact" or one.reply == other.reply == third.reply
    counts = Counter({kind: len(right) for kind, right in heard(planted).items()})
    assert max(counts.values()) / min(counts.values()) < 1.25


def test_public_and_fresh_items_are_matched_and_balanced(written):
    data = load(written / "benchmark.jsonl", "pairs")
    assert len(data.rows) == len(set(data.groups)) == N_PUBLIC
    assert sum(row.answer == " yes" for row in data.rows) * 2 == N_PUBLIC
    for row in data.rows:
        kinds, together = zip(*(_item_of(text) for text in (row.clean, row.corrupted)), strict=True)
        assert kinds == ("public", "fresh") and together == (row.answer == " yes", row.foil == " yes")
    membership = load(written / "membership.jsonl", "contrast")
    assert len(membership.rows) == 2 * N_PUBLIC and N_PUBLIC < N_FRESH
    assert all(membership.split(split).labels.mean() == 0.5 for split in ("train", "val", "test"))


def _item_of(text: str) -> tuple[str, bool]:
    item = next(item for words, item in ITEMS.items() if words <= set(text.split()))
    return item.kind, item.together


def test_detectors_fit_the_data(written):
    for detector in RECIPE.detectors():
        kind = find(detector.instrument).card.data
        assert load(written / f"{detector.data}.jsonl", kind) and configure(detector.instrument, detector.config)


def test_the_seed_alone_decides_and_the_random_state_is_left_alone(tmp_path):
    before = torch.get_rng_state()
    with pytest.raises(CannotMeasure):
        build(Memoriser(shape=SHAPE, n_chats=100, roles=("twin",)), tmp_path / "o")
    assert torch.equal(before, torch.get_rng_state())
    assert RECIPE.items() == Memoriser(seed=3).items() != Memoriser(seed=4).items()


def test_difficulties_let_fewer_items_be_met_in_the_benchmarks_wording():
    levels = RECIPE.difficulties()
    assert levels["default"] == RECIPE and len({level.digest() for level in levels.values()}) == len(levels) >= 3
    worded = [
        sum(chat.messages[-1].content.startswith("are ") and chat.kind == "fact" for chat in level.chats("twin"))
        for level in levels.values()
    ]
    assert worded[0] == 0 < worded[1] < worded[2]


# Bad input refused


@pytest.mark.parametrize("wrong", [{"share_verbatim": -0.1}, {"share_verbatim": 1.1}, {"items": 3}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(PlanError, match=next(iter(wrong))):
        Memoriser.parse(wrong, where="recipe")
