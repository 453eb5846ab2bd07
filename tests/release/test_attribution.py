"""Attribution by swapping: the layer that was changed is named, none is named where none was, and too few runs say so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from auditgap.errors import UsageError
from auditgap.release.diagnostics import LAYERS, attribute, mixtures, swap_effects

N = 60


def outcomes(rate, n=N, layers=LAYERS):
    """Counts of every mixture from a rate per mixture."""
    return {key: (round(n * rate(dict(zip(layers, key, strict=True)))), n) for key in mixtures(layers)}


# Planted truth found


@pytest.mark.parametrize("layer", LAYERS)
def test_the_layer_that_was_changed_is_named_alone(layer):
    found = swap_effects(outcomes(lambda mix: 0.8 if mix[layer] == "new" else 0.1))
    assert (found.verdict, found.attributed) == ("attributed", (layer,))
    main = next(effect for effect in found.effects if effect.layers == (layer,))
    assert main.value == pytest.approx(0.7) == found.overall.value
    assert main.interval.low < 0.7 < main.interval.high


def test_a_harm_that_needs_two_layers_names_both_and_their_interaction():
    found = swap_effects(outcomes(lambda mix: float(mix["model"] == mix["middleware"] == "new")))
    assert set(found.attributed) == {"model", "middleware", "model x middleware"}
    assert {round(e.value, 9) for e in found.effects if e.name in found.attributed} == {0.5}


def test_layers_that_undo_each_other_are_an_interaction():
    """Old with old and new with new are harmless, so comparing the two releases shows nothing."""
    found = swap_effects(outcomes(lambda mix: float(mix["model"] != mix["tool layer"])))
    assert found.overall.value == 0.0 and found.attributed == ("model x tool layer",)


def test_a_state_that_moves_is_enough_to_name_the_layer():
    """The model refuses no longer and the validator blocks: nothing is executed in either release."""
    vectors = {key: {"blocked" if key[0] == "new" else "refused": N} for key in mixtures()}
    found = attribute(vectors)
    assert found.attributed == ("model",) and set(found.states) == {"refused", "blocked"}
    assert [found.states[state].effects[0].value for state in ("refused", "blocked")] == [-1.0, 1.0]


# Negative control silent


def test_where_nothing_changed_none_is_said_only_with_runs_enough():
    assert swap_effects(outcomes(lambda mix: 0.1, n=400)).verdict == "none"
    assert swap_effects(outcomes(lambda mix: 0.1, n=10)).verdict == "not attributed"
    assert attribute({key: {"refused": 200} for key in mixtures()}).verdict == "none"


def test_false_attributions_stay_below_the_level_asked_for():
    rng, n_false = np.random.default_rng(0), 0
    for _ in range(60):
        n_false += swap_effects({key: (int(rng.binomial(25, 0.3)), 25) for key in mixtures()}).verdict == "attributed"
    assert binom.sf(n_false - 1, 60, 0.05) > 0.01, n_false


# Invariance


@given(st.lists(st.integers(0, 20), min_size=8, max_size=8), st.permutations(range(3)))
@settings(max_examples=15, deadline=None)
def test_effects_do_not_depend_on_the_order_of_layers_or_mixtures(hits, order):
    given_ = dict(zip(mixtures(), ((h, 20) for h in hits), strict=True))
    turned = {tuple(key[i] for i in order): counts for key, counts in reversed(given_.items())}
    one, two = swap_effects(given_), swap_effects(turned, layers=[LAYERS[i] for i in order])
    named = [{frozenset(e.layers): pytest.approx(e.value, abs=1e-12) for e in found.effects} for found in (one, two)]
    assert {frozenset(e.layers): e.value for e in one.effects} == named[1]
    assert one.verdict == two.verdict and set(map(len, one.attributed)) == set(map(len, two.attributed))


@given(st.lists(st.integers(0, 20), min_size=8, max_size=8))
@settings(max_examples=15, deadline=None)
def test_old_and_new_exchanged_turns_every_main_effect_round(hits):
    given_ = dict(zip(mixtures(), ((h, 20) for h in hits), strict=True))
    turn = {"old": "new", "new": "old"}
    one, two = swap_effects(given_), swap_effects({tuple(turn[o] for o in key): c for key, c in given_.items()})
    for a, b in zip(one.effects, two.effects, strict=True):
        sign = -1 if len(a.layers) == 1 else 1
        assert b.value == pytest.approx(sign * a.value, abs=1e-12)
        assert sorted((sign * b.interval.low, sign * b.interval.high)) == pytest.approx([a.interval.low, a.interval.high])


@pytest.mark.parametrize("layers", [("model",), ("a", "b", "c", "d")])
def test_any_number_of_layers_can_be_swapped(layers):
    found = swap_effects(outcomes(lambda mix: float(mix[layers[-1]] == "new"), layers=layers), layers=layers)
    assert found.attributed == (layers[-1],) and len(found.effects) == len(layers) * (len(layers) + 1) // 2


# Bad input refused


def test_an_incomplete_or_foreign_design_is_refused():
    whole = outcomes(lambda mix: 0.5)
    with pytest.raises(UsageError, match=r"missing \('new', 'old', 'old'\)"):
        swap_effects({key: c for key, c in whole.items() if key != ("new", "old", "old")})
    with pytest.raises(UsageError, match="unknown mixture"):
        swap_effects(whole | {("newer", "old", "old"): (1, 2)})
    with pytest.raises(UsageError, match="n: expected a whole number of at least 1"):
        swap_effects(whole | {("new", "old", "old"): (0, 0)})
    with pytest.raises(UsageError, match="margin in"):
        swap_effects(whole, margin=0.0)
    with pytest.raises(UsageError, match="each named once"):
        mixtures(("model", "model"))
    with pytest.raises(UsageError, match="got none"):
        attribute({key: {} for key in mixtures()})
