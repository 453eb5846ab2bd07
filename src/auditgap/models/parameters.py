"""How many parameters a model has, and how many of them work on one token: from its config.json alone.

1. The file names a built-in class; the class is built on the meta device, where a tensor is a shape without memory. No weights
   are needed, nothing is fetched, and no code of the publisher is run.
2. A shared (tied) matrix is one matrix. Look-up tables are the `nn.Embedding` modules.
3. Routed experts are the modules whose class is called `...Experts`: every tensor in one has the experts on its first axis. Of n
   experts a token meets k, so (n - k) / n of such a tensor rests. Shared experts always work.
4. What does not fit this description is refused by name rather than guessed: other modalities, encoders, routers that may choose
   no expert, expert tensors of another shape.
"""

from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from auditgap.errors import SubjectError, UsageError, nearest
from auditgap.models.files import read_json
from auditgap.models.open import quiet_transformers
from auditgap.records import Record

__all__ = ["ParameterCount", "count_parameters"]

N_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
TOP_K = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "moe_top_k",
    "moe_topk",
    "moe_k",
    "top_k_experts",
)
PREDICTION_LAYERS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")
MODALITIES = ("vision", "audio", "image", "video", "speech", "vq", "codec")
MAY_CHOOSE_NOBODY = ("zaya", "longcat_flash")  # their routers have classes that stand for no expert at all
STATE = "state total and active parameters in the ledger yourself"
NOT_SHAPE = ("model_type", "auto_map", "quantization_config", "architectures", "torch_dtype", "dtype")


class ParameterCount(Record):
    """Parameters of a causal language model by what they do; whole numbers of parameters, not bytes."""

    model_type: str
    architecture: str
    """The class that was built."""
    total: int
    """Every parameter once; tied matrices are one."""
    active: int
    """Those that work on one token: `total` less the routed experts that are not chosen. Equal to `total` in a dense model."""
    embedding: int
    """In look-up tables (token, position); part of `total` and of `active`."""
    active_without_lookup: int
    """`active` less the tables that are only looked up and multiply nothing: the convention of some publishers (gpt-oss)."""
    routed: int
    """In routed experts, chosen or not; 0 in a dense model."""
    n_experts: int = 0
    """Routed experts per layer."""
    n_experts_per_token: int = 0
    tied: bool
    """True if the output head is the token table."""
    notes: tuple[str, ...] = ()
    """What the numbers leave out, or how the class was found."""


class _Class(NamedTuple):
    model_type: str
    name: str
    notes: tuple[str, ...]


class _Experts(NamedTuple):
    routed: int
    resting: int
    n: int
    k: int


def count_parameters(config: str | Path) -> ParameterCount:
    """Total, active and embedding parameters of the model that a config.json describes.

    `config` is the file, or the folder that holds it.

    Raises:
        UsageError: no such file, or not the config.json of a model (exit code 2).
        SubjectError: a part cannot be counted exactly: unknown model_type, another modality, unidentified experts, a size left to
            a default.
    """
    path = Path(config) / "config.json" if Path(config).is_dir() else Path(config)
    document = _read(path)
    _refuse_other_modalities(path, document)
    chosen = _class_of(path, document)
    model = _build(path, document, chosen)
    experts = _experts(path, document, model, chosen.model_type)
    total = sum(p.numel() for p in model.parameters())
    tables = {id(m.weight): m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding)}
    head = model.get_output_embeddings()
    tied = head is not None and id(head.weight) in tables
    looked_up = sum(n for key, n in tables.items() if head is None or key != id(head.weight))
    return ParameterCount(
        model_type=str(document["model_type"]),
        architecture=chosen.name,
        total=total,
        active=total - experts.resting,
        embedding=sum(tables.values()),
        active_without_lookup=total - experts.resting - looked_up,
        routed=experts.routed,
        n_experts=experts.n,
        n_experts_per_token=experts.k,
        tied=tied,
        notes=chosen.notes + _left_out(document),
    )


def _read(path: Path) -> dict:
    if not path.is_file():
        raise UsageError(f"{path}: expected a config.json or a folder that holds one, got nothing there; check the path")
    try:
        document = read_json(path)
    except (SubjectError, OSError) as error:
        raise UsageError(f"{path}: expected the config.json of a model, got: {error}; fetch the file again") from None
    if not isinstance(document.get("model_type"), str):
        raise UsageError(f"{path}: expected a model_type, got none; give the config.json that is published with the weights")
    return document


