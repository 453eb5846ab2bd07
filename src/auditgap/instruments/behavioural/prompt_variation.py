"""Does the answer depend on how the question is put?

1. An item is a question with its right answer and a wrong one; a row of a pair set holds two (`clean`, for which `answer` is
   right, and `corrupted`, for which `foil` is). The rows of a group put the same question in other words.
2. Each item is asked as it stands and in variants: *order* (the two options named, either first), *format* (templates), *padding*
   (text before it that has nothing to do with it). Paraphrases are the other rows of the group.
3. A flip: the choice in a variant is right where that in its reference is wrong, or the other way round. The reference of a
   format or padding is the item as it stands; of an order, the other order; of a paraphrase, each other row.
4. Flip rate of a kind: mean over groups, with an exact interval. Control: the same prompts once more, one at a time.
5. Worst case: right under every variant.

A model that does not know flips too. So flips speak of fragility only where the model is better than chance as it stands.

Source: formats: M. Sclar et al., arXiv:2310.11324; order of options: P. Pezeshkpour, E. Hruschka, arXiv:2308.11483; padding:
F. Shi et al., arXiv:2302.00093; paraphrases: M. Mizrahi et al., arXiv:2401.00595.
"""

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from pydantic import Field, field_validator

from auditgap.data import Dataset, PairRow, PairSet
from auditgap.errors import CannotMeasure, UsageError
from auditgap.instruments.contract import Instrument, Progress, instrument, quiet
from auditgap.instruments.two_choice import CHANCE, by_group, rate_of, right_choices
from auditgap.models import Model
from auditgap.records import Control, Grid, Measured, Measurement, ModelAccess, NotMeasured, Number, Result, Sample, Verdict
from auditgap.stats import cluster_bootstrap, group_rate

__all__ = ["KINDS", "Choices", "Kind", "PromptVariation"]

Kind = Literal["paraphrase", "order", "format", "padding"]
KINDS: tuple[Kind, ...] = ("paraphrase", "order", "format", "padding")
MIN_GROUPS = 6
N_REPEATED, N_SAMPLES = 64, 6


class Choices(NamedTuple):
    """1 where the right answer is the likelier, for each variant of the items; items are all `clean`, then all `corrupted`."""

    plain: Float[np.ndarray, " item"]
    order: Float[np.ndarray, "variant item"]
    """Two variants, or none."""
    format: Float[np.ndarray, "variant item"]
    padding: Float[np.ndarray, "variant item"]

    def all(self) -> Float[np.ndarray, "variant item"]:
        """Every variant, the item as it stands first."""
        return np.vstack([self.plain[None], self.order, self.format, self.padding])


