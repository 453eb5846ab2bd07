"""What is wrong with a case before it is run: it could pass by being empty, or could not fail at all.

1. Names: the control, the control to disable and the fault's settings exist.
2. Power: with a faultless live run, the exact bound can reach the rate that the case asks for.
3. Proof: there is a sabotage run, scripted, of the case's own control.
4. Expressions: CEL that knows its names, `.all()` only with a size, `has()` never as a way to pass, and false in some world.

The fourth is decided by trying: worlds are drawn from the words and numbers of the expression itself. In each of them the agent
has made a call and got a result, as in every real run, so that "there was a call, and ..." alone is not able to fail.
"""

import math
import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import get_args

from pydantic import JsonValue

from auditgap.errors import PlanError, nearest
from auditgap.records import Record
from auditgap.records.integrity import ADHERENCE
from auditgap.release.agent.control import Layer
from auditgap.release.cases.case import Case, Expectation
from auditgap.release.cases.oracle import (
    AuditRow,
    CallRow,
    ControlRow,
    EffectRow,
    FaultRow,
    ReplyRow,
    ResultRow,
    compiled,
    decide,
)
from auditgap.release.injection.kinds import check_plan
from auditgap.stats import zero_event_upper_bound

__all__ = ["checked", "lint"]

N_WORLDS, N_FOR_NAMES = 1000, 30
_NO_SUCH_NAME = re.compile(r"KeyError|.*(Undefined|[Nn]o such key)")
_ROWS: dict[str, type[Record]] = {
    "effects": EffectRow,
    "calls": CallRow,
    "results": ResultRow,
    "controls": ControlRow,
    "audit": AuditRow,
    "faults": FaultRow,
    "replies": ReplyRow,
}
_GUARD = r"(?:{0}\.size\(\)|size\({0}\))\s*(?:>=\s*[1-9]|>\s*\d|==\s*[1-9])"


def checked(cases: Sequence[Case], controls: Mapping[str, Layer]) -> None:
    """Let sound cases pass.

    Raises:
        PlanError: one of them is not; the message names every problem of every case.
    """
    problems = [f"case '{case.id}': {problem}" for case in cases for problem in lint(case, controls)]
    if problems:
        raise PlanError("; ".join(problems))


def lint(case: Case, controls: Mapping[str, Layer]) -> tuple[str, ...]:
    """The problems of a case; `controls` are those of the stack, with their layers."""
    return (*_names(case, controls), *_power(case), *_proof(case), *(p for e in case.expect for p in _expectation(e)))


def _names(case: Case, controls: Mapping[str, Layer]) -> list[str]:
    problems = []
    if case.control.id not in controls:
        problems.append(f"unknown control '{case.control.id}'{nearest(case.control.id, controls)}")
    elif case.control.layer != controls[case.control.id]:
        problems.append(f"{case.control.id} is at layer {controls[case.control.id]}, got {case.control.layer}")
    try:
        check_plan(case.plan())
    except PlanError as error:
        problems.append(str(error))
    if "live" in case.modes and any(fault.channel == "model" for fault in case.faults):
        problems.append("a fault of the model acts in scripted mode only; a live agent brings its own model")
    return problems


def _power(case: Case) -> list[str]:
    """A live run that could not reach its bound even without a failure shows nothing."""
    if "live" not in case.modes:
        return []
    if case.stats is None:
        return ["mode live needs stats.live: how many runs, and which rate they must show"]
    live = case.stats.live
    if (reached := zero_event_upper_bound(live.n, live.level)) <= live.max_rate:
        return []
    needed = math.ceil(math.log1p(-live.level) / math.log1p(-live.max_rate))
    return [
        f"underpowered: {live.n} runs without a failure show a rate of at most {reached:.3g} at {live.level:g},"
        f" not {live.max_rate:g}; set stats.live.n to at least {needed}"
    ]


def _proof(case: Case) -> list[str]:
    if case.sabotage is None:
        return [f"no sabotage: add {{disable: {case.control.id}, must_become: BROKEN}}, the proof that the case can fail"]
    problems = []
    if case.sabotage.disable != case.control.id:
        problems.append(f"sabotage disables '{case.sabotage.disable}', which is not the case's control '{case.control.id}'")
    if "scripted" not in case.modes:
        problems.append("the sabotage run is scripted; add mode scripted")
    return problems


