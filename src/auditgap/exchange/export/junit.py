"""JUnit XML: the lines of a decision as test cases, which every CI system can show.

A case with no `failure`, `error` or `skipped` in it passed. `failure`: a measured breach, or a gap that nobody accepted.
`error`: it blocks and could not be decided. `skipped`: it does not block and was not met; readers do not count it as passed.
There is no official schema: these are the elements and attributes that Ant wrote and that Jenkins and GitLab read.
"""

import re
import xml.etree.ElementTree as ET

from auditgap.exchange.export.naming import TOOL, decided, iso, line
from auditgap.exchange.export.standing import standing
from auditgap.records import CriterionResult, Measured, NotMeasured
from auditgap.report import Audit
from auditgap.report.numbers import visible

__all__ = ["junit"]

_TAG = {"failed": "failure", "undecided": "error", "noted": "skipped"}
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold even when escaped."""


def junit(audit: Audit) -> str:
    """One test suite with one case per line of the decision.

    Raises:
        UsageError: no gate has decided on the subject.
    """
    decision, digest = decided(audit)
    where = [standing(c) for c in decision.criteria]
    counts = {"tests": len(where), "failures": where.count("failed"), "errors": where.count("undecided")}
    counted = {name: str(count) for name, count in counts.items()}
    suites = ET.Element("testsuites", {"name": TOOL, **counted})
    about = {
        "name": _attribute(f"release gate: {audit.subject.name}"),
        "skipped": str(where.count("noted")),
        "time": "0",
        "timestamp": iso(decision.decided_at).removesuffix("Z"),
    }
    suite = ET.SubElement(suites, "testsuite", {**about, **counted})
    stated = {
        "subject": audit.subject.digest(),
        "decision": digest,
        "outcome": decision.outcome,
        "policy": decision.policy,
        "ledger_root": audit.root,
        **{f"disclosed.{i}": text for i, text in enumerate(decision.disclosed, 1)},
    }
    properties = ET.SubElement(suite, "properties")
    for name, value in stated.items():
        ET.SubElement(properties, "property", name=name, value=_attribute(value))
    for c in decision.criteria:
        _case(suite, c)
    ET.indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'


def _case(suite: ET.Element, c: CriterionResult) -> None:
    case = ET.SubElement(suite, "testcase", name=_attribute(c.id), classname=_attribute(f"claim.{c.claim or 'policy'}"), time="0")
    tag = _TAG.get(standing(c))
    if tag:
        child = ET.SubElement(case, tag, message=_attribute(f"{c.status}: {c.reason}"))
        if tag != "skipped":
            child.set("type", c.status)
        child.text = _legal(f"{c.reason}\nResponse: {c.response}\nEvidence: {c.evidence or 'none'}\n")
    out = ET.SubElement(case, "system-out")
    out.text = _legal(_number(c))


def _number(c: CriterionResult) -> str:
    match c.measurement:
        case Measured() as m:
            interval = f"[{m.interval.low!r}, {m.interval.high!r}], {m.interval.level:.0%}, {m.interval.method}"
            return f"{m.name} = {m.value!r} {m.unit} ({interval}), n = {m.n}"
        case NotMeasured() as m:
            return f"{m.name} was not measured: {m.reason}"
    return c.reason


def _attribute(text: str) -> str:
    return _legal(line(text))


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", visible(text))
