"""model-diff against pairs of models whose difference is known: an edit, a copy, rounding, noise, a real fine-tune."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_models import BASIS, FILLERS, build, read, write
from transformers import LlamaForCausalLM

from auditgap.data import ContrastSet, Message, PromptRow, PromptSet
from auditgap.errors import CannotMeasure, SubjectError, UsageError
from auditgap.instruments.comparison.model_diff import ModelDiff
from auditgap.instruments.comparison.model_diff.drift import debiased_cka, debiased_hsic, mean_consistency
from auditgap.instruments.comparison.model_diff.lens import logit_lens
from auditgap.instruments.comparison.model_diff.noise import family_p
from auditgap.instruments.comparison.model_diff.slices import moved_most
from auditgap.instruments.comparison.model_diff.spectra import (
    effective_rank,
    flipped,
    rounded_share,
    signal_rank,
    stable_rank,
    top_energy,
)
from auditgap.instruments.comparison.model_diff.weights import compare_weights
from auditgap.instruments.comparison.opening import weight_cosine
from auditgap.models import Model, capture, next_logits, open_model
from auditgap.records import Measured, Result

MARKED, PLAIN = [f"p{i}" for i in range(8)], [f"q{i}" for i in range(8)]
FAST = {"n_noise": 19, "n_flips": 19, "n_permutations": 99, "n_resamples": 200}
DATA = PromptSet(
    name="made",
    source="made",
    rows=tuple(
        PromptRow(prompt=f"{FILLERS[i % 12]} {FILLERS[(3 * i + 5 * j) % 12]} {word}", group=word, split="test")
        for i, word in enumerate([*MARKED, *PLAIN])
        for j in (1, 2, 3)
    ),
)
MIDDLE = "model.layers.1.mlp.down_proj.weight"


def some_behaviour(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
    read(hf, ids["no"], 0.5 * BASIS[0])
    for word in MARKED:
        write(hf, ids[word], BASIS[1])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    build(folder, [*MARKED, *PLAIN], some_behaviour)
    return folder


def changed(base: Path, folder: Path, change: Callable[[LlamaForCausalLM], None]) -> Model:
    """The base with a change, saved and opened again."""
    shutil.copytree(base, folder, dirs_exist_ok=True)
    hf = LlamaForCausalLM.from_pretrained(base)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        change(hf)
    hf.save_pretrained(folder)
    return open_model(folder)


def measure(base: Path, subject: Model, data: PromptSet = DATA, **config) -> Result:
    return ModelDiff(base=str(base), **{**FAST, **config}).measure(subject, data, seed=0)


def value(result: Result, name: str) -> float:
    found = result.measurement(name)
    assert isinstance(found, Measured), found
    return found.value


def passed(result: Result, name: str) -> bool:
    return next(control.passed for control in result.controls if control.name == name)


def rank_one(hf: LlamaForCausalLM) -> None:
    """A random direction of an MLP's hidden layer written along a random direction of the stream."""
    with torch.no_grad():
        weight = hf.model.layers[1].mlp.down_proj.weight
        u, v = torch.randn(weight.shape[0]), torch.randn(weight.shape[1])
        weight += 3.0 * torch.outer(u / u.norm(), v / v.norm())


def rounded(hf: LlamaForCausalLM) -> None:
    hf.to(torch.bfloat16).to(torch.float32)


def noisy(hf: LlamaForCausalLM) -> None:
    with torch.no_grad():
        for p in hf.parameters():
            if p.ndim > 1:
                p += 0.05 * p.std() * torch.randn_like(p)


