"""Answers in OpenAI's form, and the one form of every error. `auditgap` is ours, for tenants who may see verdicts.

Source: the OpenAI API reference, chat completions, completions and models.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from auditgap.records import Digest
from auditgap.records.monitor import Action
from auditgap.serving.entries import Verdict

__all__ = [
    "ApiError",
    "ChatAnswer",
    "ChatChoice",
    "ChatMessage",
    "CompletionAnswer",
    "ErrorBody",
    "Finish",
    "ModelCard",
    "ModelList",
    "Seen",
    "TextChoice",
    "Usage",
]

Finish = Literal["stop", "length", "content_filter"]


class ApiError(Exception):
    """An answer that is an error: status and body."""

    def __init__(
        self, status: int, message: str, *, type: str, code: str, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.retry_after_s = status, retry_after_s
        self.body = ErrorBody(error=ErrorDetail(message=message, type=type, param=param, code=code))


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Usage(_Wire):
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Seen(_Wire):
    """What the monitors saw of this request, for tenants who may know."""

    release: Digest
    intervention: Action | None
    coverage: float | None
    verdicts: list[Verdict]


class ChatMessage(_Wire):
    """A reply in a chat."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(_Wire):
    """The one reply."""

    index: Literal[0] = 0
    message: ChatMessage
    logprobs: None = None
    finish_reason: Finish


class TextChoice(_Wire):
    """The one reply."""

    index: Literal[0] = 0
    text: str
    logprobs: None = None
    finish_reason: Finish


class ChatAnswer(_Wire):
    """Answer of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    auditgap: Seen | None = Field(default=None, exclude_if=lambda seen: seen is None)


class CompletionAnswer(_Wire):
    """Answer of `POST /v1/completions`."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    auditgap: Seen | None = Field(default=None, exclude_if=lambda seen: seen is None)


class ModelCard(_Wire):
    """The served model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "auditgap"


class ModelList(_Wire):
    """Answer of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ErrorDetail(_Wire):
    """What is wrong, and which field is to blame."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(_Wire):
    """Every error has this form."""

    error: ErrorDetail
