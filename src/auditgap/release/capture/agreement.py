"""Does what runs agree with what was declared? A difference is a failure in itself, whatever the change would do."""

import json
from typing import Literal

from pydantic import JsonValue

from auditgap.errors import UsageError
from auditgap.records import Digest, Record, canonical_json
from auditgap.records.manifest import Component, ComponentKind, ReleaseManifest
from auditgap.release.capture.normal import normal_schema
from auditgap.release.capture.observed import OBSERVABLE

__all__ = ["Agreement", "Disagreement", "compare_declared_observed"]

_EXCERPT = 40  # characters that a message quotes
_NOT_ALWAYS_SEEN = ("capabilities", "ttlMs", "cacheScope")  # compared only where both captures have them


class Disagreement(Record):
    """One component that is not on the wire as it was declared."""

    kind: ComponentKind
    id: str
    problem: Literal["never-seen", "not-declared", "differs"]
    says: str


class Agreement(Record):
    """A declared manifest against an observed one."""

    declared: Digest
    """Fingerprint."""
    observed: Digest
    """Fingerprint."""
    n_agreed: int
    disagreements: tuple[Disagreement, ...]
    unobservable: tuple[str, ...]
    """Declared components that leave no trace on the wire: nothing was shown about them here."""
    verdict: Literal["agrees", "differs"]


def compare_declared_observed(declared: ReleaseManifest, observed: ReleaseManifest) -> Agreement:
    """Compare component by component, in the form that both captures can know.

    A prompt is compared as rendered, a tool offered to the model with the server's tool of that name.

    Raises:
        UsageError: the manifests are not one declared (or attested) and one observed, in this order.
    """
    if declared.captured == "observed" or observed.captured != "observed":
        raise UsageError(
            f"expected a declared and an observed manifest, got {declared.captured} and {observed.captured}; to compare two of "
            "one kind use 'auditgap release diff'"
        )
    expected = {(c.kind, c.id): c for c in declared.components if c.kind in OBSERVABLE}
    seen = {(c.kind, c.id): c for c in observed.components}
    offers: dict[str, list[Component]] = {}
    for c in declared.of("tool"):
        offers.setdefault(c.id.rpartition("/")[2], []).append(c)
    found: list[Disagreement] = []
    for key, component in seen.items():
        known = [expected[key]] if key in expected else []
        partners = offers.get(component.id, []) if component.kind == "offered_tool" else known
        tried = [_problem(partner, component) for partner in partners or [None]]
        found += [problem for problem in tried[:1] if problem is not None and None not in tried]
    missing = [component for key, component in expected.items() if key not in seen]
    found += [
        _disagree(c, "never-seen", "declared, but no proxy saw it: not shipped, or not on the canary's path") for c in missing
    ]
    return Agreement(
        declared=declared.fingerprint(),
        observed=observed.fingerprint(),
        n_agreed=len(seen) - sum(d.problem != "never-seen" for d in found),
        disagreements=tuple(sorted(found, key=lambda d: (d.kind, d.id))),
        unobservable=tuple(f"{c.kind} {c.id}" for c in declared.components if c.kind not in OBSERVABLE),
        verdict="differs" if found else "agrees",
    )


def _problem(declared: Component | None, observed: Component) -> Disagreement | None:
    if declared is None:
        again = "seen in more than one version" if "#" in observed.id else "seen on the wire, but not declared"
        return _disagree(observed, "not-declared", again)
    if declared.content is None:
        return _disagree(
            observed, "differs", "only its digest was declared, so it cannot be compared; capture it with its content"
        )
    ours, theirs = _comparable(declared, observed), _comparable(observed, declared)
    keys = [
        key for key in sorted(ours.keys() | theirs.keys()) if canonical_json(ours.get(key)) != canonical_json(theirs.get(key))
    ]
    if not keys:
        return None
    return _disagree(observed, "differs", "; ".join(_difference(key, ours.get(key), theirs.get(key)) for key in keys))


def _comparable(component: Component, other: Component) -> dict[str, JsonValue]:
    """What both captures can know of a component."""
    content = _as_recorded(component.content)
    if not isinstance(content, dict):
        return {"": content}
    match other.kind if component.kind == "tool" else component.kind:
        case "system_prompt":
            return {"rendered": content.get("rendered")}
        case "model":
            return {"id": content.get("id")}
        case "server":
            both = other.content if isinstance(other.content, dict) else {}
            return {key: value for key, value in content.items() if key not in _NOT_ALWAYS_SEEN or key in both}
        case "offered_tool":
            keys = ("name", "description", "inputSchema")
            extra = {key: content[key] for key in content if component.kind == "offered_tool" and key not in (*keys, "strict")}
            return extra | {key: normal_schema(content.get(key)) for key in keys}
    return content


def _as_recorded(value: JsonValue) -> JsonValue:
    """As proxies write it down: an integer that RFC 8785 cannot print is its digits."""
    match value:
        case {"$integer": str(digits)} if len(value) == 1:
            return digits
        case dict():
            return {key: _as_recorded(item) for key, item in value.items()}
        case list():
            return [_as_recorded(item) for item in value]
    return value


def _difference(key: str, ours: JsonValue, theirs: JsonValue) -> str:
    """Both values, quoted from where they start to differ."""
    left, right = (value if isinstance(value, str) else json.dumps(value, sort_keys=True) for value in (ours, theirs))
    start = 0
    if max(len(left), len(right)) > _EXCERPT:
        start = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    where = f", from character {start}" if start else ""
    return f"{key or 'value'}{where}: {left[start : start + _EXCERPT]!r} declared, {right[start : start + _EXCERPT]!r} seen"


def _disagree(component: Component, problem: Literal["never-seen", "not-declared", "differs"], says: str) -> Disagreement:
    return Disagreement(kind=component.kind, id=component.id, problem=problem, says=says)
