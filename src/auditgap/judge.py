"""From stored evidence to assessments, a decision and a report. Needs no torch: an auditor runs it on a laptop.

1. Take the evidence of one subject, each with its registration and the key that signed it.
2. Assess every claim, and every requirement of the frameworks asked, on that evidence.
3. Decide by the policy; sign the assessments with the evaluation key and the decision with the gate key.
4. Render what the ledger holds.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from auditgap import governance
from auditgap.deciding import decide, exit_code
from auditgap.errors import UsageError, nearest
from auditgap.evidence import Store, Stored
from auditgap.governance import Judged
from auditgap.plan import LoadedPlan
from auditgap.policy import Policy, load_policy
from auditgap.records import Assessment, Decision, Digest, Evidence, Subject, now
from auditgap.report import Audit, render_html, render_markdown

__all__ = ["Outcome", "assess", "check", "choose_subject", "conclude", "gap", "gate", "renewals", "to_do", "view", "write_report"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """A decision with everything it rests on."""

    subject: Subject
    decision: Decision
    decision_digest: Digest
    assessments: list[tuple[Digest, Assessment]]
    evidence: list[tuple[Digest, Evidence]]
    audit: Audit

    @property
    def exit_code(self) -> int:
        """0 pass, 1 blocked by a measured reason, 3 nothing measured speaks for or against."""
        return exit_code(self.decision)

    def document(self) -> dict[str, JsonValue]:
        """Plain JSON of the whole outcome."""
        return {
            "subject": self.subject.model_dump(mode="json") | {"digest": self.subject.digest()},
            "decision": self.decision.model_dump(mode="json") | {"digest": self.decision_digest},
            "assessments": [{"digest": d, **a.model_dump(mode="json")} for d, a in self.assessments],
            "evidence": [{"digest": d, **e.model_dump(mode="json")} for d, e in self.evidence],
        }

    def _repr_html_(self) -> str:
        return render_html(self.audit)


def gap(
    store: str | Path, *, frameworks: Sequence[str] = (), claims: Sequence[str] = (), subject: str | None = None
) -> list[Assessment]:
    """The gap of each claim and each framework's requirements, from a store; nothing is written.

    With neither claims nor frameworks named, every known claim is assessed.
    """
    with Store.open(store, create=False) as opened:
        chosen = choose_subject(opened, subject)
        return assess(opened, chosen, claims=claims or (() if frameworks else tuple(governance.claims())), frameworks=frameworks)


def to_do(assessment: Assessment, licences: governance.Licences | None = None) -> tuple[governance.NextStep, ...]:
    """What closes each gap of an assessment, in words; by the shipped claims and what a third party can obtain today."""
    claim = governance.claims().get(assessment.claim) if assessment.claim else None
    table = licences or governance.licences_for(())
    return governance.next_steps(assessment, claim, table, obtainable=governance.obtainable().access)


def gate(store: str | Path, policy: str | Path, *, subject: str | None = None) -> Outcome:
    """Decide on a subject of a store by a policy file, and sign the decision into the ledger."""
    loaded = load_policy(Path(policy))
    with Store.open(store, create=False) as opened:
        return _decide(opened, loaded, choose_subject(opened, subject), frameworks=())


def conclude(store: Store, loaded: LoadedPlan, subject: Subject) -> Outcome:
    """The end of an audit: assess the plan's claims and frameworks, decide by its policy."""
    return _decide(store, loaded.policy, subject, claims=loaded.plan.claims, frameworks=loaded.plan.frameworks)


def assess(store: Store, subject: Subject, *, claims: Sequence[str], frameworks: Sequence[str]) -> list[Assessment]:
    """One assessment per claim, then one per requirement and presupposed claim of each framework."""
    check(claims=claims, frameworks=frameworks)
    known, today, judged = governance.claims(), now().date(), _judged(store, subject)
    licences = governance.licences_for(judged)
    found = [
        governance.assess_claim(known[c], judged, licences, subject=subject.digest(), today=today) for c in dict.fromkeys(claims)
    ]
    for framework_id in frameworks:
        for requirement in governance.framework(framework_id).requirements:
            found += governance.assess_requirement(requirement, known, judged, licences, subject=subject.digest(), today=today)
    return found


