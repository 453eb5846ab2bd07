"""Parameters counted from a config alone, against published totals, built models, and the gradient of one token."""

import json
from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from auditgap.errors import SubjectError, UsageError
from auditgap.models.parameters import count_parameters

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}  # fmt: skip
GROUPED = {
    "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
FEW = {"num_local_experts": 4, "num_experts_per_tok": 2}
SPARSE: dict[str, dict[str, object]] = {
    "mixtral": FEW,
    "qwen2_moe": {
        "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40,
    },
    "qwen3_moe": {
        "num_local_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "head_dim": 8, "mlp_only_layers": [1],
    },
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 2},
    "deepseek_v3": LATENT | GROUPED,
    "glm4_moe": GROUPED | {"head_dim": 8},
    "gpt_oss": FEW | {"head_dim": 8, "tie_word_embeddings": False},
    "granitemoe": FEW,
    "granitemoeshared": FEW | {"shared_intermediate_size": 16},
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1, "moe_intermediate_size": 24},
    "phimoe": FEW,
    "llama4_text": {"num_local_experts": 4, "num_experts_per_tok": 1, "head_dim": 8, "intermediate_size_mlp": 48},
}  # fmt: skip
DENSE: dict[str, dict[str, object]] = {
    "llama": {"tie_word_embeddings": False},
    "qwen3": {"tie_word_embeddings": True, "head_dim": 8},
    "gemma2": {"head_dim": 8},
    "gpt2": {},
    "mamba": {"state_size": 4, "time_step_rank": 4},
}


def config_of(kind: str, **fields: object) -> PreTrainedConfig:
    return CONFIG_MAPPING[kind](**SMALL | fields)


