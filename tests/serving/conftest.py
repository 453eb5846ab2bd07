"""A tiny random model with a chat template, monitors on it, and servers in this process."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook(["auditgap.serving.decoding"], "beartype.beartype")

from tokenizers import Tokenizer  # noqa: E402
from tokenizers.models import WordLevel  # noqa: E402
from tokenizers.pre_tokenizers import WhitespaceSplit  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast  # noqa: E402

from auditgap.models import Model, open_model  # noqa: E402
from auditgap.monitor import Monitor, Weights, engine_of  # noqa: E402
from auditgap.monitor.artefact import weights_bytes  # noqa: E402
from auditgap.records import DataRef, Interval, Measured, NotMeasured, digest_of, now  # noqa: E402
from auditgap.records.monitor import Aggregation, MonitorCard, MonitorPolicy, MonitorProbe, OperatingPoint  # noqa: E402
from auditgap.serving.running import serving  # noqa: E402
from auditgap.serving.service import Service, Settings  # noqa: E402
from auditgap.serving.tenants import Tenant, new_tenant  # noqa: E402

WORDS = [*"abcdefghijklmnopqrstuvwxyz"]
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' and not loop.first %}{{ raise_exception('system comes first') }}"
    "{% endif %}{{ m['content'] }} {% endfor %}"
)
RELEASE = "sha256:" + "ab" * 32


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 2 layers, width 16 and a context of 4,096; its words are the letters."""
    folder = tmp_path_factory.mktemp("served")
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(["<unk>", "<s>", "</s>", "<pad>", *WORDS])}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    specials = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=core, chat_template=TEMPLATE, **specials).save_pretrained(folder)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(**shape, vocab_size=30, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2, pad_token_id=3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = AutoModelForCausalLM.from_config(config)
        for parameter in hf.parameters():
            parameter.data *= 1.0 if parameter.ndim == 1 else 6.0
        hf.lm_head.weight.data[:4] = 0.0  # greedy choice says letters only
    hf.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(model_folder: Path) -> Model:
    """The same, opened."""
    return open_model(model_folder)


MakeMonitor = Callable[..., Monitor]


@pytest.fixture(scope="session")
def make(model: Model) -> MakeMonitor:
    """A monitor that reads one letter: it is flagged where `letter` is read, and nowhere else."""

    def build(name: str = "probe", *, letter: str = "z", on: Model = model, threshold: float = 0.5) -> Monitor:
        ids = torch.tensor([on.tokenizer.convert_tokens_to_ids(WORDS)])
        embedded = on.hf.get_input_embeddings()(ids)[0].double()
        wanted = torch.zeros(len(WORDS), dtype=torch.float64)
        wanted[WORDS.index(letter)] = 1.0
        centre = embedded.mean(0)
        direction = torch.linalg.lstsq(embedded - centre, wanted - wanted.mean(), rcond=1e-9).solution
        weights = [Weights(direction.float(), float(wanted.mean() - centre @ direction))]
        card = MonitorCard(
            name=name,
            version="1",
            watches=f"the letter {letter}",
            subject=on.subject,
            engine=engine_of(on),
            probes=(MonitorProbe(name="p0", site="resid_pre.0", val_auroc=1.0),),
            weights=digest_of(weights_bytes(["p0"], weights)),
            position="every_token",
            aggregation=Aggregation(kind="max"),
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
    missing = {key: NotMeasured(name=key, reason="made up") for key in ("test_fpr", "test_fpr_contrast", "test_tpr")}
    interval = Interval(low=0.0, high=0.01, level=0.9, method="clopper-pearson")
    return OperatingPoint(
        max_fpr=0.01, confidence=0.95, threshold=threshold, n_calibration=299, n_exceeding=0, calibration_fpr=interval, **missing
    )


class Served(NamedTuple):
    """A server in this process."""

    url: str
    service: Service
    ledger: Path
    tokens: dict[str, str]

    def client(self, tenant: str = "alice", **options) -> httpx.Client:
        """A plain client of one tenant."""
        headers = {"Authorization": f"Bearer {self.tokens[tenant]}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **options)


Serve = Callable[..., AbstractContextManager[Served]]


@pytest.fixture(scope="session")
def serve(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """A server of tenants `alice` (sees verdicts, reads metrics) and `bob` (neither), for as long as a block lasts."""

    @contextmanager
    def run(
        monitors=(),
        *,
        policy: MonitorPolicy | None = None,
        limits: dict[str, int] | None = None,
        ledger=None,
        on=model,
        **options,
    ) -> Iterator[Served]:
        tokens, tenants = {}, []
        for name, rights in (("alice", {"verdicts": True, "operator": True}), ("bob", {})):
            tokens[name], line = new_tenant(name)
            most = {"requests_per_minute": 1_000_000, "concurrent": 64} | (limits or {})
            tenants.append(Tenant(name=name, token=line.partition(":")[2], **rights, **most))
        path = ledger or tmp_path_factory.mktemp("ledger") / "requests.jsonl"
        of_settings = {key: options.pop(key) for key in tuple(options) if key in Settings.model_fields}
        settings = Settings(**{"name": "tiny", "release": RELEASE} | of_settings)
        options = {"policy": policy or MonitorPolicy(), "settings": settings, "ledger": path, "tenants": tenants} | options
        with serving(on, list(monitors), **options) as (url, service):
            yield Served(url, service, path, tokens)

    return run
