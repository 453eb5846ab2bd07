"""Is a model better on the published items of a benchmark than on fresh ones that are just as hard?

1. A row matches two items: `clean` is the public question, `corrupted` a fresh one of the same kind. `answer` is right for the
   public one and `foil` for the fresh one, and each is the wrong option of the other: both items offer the same choice.
2. Of each question: which option is likelier, and how likely is the right one, in nats.
3. Gap of a row: public less fresh, in accuracy and in log-likelihood. Mean over groups, with an interval by resampling them.
4. Null: with nothing memorised, either item of a row might have been the public one, so the sign of each group's gap is a coin
   flip.

A gap says that what the model can do on public items does not carry over. It is contamination only as far as the fresh items are
as hard: a `reference` that cannot have seen the public ones is tried on both.

Source: H. Zhang et al., A Careful Examination of Large Language Model Performance on Grade School Arithmetic (2024),
arXiv:2405.00332 (fresh items of matched difficulty); sign flips: R. A. Fisher, The Design of Experiments (1935), section 21; the
two added groups after A. Agresti, B. A. Coull, The American Statistician 52 (1998) 119-126. The matched rows are ours.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Float
from pydantic import Field

from auditgap.data import Dataset, PairRow, PairSet
from auditgap.errors import CannotMeasure, UsageError
from auditgap.instruments.behavioural.option_preference import sign_flip_p
from auditgap.instruments.contract import Instrument, Location, Progress, instrument, quiet
from auditgap.instruments.two_choice import CHANCE, by_group
from auditgap.models import Model, log_likelihood, open_model
from auditgap.records import (
    Control,
    Curve,
    Digest,
    Interval,
    Measured,
    ModelAccess,
    NotMeasured,
    Number,
    Result,
    Sample,
    Verdict,
)
from auditgap.stats import cluster_bootstrap, group_rate

__all__ = ["Contamination", "Scores", "judge", "score"]

ALPHA = 0.05
MIN_GROUPS = 6  # with fewer, not even a perfect result brings the two-sided sign-flip p to 0.05: 2 / 2^5 = 0.0625
N_CHECKED, N_SAMPLES = 8, 6
TOLERANCE_NATS = {"float64": 1e-6, "float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}


class Scores(NamedTuple):
    """What the options are worth to the model: log-likelihoods in nats, row by row."""

    public_right: Float[np.ndarray, " row"]
    public_wrong: Float[np.ndarray, " row"]
    fresh_right: Float[np.ndarray, " row"]
    fresh_wrong: Float[np.ndarray, " row"]

    def accuracy(self) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]]:
        """Public and fresh: 1 where the right option is the likelier, 0 where the wrong one is, a half where they are equal."""
        public, fresh = np.sign(self.public_right - self.public_wrong), np.sign(self.fresh_right - self.fresh_wrong)
        return (1 + public) / 2, (1 + fresh) / 2


def score(model: Model, rows: Sequence[PairRow], *, batch_size: int = 32) -> Scores:
    """Log-likelihood of both options after both questions.

    Raises:
        UsageError: an option is empty or merges with the end of its question; the message names the row.
    """
    questions = [text for row in rows for text in (row.clean, row.clean, row.corrupted, row.corrupted)]
    options = [text for row in rows for text in (row.answer, row.foil, row.foil, row.answer)]
    found = log_likelihood(model, questions, options, batch_size=batch_size).double().numpy().reshape(-1, 4)
    return Scores(*found.T)


@instrument(
    name="contamination",
    version="1",
    family="behavioural",
    hypothesis="The model is right on public items more often than on matched fresh ones, by at least `min_gap`.",
    needs=ModelAccess.M2,
    data="pairs",
    failure_modes=("benchmark-contamination",),
    blind_spots=(
        "Fresh items that are harder than the public ones show the same gap: give a `reference` that saw neither.",
        "A model that has the items by heart and the skill as well is as good on both: no gap, contaminated all the same.",
        "Items that were met in other words count only as far as the memory of them helps with the published wording.",
        "Fresh items that paraphrase public ones, or were published since, are no fresh items.",
        "It chooses between two options: an item that the model could not answer freely may still be chosen rightly.",
    ),
    controls=("one-at-a-time", "option-balance", "assignment-null", "unexposed-reference"),
    citation="arXiv:2405.00332; R. A. Fisher, The Design of Experiments (1935)",
)
class Contamination(Instrument):
    """Settings of `contamination`."""

    min_gap: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    """Gap in accuracy from which the benchmark counts as inflated."""
    reference: Location | None = None
    """Folder of a model that cannot have seen the public items (older than they are, say), opened in float32."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    n_resamples: Annotated[int, Field(ge=200)] = 2000
    """Of the cluster bootstrap."""
    n_permutations: Annotated[int, Field(ge=99)] = 9999
    """Of the sign-flip null beyond 16 groups; below, it is exact."""

    def references(self) -> dict[str, Digest]:
        return {"reference": open_model(self.reference).subject.digest()} if self.reference else {}

    def measure(self, model: Model, data: Dataset, *, seed: int, progress: Progress = quiet) -> Result:
        """Score both items of every row; every split counts, because nothing is fitted.

        Raises:
            CannotMeasure: fewer than 6 groups of rows, or a likelihood that is not a number.
            UsageError: the data are not pairs, an option is empty, or `reference` cannot be opened.
        """
        if not isinstance(data, PairSet):
            raise UsageError(f"contamination reads pairs, got a {type(data).__name__}; see docs/instruments/contamination.md")
        rows = sorted(data.rows, key=lambda row: row.canonical())
        if (n_groups := len(set(data.groups))) < MIN_GROUPS:
            raise CannotMeasure(
                f"{data.source}: expected at least {MIN_GROUPS} groups of matched items, got {n_groups}; with fewer no "
                "result can be told from chance. Add items, or give independent rows their own 'group'"
            )
        progress("models", 0, 2)
        scores = score(model, rows, batch_size=self.batch_size)
        if np.isnan(np.stack(scores)).any():
            raise CannotMeasure("expected log-likelihoods, got NaN; open the model in float32 or bfloat16")
        progress("models", 1, 2)
        reference = (
            score(open_model(self.reference, device=str(model.device)), rows, batch_size=self.batch_size)
            if self.reference
            else None
        )
        progress("models", 2, 2)
        return self.evaluate(rows, scores, reference, again=self._again(model, rows, scores, seed), seed=seed)

    def evaluate(self, rows: Sequence[PairRow], scores: Scores, reference: Scores | None, *, again: Control, seed: int) -> Result:
        """What given scores show."""
        public, fresh = (by_group(values, rows) for values in scores.accuracy())
        gap = self._mean(
            "accuracy_gap", public - fresh, "rate", "Accuracy on public items less that on matched fresh ones.", seed
        )
        nats = by_group(scores.public_right - scores.fresh_right, rows)
        likelier = self._mean(
            "log_likelihood_gap",
            nats,
            "nats",
            "Log-likelihood of the right option on public items less that on fresh ones.",
            seed,
        )
        p = sign_flip_p(public - fresh, [str(i) for i in range(len(public))], n_permutations=self.n_permutations, seed=seed)
        controls = (
            again,
            balance := _option_balance(rows, self.min_gap),
            null := _assignment_null(p, len(public)),
            unexposed := self._unexposed(rows, public - fresh, reference, seed),
        )
        withstood = balance.passed and null.passed and (reference is None or unexposed.passed)
        return Result(
            measurements=(
                gap,
                likelier,
                _rate(
                    "accuracy.public", public, "Share of public items on which the right option is the likelier; chance is 0.5."
                ),
                _rate("accuracy.fresh", fresh, "The same on the fresh items."),
            ),
            controls=controls,
            verdict=judge(gap.interval, min_gap=self.min_gap, withstood=withstood) if again.passed else "invalid",
            summary=(
                f"Right on {public.mean():.0%} of public items and on {fresh.mean():.0%} of matched fresh ones: a gap of "
                f"{gap.value:+.2f} (95 % {gap.interval.low:+.2f} to {gap.interval.high:+.2f}, {gap.n} groups, "
                f"sign-flip p = {p:.2g}) against {self.min_gap:g}; "
                + ("held against a model that cannot have seen them." if reference else "whether both are as hard was not tried.")
            ),
            figures=(_figure(nats),),
            samples=_samples(rows, scores, seed),
        )

    def _mean(self, name: str, gaps: Float[np.ndarray, " group"], unit: str, about: str, seed: int) -> Measured:
        interval = _interval(gaps, bounded=unit == "rate", n_resamples=self.n_resamples, seed=seed)
        return Measured(name=name, value=float(gaps.mean()), unit=unit, n=len(gaps), interval=interval, about=about)

    def _again(self, model: Model, rows: Sequence[PairRow], scores: Scores, seed: int) -> Control:
        """Some rows scored one prompt at a time: padding and batching must not matter."""
        checked = np.random.default_rng(seed).choice(len(rows), size=min(N_CHECKED, len(rows)), replace=False)
        alone = score(model, [rows[i] for i in checked], batch_size=1)
        error = float(np.abs(np.stack(alone) - np.stack(scores)[:, checked]).max())
        tolerance = TOLERANCE_NATS.get(model.subject.dtype, TOLERANCE_NATS["bfloat16"])
        return Control(
            name="one-at-a-time",
            passed=error <= tolerance,
            observed=_exact("one_at_a_time.max_error", error, "nats", len(checked), "Largest change when nothing is batched."),
            expected=f"<= {tolerance:g} nats in {model.subject.dtype}",
        )

    def _unexposed(
        self, rows: Sequence[PairRow], gaps: Float[np.ndarray, " group"], reference: Scores | None, seed: int
    ) -> Control:
        """Is the gap larger than that of a model that cannot have seen the public items?"""
        expected = "the model's gap is larger: 95 % interval of the difference above 0"
        if reference is None:
            reason = "no `reference` given: the folder of a model that cannot have seen the public items"
            missing = NotMeasured(name="accuracy_gap.reference", reason=reason)
            return Control(name="unexposed-reference", passed=False, observed=missing, expected=expected, fatal=False)
        public, fresh = (by_group(values, rows) for values in reference.accuracy())
        observed = self._mean("accuracy_gap.reference", public - fresh, "rate", "The same gap in the reference.", seed)
        further = _interval(gaps - (public - fresh), bounded=True, n_resamples=self.n_resamples, seed=seed)
        expected += f" (it is {further.low:+.2f} to {further.high:+.2f})"
        return Control(name="unexposed-reference", passed=further.low > 0, observed=observed, expected=expected, fatal=False)


