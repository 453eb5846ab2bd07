"""Capability beside compute: what a model can do, against bars that were set for it.

FLOP say what training cost. Better data, a better recipe, a teacher or a sparse architecture buy more capability for the same
FLOP, so a model under every line may do what the lines were drawn for. A *blind spot* is exactly that: under a line, over a bar.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from auditgap.governance.compute.quantity import Estimate, show
from auditgap.governance.compute.records import Capability
from auditgap.governance.compute.rules import CapabilityRoute, FlopLine, RuleSet
from auditgap.records import Number, Record

__all__ = ["CapabilityResult", "RouteResult", "Verdict", "blind_spot", "capability_result", "matches", "route_result"]

Verdict = Literal["below", "above", "straddles"]
"""Where an estimate lies: surely below the line, surely above it, or the line runs through it (a gate treats that as above)."""


class CapabilityResult(Record):
    """One benchmark result against its bar."""

    benchmark: str
    score: Estimate
    bar: Number
    verdict: Verdict
    """above: at least as capable as the bar at both ends of the score."""
    registered_first: bool
    """False: the bar was set after the score was known and proves little; it still counts, to err on the safe side."""
    source: str = ""


class RouteResult(Record):
    """Whether the evidence reaches a capability route of a regime; a designation is for the authority."""

    route: CapabilityRoute
    trigger: Literal["reached", "unclear", "not reached", "no evidence"]


def capability_result(evidence: Capability) -> CapabilityResult:
    """One result against its bar; a bar that is met exactly is reached."""
    score, bar = evidence.score, evidence.bar
    worst, best = (score.low, score.high) if evidence.better == "higher" else (-score.high, -score.low)
    line = bar if evidence.better == "higher" else -bar
    return CapabilityResult(
        benchmark=evidence.benchmark,
        score=score,
        bar=bar,
        verdict="above" if worst >= line else "below" if best < line else "straddles",
        registered_first=evidence.registered <= evidence.measured,
        source=evidence.source,
    )


def route_result(route: CapabilityRoute, evidence: Iterable[CapabilityResult]) -> RouteResult:
    """Any result above its bar reaches the route; none above it, and none on the line, does not."""
    verdicts = {result.verdict for result in evidence}
    if not verdicts:
        return RouteResult(route=route, trigger="no evidence")
    if "above" in verdicts:
        return RouteResult(route=route, trigger="reached")
    return RouteResult(route=route, trigger="unclear" if "straddles" in verdicts else "not reached")


def matches(mine: Sequence[Capability], others: Sequence[Capability]) -> bool:
    """True if, on every benchmark that both report (at least one), mine shows no less capability than the other."""
    known = {evidence.benchmark: evidence for evidence in others}
    shared = [(evidence, known[evidence.benchmark]) for evidence in mine if evidence.benchmark in known]
    sign = {"higher": 1.0, "lower": -1.0}
    return bool(shared) and all(sign[a.better] * a.score.mid >= sign[a.better] * b.score.mid for a, b in shared)


def blind_spot(
    rules: RuleSet, line: FlopLine, mid: float, evidence: Sequence[CapabilityResult], *, caught: Sequence[str]
) -> str | None:
    """The note for a model under `line` whose evidence is over a bar; None if the evidence is not, or the regime is history.

    `caught` names models that the line does catch and that show no more capability.
    """
    over = [result for result in evidence if result.verdict == "above"]
    if not over or rules.status == "rescinded":
        return None
    names = ", ".join(result.benchmark for result in over)
    routes = [f"{route.title} ({route.pin.paragraph})" for route in rules.capability]
    note = (
        f"blind spot: {show(mid)} FLOP does not pass the line of {show(line.flop)}, yet {len(over)} of {len(evidence)} "
        f"capability results reach their registered bar ({names}). FLOP do not see capability; "
        f"{'look at: ' + '; '.join(routes) if routes else 'this rule set has no other way in'}."
    )
    note += f" The line catches {', '.join(caught)}, with no more capability on shared benchmarks." if caught else ""
    return note + ("" if all(result.registered_first for result in over) else " At least one bar was set after its score.")
