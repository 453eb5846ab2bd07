"""What is on disk, judged before anything is loaded: safetensors only, whole, complete, and no code to run.

Nothing here unpickles, imports or executes a file of the subject.
"""

import json
import struct
from pathlib import Path
from typing import NamedTuple

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from auditgap.errors import SubjectError

__all__ = ["ModelFiles", "adapter_files", "check_safetensors", "model_files", "read_json"]

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
TOKENIZER_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
TOKENIZER_OTHERS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
MAX_HEADER_BYTES = 100_000_000
PACKED_DTYPES = ("I8", "U8", "I16", "I32", "I64")
"""Integers in which weights are packed; the scales that give them meaning lie beside them, or in the loader."""
DEQUANTISE = "give the unquantised checkpoint, or dequantise it (model.dequantize() in transformers) and save it as safetensors"


class ModelFiles(NamedTuple):
    """The files of a subject, by role."""

    weights: list[Path]
    tokenizer: list[Path]
    architecture: str


def model_files(folder: Path) -> ModelFiles:
    """The files that make up the model in `folder`.

    Raises:
        SubjectError: missing, incomplete, truncated or pickled weights, custom code, no tokenizer, not a causal language model.
    """
    if not folder.is_dir():
        raise SubjectError(
            f"expected a directory with a model, got {folder}, which {'is a file' if folder.exists() else 'does not exist'}"
        )
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    if not names:
        raise SubjectError(f"{folder} is empty; expected config.json, safetensors weights and a tokenizer")
    shards = _shards(folder, names)
    if "config.json" not in names:
        raise SubjectError(f"{folder} has no config.json; expected a model saved with save_pretrained")
    config = read_json(folder / "config.json")
    architecture = _architecture(folder, config)
    if "quantization_config" in config:
        raise SubjectError(f"{folder}/config.json: quantised weights are not supported; {DEQUANTISE}")
    vocabulary = [folder / name for name in TOKENIZER_VOCABULARIES if name in names]
    if not vocabulary:
        raise SubjectError(f"{folder} has no tokenizer; expected one of {', '.join(TOKENIZER_VOCABULARIES)}")
    for path in (folder / "config.json", folder / "tokenizer_config.json"):
        if path.exists() and "auto_map" in read_json(path):
            raise SubjectError(
                f"{path} names custom code (auto_map), which is never run; if transformers has this architecture built in "
                "and that is what ships, remove auto_map from a copy"
            )
    for shard in shards:
        check_safetensors(shard)
    extra = [folder / name for name in ("config.json", "generation_config.json", "model.safetensors.index.json") if name in names]
    return ModelFiles(shards + extra, vocabulary + [folder / name for name in TOKENIZER_OTHERS if name in names], architecture)


def adapter_files(folder: Path) -> list[Path]:
    """The files of a PEFT adapter.

    Raises:
        SubjectError: missing, pickled or truncated, or not a LoRA adapter.
    """
    if not folder.is_dir():
        raise SubjectError(f"expected a directory with a PEFT adapter, got {folder}")
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not config.exists():
        raise SubjectError(f"{folder} has no adapter_config.json; expected a PEFT adapter saved with save_pretrained")
    if not weights.exists():
        raise _no_safetensors(folder, sorted(path.name for path in folder.iterdir()), "adapter_model.safetensors")
    if (kind := read_json(config).get("peft_type")) != "LORA":
        raise SubjectError(f"{config}: only LoRA adapters can be merged into the weights, got peft_type {kind!r}")
    check_safetensors(weights)
    return [weights, config]


def check_safetensors(path: Path) -> None:
    """Refuse a file whose header or length is not that of a whole safetensors file; reads the header only.

    Raises:
        SubjectError: names the file, the length expected and the length found.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise SubjectError(f"{path} is not a whole safetensors file: {size} bytes, header length {length}; fetch it again")
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise SubjectError(f"{path} is not a safetensors file: its header does not parse ({error}); fetch it again") from None
    if packed := sorted(name for name in header if name.endswith("weight") and header[name]["dtype"] in PACKED_DTYPES):
        raise SubjectError(f"{path} holds {len(packed)} weights as packed integers, e.g. {packed[0]}; {DEQUANTISE}")
    if size != expected:
        raise SubjectError(f"{path} is truncated or padded: expected {expected} bytes, got {size}; fetch it again")


def read_json(path: Path) -> dict:
    """A JSON object.

    Raises:
        SubjectError: the file does not hold one.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise SubjectError(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise SubjectError(f"{path}: expected a JSON object, got {type(document).__name__}")
    return document


def _shards(folder: Path, names: list[str]) -> list[Path]:
    """The safetensors files that the model consists of."""
    if "model.safetensors.index.json" in names:
        mapping = read_json(folder / "model.safetensors.index.json").get("weight_map")
        if not isinstance(mapping, dict) or not mapping:
            raise SubjectError(f"{folder}/model.safetensors.index.json has no weight_map")
        shards = sorted(set(mapping.values()))
        if missing := [name for name in shards if name not in names]:
            raise SubjectError(
                f"{folder} lacks {len(missing)} of {len(shards)} weight files: {', '.join(missing[:5])}; fetch them"
            )
        return [folder / name for name in shards]
    if "model.safetensors" in names:
        return [folder / "model.safetensors"]
    raise _no_safetensors(folder, names, "model.safetensors (or an index and its shards)")


def _no_safetensors(folder: Path, names: list[str], expected: str) -> SubjectError:
    pickled = [name for name in names if name.endswith(PICKLES)]
    if not pickled:
        return SubjectError(f"{folder} has no weights; expected {expected}")
    return SubjectError(
        f"{folder} has only pickled weights ({', '.join(pickled[:5])}), which run code when opened and were not opened; ask the "
        "publisher for safetensors, or convert in an isolated machine: torch.load(..., weights_only=True), then "
        "safetensors.torch.save_file"
    )


def _architecture(folder: Path, config: dict) -> str:
    """The class that `AutoModelForCausalLM` would build; refuses anything else."""
    kind = config.get("model_type")
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind) if isinstance(kind, str) else None
    known = known[0] if isinstance(known, tuple | list) else known
    (stated,) = (config.get("architectures") or [known])[:1]
    if known is None or stated != known:
        raise SubjectError(
            f"{folder}/config.json: expected a causal language model that transformers has built in, got model_type {kind!r}, "
            f"architecture {stated!r}"
        )
    return known
