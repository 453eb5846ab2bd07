"""A layer with an eraser at work: the activations there, the model's answers, and what a probe can still read."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from auditgap.data import Split
from auditgap.data.rows import texts
from auditgap.errors import CannotMeasure
from auditgap.instruments.directions.bench import Bench, Rows
from auditgap.instruments.directions.trial import Trial
from auditgap.instruments.probing.controls import area_of
from auditgap.instruments.probing.fits import fit, fit_logistic, moments
from auditgap.instruments.probing.probe import Fold
from auditgap.models import Edit, capture, editing
from auditgap.records import Measured
from auditgap.stats.leace import Eraser, Leace

__all__ = ["OTHER_ABLATION", "Place", "alternatives", "erase_last", "mean_difference_eraser", "places_at"]

STRENGTH = 1e-2  # C of the probes that look for what is left; features are standardised
OTHER_ABLATION = "mean difference projected out"


@dataclass(frozen=True, eq=False)
class Place:
    """One site: the last-token activations of each split there, and the model with an eraser at work there."""

    bench: Bench
    site: str
    rows: dict[Split, Rows]
    features: dict[Split, Float[np.ndarray, "row d"]]

    def erasers(self, labellings: Int[np.ndarray, "labelling train"], *, shrink: bool = True) -> list[Eraser]:
        """One eraser for each labelling of `train`."""
        fitter = Leace(self.features["train"].shape[1], len(labellings), shrink=shrink)
        fitter.update(self.features["train"], labellings.T)
        return fitter.column_erasers()

    def eraser(self, *, shrink: bool = True) -> Eraser:
        """The eraser of the label."""
        return self.erasers(self.rows["train"].labels[None], shrink=shrink)[0]

    def logits(self, split: Split, eraser: Eraser) -> Float[Tensor, "prompt vocab"]:
        """Next-token logits with the eraser at work."""
        with editing(self.bench.model, {self.site: erase_last(eraser)}):
            return self.bench.base(self.rows[split].prompts)

    def erased(self, split: Split, trial: Trial, eraser: Eraser) -> Trial:
        """The trial of the same rows with the eraser at work."""
        return replace(trial, base=self.bench.scores(self.logits(split, eraser)))

    def difference(self, split: Split, trial: Trial, eraser: Eraser) -> float:
        """What is left of the difference between the classes."""
        return self.erased(split, trial, eraser).difference(trial.every)

    def residual(self, eraser: Eraser) -> float:
        """How far apart the class means of `train` are inside the edited model, relative to the unedited one."""
        rows = self.rows["train"]
        with editing(self.bench.model, {self.site: erase_last(eraser)}):
            edited = capture(self.bench.model, rows.prompts, [self.site], batch_size=self.bench.batch_size)[self.site].numpy()
        before, after = (np.linalg.norm(_mean_gap(x, rows.labels)) for x in (self.features["train"], edited))
        return float(after / before) if before > 0 else 0.0

    def coefficient(self, eraser: Eraser) -> float:
        """The largest weight that a logistic probe of the erased fitting rows ends up with (C = 1)."""
        erased = eraser(self.features["train"].astype(np.float64))
        centre, spread = moments(erased)
        weights, _ = fit_logistic((erased - centre) / spread, self.rows["train"].labels[None], strengths=[1.0])
        return float(np.abs(weights).max())

    def readable(
        self, name: str, fit_on: Split, trial: Trial, about: str, *, before: Eraser | None = None, after: Eraser | None = None
    ) -> Measured:
        """AUROC on the trial's rows of a probe fitted on another split, with the rows erased `before` or `after` the fit."""
        score_on: Split = "val" if trial.rows is self.rows["val"] else "test"
        fitted = self.features[fit_on] if before is None else before(self.features[fit_on])
        scored = self.features[score_on] if after is None else after(self.features[score_on])
        probe = fit(fitted, self.rows[fit_on].labels[None], method="logistic", strengths=[STRENGTH])
        fold = Fold(scored[None], trial.rows.labels, trial.rows.groups)
        return area_of(name, probe.scores(scored)[0, 0], fold, n_resamples=trial.n_resamples, seed=trial.seed, about=about)

    def read_before_and_after(self, trial: Trial, eraser: Eraser) -> tuple[Measured, Measured, Measured]:
        """What probes read on rows that the eraser never saw."""
        same, new = "the same probe on erased rows", "a new probe, fitted on erased rows of `val`; above 0.5 where rows are few"
        return (
            self.readable("auroc.before", "val", trial, "a probe fitted on `val`, scored on `test`, before erasing"),
            self.readable("auroc.erased", "val", trial, same, after=eraser),
            self.readable("auroc.refitted", "val", trial, new, before=eraser, after=eraser),
        )

    def folds(self) -> dict[Split, Fold]:
        """What the leakage control looks at."""
        return {
            split: Fold(x[None], rows.labels, rows.groups, ["\n".join(texts(prompt)) for prompt in rows.prompts])
            for (split, rows), x in zip(self.rows.items(), self.features.values(), strict=True)
        }


def erase_last(eraser: Eraser) -> Edit:
    """Erase at the last token of each prompt and leave the others alone."""
    mean, write, read = (torch.from_numpy(part) for part in (eraser.mean, eraser.write, eraser.read))

    def edit(x: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos d"]:
        last = x[:, -1].cpu().double()
        x[:, -1] = (last - (last - mean) @ read.T @ write.T).to(x.device, x.dtype)
        return x

    return edit


def mean_difference_eraser(x: Float[np.ndarray, "row d"], labels: Int[np.ndarray, " row"]) -> Eraser:
    """The orthogonal projection along the difference of the class means: the plain way to make them equal."""
    gap = _mean_gap(x, labels)
    unit = gap[:, None] / norm if (norm := np.linalg.norm(gap)) > 0 else np.zeros((len(gap), 0))
    return Eraser(x.mean(axis=0, dtype=np.float64), unit, unit.T)


def _mean_gap(x: Float[np.ndarray, "row d"], labels: Int[np.ndarray, " row"]) -> Float[np.ndarray, " d"]:
    return x[labels == 1].mean(axis=0, dtype=np.float64) - x[labels == 0].mean(axis=0, dtype=np.float64)


def places_at(bench: Bench, rows: dict[Split, Rows], sites: list[str]) -> list[Place]:
    """The sites, read once for every split.

    Raises:
        CannotMeasure: an activation is not finite.
    """
    captured: dict[Split, dict[str, Tensor]] = {
        split: capture(bench.model, part.prompts, sites, batch_size=bench.batch_size) for split, part in rows.items()
    }
    for split, by_site in captured.items():
        for site, x in by_site.items():
            if not x.isfinite().all():
                raise CannotMeasure(
                    f"{site}: expected finite activations, got NaN or infinity in split '{split}'; open in float32"
                )
    return [Place(bench, site, rows, {split: by_site[site].numpy() for split, by_site in captured.items()}) for site in sites]


def alternatives(places: list[Place], ranked: list[int], eraser: Eraser) -> list[tuple[str, Place, Eraser]]:
    """Other reasonable ways: no shrinkage, a plain projection, the layer that came second."""
    place = places[ranked[0]]
    plain = mean_difference_eraser(place.features["train"], place.rows["train"].labels)
    found = [
        ("LEACE", place, eraser),
        ("LEACE without shrinkage", place, place.eraser(shrink=False)),
        (OTHER_ABLATION, place, plain),
    ]
    return found + [(f"LEACE at {places[i].site}", places[i], places[i].eraser()) for i in ranked[1:2]]
