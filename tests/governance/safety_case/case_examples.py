"""Made safety cases: a small sound one, random ones, and leaves whose worth is chosen."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from hypothesis import strategies as st

from auditgap.governance.safety_case import Case, Goal, Leaf, Solution, Strategy
from auditgap.governance.safety_case.records import Citing

SMALL: Mapping[str, object] = {
    "name": "case",
    "setting": "a laboratory",
    "prepared_by": "author",
    "review_by": "2027-01-01",
    "goals": [
        {"id": "G1", "text": "safe", "supported_by": ["S1"], "in_context_of": ["C1"]},
        {"id": "G2", "text": "refuses", "claim": "refuses-harmful-requests", "supported_by": ["Sn1"]},
        {"id": "G3", "text": "hides nothing", "claim": "no-hidden-objectives", "undeveloped": "no instrument carries it"},
    ],
    "strategies": [
        {
            "id": "S1",
            "text": "does not try",
            "argument": "trustworthiness",
            "holds": {"unobserved": "G3", "shift": "A1"},
            "supported_by": ["G2", "G3"],
            "in_context_of": ["A1"],
        }
    ],
    "solutions": [
        {"id": "Sn1", "text": "rates", "claim": "refuses-harmful-requests", "evidence": [{"instrument": "refusal-rate"}]}
    ],
    "context": [{"id": "C1", "text": "where"}],
    "assumptions": [{"id": "A1", "text": "inputs look alike"}],
}


def written(folder: Path, **changed: object) -> Path:
    """The small case as a file, with some of its fields replaced."""
    path = folder / "case.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changed}, sort_keys=False), encoding="utf-8")
    return path


def part(kind: str, name: str, **changed: object) -> list[dict[str, object]]:
    """All parts of one kind of the small case, with some fields of one of them replaced; None takes a field out."""
    parts: Iterable[dict[str, object]] = SMALL[kind]  # type: ignore[assignment]
    new = [{**p, **changed} if p["id"] == name else p for p in parts]
    return [{key: value for key, value in p.items() if value is not None} for p in new]


def leaf(name: str, doubt: float, health: str = "green", timeliness: str = "current") -> Leaf:
    return Leaf(
        id=name,
        claim="claim",
        evidence=(),
        support="supported",
        tier=1,
        fragile=(),
        doubt=doubt,
        health=health,  # type: ignore[arg-type]
        timeliness=timeliness,  # type: ignore[arg-type]
        expires=None,
        why=(),
    )


def solution(name: str) -> Solution:
    return Solution(id=name, text=name, claim="claim", evidence=(Citing(instrument="i"),))


@st.composite
def argued(draw: st.DrawFn) -> tuple[Case, dict[str, Leaf]]:
    """A random case of up to three levels, with random leaves; leaves and goals may be shared between branches."""
    goals: list[Goal] = []
    strategies: list[Strategy] = []
    leaves: dict[str, Leaf] = {}

    def new_leaf() -> str:
        if leaves and draw(st.booleans()):
            return draw(st.sampled_from(sorted(leaves)))
        name = f"Sn{len(leaves)}"
        health, timeliness = (
            draw(st.sampled_from(["green", "amber", "red"])),
            draw(st.sampled_from(["current", "stale", "undated"])),
        )
        leaves[name] = leaf(name, draw(st.floats(0, 1)), health, timeliness)
        return name

    def new_goal(depth: int) -> str:
        done = [goal.id for goal in goals]
        if done and depth > 0 and draw(st.integers(0, 4)) == 0:
            return draw(st.sampled_from(done))
        kind = draw(st.sampled_from(["leaf", "strategies", "goals", "undeveloped"] if depth < 2 else ["leaf", "undeveloped"]))
        below: list[str] = []
        if kind == "leaf":
            below = [new_leaf() for _ in range(draw(st.integers(1, 3)))]
        elif kind == "goals":
            below = [new_goal(depth + 1) for _ in range(draw(st.integers(1, 3)))]
        elif kind == "strategies":
            for _ in range(draw(st.integers(1, 2))):
                needed = [new_goal(depth + 1) for _ in range(draw(st.integers(1, 3)))]
                strategies.append(Strategy(id=f"S{len(strategies)}", text="s", supported_by=tuple(dict.fromkeys(needed))))
                below.append(strategies[-1].id)
        name = f"G{len(goals)}"
        goals.append(Goal(id=name, text="g", supported_by=tuple(dict.fromkeys(below)), undeveloped=None if below else "not yet"))
        return name

    new_goal(0)
    return built(goals, strategies, leaves), leaves


def built(goals: Iterable[Goal], strategies: Iterable[Strategy], leaves: Iterable[str]) -> Case:
    return Case.model_validate(
        {
            "name": "n",
            "setting": "s",
            "prepared_by": "p",
            "review_by": "2999-01-01",
            "goals": [g.model_dump() for g in goals],
            "strategies": [s.model_dump() for s in strategies],
            "solutions": [solution(name).model_dump() for name in leaves],
        },
        strict=False,
    )