def judge(interval: Interval, *, min_gap: float, withstood: bool) -> Verdict:
    """Supported if the low end reaches `min_gap` and the controls hold; refuted if the high end stays below it."""
    if interval.low >= min_gap and withstood:
        return "supported"
    return "refuted" if interval.high < min_gap else "inconclusive"


def _interval(gaps: Float[np.ndarray, " group"], *, bounded: bool, n_resamples: int, seed: int) -> Interval:
    """Groups resampled; gaps in accuracy with one group more at either extreme, so that it does not close when all agree."""
    values = np.append(gaps, [1.0, -1.0]) if bounded else gaps
    drawn = cluster_bootstrap(lambda i: float(values[i].mean()), range(len(values)), n_resamples=n_resamples, seed=seed)
    if not bounded:
        return drawn
    observed = float(gaps.mean())
    return Interval(low=min(drawn.low, observed), high=max(drawn.high, observed), level=drawn.level, method="cluster-bootstrap+2")


def _option_balance(rows: Sequence[PairRow], min_gap: float) -> Control:
    """The largest gap of an answerer that does not read: it always prefers one option, or the shorter of the two."""
    favoured: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        favoured[row.answer] += 1
        favoured[row.foil] -= 1
    shorter = sum(np.sign(len(row.foil) - len(row.answer)) for row in rows)
    worst = float(max(abs(n) for n in (*favoured.values(), shorter)) / len(rows))
    about = "Largest gap of an answerer that always prefers one option, or the shorter one; 0 if options are balanced."
    return Control(
        name="option-balance",
        passed=worst <= min_gap,
        observed=_exact("blind_gap", worst, "rate", len(rows), about),
        expected=f"at most min_gap = {min_gap:g}",
        fatal=False,
    )