def _class_of(path: Path, document: dict) -> _Class:
    """The built-in class: that of the model_type, or for a type that is not built in, the class that the file names."""
    kind = document["model_type"]
    stated = next(iter(document.get("architectures") or ()), None)
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    known = known[0] if isinstance(known, tuple | list) else known
    if known is not None and stated in (None, known):
        return _Class(kind, known, ())
    if stated is not None and kind not in CONFIG_MAPPING and stated in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        built_in: str = getattr(transformers, stated).config_class.model_type
        return _Class(built_in, stated, (f"model_type '{kind}' is not built in; counted as {stated}, which the file names",))
    if known is None and kind not in CONFIG_MAPPING:
        hint = nearest(kind, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
        raise SubjectError(
            f"{path}: expected a model_type that transformers {transformers.__version__} has built in, got '{kind}'"
            f"{hint if '?' in hint else ';'} {STATE}"
        )
    raise SubjectError(
        f"{path}: expected a causal language model ({known or 'none is built in for this type'}), got model_type '{kind}' with "
        f"architecture {stated}, which has parts that would not be counted; {STATE}"
    )


def _refuse_other_modalities(path: Path, document: dict) -> None:
    name = str(next(iter(document.get("architectures") or ()), ""))
    parts = [key for key in document if key.endswith("_config") and key.startswith(MODALITIES) and document[key]]
    if parts or name.endswith("ForConditionalGeneration"):
        raise SubjectError(
            f"{path}: expected a language model only, got a multimodal one ({', '.join(parts) or name}), whose encoders are not "
            "counted; for the language part alone, give its text_config as a file of its own"
        )
    if document.get("is_encoder_decoder"):
        raise SubjectError(f"{path}: expected a decoder, got an encoder-decoder; its encoder would be left out; {STATE}")


def _build(path: Path, document: dict, chosen: _Class) -> PreTrainedModel:
    """The model on the meta device: shapes without memory."""
    fields = {key: value for key, value in document.items() if key not in NOT_SHAPE}
    try:
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            config = CONFIG_MAPPING[chosen.model_type](**fields)
            _refuse_defaults(path, document, config)
            with torch.device("meta"):
                return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except SubjectError:
        raise
    except Exception as error:  # the constructors of some 200 families raise anything when a field does not fit
        reason = " ".join(str(error).split())[:300] or "no reason given"
        raise SubjectError(
            f"{path}: {chosen.name} cannot be built from it: {type(error).__name__}: {reason}; compare its fields with the "
            f"documentation of the class, or {STATE}"
        ) from None


def _refuse_defaults(path: Path, document: dict, config: PretrainedConfig) -> None:
    """A size that the file leaves out would silently be the class's default, hence another model's."""
    for size in ("hidden_size", "num_hidden_layers", "vocab_size"):
        aliases = {size, config.attribute_map.get(size, size)} | {a for a, b in config.attribute_map.items() if b == size}
        derived = isinstance(getattr(type(config), size, None), property)
        if not derived and hasattr(config, size) and aliases.isdisjoint(document):
            raise SubjectError(f"{path}: expected {' or '.join(sorted(aliases))}, got none; a default would count another model")


def _experts(path: Path, document: dict, model: PreTrainedModel, model_type: str) -> _Experts:
    """Parameters in routed experts, and how many of them rest while one token passes."""
    stated = {n for key in N_EXPERTS if key in document for n in _whole(document[key]) if n > 0}
    routed = resting = 0
    found: set[tuple[int, int]] = set()
    inside: set[int] = set()
    for name, stack in model.named_modules():
        if not type(stack).__name__.endswith("Experts") or "shared" in name.rpartition(".")[2]:
            continue
        if model_type in MAY_CHOOSE_NOBODY:
            raise SubjectError(f"{path}: the router of {name} may choose no expert, so active parameters vary by token; {STATE}")
        k = _top_k(path, document)
        for tensor, p in stack.named_parameters():
            n = p.shape[0]
            if n not in stated or not 1 <= k <= n:
                raise SubjectError(
                    f"{path}: {name}.{tensor}: expected {' or '.join(map(str, sorted(stated))) or 'a stated number of'} routed "
                    f"experts on the first axis and at most as many per token, got shape {tuple(p.shape)} and {k}; {STATE}"
                )
            inside.add(id(p))
            found.add((n, k))
            routed += p.numel()
            resting += p.numel() // n * (n - k)
    odd = [name for name, p in model.named_parameters() if id(p) not in inside and p.ndim >= 3 and p.shape[0] in stated - {1}]
    if odd or (max(stated, default=0) > 1 and not found):
        raise SubjectError(
            f"{path}: expected to find the {max(stated)} routed experts that the file states, got "
            f"{odd[0] + ', which is in no known place' if odd else 'no tensor of them'} in {type(model).__name__}; {STATE}"
        )
    n, k = max(found, default=(0, 0))
    return _Experts(routed, resting, n, k)


def _top_k(path: Path, document: dict) -> int:
    """Experts per token, as stated: one number, the same in all layers."""
    stated = {key: document[key] for key in TOP_K if document.get(key) is not None}
    values = {k for value in stated.values() for k in _whole(value)}
    if len(values) != 1:
        raise SubjectError(
            f"{path}: expected one number of experts per token ({', '.join(TOP_K[:3])}, ...), got {stated or 'none'}; {STATE}"
        )
    return values.pop()


def _whole(value: object) -> list[int]:
    """The whole numbers in a field that is one number, or a list with one per layer."""
    listed = value if isinstance(value, list) else [value]
    return [n for n in listed if isinstance(n, int) and not isinstance(n, bool)]


def _left_out(document: dict) -> tuple[str, ...]:
    notes = []
    if extra := next((key for key in PREDICTION_LAYERS if document.get(key)), None):
        notes.append(
            f"{extra} = {document[extra]}: multi-token prediction layers are not part of the built-in class, so not counted"
        )
    if "auto_map" in document:
        notes.append("auto_map names code of the publisher; it was not run, and the built-in class was counted")
    if "quantization_config" in document:
        notes.append("quantization_config changes bytes, not the number of parameters")
    return tuple(notes)
