"""Heat maps of the grid, random held-out pairs, and the sentence a person can quote."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from auditgap.instruments.mechanistic.activation_patching.interventions import LocusRuns
from auditgap.instruments.patching.locus import Locus
from auditgap.instruments.patching.pairs import Columns, Pairs
from auditgap.models.patch import Direction
from auditgap.records import Grid, Measured, Measurement, Sample

__all__ = ["grids", "samples", "summary", "where"]


def grids(
    way: Direction,
    locus: Locus,
    effects: Float[np.ndarray, "layer head column"],
    low: Float[np.ndarray, "layer head column"],
    columns: Columns,
) -> tuple[Grid, ...]:
    """Mean effects and the low ends of their intervals by layer and position; of `z` also by layer and head, at the locus."""
    verb = "restored" if way == "denoising" else "destroyed"
    title = f"Share of the gap {verb} by patching {locus.site}"
    largest = effects.argmax(axis=1)[:, None]
    by_position = [
        _grid(f"{way}.{locus.site}{suffix}", f"{title}{note}", "token position", columns.labels, values)
        for suffix, note, values in (
            ("", "", np.take_along_axis(effects, largest, axis=1)[:, 0]),
            (".low", ", low end of 95 % (each cell alone)", np.take_along_axis(low, largest, axis=1)[:, 0]),
        )
    ]
    if locus.site != "z":
        return tuple(by_position)
    heads = tuple(str(head) for head in range(effects.shape[1]))
    here = f"{title}, by head at '{columns.labels[locus.column]}'"
    return (*by_position, _grid(f"{way}.z.heads", here, "head", heads, effects[:, :, locus.column]))


def _grid(name: str, title: str, x_label: str, columns: tuple[str, ...], values: Float[np.ndarray, "layer column"]) -> Grid:
    return Grid(
        name=name,
        title=title,
        x_label=x_label,
        y_label="layer",
        columns=columns,
        rows=tuple(str(layer) for layer in range(len(values))),
        values=tuple(tuple(float(value) for value in row) for row in values),
    )


def samples(pairs: Pairs, at: LocusRuns, rows: Sequence[int]) -> tuple[Sample, ...]:
    """Random held-out pairs with the logit difference of each run."""
    paired = at.by_kind["paired"]
    runs = {"clean": at.clean, "corrupted": paired.corrupted, "denoised": paired.denoised, "noised": paired.noised}
    return tuple(
        Sample(
            prompt=f"{pairs.rows[row].clean} | {pairs.rows[row].corrupted}",
            output=", ".join(f"{name} {run.logit_diff[row]:+.2f}" for name, run in runs.items()),
            note=f"logit of {pairs.rows[row].answer!r} less that of {pairs.rows[row].foil!r}",
        )
        for row in rows
    )


def where(locus: Locus, columns: Columns) -> str:
    """`z.3 head 2 at 'prompt end'`."""
    head = f" head {locus.head}" if locus.site == "z" else ""
    return f"{locus.name}{head} at '{columns.labels[locus.column]}'"


def summary(place: str, measured: Mapping[str, Measurement], *, n_kept: int, n_all: int) -> str:
    """Sufficiency and necessity of the place, on pairs that did not choose it."""
    restored, destroyed = (
        f"{m.value:.0%} [{m.interval.low:.0%}, {m.interval.high:.0%}]" if isinstance(m, Measured) else "an unknown share"
        for m in (measured["effect.denoising.max"], measured["effect.noising"])
    )
    return (
        f"Patching {place} alone restored {restored} of the logit difference in the corrupted runs and "
        f"destroyed {destroyed} in the clean runs, on held-out pairs ({n_kept} of {n_all} pairs showed the behaviour)."
    )