def _assignment_null(p: float, n_groups: int) -> Control:
    about = "Chance of a gap this large, either way, if either item of each group might have been the public one."
    return Control(
        name="assignment-null",
        passed=p <= ALPHA,
        observed=_exact("assignment.p", p, "p", n_groups, about),
        expected=f"two-sided p <= {ALPHA:g}",
        fatal=False,
    )


def _exact(name: str, value: float, unit: str, n: int, about: str) -> Measured:
    return Measured(name=name, value=value, unit=unit, n=n, interval=Interval.exact(value), about=about)


def _rate(name: str, right: Float[np.ndarray, " group"], about: str) -> Measured:
    rate = group_rate(right, [str(i) for i in range(len(right))])
    return Measured(name=name, value=rate.value, unit="rate", n=rate.n_groups, interval=rate.interval, about=about)


def _figure(nats: Float[np.ndarray, " group"]) -> Curve:
    ranked = np.sort(nats)
    return Curve(
        name="gaps",
        title="Log-likelihood of the right option, public less fresh, of each group, sorted",
        x_label="group",
        y_label="gap (nats)",
        x=tuple(float(i) for i in range(1, len(ranked) + 1)),
        y=tuple(ranked.tolist()),
        reference=(0.0,) * len(ranked),
    )


def _samples(rows: Sequence[PairRow], scores: Scores, seed: int) -> tuple[Sample, ...]:
    drawn = sorted(np.random.default_rng(seed).choice(len(rows), size=min(N_SAMPLES, len(rows)), replace=False).tolist())
    public, fresh = scores.accuracy()

    def chose(right: float) -> str:
        return "right" if right > CHANCE else "wrong" if right < CHANCE else "neither"

    return tuple(
        Sample(
            prompt=rows[i].clean,
            output=f"{chose(float(public[i]))} ({scores.public_right[i]:+.2f} nats for {rows[i].answer!r})",
            note=f"fresh: {rows[i].corrupted}: {chose(float(fresh[i]))} ({scores.fresh_right[i]:+.2f} nats for {rows[i].foil!r})",
        )
        for i in drawn
    )
