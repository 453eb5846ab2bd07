"""A monitor on disk, and whether it may speak about the model in front of it.

    FOLDER/monitor.json              the card: what is signed
    FOLDER/<digest>.safetensors      the probes' weights, named by the digest that the card states

A monitor is bound to the subject (weights, tokenizer, chat template, dtype) and to the engine with its flags. Anywhere else it is
uncalibrated: it says why, and its policy decides what that means.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import safetensors
import torch
import transformers
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from auditgap.errors import EvidenceInvalid, UsageError
from auditgap.models import Model
from auditgap.monitor.packing import Readout, Weights
from auditgap.records import Digest, Subject, digest_of
from auditgap.records.monitor import Engine, MonitorCard

__all__ = ["CARD", "Monitor", "Uncalibrated", "engine_of", "load", "save", "uncalibrated", "weights_bytes"]

CARD = "monitor.json"
PARTS = {
    "architecture": "architecture",
    "weights": "weights",
    "adapter": "adapter",
    "tokenizer": "tokenizer",
    "chat_template": "chat template",
    "dtype": "dtype",
}


@dataclass(frozen=True, eq=False)
class Monitor:
    """A card with its weights."""

    card: MonitorCard
    weights: tuple[Weights, ...]
    """Of each probe of the card, in its order."""

    @property
    def readouts(self) -> list[Readout]:
        """Its probes, and where they read."""
        return [Readout(probe.site, weights) for probe, weights in zip(self.card.probes, self.weights, strict=True)]


class Uncalibrated(NamedTuple):
    """A monitor says nothing about this model, for these reasons."""

    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"UNCALIBRATED: {'; '.join(self.reasons)}"


def engine_of(model: Model) -> Engine:
    """What computes the activations of a model that is opened here."""
    return Engine(
        name="transformers",
        version=transformers.__version__,
        dtype=str(model.hf.dtype).removeprefix("torch."),
        flags={
            "attention": model.attention_kernel,
            "device": model.device.type,
            "matmul-precision": torch.get_float32_matmul_precision(),
            "prefix-cache": "off",
            "torch": torch.__version__,
        },
    )


def uncalibrated(card: MonitorCard, subject: Subject, engine: Engine, *, template: Digest | None) -> Uncalibrated | None:
    """Why a monitor may not speak here; None if it may.

    `template` is the chat template in use: it can be exchanged after the model was opened.
    """
    ours, theirs = card.subject, subject
    reasons = [
        f"another {words} than it was calibrated on"
        for part, words in PARTS.items()
        if getattr(ours, part) != getattr(theirs, part)
    ]
    if not reasons and ours.digest() != theirs.digest():
        reasons.append("another subject than it was calibrated on")
    if template != subject.chat_template:
        reasons.append("the chat template in use is not the subject's")
    reasons += card.engine.differences(engine)
    return Uncalibrated(tuple(reasons)) if reasons else None


def weights_bytes(card_probes: list[str], weights: list[Weights]) -> bytes:
    """The safetensors file of some probes: `<name>.direction` and `<name>.bias`."""
    tensors = {}
    for name, read in zip(card_probes, weights, strict=True):
        tensors[f"{name}.direction"] = read.direction.to("cpu", torch.float32).contiguous()
        tensors[f"{name}.bias"] = torch.tensor(read.bias, dtype=torch.float64)
    return save_tensors(tensors)


def save(monitor: Monitor, folder: Path | str) -> Path:
    """Write card and weights; the folder's card.

    Raises:
        UsageError: the folder holds a monitor already.
    """
    folder = Path(folder)
    if (folder / CARD).exists():
        raise UsageError(f"expected a folder without a monitor, {folder} holds one; choose another, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    data = weights_bytes([probe.name for probe in monitor.card.probes], list(monitor.weights))
    if digest_of(data) != monitor.card.weights:
        raise EvidenceInvalid(f"monitor '{monitor.card.name}': its weights are not those that its card names; fit it again")
    _weights_path(folder, monitor.card).write_bytes(data)
    (folder / CARD).write_text(monitor.card.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return folder / CARD


def load(folder: Path | str, *, digest: str | None = None) -> Monitor:
    """The monitor in a folder; with `digest`, only if its card is the one that was signed.

    Raises:
        UsageError: there is none.
        PlanError: the card is malformed.
        EvidenceInvalid: card or weights are not those that were signed, or the weights are not what the card describes.
    """
    path = Path(folder) / CARD
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"expected a monitor's folder with {CARD} in it, got {folder} ({error}); fit one first") from None
    card = MonitorCard.parse(document, where=str(path))
    if digest is not None and card.digest() != digest:
        raise EvidenceInvalid(f"{path}: expected the card {digest}, got {card.digest()}; it was altered, or is another monitor's")
    weights = _weights_path(Path(folder), card)
    try:
        data = weights.read_bytes()
    except OSError as error:
        raise EvidenceInvalid(f"{weights}: expected the weights that the card names, got {error.strerror or error}") from None
    if digest_of(data) != card.weights:
        raise EvidenceInvalid(f"{weights}: the weights have digest {digest_of(data)}, the card names {card.weights}")
    return Monitor(card, _read(data, card, weights))


def _weights_path(folder: Path, card: MonitorCard) -> Path:
    return folder / f"{card.weights.removeprefix('sha256:')}.safetensors"


def _read(data: bytes, card: MonitorCard, path: Path) -> tuple[Weights, ...]:
    try:
        tensors = load_tensors(data)
        found = tuple(Weights(tensors[f"{p.name}.direction"], tensors[f"{p.name}.bias"].item()) for p in card.probes)
    except (safetensors.SafetensorError, KeyError) as error:
        raise EvidenceInvalid(f"{path}: expected the weights of {len(card.probes)} probes, got {error}") from None
    if not all(w.direction.ndim == 1 and w.direction.isfinite().all() and abs(w.bias) < float("inf") for w in found):
        raise EvidenceInvalid(f"{path}: expected finite vectors; the weights are damaged")
    return found
