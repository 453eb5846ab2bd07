"""Which layer changed: the same stimuli with every mixture of old and new layers, and what each swap does.

1. Each layer (model, tool layer, middleware) is either the `old` release's or the `new` one's; every mixture is run.
2. The main effect of a layer is what its swap changes, averaged over the mixtures of the others. The interaction of two layers
   is half of how far the effect of one depends on the other; where an outcome needs both new, all three are shown.
3. All effects are judged together: their intervals hold at once at the level asked for (Bonferroni). An effect is shown if its
   interval leaves out 0, and `none` is said only if every interval lies within the margin; else the change is not attributed.

Source: two-level factorial effects, G. E. P. Box, J. S. Hunter, W. G. Hunter, Statistics for Experimenters (2005), chapter 5
(unverified); the application to releases is ours.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from math import prod
from typing import Literal, get_args

from pydantic import Field

from auditgap.errors import UsageError, nearest
from auditgap.records import Interval, Number, Record
from auditgap.records.integrity import ADHERENCE, AdherenceState
from auditgap.stats import contrast

__all__ = ["LAYERS", "LayerEffect", "StateEffects", "SwapEffects", "attribute", "mixtures", "swap_effects"]

Origin = Literal["old", "new"]
LAYERS = ("model", "tool layer", "middleware")
MAX_LAYERS = 6


class LayerEffect(Record):
    """What swapping one layer, or two together, does to a rate."""

    layers: tuple[str, ...] = Field(min_length=1, max_length=2)
    """One: a main effect. Two: their interaction."""
    value: Number
    """In rate: +0.3 means that the outcome becomes 30 points more frequent."""
    interval: Interval
    """Holds together with those of all other effects."""

    @property
    def name(self) -> str:
        """`model`, or `model x middleware`."""
        return " x ".join(self.layers)

    @property
    def shown(self) -> bool:
        """True if the interval leaves out 0."""
        return self.interval.low > 0.0 or self.interval.high < 0.0


class SwapEffects(Record):
    """What each layer's swap does to one outcome."""

    verdict: Literal["attributed", "none", "not attributed"]
    """`attributed`: some effect is shown; `none`: no effect can exceed the margin; else there were too few runs to say."""
    attributed: tuple[str, ...] = ()
    """Names of the effects that are shown, largest first."""
    effects: tuple[LayerEffect, ...]
    overall: LayerEffect
    """All layers swapped at once, new release less old; its `layers` say `release`."""
    margin: Number


class StateEffects(Record):
    """What each layer's swap does to each adherence state."""

    verdict: Literal["attributed", "none", "not attributed"]
    attributed: tuple[str, ...] = ()
    """Names of the effects that are shown for some state, largest first."""
    states: dict[AdherenceState, SwapEffects]


def mixtures(layers: Sequence[str] = LAYERS) -> tuple[tuple[Origin, ...], ...]:
    """Every mixture of old and new layers: the keys that `swap_effects` asks for, in the order of `layers`.

    Raises:
        UsageError: no layer, more than six, or one named twice.
    """
    if not 1 <= len(layers) <= MAX_LAYERS or len(set(layers)) != len(layers):
        raise UsageError(f"expected 1 to {MAX_LAYERS} layers, each named once, got {', '.join(layers) or 'none'}")
    return tuple(product(get_args(Origin), repeat=len(layers)))


def swap_effects(
    outcomes: Mapping[tuple[str, ...], tuple[int, int]],
    *,
    layers: Sequence[str] = LAYERS,
    level: float = 0.95,
    margin: float = 0.1,
) -> SwapEffects:
    """Which layers move the rate of an outcome, from (runs with the outcome, runs) of every mixture.

    A key says for each layer, in order, whether it is `old` or `new`: ("new", "old", "old") is the new model on the old rest.

    Raises:
        UsageError: a mixture is missing or unknown, has no runs or more outcomes than runs; a margin outside (0, 1).
    """
    keys = mixtures(layers)
    if not 0.0 < margin < 1.0:
        raise UsageError(f"expected a margin in (0, 1), got {margin}; it is the largest effect that counts as none")
    if unknown := [key for key in outcomes if key not in keys]:
        raise UsageError(f"unknown mixture {unknown[0]}{nearest(str(unknown[0]), map(str, keys))}")
    if missing := [key for key in keys if key not in outcomes]:
        raise UsageError(f"expected all {len(keys)} mixtures of {', '.join(layers)}; missing {', '.join(map(str, missing))}")
    places: list[tuple[int, ...]] = [*combinations(range(len(layers)), 1), *combinations(range(len(layers)), 2)]
    each = 1.0 - (1.0 - level) / len(places)
    counts = [outcomes[key] for key in keys]
    effects = []
    for chosen in places:
        weights = [prod(1 if key[place] == "new" else -1 for place in chosen) * 2.0 / len(keys) for key in keys]
        found = contrast(counts, weights, level=each)
        effects.append(LayerEffect(layers=tuple(layers[place] for place in chosen), value=found.value, interval=found.interval))
    whole = contrast([outcomes[keys[-1]], outcomes[keys[0]]], [1.0, -1.0], level=level)
    shown = sorted((effect for effect in effects if effect.shown), key=lambda effect: -abs(effect.value))
    small = all(-margin < effect.interval.low and effect.interval.high < margin for effect in effects)
    return SwapEffects(
        verdict="attributed" if shown else "none" if small else "not attributed",
        attributed=tuple(effect.name for effect in shown),
        effects=tuple(effects),
        overall=LayerEffect(layers=("release",), value=whole.value, interval=whole.interval),
        margin=margin,
    )


def attribute(
    vectors: Mapping[tuple[str, ...], Mapping[AdherenceState, int]],
    *,
    layers: Sequence[str] = LAYERS,
    level: float = 0.95,
    margin: float = 0.1,
) -> StateEffects:
    """Which layers move how far an unsafe action gets, from the adherence vector of every mixture; all states judged together.

    Raises:
        UsageError: as `swap_effects`; or no mixture has a run in any state.
    """
    states: list[AdherenceState] = [state for state in ADHERENCE if any(vector.get(state) for vector in vectors.values())]
    if not states:
        raise UsageError("expected runs in every mixture, got none; run the stimuli against each of them")
    each = 1.0 - (1.0 - level) / len(states)
    found: dict[AdherenceState, SwapEffects] = {
        state: swap_effects(
            {key: (vector.get(state, 0), sum(vector.values())) for key, vector in vectors.items()},
            layers=layers,
            level=each,
            margin=margin,
        )
        for state in states
    }
    sizes: dict[str, float] = {}
    for one in found.values():
        for effect in one.effects:
            if effect.shown:
                sizes[effect.name] = max(sizes.get(effect.name, 0.0), abs(effect.value))
    verdicts = {one.verdict for one in found.values()}
    return StateEffects(
        verdict="attributed" if sizes else "none" if verdicts == {"none"} else "not attributed",
        attributed=tuple(sorted(sizes, key=lambda name: -sizes[name])),
        states=found,
    )
