"""A third-party-style MCP server over HTTP, without an SDK: what it gets is kept, what it answers has unusual bytes.

A client that accepts event streams gets one with a comment, a notification before the answer and one after it.
"""

import json

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

TOOLS = [
    {
        "name": "transfer",
        "description": "Move money to an account.",
        "inputSchema": {
            "type": "object",
            "properties": {"to": {"type": "string"}, "amount": {"type": "integer", "maximum": 100}},
            "required": ["to", "amount"],
        },
    }
]


class PlainHttp:
    """The server and what it has seen."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.n_effects = 0
        self.app = Starlette(routes=[Route("/{path:path}", self._serve, methods=["GET", "POST", "DELETE"])])

    async def _serve(self, request: Request) -> Response:
        body = await request.body()
        self.requests.append((f"{request.method} {request.url.path}?{request.url.query}", dict(request.headers), body))
        headers = {"Mcp-Session-Id": "s-1", "X-Odd": "kept"}
        if request.method != "POST":
            return Response(b": waiting\n\n", media_type="text/event-stream", headers=headers)
        message = json.loads(body)
        if not isinstance(message, dict) or "id" not in message:
            return Response(status_code=202, headers=headers)
        answer = json.dumps({"id": message["id"], "result": self._result(message), "jsonrpc": "2.0"}, separators=(" ,", " : "))
        if "text/event-stream" not in request.headers.get("accept", ""):
            return Response(answer, media_type="application/json", headers=headers)
        note = '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}'
        events = f": hello\r\n\r\ndata: {note}\r\n\r\nevent: message\r\nid: 7\r\ndata:{answer}\r\n\r\ndata: {note}\r\n\r\n"
        return StreamingResponse(iter([events]), media_type="text/event-stream", headers=headers)

    def _result(self, message: dict) -> dict:
        if message["method"] == "initialize":
            info = {"name": "plain-http", "version": "0.9"}
            return {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
        if message["method"] == "tools/list":
            return {"tools": TOOLS}
        if message["method"] == "tools/call":
            self.n_effects += 1
            content = {"tenant": "acme", **message["params"]["arguments"]}
            return {"content": [{"type": "text", "text": json.dumps(content)}], "structuredContent": content}
        return {}