def written(folder: Path, document: dict[str, object]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def saved(folder: Path, config: PreTrainedConfig) -> Path:
    config.save_pretrained(folder)
    return folder / "config.json"


def built(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config)


def routed(name: str, p: torch.Tensor) -> bool:
    """Experts on the first axis, told by the tensor's name and shape alone: not how the counter tells them."""
    named = "expert" in name and not any(word in name for word in ("shared", "router", "gate.", "gating"))
    return p.ndim >= 2 and (p.ndim == 3 or named)


@pytest.mark.parametrize("kind", SPARSE)
def test_active_is_what_one_token_reaches_by_gradient(tmp_path: Path, kind: str) -> None:
    config = config_of(kind, **SPARSE[kind])
    model = built(config)
    model(input_ids=torch.tensor([[7]]), use_cache=False).logits.square().sum().backward()
    total = resting = 0
    for name, p in model.named_parameters():
        total += p.numel()
        if routed(name, p):
            reached = 0 if p.grad is None else int((p.grad.flatten(1).abs().sum(1) > 0).sum())
            resting += p.numel() // p.shape[0] * (p.shape[0] - reached)
    count = count_parameters(saved(tmp_path, config))
    assert resting > 0
    assert (count.total, count.active) == (total, total - resting)
    assert count.routed < count.total and count.n_experts_per_token < count.n_experts


@pytest.mark.parametrize("kind", DENSE)
def test_a_dense_model_is_active_as_a_whole(tmp_path: Path, kind: str) -> None:
    config = config_of(kind, **DENSE[kind])
    model = built(config)
    count = count_parameters(saved(tmp_path, config))
    assert count.total == count.active == sum(p.numel() for p in model.parameters())
    assert (count.routed, count.n_experts) == (0, 0)


TOTALS_B = {
    "DeepSeek-V3": 671.03,
    "Kimi-K2-Instruct": 1026.41,
    "Meta-Llama-3.1-8B": 8.03,
    "Mixtral-8x22B-v0.1": 140.62,
    "Mixtral-8x7B-v0.1": 46.70,
    "Qwen3-0.6B": 0.596,
    "Qwen3-30B-A3B": 30.53,
    "gpt-oss-120b": 116.83,
}
"""Measured independently by building each config on the meta device; given to the digits shown."""


def test_every_published_config_has_an_expected_total(shared_data: Path) -> None:
    assert {path.stem for path in (shared_data / "configs").glob("*.json")} == set(TOTALS_B)


@pytest.mark.parametrize("name", TOTALS_B)
def test_published_configs_are_counted_exactly(shared_data: Path, name: str) -> None:
    count = count_parameters(shared_data / "configs" / f"{name}.json")
    digits = 3 if TOTALS_B[name] < 1 else 2
    assert round(count.total / 1e9, digits) == TOTALS_B[name]


@pytest.mark.parametrize(
    ("name", "published_b", "field"),
    [
        ("Mixtral-8x22B-v0.1", 39.0, "active"),
        ("DeepSeek-V3", 37.6, "active"),
        ("gpt-oss-120b", 5.1, "active_without_lookup"),  # its model card leaves the token table out
        ("Qwen3-30B-A3B", 3.3, "active"),
    ],
)
def test_published_active_parameters(shared_data: Path, name: str, published_b: float, field: str) -> None:
    count = count_parameters(shared_data / "configs" / f"{name}.json")
    assert getattr(count, field) / 1e9 == pytest.approx(published_b, rel=0.02 if published_b == 3.3 else 0.01)


def test_a_real_model_has_the_parameters_of_its_weights(stories: Path) -> None:
    count = count_parameters(stories)  # a folder works as well as the file
    assert (count.total, count.tied, count.embedding) == (260_032, True, 512 * 64)
    assert count.active_without_lookup == count.total  # the tied table is also the output head, so it multiplies


def test_tied_matrices_count_once_and_untied_ones_twice(tmp_path: Path) -> None:
    (tmp_path / "tied").mkdir(), (tmp_path / "untied").mkdir()
    tied = count_parameters(saved(tmp_path / "tied", config_of("llama", tie_word_embeddings=True)))
    untied = count_parameters(saved(tmp_path / "untied", config_of("llama", tie_word_embeddings=False)))
    assert untied.total - tied.total == 64 * 32 == tied.embedding == untied.embedding
    assert untied.active_without_lookup == tied.active_without_lookup
    assert (tied.tied, untied.tied) == (True, False)


def test_storage_dtype_and_custom_code_do_not_matter(tmp_path: Path) -> None:
    document = config_of("mixtral", **SPARSE["mixtral"]).to_dict()
    plain = count_parameters(written(tmp_path, document))
    code = {
        "auto_map": {"AutoModelForCausalLM": "evil.Model"},
        "quantization_config": {"quant_method": "fp8"},
        "dtype": "float16",
    }
    noted = count_parameters(written(tmp_path, document | code))
    assert noted.model_copy(update={"notes": ()}) == plain
    assert any("not run" in note for note in noted.notes) and plain.notes == ()


def test_counting_leaves_random_numbers_alone(tmp_path: Path) -> None:
    path = saved(tmp_path, config_of("llama"))
    before = torch.random.get_rng_state()
    count_parameters(path)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_type_that_is_not_built_in_counts_as_the_class_it_names(tmp_path: Path) -> None:
    document = config_of("deepseek_v3", **SPARSE["deepseek_v3"]).to_dict()
    known = count_parameters(written(tmp_path, document))
    other = count_parameters(written(tmp_path, document | {"model_type": "new_one", "architectures": ["DeepseekV3ForCausalLM"]}))
    assert (other.total, other.active) == (known.total, known.active)
    assert "'new_one' is not built in" in other.notes[0]


MIXTRAL = config_of("mixtral", **SPARSE["mixtral"]).to_dict()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "mixtrel"}, "got 'mixtrel' - did you mean 'mixtral'\\?"),
        ({"model_type": "zzz"}, "got 'zzz'; state total"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
        ({"model_type": "vit"}, "expected a causal language model"),
        ({"vision_config": {"hidden_size": 8}}, "multimodal one \\(vision_config\\)"),
        ({"model_type": "t5"}, "expected a causal language model"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
        ({"num_experts_per_tok": None}, "cannot be built from it: .*num_experts_per_tok"),
        ({"num_experts_per_tok": [1, 2, 2]}, "cannot be built from it: .*num_experts_per_tok"),
        ({"num_experts_per_tok": 5}, "at most as many per token"),
        ({"experts_per_token": 1}, "one number of experts per token"),
        ({"n_routed_experts": 6, "num_local_experts": None}, "cannot be built"),
        ({"hidden_size": None}, "cannot be built"),
        ({"model_type": "llama", "num_local_experts": 8}, "expected to find the 8 routed experts"),
    ],
)
def test_what_cannot_be_counted_exactly_is_refused_by_name(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(SubjectError, match=said):
        count_parameters(written(tmp_path, MIXTRAL | changes))


def test_the_language_part_of_a_multimodal_model_can_be_counted_alone(tmp_path: Path) -> None:
    document = CONFIG_MAPPING["llama4"]().to_dict()
    with pytest.raises(SubjectError, match=r"multimodal one .* give its text_config as a file of its own"):
        count_parameters(written(tmp_path, document | {"architectures": ["Llama4ForConditionalGeneration"]}))
    count = count_parameters(written(tmp_path, document["text_config"]))
    assert (count.n_experts, count.n_experts_per_token) == (16, 1)  # Scout: 109 B in all with its vision part, 17 B active
    assert count.total / 1e9 == pytest.approx(108, abs=1) and count.active / 1e9 == pytest.approx(17, abs=0.5)


def test_one_expert_is_a_dense_layer(tmp_path: Path) -> None:
    config = config_of("mixtral", num_local_experts=1, num_experts_per_tok=1)
    count = count_parameters(saved(tmp_path, config))
    assert count.active == count.total and count.routed > 0


def test_a_router_that_may_choose_no_expert_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match="may choose no expert"):
        count_parameters(written(tmp_path, CONFIG_MAPPING["zaya"]().to_dict()))


def test_experts_per_token_must_be_stated(tmp_path: Path) -> None:
    document = CONFIG_MAPPING["deepseek_v2"]().to_dict()
    assert document["num_experts_per_tok"] is None
    with pytest.raises(SubjectError, match=r"expected one number of experts per token .* got none"):
        count_parameters(written(tmp_path, document))


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "vocab_size"])
def test_a_size_left_out_is_refused_not_defaulted(tmp_path: Path, field: str) -> None:
    with pytest.raises(SubjectError, match=f"expected {field}, got none; a default would count another model"):
        count_parameters(written(tmp_path, {key: value for key, value in MIXTRAL.items() if key != field}))


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "not JSON"), ("[]", "expected a JSON object"), ("{}", "expected a model_type"), ('{"model_type": 3}', "a model_type")],
)
def test_a_bad_file_is_a_usage_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        count_parameters(path)
    with pytest.raises(UsageError, match="nothing there"):
        count_parameters(tmp_path / "none")
