"""From what was found to measurements, controls and a verdict."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from auditgap.instruments.comparison.model_diff.lens import Lens
from auditgap.instruments.comparison.model_diff.reading import Comparison
from auditgap.instruments.comparison.model_diff.slices import Slice
from auditgap.instruments.comparison.model_diff.transfer import Transfer
from auditgap.instruments.comparison.model_diff.weights import Weights
from auditgap.records import Control, Interval, Measured, Measurement, NotMeasured, Subject, Verdict
from auditgap.stats import cluster_bootstrap, group_rate, max_statistic_p

__all__ = ["ALPHA", "Bounds", "Findings", "controls_of", "measurements_of", "summary_of", "verdict_of"]

ALPHA = 0.05
MIN_LINEAGE = 0.2
"""Cosine of all matrices: unrelated training runs lie near 0, a model and its fine-tune near 1."""
N_TABLED = 3
NO_CHANGE = "no weight differs from the base"


class Bounds(NamedTuple):
    """Registered before the run: what counts as unchanged."""

    max_kl_nats: float
    max_drift: float


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that was computed, before any of it is judged."""

    base: Subject
    bounds: Bounds
    row_groups: list[str]
    seen: Comparison
    identity: Float[np.ndarray, " statistic"]
    """KL and drift of the base against itself, read twice."""
    weights: Weights
    lineage: float
    noise: Float[np.ndarray, "draw statistic"] | None
    """KL and drift by layer of each matched-noise twin; None if no weight changed."""
    consistency: Float[np.ndarray, " layer"]
    null_consistency: Float[np.ndarray, " exchange"]
    lens_layer: int
    lens: Lens | None
    cka: Float[np.ndarray, " layer"]
    cka_interval: Interval
    slices: list[Slice]
    transfer: Transfer
    p: Float[np.ndarray, " statistic"]
    """Family-wise, of KL and of drift by layer; 1 if no weight changed."""
    n_resamples: int
    seed: int

    @property
    def n_groups(self) -> int:
        """Independent units."""
        return len(self.seen.kl)

    @property
    def drift_layer(self) -> int:
        """The layer that moved most."""
        return int(self.seen.statistics()[1:].argmax())

    @property
    def n_structured(self) -> int:
        """Matrices whose change has more direction than signs drawn at random."""
        return int((self.weights.p <= ALPHA).sum())

    def interval(self, statistic: Callable[[NDArray[np.intp]], float]) -> Interval:
        """Over groups; exact where no weight changed, because then nothing is estimated."""
        if not self.weights.n_changed_tensors:
            return Interval.exact(statistic(np.arange(self.n_groups)))
        return cluster_bootstrap(statistic, range(self.n_groups), n_resamples=self.n_resamples, seed=self.seed)

    def estimated(self, name: str, statistic: Callable[[NDArray[np.intp]], float], unit: str, about: str) -> Measured:
        """A statistic of the groups with its interval."""
        value = statistic(np.arange(self.n_groups))
        return Measured(name=name, value=value, unit=unit, n=self.n_groups, interval=self.interval(statistic), about=about)

    def kl(self) -> Measured:
        """How far predictions moved."""
        about = "Mean KL(base || subject) of the next token over groups: 0 if every prediction is the same."
        return self.estimated("kl_nats", lambda drawn: float(self.seen.kl[drawn].mean()), "nats", about)

    def drift(self) -> Measured:
        """How far the inside moved, at the layer where it moved most."""
        about = f"Movement of the residual stream as a share of its size, in the layer that moved most (here {self.drift_layer})."
        return self.estimated("drift.max", lambda drawn: float(self.seen.drift.relative(drawn).max()), "ratio", about)


def measurements_of(found: Findings) -> tuple[Measurement, ...]:
    """Predictions, inside, noise, weights, tokens, slices, transfer: in this order."""
    return (
        found.kl(),
        *_rates(found),
        found.drift(),
        *_noise(found),
        _cka(found),
        *_weights(found),
        _lens(found),
        *_slices(found),
        *found.transfer.measurements,
    )


def controls_of(found: Findings) -> tuple[Control, ...]:
    """What the numbers are held against; the first two decide whether they mean anything."""
    kl, drift = _p(found)
    structure = _count("weights.structured_matrices", found.n_structured, found, "Matrices whose change has structure.")
    return (
        _control(
            "base-against-base",
            bool((found.identity <= [found.bounds.max_kl_nats / 100, *[found.bounds.max_drift / 100] * len(found.cka)]).all()),
            _computed("identity.max", float(found.identity.max()), "nats", found.n_groups, "Largest KL (nats) or drift (ratio)."),
            "base read twice: at most a hundredth of either bound",
            fatal=True,
        ),
        _control(
            "same-lineage",
            found.lineage >= MIN_LINEAGE,
            _computed("weights.cosine", found.lineage, "cosine", found.weights.n_matrices, "All matrices as one vector."),
            f"at least {MIN_LINEAGE:g}: weights of unrelated training runs lie near 0",
            fatal=True,
        ),
        _control(
            "matched-noise",
            any(isinstance(p, Measured) and p.value <= ALPHA for p in (kl, drift)),
            min((kl, drift), key=lambda p: p.value if isinstance(p, Measured) else 1.0),
            f"family-wise p <= {ALPHA} against random weight changes of the same size",
        ),
        _control(
            "planted-rank-one",
            found.weights.planted_rank is not None and found.weights.planted_rank >= 1,
            NotMeasured(name="planted.signal_rank", reason="no matrix differs from the base")
            if found.weights.planted_rank is None
            else _count(
                "planted.signal_rank", found.weights.planted_rank, found, "Rank found where a rank-1 change was planted."
            ),
            "a rank-1 change planted in noise of its own norm is found",
        ),
        _control("weights-unstructured", found.n_structured == 0, structure, "0: no change that other prompts could bring out"),
        _exchanged_models(found),
        _slice_search(found),
        found.transfer.control,
    )


