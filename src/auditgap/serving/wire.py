"""Requests in OpenAI's form. What is not supported and would change the answer is refused by name, never ignored.

A field that is here and not used (`user`, `metadata`, ...) does not change an answer; a field with one legal value is accepted at
that value alone. Everything else is unknown, and the message says so.

Source: the OpenAI API reference, chat completions and completions.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from auditgap.data import Prompt
from auditgap.data.documents import parse_json
from auditgap.data.rows import Message as Turn
from auditgap.serving.decoding import Sampling
from auditgap.serving.replies import ApiError
from auditgap.serving.telemetry import Operation

__all__ = ["Chat", "Completion", "read_request"]

_SHOWN = 5
_HALF = "expected text, got half a surrogate pair (\\ud800 to \\udfff on its own)"

Zero = Annotated[float, Field(ge=0, le=0)]
Line = Annotated[str, Field(min_length=1)]
Nothing = Annotated[list[object], Field(max_length=0)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class TextPart(_Wire):
    """A piece of a message."""

    type: Literal["text"]
    text: Line


class Message(_Wire):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Line | Annotated[list[TextPart], Field(min_length=1)]

    def turn(self) -> Turn:
        """As the chat template reads it."""
        whole = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Turn(role=self.role, content=whole)


class StreamOptions(_Wire):
    """What a stream holds beside the text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class TextFormat(_Wire):
    """The one format of a reply."""

    type: Literal["text"]


class _Request(_Wire):
    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    """1 if not given."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: (
        Annotated[str, Field(min_length=1)] | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=4)] | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the reply."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, *, limit: int, seed: int) -> Sampling:
        """How the reply is chosen, at most `limit` tokens long."""
        warm = 1.0 if self.temperature is None else self.temperature
        nucleus = 1.0 if self.top_p is None else self.top_p
        return Sampling(limit, warm, nucleus, seed if self.seed is None else self.seed)

    @model_validator(mode="after")
    def _options_of_streams(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options belongs to stream: true")
        return self


class Chat(_Request):
    """`POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: Literal[False] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = None
    response_format: TextFormat | None = None
    tools: Nothing | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = None
    service_tier: Literal["auto", "default"] | None = None

    @property
    def operation(self) -> Operation:
        """As telemetry and the ledger call it."""
        return "chat"

    def prompt(self) -> Prompt:
        """What the model is given."""
        return tuple(message.turn() for message in self.messages)

    def most_tokens(self) -> int | None:
        """The longest reply asked for; None leaves it to the tenant's limit."""
        return self.max_completion_tokens or self.max_tokens

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("give max_completion_tokens or max_tokens, not both")
        return self


class Completion(_Request):
    """`POST /v1/completions`: one prompt, as text."""

    asked: Line | Annotated[list[Line], Field(min_length=1, max_length=1)] = Field(alias="prompt")
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    echo: Literal[False] | None = None
    logprobs: None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None

    @property
    def operation(self) -> Operation:
        """As telemetry and the ledger call it."""
        return "text_completion"

    def prompt(self) -> Prompt:
        """What the model is given."""
        return self.asked if isinstance(self.asked, str) else self.asked[0]

    def most_tokens(self) -> int | None:
        """The longest reply asked for; OpenAI's default is 16."""
        return self.max_tokens or 16


def read_request(body: bytes, form: type[Chat] | type[Completion]) -> Chat | Completion:
    """The request in a body.

    Raises:
        ApiError: it is not UTF-8, not JSON, or a field is unknown, missing or not supported at that value.
    """
    try:
        document = parse_json(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _bad(f"expected UTF-8, got byte 0x{body[error.start]:02x} at position {error.start}", code="invalid_utf8") from None
    except ValueError as error:
        raise _bad(f"expected a JSON object, got {str(error)[:200]}", code="invalid_json") from None
    try:
        asked = form.model_validate(document)
        asked.model_dump_json()  # half a surrogate pair is JSON, and no text
    except ValidationError as error:
        raise _explained(error) from None
    except ValueError:
        raise _bad(_HALF, code="invalid_unicode") from None
    return asked


def _explained(error: ValidationError) -> ApiError:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    clauses = dict.fromkeys(f"{_path(item['loc'])}: {_words(item['type'], item['msg'])}" for item in found)
    unknown = any(item["type"] == "extra_forbidden" for item in found)
    first = _path(found[0]["loc"])
    if any(item["type"] == "string_unicode" for item in found):
        return _bad(_HALF, code="invalid_unicode", param=first[:100])
    code = "unsupported_parameter" if unknown else "missing_parameter" if found[0]["type"] == "missing" else "invalid_value"
    return _bad("; ".join(list(clauses)[:_SHOWN]), code=code, param=None if first == "request" else first[:100])


def _words(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "not supported by this server; leave it out"
    return message.replace("Value error, ", "")


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:60] for part in location) or "request"


def _bad(message: str, *, code: str, param: str | None = None) -> ApiError:
    return ApiError(400, message, type="invalid_request_error", code=code, param=param)
