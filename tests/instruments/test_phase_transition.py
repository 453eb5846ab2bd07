"""phase-transition against paths whose turns are known: planted ones, smooth ones, noise, wrong order, and real checkpoints."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_models import BASIS, FILLERS, build, read
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from auditgap.data import PairSet, PromptRow, PromptSet
from auditgap.errors import CannotMeasure, PlanError, SubjectError, UsageError
from auditgap.instruments.comparison.phase_transition import PhaseTransition
from auditgap.instruments.comparison.phase_transition.change_point import coincidence_p, jumps, noise_level
from auditgap.instruments.comparison.phase_transition.trajectory import products, sketch, turns
from auditgap.instruments.contract import configure
from auditgap.models import Model, open_model
from auditgap.records import Measured, Result

N, AT = 40, 20
FAST = {"n_null": 99, "n_resamples": 200}
ANY = PhaseTransition(checkpoints=("a",) * N, steps=tuple(range(0, 10 * N, 10)), answers=("yes",), **FAST)


def trajectory(angle: np.ndarray, length: np.ndarray, *, walk: float = 0.2, jitter: float = 0.2, seed: int = 0) -> np.ndarray:
    """Sketches of 6 matrices along a path of given angles and lengths, with random-walk and single-checkpoint noise."""
    rng = np.random.default_rng(seed)
    unit = np.linalg.qr(rng.standard_normal((6 * 512, 2)))[0].T
    steps = length[:, None] * (np.cos(angle)[:, None] * unit[0] + np.sin(angle)[:, None] * unit[1])
    steps = steps + walk * rng.standard_normal(steps.shape) / math.sqrt(6 * 512)
    points = np.concatenate([np.zeros((1, 6 * 512)), np.cumsum(steps, axis=0)])
    points = points + jitter * rng.standard_normal(points.shape) / math.sqrt(6 * 512)
    return points.reshape(N, 6, 512)


def scores(curve: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Twenty groups of prompts around a curve."""
    rng = np.random.default_rng([seed, 1])
    return curve[:, None] + rng.standard_normal(20) + 0.1 * rng.standard_normal((N, 20))


SHARP = np.where(np.arange(N - 1) < AT, 0.0, np.pi / 2)
SMOOTH = np.linspace(0.0, np.pi / 2, N - 1)
EVEN = np.ones(N - 1)
FADING = 0.5 * (1 + np.cos(np.linspace(0, 0.9 * np.pi, N - 1)))
JUMP = np.where(np.arange(N) <= AT, -3.0, 3.0)
RAMP = np.linspace(-3.0, 3.0, N)


def evaluate(path: np.ndarray, curve: np.ndarray, *, distance: float = 0.0, **config) -> Result:
    return ANY.model_copy(update=config).evaluate(path, scores(curve), distance=distance, seed=0)


def value(result: Result, name: str) -> float:
    found = result.measurement(name)
    assert isinstance(found, Measured), found
    return found.value


def passed(result: Result, name: str) -> bool:
    return next(control.passed for control in result.controls if control.name == name)


# Planted truth


@pytest.mark.parametrize("length", [EVEN, FADING], ids=["even", "fading learning rate"])
def test_a_turn_and_a_jump_at_one_checkpoint_are_found_there(length: np.ndarray) -> None:
    r = evaluate(trajectory(SHARP, length), JUMP)
    assert r.verdict == "supported", r
    assert value(r, "weights.step") == value(r, "behaviour.step") == 10 * AT
    assert value(r, "weights.turn") == pytest.approx(1.0, abs=0.15)
    assert value(r, "behaviour.jump") == pytest.approx(6.0, abs=0.3)
    assert value(r, "behaviour.share") == pytest.approx(1.0, abs=0.1)
    assert value(r, "p.weights") == value(r, "p.behaviour") == 0.01
    assert value(r, "p.coincidence") == pytest.approx(1 / (N - 8))
    assert all(control.passed for control in r.controls)
    assert r.properties == ("search-null",)


# Negative controls


@pytest.mark.parametrize("length", [EVEN, FADING], ids=["even", "fading learning rate"])
def test_smooth_training_is_refuted(length: np.ndarray) -> None:
    r = evaluate(trajectory(SMOOTH, length), RAMP)
    assert r.verdict == "refuted", r.summary
    assert value(r, "weights.turn") < 0.3 and value(r, "p.weights") > 0.05
    assert not passed(r, "steady-behaviour") and passed(r, "planted-turn")


