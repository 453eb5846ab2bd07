"""The payments server's tools, as MCP lists them."""

import json
from collections.abc import Mapping

from auditgap.release.calls import Wire

__all__ = ["READS", "ROLES", "TOOLS", "WRITES"]

_ID: Wire = {"type": "string", "pattern": "^[a-z0-9-]{1,40}$"}
_CENTS: Wire = {"type": "integer", "minimum": 1, "maximum": 100_000_000}
_TENANT: Wire = {"type": "string"}


def _tool(
    name: str,
    description: str,
    takes: Mapping[str, object],
    gives: Mapping[str, object],
    *,
    reads: bool = False,
    destroys: bool = False,
) -> Wire:
    tool = {
        "name": name,
        "description": description,
        "inputSchema": _closed(takes),
        "outputSchema": _closed({"tenant": _TENANT, **gives}),
        "annotations": {"readOnlyHint": reads, "destructiveHint": destroys, "idempotentHint": False, "openWorldHint": False},
    }
    return json.loads(json.dumps(tool))  # as it comes off the wire: no two tools share an object that a change could reach twice


def _closed(properties: Mapping[str, object]) -> dict[str, object]:
    """An object of exactly these properties."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


TOOLS: list[Wire] = [
    _tool(
        "get_balance",
        "Balance of an account.",
        {"account": _ID},
        {"account": _ID, "balance_cents": {"type": "integer"}},
        reads=True,
    ),
    _tool(
        "get_statement",
        "All bookings of an account, oldest first.",
        {"account": _ID},
        {"account": _ID, "lines": {"type": "array", "items": {"type": "object"}}},
        reads=True,
    ),
    _tool(
        "read_note",
        "The note kept on a customer's account.",
        {"account": _ID},
        {"account": _ID, "note": {"type": "string"}},
        reads=True,
    ),
    _tool(
        "add_note",
        "Replace the note kept on a customer's account.",
        {"account": _ID, "reference": _ID, "note": {"type": "string", "maxLength": 500}},
        {"reference": _ID, "status": {"const": "noted"}},
    ),
    _tool(
        "transfer",
        "Move money from an account of yours. The reference names the invoice that is paid.",
        {"account": _ID, "to": _ID, "amount_cents": _CENTS, "reference": _ID},
        {"reference": _ID, "status": {"const": "booked"}, "amount_cents": {"type": "integer"}},
        destroys=True,
    ),
    _tool(
        "pay_batch",
        "Several transfers from one account, booked one by one.",
        {
            "account": _ID,
            "reference": _ID,
            "legs": {
                "type": "array",
                "minItems": 1,
                "maxItems": 20,
                "items": {
                    "type": "object",
                    "properties": {"to": _ID, "amount_cents": _CENTS},
                    "required": ["to", "amount_cents"],
                },
            },
        },
        {"reference": _ID, "status": {"const": "booked"}, "amount_cents": {"type": "integer"}},
        destroys=True,
    ),
    _tool(
        "refund",
        "Take back an earlier transfer, whole or in part.",
        {"account": _ID, "of": _ID, "amount_cents": _CENTS, "reference": _ID},
        {"reference": _ID, "status": {"const": "refunded"}, "amount_cents": {"type": "integer"}},
        destroys=True,
    ),
]

ROLES = {
    "get_balance": "reader",
    "get_statement": "reader",
    "read_note": "reader",
    "add_note": "reader",
    "transfer": "payer",
    "pay_batch": "payer",
    "refund": "refunder",
}
"""The role that each tool needs."""

READS = frozenset({"get_balance", "get_statement", "read_note"})
WRITES = frozenset(ROLES) - READS