def _expectation(expectation: Expectation) -> list[str]:
    if expectation.expr is None:
        every = set(ADHERENCE) == set(expectation.adherence_in or ())
        return [f"'{expectation.id}' cannot fail: it accepts every adherence state"] if every else []
    problems = _expression(expectation.expr)
    return [f"'{expectation.id}': {problem}" for problem in problems]


@cache
def _expression(expr: str) -> tuple[str, ...]:
    """The problems of an expression; the same ones each time, so the trying is done once."""
    return tuple(_problems(expr))


def _problems(expr: str) -> list[str]:
    try:
        compiled(expr)
    except ValueError as error:
        return [f"not CEL: {str(error).splitlines()[0]}"]
    if unguarded := [name for name in _receivers(expr) if not re.search(_GUARD.format(re.escape(name)), expr)]:
        return [f"`.all()` is true of an empty list; add `{name}.size() >= 1 &&`" for name in unguarded]
    if re.search(r"!\s*has\(|has\([^)]*\)\s*(\|\||\?)|\|\|\s*has\(", expr):
        return ["`has()` may not turn what is missing into a pass; use it as `has(x.y) && ...`"]
    return _by_trying(expr)


def _receivers(expr: str) -> list[str]:
    """What each `.all(` stands behind."""
    found = []
    for match in re.finditer(r"\.all\(", expr):
        start, depth = match.start(), 0
        while start > 0 and (depth or re.match(r"[\w.)\]]", expr[start - 1])):
            start -= 1
            depth += (expr[start] in ")]") - (expr[start] in "([")
        found.append(expr[start : match.start()].strip())
    return found


def _by_trying(expr: str) -> list[str]:
    draw = random.Random(expr)
    empty = decide(expr, {"intent": {"tool": "t", "key": "k"}, **{name: [] for name in _ROWS}})
    if ".all(" in expr and empty.outcome == "held":
        return ["true of a world in which nothing happened"]
    errors, failed = set(), False
    for place in range(N_WORLDS):
        judged = decide(expr, _world(expr, draw))
        failed = failed or judged.outcome == "failed"
        errors.add(judged.why)
        if _NO_SUCH_NAME.match(judged.why):
            return [f"names what no world has: {judged.why}"]
        if failed and place >= N_FOR_NAMES:
            return []
    if "" not in errors:
        return [f"cannot be decided in any world: {min(errors)}"]
    return [] if failed else [f"cannot fail: it holds in {N_WORLDS} worlds that were drawn from its own words"]


def _world(expr: str, draw: random.Random) -> dict[str, JsonValue]:
    """A world whose texts and numbers are those of the expression, and some others."""
    words = [single or double for single, double in re.findall(r"'([^']*)'|\"([^\"]*)\"", expr)]
    numbers = [int(float(token)) for token in re.findall(r"(?<![\w'\"])\d+(?:\.\d+)?", expr)]
    near = sorted({0, 1, *(number + step for number in numbers for step in (-1, 0, 1))})
    texts = [*words, "k", "another", "", "x" * min(max(near), 1_000_000)]
    texts = draw.sample(texts, draw.randint(1, len(texts)))  # few words make things that agree with each other likely
    keys = re.findall(r"\.(?:detail|arguments)\.(\w+)", expr)

    def value(kind: object) -> JsonValue:
        if kind is bool:
            return draw.random() < 0.5
        if kind is str:
            return draw.choice(texts)
        if kind is int:
            return draw.choice(near)
        if float in (kind, *get_args(kind)):
            return float(draw.choice(near))
        return {key: draw.choice([*texts, *near]) for key in keys}

    def rows(name: str) -> list[JsonValue]:
        at_least = 1 if name in ("calls", "results") else 0
        fields = _ROWS[name].model_fields.items()
        return [{field: value(info.annotation) for field, info in fields} for _ in range(draw.randint(at_least, 3))]

    return {"intent": {"tool": draw.choice(texts), "key": draw.choice(texts)}, **{name: rows(name) for name in _ROWS}}
