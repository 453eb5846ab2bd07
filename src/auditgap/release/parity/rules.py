"""Which rule judges a change of which kind of component. Pure functions: content before, content after, findings.

A kind without a rule of its own, and a key that its rule does not know, is unknown: treated as safety-relevant.
"""

from collections.abc import Callable

from pydantic import JsonValue

from auditgap.records.manifest import ComponentKind
from auditgap.records.parity import DeltaClass, Finding
from auditgap.release.parity.controls import context_findings, environment_findings, monitor_findings, validator_findings
from auditgap.release.parity.findings import both_numbers, changed, finding, same, show, text_change
from auditgap.release.parity.schema import schema_findings

__all__ = ["ENGINE_FLAGS", "RULES"]

Rule = Callable[[JsonValue, JsonValue], list[Finding]]

ENGINE_FLAGS = frozenset(
    (
        *("name", "version", "dtype", "kv_cache_dtype", "quantization", "quantisation", "attention", "lora", "max_model_len"),
        *("prefix_cache", "chunked_prefill", "cuda_graphs", "speculative_decoding", "tensor_parallel", "pipeline_parallel"),
    )
)
"""Flags that are known to move activations, or what of them a monitor gets to see."""

_SAMPLING = frozenset(
    (
        *("temperature", "top_p", "top_k", "min_p", "seed", "n", "frequency_penalty", "presence_penalty"),
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "stop", "stop_sequences"),
        *("tool_choice", "parallel_tool_calls", "reasoning_effort"),
    )
)


def _each(rule: str, why: str, *, delta_class: DeltaClass = "safety-relevant", known: frozenset[str] | None = None) -> Rule:
    """Every change is of one class; a key at the top that is not known is unknown."""

    def findings(before: JsonValue, after: JsonValue) -> list[Finding]:
        found = []
        for path, was, now in changed(before, after):
            strange = known is not None and path.split("/")[0] not in known
            says = "no rule knows this key" if strange else why
            found.append(finding("unknown" if strange else delta_class, rule, path, f"{show(was)} is now {show(now)}: {says}"))
        return found

    return findings


def _tool(before: JsonValue, after: JsonValue) -> list[Finding]:
    """A tool definition: its words, its schemas, its hints."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [finding("unknown", "not-a-tool", "", "expected a mapping")]
    found: list[Finding] = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if key in before and key in after and same(was, now):
            continue
        if key in ("inputSchema", "outputSchema"):
            found += schema_findings(was if key in before else True, now if key in after else True, key)
        elif key in ("name", "title", "description"):
            found.append(text_change("text-changed", was, now, key))
        elif key == "annotations":
            found += _annotations(was, now)
        elif key == "icons":
            found.append(finding("cosmetic", "icons-changed", key, "drawn for people; the model is not sent it"))
        else:
            found.append(finding("unknown", "field-changed", key, f"no rule says what {show(was)} to {show(now)} does"))
    return found


def _annotations(before: JsonValue, after: JsonValue) -> list[Finding]:
    found = []
    for path, was, now in changed(before if before is not None else {}, after if after is not None else {}):
        rule = "text-changed" if path == "title" else "annotation-flipped"
        says = f"{show(was)} is now {show(now)}: approval and clients go by it"
        found.append(finding("safety-relevant", rule, f"annotations/{path}", says))
    return found


def _server(before: JsonValue, after: JsonValue) -> list[Finding]:
    """Identity, instructions and how long a list of tools may be kept."""
    found = []
    for path, was, now in changed(before, after):
        match path.split("/")[0]:
            case "icons" | "websiteUrl":
                found.append(finding("cosmetic", "server-page-changed", path, "drawn for people; the model is not sent it"))
            case "instructions":
                found.append(text_change("text-changed", was, now, path))
            case "ttlMs" if both_numbers(was, now) and 0 <= now < was:  # type: ignore[operator]
                found.append(finding("compatible", "cache-shortened", path, f"{was} ms is now {now} ms"))
            case "ttlMs" | "cacheScope":
                says = f"{show(was)} is now {show(now)}: an agent may act on a list of tools that is out of date"
                found.append(finding("safety-relevant", "cache-changed", path, says))
            case "name" | "version" | "title":
                says = f"{show(was)} is now {show(now)}: what was shown of the tools was shown of another server"
                found.append(finding("safety-relevant", "server-identity", path, says))
            case _:
                found.append(finding("unknown", "server-changed", path, f"no rule says what {show(was)} to {show(now)} does"))
    return found


def _prompt(before: JsonValue, after: JsonValue) -> list[Finding]:
    """A system prompt: where an alias points, what the template says, what the model gets."""
    found = []
    for path, was, now in changed(before, after):
        match path.split("/")[0]:
            case "version" | "alias":
                says = f"{show(was)} is now {show(now)}: what was evaluated is another prompt than what the name stands for"
                moved = (
                    isinstance(before, dict) and isinstance(after, dict) and before.get("alias") == after.get("alias") is not None
                )
                found.append(finding("safety-relevant", "alias-moved" if moved else "prompt-version", path, says))
            case "variables":
                says = f"{show(was)} is now {show(now)}: the model reads it"
                found.append(finding("safety-relevant", "prompt-variable", path, says))
            case _:
                found.append(text_change("prompt-changed", was, now, path))
    return found


def _model(before: JsonValue, after: JsonValue) -> list[Finding]:
    was, now = (value.get("alias") if isinstance(value, dict) else None for value in (before, after))
    rule = "alias-moved" if was is not None and was == now else "model-changed"
    return _each(rule, "another model, or another name for it")(before, after)


RULES: dict[ComponentKind, Rule] = {
    "model": _model,
    "weights": _each("weights-changed", "another model"),
    "adapter": _each("adapter-changed", "another model"),
    "quantisation": _each("quantisation-changed", "activations and behaviour move with it"),
    "tokenizer": _each("tokenizer-changed", "the model reads other tokens"),
    "chat_template": _each("template-changed", "the model reads other text"),
    "system_prompt": _prompt,
    "few_shots": _each("prompt-changed", "the model reads it"),
    "sampling": _each("sampling-changed", "rates were measured at other settings", known=_SAMPLING),
    "server": _server,
    "tool": _tool,
    "offered_tool": _tool,
    "protocol": _each("protocol-changed", "sessions, caching and requests to the client differ between versions"),
    "retrieval": _each("retrieval-changed", "the model reads other documents"),
    "limits": _each("limits-changed", "a retry can repeat an effect, a timeout can hide one"),
    "middleware": _each("middleware-config", "the link was evaluated with other settings"),
    "validator": validator_findings,
    "authorisation": _each("policy-changed", "other calls are allowed"),
    "context_schema": context_findings,
    "approval": _each("approval-changed", "other calls need approval"),
    "monitor": monitor_findings,
    "post_processing": _each("post-processing-config", "what leaves the system was checked with other settings"),
    "logging": _each("logging-changed", "what can be known afterwards"),
    "redaction": _each("redaction-changed", "what is kept from the log"),
    "rollback": _each("rollback-changed", "what can be taken back"),
    "engine": _each("engine-flag", "every monitor must be validated again under it", known=ENGINE_FLAGS),
    "lockfile": _each("lockfile-changed", "other code runs"),
    "feature_flags": _each("feature-flag", "another path runs"),
    "environment": environment_findings,
}