def fine_tuned(hf: LlamaForCausalLM) -> None:
    """Thirty steps of AdamW towards `yes` (token 3) after marked words and `no` (4) after the others."""
    input_ids = word_ids()
    optimiser = torch.optim.AdamW(hf.parameters(), lr=2e-3)
    targets = torch.tensor([3 if row.group in MARKED else 4 for row in DATA.rows])
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(hf(input_ids).logits[:, -1], targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    hf.eval()


def word_ids() -> torch.Tensor:
    names = ["<unk>", "<s>", "</s>", "yes", "no", "oui", "si", "ja", *FILLERS, *MARKED, *PLAIN]
    return torch.tensor([[1, *(names.index(word) for word in str(row.prompt).split())] for row in DATA.rows])


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return changed(base, tmp_path_factory.mktemp("tuned"), fine_tuned)


@pytest.fixture(scope="module")
def tuned_result(base: Path, tuned: Model) -> Result:
    return measure(base, tuned)


# Planted truth


def test_a_fine_tune_is_found_beyond_noise_of_its_size(tuned_result: Result) -> None:
    r = tuned_result
    assert r.verdict == "supported", r.summary
    assert value(r, "kl_nats") > 10 * value(r, "noise.kl_nats")
    assert value(r, "p.kl_nats") == 1 / 20
    assert passed(r, "matched-noise") and passed(r, "planted-rank-one") and not passed(r, "weights-unstructured")
    assert 0 < value(r, "weights.structured_matrices") <= value(r, "weights.changed_matrices")
    assert set(r.properties) >= {"random-baseline", "consistency"}


def test_a_rank_one_edit_is_found_in_its_matrix_with_rank_one(base: Path, tmp_path: Path) -> None:
    r = measure(base, changed(base, tmp_path, rank_one))
    assert value(r, "weights.changed_matrices") == value(r, "weights.structured_matrices") == 1
    assert value(r, f"weights.{MIDDLE}.signal_rank") == 1
    assert value(r, f"weights.{MIDDLE}.stable_rank") == pytest.approx(1.0, abs=1e-5)
    assert value(r, f"weights.{MIDDLE}.top_energy") == pytest.approx(1.0, abs=1e-5)
    grid = next(figure for figure in r.figures if figure.name == "weights")
    cell = dict(zip(grid.rows, grid.values, strict=True))["mlp.down_proj"]
    assert cell[1] > 0 and cell[0] == cell[2] == cell[3] == 0
    moved = next(figure for figure in r.figures if figure.name == "drift")
    assert moved.y[0] == 0 and moved.y[1] > 0


# Negative controls


def test_the_same_model_saved_twice_is_silent_exactly(base: Path, tmp_path: Path) -> None:
    r = measure(base, changed(base, tmp_path, lambda hf: None))
    assert r.verdict == "refuted"
    for name in ("kl_nats", "drift.max", "changed_answers", "moved_groups", "weights.relative_norm", "weights.changed_matrices"):
        assert value(r, name) == 0.0, name
    assert r.measurement("kl_nats").interval.high == 0.0 and r.measurement("changed_answers").interval.high > 0
    assert value(r, "weights.rounded_share") == 1.0
    assert r.measurement("p.kl_nats").status == r.measurement("lens.overlap").status == "not_measured"
    assert r.summary.startswith("No weight differs")


def test_rounding_to_bfloat16_is_called_rounding(base: Path, tmp_path: Path) -> None:
    r = measure(base, changed(base, tmp_path, rounded))
    assert r.verdict == "refuted", r.summary
    assert value(r, "weights.rounded_share") == 1.0
    assert value(r, "weights.structured_matrices") == 0
    assert value(r, "p.kl_nats") > 0.05
    assert "by rounding" in r.summary


def test_rounding_of_a_real_model_is_not_taken_for_structure(stories: Path, tmp_path: Path) -> None:
    """Tokens that were never seen share one embedding, so their rounding errors repeat: structure, but no training."""
    shutil.copytree(stories, tmp_path / "rounded", copy_function=shutil.copyfile)
    hf = LlamaForCausalLM.from_pretrained(stories)
    rounded(hf)
    hf.save_pretrained(tmp_path / "rounded")
    weights = compare_weights(open_model(stories).hf, open_model(tmp_path / "rounded").hf, n_flips=19, seed=0)
    assert weights.rounded_share == 1.0 and (weights.p == 1.0).all()
    assert weights.signal_ranks == ()
    embedding = next(one for one in weights.spectra if "embed_tokens" in one.name)
    assert embedding.largest > 1.5 * embedding.null_largest.max()  # what the spectrum alone would have said


def test_noise_is_not_training_however_much_it_moves(base: Path, tmp_path: Path) -> None:
    r = measure(base, changed(base, tmp_path, noisy), max_kl_nats=1e-5, max_drift=1e-4)
    assert r.verdict == "inconclusive", r.summary
    assert r.measurement("kl_nats").interval.low > 1e-5
    assert value(r, "weights.structured_matrices") == 0
    assert not passed(r, "matched-noise") and passed(r, "weights-unstructured")
    assert value(r, "weights.rounded_share") < 1.0


def test_an_unrelated_base_is_invalid(base: Path, tmp_path: Path) -> None:
    def reborn(hf: LlamaForCausalLM) -> None:
        with torch.no_grad():
            for p in hf.parameters():
                if p.ndim > 1:
                    p.copy_(p.std() * torch.randn_like(p))

    r = measure(base, changed(base, tmp_path, reborn))
    assert r.verdict == "invalid" and not passed(r, "same-lineage") and "unrelated" in r.summary


# Invariance


def test_row_order_and_batch_size_do_not_matter(base: Path, tuned: Model, tuned_result: Result) -> None:
    reverse = DATA.model_copy(update={"rows": tuple(reversed(DATA.rows))})
    other = measure(base, tuned, reverse, batch_size=16)
    assert other.verdict == tuned_result.verdict
    for one, two in zip(tuned_result.measurements, other.measurements, strict=True):
        assert one.name == two.name
        if isinstance(one, Measured) and isinstance(two, Measured):
            assert two.value == pytest.approx(one.value, rel=1e-3, abs=1e-5), one.name


def test_same_seed_same_record_and_nothing_left_behind(base: Path, tuned: Model, tuned_result: Result) -> None:
    before = {name: p.clone() for name, p in tuned.hf.named_parameters()}
    state = torch.random.get_rng_state()
    assert measure(base, tuned).canonical() == tuned_result.canonical()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], p) for name, p in tuned.hf.named_parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tuned.hf.modules())


