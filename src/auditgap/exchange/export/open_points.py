"""Gaps and weaknesses gathered into points that someone can act on: rule books repeat one gap over many duties."""

from typing import Literal, NamedTuple

from auditgap.records import AXES, Assessment, Axis, Digest
from auditgap.report import Audit
from auditgap.report.words import level

__all__ = ["FragilePoint", "GapPoint", "fragile_points", "gap_points", "name_of"]


class GapPoint(NamedTuple):
    """The gap on one axis over everything that was assessed."""

    axis: Axis
    kind: Literal["execution", "structural"]
    n_steps: int
    """The most steps that are missing anywhere."""
    widest: Assessment
    digest: Digest
    """Of the statement with the widest gap."""
    on: tuple[str, ...]
    """Names of all requirements and claims with this gap."""

    def said(self) -> str:
        """The widest gap in words, then where else it is."""
        need, had, can = (level(self.axis, a) for a in (self.widest.required, self.widest.achieved, self.widest.achievable))
        widest = f"Widest on {name_of(self.widest)}: needs {need}; had {had}; obtainable {can}."
        return f"{widest} Open on {len(self.on)}: {', '.join(self.on)}."


class FragilePoint(NamedTuple):
    """One reason why assurance on one claim is fragile, over all requirements that presuppose the claim."""

    code: str
    claim: str | None
    details: tuple[str, ...]
    digests: tuple[Digest, ...]
    """Of the assessments that give it."""


def gap_points(audit: Audit) -> list[GapPoint]:
    """One point per axis and kind of gap, in the order of the axes."""
    points = []
    for axis in AXES:
        for kind in ("execution", "structural"):
            found = [(getattr(gap, kind), digest, a) for digest, a in audit.assessments for gap in a.gaps if gap.axis == axis]
            missing = [item for item in found if item[0]]
            if missing:
                n_steps, digest, widest = max(missing, key=lambda item: item[0])
                names = tuple(dict.fromkeys(name_of(a) for _, _, a in missing))
                points.append(GapPoint(axis, kind, n_steps, widest, digest, names))
    return points


def fragile_points(audit: Audit) -> list[FragilePoint]:
    """One point per code and claim, in the order of the assessments."""
    found: dict[tuple[str, str | None], list[tuple[str, Digest]]] = {}
    for digest, a in audit.assessments:
        for reason in a.fragile:
            found.setdefault((reason.code, a.claim), []).append((reason.detail, digest))
    return [
        FragilePoint(code, claim, tuple(dict.fromkeys(d for d, _ in given)), tuple(dict.fromkeys(digest for _, digest in given)))
        for (code, claim), given in found.items()
    ]


def name_of(assessment: Assessment) -> str:
    """`requirement (claim)`, or the one of them that there is."""
    if assessment.requirement and assessment.claim:
        return f"{assessment.requirement} ({assessment.claim})"
    return assessment.requirement or assessment.claim or "an unnamed requirement"
