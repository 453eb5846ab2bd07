"""Faults on what a model answers: tool calls whose arguments are not JSON, and answers that stop at the length limit.

Both are maps from one document to the documents that replace it, so that one code serves a JSON answer (one document) and a
stream (one per event, in order). A map that returns None leaves the document's bytes alone.
"""

import json
import math
from collections.abc import Callable, Iterable

from auditgap.release.injection.model_wire import Document, Wire, dicts, table

__all__ = ["LengthCut", "MalformedCalls", "text_length"]

Replaced = list[Document] | None


class MalformedCalls:
    """Gives the tool calls of one answer the arguments that `chosen` has for their name; None from `chosen` spares the call."""

    def __init__(self, wire: Wire, chosen: Callable[[str], str | None]) -> None:
        self._chosen = chosen
        self._spoilt: dict[object, str] = {}
        self._begun: set[object] = set()
        self._map: dict[Wire, Callable[[Document], Replaced]] = {
            "openai-chat": self._chat,
            "anthropic-messages": self._messages,
            "openai-responses": self._responses,
        }
        self._apply = self._map.get(wire, lambda document: None)

    def __call__(self, document: Document) -> Replaced:
        return self._apply(document)

    def _spoil(self, key: object, name: object) -> str | None:
        arguments = self._chosen(name) if isinstance(name, str) and name else None
        if arguments is not None:
            self._spoilt[key] = arguments
        return arguments

    def _chat(self, document: Document) -> Replaced:
        changed = False
        for choice in dicts(document.get("choices")):
            said = table(choice.get("message") or choice.get("delta"))
            for position, call in enumerate(dicts(said.get("tool_calls"))):
                key, function = (choice.get("index"), call.get("index", position)), table(call.get("function"))
                arguments = self._spoil(key, function.get("name"))
                if arguments is not None or key in self._spoilt:
                    function["arguments"] = arguments or ""
                    changed = True
        return [document] if changed else None

    def _messages(self, document: Document) -> Replaced:
        if document.get("type") == "content_block_start":
            return self._opened(document, table(document.get("content_block")))
        if document.get("type") == "content_block_delta" and document.get("index") in self._spoilt:
            table(document.get("delta"))["partial_json"] = ""
            return [document]
        changed = False
        for position, block in enumerate(dicts(document.get("content"))):
            if block.get("type") == "tool_use" and (arguments := self._spoil(position, block.get("name"))) is not None:
                block["input"] = arguments
                changed = True
        return [document] if changed else None

    def _opened(self, document: Document, block: Document) -> Replaced:
        index = document.get("index")
        if block.get("type") != "tool_use" or (arguments := self._spoil(index, block.get("name"))) is None:
            return None
        delta: Document = {"type": "input_json_delta", "partial_json": arguments}
        return [document, {"type": "content_block_delta", "index": index, "delta": delta}]

    def _responses(self, document: Document) -> Replaced:
        kind, key = document.get("type"), document.get("output_index")
        if kind == "response.output_item.added":
            item = table(document.get("item"))
            self._spoil(key, item.get("name") if item.get("type") == "function_call" else None)
            return None
        if kind == "response.function_call_arguments.delta" and key in self._spoilt:
            document["delta"] = "" if key in self._begun else self._spoilt[key]
            self._begun.add(key)
            return [document]
        if kind == "response.function_call_arguments.done" and key in self._spoilt:
            document["arguments"] = self._spoilt[key]
            return [document]
        if kind == "response.output_item.done" and key in self._spoilt:
            table(document.get("item"))["arguments"] = self._spoilt[key]
            return [document]
        return self._whole_response(document)

    def _whole_response(self, document: Document) -> Replaced:
        if streamed := document.get("response"):
            items = dicts(table(streamed).get("output"))
        else:
            items = dicts(document.get("output"))
            for position, item in enumerate(items):
                if item.get("type") == "function_call":
                    self._spoil(position, item.get("name"))
        for position in self._spoilt.keys() & set(range(len(items))):
            items[position]["arguments"] = self._spoilt[position]  # type: ignore[index]
        return [document] if items and self._spoilt else None


