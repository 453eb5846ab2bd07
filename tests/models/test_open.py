"""What is unsafe, incomplete or not understood is refused with the reason; the rest opens unchanged."""

import json
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_families import PROMPTS
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertForMaskedLM

from auditgap.errors import SiteError, SubjectError, UsageError
from auditgap.models import next_logits, open_model, tokenize
from auditgap.models.files import check_safetensors
from auditgap.records import ModelAccess


@pytest.fixture
def llama(folder, tmp_path) -> Path:
    """A copy of the tiny Llama that a test may break."""
    return Path(shutil.copytree(folder("llama"), tmp_path / "llama"))


def _edit_json(path: Path, **changes: object) -> None:
    document = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(document | changes))


def test_opens_unchanged(folder, tiny):
    """Logits are those of plain transformers, bit for bit, and the subject is pinned file by file."""
    model = tiny("llama")
    plain = AutoModelForCausalLM.from_pretrained(folder("llama"))
    tokens = tokenize(model, PROMPTS)._asdict()
    with torch.no_grad():
        expected, found = plain(**tokens).logits, model.hf(**tokens).logits
    assert torch.equal(found, expected)
    torch.testing.assert_close(next_logits(model, PROMPTS), expected[:, -1], rtol=1e-5, atol=1e-5)
    assert not model.hf.training
    assert [f.path for f in model.subject.weights] == ["model.safetensors", "config.json", "generation_config.json"]
    assert [f.path for f in model.subject.tokenizer] == ["tokenizer.json", "tokenizer_config.json"]
    assert model.subject.n_parameters == sum(p.numel() for p in plain.parameters())
    assert (model.subject.architecture, model.subject.dtype, model.subject.revision) == ("LlamaForCausalLM", "float32", None)
    assert (model.n_layers, model.d_model, model.n_heads, model.vocab_size, model.context_length) == (3, 32, 4, 60, 48)
    assert (model.attention_kernel, model.device.type) == ("sdpa", "cpu")


def test_the_subject_is_the_content_not_the_place(llama, tiny):
    assert open_model(llama).subject.model_copy(update={"name": ""}) == tiny("llama").subject.model_copy(update={"name": ""})
    weights = load_file(llama / "model.safetensors")
    weights["lm_head.weight"][0, 0] += 1e-3
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    assert open_model(llama).subject.digest() != tiny("llama").subject.digest()


def test_full_access_is_granted_to_open_weights(tiny):
    for family in ("llama", "mixtral", "gpt2", "bloom"):
        assert tiny(family).granted == ModelAccess.M5


def test_access_stops_where_a_try_fails(tiny, monkeypatch):
    """Logits that carry no gradient give M3; a model that cannot run gives M0."""
    from auditgap.models.access import measure_access

    model = tiny("llama")
    head = model.hf.lm_head.register_forward_hook(lambda module, args, out: out.detach())
    assert measure_access(model) == ModelAccess.M3
    head.remove()
    monkeypatch.setattr(model.hf.lm_head, "forward", lambda x: (_ for _ in ()).throw(RuntimeError("out of memory")))
    assert measure_access(model) == ModelAccess.M0


def test_opening_is_quiet_and_leaves_no_trace(folder, capfd, recwarn):
    from transformers.utils import logging

    before = torch.random.get_rng_state(), logging.get_verbosity(), logging.is_progress_bar_enabled()
    open_model(folder("qwen3"))
    after = torch.random.get_rng_state(), logging.get_verbosity(), logging.is_progress_bar_enabled()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_opening_twice_gives_the_same_numbers(folder, tiny):
    assert torch.equal(next_logits(open_model(folder("mixtral")), PROMPTS), next_logits(tiny("mixtral"), PROMPTS))


@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma2", "gpt2"])
def test_the_tokenizer_is_the_one_in_the_files(tiny, family):
    """AutoTokenizer of transformers 5.23.0 turns this one into an empty Qwen2 tokenizer on a Qwen2 config."""
    assert tokenize(tiny(family), ["the boy he"]).input_ids.tolist() == [[1, 7, 5, 3]]


@pytest.mark.parametrize("name", ["finetuned_model.pth", "finetuned_model_0.pth"])
def test_real_pickles_are_refused_unopened(shared_data, tmp_path, monkeypatch, name):
    shutil.copy(shared_data / "unsafe_models" / name, tmp_path)
    _edit_json(tmp_path / "config.json", model_type="llama", architectures=["LlamaForCausalLM"])
    for module, attribute in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, attribute, lambda *a, **k: pytest.fail("a pickle was opened"))
    with pytest.raises(SubjectError, match=rf"only pickled weights \({name}\), which run code when opened and were not opened"):
        open_model(tmp_path)


def test_a_pickle_that_would_run_code_does_not(tmp_path, llama):
    class Attack:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    (llama / "model.safetensors").unlink()
    (llama / "pytorch_model.bin").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(SubjectError, match="convert in an isolated machine"):
        open_model(llama)
    assert not (tmp_path / "owned").exists()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _break_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8:12] = b"oops"
    path.write_bytes(bytes(data))