def test_a_path_that_turns_gently_but_unevenly_is_refuted_by_its_size() -> None:
    """It beats the null that turns evenly, as a real run without any transition did; the registered size keeps it out."""
    r = evaluate(trajectory(0.7 * np.sqrt(np.arange(N - 1) / N), EVEN, walk=0.0, jitter=0.0), JUMP)
    assert passed(r, "smooth-path") and passed(r, "steady-behaviour")
    assert r.measurement("weights.turn").interval.high < 0.3 and r.verdict == "refuted"


def test_a_turn_and_a_jump_far_apart_do_not_coincide() -> None:
    r = evaluate(trajectory(SHARP, EVEN), np.where(np.arange(N) <= 10, -3.0, 3.0))
    assert r.verdict == "inconclusive"
    assert passed(r, "smooth-path") and passed(r, "steady-behaviour") and not passed(r, "coincidence")


def test_noise_that_fools_the_naive_cosine_shows_no_turn() -> None:
    """A fading learning rate under checkpoint noise: the published cosine climbs to +1/2, ours has no direction left."""
    length = np.where(np.arange(N - 1) < AT, 1.0, 0.0)
    points = trajectory(np.zeros(N - 1), length, walk=0.0, jitter=0.5)
    flat = points.reshape(N, -1)

    def naive(c: int, k: int = 4) -> float:
        back, forth = flat[c - k] - flat[c], flat[c + k] - flat[c]
        return float(back @ forth / np.linalg.norm(back) / np.linalg.norm(forth))

    assert naive(10) < -0.9 and np.mean([naive(c) for c in range(AT + 5, N - 5)]) == pytest.approx(0.5, abs=0.1)
    turn = turns(products(points).sum(0), 4)
    assert np.isnan(turn[AT + 4 :]).all()
    assert np.nanmax(turn) < 0.2
    r = evaluate(points, RAMP)
    assert not passed(r, "smooth-path") and r.verdict == "refuted"


def test_a_start_out_of_noise_is_no_turn_and_refutes_nothing() -> None:
    """Steps before the jump share no direction: there is none to turn from, and a planted turn would not have been found."""
    r = evaluate(trajectory(0 * EVEN, np.where(np.arange(N - 1) < 26, 0.0, 1.0), walk=1.0), JUMP)
    assert not passed(r, "planted-turn") and value(r, "weights.turn") < 0.3
    assert r.verdict == "inconclusive"


def test_no_movement_at_all_says_so() -> None:
    r = evaluate(trajectory(SHARP, 0 * EVEN, walk=0.0), JUMP)
    assert r.measurement("weights.turn").status == r.measurement("p.coincidence").status == "not_measured"
    assert r.verdict == "inconclusive" and "plateau" in r.summary


def test_checkpoints_out_of_order_are_not_supported() -> None:
    order = np.random.default_rng(0).permutation(N)
    r = evaluate(trajectory(SHARP, EVEN)[order], JUMP[order])
    assert r.verdict in ("refuted", "inconclusive") and not passed(r, "smooth-path")


def test_a_series_that_does_not_end_at_the_subject_is_invalid() -> None:
    r = evaluate(trajectory(SHARP, EVEN), JUMP, distance=0.01)
    assert r.verdict == "invalid" and not passed(r, "ends-at-subject")


@pytest.mark.slow
def test_smooth_paths_are_rarely_called_sharp() -> None:
    """False alarms of the turn test at 5 %: more than 3 of 20 has a chance of 0.02."""
    quick = {"n_null": 39}
    hits = [passed(evaluate(trajectory(SMOOTH, FADING, seed=seed), RAMP, **quick), "smooth-path") for seed in range(20)]
    assert sum(hits) <= 3


# Invariance


