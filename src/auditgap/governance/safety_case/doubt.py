"""From the leaves to the top: how much doubt remains, whether the case stands, and whether its evidence is in date.

1. Where all parts are needed (a strategy, a goal's sub-goals) the doubts add up, to 1 at most:
   `1 - P(top) <= sum(1 - P(leaf))`. Nothing is assumed to be independent.
2. Where each part suffices (a goal's strategies, its solutions) the least doubt counts: the goal fails only if all of them fail.
3. A part that two branches share is counted in both: still a bound, and what it is worth may differ between them.
4. A defeater that stands against a part, or against what it is stated in, makes the doubt of that part 1.
5. Health and timeliness are axes of their own and never enter the number. Stale anywhere below is stale above.

The bound (secondary: arXiv:2502.05791) holds given the context and the assumptions; they are counted, not priced.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from auditgap.governance.judged import Judged
from auditgap.governance.licensing import Licences
from auditgap.governance.safety_case.leaves import Health, Leaf, Timeliness, judge_leaf
from auditgap.governance.safety_case.records import Case, Defeater, Goal, Kind, Strategy
from auditgap.governance.safety_case.table import DoubtTable
from auditgap.records import Claim, Date, Digest, Number, Record

__all__ = ["JudgedCase", "Standing", "judge_case", "propagate"]

_RANK: dict[Health, int] = {"red": 0, "amber": 1, "green": 2}


class Standing(Record):
    """One goal, strategy or solution, with everything below it."""

    id: str
    kind: Kind
    doubt: Number
    """Upper bound of the doubt that remains."""
    health: Health
    timeliness: Timeliness
    why: tuple[str, ...] = ()

    @property
    def at_most(self) -> str:
        """The doubt in two decimals, rounded up: a bound that is printed lower is no bound."""
        return f"{math.ceil(self.doubt * 100 - 1e-9) / 100:.2f}"


class JudgedCase(Record):
    """A safety case on one day, against one store."""

    name: str
    setting: str
    subject: Digest | None
    """None if no store was given."""
    today: Date
    review_by: Date
    top: str
    doubt_entered_by: str
    """Who stands for the numbers behind the doubts."""
    n_assumptions: int
    """The bound holds only if all of them do."""
    standings: tuple[Standing, ...]
    leaves: tuple[Leaf, ...]
    open_defeaters: tuple[str, ...]
    undeveloped: tuple[str, ...]

    def standing(self, node: str) -> Standing:
        """The standing of one goal, strategy or solution."""
        return next(s for s in self.standings if s.id == node)

    @property
    def open_points(self) -> tuple[str, ...]:
        """What keeps the case from being closed today, one sentence each; empty if it stands, is in date and is complete."""
        top = self.standing(self.top)
        said = [f"defeater '{name}' is open" for name in self.open_defeaters]
        said += [f"'{name}' is undeveloped" for name in self.undeveloped]
        said += [f"solution '{leaf.id}' does not stand: {'; '.join(leaf.why)}" for leaf in self.leaves if leaf.health == "red"]
        said += [
            f"solution '{leaf.id}' is stale: its evidence expired on {leaf.expires}"
            for leaf in self.leaves
            if leaf.timeliness == "stale"
        ]
        if top.doubt >= 1 and not said:
            said.append("the doubts of the leaves add up to 1 or more: nothing of the case is left")
        return (*said, *((f"the case was to be reviewed by {self.review_by}",) if self.review_by < self.today else ()))


def judge_case(
    case: Case,
    held: Sequence[Judged],
    claims: Mapping[str, Claim],
    licences: Licences,
    table: DoubtTable,
    *,
    subject: Digest | None,
    today: Date,
) -> JudgedCase:
    """A loaded case against all evidence held. Without a subject nothing is held, and every leaf is full doubt."""
    about = subject or f"sha256:{'0' * 64}"
    evidence = held if subject else ()
    leaves = {s.id: judge_leaf(s, claims[s.claim], evidence, licences, table, subject=about, today=today) for s in case.solutions}
    return JudgedCase(
        name=case.name,
        setting=case.setting,
        subject=subject,
        today=today,
        review_by=case.review_by,
        top=case.top(),
        doubt_entered_by=table.entered_by,
        n_assumptions=len(case.assumptions),
        standings=tuple(propagate(case, leaves, today).values()),
        leaves=tuple(leaves.values()),
        open_defeaters=tuple(d.id for d in case.defeaters if d.stands(today)),
        undeveloped=tuple(node.id for node in (*case.goals, *case.strategies) if node.undeveloped),
    )


def propagate(case: Case, leaves: Mapping[str, Leaf], today: Date) -> dict[str, Standing]:
    """The standing of every goal, strategy and solution, in the order of the file."""
    kinds, nodes, known = case.kinds(), case.nodes(), dict[str, Standing]()
    against = {name: [d for d in case.defeaters if d.defeats == name] for name in nodes}

    def standing(name: str) -> Standing:
        if name not in known:
            known[name] = defeated(name, leaf(leaves[name]) if kinds[name] == "solution" else above(name))
        return known[name]

    def leaf(judged: Leaf) -> Standing:
        return Standing(
            id=judged.id, kind="solution", doubt=judged.doubt, health=judged.health, timeliness=judged.timeliness, why=judged.why
        )

    def above(name: str) -> Standing:
        node, kind = nodes[name], kinds[name]
        if isinstance(node, Goal | Strategy) and node.undeveloped:
            return Standing(
                id=name, kind=kind, doubt=1.0, health="red", timeliness="undated", why=(f"undeveloped: {node.undeveloped}",)
            )
        legs = [[standing(child) for child in leg] for leg in _legs(case, name)]
        best = min(legs, key=lambda leg: math.fsum(s.doubt for s in leg))
        return Standing(
            id=name,
            kind=kind,
            doubt=min(1.0, math.fsum(s.doubt for s in best)),
            health=_best([_weakest([s.health for s in leg]) for leg in legs]),
            timeliness=_worst([s.timeliness for leg in legs for s in leg]),
            why=(f"rests most weakly on {max(best, key=lambda s: s.doubt).id}",),
        )

    def defeated(name: str, found: Standing) -> Standing:
        attacks = [d for target in (name, *case.beside(name)) for d in against[target]]
        return _under_attack(found, attacks, today)

    for name, kind in kinds.items():
        if kind in ("goal", "strategy", "solution"):
            standing(name)
    top = case.top()
    if case.review_by < today:
        said = (*known[top].why, f"the case was to be reviewed by {case.review_by}")
        known[top] = known[top].model_copy(update={"timeliness": "stale", "why": said})
    return {name: known[name] for name in kinds if name in known}


def _legs(case: Case, name: str) -> Iterator[tuple[str, ...]]:
    """The sets of parts that each suffice to carry this one."""
    kinds, below = case.kinds(), case.below(name)
    if kinds[name] == "strategy":
        yield below
        return
    yield from ((child,) for child in below if kinds[child] != "goal")
    if goals := tuple(child for child in below if kinds[child] == "goal"):
        yield goals


def _best(health: Sequence[Health]) -> Health:
    return max(health, key=lambda h: _RANK[h])


def _weakest(health: Sequence[Health]) -> Health:
    return min(health, key=lambda h: _RANK[h])


def _worst(timeliness: Sequence[Timeliness]) -> Timeliness:
    if "stale" in timeliness:
        return "stale"
    return "current" if "current" in timeliness else "undated"


def _under_attack(found: Standing, attacks: Sequence[Defeater], today: Date) -> Standing:
    """A part with the defeaters against it and against what it is stated in."""
    standing = [d for d in attacks if d.stands(today)]
    accepted = [d for d in attacks if d.status == "accepted" and not d.stands(today)]
    said = [f"defeater {d.id} stands ({d.kind}): {d.text}" for d in standing]
    said += [f"defeater {d.id} is accepted by {d.who} until {d.until}: {d.reason}" for d in accepted]
    if standing:
        found = found.model_copy(update={"doubt": 1.0, "health": "red"})
    elif accepted and found.health == "green":
        found = found.model_copy(update={"health": "amber"})
    return found.model_copy(update={"why": (*found.why, *said)})