def _poison(path: Path) -> None:
    weights = load_file(path)
    weights["model.layers.1.mlp.down_proj.weight"][3, 3] = float("nan")
    weights["model.norm.weight"][0] = float("inf")
    save_file(weights, path, metadata={"format": "pt"})


def _drop(path: Path) -> None:
    weights = load_file(path)
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})


def _invent(path: Path) -> None:
    save_file(load_file(path) | {"model.layers.1.backdoor.weight": torch.zeros(3)}, path, metadata={"format": "pt"})


def _reshape(path: Path) -> None:
    save_file(load_file(path) | {"model.norm.weight": torch.ones(31)}, path, metadata={"format": "pt"})


def _shard(path: Path) -> None:
    path.rename(path.with_name("model-00001-of-00002.safetensors"))
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    _edit_json(path.with_name("model.safetensors.index.json"), weight_map=weight_map)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, r"model\.safetensors is truncated or padded: expected \d+ bytes, got \d+; fetch it again"),
        (lambda path: path.write_bytes(b""), r"model\.safetensors is not a whole safetensors file: 0 bytes"),
        (lambda path: path.write_bytes(b"\x80\x04" * 50), r"model\.safetensors is not a whole safetensors file: 100 bytes"),
        (_break_header, r"model\.safetensors is not a safetensors file: its header does not parse"),
        (lambda path: path.unlink(), r"has no weights; expected model\.safetensors"),
        (_shard, r"lacks 1 of 2 weight files: model-00002-of-00002\.safetensors; fetch them"),
        (_poison, r"2 tensors hold NaN or infinity, e\.g\. model\.layers\.1\.mlp\.down_proj\.weight, model\.norm\.weight"),
        (_drop, r"1 missing keys, e\.g\. model\.layers\.1\.mlp\.down_proj\.weight; a model with made-up or ignored weights"),
        (_invent, r"1 unexpected keys, e\.g\. model\.layers\.1\.backdoor\.weight"),
        (_reshape, "the model does not load|mismatched"),
    ],
)
def test_damaged_weights_are_refused(llama, damage, message):
    damage(llama / "model.safetensors")
    with pytest.raises(SubjectError, match=message):
        open_model(llama)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_pass_for_safetensors_unless_they_are(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(SubjectError, match=r"model\.safetensors is"):
        check_safetensors(path)


def _is_bert(llama: Path) -> None:
    config = BertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    BertForMaskedLM(config).save_pretrained(llama)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), r"config\.json: expected a JSON object, got list"),
        (
            lambda f: _edit_json(f / "config.json", auto_map={"AutoModel": "x.Y"}),
            r"config\.json names custom code \(auto_map\), which is never run",
        ),
        (
            lambda f: _edit_json(f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["x.Y", None]}),
            r"tokenizer_config\.json names custom code",
        ),
        (
            lambda f: _edit_json(f / "config.json", model_type="made-up"),
            "expected a causal language model .* got model_type 'made-up'",
        ),
        (lambda f: _edit_json(f / "config.json", architectures=["LlamaModel"]), "architecture 'LlamaModel'"),
        (lambda f: _edit_json(f / "config.json", quantization_config={"bits": 4}), "quantised weights are not supported"),
        (_is_bert, "expected a causal language model .* architecture 'BertForMaskedLM'"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer; expected one of tokenizer.json"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "the tokenizer does not load"),
    ],
)
def test_incomplete_or_foreign_models_are_refused(llama, damage, message):
    damage(llama)
    with pytest.raises(SubjectError, match=message):
        open_model(llama)


def test_an_encoder_dressed_as_a_decoder_is_refused(llama):
    """BERT's head class is a causal one by name; without `is_decoder` every token sees the future."""
    _is_bert(llama)
    _edit_json(llama / "config.json", architectures=["BertLMHeadModel"])
    with pytest.raises((SiteError, SubjectError)):
        open_model(llama)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: open_model(f / "nowhere"), SubjectError, "which does not exist"),
        (lambda f: open_model(f / "config.json"), SubjectError, "which is a file"),
        (lambda f: open_model("no such thing"), SubjectError, r"expected a local directory or a Hub id \(org/name\)"),
        (lambda f: open_model("org/name"), SubjectError, "give its revision"),
        (lambda f: open_model(f, revision="main"), UsageError, "a local path, which has no revision"),
        (lambda f: open_model(f, dtype="float23"), UsageError, "unknown dtype 'float23' - did you mean 'float32'"),
        (lambda f: open_model(f, device="gpu"), UsageError, "unknown device 'gpu'; expected cpu, cuda or cuda:0"),
        (lambda f: open_model(f, device="mps"), UsageError, "unknown device 'mps'"),
        (lambda f: open_model(f, adapter=f), SubjectError, r"has no adapter_config\.json"),
    ],
)
def test_wrong_calls_are_refused(llama, call, error, message):
    with pytest.raises(error, match=message):
        call(llama)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_is_refused_where_there_is_none(llama):
    with pytest.raises(UsageError, match="0 CUDA devices are available here; use cpu"):
        open_model(llama, device="cuda")


