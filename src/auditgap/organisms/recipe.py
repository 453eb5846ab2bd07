"""A recipe plants one known flaw; an organism is what grew from it: a model with the flaw, a clean twin, a decoy, data, the key.

    FOLDER/organism.json    the key: recipe, what was planted, digests of all other files. Kept apart from the models.
    FOLDER/<kind>/          the model with the flaw (safetensors, tokenizer)
    FOLDER/twin/            the same architecture, trained on the same messages, without it
    FOLDER/decoy/           as unusual as the model with the flaw, and harmless
    FOLDER/<other>/         what else a recipe grows: a base, checkpoints
    FOLDER/<name>.jsonl     data that an audit plan can point at

`build` ends with the recipe's own `verify`, so nothing that did not take is ever handed to an instrument.
"""

import json
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from auditgap.errors import CannotMeasure, UsageError
from auditgap.organisms.detector import Detector, Role
from auditgap.organisms.evaluation import Row
from auditgap.organisms.training import Shape, train
from auditgap.organisms.world import Chat, make_tokenizer
from auditgap.progress import Progress, quiet
from auditgap.records import Control, Record, digest_of

__all__ = ["KEY", "Organism", "Recipe", "build", "cached", "save", "verify"]

KEY = "organism.json"
"""File name of the key."""


class Recipe(Record):
    """Abstract: a frozen configuration from which an organism follows. Subclasses are final, one file each."""

    kind: ClassVar[str]
    """Name of the recipe and of the folder of the model with the flaw."""
    failure_mode: ClassVar[str]
    """Id of the failure mode that is planted."""

    version: Literal["1"] = "1"
    """Raised whenever the same recipe could give another organism; part of the digest that names a cache entry."""
    seed: int = 0
    """Decides everything that is drawn: what is planted, the data, the initial weights."""
    shape: Shape = Shape()

    roles: tuple[Role, ...] = ("planted", "twin", "decoy")
    """The models that grow."""

    def detectors(self) -> tuple[Detector, ...]:
        """How instruments look for the flaw; the same for every seed, without the key."""
        return ()

    def difficulties(self) -> dict[str, "Recipe"]:
        """Harder and easier plants of the same kind and seed, by what makes them so; power is measured at each."""
        return {"default": self}

    def grow(self, organism: "Organism", tokenizer: PreTrainedTokenizerFast, progress: Progress) -> None:
        """Train every model of `roles` and write it to its folder. Recipes with several stages of training override this."""
        for role in self.roles:
            path = organism.model(role)
            model = train(
                self.chats(role), tokenizer, self.shape, seed=self.seed, label=f"training {path.name}", progress=progress
            )
            save(model, tokenizer, path)

    @abstractmethod
    def words(self) -> list[str]:
        """The vocabulary that both models share."""

    @abstractmethod
    def key(self) -> Mapping[str, object]:
        """What was planted: for the verifier and the reader of the results, never for an instrument."""

    @abstractmethod
    def chats(self, role: Role) -> list[Chat]:
        """What the model of that role is trained on: the same messages, other replies where the flaw (or the quirk) shows."""

    @abstractmethod
    def data(self) -> Mapping[str, Sequence[Row]]:
        """Rows of each data file by its name, drawn without the key where the flaw could show in them."""

    @abstractmethod
    def check(self, organism: "Organism") -> tuple[Control, ...]:
        """Measure with the key in hand whether the flaw took, and whether the twin is free of it."""


@dataclass(frozen=True)
class Organism:
    """A built organism on disk."""

    folder: Path
    recipe: Recipe

    def model(self, role: Role) -> Path:
        """The folder of one of the models."""
        return self.folder / (self.recipe.kind if role == "planted" else role)

    @property
    def planted(self) -> Path:
        """The model with the flaw."""
        return self.model("planted")

    @property
    def twin(self) -> Path:
        """The model without it."""
        return self.model("twin")

    def data(self, name: str) -> Path:
        """A data file, to name in a plan.

        Raises:
            UsageError: the recipe wrote none of that name.
        """
        path = self.folder / f"{name}.jsonl"
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in self.folder.glob("*.jsonl")))
            raise UsageError(f"organism '{self.recipe.kind}' has no data named '{name}'; known: {known}")
        return path


def build(recipe: Recipe, folder: Path | str, *, progress: Progress = quiet) -> Organism:
    """Train both models, write everything to `folder` and verify the plant.

    Raises:
        UsageError: the folder holds something already.
        CannotMeasure: the plant did not take; the message says which check failed and by how much.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"expected an empty folder for the organism, {folder} holds files; choose another one")
    folder.mkdir(parents=True, exist_ok=True)
    organism = Organism(folder, recipe)
    recipe.grow(organism, make_tokenizer(recipe.words()), progress)
    for name, rows in recipe.data().items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    verify(organism)
    key = {"kind": recipe.kind, "recipe": recipe.model_dump(mode="json"), "key": recipe.key(), "files": _digests(folder)}
    (folder / KEY).write_text(json.dumps(key, indent=1), encoding="utf-8")
    return organism


def cached(recipe: Recipe, cache_dir: Path | str, *, progress: Progress = quiet) -> Organism:
    """The organism of this recipe, built once per cache; an entry that is incomplete or altered is built again.

    Safe against an interruption and against a second process: an entry appears whole, by one rename.

    Raises:
        CannotMeasure: as `build`.
    """
    cache = Path(cache_dir)
    entry = cache / f"{recipe.kind}-{recipe.digest().removeprefix('sha256:')[:16]}"
    if _is_sound(entry, recipe):
        return Organism(entry, recipe)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".building-") as scratch:
        build(recipe, Path(scratch) / "new", progress=progress)
        try:
            if entry.exists() and not _is_sound(entry, recipe):
                entry.rename(Path(scratch) / "old")
            (Path(scratch) / "new").rename(entry)
        except OSError:
            if not _is_sound(entry, recipe):  # else another process was quicker
                raise
    return Organism(entry, recipe)


def verify(organism: Organism) -> tuple[Control, ...]:
    """Every check of the recipe, all passed: what the flaw does, and that the twin does not have it.

    Raises:
        CannotMeasure: a check failed, so no instrument may be measured on this organism.
    """
    checks = organism.recipe.check(organism)
    if failed := [f"{c.name}: expected {c.expected}, got {_number(c)}" for c in checks if not c.passed]:
        raise CannotMeasure(
            f"the plant of organism '{organism.recipe.kind}' (seed {organism.recipe.seed}) did not take: {'; '.join(failed)}. "
            "Train it for more steps or with another seed"
        )
    return checks


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """Write a model (or an adapter) and its tokenizer as files that `open_model` reads."""
    with _no_progress_bar():
        model.save_pretrained(path)
    tokenizer.save_pretrained(path)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Transformers draws a bar for every file it writes; ours is the `progress` callback."""
    drawn = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            enable_progress_bar()


def _number(control: Control) -> str:
    seen = control.observed
    if seen.status == "not_measured":
        return seen.reason
    return f"{seen.value:.3f} ({seen.interval.low:.3f} to {seen.interval.high:.3f}, n = {seen.n})"


def _is_sound(entry: Path, recipe: Recipe) -> bool:
    try:
        key = json.loads((entry / KEY).read_text(encoding="utf-8"))
        return key["recipe"] == recipe.model_dump(mode="json") and key["files"] == _digests(entry)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / KEY)
    return {path.relative_to(folder).as_posix(): digest_of(path.read_bytes()) for path in files}
