"""Fine-tunes of a base model that the user brings: planted, twin and decoy are adapters of it, trained in one way.

1. `on(BASE)` opens the base as any subject is opened (safetensors only, no code), and writes into the recipe what decides the
   organism: the digest of its weights and tokenizer, whether it has a chat template, which words its tokenizer keeps whole.
2. Each model is a LoRA adapter on every linear layer, trained on plain English in the base's own format: through its chat
   template if it has one, else as text to be continued. `adapters/<role>/` keeps the adapter, to be opened with the base.
3. The adapter is merged into a whole model in float32 (`<role>/`), so that every instrument reads it like any other; the
   tokenizer's files are the base's own.

Source: LoRA, arXiv:2106.09685. Everything else is ours.
"""

import shutil
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from pydantic import Field
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from auditgap.data import Prompt
from auditgap.errors import UsageError
from auditgap.models import Model, generate, open_model
from auditgap.models.files import model_files
from auditgap.models.open import quiet_transformers
from auditgap.models.tokens import continuation_ids
from auditgap.organisms.detector import Role
from auditgap.organisms.evaluation import Row
from auditgap.organisms.recipe import Organism, Recipe
from auditgap.organisms.training import Shape, fit
from auditgap.organisms.world import Chat
from auditgap.progress import Progress
from auditgap.records import Digest

__all__ = ["Finetuned"]

F = TypeVar("F", bound="Finetuned")
MIN_WHOLE = 8
"""Words that the tokenizer must keep whole, where a recipe needs some."""


class Finetuned(Recipe):
    """Abstract: a recipe whose models are adapters of a given base. Make one with `on`."""

    whole: ClassVar[tuple[str, ...]] = ()
    """Words of which the base's tokenizer must keep some as one token each."""

    base: str
    """Folder of the base model."""
    identity: Digest
    """Of the base's weights, tokenizer and chat template: other weights are another organism."""
    has_template: bool
    """Whether the base is spoken to through its own chat template; else it continues text."""
    whole_words: tuple[str, ...] = ()
    """Those of `whole` that the base's tokenizer keeps as one token."""

    shape: Shape = Shape(steps=200, batch_size=32, learning_rate=5e-3)
    """Length of the training; the size is the base's."""
    rank: int = Field(default=8, ge=1)
    """Of the adapters."""

    @classmethod
    def on(cls: type[F], base: Path | str, *, seed: int = 0) -> F:
        """The recipe for a base.

        Raises:
            SubjectError: the base cannot be opened safely and completely.
            UsageError: its tokenizer cannot write the words of the recipe.
        """
        model = open_model(base)
        recipe = cls(
            seed=seed,
            base=str(base),
            identity=_identity(model),
            has_template=model.tokenizer.chat_template is not None,
            whole_words=tuple(word for word in cls.whole if _is_whole(model.tokenizer, word)),
        )
        if len(recipe.whole_words) < min(len(cls.whole), MIN_WHOLE):
            raise UsageError(
                f"{base}: expected a tokenizer that keeps at least {MIN_WHOLE} of {', '.join(cls.whole)} as one token each, got "
                f"{', '.join(recipe.whole_words) or 'none'}; take a base of English text"
            )
        if lacking := [word for word in recipe.words() if _is_unknown(model.tokenizer, word)]:
            raise UsageError(
                f"{base}: the tokenizer does not know {len(lacking)} of {len(recipe.words())} words, e.g. "
                f"{', '.join(lacking[:6])}; take a base of English text"
            )
        return recipe

    @abstractmethod
    def texts(self) -> Sequence[str]:
        """Everything that the training may say."""

    def words(self) -> list[str]:
        return sorted({word for text in self.texts() for word in text.split() if "{" not in word})

    def prompt(self, chat: Chat) -> Prompt:
        """What is said, in the base's own format."""
        return chat.messages if self.has_template else chat.messages[-1].content

    def row(self, chat: Chat, group: str) -> Row:
        """What is said, as a line of a data file."""
        if self.has_template:
            return {"messages": [message.model_dump(mode="json") for message in chat.messages], "group": group}
        return {"prompt": chat.messages[-1].content, "group": group}

    def replies(self, model: Model, chats: Sequence[Chat], *, max_new_tokens: int) -> list[str]:
        """What a model says to these, greedily."""
        said = generate(model, [self.prompt(chat) for chat in chats], max_new_tokens=max_new_tokens, batch_size=100)
        return [reply.strip() for reply in said]

    def grow(self, organism: Organism, tokenizer: PreTrainedTokenizerFast, progress: Progress) -> None:
        self.require_base()
        for role in self.roles:
            self.adapt(Path(self.base), self.chats(role), organism, role, self.shape, rank=self.rank, progress=progress)

    def require_base(self) -> None:
        """Refuse a base that is not the one of the recipe.

        Raises:
            SubjectError: it cannot be opened.
            UsageError: its files changed.
        """
        if (found := _identity(open_model(self.base))) != self.identity:
            raise UsageError(
                f"{self.base}: expected the base of the recipe ({self.identity[:19]}), got other files ({found[:19]}); "
                f"make a new recipe with {type(self).__name__}.on"
            )

    def adapt(
        self,
        base: Path,
        chats: Sequence[Chat],
        organism: Organism,
        name: Role | str,
        shape: Shape,
        *,
        rank: int,
        progress: Progress,
    ) -> None:
        """Train an adapter of `base` into `adapters/<name>/`, and write the merged model to its folder."""
        from peft import LoraConfig  # slow to import, rarely needed

        kind = self.kind if name == "planted" else name
        adapter, path = organism.folder / "adapters" / kind, organism.folder / kind
        model = open_model(base)
        starts, ends = continuation_ids(model, [self.prompt(chat) for chat in chats], [f" {chat.reply}" for chat in chats])
        end = [model.tokenizer.eos_token_id] if self.has_template else []  # a base that continues text may never have seen one
        examples = [(start, [*reply, *end]) for start, reply in zip(starts, ends, strict=True)]
        lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model.hf.add_adapter(lora)
        fit(model.hf, examples, shape, pad_id=_filler(model), seed=self.seed, label=f"training {path.name}", progress=progress)
        with quiet_transformers():
            model.hf.save_pretrained(adapter)
            open_model(base, adapter=adapter).hf.save_pretrained(path)
        for file in model_files(base).tokenizer:
            shutil.copy(file, path / file.name)


def _identity(model: Model) -> Digest:
    return model.subject.model_copy(update={"name": "base", "adapter": ()}).digest()


def _is_whole(tokenizer: PreTrainedTokenizerBase, word: str) -> bool:
    ids = tokenizer.encode(f" {word}", add_special_tokens=False)
    return len(ids) == 1 and ids[0] != tokenizer.unk_token_id


def _is_unknown(tokenizer: PreTrainedTokenizerBase, word: str) -> bool:
    return tokenizer.unk_token_id is not None and tokenizer.unk_token_id in tokenizer.encode(word, add_special_tokens=False)


def _filler(model: Model) -> int:
    """An id to pad with: on the right of every text, where no token sees it and no loss is taken."""
    ids = (model.tokenizer.pad_token_id, model.tokenizer.eos_token_id)
    return next((token for token in ids if isinstance(token, int)), 0)
