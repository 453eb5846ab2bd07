"""What did training change? A model against the checkpoint it came from: weights, activations and predictions.

1. Open the base as the subject was opened; refuse the pair if a difference could come from anything but the weights
   (`comparison/opening.py`).
2. Weights, matrix by matrix: spectrum of the change, structure beyond noise, rounding (`spectra.py`).
3. On the same prompts: KL of the next token, drift of the residual stream by layer (`reading.py`, `drift.py`).
4. The same for copies of the base with random weight changes of the same size: what size alone does (`noise.py`).
5. What the mean difference says in tokens, where half of the prompts agree with the other half (`lens.py`).
6. The slices of the data that moved most (`slices.py`).
7. With labelled prompts: whether a probe or direction fitted on one model reads the other (`transfer.py`).

It finds that something changed, where, and on which prompts; whether the change is harmful it cannot say.

Source: weight differences and activation-difference lens: arXiv:2510.13900; all nulls as named in the files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from auditgap.data import ContrastSet, Dataset, Prompt, PromptRow, PromptSet, load
from auditgap.errors import CannotMeasure, UsageError
from auditgap.instruments.comparison.model_diff.drift import cka_interval, debiased_cka
from auditgap.instruments.comparison.model_diff.figures import drift_curve, samples, similarity_curve, weight_map
from auditgap.instruments.comparison.model_diff.lens import consistencies, exchanged_signs, read_out
from auditgap.instruments.comparison.model_diff.noise import NoisyTwins, family_p
from auditgap.instruments.comparison.model_diff.reading import Comparison, Reading, compare, read
from auditgap.instruments.comparison.model_diff.results import (
    Bounds,
    Findings,
    controls_of,
    measurements_of,
    summary_of,
    verdict_of,
)
from auditgap.instruments.comparison.model_diff.slices import moved_most
from auditgap.instruments.comparison.model_diff.transfer import Transfer, carried_over, not_carried
from auditgap.instruments.comparison.model_diff.weights import compare_weights
from auditgap.instruments.comparison.opening import require_comparable, weight_cosine
from auditgap.instruments.contract import Instrument, Location, Progress, instrument, quiet
from auditgap.instruments.mechanistic.linear_probe.reading import Reader, in_one_order, require_groups
from auditgap.models import Model, open_model
from auditgap.records import Digest, Measured, ModelAccess, Number, Property, Result
from auditgap.stats import cluster_bootstrap, flip_rate

__all__ = ["ModelDiff"]

MIN_GROUPS = 8
PROVES: dict[str, Property] = {
    "matched-noise": "random-baseline",
    "slice-search": "search-null",
    "exchanged-models": "consistency",
}


@instrument(
    name="model-diff",
    version="2",
    family="comparison",
    hypothesis=(
        "training changed the model on these prompts: next-token predictions by more than max_kl_nats or the residual stream by "
        "more than max_drift, and by more than random weight changes of the same size would"
    ),
    needs=ModelAccess.M6,
    data="prompts",
    failure_modes=(
        "inner-misalignment",
        "emergent-misalignment",
        "trigger-backdoor",
        "supply-chain-inheritance",
        "release-drift",
    ),
    blind_spots=(
        "It says that, where and on which prompts the model changed, not whether the change is harmful.",
        "Prompts unlike those given: a trigger that no prompt holds may leave predictions and activations as they were; "
        "only the weights can show that something is there.",
        "KL is that of the next token: what changes later in an answer is not seen.",
        "A flaw that the base has too.",
        "That the base is the checkpoint from before training is the caller's word; only that the two are related is checked.",
        "Rescaling that leaves the function as it was (norm gains, gated units) moves weights: a large change, no effect.",
        "A label that the subject holds elsewhere, or in a curve, does not carry over, and neither does one that it has lost.",
        "Readable traces of narrow training vanish when ordinary data are mixed in.",
    ),
    controls=(
        "base-against-base",
        "same-lineage",
        "matched-noise",
        "planted-rank-one",
        "weights-unstructured",
        "exchanged-models",
        "slice-search",
        "transfer-null",
    ),
    citation="arXiv:2510.13900; arXiv:2012.02985; arXiv:1905.00414",
)
class ModelDiff(Instrument):
    """Settings of `model-diff`."""

    base: Location
    """Directory or Hub id of the checkpoint from before training."""
    base_revision: str | None = None
    """Commit, if `base` is a Hub id."""
    base_adapter: Location | None = None
    """Adapter that the base is merged with, if it has one."""
    dtype: str = "float32"
    """The dtype that the subject is opened in; the base is opened in the same."""
    max_kl_nats: Annotated[Number, Field(gt=0)] = 0.01
    """Mean KL(base || subject) of the next token up to which predictions count as unchanged."""
    max_drift: Annotated[Number, Field(gt=0)] = 0.05
    """Movement of the residual stream, as a share of its size, up to which the inside counts as unchanged."""
    position: Literal["last", "mean"] | int = "last"
    """Which token's residual stream is compared."""
    lens_layer: Annotated[int, Field(ge=0)] | None = None
    """Layer whose mean difference is read in tokens; the middle one if not set."""
    contrast: Location | None = None
    """A contrast set: with it, a probe and a direction for its label are carried from each model to the other."""
    slices: Literal["group", "split"] = "group"
    """What the table of slices compares: groups of at least 3 rows, or splits."""
    n_noise: Annotated[int, Field(ge=19)] = 39
    """Random weight changes of the same size; 19 are the fewest that can reach p = 0.05."""
    n_flips: Annotated[int, Field(ge=19)] = 19
    """Sign-flipped copies of each matrix's change."""
    n_permutations: Annotated[int, Field(ge=19)] = 199
    """Exchanges of model labels, and dealings of prompts to slices."""
    n_resamples: Annotated[int, Field(ge=200)] = 2000
    batch_size: Annotated[int, Field(ge=1)] = 32

    def references(self) -> dict[str, Digest]:
        """The base, by digest: that it could be opened is what raises the access to M6; and the contrast set, if there is one.

        Raises:
            SubjectError: the base cannot be opened safely.
            DataError: the contrast set breaks its format.
        """
        labelled = {"contrast": load(self.contrast, "contrast").ref().content} if self.contrast else {}
        return {"base": self._open("cpu").subject.digest()} | labelled

    def measure(self, model: Model, data: Dataset, *, seed: int, progress: Progress = quiet) -> Result:
        """Compare weights, then what both models do with the prompts, then hold it against noise of the same size.

        Raises:
            CannotMeasure: fewer than 8 groups, a pair of models that cannot be compared, or a contrast set with fewer than 4
                groups of a class in a split.
            UsageError: another kind of data, or a layer out of range.
            SubjectError: the base cannot be opened safely.
        """
        if not isinstance(data, PromptSet):
            raise UsageError(f"model-diff reads a prompt set, got a {type(data).__name__}; give it rows with a prompt each")
        rows = sorted(data.rows, key=lambda row: row.canonical())
        groups = sorted({row.group for row in rows})
        if len(groups) < MIN_GROUPS:
            raise CannotMeasure(
                f"{data.source}: expected at least {MIN_GROUPS} groups of prompts, got {len(groups)}; "
                "with fewer the interval is too short. Add prompts"
            )
        layer = model.n_layers // 2 if self.lens_layer is None else self.lens_layer
        model.sites.check([f"resid_post.{layer}"])
        labelled = self._labelled()
        base, prompts = self._open(str(model.device)), [row.prompt for row in rows]
        require_comparable(model, base, [*prompts, *(labelled.prompts if labelled else ())], role="base")
        codes = np.array([groups.index(row.group) for row in rows])

        weights = compare_weights(base.hf, model.hf, n_flips=self.n_flips, seed=seed, progress=progress)
        before, after, again = (self._read(one, prompts) for one in (base, model, base))
        seen = compare(before, after, codes)
        noise = self._noise(base, model, before, prompts, codes, seed, progress) if weights.n_changed_tensors else None
        signs = exchanged_signs(self.n_permutations, len(groups), seed=seed)
        consistency, null_consistency = consistencies(seen.delta, signs)
        cka = [debiased_cka(b, a) for b, a in zip(before.stream, after.stream, strict=True)]
        lowest = int(np.argmin(cka))
        units, slice_names = self._slices(rows, seen, groups)
        found = Findings(
            base=base.subject,
            bounds=Bounds(self.max_kl_nats, self.max_drift),
            row_groups=[row.group for row in rows],
            seen=seen,
            identity=compare(before, again, codes).statistics(),
            weights=weights,
            lineage=weight_cosine(model.hf, base.hf),
            noise=noise,
            p=np.ones(1 + model.n_layers) if noise is None else family_p(seen.statistics(), noise),
            consistency=consistency,
            null_consistency=null_consistency,
            lens_layer=layer,
            lens=read_out(base, seen.delta[layer], signs, prompt=prompts[0], seed=seed) if consistency[layer] > 0 else None,
            cka=np.array(cka),
            cka_interval=cka_interval(before.stream[lowest], after.stream[lowest], codes, seed=seed),
            transfer=self._transfer(base, model, labelled, seed) if labelled else not_carried(),
            slices=moved_most(units, slice_names, n_permutations=self.n_permutations, n_resamples=self.n_resamples, seed=seed),
            n_resamples=self.n_resamples,
            seed=seed,
        )
        controls = controls_of(found)
        verdict = verdict_of(found, controls)
        return Result(
            measurements=measurements_of(found),
            controls=controls,
            properties=tuple(PROVES[c.name] for c in controls if c.passed and c.name in PROVES),
            verdict=verdict,
            summary=summary_of(found, verdict),
            figures=(
                drift_curve(seen, noise),
                *similarity_curve(found.cka),
                *weight_map(weights, model.sites.layers_path, model.n_layers),
                *found.transfer.figures,
            ),
            samples=samples(model, prompts, before.logits, after.logits, seen, seed=seed),
            flip_rate=self._flip_rate(seen, seed),
        )

    def _open(self, device: str) -> Model:
        return open_model(self.base, revision=self.base_revision, adapter=self.base_adapter, dtype=self.dtype, device=device)

    def _read(self, model: Model, prompts: Sequence[Prompt]) -> Reading:
        return read(model, prompts, position=self.position, batch_size=self.batch_size)

    def _labelled(self) -> ContrastSet | None:
        """The contrast set, refused here if it is too small, before anything is measured."""
        if self.contrast is None:
            return None
        data = in_one_order(load(self.contrast, "contrast"))
        require_groups(data)
        return data

    def _transfer(self, base: Model, model: Model, data: ContrastSet, seed: int) -> Transfer:
        sites = [f"resid_post.{layer}" for layer in range(model.n_layers)]
        reader = Reader(sites, [self.position], all_tokens=False, batch_size=self.batch_size)
        before, after = (reader.read(one, data, folder=Path()) for one in (base, model))  # the folder serves other positions
        draws = {"n_permutations": self.n_permutations, "n_resamples": self.n_resamples, "seed": seed}
        return carried_over(before, after, data.classes, **draws)

    def _noise(
        self,
        base: Model,
        model: Model,
        before: Reading,
        prompts: Sequence[Prompt],
        codes: Int[np.ndarray, " prompt"],
        seed: int,
        progress: Progress,
    ) -> Float[np.ndarray, "draw statistic"]:
        twins, drawn = NoisyTwins(base, model, seed=seed), []
        for index in range(self.n_noise):
            progress("noise of the same size", index, self.n_noise)
            drawn.append(compare(before, self._read(twins.draw(index), prompts), codes).statistics())
        return np.array(drawn)

    def _slices(self, rows: list[PromptRow], seen: Comparison, groups: list[str]) -> tuple[Float[np.ndarray, " unit"], list[str]]:
        """The KL of each unit and the slice it belongs to."""
        if self.slices == "group":
            return seen.prompt_kl, [row.group for row in rows]
        split_of = {row.group: row.split for row in rows}
        return seen.kl, [split_of[group] for group in groups]

    def _flip_rate(self, seen: Comparison, seed: int) -> Measured:
        """Whether the other direction of KL, or the median prompt, would have led to another conclusion."""
        rows = range(len(seen.kl))
        statistics = {
            "mean KL(base || subject)": lambda drawn: float(seen.kl[drawn].mean()),
            "mean KL(subject || base)": lambda drawn: float(seen.reverse_kl[drawn].mean()),
            "median KL(base || subject)": lambda drawn: float(np.median(seen.kl[drawn])),
        }
        lows = {
            name: cluster_bootstrap(statistic, rows, n_resamples=self.n_resamples, seed=seed).low
            for name, statistic in statistics.items()
        }
        return flip_rate({name: low > self.max_kl_nats for name, low in lows.items()})
