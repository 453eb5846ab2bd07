"""Open a subject: refuse what is unsafe or incomplete, load it unchanged, and check every site before anything is measured.

0. A Hub id with a commit is fetched first (safetensors, JSON and tokenizer files only); from then on it is a local directory.
1. The files are judged without loading (`files.py`): pickles, custom code, truncated or missing weights are refused.
2. The model is loaded from safetensors only, without remote code and without network. A weight that the files do not hold, or
   one that the model does not know, is a refusal: randomly initialised weights must never be measured.
3. Every weight must be finite.
4. The sites are found and validated; the access granted is measured.

A LoRA adapter is merged into the weights in memory, so that every site keeps its place; its files are part of the subject.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import torch
import transformers
from huggingface_hub import utils as hub_utils
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from auditgap.errors import SubjectError, UsageError, nearest
from auditgap.models.access import measure_access
from auditgap.models.files import ModelFiles, adapter_files, model_files, read_json
from auditgap.models.model import Model
from auditgap.models.sites import SiteMap
from auditgap.models.solver import find_sites
from auditgap.models.validate import validate_sites
from auditgap.records import FileDigest, ModelAccess, Subject, digest_of

__all__ = ["open_model"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
HUB_PATTERNS = ["*.safetensors", "*.json", "tokenizer*", "*.model", "*.txt", "*.jinja"]


def open_model(
    source: str | Path,
    *,
    revision: str | None = None,
    adapter: str | Path | None = None,
    dtype: str = "float32",
    device: str = "cpu",
) -> Model:
    """A subject ready to be measured, from a local directory or from a Hub id at a revision.

    Raises:
        SubjectError: it cannot be opened safely and completely; the message says why and what to do.
        SiteError: its architecture is not understood well enough to be measured.
        UsageError: an unknown dtype, a device that is not there, or a revision for a local directory.
    """
    where = _device(device)
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype '{dtype}'{nearest(dtype, DTYPES)}")
    with quiet_transformers(), torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        folder, commit = _locate(source, revision)
        files = model_files(folder)
        extra = adapter_files(Path(adapter)) if adapter is not None else []
        hf, tokenizer = _load(folder, DTYPES[dtype])
        if adapter is not None:
            hf = _merge(hf, Path(adapter))
        _refuse_non_finite(hf, folder)
        subject = _subject(str(source), commit, folder, files, extra, tokenizer, dtype, hf)
        try:
            hf = hf.to(where).eval().requires_grad_(False)  # type: ignore[arg-type]
            model = Model(subject, hf, tokenizer, _sites(hf), ModelAccess.M0)
            validate_sites(model)
        except (RuntimeError, NotImplementedError) as error:
            reason = str(error).strip().splitlines()[0]
            raise SubjectError(
                f"{folder}: the model does not run in {dtype} on {device}: {reason}; try another dtype or device"
            ) from None
        return replace(model, granted=measure_access(model))


def _sites(hf: PreTrainedModel) -> SiteMap:
    text = hf.config.get_text_config()
    ids = torch.randint(text.vocab_size, (4, 9), generator=torch.Generator().manual_seed(0)).to(hf.device)
    return find_sites(
        hf, n_layers=text.num_hidden_layers, n_heads=text.num_attention_heads, d_model=text.hidden_size, input_ids=ids
    )


def _device(device: str) -> torch.device:
    try:
        where = torch.device(device)
    except RuntimeError:
        where = torch.device("meta")
    if where.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device '{device}'; expected cpu, cuda or cuda:0")
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device '{device}' asked, but {torch.cuda.device_count()} CUDA devices are available here; use cpu")
    return where


def _locate(source: str | Path, revision: str | None) -> tuple[Path, str | None]:
    """The local directory, and the Hub commit if it came from there."""
    path = Path(source)
    if path.exists() or isinstance(source, Path):
        if revision is not None:
            raise UsageError(f"{path} is a local path, which has no revision; leave revision out")
        return path, None
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise SubjectError(f"expected a local directory or a Hub id (org/name), got '{source}', which does not exist")
    if revision is None:
        raise SubjectError(
            f"'{source}' is not a local directory; if it is a Hub id, give its revision (a commit), so that it is pinned"
        )
    try:
        local = Path(huggingface_hub.snapshot_download(source, revision=revision, allow_patterns=HUB_PATTERNS))
    except (OSError, ValueError, hub_utils.HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SubjectError(
            f"'{source}' at '{revision}' could not be fetched and is not cached ({reason}); give a local directory"
        ) from None
    return local, local.name


def _load(folder: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    loader = PreTrainedTokenizerFast if _states_plain_tokenizer(folder) else AutoTokenizer
    try:
        tokenizer = loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False, padding_side="left")
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        raise SubjectError(f"{folder}: the tokenizer does not load: {error}") from None
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, ImportError, KeyError, TypeError, RuntimeError) as error:
        raise SubjectError(f"{folder}: the model does not load: {error}") from None
    hf, info = loaded  # type: ignore[misc]  # a pair, because of output_loading_info
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(str(key) for key in info[problem]):
            raise SubjectError(
                f"{folder}: the weights do not fit config.json: {len(keys)} {problem.replace('_', ' ')}, "
                f"e.g. {', '.join(keys[:3])}; "
                "a model with made-up or ignored weights is not the subject"
            )
    return hf, tokenizer


def _states_plain_tokenizer(folder: Path) -> bool:
    """True if the files say that tokenizer.json is the tokenizer, with no class of its own.

    For some model types (Qwen2) AutoTokenizer overrules that with its own class, and encodes words to nothing without a warning.
    """
    config = folder / "tokenizer_config.json"
    stated = read_json(config).get("tokenizer_class") if config.exists() else None
    return stated in ("TokenizersBackend", "PreTrainedTokenizerFast") and (folder / "tokenizer.json").exists()


def _merge(hf: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with a LoRA adapter merged into its weights."""
    from peft import PeftConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict  # slow to import, rarely needed

    try:
        wrapped = get_peft_model(hf, PeftConfig.from_pretrained(str(folder), local_files_only=True))
        weights = load_peft_weights(str(folder), device="cpu")
        result = set_peft_model_state_dict(wrapped, weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise SubjectError(f"{folder}: the adapter does not fit the model: {error}") from None
    missing = [key for key in result.missing_keys if "lora_" in key]
    if missing or result.unexpected_keys:
        odd = (missing + list(result.unexpected_keys))[:3]
        raise SubjectError(f"{folder}: the adapter's weights do not match its configuration, e.g. {', '.join(odd)}")
    return wrapped.merge_and_unload()  # type: ignore[operator]


def _refuse_non_finite(hf: nn.Module, folder: Path) -> None:
    bad = [name for name, x in hf.named_parameters() if not torch.isfinite(x).all()]
    if bad:
        raise SubjectError(
            f"{folder}: {len(bad)} tensors hold NaN or infinity, e.g. {', '.join(bad[:3])}; the checkpoint is damaged"
        )


def _subject(
    source: str,
    commit: str | None,
    folder: Path,
    files: ModelFiles,
    adapter: list[Path],
    tokenizer: PreTrainedTokenizerBase,
    dtype: str,
    hf: PreTrainedModel,
) -> Subject:
    template = tokenizer.chat_template
    return Subject(
        name=Path(source).resolve().name if commit is None else source.rpartition("/")[2],
        revision=commit,
        architecture=files.architecture,
        weights=tuple(FileDigest.of(path, root=folder) for path in files.weights),
        tokenizer=tuple(FileDigest.of(path, root=folder) for path in files.tokenizer),
        chat_template=digest_of(str(template).encode()) if template else None,
        adapter=tuple(FileDigest.of(path) for path in adapter),
        dtype=dtype,
        n_parameters=sum(p.numel() for p in hf.parameters()),
    )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No warnings, log lines or progress bars from the libraries; their settings are restored."""
    logging = transformers.utils.logging
    verbosity, bars, hub_bars = logging.get_verbosity(), logging.is_progress_bar_enabled(), hub_utils.are_progress_bars_disabled()
    logging.set_verbosity(50)  # CRITICAL
    logging.disable_progress_bar()
    hub_utils.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if not hub_bars:
            hub_utils.enable_progress_bars()
