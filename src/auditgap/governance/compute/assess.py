"""A ledger under rule sets: what counts, how much it is, and on which side of each line that lies.

1. Every line of a model is decided by the rule set: count, exclude or open.
2. Ancestors that count bring their own lines (`lineage.reach`); an ancestor on two ways counts once.
3. Counted lines add up to `counted`; with the open ones, to `with_open`. Both use active parameters; `all_parameters` is
   `counted` as if every parameter worked on every token.
4. The verdict looks at all that the true value may be: the estimate's own low to high, and the regime's tolerance about the mid.
"""

from collections.abc import Callable, Sequence

from auditgap.governance.compute.ledger import Ledger, LineFlop, line_flop
from auditgap.governance.compute.lineage import STRENGTH, Ancestor, Decision, ancestors, reach
from auditgap.governance.compute.quantity import Estimate, plus, show
from auditgap.governance.compute.records import LINKS, Line, ModelLedger
from auditgap.governance.compute.results import (
    ComputeReport,
    FlopLineResult,
    LineResult,
    ModelResult,
    ModifierResult,
    RegimeResult,
    Total,
)
from auditgap.governance.compute.rules import FlopLine, RuleSet
from auditgap.governance.compute.triggers import (
    CapabilityResult,
    blind_spot,
    capability_result,
    matches,
    route_result,
)

__all__ = ["assess", "total"]

Decide = Callable[[Line], Decision]


def assess(ledger: Ledger, rule_sets: Sequence[RuleSet]) -> ComputeReport:
    """Every model of a ledger under every rule set."""
    results = tuple(_model(ledger, model, rule_sets) for model in ledger.models)
    return ComputeReport(models=results)


def total(ledger: Ledger, name: str, decide: Decide) -> Total:
    """Training compute of a model: its own lines and those of the ancestors that count, each once."""
    firmness = reach(ledger.by_name, name, decide)
    counted: list[LineFlop] = []
    opened: list[LineFlop] = []
    for ancestor, reached in firmness.items():
        model = ledger.by_name[ancestor]
        for line in model.lines:
            if line.is_link:
                continue
            decision = min(reached, decide(line), key=STRENGTH.__getitem__)
            if decision != "exclude":
                (counted if decision == "count" else opened).append(line_flop(ledger, model, line))
    return Total(
        counted=plus(*(flop.active for flop in counted)),
        with_open=plus(*(flop.active for flop in (*counted, *opened))),
        all_parameters=plus(*(flop.total for flop in counted)),
    )


def _decide(rules: RuleSet, flop_line: FlopLine | None = None) -> Decide:
    """The decision of a rule set about a line, as one of its FLOP lines sees it."""
    return lambda line: (
        "exclude" if flop_line is not None and line.activity not in flop_line.activities else rules.rule_for(line).decision
    )


def _model(ledger: Ledger, model: ModelLedger, rule_sets: Sequence[RuleSet]) -> ModelResult:
    evidence = tuple(capability_result(item) for item in model.capability)
    behind = ancestors(ledger.models, model.name)
    regimes = tuple(_regime(ledger, model, rules, evidence) for rules in rule_sets)
    return ModelResult(
        model=model.name, ancestors=behind, capability=evidence, regimes=regimes, notes=_notes(ledger, model, behind, rule_sets)
    )


def _notes(ledger: Ledger, model: ModelLedger, behind: Sequence[Ancestor], rule_sets: Sequence[RuleSet]) -> tuple[str, ...]:
    """Per ancestor whose training some rule set does not count: what it was, and who leaves it out."""
    firm = {rules.id: reach(ledger.by_name, model.name, _decide(rules)) for rules in rule_sets}
    notes = []
    for name in dict.fromkeys(ancestor.model for ancestor in behind):
        out = [rules for rules in rule_sets if firm[rules.id].get(name, "exclude") == "exclude"]
        opened = [rules for rules in rule_sets if firm[rules.id].get(name) == "open"]
        if not out and not opened:
            continue
        rules = (out or opened)[0]
        theirs, mine = (total(ledger, n, _decide(rules)).counted.mid for n in (name, model.name))
        said = [f"not counted by {', '.join(r.id for r in out)}"] if out else []
        said += [f"left open by {', '.join(r.id for r in opened)}"] if opened else []
        notes.append(
            f"the training of {name}, {show(theirs)} FLOP, is behind this model ({show(mine)} FLOP) and {'; '.join(said)}: "
            "capability may come from compute that the totals do not hold"
        )
    return tuple(notes)