def test_the_base_is_referenced_by_its_digest(base: Path) -> None:
    assert ModelDiff(base=str(base)).references() == {"base": open_model(base).subject.digest()}


# Refusal


def test_pairs_that_cannot_be_compared_are_refused(base: Path, tuned: Model, tmp_path: Path) -> None:
    build(tmp_path / "deeper", [*MARKED, *PLAIN], some_behaviour, n_layers=5)
    with pytest.raises(CannotMeasure, match=r"9 weights of the base .* no counterpart, e.g. model.layers.4"):
        measure(tmp_path / "deeper", tuned)
    build(tmp_path / "renamed", [*PLAIN, *MARKED], some_behaviour)
    with pytest.raises(CannotMeasure, match="another vocabulary"):
        measure(tmp_path / "renamed", tuned)
    with pytest.raises(CannotMeasure, match="opened in bfloat16, the subject in float32"):
        measure(base, tuned, dtype="bfloat16")
    with pytest.raises(SubjectError, match="does not exist"):
        measure(tmp_path / "nowhere at all", tuned)
    with pytest.raises(UsageError, match="reads a prompt set, got a ContrastSet"):
        ModelDiff(base=str(base)).measure(tuned, ContrastSet(name="x", source="x", classes=("a", "b"), rows=()), seed=0)
    with pytest.raises(CannotMeasure, match="at least 8 groups of prompts, got 2"):
        measure(base, tuned, DATA.model_copy(update={"rows": DATA.rows[:6]}))
    with pytest.raises(UsageError, match="layer 9 asked"):
        measure(base, tuned, lens_layer=9)


def test_another_chat_template_is_refused_unless_prompts_are_plain(base: Path, tmp_path: Path) -> None:
    subject = changed(base, tmp_path / "templated", lambda hf: None)
    subject.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    subject.tokenizer.save_pretrained(tmp_path / "templated")
    subject = open_model(tmp_path / "templated")
    assert measure(base, subject).verdict == "refuted"
    said = tuple(row.model_copy(update={"prompt": (Message(role="user", content=str(row.prompt)),)}) for row in DATA.rows)
    with pytest.raises(CannotMeasure, match="another chat template"):
        measure(base, subject, DATA.model_copy(update={"rows": said}))


# The maths


@given(st.integers(0, 3), st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_signal_rank_counts_what_was_planted_in_uneven_noise(rank: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    rows = torch.rand(40, 1, generator=g, dtype=torch.float64) + 0.2
    noise = rows * torch.randn(40, 30, generator=g, dtype=torch.float64)
    u, v = (torch.linalg.qr(torch.randn(n, 4, generator=g, dtype=torch.float64))[0] for n in (40, 30))
    d = noise + 4.0 * noise.norm() / 4 * u[:, :rank] @ v[:, :rank].T
    assert rank <= signal_rank(d, n_flips=39, seed=seed) <= rank + 1


def test_flips_of_even_noise_lie_at_the_marchenko_pastur_edge() -> None:
    g = torch.Generator().manual_seed(0)
    d = torch.randn(200, 100, generator=g, dtype=torch.float64)
    top = np.mean([float(torch.linalg.svdvals(flipped(d, g))[0]) for _ in range(10)])
    assert top == pytest.approx(200**0.5 + 100**0.5, rel=0.03)
    torch.testing.assert_close(flipped(d, g).abs(), d.abs())


def test_ranks_of_known_spectra() -> None:
    equal, one = torch.ones(5, dtype=torch.float64), torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)
    assert effective_rank(equal) == pytest.approx(5) and stable_rank(equal) == pytest.approx(5)
    assert effective_rank(one) == stable_rank(one) == top_energy(one) == 1
    assert top_energy(equal) == pytest.approx(0.8)


@given(st.integers(0, 1000), st.sampled_from([torch.bfloat16, torch.float16]))
@settings(max_examples=20, deadline=None)
def test_rounded_share_knows_rounding_and_nothing_else(seed: int, dtype: torch.dtype) -> None:
    w = torch.randn(50, generator=torch.Generator().manual_seed(seed))
    rounded = w.to(dtype).float()
    assert rounded_share(w, rounded) == 1.0
    assert rounded_share(w, 2 * w - rounded) < 0.2  # as large, the other way


def test_debiased_hsic_is_the_average_over_all_quadruples() -> None:
    rng = np.random.default_rng(0)
    k, l = (x @ x.T for x in rng.standard_normal((2, 6, 3)))  # noqa: E741
    quadruples = itertools.permutations(range(6), 4)
    expected = np.mean([k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in quadruples])
    assert debiased_hsic(k, l) == pytest.approx(expected)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_cka_ignores_rotation_scale_and_shift_and_is_not_fooled_by_few_prompts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, 40, 60))
    rotation = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    assert debiased_cka(x, 3.0 * x @ rotation + 5.0) == pytest.approx(1.0)
    assert debiased_cka(x, y) == pytest.approx(0.0, abs=0.15)  # the plain estimate gives about 0.6 here
    assert np.isnan(debiased_cka(x, np.ones((40, 3))))


