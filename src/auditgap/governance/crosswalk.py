"""Rule books: their duties, and what each duty presupposes.

A framework file holds ids, titles, editions and dates; its crosswalk of the same name holds, per duty, the presupposed claims,
the required access and where each cell was read. `framework(id)` joins the two.
"""

from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from auditgap.errors import PlanError, UsageError, nearest
from auditgap.governance.document import by_id, parse
from auditgap.governance.failure_mode import Citation
from auditgap.records import AXES, Access, Axis, Date, Pin, Record, Requirement, Verified

__all__ = ["Framework", "Row", "framework", "frameworks", "join"]

FOLDER = Path(__file__).parent

Relationship = Literal["equivalent-to", "equal-to", "subset-of", "superset-of", "intersects-with"]
"""How the duty relates to the claims taken together: the relationships of the OSCAL mapping model."""


class Row(Record):
    """What one duty presupposes: a row of a crosswalk."""

    duty: str
    claims: tuple[str, ...]
    no_hook: str | None = None
    """Why no claim is presupposed; required if there is none, refused if there is one."""
    relationship: Relationship | None = None
    rationale: Literal["syntactic", "semantic", "functional"] = "semantic"
    confidence: Literal["low", "medium", "high"] | None = None
    required: Access
    """Least access to check the duty itself; `{}` says none. What the claims need is joined in when they are assessed."""
    pins: dict[Axis, Pin] = Field(default_factory=dict)
    status: Literal["draft", "reviewed"] = "draft"
    reviewer: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.claims) == bool(self.no_hook):
            raise ValueError(f"duty '{self.duty}': expected claims, or no_hook with a reason, and not both")
        if self.claims and (self.relationship is None or self.confidence is None):
            raise ValueError(f"duty '{self.duty}': a row with claims owes relationship and confidence")
        floor = Access()
        raised = [axis for axis in AXES if self.required.rank(axis) > floor.rank(axis)]
        if self.claims and not raised:
            raise ValueError(f"duty '{self.duty}' presupposes claims and requires no access; say what checking it needs")
        if unpinned := [axis for axis in raised if axis not in self.pins]:
            raise ValueError(f"duty '{self.duty}': required access without a pin on {', '.join(unpinned)}; say where it was read")
        if self.status == "reviewed" and not self.reviewer:
            raise ValueError(f"duty '{self.duty}' is reviewed by nobody; name the reviewer or leave it a draft")
        return self


class _Duty(Record):
    id: str
    title: str
    text_ref: str
    verified: Verified
    effective_from: Date | None = None
    effective_to: Date | None = None


class _FrameworkFile(Record):
    id: str
    title: str
    issuer: str
    edition: str
    effective_from: Date | None = None
    """Of every duty that gives no date of its own."""
    sources: tuple[Citation, ...] = Field(min_length=1)
    review_date: Date
    duties: tuple[_Duty, ...] = Field(min_length=1)


class _CrosswalkFile(Record):
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
    sources: tuple[Citation, ...]
    review_date: Date
    """The earlier of the two files': after it, look again."""
    requirements: tuple[Requirement, ...]
    rows: tuple[Row, ...]
    """The crosswalk rows, in the order of the requirements: relationship, confidence, or why there is no hook."""


def frameworks() -> dict[str, Framework]:
    """Every shipped framework by id.

    Raises:
        PlanError: a file is malformed, or a duty has no row.
    """
    return dict(_shipped())


@cache
def _shipped() -> dict[str, Framework]:
    paths = sorted((FOLDER / "frameworks").glob("*.yaml"))
    return by_id(FOLDER / "frameworks", (join(path, FOLDER / "crosswalks" / path.name) for path in paths))


def framework(framework_id: str) -> Framework:
    """The framework of that id.

    Raises:
        UsageError: there is none; the message gives the nearest id.
    """
    known = frameworks()
    if framework_id not in known:
        raise UsageError(f"no framework '{framework_id}'{nearest(framework_id, known)}")
    return known[framework_id]


def join(framework_path: Path, crosswalk_path: Path) -> Framework:
    """A framework file with its crosswalk.

    Raises:
        PlanError: a file is malformed, the two are of different frameworks or editions, or duties and rows do not match.
    """
    text, crosswalk = parse(framework_path, _FrameworkFile), parse(crosswalk_path, _CrosswalkFile)
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
    requirements = tuple(
        Requirement(
            id=duty.id,
            framework=text.id,
            edition=text.edition,
            title=duty.title,
            text_ref=duty.text_ref,
            effective_from=duty.effective_from or text.effective_from,
            effective_to=duty.effective_to,
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
        sources=text.sources,
        review_date=min(text.review_date, crosswalk.review_date),
        requirements=requirements,
        rows=tuple(rows[duty.id] for duty in text.duties),
    )