@given(st.floats(0.1, 10.0), st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_turns_do_not_depend_on_scale_or_origin(scale: float, seed: int) -> None:
    points = trajectory(SHARP, FADING, seed=seed)
    one, two = (turns(products(x).sum(0), 4) for x in (points, scale * points + 3.0))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_the_same_path_backwards_turns_at_the_same_place() -> None:
    gram = products(trajectory(SHARP, EVEN)).sum(0)
    np.testing.assert_allclose(turns(gram[::-1, ::-1], 4), turns(gram, 4)[::-1], atol=1e-12)


def test_products_of_sketches_are_products_of_weights() -> None:
    a, b = torch.nn.Linear(200, 150, bias=False), torch.nn.Linear(200, 150, bias=False)
    with torch.no_grad():
        b.weight.copy_(0.5 * a.weight + 0.5 * b.weight)
    one, two = (sketch(m, dims=4096, seed=0)[0] for m in (a, b))
    cosine = float(torch.nn.functional.cosine_similarity(a.weight.detach().flatten(), b.weight.detach().flatten(), dim=0))
    assert one @ two / np.linalg.norm(one) / np.linalg.norm(two) == pytest.approx(cosine, abs=0.05)
    assert np.array_equal(one, sketch(a, dims=4096, seed=0)[0]) and not np.array_equal(one, sketch(a, dims=4096, seed=1)[0])


# The maths


def test_jumps_and_noise_of_known_series() -> None:
    step = np.where(np.arange(20) <= 9, 0.0, 2.0)
    assert np.nanargmax(jumps(step, 3)) == 9 and np.nanmax(jumps(step, 3)) == 2.0
    np.testing.assert_allclose(jumps(np.arange(20.0), 3)[3:17], 3.0)
    noisy = 0.5 * np.random.default_rng(0).standard_normal(2000) + np.linspace(0, 50, 2000)
    noisy[1000:] += 20.0
    assert noise_level(noisy) == pytest.approx(0.5, rel=0.1)


def test_coincidence_counts_places() -> None:
    assert coincidence_p(20, 20, n_checkpoints=40, window=4) == 1 / 32
    assert coincidence_p(21, 20, n_checkpoints=40, window=4) == 3 / 32
    assert coincidence_p(4, 35, n_checkpoints=40, window=4) == 1.0


# Real checkpoints

T, TURN = 26, 12
DATA = PromptSet(
    name="made", source="made",
    rows=tuple(PromptRow(prompt=f"{a} {b}", group=a, split="test") for a in FILLERS for b in FILLERS[:2]),
)  # fmt: skip


def planted(t: int) -> tuple[float, float]:
    """How far checkpoint `t` has gone along the first and the second direction; most of the second in two steps."""
    after = max(t - TURN, 0)
    return float(min(t, TURN)), min(after, 2) * 2.0 + max(after - 2, 0) * 0.1


def directions(hf: LlamaForCausalLM) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    shape = hf.model.layers[0].mlp.down_proj.weight.shape
    return (torch.outer(torch.randn(shape[0], generator=g), torch.randn(shape[1], generator=g)) / math.prod(shape) ** 0.5,
            torch.outer(BASIS[0], torch.ones(hf.config.hidden_size)[:1]))  # fmt: skip


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Checkpoints that first move an MLP matrix, which changes nothing much, then the read-out of `yes`."""
    folder = tmp_path_factory.mktemp("series")
    build(folder / "start", [], lambda hf, ids: read(hf, ids["no"], 2.0 * BASIS[0]), n_layers=1)
    hf = LlamaForCausalLM.from_pretrained(folder / "start")
    (first, second), made = directions(hf), []
    mlp, readout = hf.model.layers[0].mlp.down_proj.weight.detach().clone(), hf.lm_head.weight.detach().clone()
    for t in range(T):
        path = folder / f"step{t}"
        shutil.copytree(folder / "start", path)
        along, across = planted(t)
        with torch.no_grad():
            hf.model.layers[0].mlp.down_proj.weight.copy_(mlp + along * first)
            hf.lm_head.weight.copy_(readout)
            hf.lm_head.weight[3] += across * second[:, 0]
        hf.save_pretrained(path)
        made.append(path)
    return made


def over(series: list[Path], **config) -> PhaseTransition:
    fixed = {"answers": ("yes",), "foils": ("no",), "window": 3, **FAST}
    fixed |= {"steps": tuple(range(len(series)))}
    return PhaseTransition(checkpoints=tuple(map(str, series)), **{**fixed, **config})


@pytest.fixture(scope="module")
def subject(series: list[Path]) -> Model:
    return open_model(series[-1])


def test_a_series_of_real_checkpoints(series: list[Path], subject: Model) -> None:
    r = over(series).measure(subject, DATA, seed=0)
    assert value(r, "weights.step") == TURN
    assert abs(value(r, "behaviour.step") - TURN) <= 1
    assert value(r, "weights.turn") == pytest.approx(1.0, abs=0.1)
    assert passed(r, "ends-at-subject") and passed(r, "smooth-path") and passed(r, "steady-behaviour")
    assert len(next(figure for figure in r.figures if figure.name == "behaviour").x) == T


def test_references_pin_every_checkpoint_by_its_files(series: list[Path], tmp_path: Path) -> None:
    digests = over(series).references()
    assert len(set(digests.values())) == T and list(digests)[:2] == ["checkpoint@0", "checkpoint@1"]
    shutil.copytree(series[0], tmp_path / "copy")
    assert over([tmp_path / "copy", *series[1:]]).references() == digests
    with pytest.raises(SubjectError, match="does not exist"):
        over([*series[:3], tmp_path / "none"]).references()


@pytest.mark.slow
def test_a_series_of_adapters(series: list[Path], tmp_path: Path) -> None:
    base = series[0]
    hf = LlamaForCausalLM.from_pretrained(base)
    shape = hf.model.layers[0].mlp.down_proj.weight.shape
    g = torch.Generator().manual_seed(0)
    left, right = torch.randn(shape[0], generator=g), torch.randn(shape[1], generator=g) / math.prod(shape) ** 0.5
    made = []
    for t in range(T):
        path = tmp_path / f"adapter{t}"
        path.mkdir()
        along, across = planted(t)
        modules = {
            "model.layers.0.mlp.down_proj": (along * left, right),
            "lm_head": (across * torch.eye(hf.config.vocab_size)[3], BASIS[0]),
        }
        tensors = {
            f"{name}.lora_{x}.weight": m for name, (b, a) in modules.items() for x, m in (("A", a[None]), ("B", b[:, None]))
        }
        save_file({f"base_model.model.{name}": m.contiguous() for name, m in tensors.items()}, path / "adapter_model.safetensors")
        config = {
            "peft_type": "LORA",
            "r": 1,
            "lora_alpha": 1,
            "target_modules": ["down_proj", "lm_head"],
            "task_type": "CAUSAL_LM",
        }
        (path / "adapter_config.json").write_text(json.dumps(config))
        made.append(path)
    r = over(made, base=str(base)).measure(open_model(base, adapter=made[-1]), DATA, seed=0)
    assert value(r, "weights.step") == TURN and passed(r, "ends-at-subject") and passed(r, "smooth-path")
    assert len(set(over(made, base=str(base)).references().values())) == T


# Refusal


def test_bad_series_are_refused(series: list[Path], subject: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one step per checkpoint, got 3 steps and 26"):
        over(series, steps=(1, 2, 3)).measure(subject, DATA, seed=0)
    with pytest.raises(UsageError, match="steps in increasing order"):
        over(series, steps=tuple(reversed(range(T)))).measure(subject, DATA, seed=0)
    with pytest.raises(CannotMeasure, match=r"at least 28 checkpoints \(window 4\), got 26"):
        over(series, window=4).measure(subject, DATA, seed=0)
    with pytest.raises(UsageError, match="reads a prompt set, got a PairSet"):
        over(series).measure(subject, PairSet(name="x", source="x", rows=()), seed=0)
    with pytest.raises(CannotMeasure, match="at least 8 groups"):
        over(series).measure(subject, DATA.model_copy(update={"rows": DATA.rows[:4]}), seed=0)
    with pytest.raises(UsageError, match="expected 'yes no' to be one token"):
        over(series, answers=("yes no",)).measure(subject, DATA, seed=0)
    with pytest.raises(UsageError, match="cannot be answer and foil"):
        over(series, answers=("yes", "no")).measure(subject, DATA, seed=0)
    build(tmp_path, [], lambda hf, ids: None, n_layers=2)
    with pytest.raises(CannotMeasure, match="checkpoint of step 0 have another shape"):
        over([tmp_path, *series[1:]]).measure(subject, DATA, seed=0)
    with pytest.raises(PlanError, match="checkpoints"):
        configure("phase-transition", {"checkpoints": ["one"], "steps": [0], "answers": ["yes"]})
