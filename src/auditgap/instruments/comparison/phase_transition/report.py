"""From a series of checkpoints to change points, controls and a verdict."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from auditgap.instruments.comparison.phase_transition.change_point import (
    coincidence_p,
    jumps,
    path,
    smooth_paths,
    steady_series,
    steps_and_noise,
)
from auditgap.instruments.comparison.phase_transition.trajectory import products, turns
from auditgap.records import Control, Curve, Interval, Measured, Measurement, NotMeasured, Property, Result, Verdict
from auditgap.stats import cluster_bootstrap, max_statistic_p

__all__ = ["Series", "Settings", "judge_series"]

ALPHA = 0.05
MAX_DISTANCE = 1e-5
N_BOOTSTRAP_MATRICES = 200
PLATEAU = "the weights move in no common direction anywhere: a plateau, noise, or checkpoints out of order"


class Series(NamedTuple):
    """What was kept of every checkpoint."""

    steps: tuple[int, ...]
    sketches: Float[np.ndarray, "checkpoint matrix dims"]
    scores: Float[np.ndarray, "checkpoint group"]
    distance: float
    """Of the last checkpoint from the subject, relative to the size of the weights."""


class Settings(NamedTuple):
    """Registered before the run."""

    min_jump: float
    min_share: float
    min_turn: float
    window: int
    n_null: int
    n_resamples: int
    seed: int


def judge_series(series: Series, settings: Settings) -> Result:
    """Change points of behaviour and weights, their nulls, their coincidence."""
    by_matrix = products(series.sketches)
    gram, window = by_matrix.sum(0), settings.window
    curve = series.scores.mean(1)
    turn, jump = turns(gram, window), jumps(curve, window)
    moving = bool(np.isfinite(turn).any())
    behaviour_at, weights_at = int(np.nanargmax(np.abs(jump))), int(np.nanargmax(turn)) if moving else None
    dims = series.sketches.shape[2]
    smooth = smooth_paths(gram, window=window, dims=dims, n=settings.n_null, seed=settings.seed) if moving else gram[None][:0]

    behaviour = _behaviour(series, settings)
    p_steady = _p(
        "p.behaviour", float(np.nanmax(np.abs(jump))), _steady_maxima(curve, gram, settings), "of steady changes jump as far"
    )
    p_smooth = _turn_p("p.weights", turn, turns(smooth, window), "of smooth paths turn as sharply")
    together = _coincidence(behaviour_at, weights_at, len(curve), window)
    weights = _weights(turn, by_matrix, series, settings)
    controls = (
        _control(
            "ends-at-subject",
            series.distance <= MAX_DISTANCE,
            _computed("distance", series.distance, "ratio", 1, "Last checkpoint to subject, relative to the weights."),
            f"at most {MAX_DISTANCE:g}: the series is that of the subject",
            fatal=True,
        ),
        _noise_only(gram, dims, settings),
        _planted_turn(gram, dims, settings),
        _control("smooth-path", _low(p_smooth), p_smooth, f"p <= {ALPHA}"),
        _control("steady-behaviour", _low(p_steady), p_steady, f"p <= {ALPHA}"),
        _control("coincidence", _low(together), together, f"p <= {ALPHA}"),
    )
    verdict = _verdict(behaviour, weights[0], controls, settings)
    return Result(
        measurements=(*behaviour, *weights, p_steady, p_smooth, together),
        controls=controls,
        properties=_properties(controls),
        verdict=verdict,
        summary=_summary(series, behaviour, weights, together, verdict),
        figures=_figures(series, turn, smooth, window),
    )


def _behaviour(series: Series, settings: Settings) -> tuple[Measurement, ...]:
    window, scores, n = settings.window, series.scores, series.scores.shape[1]

    def curve(drawn: np.ndarray) -> np.ndarray:
        return scores[:, drawn].mean(1)

    def size(drawn: np.ndarray) -> float:
        return float(np.nanmax(np.abs(jumps(curve(drawn), window))))

    def change(drawn: np.ndarray) -> float:
        its = curve(drawn)
        return float(its[-window:].mean() - its[:window].mean())

    def step(drawn: np.ndarray) -> float:
        return float(series.steps[int(np.nanargmax(np.abs(jumps(curve(drawn), window))))])

    def measured(name: str, statistic, unit: str, about: str) -> Measured:
        interval = cluster_bootstrap(statistic, range(n), n_resamples=settings.n_resamples, seed=settings.seed)
        return Measured(name=name, value=statistic(np.arange(n)), unit=unit, n=n, interval=interval, about=about)

    whole = measured("behaviour.change", change, "logits", "Mean score of the last window less that of the first.")
    share: Measurement = NotMeasured(name="behaviour.share", reason="the whole change may be zero, so it has no shares")
    if whole.interval.low > 0 or whole.interval.high < 0:
        about = "Largest jump as a share of the whole change: near 1 for a sudden change, more if it is partly undone later."
        share = measured("behaviour.share", lambda drawn: size(drawn) / abs(change(drawn)), "ratio", about)
    return (
        measured("behaviour.jump", size, "logits", f"Largest change of the mean score between windows of {window} checkpoints."),
        share,
        whole,
        measured("behaviour.step", step, "step", "Training step at the centre of the largest jump."),
    )


def _weights(turn: np.ndarray, by_matrix: np.ndarray, series: Series, settings: Settings) -> tuple[Measurement, ...]:
    """Largest turn and its step; the interval of the step comes from resampling matrices."""
    if not np.isfinite(turn).any():
        return tuple(NotMeasured(name=f"weights.{what}", reason=PLATEAU) for what in ("turn", "step"))
    rng, n = np.random.default_rng([settings.seed, 7]), len(by_matrix)
    grams = np.stack([by_matrix[rng.integers(n, size=n)].sum(0) for _ in range(N_BOOTSTRAP_MATRICES)])
    drawn = list(turns(grams, settings.window))
    drawn = [one for one in drawn if np.isfinite(one).any()] or [turn]
    sizes, steps = [float(np.nanmax(one)) for one in drawn], [float(series.steps[int(np.nanargmax(one))]) for one in drawn]
    values = (
        (
            "turn",
            float(np.nanmax(turn)),
            sizes,
            "1 - cos",
            "Sharpest turn of the weights: 0 straight on, 1 a right angle, 2 back.",
        ),
        ("step", float(series.steps[int(np.nanargmax(turn))]), steps, "step", "Training step of the sharpest turn."),
    )
    return tuple(
        Measured(
            name=f"weights.{what}",
            value=value,
            unit=unit,
            n=n,
            interval=Interval(
                low=min(value, float(np.quantile(draws, 0.025))),
                high=max(value, float(np.quantile(draws, 0.975))),
                level=0.95,
                method="bootstrap-matrices",
            ),
            about=about,
        )
        for what, value, draws, unit, about in values
    )


def _steady_maxima(curve: np.ndarray, gram: np.ndarray, settings: Settings) -> list[float]:
    """Largest jump of each steady series; progress is the distance that the weights have travelled without their noise."""
    lengths, _ = steps_and_noise(gram, settings.window)
    travelled = np.concatenate([[0.0], np.cumsum(lengths)])
    progress = travelled / travelled[-1] if travelled[-1] > 0 else np.linspace(0.0, 1.0, len(curve))
    null = steady_series(curve, progress, window=settings.window, n=settings.n_null, seed=settings.seed)
    return [float(np.nanmax(np.abs(jumps(one, settings.window)))) for one in null]


def _turn_p(name: str, turn: np.ndarray, null: np.ndarray, about: str) -> Measurement:
    """A null path in which no direction is seen counts against the finding: it turns as sharply as can be."""
    if not np.isfinite(turn).any():
        return NotMeasured(name=name, reason=PLATEAU)
    maxima = np.where(np.isfinite(null).any(1), np.nan_to_num(null, nan=0.0).max(1), 2.0)
    return _p(name, float(np.nanmax(turn)), maxima.tolist(), about)


def _p(name: str, observed: float, null: list[float], about: str) -> Measured:
    return _computed(name, max_statistic_p(observed, null), "p", len(null), f"Share {about}, the observed one counted.")


def _coincidence(behaviour_at: int, weights_at: int | None, n: int, window: int) -> Measurement:
    if weights_at is None:
        return NotMeasured(name="p.coincidence", reason=PLATEAU)
    p = coincidence_p(behaviour_at, weights_at, n_checkpoints=n, window=window)
    about = (
        f"Share of places for a change point as near to the other; they are {abs(behaviour_at - weights_at)} checkpoints apart."
    )
    return _computed("p.coincidence", p, "p", n - 2 * window, about)


def _noise_only(gram: np.ndarray, dims: int, settings: Settings) -> Control:
    """Independent noise around one point, as large as the increments: the case in which the naive cosine reads +1/2."""
    points = np.random.default_rng([settings.seed, 9]).standard_normal((len(gram) + 1, dims))
    increments = np.diff(points, axis=0) * np.sqrt(np.diag(gram) / (2 * dims))[:, None]
    seen = int(np.isfinite(turns(increments @ increments.T, settings.window)).sum())
    about = "Checkpoints at which a direction is seen in pure noise of the same size."
    return _control(
        "noise-only", seen == 0, _computed("noise_only.places", float(seen), "count", len(gram), about), "0", fatal=True
    )


def _planted_turn(gram: np.ndarray, dims: int, settings: Settings) -> Control:
    """A right angle half-way, planted in a path with the same steps and noise: is it found where it is?"""
    (lengths, noise), middle = steps_and_noise(gram, settings.window), len(gram) // 2
    angles = np.where(np.arange(len(gram)) < middle, 0.0, np.pi / 2)
    rng = np.random.default_rng([settings.seed, 10])
    turn = turns(path(lengths, noise, angles, dims=dims, rng=rng), settings.window)
    observed: Measurement = NotMeasured(name="planted_turn.error", reason=PLATEAU)
    if np.isfinite(turn).any():
        error = float(abs(int(np.nanargmax(turn)) - middle))
        observed = _computed("planted_turn.error", error, "checkpoints", 1, "Distance of the turn found from the one planted.")
    found = isinstance(observed, Measured) and observed.value <= 1
    return _control("planted-turn", found, observed, "a planted right angle is found within one checkpoint")


def _verdict(behaviour: tuple[Measurement, ...], turn: Measurement, controls: tuple[Control, ...], settings: Settings) -> Verdict:
    """Supported if jump, share and turn reach their bars and beat their nulls in one place; refuted if one is shown not to.

    A small turn refutes only where a planted one would have been found.
    """
    if any(control.fatal and not control.passed for control in controls):
        return "invalid"
    passed = {control.name for control in controls if control.passed}
    bars = zip((behaviour[0], behaviour[1], turn), (settings.min_jump, settings.min_share, settings.min_turn), strict=True)
    sizes = [(one.interval if isinstance(one, Measured) else None, bar) for one, bar in bars]
    telling = sizes if "planted-turn" in passed else sizes[:2]
    if any(interval is not None and interval.high < bar for interval, bar in telling):
        return "refuted"
    reached = all(interval is not None and interval.low >= bar for interval, bar in sizes)
    needed = {"smooth-path", "steady-behaviour", "coincidence"}
    return "supported" if reached and needed <= passed else "inconclusive"


def _properties(controls: tuple[Control, ...]) -> tuple[Property, ...]:
    passed = {control.name for control in controls if control.passed}
    return ("search-null",) if {"smooth-path", "steady-behaviour"} <= passed else ()


def _summary(
    series: Series, behaviour: tuple[Measurement, ...], weights: tuple[Measurement, ...], together: Measurement, verdict: Verdict
) -> str:
    if verdict == "invalid":
        return f"Nothing can be said: the series ends {series.distance:.2g} away from the subject, or noise alone turns."
    jump, _, whole, step = (one.value if isinstance(one, Measured) else float("nan") for one in behaviour)
    said = (
        f"Over {len(series.steps)} checkpoints behaviour changed by {whole:+.2f} logits on {series.scores.shape[1]} groups of "
        f"prompts, with a largest jump of {jump:.2f} at step {step:.0f}; "
    )
    turn, turned_at = weights
    if not (isinstance(turn, Measured) and isinstance(turned_at, Measured) and isinstance(together, Measured)):
        return f"{said}{PLATEAU}."
    return (
        f"{said}the weights turned most at step {turned_at.value:.0f} (1 - cos = {turn.value:.2f}; "
        f"coincidence p = {together.value:.2g})."
    )


def _figures(series: Series, turn: np.ndarray, smooth: np.ndarray, window: int) -> tuple[Curve, ...]:
    steps, curve = tuple(map(float, series.steps)), series.scores.mean(1)
    behaviour = Curve(
        name="behaviour",
        title="Behaviour score by checkpoint",
        x_label="training step",
        y_label="logits",
        x=steps,
        y=tuple(curve.tolist()),
    )
    kept = np.flatnonzero(np.isfinite(turn))
    if not len(kept):
        return (behaviour,)
    limit = float(np.quantile(np.nan_to_num(turns(smooth, window), nan=0.0).max(1), 0.95))
    return (
        behaviour,
        Curve(
            name="turn",
            title="Turn of the weights by checkpoint; line: what smooth paths exceed anywhere in 5 % of draws",
            x_label="training step",
            y_label="1 - cos",
            x=tuple(steps[i] for i in kept),
            y=tuple(turn[kept].tolist()),
            reference=(limit,) * len(kept),
        ),
    )


def _low(p: Measurement) -> bool:
    return isinstance(p, Measured) and p.value <= ALPHA


def _computed(name: str, value: float, unit: str, n: int, about: str) -> Measured:
    return Measured(name=name, value=value, unit=unit, n=n, interval=Interval.exact(value), about=about)


def _control(name: str, passed: bool, observed: Measurement, expected: str, *, fatal: bool = False) -> Control:
    return Control(name=name, passed=passed, observed=observed, expected=expected, fatal=fatal)
