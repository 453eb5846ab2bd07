"""A third-party-style MCP server without any dependency: newline-delimited JSON-RPC on stdin and stdout, revision 2025-06-18.

It writes one line per effect to the file in its first argument, so that a test can count what really happened. Its JSON has
unusual spacing and key order, which a faithful proxy does not change.
"""

import json
import sys
import time

EFFECTS = sys.argv[1] if len(sys.argv) > 1 else None
TOOLS = [
    {
        "name": "transfer",
        "description": "Move money to an account.",
        "inputSchema": {
            "type": "object",
            "properties": {"to": {"type": "string"}, "amount": {"type": "integer", "minimum": 1, "maximum": 100}},
            "required": ["to", "amount"],
            "additionalProperties": False,
        },
    },
    {"name": "balance", "description": "Read a balance.", "inputSchema": {"type": "object"}},
    {"name": "echo", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}},
]


def send(message):
    sys.stdout.write(json.dumps(message, separators=(" ,", " : "), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def effect(line):
    if EFFECTS:
        with open(EFFECTS, "a", encoding="utf-8") as file:  # noqa: PTH123 - plain means plain
            file.write(line + "\n")


def call(name, arguments):
    if name == "transfer":
        effect(f"transfer {arguments.get('to')} {arguments.get('amount')}")
        send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "transferring"}})
        return {"tenant": "acme", "to": arguments.get("to"), "amount": arguments.get("amount")}
    if name == "balance":
        effect("balance")
        return {"tenant": "acme", "balance": 12.50, "größe": 9007199254740993}
    if name == "echo":
        return {"text": arguments.get("text", "")}
    if name == "hang":
        time.sleep(60)
    if name == "die":
        sys.exit(7)
    if name == "garbage":
        sys.stdout.write("Traceback: this is not JSON\n{]\n\n[1, 2]\n")
    if name == "flood":
        while True:
            send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * 1000}})
    if name == "endless":
        while True:
            sys.stdout.write("y" * 65536)
    return None


for line in sys.stdin:
    request = json.loads(line)
    method, params = request.get("method"), request.get("params") or {}
    if "id" not in request:
        continue
    answer = {"id": request["id"], "jsonrpc": "2.0"}
    if method == "initialize":
        answer["result"] = {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "plain-bank", "version": "1.2"},
        }
    elif method == "tools/list":
        answer["result"] = {"tools": TOOLS}
    elif method == "tools/call":
        content = call(params["name"], params.get("arguments") or {})
        if content is None:
            answer["error"] = {"code": -32602, "message": f"unknown tool {params['name']}"}
        else:
            text = json.dumps(content, ensure_ascii=False)
            answer["result"] = {"content": [{"type": "text", "text": text}], "structuredContent": content}
    elif method == "ping":
        answer["result"] = {}
    else:
        answer["error"] = {"code": -32601, "message": f"no method {method}"}
    send(answer)
