"""model-diff on pairs that training did not make alone: a quantised copy, an adapter, both; and what is refused."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from planted_models import value
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM

from auditgap.data import PromptRow, PromptSet
from auditgap.errors import SubjectError
from auditgap.instruments.comparison.model_diff import ModelDiff
from auditgap.instruments.comparison.model_diff.spectra import rounded_share
from auditgap.models import Model, open_model
from auditgap.records import Result

NAMES = ("Lily", "Tom", "Sam", "Mia", "Ben", "Anna")
STARTS = [f"{name} {what}." for name in NAMES for what in ("saw a dog", "ran home")]
PROMPTS = PromptSet(name="x", source="x", rows=tuple(PromptRow(prompt=s, group=s, split="test") for s in STARTS))
FAST = {"n_noise": 19, "n_flips": 19, "n_permutations": 99, "n_resamples": 200}


def on_grid(weight: Tensor, levels: int = 127) -> Tensor:
    """int8 by rows, scaled by the largest entry, and back: what a packed checkpoint computes with."""
    step = weight.abs().amax(-1, keepdim=True).clamp(min=1e-30) / levels
    return (weight / step).round() * step if weight.ndim > 1 else weight


def rewritten(stories: Path, folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    shutil.copytree(stories, folder, copy_function=shutil.copyfile)
    weights = change({name: w.float() for name, w in load_file(folder / "model.safetensors").items()})
    save_file({name: w.contiguous() for name, w in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def quantised(stories: Path, folder: Path, levels: int = 127) -> Model:
    return open_model(rewritten(stories, folder, lambda weights: {n: on_grid(w, levels) for n, w in weights.items()}))


def measure(base: Path, subject: Model) -> Result:
    return ModelDiff(base=str(base), **FAST).measure(subject, PROMPTS, seed=0)


@pytest.fixture(scope="module")
def adapter(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rank-1 adapter on one matrix, large enough to matter."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(0)
        warnings.simplefilter("ignore", FutureWarning)  # peft 0.21.2 reads a name that transformers 5.23.0 deprecates
        config = LoraConfig(r=1, lora_alpha=8, target_modules=r".*layers\.2\.mlp\.down_proj", init_lora_weights=False)
        wrapped = get_peft_model(LlamaForCausalLM.from_pretrained(stories), config)
    folder = tmp_path_factory.mktemp("adapter")
    wrapped.save_pretrained(folder)
    return folder


# Planted truth


def test_an_adapter_is_found_as_a_rank_one_change_of_its_matrix(stories: Path, adapter: Path) -> None:
    r = measure(stories, open_model(stories, adapter=adapter))
    assert value(r, "weights.changed_matrices") == value(r, "weights.structured_matrices") == 1
    assert value(r, "weights.model.layers.2.mlp.down_proj.weight.signal_rank") == 1
    assert value(r, "kl_nats") > 0.01


def test_an_adapter_under_quantisation_is_still_found(stories: Path, adapter: Path, tmp_path: Path) -> None:
    """Merged, then rounded to int8: the rounding is diffuse, the adapter is not."""
    merged = open_model(stories, adapter=adapter).hf.state_dict()
    folder = rewritten(stories, tmp_path / "both", lambda weights: {name: on_grid(merged[name]) for name in weights})
    weights = measure(stories, open_model(folder))
    assert value(weights, "weights.structured_matrices") == 1
    assert value(weights, "weights.model.layers.2.mlp.down_proj.weight.signal_rank") == 1
    assert value(weights, "weights.rounded_share") < 1.0


# Negative control


@pytest.mark.parametrize(("levels", "max_kl_nats"), [(127, 0.003), (7, 0.5)])
def test_a_quantised_copy_moves_little_and_holds_no_structure(
    stories: Path, tmp_path: Path, levels: int, max_kl_nats: float
) -> None:
    r = measure(stories, quantised(stories, tmp_path / "grid", levels))
    assert 0 < value(r, "kl_nats") < max_kl_nats
    assert value(r, "weights.changed_matrices") == 36
    assert value(r, "weights.structured_matrices") == 0, "not even in the embedding, where rows repeat"
    assert value(r, "weights.rounded_share") == 1.0
    assert value(r, "p.kl_nats") > 0.05
    assert r.verdict != "supported" and "by rounding" in r.summary
    assert not [m.name for m in r.measurements if "signal_rank" in m.name]


def test_only_rounding_counts_as_rounding() -> None:
    g = torch.Generator().manual_seed(0)
    before = torch.randn(40, 64, generator=g, dtype=torch.float64)
    grid = on_grid(before)
    assert rounded_share(before, grid) == rounded_share(before, grid.bfloat16().double()) == 1.0
    assert rounded_share(before, on_grid(before, 7)) == 1.0
    assert rounded_share(before, on_grid(before, 63)) < 0.1, "a grid that no format has"
    step = before.abs().amax(-1, keepdim=True) / 127
    moved = grid + step * (torch.rand(grid.shape, generator=g, dtype=torch.float64) < 0.001)
    assert (moved != grid).any() and rounded_share(before, moved) < 0.1, "one step off in a few entries is training"
    assert rounded_share(before, before + 0.01 * torch.randn(before.shape, generator=g, dtype=torch.float64)) < 0.1


# Refusal


def pack(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As bitsandbytes keeps it: int8 and a scale for each row."""
    packed = {}
    for name, w in weights.items():
        packed[name] = w
        if "_proj" in name:
            largest = w.abs().amax(-1)
            packed[name] = (w / largest[:, None] * 127).round().to(torch.int8)
            packed[name.replace("weight", "SCB")] = largest
    return packed


def test_packed_weights_are_refused(stories: Path, tmp_path: Path) -> None:
    subject = open_model(stories)
    folder = rewritten(stories, tmp_path / "packed", pack)
    with pytest.raises(
        SubjectError, match=r"35 (unexpected keys|weights as packed integers), e\.g\. model\.layers\.0\.mlp\.down_proj"
    ):
        measure(folder, subject)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SubjectError, match="quantised weights are not supported; give the unquantised checkpoint"):
        measure(folder, subject)
    bare = rewritten(
        stories, tmp_path / "bare", lambda weights: {n: w for n, w in pack(weights).items() if not n.endswith("SCB")}
    )
    with pytest.raises(SubjectError):
        measure(bare, subject)
