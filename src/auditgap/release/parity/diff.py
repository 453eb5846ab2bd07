"""What differs between two releases, each difference judged by rule.

1. Components are matched by kind and id. One that is gone or new is safety-relevant; a tool that is gone beside a new one of the
   same server is a rename, since pins by content would let it pass.
2. Same normal form, same bytes: identical. Same normal form, other bytes: cosmetic for a text, identical for data, whose
   spelling nobody is sent.
3. A chain is one thing: links that are gone, new or in another order make one difference, bound to the whole order.
4. Another normal form is judged by the rule of its kind; where only digests were kept, or a rule explains nothing, it is unknown.
"""

from collections.abc import Mapping

from auditgap.errors import UsageError
from auditgap.records import canonical_json, digest_of
from auditgap.records.manifest import Component, ComponentKind, ReleaseManifest
from auditgap.records.parity import Delta, DeltaClass, Finding, Uncovered, gravest
from auditgap.release.parity.rules import RULES

__all__ = ["diff", "n_identical"]

_CHAINS: tuple[ComponentKind, ...] = ("middleware", "post_processing")
_TEXTS: frozenset[ComponentKind] = frozenset(("system_prompt", "chat_template"))
_SERVED: frozenset[ComponentKind] = frozenset(("tool", "offered_tool"))
_OPEN = Uncovered(why="nothing was given")

Key = tuple[ComponentKind, str]


def diff(before: ReleaseManifest, after: ReleaseManifest) -> tuple[Delta, ...]:
    """Every difference, the gravest first; what is safety-relevant or unknown is uncovered.

    Raises:
        UsageError: one manifest is declared and the other observed, so that each sees what the other cannot.
    """
    if (before.captured == "observed") != (after.captured == "observed"):
        raise UsageError(
            f"expected two manifests of one kind, got {before.captured} and {after.captured}; compare a declared with an "
            "observed one by 'auditgap release check'"
        )
    old: dict[Key, Component] = {(c.kind, c.id): c for c in before.components}
    new: dict[Key, Component] = {(c.kind, c.id): c for c in after.components}
    deltas = [*_gone_and_new(old, new), *(_chain(kind, before, after) for kind in _CHAINS)]
    deltas += [_changed(old[key], new[key]) for key in sorted(old.keys() & new.keys())]
    order = ("unknown", "safety-relevant", "compatible", "cosmetic")
    found = [d for d in deltas if d is not None]
    return tuple(sorted(found, key=lambda d: (order.index(d.delta_class), d.kind, d.id)))


def n_identical(before: ReleaseManifest, after: ReleaseManifest, deltas: tuple[Delta, ...]) -> int:
    """Components of the second release that do not differ from the first."""
    differing = {(d.kind, d.id) for d in deltas}
    shared = {(c.kind, c.id) for c in before.components} & {(c.kind, c.id) for c in after.components}
    return len(shared - differing)


def _changed(before: Component, after: Component) -> Delta | None:
    if before.normal_digest == after.normal_digest:
        if before.raw_digest == after.raw_digest or before.kind not in _TEXTS:
            return None
        return _delta(before, after, [_finding("cosmetic", "white-space", "only white space at line ends or at the end differs")])
    if before.content is None or after.content is None:
        return _delta(before, after, [_finding("unknown", "content-not-kept", "only digests were kept, so no rule can judge it")])
    found = RULES[before.kind](before.content, after.content) if before.kind in RULES else []
    return _delta(before, after, found or [_finding("unknown", "unexplained", "the normal forms differ, and no rule says how")])


def _gone_and_new(old: Mapping[Key, Component], new: Mapping[Key, Component]) -> list[Delta]:
    gone = [old[key] for key in sorted(old.keys() - new.keys()) if key[0] not in _CHAINS]
    came = [new[key] for key in sorted(new.keys() - old.keys()) if key[0] not in _CHAINS]
    deltas = []
    for c in gone:
        partner = _renamed(c, came)
        says = f"now called '{partner.id}': a pin by name or content does not see it" if partner else "it is no longer there"
        deltas.append(_delta(c, None, [_finding("safety-relevant", "renamed" if partner else "removed", says)]))
    for c in came:
        partner = _renamed(c, gone)
        says = f"was called '{partner.id}'" if partner else "nothing was shown about it"
        deltas.append(_delta(None, c, [_finding("safety-relevant", "renamed" if partner else "added", says)]))
    return deltas


def _renamed(component: Component, others: list[Component]) -> Component | None:
    """Of the other side: what looks the same but for its name; for tools, the same words or the same arguments are enough."""
    if component.kind not in _SERVED:
        same = (o for o in others if o.kind == component.kind and o.normal_digest == component.normal_digest)
        return next(same, None)
    server = component.id.rpartition("/")[0]
    peers = [o for o in others if o.kind == component.kind and o.id.rpartition("/")[0] == server]
    return next((o for o in peers if _traits(o) & _traits(component)), None)


def _traits(tool: Component) -> set[bytes]:
    content = tool.content if isinstance(tool.content, dict) else {}
    return {key.encode() + canonical_json(content[key]) for key in ("description", "inputSchema") if content.get(key)}


def _chain(kind: ComponentKind, before: ReleaseManifest, after: ReleaseManifest) -> Delta | None:
    """A chain in which links are gone, new or in another place; its digests hold the order and what is not in both."""
    old, new = ({c.id: c for c in manifest.of(kind)} for manifest in (before, after))
    if list(old) == list(new):
        return None
    kept_old, kept_new = [i for i in old if i in new], [i for i in new if i in old]
    found = [_finding("safety-relevant", "removed", f"'{i}' is no longer in the chain") for i in old if i not in new]
    found += [_finding("safety-relevant", "inserted", f"'{i}' is new at place {list(new).index(i)}") for i in new if i not in old]
    if kept_old != kept_new:
        says = f"{' > '.join(kept_old)} is now {' > '.join(kept_new)}: what one link leaves undone the next no longer sees"
        found.append(_finding("safety-relevant", "reordered", says))
    digests = [
        digest_of(canonical_json([[i, None if i in other else link.normal_digest] for i, link in links.items()]))
        for links, other in ((old, new), (new, old))
    ]
    return Delta(
        kind=kind,
        id="(chain)",
        before=digests[0],
        after=digests[1],
        delta_class="safety-relevant",
        findings=tuple(found),
        coverage=_OPEN,
    )


def _delta(before: Component | None, after: Component | None, findings: list[Finding]) -> Delta:
    one = before or after
    if one is None:
        raise UsageError("a difference needs a component on one side at least")
    grave = gravest(tuple(findings))
    delta = Delta(
        kind=one.kind,
        id=one.id,
        before=before.normal_digest if before else None,
        after=after.normal_digest if after else None,
        delta_class=grave,
        findings=tuple(findings),
    )
    return delta.model_copy(update={"coverage": _OPEN}) if delta.needs_coverage else delta


def _finding(delta_class: DeltaClass, rule: str, says: str) -> Finding:
    return Finding(delta_class=delta_class, rule=rule, says=says)
