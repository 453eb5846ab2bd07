"""Risks: one per fragile reason and per structural gap; one that a named person accepted is `deviation-approved`."""

from collections.abc import Iterator
from typing import NamedTuple

from auditgap.exchange.export.naming import Json, line, uuid_of
from auditgap.exchange.export.oscal.base import prop
from auditgap.records import Assessment, Digest
from auditgap.report import Audit
from auditgap.report.words import AXIS, fragility, level

__all__ = ["Risk", "risk_entry", "risks", "risks_of"]


class Risk(NamedTuple):
    """One weakness of one assessment."""

    assessment: Digest
    claim: str | None
    code: str
    title: str
    statement: str
    accepted: str | None
    """Who accepted it until when; None if nobody did."""

    @property
    def uuid(self) -> str:
        """Of the assessment, the code and what was found."""
        return uuid_of("risk", self.assessment, self.code, self.statement)


def risks(audit: Audit) -> list[Risk]:
    """Every weakness of an audit, once."""
    found = [risk for digest, a in audit.assessments for risk in risks_of(audit, digest, a)]
    return list({risk.uuid: risk for risk in found}.values())


def risks_of(audit: Audit, digest: Digest, a: Assessment) -> Iterator[Risk]:
    """The weaknesses of one assessment."""
    for reason in a.fragile:
        waiver = _waiver(audit, f"claim:{a.claim}: {reason.code}: {reason.detail}. Accepted by ")
        yield Risk(digest, a.claim, reason.code, fragility(reason.code), reason.detail, waiver)
    for gap in a.gaps:
        if gap.structural:
            need, can = level(gap.axis, a.required), level(gap.axis, a.achievable)
            statement = f"{need} is needed, {can} is the most that can be had today."
            yield Risk(digest, a.claim, f"structural-gap-{gap.axis}", f"Structural gap: {AXIS[gap.axis]}", statement, None)


def _waiver(audit: Audit, prefix: str) -> str | None:
    """Who accepted a reason until when, in the decision's own words."""
    disclosed = audit.decision.disclosed if audit.decision else ()
    return next((f"Accepted by {text.removeprefix(prefix)}" for text in disclosed if text.startswith(prefix)), None)


def risk_entry(risk: Risk) -> dict[str, Json]:
    """A weakness as an OSCAL risk."""
    return {
        "uuid": risk.uuid,
        "title": line(risk.title),
        "description": line(risk.statement),
        "statement": line(risk.title),
        "props": [prop("code", risk.code), prop("assessment", risk.assessment)],
        "status": "deviation-approved" if risk.accepted else "open",
        **({"mitigating-factors": [_factor(risk)]} if risk.accepted else {}),
    }


def _factor(risk: Risk) -> dict[str, Json]:
    return {"uuid": uuid_of("waiver", risk.uuid), "description": line(risk.accepted or "-")}
