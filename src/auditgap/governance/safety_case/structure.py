"""A safety case is read, or refused with every reason at once.

1. Every id is used once and every reference leads to a part of the right kind.
2. The case is one argument: no cycle, one top goal, no part that nothing uses.
3. Every leaf is evidence, or says why it is undeveloped.
4. Claims are in the catalogue, evidence is of the claim that its goal makes, by an instrument that bears on it.
5. A strategy that uses one of the four kinds of argument answers each of its conditions, and argues for a claim that it needs.
6. A defeater attacks a part that its kind can attack.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from auditgap.errors import PlanError, nearest
from auditgap.governance.claim import claims as shipped_claims
from auditgap.governance.document import parse
from auditgap.governance.licensing import licences
from auditgap.governance.safety_case.arguments import arguments
from auditgap.governance.safety_case.records import Case, Goal, Kind, Solution, Strategy
from auditgap.records import Claim

__all__ = ["ANSWERS", "DEFEATS", "complaints", "descendants", "load_case"]

_BELOW_GOAL: tuple[Kind, ...] = ("goal", "strategy", "solution")
_BELOW_STRATEGY: tuple[Kind, ...] = ("goal", "solution")
_BESIDE: tuple[Kind, ...] = ("context", "assumption", "justification")
ANSWERS: tuple[Kind, ...] = ("goal", "assumption", "justification")
"""Kinds of part that may answer a condition of an argument."""
DEFEATS: dict[str, tuple[Kind, ...]] = {
    "rebutting": ("goal",),
    "undercutting": ("goal", "strategy"),
    "undermining": ("solution", "context", "assumption", "justification"),
}
"""Kinds of part that each kind of defeater can attack."""


def load_case(path: Path | str, *, claims: Mapping[str, Claim] | None = None) -> Case:
    """Read a safety case. `claims` defaults to the shipped catalogue.

    Raises:
        PlanError: the file is malformed, or the case does not hold together; the message lists every complaint.
    """
    path = Path(path)
    case = parse(path, Case)
    found = list(complaints(case, shipped_claims() if claims is None else claims))
    if found:
        raise PlanError(f"{path}: {'; '.join(found)}")
    return case


def complaints(case: Case, claims: Mapping[str, Claim]) -> Iterator[str]:
    """One sentence per thing that is wrong; what needs sound references is looked at only once they are sound."""
    unsound = [*_repeated(case), *_dangling(case)]
    unsound = unsound or [*_cycles(case), *_defeaters(case)]
    unsound = unsound or [*_loose(case), *_leaves(case), *_claims(case, claims), *_arguments(case)]
    yield from unsound


def descendants(case: Case, node: str) -> set[str]:
    """The part and everything that supports it, at any depth."""
    found, todo = set[str](), [node]
    while todo:
        current = todo.pop()
        if current not in found:
            found.add(current)
            todo += case.below(current)
    return found


def _repeated(case: Case) -> Iterator[str]:
    parts = (case.goals, case.strategies, case.solutions, case.context, case.assumptions, case.justifications, case.defeaters)
    counted = Counter(node.id for nodes in parts for node in nodes)
    yield from (f"id '{name}' is used {n} times; rename all but one" for name, n in counted.items() if n > 1)


def _dangling(case: Case) -> Iterator[str]:
    kinds = case.kinds()
    for node in (*case.goals, *case.strategies):
        supports = _BELOW_GOAL if isinstance(node, Goal) else _BELOW_STRATEGY
        yield from _references(kinds, f"{node.id}.supported_by", node.supported_by, supports)
        yield from _references(kinds, f"{node.id}.in_context_of", node.in_context_of, _BESIDE)
    for strategy in case.strategies:
        for condition, answer in strategy.holds.items():
            yield from _references(kinds, f"{strategy.id}.holds.{condition}", (answer,), ANSWERS)
    for defeater in case.defeaters:
        anything: tuple[Kind, ...] = ("goal", "strategy", "solution", *_BESIDE)
        yield from _references(kinds, f"{defeater.id}.defeats", (defeater.defeats,), anything)


def _references(kinds: Mapping[str, Kind], where: str, names: tuple[str, ...], allowed: tuple[Kind, ...]) -> Iterator[str]:
    for name in names:
        if name not in kinds:
            fitting = [known for known, kind in kinds.items() if kind in allowed]
            yield f"{where}: no part '{name}'{nearest(name, fitting)}"
        elif kinds[name] not in allowed:
            yield f"{where}: '{name}' is of kind {kinds[name]}, expected {' or '.join(allowed)}"
    yield from (f"{where}: '{name}' is named twice; keep one" for name, n in Counter(names).items() if n > 1)


def _cycles(case: Case) -> Iterator[str]:
    """The first path that leads back to where it began."""
    done: set[str] = set()

    def walk(node: str, path: tuple[str, ...]) -> str | None:
        if node in path:
            return f"the argument is circular: {' -> '.join((*path[path.index(node) :], node))}; a goal cannot rest on itself"
        if node in done:
            return None
        found = next((f for child in case.below(node) if (f := walk(child, (*path, node)))), None)
        done.add(node)
        return found

    found = next((f for node in (*case.goals, *case.strategies) if (f := walk(node.id, ()))), None)
    yield from [found] if found else []


def _defeaters(case: Case) -> Iterator[str]:
    kinds = case.kinds()
    for defeater in case.defeaters:
        if kinds[defeater.defeats] not in DEFEATS[defeater.kind]:
            able = next(name for name, targets in DEFEATS.items() if kinds[defeater.defeats] in targets)
            yield (
                f"{defeater.id}: {defeater.kind} defeaters attack what is of kind {' or '.join(DEFEATS[defeater.kind])}, "
                f"'{defeater.defeats}' is of kind {kinds[defeater.defeats]}; did you mean '{able}'?"
            )


def _loose(case: Case) -> Iterator[str]:
    nodes = (*case.goals, *case.strategies)
    used = {child for node in nodes for child in (*node.supported_by, *node.in_context_of)}
    tops = [goal.id for goal in case.goals if goal.id not in used]
    if len(tops) > 1:
        yield f"expected one top goal, got {', '.join(tops)}; let one of them rest on the others"
    for name, kind in case.kinds().items():
        if name not in used and kind not in ("goal", "defeater"):
            yield f"{kind} '{name}' is used by no part; attach it or take it out"


def _leaves(case: Case) -> Iterator[str]:
    for node in (*case.goals, *case.strategies):
        if not node.supported_by and node.undeveloped is None:
            yield f"'{node.id}' has no support; give it some, or say in undeveloped why it has none"
        if node.supported_by and node.undeveloped is not None:
            yield f"'{node.id}' is called undeveloped and has support; take one of the two out"


def _claims(case: Case, claims: Mapping[str, Claim]) -> Iterator[str]:
    named = [(node.id, node.claim) for node in (*case.goals, *case.solutions) if node.claim is not None]
    yield from (f"{where}: unknown claim '{claim}'{nearest(claim, claims)}" for where, claim in named if claim not in claims)
    nodes = case.nodes()
    for goal in case.goals:
        for child in goal.supported_by:
            part = nodes[child]
            if isinstance(part, Solution) and goal.claim not in (None, part.claim):
                yield f"{child}: is evidence of '{part.claim}' and directly supports {goal.id}, which claims '{goal.claim}'"
    for solution in case.solutions:
        claim = claims.get(solution.claim)
        able = [bearing.instrument for bearing in claim.bearings] if claim else []
        for cited in solution.evidence:
            if claim and cited.instrument and cited.instrument not in able and licences().find(cited.instrument):
                bearing = ", ".join(dict.fromkeys(able)) or "no instrument does"
                yield f"{solution.id}: '{cited.instrument}' does not bear on '{solution.claim}'; those that do: {bearing}"


def _arguments(case: Case) -> Iterator[str]:
    nodes = case.nodes()
    for strategy in case.strategies:
        if strategy.argument is None:
            yield from (f"{strategy.id}: holds answers an argument's conditions; name the argument" for _ in strategy.holds)
            continue
        kind = arguments()[strategy.argument]
        attached = {*strategy.supported_by, *strategy.in_context_of}
        for condition, answer in strategy.holds.items():
            if condition not in kind.conditions:
                yield f"{strategy.id}.holds: {kind.id} has no condition '{condition}'{nearest(condition, kind.conditions)}"
            elif answer not in attached:
                yield f"{strategy.id}.holds.{condition}: '{answer}' is not attached to {strategy.id}; put it below or beside it"
        if strategy.undeveloped is not None:
            continue
        for condition, words in kind.conditions.items():
            if condition not in strategy.holds:
                yield f"{strategy.id}: an argument from {kind.id} must say what answers '{condition}': {words}"
        if not _argued(case, strategy, nodes) & set(kind.claims):
            yield f"{strategy.id}: an argument from {kind.id} needs a goal that claims {' or '.join(kind.claims)}, at or below it"


def _argued(case: Case, strategy: Strategy, nodes: Mapping[str, object]) -> set[str]:
    """Claims of the goals below a strategy, and of those that rest on it."""
    near = descendants(case, strategy.id) | {goal.id for goal in case.goals if strategy.id in goal.supported_by}
    found = (node.claim for name in near if isinstance(node := nodes[name], Goal))
    return {claim for claim in found if claim is not None}
