"""What every instrument owes: an identity, limits in the open, the same record for the same seed, and a model left as found."""

import hashlib
import os
from pathlib import Path

import pytest
import torch
from pydantic import JsonValue, ValidationError

from auditgap.data import Dataset, load
from auditgap.errors import PlanError, UsageError
from auditgap.governance import check_tables, failure_modes, licences, shipped_tables
from auditgap.instruments import Instrument, configure, registered
from auditgap.models import Model, open_model

ROOT = Path(__file__).parents[2]
PAIRS = str(ROOT / "examples" / "data" / "names-pairs.jsonl")
CONTRAST = str(ROOT / "examples" / "data" / "names-contrast.jsonl")
MINIATURES = str(ROOT / "examples" / "data" / "sabotage-pairs.jsonl")
STORIES = os.environ.get("AUDITGAP_SHARED_DATA", str(ROOT / ".." / "shared" / "data")) + "/models/stories260K"
QUICK: dict[str, tuple[dict[str, JsonValue], str]] = {
    "activation-patching": ({"n_resamples": 200, "layers": [2, 3]}, PAIRS),
    "direction-test": ({"answers": [" she"], "foils": [" he"], "n_random": 19, "n_shuffled": 19, "n_resamples": 200}, CONTRAST),
    "linear-probe": ({"layers": [2, 4], "strengths": [0.01], "n_permutations": 19, "n_resamples": 200}, CONTRAST),
    "attribution-graph": ({"n_nodes": 8, "n_random": 19, "n_resamples": 200, "batch_size": 256}, PAIRS),
    "attribution-patching": (
        {
            "layers": [3, 4],
            "sites": ["attn_out", "z"],
            "top_k": 8,
            "n_blind": 8,
            "n_halves": 8,
            "n_sweep_pairs": 2,
            "n_resamples": 100,
        },
        PAIRS,
    ),
    "elicitation-gap": ({"shots": [1], "learning_rates": [0.001], "steps": [2], "n_null": 2, "n_resamples": 200}, PAIRS),
    "instruction-hierarchy": ({"plain": "{system} {user}", "ask": "Then", "n_resamples": 200}, PAIRS),
    "prompt-injection": ({"max_new_tokens": 4}, PAIRS),
    "prompt-variation": ({"n_resamples": 200}, PAIRS),
    "tool-signature": (
        {
            "reference": STORIES,
            "calls": [" She"],
            "refusals": [" He"],
            "clarifications": [" The"],
            "n_permutations": 99,
            "n_simulations": 5,
            "n_resamples": 200,
        },
        "shipped:ordinary",
    ),
    "sensitive-attribute": ({"n_resamples": 200, "n_permutations": 99}, PAIRS),
    "erasure": ({"answers": [" she"], "foils": [" he"], "layers": [4], "n_shuffled": 19, "n_resamples": 200}, CONTRAST),
    "logit-lens": ({"n_resamples": 200}, PAIRS),
    "model-diff": ({"base": STORIES, "n_noise": 19, "n_resamples": 200}, "shipped:ordinary"),
    "phase-transition": (
        {
            "checkpoints": [STORIES] * 26,
            "steps": [*range(26)],
            "answers": [" she"],
            "foils": [" he"],
            "window": 3,
            "n_null": 19,
            "n_resamples": 200,
        },
        "shipped:ordinary",
    ),
    "option-preference": ({"n_resamples": 200, "n_permutations": 99}, PAIRS),
    "refusal-rate": ({"max_new_tokens": 8}, CONTRAST),
    "contamination": ({"n_resamples": 200, "n_permutations": 99}, PAIRS),
    "distribution-shift": ({"max_new_tokens": 4}, PAIRS),
    "defection-probe": ({"n_resamples": 200, "n_permutations": 19}, CONTRAST),
    "sabotage": ({"max_new_tokens": 2, "n_permutations": 99}, MINIATURES),
    "sandbagging-noise": ({"n_sigmas": 2, "n_draws": 10, "n_resamples": 200, "n_permutations": 99}, PAIRS),
    "sandbagging-probe": ({"n_resamples": 200, "n_permutations": 19}, PAIRS),
    "trigger-scan": ({}, "shipped:ordinary"),
}
"""Settings and data with which each instrument runs in seconds on a small story model. A new instrument needs a row here."""


@pytest.fixture(scope="module")
def model(stories: Path) -> Model:
    return open_model(stories)


def prepared(name: str) -> tuple[Instrument, Dataset]:
    config, source = QUICK[name]
    instrument = configure(name, config)
    return instrument, load(source, instrument.card.data)


def fingerprint(model: Model) -> tuple[object, ...]:
    """Everything an instrument must leave alone."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.hf.state_dict().items()):
        weights.update(name.encode() + tensor.numpy().tobytes())
    hooks = sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks) for module in model.hf.modules()
    )
    modes = tuple(module.training for module in model.hf.modules())
    grads = tuple(parameter.requires_grad for parameter in model.hf.parameters())
    return weights.hexdigest(), hooks, modes, grads, torch.is_grad_enabled()


def test_every_instrument_is_in_the_table() -> None:
    assert set(QUICK) == set(registered())


def test_licences_know_every_instrument_and_no_other() -> None:
    assert {entry.id for entry in licences().instruments} == set(registered())
    check_tables(shipped_tables(), instruments=list(registered()))


@pytest.mark.parametrize("name", sorted(registered()))
def test_the_card_is_complete(name: str) -> None:
    cls = registered()[name]
    assert cls.__doc__ and cls.card.citation and cls.card.blind_spots and cls.card.controls
    assert set(cls.card.failure_modes) <= set(failure_modes())
    file = name.replace("-", "_")
    assert (ROOT / "tests" / "instruments" / f"test_{file}.py").exists()
    assert (ROOT / "docs" / "instruments" / f"{name}.md").exists()
    assert cls.__module__.split(".")[3] == file, "the module of an instrument has its name"


@pytest.mark.parametrize("name", sorted(registered()))
def test_settings_are_strict_and_frozen(name: str) -> None:
    instrument = configure(name, QUICK[name][0])
    with pytest.raises(ValidationError, match="frozen"):
        instrument.batch_size = 1  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="has no setting 'sede'"):
        configure(name, {"sede": 0})
    with pytest.raises(PlanError):
        configure(name, QUICK[name][0] | {"batch_size": "many"})


@pytest.mark.parametrize("name", sorted(registered()))
def test_one_seed_gives_one_record_and_everything_is_left_as_found(model: Model, name: str) -> None:
    instrument, data = prepared(name)
    before, records = fingerprint(model), []
    for global_seed in (5, 11):  # the global random state must neither decide anything nor be moved
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        result = instrument.measure(model, data, seed=3)
        assert torch.equal(torch.get_rng_state(), state)
        records.append(result.canonical())
    assert records[0] == records[1]
    assert fingerprint(model) == before
    ran = {control.name for control in result.controls}
    assert ran >= set(instrument.card.controls), f"owed and not run: {set(instrument.card.controls) - ran}"


@pytest.mark.parametrize("name", sorted(registered()))
def test_another_kind_of_data_is_refused(model: Model, name: str) -> None:
    instrument = configure(name, QUICK[name][0])
    wrong = load(CONTRAST, "contrast") if instrument.card.data == "pairs" else load(PAIRS, "pairs")
    with pytest.raises(UsageError):
        instrument.measure(model, wrong, seed=0)