def _regime(ledger: Ledger, model: ModelLedger, rules: RuleSet, evidence: Sequence[CapabilityResult]) -> RegimeResult:
    return RegimeResult(
        rule_set=rules.id,
        title=rules.title,
        edition=rules.edition,
        status=rules.status,
        lines=tuple(_line(ledger, model, line, rules) for line in model.lines),
        flop_lines=tuple(_against(ledger, model, rules, line, evidence) for line in rules.lines),
        modifier=_modifier(ledger, model, rules),
        routes=tuple(route_result(route, evidence) for route in rules.capability),
    )


def _line(ledger: Ledger, model: ModelLedger, line: Line, rules: RuleSet) -> LineResult:
    rule = rules.rule_for(line)
    if line.is_link and line.model is not None:
        linked = total(ledger, line.model, _decide(rules))
        flop = LineFlop(active=linked.counted, total=linked.all_parameters)
    else:
        flop = line_flop(ledger, model, line)
    return LineResult(
        line=line.name,
        activity=line.activity,
        output=line.output,
        method=line.method,
        model=line.model,
        flop=flop,
        decision=rule.decision,
        why=rule.why,
        pin=rule.pin,
        verified=rule.verified,
    )


def _against(
    ledger: Ledger, model: ModelLedger, rules: RuleSet, flop_line: FlopLine, evidence: Sequence[CapabilityResult]
) -> FlopLineResult:
    result = _placed(ledger, model.name, rules, flop_line)
    if result.best_estimate == "above" or not evidence:
        return result
    caught = [
        other.name
        for other in ledger.models
        if other.name != model.name
        and matches(model.capability, other.capability)
        and _placed(ledger, other.name, rules, flop_line).verdict == "above"
    ]
    note = blind_spot(rules, flop_line, result.total.counted.mid, evidence, caught=caught)
    return result.model_copy(update={"blind_spot": note})


def _placed(ledger: Ledger, name: str, rules: RuleSet, flop_line: FlopLine) -> FlopLineResult:
    """A model against a FLOP line, without regard to capability."""
    found = total(ledger, name, _decide(rules, flop_line))
    band, top = _tolerated(found.counted, rules), _tolerated(found.with_open, rules)
    low, high = min(found.counted.low, band.low), max(found.with_open.high, top.high)
    least, most = _over(found.counted.mid, flop_line), _over(found.with_open.mid, flop_line)
    return FlopLineResult(
        line=flop_line,
        total=found,
        tolerance=band,
        low_flop=low,
        high_flop=high,
        verdict="above" if _over(low, flop_line) else "straddles" if _over(high, flop_line) else "below",
        best_estimate="above" if least else "open" if most else "below",
        all_parameters="above" if _over(found.all_parameters.mid, flop_line) else "below",
    )


def _over(flop: float, line: FlopLine) -> bool:
    return flop > line.flop if line.comparator == ">" else flop >= line.flop


def _tolerated(estimate: Estimate, rules: RuleSet) -> Estimate:
    """What the regime's tolerance allows about the mid."""
    f = rules.tolerance.fraction
    return Estimate(low=(1 - f) * estimate.mid, mid=estimate.mid, high=(1 + f) * estimate.mid)


def _widest(estimate: Estimate, rules: RuleSet) -> Estimate:
    """The estimate's own range and the tolerance together."""
    band = _tolerated(estimate, rules)
    return Estimate(low=min(estimate.low, band.low), mid=estimate.mid, high=max(estimate.high, band.high))


def _modifier(ledger: Ledger, model: ModelLedger, rules: RuleSet) -> ModifierResult | None:
    """The one-third test, where the model is a modification and the rule set has one."""
    rule, change = rules.modifier, model.modification
    if rule is None or change is None:
        return None
    decide = _decide(rules)
    own = [line for line in model.lines if line.activity not in LINKS and decide(line) != "exclude"]
    spent = plus(*(line_flop(ledger, model, line).active for line in own))
    if change.of is not None or change.original_flop is not None:
        original = total(ledger, change.of, decide).counted if change.of is not None else change.original_flop
        assert original is not None
        widest = _widest(original, rules)
    else:
        original = None
        widest = Estimate.of(rule.unknown_systemic if change.original == "systemic-risk, compute unknown" else rule.unknown_other)
    line = Estimate(low=widest.low / rule.divisor, mid=widest.mid / rule.divisor, high=widest.high / rule.divisor)
    mine = _widest(spent, rules)
    verdict = "above" if mine.low > line.high else "below" if mine.high <= line.low else "straddles"
    meaning = {
        "above": "whoever made the change is the provider of the changed model",
        "below": "whoever made the change does not become the provider by it",
        "straddles": "the line runs through the estimate: treat whoever made the change as the provider, or estimate better",
    }[verdict]
    if change.same_provider:
        verdict, meaning = (
            "same provider",
            "the original's own provider changed it: one life cycle, so the compute adds to the original's",
        )
    return ModifierResult(
        modification=spent, original=original, line=line, verdict=verdict, meaning=meaning, pin=rule.pin, verified=rule.verified
    )
