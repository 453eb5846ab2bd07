"""The same faults without a transport: middleware for a server of the official SDK, in its own process, for fast CI.

    server.middleware.append(fault_middleware(Exchange(injector, server="bank")))

It stands in front of validation, so the server's own handlers are untouched. Where there is no connection, `disconnect` is the
error that the SDK's client raises when one closes, and an answer that never comes is waited for until the client gives up.
"""

from typing import TYPE_CHECKING, Any, cast

import anyio
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from auditgap.release.injection.exchange import Disconnected, Exchange
from auditgap.release.injection.mcp_wire import Wire, watched

if TYPE_CHECKING:
    from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext

__all__ = ["fault_middleware"]

_CONNECTION_CLOSED = -32000


def fault_middleware(exchange: Exchange) -> "ServerMiddleware[Any]":
    """`(ctx, call_next)` middleware that asks `exchange` about every tools/list and tools/call."""

    async def middleware(ctx: "ServerRequestContext[Any]", call_next: "CallNext") -> "HandlerResult":
        request: Wire = {"jsonrpc": "2.0", "id": ctx.request_id, "method": ctx.method, "params": dict(ctx.params or {})}
        if not watched(request):
            return await call_next(ctx)

        async def ask(asked: Wire) -> Wire:
            head: Wire = {"jsonrpc": "2.0", "id": asked["id"]}
            try:
                result = await call_next(ctx)
            except MCPError as error:
                return {**head, "error": error.error.model_dump(mode="json", exclude_none=True)}
            if isinstance(result, BaseModel):
                result = result.model_dump(by_alias=True, mode="json", exclude_none=True)
            return {**head, "result": result}

        try:
            answer = await exchange.answer(request, exchange.due(request), ask)
        except Disconnected:
            raise MCPError(_CONNECTION_CLOSED, "Connection closed") from None
        if answer is None:
            await anyio.sleep_forever()
            return None
        if "error" in answer:
            error = cast("Wire", answer["error"])
            raise MCPError(cast("int", error["code"]), str(error["message"]), error.get("data"))
        return cast("Wire", answer["result"])

    return middleware
