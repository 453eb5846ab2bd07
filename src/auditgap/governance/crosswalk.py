"""Rule books with what each of their duties presupposes.

A framework file holds the text side (`rulebook`); its crosswalk of the same name holds, per duty, the presupposed claims, the
required access and where each cell was read, the evidence accepted and by which criteria. `framework(id)` joins the two.
Loading refuses what contradicts itself; what a draft still lacks is found by `crosscheck`.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from auditgap.errors import PlanError, UsageError, nearest
from auditgap.governance.document import by_id, parse
from auditgap.governance.failure_mode import Citation
from auditgap.governance.rulebook import Depth, FrameworkKind, Naming, Rulebook, StatedNumber
from auditgap.records import AXES, Access, Axis, Date, Pin, Reading, Record, Requirement

__all__ = [
    "Coverage",
    "Crosswalk",
    "EvidenceKind",
    "Framework",
    "Relationship",
    "Row",
    "edition",
    "framework",
    "frameworks",
    "join",
]

FOLDER = Path(__file__).parent

Relationship = Literal["equivalent-to", "equal-to", "subset-of", "superset-of", "intersects-with", "no-relationship"]
"""How the duty relates to the claims taken together: the relationships of the OSCAL mapping model. None says "satisfied"."""

Coverage = Literal["none", "some", "most", "all"]
"""How much of what the duty asks would be settled if every claim of the row were carried: our estimate, in words."""

EvidenceKind = Literal[
    "document", "process-check", "behavioural-test", "red-teaming", "uplift-study", "internals", "external-review"
]
"""What a reader of the duty would take as evidence."""

_SETTLES: dict[Relationship, tuple[Coverage, ...]] = {
    "equal-to": ("all",),
    "equivalent-to": ("all",),
    "subset-of": ("all",),
    "superset-of": ("some", "most"),
    "intersects-with": ("some", "most"),
    "no-relationship": ("none",),
}


class Row(Record):
    """What one duty presupposes: a row of a crosswalk."""

    duty: str
    claims: tuple[str, ...]
    no_hook: str | None = None
    """Why no claim is presupposed; required if there is none, refused if there is one."""
    relationship: Relationship | None = None
    coverage: Coverage | None = None
    rationale: Literal["syntactic", "semantic", "functional"] = "semantic"
    confidence: Literal["low", "medium", "high"] | None = None
    required: Access
    """Least access to check the duty itself; `{}` says none. What the claims need is joined in when they are assessed."""
    pins: dict[Axis, Pin] = Field(default_factory=dict)
    evidence: dict[EvidenceKind, Reading] = Field(default_factory=dict)
    """Evidence accepted, and whether the text says so."""
    accepts: tuple[str, ...] = ()
    """Ids of acceptance criteria, at least one per claim."""
    note: str | None = None
    status: Literal["draft", "reviewed"] = "draft"
    reviewer: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.claims) == bool(self.no_hook):
            raise ValueError(f"duty '{self.duty}': expected claims, or no_hook with a reason, and not both")
        if self.claims and (self.relationship is None or self.confidence is None):
            raise ValueError(f"duty '{self.duty}': a row with claims owes relationship and confidence")
        if self.claims and self.relationship == "no-relationship":
            raise ValueError(f"duty '{self.duty}': claims without a relationship to it; give no_hook with the reason instead")
        if self.relationship and self.coverage and self.coverage not in _SETTLES[self.relationship]:
            fitting = " or ".join(_SETTLES[self.relationship])
            raise ValueError(f"duty '{self.duty}': {self.relationship} goes with coverage {fitting}, got {self.coverage}")
        raised = self.raised()
        if self.claims and not raised:
            raise ValueError(f"duty '{self.duty}' presupposes claims and requires no access; say what checking it needs")
        if unpinned := [axis for axis in raised if axis not in self.pins]:
            raise ValueError(f"duty '{self.duty}': required access without a pin on {', '.join(unpinned)}; say where it was read")
        if self.status == "reviewed" and not self.reviewer:
            raise ValueError(f"duty '{self.duty}' is reviewed by nobody; name the reviewer or leave it a draft")
        return self

    def raised(self) -> list[Axis]:
        """The axes on which more than nothing is required."""
        return [axis for axis in AXES if self.required.rank(axis) > Access().rank(axis)]


class Crosswalk(Record):
    """A crosswalk file."""

    framework: str
    edition: str
    sources: tuple[Citation, ...] = Field(min_length=1)
    review_date: Date
    rows: tuple[Row, ...] = Field(min_length=1)


class Framework(Record):
    """One rule book with its crosswalk."""

    id: str
    title: str
    issuer: str
    edition: str
    kind: FrameworkKind | None
    depth: Depth
    dated: Date | None
    applies_to: str | None
    sources: tuple[Citation, ...]
    review_date: Date
    """The earlier of the two files': after it, look again."""
    numbers: tuple[StatedNumber, ...]
    names: tuple[Naming, ...]
    requirements: tuple[Requirement, ...]
    rows: tuple[Row, ...]
    """The crosswalk rows, in the order of the requirements: relationship, confidence, or why there is no hook."""


