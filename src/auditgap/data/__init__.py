"""Data sets: rows that say what they are, splits that do not leak, digests that do not depend on the file."""

from auditgap.data.load import Kind, load, shipped
from auditgap.data.located import located
from auditgap.data.rows import (
    SPLITS,
    ContrastRow,
    ContrastSet,
    Dataset,
    Message,
    PairRow,
    PairSet,
    Prompt,
    PromptRow,
    PromptSet,
    Split,
    as_text,
)

__all__ = [
    "ContrastRow",
    "ContrastSet",
    "Dataset",
    "Kind",
    "Message",
    "PairRow",
    "PairSet",
    "Prompt",
    "PromptRow",
    "PromptSet",
    "SPLITS",
    "Split",
    "as_text",
    "load",
    "located",
    "shipped",
]