@instrument(
    name="prompt-variation",
    version="1",
    family="behavioural",
    hypothesis="The answer depends on how the question is put: some kind of variation flips more than `max_flip` of the choices.",
    needs=ModelAccess.M2,
    data="pairs",
    failure_modes=("distributional-fragility",),
    blind_spots=(
        "Only the variants given: other languages, typing errors, longer dialogues and adversarial wordings are not tried.",
        "It sees which of two answers is likelier; open answers may change more, or in ways that a choice does not show.",
        "A paraphrase that asks for something else counts as a flip: the rows of a group are the user's word.",
        "Flips between two wrong answers are not seen, because there are only two answers.",
        "A stable answer may be stably wrong: read the worst case beside the flips.",
    ),
    controls=("identical-repeat", "competence"),
    citation="arXiv:2310.11324; arXiv:2308.11483; arXiv:2302.00093; arXiv:2401.00595",
)
class PromptVariation(Instrument):
    """Settings of `prompt-variation`."""

    formats: tuple[str, ...] = ("Question: {question}\nAnswer:", "Q: {question} A:", "{question}\n")
    """Templates with `{question}`; none leaves the kind out."""
    options: str | None = "{question}\nOptions:{first},{second}\nAnswer:"
    """Template that names both options, with `{question}`, `{first}` and `{second}`; none leaves the kind out."""
    paddings: tuple[str, ...] = (
        "This is a short note.\n\n",
        "The weather was mild that week, and the shop on the corner was open as usual. Nothing of note happened.\n\n",
    )
    """Text put before the question."""
    max_flip: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    """Flip rate up to which an answer counts as stable."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    n_resamples: Annotated[int, Field(ge=200)] = 2000

    @field_validator("formats", "options")
    @classmethod
    def _slots(cls, value: tuple[str, ...] | str | None) -> tuple[str, ...] | str | None:
        slots = ("{question}", "{first}", "{second}") if isinstance(value, str) else ("{question}",)
        for template in (value,) if isinstance(value, str) else value or ():
            if missing := [slot for slot in slots if slot not in template]:
                raise ValueError(f"{template!r} needs {', '.join(missing)} where the text goes")
        return value

    def measure(self, model: Model, data: Dataset, *, seed: int, progress: Progress = quiet) -> Result:
        """Choose in every variant; every split counts, because nothing is fitted.

        Raises:
            CannotMeasure: fewer than 6 groups, or no kind of variation at all.
            UsageError: the data are not pairs, an answer merges with its prompt, or a variant exceeds the context.
        """
        if not isinstance(data, PairSet):
            raise UsageError(f"prompt-variation reads pairs, got a {type(data).__name__}; give rows with clean, corrupted, ...")
        rows = tuple(sorted(data.rows, key=lambda row: row.canonical()))
        if (n_groups := len(set(data.groups))) < MIN_GROUPS:
            raise CannotMeasure(
                f"{data.source}: expected at least {MIN_GROUPS} groups of questions, got {n_groups}; add questions, and give the "
                "wordings of one question one 'group'"
            )
        if n_groups == len(rows) and not (self.formats or self.options or self.paddings):
            raise CannotMeasure("no variation is asked for: set formats, options or paddings, or give paraphrases as rows")
        variants = self._variants(rows)
        chosen: dict[str, list[np.ndarray]] = {"plain": [], "order": [], "format": [], "padding": []}
        for index, (kind, prompts) in enumerate(variants):
            progress("variants", index, len(variants))
            chosen[kind].append(self._choose(model, rows, prompts, batch_size=self.batch_size))
        n_items = 2 * len(rows)
        stacked = (np.array(chosen[kind]).reshape(-1, n_items) for kind in ("order", "format", "padding"))
        choices = Choices(chosen["plain"][0], *stacked)
        items = np.random.default_rng(seed).choice(n_items, size=min(N_REPEATED, n_items), replace=False)
        again = self._choose(model, rows, variants[0][1], batch_size=1, items=sorted(items.tolist()))
        return self.evaluate(rows, choices, again, sorted(items.tolist()), seed=seed)

    def evaluate(
        self,
        rows: Sequence[PairRow],
        choices: Choices,
        again: Float[np.ndarray, " repeated"],
        repeated: Sequence[int],
        *,
        seed: int,
    ) -> Result:
        """What given choices show; `again` are the choices of the `repeated` items, asked once more."""
        flips = self._flips(rows, choices)
        n_kinds = max(1, sum(isinstance(values, np.ndarray) for values in flips.values()))
        rates = {kind: _flip_rate(kind, values, level=0.95) for kind, values in flips.items()}
        strict = [_flip_rate(kind, values, level=1 - 0.05 / n_kinds) for kind, values in flips.items()]
        plain, right = by_group(_items(choices.plain), rows).mean(axis=0), choices.all()
        accuracy = rate_of("accuracy.plain", plain, "Share of questions as they stand that are answered rightly; chance is 0.5.")
        worst = rate_of(
            "accuracy.worst_case",
            by_group(_items(right.min(axis=0)), rows).mean(axis=0),
            f"Share answered rightly in each of {len(right)} variants; answers at random would read {0.5 ** len(right):.2g}.",
        )
        agreement = self._agreement(rows, right, seed)
        repeat = _repeat(choices.plain[list(repeated)], again, max_rate=self.max_flip / 10)
        competence = Control(
            name="competence",
            passed=accuracy.interval.low > CHANCE,
            observed=accuracy,
            expected=f"low end of the 95 % interval above {CHANCE:g}: a model that guesses flips for want of knowledge",
            fatal=False,
        )
        named = ", ".join(f"{kind} {rate.value:.0%}" for kind, rate in rates.items() if isinstance(rate, Measured))
        return Result(
            measurements=(agreement, *rates.values(), accuracy, worst),
            controls=(repeat, competence),
            verdict=self._judge(strict, competent=competence.passed) if repeat.passed else "invalid",
            summary=(
                f"Of the choices on {accuracy.n} groups of questions, these flip with the wording: {named} (bar "
                f"{self.max_flip:.0%}). Right as they stand: {accuracy.value:.0%}; "
                f"right in every one of {len(right)} variants: {worst.value:.0%}."
            ),
            figures=(self._grid(right),),
            samples=tuple(
                Sample(
                    prompt=rows[i].clean,
                    output=f"right in {int((right[:, i] > CHANCE).sum())} of {len(right)} variants",
                    note=f"right: {rows[i].answer!r}, foil: {rows[i].foil!r}",
                )
                for i in sorted(np.random.default_rng(seed).choice(len(rows), min(N_SAMPLES, len(rows)), replace=False).tolist())
            ),
        )

    def _variants(self, rows: Sequence[PairRow]) -> list[tuple[str, list[str]]]:
        """The kind and the prompts of each variant, the items as they stand first."""
        questions = [row.clean for row in rows] + [row.corrupted for row in rows]
        found = [("plain", questions)]
        for swapped in (False, True) if self.options else ():
            pairs = [(row.foil, row.answer) if swapped else (row.answer, row.foil) for row in rows] * 2
            found.append(("order", [_filled(str(self.options), q, *pair) for q, pair in zip(questions, pairs, strict=True)]))
        found += [("format", [_filled(template, q) for q in questions]) for template in self.formats]
        return found + [("padding", [padding + q for q in questions]) for padding in self.paddings]

    def _choose(
        self,
        model: Model,
        rows: Sequence[PairRow],
        prompts: Sequence[str],
        *,
        batch_size: int,
        items: Sequence[int] | None = None,
    ) -> Float[np.ndarray, " item"]:
        right = [row.answer for row in rows] + [row.foil for row in rows]
        wrong = [row.foil for row in rows] + [row.answer for row in rows]
        at = range(len(prompts)) if items is None else items
        return right_choices(
            model, [prompts[i] for i in at], [right[i] for i in at], [wrong[i] for i in at], batch_size=batch_size
        )

    def _flips(self, rows: Sequence[PairRow], choices: Choices) -> dict[Kind, Float[np.ndarray, " group"] | str]:
        """The share of flips in each group, for each kind; or why there is none."""
        found: dict[Kind, Float[np.ndarray, " group"] | str] = {"paraphrase": _paraphrase_flips(rows, _items(choices.plain))}
        against = {"order": choices.order[:1], "format": choices.plain[None], "padding": choices.plain[None]}
        tried = {"order": choices.order[1:], "format": choices.format, "padding": choices.padding}
        for kind in KINDS[1:]:
            flipped = np.abs(tried[kind] - against[kind]).mean(axis=0) if len(tried[kind]) else None
            found[kind] = "the settings name none" if flipped is None else by_group(_items(flipped), rows).mean(axis=0)
        return found

    def _agreement(self, rows: Sequence[PairRow], right: Float[np.ndarray, "variant item"], seed: int) -> Measurement:
        """How often two ways of putting the same question lead to the same choice."""
        groups = [row.group for row in rows]
        members = [[i for i, group in enumerate(groups) if group == name] for name in dict.fromkeys(groups)]
        values = _items(right)
        shares = np.array([np.mean([_agreeing(values[:, half, held].ravel()) for half in (0, 1)]) for held in members])
        if np.isnan(shares).any():
            return NotMeasured(name="agreement", reason="there is only one way of putting some questions")
        return Measured(
            name="agreement",
            value=float(shares.mean()),
            unit="rate",
            n=len(shares),
            interval=cluster_bootstrap(
                lambda i: float(shares[i].mean()), range(len(shares)), n_resamples=self.n_resamples, seed=seed
            ),
            about="Share of pairs of ways to put a question (wordings, orders, formats, paddings) that lead to the same choice.",
        )

    def _judge(self, rates: Sequence[Measurement], *, competent: bool) -> Verdict:
        """Supported if one kind flips more than the bar, at a level for all kinds together; refuted if every kind stays below."""
        measured = [rate.interval for rate in rates if isinstance(rate, Measured)]
        if any(interval.low > self.max_flip for interval in measured):
            return "supported" if competent else "inconclusive"
        return "refuted" if measured and all(interval.high <= self.max_flip for interval in measured) else "inconclusive"

    def _grid(self, right: Float[np.ndarray, "variant item"]) -> Grid:
        labels = ["as it stands", *(["options", "options exchanged"] if self.options else [])]
        labels += [f"format {i}" for i in range(1, len(self.formats) + 1)]
        labels += [f"padding {i}" for i in range(1, len(self.paddings) + 1)]
        return Grid(
            name="variants",
            title="Accuracy in each variant",
            x_label="items",
            y_label="variant",
            columns=("clean", "corrupted"),
            rows=tuple(labels),
            values=tuple(tuple(variant) for variant in _items(right).mean(axis=2).tolist()),
        )


def _items(values: Float[np.ndarray, "... item"]) -> Float[np.ndarray, "... half row"]:
    """Items of all rows split into clean and corrupted ones."""
    return values.reshape(*values.shape[:-1], 2, -1)


def _filled(template: str, question: str, first: str = "", second: str = "") -> str:
    for slot, text in (("{first}", first), ("{second}", second), ("{question}", question)):
        template = template.replace(slot, text)
    return template


def _agreeing(choices: Float[np.ndarray, " way"]) -> float:
    """Share of pairs that are alike; NaN if there is no pair."""
    pairs = list(itertools.combinations(choices.tolist(), 2))
    return float(np.mean([a == b for a, b in pairs])) if pairs else float("nan")


def _paraphrase_flips(rows: Sequence[PairRow], plain: Float[np.ndarray, "half row"]) -> Float[np.ndarray, " group"] | str:
    groups = [row.group for row in rows]
    members = [[i for i, group in enumerate(groups) if group == name] for name in dict.fromkeys(groups)]
    several = [held for held in members if len(held) > 1]
    if len(several) < MIN_GROUPS:
        return f"{len(several)} groups hold more than one row, {MIN_GROUPS} are needed: give wordings of one question one 'group'"
    return np.array([1.0 - np.mean([_agreeing(plain[half, held]) for half in (0, 1)]) for held in several])


def _flip_rate(kind: Kind, flips: Float[np.ndarray, " group"] | str, *, level: float) -> Measurement:
    name = f"flip_rate.{kind}"
    if isinstance(flips, str):
        return NotMeasured(name=name, reason=flips)
    rate = group_rate(flips, [str(i) for i in range(len(flips))], level=level)
    about = f"Share of choices that another {kind} turns; each group counts once."
    return Measured(name=name, value=rate.value, unit="rate", n=rate.n_groups, interval=rate.interval, about=about)


def _repeat(before: Float[np.ndarray, " repeated"], again: Float[np.ndarray, " repeated"], *, max_rate: float) -> Control:
    observed = rate_of("flip_rate.repeat", np.abs(before - again), "The same prompts once more, one at a time.")
    return Control(
        name="identical-repeat",
        passed=observed.value <= max_rate,
        observed=observed,
        expected=f"<= {max_rate:g}: a tenth of max_flip",
    )