def frameworks() -> dict[str, Framework]:
    """Every shipped framework by id, each in its current edition.

    Raises:
        PlanError: a file is malformed, or a duty has no row.
    """
    return dict(_shipped())


@cache
def _shipped() -> dict[str, Framework]:
    return by_id(FOLDER / "frameworks", _joined(sorted((FOLDER / "frameworks").glob("*.yaml"))))


@cache
def _earlier() -> dict[str, Framework]:
    """Earlier editions as `id@edition`, kept to be compared with."""
    return {f"{f.id}@{f.edition}": f for f in _joined(sorted((FOLDER / "frameworks" / "earlier").glob("*.yaml")))}


def _joined(paths: Iterable[Path]) -> Iterable[Framework]:
    return (join(path, FOLDER / "crosswalks" / path.relative_to(FOLDER / "frameworks")) for path in paths)


def framework(framework_id: str) -> Framework:
    """The framework of that id.

    Raises:
        UsageError: there is none; the message gives the nearest id.
    """
    known = frameworks()
    if framework_id not in known:
        raise UsageError(f"no framework '{framework_id}'{nearest(framework_id, known)}")
    return known[framework_id]


def edition(name: str) -> Framework:
    """A framework by id (its current edition), by `id@edition`, or by the path of a file frameworks/NAME.yaml of one's own.

    Raises:
        UsageError: there is none; the message gives the nearest name.
        PlanError: the file, or the crosswalk of the same name beside its folder, is malformed.
    """
    if name.endswith(".yaml"):
        return join(Path(name), Path(name).parent.parent / "crosswalks" / Path(name).name)
    known = _earlier() | {f"{f.id}@{f.edition}": f for f in frameworks().values()} | frameworks()
    if name not in known:
        raise UsageError(f"no framework or edition '{name}'{nearest(name, known)}")
    return known[name]


def join(framework_path: Path, crosswalk_path: Path) -> Framework:
    """A framework file with its crosswalk; a framework that is listed by name only has no duty and needs no crosswalk.

    Raises:
        PlanError: a file is malformed, the two are of different frameworks or editions, or duties and rows do not match.
    """
    text = parse(framework_path, Rulebook)
    if not text.duties and not crosswalk_path.exists():
        return _framework(text, {}, text.review_date)
    crosswalk = parse(crosswalk_path, Crosswalk)
    if (text.id, text.edition) != (crosswalk.framework, crosswalk.edition):
        raise PlanError(
            f"{crosswalk_path}: expected the crosswalk of {text.id} edition {text.edition}, "
            f"got {crosswalk.framework} edition {crosswalk.edition}"
        )
    duties, rows = by_id(framework_path, text.duties), {row.duty: row for row in crosswalk.rows}
    if len(rows) < len(crosswalk.rows):
        repeated = sorted({row.duty for row in crosswalk.rows if [r.duty for r in crosswalk.rows].count(row.duty) > 1})
        raise PlanError(f"{crosswalk_path}: two rows for {', '.join(repeated)}; keep one")
    for duty in rows:
        if duty not in duties:
            raise PlanError(f"{crosswalk_path}: a row for the unknown duty '{duty}'{nearest(duty, duties)}")
    if missing := [duty for duty in duties if duty not in rows]:
        raise PlanError(f"{crosswalk_path}: no row for {', '.join(missing)}; add claims, or no_hook with the reason")
    return _framework(text, rows, min(text.review_date, crosswalk.review_date))


def _framework(text: Rulebook, rows: dict[str, Row], review_date: Date) -> Framework:
    requirements = tuple(
        Requirement(
            id=duty.id,
            framework=text.id,
            edition=text.edition,
            title=duty.title,
            text_ref=duty.text_ref,
            effective_from=duty.effective_from or text.effective_from,
            effective_to=duty.effective_to or text.effective_to,
            claims=rows[duty.id].claims,
            required=rows[duty.id].required,
            pins=rows[duty.id].pins,
            verified=duty.verified,
            status=rows[duty.id].status,
        )
        for duty in text.duties
    )
    return Framework(
        id=text.id,
        title=text.title,
        issuer=text.issuer,
        edition=text.edition,
        kind=text.kind,
        depth=text.depth,
        dated=text.dated,
        applies_to=text.applies_to,
        sources=text.sources,
        review_date=review_date,
        numbers=text.numbers,
        names=text.names,
        requirements=requirements,
        rows=tuple(rows[duty.id] for duty in text.duties),
    )
