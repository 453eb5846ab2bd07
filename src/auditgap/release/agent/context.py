"""The context object that the authorisation gate decides on, in evaluation and in production the same."""

from auditgap.release.calls import Wire

__all__ = ["CONTEXT_SCHEMA", "DIRECTORY"]

CONTEXT_SCHEMA: Wire = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "tenant": {"type": "string", "minLength": 1},
        "user": {"type": "string", "minLength": 1},
        "roles": {"type": "array", "items": {"enum": ["reader", "payer", "refunder"]}, "uniqueItems": True},
        "expires_at_s": {"type": "number", "description": "On the clock of the run."},
    },
    "required": ["tenant", "user", "roles", "expires_at_s"],
    "additionalProperties": False,
}
"""JSON Schema of the context; part of the release manifest."""

DIRECTORY: dict[str, tuple[str, frozenset[str]]] = {
    "ana": ("acme", frozenset({"reader", "payer", "refunder"})),
    "ben": ("acme", frozenset({"reader"})),
    "bo": ("bolt", frozenset({"reader", "payer"})),
}
"""Tenant and roles of each user: what a context claims is checked against it."""