class LengthCut:
    """Ends one answer after `budget` characters of text and arguments, the way an endpoint reports its token limit.

    What would have begun after the limit is left out.
    """

    def __init__(self, wire: Wire, budget: float) -> None:
        self.used = 0
        self._budget = budget
        self._kept: dict[object, str] = {}
        self._dropped: set[object] = set()
        self._apply: Callable[[Document], list[Document]] = {
            "anthropic-messages": self._messages,
            "openai-responses": self._responses,
        }.get(wire, self._choices)

    def __call__(self, document: Document) -> Replaced:
        return self._apply(document)

    def _take(self, holder: Document, field: str) -> None:
        if isinstance(value := holder.get(field), str):
            kept = value if math.isinf(self._budget) else value[: max(0, int(self._budget) - self.used)]
            self.used += len(kept)
            holder[field] = kept

    @property
    def _spent(self) -> bool:
        return self.used >= self._budget

    def _choices(self, document: Document) -> list[Document]:
        for choice in dicts(document.get("choices")):
            said = table(choice.get("message") or choice.get("delta"))
            self._take(choice, "text")
            self._take(said, "content")
            begun = []
            for call in dicts(said.pop("tool_calls", None)):
                if not self._spent:
                    self._take(table(call.get("function")), "arguments")
                    begun.append(call)
            if begun:
                said["tool_calls"] = begun
            if choice.get("finish_reason"):
                choice["finish_reason"] = "length"
        return [document]

    def _messages(self, document: Document) -> list[Document]:
        index = document.get("index")
        if document.get("type") == "content_block_start" and self._spent:
            self._dropped.add(index)
        if index is not None and index in self._dropped:
            return []
        holder = document if "stop_reason" in document else table(document.get("delta"))
        if holder.get("stop_reason"):
            holder["stop_reason"] = "max_tokens"
        for field in ("text", "thinking", "partial_json"):
            self._take(table(document.get("delta")), field)
        if "content" in document:
            document["content"] = [block for block in dicts(document["content"]) if self._block(block)]
        return [document]

    def _block(self, block: Document) -> bool:
        """Cut one finished block; False for one that would not have begun, or whose arguments are an object cut in the middle."""
        if self._spent:
            return False
        if block.get("type") == "tool_use":
            self.used += len(json.dumps(block.get("input")))
            return self.used <= self._budget
        for field in ("text", "thinking"):
            self._take(block, field)
        return True

    def _responses(self, document: Document) -> list[Document]:
        kind, output = str(document.get("type")), document.get("output_index")
        if kind == "response.output_item.added" and self._spent:
            self._dropped.add(output)
        if output is not None and output in self._dropped:
            return []
        key = (output, document.get("content_index", 0))
        if kind in ("response.output_text.delta", "response.function_call_arguments.delta"):
            self._take(document, "delta")
            self._kept[key] = self._kept.get(key, "") + str(document["delta"])
        for holder in (document, table(document.get("part"))):
            self._restore(holder, key)
        self._item(table(document.get("item")), output)
        if kind == "response.completed":
            document["type"] = "response.incomplete"
            self._whole(table(document.get("response")))
        elif "output" in document:
            for position, item in enumerate(dicts(document["output"])):
                self._measure(item, position)
            self._whole(document)
        return [document]

    def _measure(self, item: Document, output: int) -> None:
        if self._spent:
            self._dropped.add(output)
        for content, (holder, field) in enumerate([(p, "text") for p in dicts(item.get("content"))] or [(item, "arguments")]):
            self._take(holder, field)
            self._kept[output, content] = str(holder.get(field))

    def _restore(self, holder: Document, key: object) -> None:
        for field in ("text", "arguments"):
            if isinstance(holder.get(field), str) and key in self._kept:
                holder[field] = self._kept[key]

    def _item(self, item: Document, output: object) -> None:
        self._restore(item, (output, 0))
        for content, part in enumerate(dicts(item.get("content"))):
            self._restore(part, (output, content))

    def _whole(self, response: Document) -> None:
        items = dicts(response.get("output"))
        for position, item in enumerate(items):
            self._item(item, position)
        response["output"] = [item for position, item in enumerate(items) if position not in self._dropped]
        response["status"] = "incomplete"
        response["incomplete_details"] = {"reason": "max_output_tokens"}


def text_length(wire: Wire, documents: Iterable[Document]) -> int:
    """Characters of text and arguments that an answer holds; the documents are used up."""
    meter = LengthCut(wire, math.inf)
    for document in documents:
        meter(document)
    return meter.used