def renewals(store: str | Path, *, subject: str | None = None) -> tuple[str, ...]:
    """What to run because the power of an instrument was measured with another version than the subject's evidence."""
    with Store.open(store, create=False) as opened:
        versions = {e.record.instrument: e.record.version for e in _evidence(opened, choose_subject(opened, subject))}
    return governance.outdated(governance.shipped_calibration(), versions)


def check(*, claims: Sequence[str], frameworks: Sequence[str]) -> None:
    """Raise a UsageError for a claim or framework that does not exist (with the nearest name), or that has no duty to assess."""
    for kind, names, known in (("claim", claims, governance.claims()), ("framework", frameworks, governance.frameworks())):
        for name in names:
            if name not in known:
                raise UsageError(f"no {kind} '{name}'{nearest(name, known)}")
    for name in frameworks:
        if not governance.framework(name).requirements:
            raise UsageError(f"'{name}' is listed by name only and has no duties to assess; see 'auditgap frameworks list'")


def view(store: Store, subject: Subject, *, generated_at: dt.datetime | None = None) -> Audit:
    """What a report on this subject shows: the newest decision and the assessments that it names."""
    digest = subject.digest()
    decisions = [s for s in store.decisions() if s.record.subject == digest]
    decision = decisions[-1] if decisions else None
    named = set(decision.record.assessments) if decision else set()
    requirements = {r.id: r for f in governance.frameworks().values() for r in f.requirements}
    return Audit(
        subject=subject,
        decision=decision.record if decision else None,
        decision_digest=decision.digest if decision else None,
        assessments=[(s.digest, s.record) for s in store.assessments() if s.digest in named],
        evidence=[(s.digest, s.record) for s in _evidence(store, subject)],
        registrations={s.digest: s.record for s in store.registrations()},
        claims=governance.claims(),
        requirements=requirements,
        root=store.root(),
        n_statements=len(store),
        generated_at=generated_at or now(),
        calibration=governance.shipped_calibration(),
    )


def write_report(store: str | Path, subject: str | None, out: str | Path | None) -> Path:
    """Render the report of a subject to `out` (.html or .md) and return its path."""
    with Store.open(store, create=False) as opened:
        chosen = choose_subject(opened, subject)
        audit = view(opened, chosen)
        path = Path(out) if out else opened.folder / f"report-{chosen.name}.html"
    render = {".html": render_html, ".md": render_markdown}.get(path.suffix)
    if render is None:
        raise UsageError(f"a report is written as .html or .md, got '{path.name}'")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(audit), encoding="utf-8")
    return path


def _decide(store: Store, policy: Policy, subject: Subject, *, claims: Sequence[str] = (), frameworks: Sequence[str]) -> Outcome:
    gating = tuple(dict.fromkeys((*policy.gating(), *claims)))
    assessed = [(store.add_assessment(a), a) for a in assess(store, subject, claims=gating, frameworks=frameworks)]
    decision = decide(policy, _judged(store, subject), assessed, subject=subject.digest(), now=now())
    digest = store.add_decision(decision)
    evidence = [(s.digest, s.record) for s in _evidence(store, subject)]
    return Outcome(subject, decision, digest, assessed, evidence, view(store, subject))


def _evidence(store: Store, subject: Subject) -> list[Stored[Evidence]]:
    return [s for s in store.evidence() if s.record.subject.digest() == subject.digest()]


def _judged(store: Store, subject: Subject) -> list[Judged]:
    registrations = {s.digest: s.record for s in store.registrations()}
    return [Judged(s.digest, s.record, registrations[s.record.registration], s.keyid) for s in _evidence(store, subject)]


def choose_subject(store: Store, prefix: str | None) -> Subject:
    """The only subject of the store, or the one whose digest starts with `prefix`."""
    subjects = {s.record.subject.digest(): s.record.subject for s in store.evidence()}
    chosen = {
        d: s
        for d, s in subjects.items()
        if prefix is None or d.removeprefix("sha256:").startswith(prefix.removeprefix("sha256:"))
    }
    if len(chosen) != 1:
        listed = ", ".join(f"{s.name} {d[:19]}" for d, s in sorted(subjects.items())) or "none"
        asked = "one subject" if prefix is None else f"one subject starting with '{prefix}'"
        raise UsageError(f"expected {asked} in the store, found {len(chosen)} (all: {listed}); choose one with --subject")
    return next(iter(chosen.values()))
