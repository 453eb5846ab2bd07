"""CycloneDX 1.7: the model as a machine-learning component with its card, and what is claimed of it under which duty.

`metadata.component` is the subject with its files; `modelCard` lists measured numbers with their intervals, and as limitations
what was not measured, what failed its controls and what the instruments cannot see. `declarations` map each assessed requirement
to its claim: one that the evidence speaks for is a claim, a defeated one a counter-claim, any other is neither. No conformance
score is given: a gap has axes, and one number would hide them.
Source: CycloneDX 1.7, https://cyclonedx.org/docs/1.7/json/.
"""

from collections.abc import Iterator

from auditgap.exchange.export.naming import TOOL, Json, hex_of, iso, latest, line, shown, tool_version, uri, uuid_of
from auditgap.exchange.export.standing import relied_on
from auditgap.records import Assessment, Digest, Evidence, FileDigest, Independence, Measured
from auditgap.report import Audit
from auditgap.report.outline import RequirementRow, framework_rows, non_claims
from auditgap.report.words import SUPPORT, TIER

__all__ = ["cyclonedx"]


def cyclonedx(audit: Audit) -> dict[str, Json]:
    """A bill of materials of one subject, with declarations if anything was assessed.

    Raises:
        UsageError: there is neither a decision nor evidence.
    """
    moment, subject = latest(audit), audit.subject
    document: dict[str, Json] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": f"urn:uuid:{uuid_of('cyclonedx', subject.digest(), audit.root, iso(moment))}",
        "version": 1,
        "metadata": {
            "timestamp": iso(moment),
            "tools": {"components": [{"type": "application", "name": TOOL, "version": tool_version()}]},
            "component": _model(audit),
        },
        "components": [_file(file) for file in _files(audit)],
        "dependencies": [{"ref": subject.digest(), "dependsOn": [_ref("file", file.path) for file in _files(audit)]}],
    }
    if frameworks := framework_rows(audit):
        document["definitions"] = {
            "standards": [
                {
                    "bom-ref": _ref("standard", f"{framework.name} {framework.edition}"),
                    "name": framework.name,
                    "version": framework.edition,
                    "requirements": list({row.id: _requirement(row) for row in framework.rows}.values()),
                }
                for framework in frameworks
            ]
        }
    if audit.assessments:
        document["declarations"] = _declarations(audit)
    return shown(document)


def _model(audit: Audit) -> Json:
    subject = audit.subject
    stated = {
        "subject": subject.digest(),
        "dtype": subject.dtype,
        "parameters": str(subject.n_parameters),
        "ledgerRoot": audit.root,
    }
    if audit.decision and audit.decision_digest:
        stated |= {"outcome": audit.decision.outcome, "policy": audit.decision.policy, "decision": audit.decision_digest}
    return {
        "type": "machine-learning-model",
        "bom-ref": subject.digest(),
        "name": line(subject.name),
        "version": subject.revision or hex_of(subject.digest())[:16],
        "modelCard": {
            "modelParameters": {"modelArchitecture": line(subject.architecture)},
            "quantitativeAnalysis": {"performanceMetrics": list(_metrics(audit))},
            "considerations": {"technicalLimitations": list(_limitations(audit))},
        },
        "properties": [{"name": f"{TOOL}:{name}", "value": value} for name, value in stated.items()],
    }


def _metrics(audit: Audit) -> Iterator[Json]:
    """Numbers only, and none that may not be relied on."""
    for _, evidence in audit.evidence:
        if not relied_on(audit, evidence):
            continue
        for m in evidence.result.measurements:
            if isinstance(m, Measured):
                interval: Json = {"lowerBound": repr(m.interval.low), "upperBound": repr(m.interval.high)}
                kind = f"{m.name} ({m.unit}; n = {m.n}; {m.interval.level:.0%}, {m.interval.method})"
                yield {"type": kind, "value": repr(m.value), "slice": evidence.step, "confidenceInterval": interval}


def _limitations(audit: Audit) -> Iterator[Json]:
    for _, evidence in audit.evidence:
        if not relied_on(audit, evidence):
            yield f"{evidence.step}: a control failed or it is about another subject; its numbers may not be relied on."
        for m in evidence.result.measurements:
            if not isinstance(m, Measured):
                yield f"{evidence.step}: {m.name} was not measured: {m.reason}"
    for instrument, spots in non_claims(audit).items():
        yield from (f"{instrument}: {spot}" for spot in spots)
    yield from audit.decision.disclosed if audit.decision else ()


