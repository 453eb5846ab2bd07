"""What erasing did, in numbers with intervals and in figures."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from auditgap.data.rows import texts
from auditgap.errors import CannotMeasure
from auditgap.instruments.directions.trial import Trial
from auditgap.models import kl_nats
from auditgap.records import Curve, Measured, Measurement, NotMeasured, Sample

__all__ = ["by_layer", "number", "samples", "share_removed", "side_effects", "summary"]

N_SAMPLES = 4


def share_removed(name: str, trial: Trial, erased: Trial, gap: Measured) -> Measurement:
    """How much of the difference is gone; none if there is no difference."""
    if gap.interval.low <= 0:
        low, high = gap.interval.low, gap.interval.high
        problem = "label 1 scores below label 0, swap answers and foils" if high < 0 else "the classes do not differ in behaviour"
        reason = f"{problem}: difference {gap.value:.3g} logits, interval {low:.3g} to {high:.3g}"
        return NotMeasured(name=name, reason=reason)
    about = "Share of the difference between the classes that erasing takes away; 1 is all of it."
    return trial.measured(name, lambda drawn: 1 - erased.difference(drawn) / trial.difference(drawn), "ratio", about)


def side_effects(
    trial: Trial, base: Float[Tensor, "prompt vocab"], erased: Float[Tensor, "prompt vocab"], read: Sequence[int]
) -> tuple[Measured, Measured]:
    """What erasing does to label-0 prompts, and on all prompts to the odds among tokens that the score does not read."""
    rest = torch.ones(base.shape[1], dtype=torch.bool)
    rest[list(read)] = False
    moved, others = kl_nats(base, erased).numpy(), kl_nats(base[:, rest], erased[:, rest]).numpy()
    return (
        trial.measured("kl_nats.label0", trial.mean(moved, 0), "nats", "Mean KL(base || erased), label-0 prompts.", label=0),
        trial.measured(
            "kl_nats.other_tokens",
            lambda drawn: float(others[drawn].mean()),
            "nats",
            "Mean KL(base || erased) of the next token, given that it is neither answer nor foil.",
        ),
    )


def number(measurement: Measurement) -> Measured:
    """The measurement, if there is one.

    Raises:
        CannotMeasure: there is none.
    """
    if isinstance(measurement, NotMeasured):
        raise CannotMeasure(f"{measurement.name}: {measurement.reason}")
    return measurement


def summary(layer: int, measured: Mapping[str, Measurement], classes: tuple[str, str]) -> str:
    """One sentence with what was taken away and what could still be read."""
    share, before, after, p = (measured[name] for name in ("share_removed", "auroc.before", "auroc.erased", "p.shuffled"))
    taken = (
        f"took away {share.value:.0%} [{share.interval.low:.0%}, {share.interval.high:.0%}] of the difference in the next token "
        f"({share.n} held-out groups, p = {number(p).value:.2g} against shuffled labels)"
        if isinstance(share, Measured)
        else f"took away nothing that could be measured: {share.reason}"
    )
    return (
        f"Erasing what is linearly readable of {classes[1]} against {classes[0]} from the last token at layer {layer} {taken}; "
        f"on unseen rows a probe read the label with AUROC {number(before).value:.2f} before, {number(after).value:.2f} after."
    )


def by_layer(layers: Sequence[int], removed: Sequence[float], areas: Sequence[Measured], *, whole: float) -> tuple[Curve, Curve]:
    """What decided on the layer: the difference taken away on val, and how well a probe reads the label there."""
    x = tuple(float(layer) for layer in layers)
    return (
        Curve(
            name="removed-by-layer",
            title="Difference that erasing at each layer takes away, on val; line: all of it",
            x_label="layer (resid_pre)",
            y_label="logits",
            x=x,
            y=tuple(removed),
            reference=(whole,) * len(x),
        ),
        Curve(
            name="readable-by-layer",
            title="AUROC on val of a probe fitted on train, before erasing",
            x_label="layer (resid_pre)",
            y_label="AUROC on val",
            x=x,
            y=tuple(area.value for area in areas),
            low=tuple(area.interval.low for area in areas),
            high=tuple(area.interval.high for area in areas),
            reference=(0.5,) * len(x),
        ),
    )


def samples(trial: Trial, erased: Trial, rng: np.random.Generator) -> tuple[Sample, ...]:
    """Random test prompts with their behaviour score before and after."""
    drawn = rng.choice(len(trial.base), size=min(N_SAMPLES, len(trial.base)), replace=False)
    return tuple(
        Sample(
            prompt="\n".join(texts(trial.rows.prompts[row])),
            output=f"{trial.base[row]:+.2f} -> {erased.base[row]:+.2f}",
            note=f"label {trial.rows.labels[row]}; behaviour score in logits, unedited -> erased",
        )
        for row in sorted(map(int, drawn))
    )