def test_a_model_that_does_not_run_in_a_dtype_says_so(folder):
    """The grouped matrix product of mixtures of experts takes no float64 in transformers 5.23.0."""
    with pytest.raises(SubjectError, match=r"the model does not run in float64 on cpu: .*; try another dtype or device"):
        open_model(folder("mixtral"), dtype="float64")


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes_open(folder, tiny, dtype):
    model = open_model(folder("llama"), dtype=dtype)
    assert (str(model.hf.dtype), model.subject.dtype) == (f"torch.{dtype}", dtype)
    assert max(block.remainder for block in model.sites.blocks) <= (1e-12 if dtype == "float64" else 1e-6)
    torch.testing.assert_close(next_logits(model, PROMPTS), next_logits(tiny("llama"), PROMPTS), rtol=1e-2, atol=1e-2)


def test_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(SubjectError, match="is empty"):
        open_model(tmp_path)


def test_the_hub_offline_is_a_clear_error():
    with pytest.raises(SubjectError, match="'auditgap-tests/none' at 'abc123' could not be fetched and is not cached"):
        open_model("auditgap-tests/none", revision="abc123")


def test_the_hub_is_pinned_to_its_commit(folder, monkeypatch, tmp_path):
    """Only safetensors, JSON and tokenizer files are asked for, and the subject's revision is the commit of the snapshot."""
    commit, asked = "0123456789abcdef0123456789abcdef01234567", {}
    snapshot = Path(shutil.copytree(folder("llama"), tmp_path / commit))

    def download(source: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.update(source=source, revision=revision, patterns=allow_patterns)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    subject = open_model("org/tiny-llama", revision="v1").subject
    assert (subject.name, subject.revision) == ("tiny-llama", commit)
    assert (asked["source"], asked["revision"]) == ("org/tiny-llama", "v1")
    assert not any(pattern.endswith((".bin", ".py", ".pt", "*")) and pattern != "tokenizer*" for pattern in asked["patterns"])


@pytest.fixture
def lora(folder, tmp_path) -> tuple[Path, torch.Tensor]:
    """A LoRA adapter on disk, and the logits of the unmerged model."""
    base = AutoModelForCausalLM.from_pretrained(folder("llama"))
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(0)
        warnings.simplefilter("ignore", FutureWarning)  # peft 0.21.2 reads a name that transformers 5.23.0 deprecates
        wrapped = get_peft_model(
            base, LoraConfig(r=2, lora_alpha=16, target_modules=["down_proj", "q_proj"], init_lora_weights=False)
        )
    wrapped.save_pretrained(tmp_path / "lora")
    tokens = AutoTokenizer.from_pretrained(folder("llama"))("the boy", return_tensors="pt").input_ids
    with torch.no_grad():
        return tmp_path / "lora", wrapped.eval()(tokens).logits[:, -1]


def test_an_adapter_is_merged_and_part_of_the_subject(folder, lora, tiny):
    model = open_model(folder("llama"), adapter=lora[0])
    torch.testing.assert_close(next_logits(model, ["the boy"]), lora[1], rtol=1e-4, atol=1e-4)
    assert (next_logits(tiny("llama"), ["the boy"]) - lora[1]).abs().max() > 1e-2
    assert [f.path for f in model.subject.adapter] == ["adapter_model.safetensors", "adapter_config.json"]
    assert model.subject.weights == tiny("llama").subject.weights
    assert model.subject.n_parameters == tiny("llama").subject.n_parameters
    assert model.sites.names() == tiny("llama").sites.names()


def test_adapters_that_do_not_fit_are_refused(folder, lora, tmp_path):
    pickled = Path(shutil.copytree(lora[0], tmp_path / "pickled"))
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(SubjectError, match=r"only pickled weights \(adapter_model\.bin\)"):
        open_model(folder("llama"), adapter=pickled)
    partial = Path(shutil.copytree(lora[0], tmp_path / "partial"))
    weights = load_file(partial / "adapter_model.safetensors")
    save_file(dict(list(weights.items())[1:]), partial / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SubjectError, match="the adapter's weights do not match its configuration"):
        open_model(folder("llama"), adapter=partial)
    with pytest.raises(SubjectError, match="the adapter does not fit the model"):
        open_model(folder("gpt2"), adapter=lora[0])
    other = Path(shutil.copytree(lora[0], tmp_path / "other"))
    _edit_json(other / "adapter_config.json", peft_type="PREFIX_TUNING")
    with pytest.raises(SubjectError, match="only LoRA adapters can be merged"):
        open_model(folder("llama"), adapter=other)


def test_the_real_model_opens(stories):
    model = open_model(stories)
    assert (model.subject.name, model.subject.n_parameters, model.granted) == ("stories260K", 260_032, ModelAccess.M5)
    assert (model.n_layers, model.d_model, model.n_heads, model.vocab_size) == (5, 64, 8, 512)
    assert len(model.sites.names()) == 30


@pytest.mark.slow
def test_importing_models_does_not_import_peft():
    code = "import sys, auditgap.models; sys.exit('peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
