"""A safety case as JSON in the shape of OMG SACM 2.3: packages of claims, reasoning, relationships and artefacts.

OMG publishes an XMI metamodel and no JSON schema, so this is SACM's structure and words, not a validated exchange file.
The mapping from GSN (unverified in detail): goal = Claim; strategy = ArgumentReasoning; solution, context = ArtifactReference;
assumption = Claim that is assumed; justification = Claim that is axiomatic; support = AssertedInference or AssertedEvidence.
A defeater is a Claim with a relationship that has `isCounter`: it counters a claim (rebutting), or another relationship
(undercutting the inference, undermining the evidence). Standings stand in `taggedValue`, numbers as decimal strings.
Source: https://www.omg.org/spec/SACM/2.3 (class names secondary: https://issues.omg.org/issues/lists/sacm24-rtf).
"""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from auditgap.governance.safety_case.doubt import JudgedCase
from auditgap.governance.safety_case.records import Case, Defeater, Goal, Strategy
from auditgap.records import digest_of

__all__ = ["sacm"]

Element = dict[str, JsonValue]


def sacm(case: Case, judged: JudgedCase) -> dict[str, JsonValue]:
    """The case as one AssuranceCasePackage: an argument package, and an artefact package with the evidence cited."""
    relations = list(_relations(case))
    argument = [*_claims(case, judged), *relations, *_counters(case, relations)]
    artefacts: list[JsonValue] = [*_artefacts(judged)]
    return {
        "type": "AssuranceCasePackage",
        "gid": digest_of(case.canonical()),
        "name": case.name,
        "description": case.setting,
        "argumentPackage": [{"type": "ArgumentPackage", "gid": "argument", "argumentationElement": [*argument]}],
        "artifactPackage": [{"type": "ArtifactPackage", "gid": "evidence", "artifactElement": artefacts}],
        "taggedValue": _tagged(
            {
                "subject": judged.subject or "none: no store was given",
                "on": str(judged.today),
                "doubt-entered-by": judged.doubt_entered_by,
                "prepared-by": case.prepared_by,
                "reviewed-by": case.reviewed_by or "nobody independent",
            }
        ),
    }


def _claims(case: Case, judged: JudgedCase) -> Iterator[Element]:
    """Every part that is not a relationship."""
    standings = {s.id: s for s in judged.standings}
    notes = {
        "context": ("ArtifactReference", None),
        "assumption": ("Claim", "assumed"),
        "justification": ("Claim", "axiomatic"),
        "defeater": ("Claim", "asserted"),
        "strategy": ("ArgumentReasoning", None),
        "solution": ("ArtifactReference", None),
    }
    rebutted = {d.defeats for d in case.defeaters if d.id in judged.open_defeaters}
    for name, kind in case.kinds().items():
        node = case.nodes()[name]
        if isinstance(node, Goal):
            declared = "defeated" if name in rebutted else "needsSupport" if node.undeveloped else "asserted"
            element = _element("Claim", name, node.text, declared)
        else:
            sort, declared = notes[kind]
            element = _element(sort, name, node.text, declared)
        if leaf := next((leaf for leaf in judged.leaves if leaf.id == name), None):
            element["referencedArtifactElement"] = [*leaf.evidence]
        tags = {"gsn": kind}
        if isinstance(node, Goal) and node.claim:
            tags["claim"] = node.claim
        if isinstance(node, Strategy) and node.argument:
            tags["argument"] = node.argument
        if isinstance(node, Defeater):
            tags |= {"defeater": node.kind, "status": node.status, "reason": node.reason or "none given"}
        if name in standings:
            s = standings[name]
            tags |= {"doubt-at-most": repr(s.doubt), "health": s.health, "timeliness": s.timeliness}
        element["taggedValue"] = _tagged(tags)
        yield element


def _relations(case: Case) -> Iterator[Element]:
    kinds = case.kinds()
    for goal in case.goals:
        direct = [child for child in goal.supported_by if kinds[child] != "strategy"]
        yield from _support(kinds, goal.id, direct, None)
        for strategy in (child for child in goal.supported_by if kinds[child] == "strategy"):
            yield from _support(kinds, goal.id, case.below(strategy), strategy)
    for node in (*case.goals, *case.strategies):
        for note in node.in_context_of:
            yield _relation("AssertedContext", f"{node.id}.in-context-of.{note}", [note], node.id)


def _support(kinds: Mapping[str, str], goal: str, below: Sequence[str], strategy: str | None) -> Iterator[Element]:
    by = f".by.{strategy}" if strategy else ""
    goals = [child for child in below if kinds[child] == "goal"]
    if goals or (strategy and not below):
        inference = _relation("AssertedInference", f"{goal}.supported{by}", goals, goal, reasoning=strategy)
        yield inference | ({} if goals else {"assertionDeclaration": "needsSupport"})
    for solution in (child for child in below if kinds[child] == "solution"):
        yield _relation("AssertedEvidence", f"{goal}.evidenced{by}.{solution}", [solution], goal, reasoning=strategy)


def _counters(case: Case, relations: list[Element]) -> Iterator[Element]:
    """What each defeater counters: a claim, or the relationships that the part it attacks takes part in."""
    kinds = case.kinds()
    for defeater in case.defeaters:
        attacked = defeater.defeats
        if defeater.kind == "rebutting" or kinds[attacked] in ("assumption", "justification"):
            targets = [attacked]
        elif kinds[attacked] == "goal":
            targets = [str(r["gid"]) for r in relations if r["target"] == attacked and r["type"] != "AssertedContext"]
        elif kinds[attacked] == "strategy":
            targets = [str(r["gid"]) for r in relations if r.get("reasoning") == attacked]
        else:
            targets = [str(r["gid"]) for r in relations if r["source"] == [attacked]]
        for target in targets:
            yield _relation("AssertedInference", f"{defeater.id}.counters.{target}", [defeater.id], target) | {"isCounter": True}


def _artefacts(judged: JudgedCase) -> Iterator[Element]:
    cited = {digest: leaf for leaf in judged.leaves for digest in leaf.evidence}
    for digest, leaf in sorted(cited.items()):
        yield {"type": "Artifact", "gid": digest, "name": f"signed evidence of '{leaf.claim}'"}


def _element(sort: str, name: str, text: str, declared: str | None) -> Element:
    element: Element = {"type": sort, "gid": name, "name": name, "content": text}
    return element | ({"assertionDeclaration": declared} if declared else {})


def _relation(sort: str, name: str, source: list[str], target: str, *, reasoning: str | None = None) -> Element:
    relation: Element = {"type": sort, "gid": name, "source": [*source], "target": target, "isCounter": False}
    return relation | ({"reasoning": reasoning} if reasoning else {})


def _tagged(values: Mapping[str, str]) -> list[JsonValue]:
    return [{"key": f"auditgap.dev/{key}", "content": value} for key, value in values.items()]
