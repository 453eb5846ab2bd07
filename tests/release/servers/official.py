"""A third-party-style MCP server written with the official SDK; `http PORT` serves streamable HTTP, otherwise stdio.

AUDITGAP_TEST_EFFECTS names the file that gets one line per effect.
"""

import os
import sys
from pathlib import Path
from typing import TypedDict

from mcp.server.mcpserver import MCPServer

server = MCPServer("official-bank", version="3.1")


class Receipt(TypedDict):
    """What a transfer gives."""

    tenant: str
    to: str
    amount: int


def _effect(line: str) -> None:
    if path := os.environ.get("AUDITGAP_TEST_EFFECTS"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


@server.tool()
def transfer(to: str, amount: int) -> Receipt:
    """Move money to an account."""
    _effect(f"transfer {to} {amount}")
    return {"tenant": "acme", "to": to, "amount": amount}


@server.tool()
def balance(account: str = "main") -> str:
    """Read a balance."""
    return f"{account}: 12.50"


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
    else:
        server.run("stdio")
