"""Does what reads one model read the other? Probes and directions carried between them, both ways.

1. In each model fit a logistic probe at every layer on `train`; `val` chooses layer and L2 strength. The same for the difference
   of the class means.
2. Score `test` twice: at home, in the model of the fit, and away, in the other model at the same layer.
3. The drop from home to away is paired: the same prompts, and the same groups drawn in each resample.
4. The null: the labels of `test` exchanged by group, the away scores as they are. Scores that say nothing of the label have some
   AUROC too; only what beats it has carried something over.

A read-out that carries over shows that the label lies in the same place, not that either model uses it. One that does not may
have lost the label or only its place: read it beside the other model's own.

Source: difference in means as a read-out: S. Marks, M. Tegmark, arXiv:2310.06824; interval of a drop that no resample can vary:
G. Y. Zou, A. Donner, Statistics in Medicine 27 (2008) 1693-1702. The null, and carrying over both ways, are ours.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from auditgap.instruments.probing.controls import ALPHA, Folds, area_of
from auditgap.instruments.probing.fits import Method, fit
from auditgap.instruments.probing.probe import Fold, Probe, search
from auditgap.records import Control, Curve, Figure, Grid, Interval, Measured, Measurement, NotMeasured
from auditgap.stats import auroc, cluster_bootstrap, max_statistic_p, permute_labels

__all__ = ["Transfer", "carried_over", "drop_interval", "not_carried"]

Kind = Literal["probe", "direction"]
Side = Literal["base", "subject"]
METHODS: dict[Kind, Method] = {"probe": "logistic", "direction": "difference-in-means"}
SIDES: tuple[Side, Side] = ("base", "subject")
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
NO_CONTRAST = "no labelled prompts: set `contrast` to a contrast set, and probes and directions are carried over"


class Transfer(NamedTuple):
    """What carries over, and what it is held against."""

    measurements: tuple[Measurement, ...]
    control: Control
    figures: tuple[Figure, ...] = ()
    sentence: str = ""


class _Carried(NamedTuple):
    """One read-out, fitted on one model and scored on both."""

    kind: Kind
    fitted_on: Side
    away: Side
    probe: Probe
    home_scores: Float[np.ndarray, " row"]
    away_scores: Float[np.ndarray, " row"]
    p: float
    """Chance that scores which say nothing of the label do as well away."""
    by_layer: tuple[tuple[float, float], ...]
    """AUROC on `val` at home and away of the best of each layer."""

    @property
    def name(self) -> str:
        return f"transfer.{self.kind}.{self.fitted_on}_to_{self.away}"


def not_carried() -> Transfer:
    """Nothing was asked to be carried over."""
    names = [f"transfer.{kind}.{one}_to_{other}" for kind in METHODS for one, other in (SIDES, SIDES[::-1])]
    return Transfer(
        tuple(NotMeasured(name=name, reason=NO_CONTRAST) for name in names),
        _control(NotMeasured(name="transfer.p", reason=NO_CONTRAST), passed=False),
    )


def carried_over(
    base: Folds, subject: Folds, classes: tuple[str, str], *, n_permutations: int, n_resamples: int, seed: int
) -> Transfer:
    """Both read-outs, both ways; the folds hold the same prompts in the same order."""
    folds: dict[Side, Folds] = {"base": base, "subject": subject}
    found = [
        _carry(kind, one, other, folds, n_permutations=n_permutations, seed=seed)
        for kind in METHODS
        for one, other in (SIDES, SIDES[::-1])
    ]
    draws, test = {"n_resamples": n_resamples, "seed": seed}, base["test"]
    rows, cells = list[Measurement](), list[tuple[float, float]]()
    for one in found:
        where = f"of the {METHODS[one.kind]} read-out of {classes[1]} against {classes[0]} fitted on the {one.fitted_on}"
        home = area_of(
            f"transfer.{one.kind}.{one.fitted_on}",
            one.home_scores,
            test,
            **draws,
            about=f"{where}, on held-out prompts there (layer {one.probe.layer})",
        )
        away = area_of(
            one.name,
            one.away_scores,
            test,
            **draws,
            about=f"{where}, on the {one.away} at the same layer; p = {one.p:.2g} with labels exchanged",
        )
        rows += [home, away, _drop(one, home, away, test, **draws)]
        cells.append((home.value, away.value) if one.fitted_on == "base" else (away.value, home.value))
    rows.append(_cosine(found, folds, n_permutations=n_permutations, **draws))
    worst = max(found, key=lambda one: one.p)
    observed = Measured(
        name="transfer.p",
        value=worst.p,
        unit="p",
        n=n_permutations,
        interval=Interval.exact(worst.p),
        about=f"Of the read-out that carries least ({worst.name}): share of exchanged labellings that it fits as well there.",
    )
    return Transfer(
        tuple(rows),
        _control(observed, passed=observed.value <= ALPHA),
        (_table(found, cells), _by_layer(found[0])),
        _sentence(found[0], rows, classes),
    )


def drop_interval(
    home: Float[np.ndarray, " row"],
    away: Float[np.ndarray, " row"],
    fold: Fold,
    home_interval: Interval,
    away_interval: Interval,
    *,
    n_resamples: int,
    seed: int,
) -> Interval:
    """Where the loss of AUROC from one set of scores to another of the same rows lies.

    Groups are resampled, so what both scores find hard cancels. Two perfect separations cannot vary under resampling: there the
    two intervals are joined as if the scores were independent, which is too wide rather than too short.
    """
    labels = fold.labels
    if np.array_equal(home, away):
        return Interval.exact(0.0)

    def drop(rows: np.ndarray) -> float:
        return auroc(home[rows], labels[rows]) - auroc(away[rows], labels[rows])

    resampled = cluster_bootstrap(drop, fold.groups, n_resamples=n_resamples, seed=seed)
    if resampled.low < resampled.high:
        return resampled
    h, a = auroc(home, labels), auroc(away, labels)
    return Interval(
        low=h - a - float(np.hypot(h - home_interval.low, away_interval.high - a)),
        high=h - a + float(np.hypot(home_interval.high - h, a - away_interval.low)),
        level=resampled.level,
        method="zou-donner",
    )


def _carry(kind: Kind, one: Side, other: Side, folds: dict[Side, Folds], *, n_permutations: int, seed: int) -> _Carried:
    home, away, method = folds[one], folds[other], METHODS[kind]
    scaled = kind == "probe"  # a direction is the plain difference of the means, in the units of the stream
    found = search(home["train"], home["val"], method=method, strengths=STRENGTHS, standardise=scaled, seed=seed)
    probe, test, rng = found.probe, away["test"], np.random.default_rng([seed, 5])
    scores = probe.scores(test)
    exchanged = (permute_labels(test.labels, test.groups, rng) for _ in range(n_permutations))
    null = [auroc(scores, labels) for labels in exchanged]
    return _Carried(
        kind,
        one,
        other,
        probe,
        probe.scores(home["test"]),
        scores,
        max_statistic_p(auroc(scores, test.labels), null),
        tuple((auroc(p.scores(home["val"]), home["val"].labels), auroc(p.scores(away["val"]), away["val"].labels))
              for p in found.probes),
    )  # fmt: skip


def _drop(one: _Carried, home: Measured, away: Measured, test: Fold, *, n_resamples: int, seed: int) -> Measurement:
    name = f"{one.name}.drop"
    if home.interval.low <= 0.5:
        reason = f"the read-out does not work on the {one.fitted_on} itself (AUROC {home.value:.2f}), so it has nothing to lose"
        return NotMeasured(name=name, reason=reason)
    return Measured(
        name=name,
        value=home.value - away.value,
        unit="auroc",
        n=home.n,
        interval=drop_interval(
            one.home_scores, one.away_scores, test, home.interval, away.interval, n_resamples=n_resamples, seed=seed
        ),
        about=f"AUROC on the {one.fitted_on} less AUROC on the {one.away}, same prompts: 0 if all of it carries over.",
    )


def _cosine(
    found: Sequence[_Carried], folds: dict[Side, Folds], *, n_permutations: int, n_resamples: int, seed: int
) -> Measurement:
    """Whether the two models hold the label along the same direction, at the layer that the base chose."""
    name = "transfer.direction.cosine"
    ours = next(one for one in found if one.kind == "direction" and one.fitted_on == "base")
    layer, groups = ours.probe.layer, list(dict.fromkeys(folds["base"]["train"].groups))
    sums = {side: _class_sums(folds[side]["train"], layer, groups) for side in SIDES}

    def cosine(drawn: np.ndarray) -> float:
        return _cos(*(_mean_difference(sums[side], drawn) for side in SIDES))

    value = cosine(np.arange(len(groups)))
    if np.isnan(value):
        return NotMeasured(name=name, reason=f"in one of the models the class means do not differ at layer {layer}")
    theirs, train, rng = (
        _mean_difference(sums["subject"], np.arange(len(groups))),
        folds["base"]["train"],
        np.random.default_rng([seed, 6]),
    )
    exchanged = np.stack([permute_labels(train.labels, train.groups, rng) for _ in range(n_permutations)])
    null = fit(train.at(layer), exchanged, method=METHODS["direction"], strengths=[1.0], standardise=False).weights[0]
    typical = np.quantile([abs(_cos(theirs, one)) for one in null], 0.95)
    return Measured(
        name=name,
        value=value,
        unit="cosine",
        n=len(groups),
        interval=cluster_bootstrap(cosine, range(len(groups)), n_resamples=n_resamples, seed=seed),
        about=f"Cosine of the two models' differences in class means at layer {layer}, on `train`: 1 if the label lies along one "
        f"direction in both. With labels exchanged in the base, 95 % lie within {typical:.2f} of 0.",
    )


def _class_sums(fold: Fold, layer: int, groups: Sequence[str]) -> Float[np.ndarray, "label group d_and_count"]:
    """Sum of the activations of each label in each group, and in the last column how many there were."""
    rows, number = fold.features[layer].astype(np.float64), {group: i for i, group in enumerate(groups)}
    sums = np.zeros((2, len(groups), rows.shape[1] + 1))
    codes = np.array([number[group] for group in fold.groups])
    for label in (0, 1):
        of_label = fold.labels == label
        np.add.at(sums[label], codes[of_label], np.column_stack([rows, np.ones(len(rows))])[of_label])
    return sums


def _mean_difference(sums: Float[np.ndarray, "label group d_and_count"], drawn: np.ndarray) -> Float[np.ndarray, " d"]:
    zero, one = sums[:, drawn].sum(axis=1)
    if not (zero[-1] and one[-1]):
        return np.full(sums.shape[-1] - 1, np.nan)
    return one[:-1] / one[-1] - zero[:-1] / zero[-1]


def _cos(x: Float[np.ndarray, " d"], y: Float[np.ndarray, " d"]) -> float:
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(np.clip(x @ y / norm, -1.0, 1.0)) if norm else float("nan")


def _control(observed: Measurement, *, passed: bool) -> Control:
    expected = f"p <= {ALPHA:g} for each: what carries over tells the labels apart better than exchanged ones"
    return Control(name="transfer-null", passed=passed, observed=observed, expected=expected, fatal=False)


def _table(found: Sequence[_Carried], cells: list[tuple[float, float]]) -> Grid:
    return Grid(
        name="transfer",
        title="AUROC on held-out prompts of read-outs carried from one model to the other",
        x_label="scored on",
        y_label="fitted on",
        columns=SIDES,
        rows=tuple(f"{one.kind} of the {one.fitted_on}" for one in found),
        values=tuple(cells),
    )


def _by_layer(one: _Carried) -> Curve:
    home, away = zip(*one.by_layer, strict=True)
    return Curve(
        name="transfer-layers",
        title="AUROC on `val` of the base's probe on the subject; line: on the base itself",
        x_label="layer (resid_post)",
        y_label="AUROC",
        x=tuple(map(float, range(len(away)))),
        y=away,
        reference=home,
    )


def _sentence(one: _Carried, rows: Sequence[Measurement], classes: tuple[str, str]) -> str:
    home, away, drop = rows[:3]
    lost = (
        f"; drop {drop.value:.2f} (95 % {drop.interval.low:.2f} to {drop.interval.high:.2f})" if drop.status == "measured" else ""
    )
    figures = " and ".join(
        f"{m.value:.2f} on the {side}" for m, side in ((home, "base"), (away, "subject")) if m.status == "measured"
    )
    return f" The base's probe for {classes[1]} against {classes[0]} (layer {one.probe.layer}) reads AUROC {figures}{lost}."
