"""Tiny random models of every family we claim, saved and opened as a user would, once per session.

Norm gains are perturbed: at their initial ones (zeros in Gemma) a norm in the wrong place would go unseen.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
import transformers
from tiny_families import CONFIGS, WORDS
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from auditgap.models import Model, open_model

transformers.utils.logging.disable_progress_bar()

Tiny = Callable[..., Model]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, <s> in front, no padding token."""
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Callable[[str], Path]:
    """The directory of a tiny random model of that family."""
    made: dict[str, Path] = {}

    def build(family: str) -> Path:
        if family not in made:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                hf = AutoModelForCausalLM.from_config(CONFIGS[family]())
                for name, parameter in hf.named_parameters():
                    if parameter.ndim == 1 or "experts" in name:
                        parameter.data += 0.2 * torch.randn_like(parameter)
                    else:
                        parameter.data *= 4.0  # 0.02 is so small that attention and MLP hardly matter
            made[family] = tmp_path_factory.mktemp(family)
            hf.save_pretrained(made[family])
            tokenizer.save_pretrained(made[family])
        return made[family]

    return build


@pytest.fixture(scope="session")
def tiny(folder: Callable[[str], Path]) -> Tiny:
    """`tiny(family, dtype="float32")`: opened once per session; tests must leave it as found."""
    opened: dict[tuple[str, str], Model] = {}

    def get(family: str, dtype: str = "float32") -> Model:
        if (family, dtype) not in opened:
            opened[family, dtype] = open_model(folder(family), dtype=dtype)
        return opened[family, dtype]

    return get


def _state(model: Model) -> tuple:
    """Everything that a measurement must leave as found."""
    modules = list(model.hf.modules())
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in modules]
    weights = [(p.data_ptr(), p.requires_grad, p.grad is None, p.double().sum().item()) for p in model.hf.parameters()]
    return hooks, [m.training for m in modules], weights, torch.random.get_rng_state().tolist(), torch.is_grad_enabled()


@pytest.fixture
def left_as_found() -> Callable[[Model], AbstractContextManager[None]]:
    """`with left_as_found(model):` fails if hooks, train mode, weights or the random state differ afterwards."""

    @contextmanager
    def check(model: Model) -> Iterator[None]:
        before = _state(model)
        yield
        assert _state(model) == before

    return check