def _files(audit: Audit) -> tuple[FileDigest, ...]:
    subject = audit.subject
    return tuple({file.path: file for file in (*subject.weights, *subject.tokenizer, *subject.adapter)}.values())


def _file(file: FileDigest) -> Json:
    return {
        "type": "file",
        "bom-ref": _ref("file", file.path),
        "name": file.path,
        "hashes": [{"alg": "SHA-256", "content": hex_of(file.content)}],
    }


def _requirement(row: RequirementRow) -> Json:
    known = row.requirement
    title: dict[str, Json] = {"title": line(f"{known.text_ref}: {known.title}")} if known else {}
    return {"bom-ref": _ref("requirement", row.id), "identifier": row.id, **title}


def _declarations(audit: Audit) -> Json:
    claims = [(digest, a) for digest, a in audit.assessments if a.claim is not None]
    whose = {_assessor(e): e for _, e in audit.evidence}
    kept = dict(audit.evidence)
    return {
        "assessors": [{"bom-ref": name, "thirdParty": _third_party(e)} for name, e in sorted(whose.items())],
        "attestations": [
            {
                "summary": f"{framework.name} {framework.edition}: {len(framework.rows)} assessments",
                **({"assessor": sorted(whose)[0]} if len(whose) == 1 else {}),
                "map": [_mapped(row) for row in framework.rows],
            }
            for framework in framework_rows(audit)
        ],
        "claims": [_claim(audit, digest, a, kept) for digest, a in claims],
        "evidence": [_evidence(digest, e) for digest, e in audit.evidence],
        "targets": {"components": [{"type": "machine-learning-model", "name": line(audit.subject.name), "bom-ref": "target"}]},
    }


def _mapped(row: RequirementRow) -> Json:
    a = row.assessment
    said = {"supported": "claims", "partially-supported": "claims", "defeated": "counterClaims"}.get(a.support)
    speaks: dict[str, Json] = {said: [_ref("claim", row.digest)]} if said and a.claim else {}
    return {"requirement": _ref("requirement", row.id), **speaks, "conformance": {"rationale": _rationale(a)}}


def _rationale(a: Assessment) -> str:
    gaps = [f"{g.axis}: {g.execution} open, {g.structural} out of reach" for g in a.gaps]
    said = f"{SUPPORT[a.support].label}: {SUPPORT[a.support].meaning} Tier {a.tier} of 5, {TIER[a.tier].label}."
    return f"{said} Gaps: {'; '.join(gaps) or 'none'}. Fragile: {', '.join(r.code for r in a.fragile) or 'no'}. Power: {a.power}"


def _claim(audit: Audit, digest: Digest, a: Assessment, kept: dict[Digest, Evidence]) -> Json:
    known = audit.claims.get(a.claim or "")
    refs = [_ref("evidence", cited) for cited in a.evidence if cited in kept]
    against = a.support == "defeated"
    return {
        "bom-ref": _ref("claim", digest),
        "target": "target",
        "predicate": line(known.statement if known else a.claim or "-"),
        "reasoning": _rationale(a),
        **({"counterEvidence" if against else "evidence": refs} if refs else {}),
    }


def _evidence(digest: Digest, e: Evidence) -> Json:
    return {
        "bom-ref": _ref("evidence", digest),
        "propertyName": f"{TOOL}:{e.instrument}",
        "description": line(f"{e.result.verdict}: {e.result.summary}"),
        "data": [{"name": "signed statement", "contents": {"url": uri("statement", digest)}}],
        "created": iso(e.finished_at),
        "expires": f"{e.expires:%Y-%m-%d}T23:59:59Z",
    }


def _assessor(e: Evidence) -> str:
    return f"assessor-{e.granted.independence}"


def _third_party(e: Evidence) -> bool:
    return e.granted.independence in (Independence.CONTRACTED, Independence.EXTERNAL)


def _ref(kind: str, name: str) -> str:
    return f"{kind}:{uuid_of(kind, name)}"
