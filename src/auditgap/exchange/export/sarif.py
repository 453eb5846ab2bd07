"""SARIF 2.1.0: what stands against a release, as findings that code hosts and editors show.

One result per line of the decision that did not pass, per axis with a gap, per fragile reason of a claim and per quantity that
was not measured. What blocks is an `error`, whether it failed or could not be decided; what the team can close, and what is
fragile, is a `warning`; what nobody can close today, and what does not block, is a `note`; what was not measured is `open`.
Passing lines are left out, and no result has the kind `pass`.
Source: OASIS SARIF 2.1.0 errata 01, sections 3.11, 3.14, 3.27.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple
from urllib.parse import quote

from auditgap.exchange.export.naming import TOOL, Json, decided, hex_of, iso, line, shown, tool_version
from auditgap.exchange.export.open_points import fragile_points, gap_points
from auditgap.exchange.export.standing import standing
from auditgap.records import canonical_json, digest_of
from auditgap.report import Audit, outline
from auditgap.report.words import AXIS, fragility

__all__ = ["sarif"]

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


class _Found(NamedTuple):
    rule: str
    about: str
    """What the rule checks; the same for every result of the rule."""
    level: Literal["error", "warning", "note", "none"]
    message: str
    claim: str | None = None
    statement: str | None = None
    status: str = ""
    key: str = ""
    """Tells apart results of one rule that are on no claim."""


def sarif(audit: Audit) -> dict[str, Json]:
    """The findings of an audit as one SARIF run.

    Raises:
        UsageError: no gate has decided on the subject.
    """
    decision, digest = decided(audit)
    found = [*_lines(audit), *_gaps(audit), *_unmeasured(audit)]
    rules = {item.rule: item.about for item in reversed(found)}
    order = {rule: index for index, rule in enumerate(sorted(rules))}
    rule_list = [{"id": rule, "shortDescription": {"text": _text(rules[rule])}} for rule in order]
    properties = {
        "subject": audit.subject.digest(),
        "decision": digest,
        "outcome": decision.outcome,
        "policy": decision.policy,
        "ledgerRoot": audit.root,
    }
    run: Json = {
        "tool": {"driver": {"name": TOOL, "version": tool_version(), "rules": rule_list}},
        "automationDetails": {"id": f"{TOOL}/{quote(audit.subject.name, safe='')}/"},
        "invocations": [{"executionSuccessful": True, "endTimeUtc": iso(decision.decided_at)}],
        "artifacts": [
            {"location": {"uri": quote(f.path)}, "length": f.size, "hashes": {"sha-256": hex_of(f.content)}}
            for f in audit.subject.weights
        ],
        "results": [_result(audit, item, order[item.rule]) for item in found],
        "properties": properties,
    }
    return shown({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _lines(audit: Audit) -> Iterator[_Found]:
    for c in audit.decision.criteria if audit.decision else ():
        where = standing(c)
        if where == "passed":
            continue
        claim = audit.claims.get(c.claim)
        about = claim.statement if claim else f"What the policy asks on claim '{c.claim}'." if c.claim else "The policy fits."
        message = f"{c.status}: {c.reason} Response: {c.response}"
        yield _Found(c.id, about, "note" if where == "noted" else "error", message, c.claim, c.evidence, c.status)


def _gaps(audit: Audit) -> Iterator[_Found]:
    for point in gap_points(audit):
        ours = point.kind == "execution"
        about = f"Audit gap on {AXIS[point.axis]}. {'The team can close this' if ours else 'Nobody can close this today'}."
        rule, severity = f"gap.{point.kind}.{point.axis}", "warning" if ours else "note"
        yield _Found(rule, about, severity, point.said(), statement=point.digest, status="gap")
    for weak in fragile_points(audit):
        message = f"{weak.claim or 'A requirement'}: {'; '.join(weak.details)}"
        yield _Found(weak.code, fragility(weak.code), "warning", message, weak.claim, weak.digests[0], "fragile")


def _unmeasured(audit: Audit) -> Iterator[_Found]:
    about = "A quantity that was to be measured and was not."
    for missing in outline.not_measured(audit):
        number = int(missing.evidence[1:]) - 1
        digest, evidence = audit.evidence[number]
        message = f"{evidence.step}: {missing.name} was not measured: {missing.reason}"
        yield _Found("not-measured", about, "none", message, None, digest, "not-measured", f"{evidence.step}/{missing.name}")


def _result(audit: Audit, item: _Found, index: int) -> Json:
    key = canonical_json([audit.subject.name, item.rule, item.claim, item.key])
    properties = {"status": item.status, "claim": item.claim, "statement": item.statement}
    location = {"artifactLocation": {"uri": quote(audit.subject.weights[0].path), "index": 0}}
    logical = {"name": line(audit.subject.name), "fullyQualifiedName": audit.subject.digest(), "kind": "resource"}
    return {
        "ruleId": item.rule,
        "ruleIndex": index,
        "kind": "open" if item.level == "none" else "fail",
        "level": item.level,
        "message": {"text": _text(item.message)},
        "locations": [{"physicalLocation": location, "logicalLocations": [logical]}],
        "partialFingerprints": {"auditgapFinding/v1": hex_of(digest_of(key))},
        "properties": {name: value for name, value in properties.items() if value},
    }


def _text(text: str) -> str:
    """Plain message text: no placeholder (3.11.5) and no embedded link (3.11.6) can come out of it."""
    return line(text).replace("{", "{{").replace("}", "}}").replace("](", "\\](")