def verdict_of(found: Findings, controls: tuple[Control, ...]) -> Verdict:
    """Supported if predictions or the inside moved beyond their bound and beyond noise; refuted if neither reached its bound."""
    if any(control.fatal and not control.passed for control in controls):
        return "invalid"
    pairs = zip((found.kl(), found.drift()), _p(found), found.bounds, strict=True)
    moved = [(one.interval, p.value if isinstance(p, Measured) else 1.0, bound) for one, p, bound in pairs]
    if any(interval.low > bound and p <= ALPHA for interval, p, bound in moved):
        return "supported"
    return "refuted" if all(interval.high < bound for interval, _, bound in moved) else "inconclusive"


def summary_of(found: Findings, verdict: Verdict) -> str:
    """One sentence on the prompts, one on the weights, and one on what carries over if that was asked."""
    base, weights = found.base.name, found.weights
    if verdict == "invalid":
        reason = (
            "its weights are unrelated to the subject's" if found.lineage < MIN_LINEAGE else "the base does not repeat itself"
        )
        return f"Nothing can be said against {base}: {reason} (weight cosine {found.lineage:.2f})."
    if not weights.n_changed_tensors:
        return f"No weight differs from {base}; predictions on {found.n_groups} groups of prompts are the same." + (
            found.transfer.sentence
        )
    kl, drift = found.kl(), found.drift()
    p_kl, p_drift = (f"{p.value:.2g}" if isinstance(p, Measured) else "not measured" for p in _p(found))
    rounding = ", by rounding to a shorter format and nothing else" if weights.rounded_share == 1.0 else ""
    return (
        f"Against {base}, next-token predictions on {found.n_groups} groups moved by {kl.value:.3g} nats (95 % "
        f"{kl.interval.low:.3g} to {kl.interval.high:.3g}; p = {p_kl} against noise of the same size) and the residual stream by "
        f"{drift.value:.1%} at most (layer {found.drift_layer}; p = {p_drift}). {len(weights.spectra)} of {weights.n_matrices} "
        f"matrices changed{rounding}; {found.n_structured} hold structure beyond noise.{found.transfer.sentence}"
    )


def _p(found: Findings) -> tuple[Measurement, Measurement]:
    if found.noise is None:
        return NotMeasured(name="p.kl_nats", reason=NO_CHANGE), NotMeasured(name="p.drift", reason=NO_CHANGE)
    about = "Chance that random weight changes of the same size make any statistic (KL, drift of any layer) stand out as much."
    kl, drift = float(found.p[0]), float(found.p[1:].min())
    n = len(found.noise)
    return _computed("p.kl_nats", kl, "p", n, about), _computed("p.drift", drift, "p", n, about)


def _rates(found: Findings) -> tuple[Measurement, ...]:
    changed = group_rate(found.seen.changed, found.row_groups)
    moved = group_rate(found.seen.kl > found.bounds.max_kl_nats, [str(i) for i in range(found.n_groups)])
    texts = (
        ("changed_answers", changed, "Share of prompts whose most likely next token is another one."),
        ("moved_groups", moved, f"Share of groups whose KL is above {found.bounds.max_kl_nats:g} nats."),
    )
    return tuple(
        Measured(name=name, value=rate.value, unit="rate", n=rate.n_groups, interval=rate.interval, about=about)
        for name, rate, about in texts
    )


def _noise(found: Findings) -> tuple[Measurement, ...]:
    if found.noise is None:
        names = ("noise.kl_nats", "noise.drift")
        return (*(NotMeasured(name=name, reason=NO_CHANGE) for name in names), *_p(found))
    drawn = []
    for name, unit, column in (("noise.kl_nats", "nats", 0), ("noise.drift", "ratio", 1 + found.drift_layer)):
        values = found.noise[:, column]
        low, high = np.quantile(values, [0.025, 0.975])
        interval = Interval(low=float(low), high=float(high), level=0.95, method="monte-carlo")
        about = "What random weight changes of the same size do; median of the draws."
        drawn.append(
            Measured(name=name, value=float(np.median(values)), unit=unit, n=len(values), interval=interval, about=about)
        )
    return (*drawn, *_p(found))