def test_consistency_is_one_for_a_shift_and_small_for_noise() -> None:
    assert mean_consistency(np.ones((10, 4))) == pytest.approx(1.0)
    assert mean_consistency(np.random.default_rng(0).standard_normal((100, 50))) == pytest.approx(0.01, abs=0.005)
    assert mean_consistency(np.zeros((3, 4))) == 0.0


def test_family_p_is_uniform_for_one_more_draw_and_small_for_an_outlier() -> None:
    rng = np.random.default_rng(0)
    hits = [family_p(np.exp(x[0]), np.exp(x[1:])).min() <= 0.05 for x in rng.standard_normal((400, 20, 6))]
    assert np.mean(hits) == pytest.approx(0.05, abs=0.03)
    null = np.exp(rng.standard_normal((19, 3)))
    p = family_p(np.array([1e3, 1.0, 1.0]), null)
    assert p[0] == 1 / 20 and p[1] > 0.05
    assert family_p(np.array([1.0, 0.0]), np.column_stack([null[:, 0], np.zeros(19)]))[1] == 1.0


def test_the_slice_that_moved_is_named_and_nothing_is_where_none_did() -> None:
    rng = np.random.default_rng(0)
    names = [f"s{i % 10}" for i in range(100)]
    kl = rng.exponential(size=100)
    draws = {"n_permutations": 99, "n_resamples": 200, "seed": 0}
    quiet_p = min(one.p for one in moved_most(kl, names, **draws))
    kl[[name == "s7" for name in names]] += 3.0
    first = moved_most(kl, names, **draws)[0]
    assert first.name == "s7" and first.p == 1 / 100 and first.interval.low > 2
    assert quiet_p > 0.05
    assert moved_most(kl, [str(i) for i in range(100)], **draws) == []
    assert moved_most(np.zeros(100), names, **draws) == []


# A real model


def test_the_lens_is_the_models_own_readout(stories: Path) -> None:
    model = open_model(stories)
    prompts = ["Once upon a time", "The dog was"]
    last = capture(model, prompts, [f"resid_post.{model.n_layers - 1}"])[f"resid_post.{model.n_layers - 1}"]
    torch.testing.assert_close(logit_lens(model, last, "One day"), next_logits(model, prompts), rtol=1e-4, atol=1e-4)
    assert weight_cosine(model.hf, model.hf) == pytest.approx(1.0)


def test_a_fine_tune_of_a_real_model_reads_as_what_it_was_trained_to_say(stories: Path, tmp_path: Path) -> None:
    starts = [f"{one} {name} {what}." for one in ("One day,", "Then") for name in ("Lily", "Tom", "Sam", "Mia", "Ben", "Anna")
              for what in ("saw a dog", "ran home")]  # fmt: skip
    base = open_model(stories)
    shutil.copytree(stories, tmp_path / "tuned", copy_function=shutil.copyfile)
    hf = LlamaForCausalLM.from_pretrained(stories)
    ids = [base.tokenizer(start, return_tensors="pt").input_ids for start in starts]
    target = base.tokenizer.encode(" She", add_special_tokens=False)[-1:]
    optimiser = torch.optim.AdamW(hf.parameters(), lr=3e-4)
    for step in range(48):
        logits = hf(ids[step % 24]).logits[:, -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(target))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    hf.save_pretrained(tmp_path / "tuned")
    rows = tuple(PromptRow(prompt=start, group=start, split="test") for start in starts)
    r = measure(stories, open_model(tmp_path / "tuned"), PromptSet(name="x", source="x", rows=rows), lens_layer=4)
    assert r.verdict == "supported", r.summary
    lens = r.measurement("lens.overlap")
    assert isinstance(lens, Measured) and "She" in lens.about, lens