def _cka(found: Findings) -> Measurement:
    layer = int(np.argmin(found.cka))
    if np.isnan(found.cka).any():
        return NotMeasured(name="cka.min", reason="the residual stream of a layer does not vary over these prompts")
    about = f"Debiased linear CKA in the layer where it is lowest (here {layer}): 1 if prompts keep their distances."
    return Measured(
        name="cka.min",
        value=float(found.cka[layer]),
        unit="cka",
        n=found.n_groups,
        interval=found.cka_interval,
        about=about,
    )


def _weights(found: Findings) -> tuple[Measurement, ...]:
    weights, n = found.weights, found.weights.n_matrices
    rows: list[Measurement] = [
        _computed("weights.relative_norm", weights.relative_norm, "ratio", n, "||subject - base|| / ||base|| over all weights."),
        _count("weights.changed_matrices", len(weights.spectra), found, "Matrices in which any entry differs."),
        _count(
            "weights.structured_matrices",
            found.n_structured,
            found,
            f"Matrices whose largest singular value beats sign-flipped copies of all (family-wise p <= {ALPHA}).",
        ),
        _computed(
            "weights.rounded_share",
            weights.rounded_share,
            "rate",
            n,
            "Share of weights that are those of the base, as they were or rounded to bfloat16, float16, int8 or int4.",
        ),
    ]
    for one, p, rank in list(zip(weights.spectra, weights.p, weights.signal_ranks, strict=False))[:N_TABLED]:
        values = (
            ("relative_norm", one.relative_norm, "ratio", "||D|| / ||W||, Frobenius."),
            (
                "signal_rank",
                float(rank),
                "count",
                f"Components that stand out of noise, 8 for 8 or more (structure: p = {p:.2g}).",
            ),
            ("effective_rank", one.effective_rank, "count", "exp(entropy) of the singular values of the change."),
            ("stable_rank", one.stable_rank, "count", "||D||_F^2 / ||D||_2^2 of the change."),
            ("top_energy", one.top_energy, "ratio", "Share of ||D||_F^2 in the four largest singular values."),
        )
        rows += [_computed(f"weights.{one.name}.{what}", value, unit, n, about) for what, value, unit, about in values]
    return tuple(rows)


def _lens(found: Findings) -> Measurement:
    name = "lens.overlap"
    if found.lens is None:
        return NotMeasured(name=name, reason="the mean difference is zero at this layer")
    share, null = found.lens.overlap, found.lens.null_overlaps
    p = max_statistic_p(share, null)
    tokens = ", ".join(repr(token) for token in found.lens.tokens)
    said = f"tokens: {tokens}" if p <= ALPHA else "no more than the floor, so the tokens are not shown"
    about = (
        f"Share of top tokens of the mean difference at layer {found.lens_layer} that two halves of the prompts agree on; with "
        f"models exchanged per group {np.mean(null):.2f} (p = {p:.2g}): {said}."
    )
    return _computed(name, share, "rate", found.n_groups, about)


def _slices(found: Findings) -> tuple[Measurement, ...]:
    if not found.slices:
        return (NotMeasured(name="slice.1.kl_nats", reason="fewer than two slices of at least 3 units, or no difference"),)
    return tuple(
        Measured(
            name=f"slice.{i}.kl_nats",
            value=one.kl_nats,
            unit="nats",
            n=one.n_units,
            interval=one.interval,
            about=f"Mean KL of slice '{one.name}', number {i} of {len(found.slices)} by KL; search-wide p = {one.p:.2g}.",
        )
        for i, one in enumerate(found.slices[: N_TABLED + 2], start=1)
    )


def _exchanged_models(found: Findings) -> Control:
    name, expected = "exchanged-models", f"max-statistic p <= {ALPHA} over layers: the prompts moved in a common direction"
    if not found.consistency.any():
        return _control(name, False, NotMeasured(name="p.consistency", reason="the residual stream did not move"), expected)
    p = max_statistic_p(float(found.consistency.max()), found.null_consistency)
    about = f"Consistency of the difference over groups is {found.consistency.max():.2f} at most; models exchanged per group."
    return _control(name, p <= ALPHA, _computed("p.consistency", p, "p", len(found.null_consistency), about), expected)


def _slice_search(found: Findings) -> Control:
    name, expected = "slice-search", f"search-wide p <= {ALPHA} for the slice that moved most"
    if not found.slices:
        return _control(name, False, NotMeasured(name="p.slices", reason="no two slices of at least 3 units differ"), expected)
    p = min(one.p for one in found.slices)
    return _control(
        name, p <= ALPHA, _computed("p.slices", p, "p", len(found.slices), "Prompts dealt to slices at random."), expected
    )


def _computed(name: str, value: float, unit: str, n: int, about: str) -> Measured:
    return Measured(name=name, value=value, unit=unit, n=n, interval=Interval.exact(value), about=about)


def _count(name: str, value: int, found: Findings, about: str) -> Measured:
    return _computed(name, float(value), "count", found.weights.n_matrices, about)


def _control(name: str, passed: bool, observed: Measurement, expected: str, *, fatal: bool = False) -> Control:
    return Control(name=name, passed=passed, observed=observed, expected=expected, fatal=fatal)
