"""Component definition and assessment plan: the instruments, and what was registered before it was measured."""

from auditgap.exchange.export.naming import Json, decided, iso, line, uuid_of
from auditgap.exchange.export.oscal.base import (
    control_of,
    document,
    file_name,
    prop,
    reviewed_controls,
    subject_component,
    subject_uuid,
)
from auditgap.records import Card, Digest, Registration, Threshold
from auditgap.report import Audit

__all__ = ["assessment_plan", "component_definition"]


def component_definition(audit: Audit) -> dict[str, Json]:
    """The instruments of an audit as validation components, each with the controls on which its evidence bears.

    Raises:
        UsageError: no gate has decided on the subject.
    """
    cards = {(r.card.name, r.card.version): r.card for _, r in _registered(audit)}
    components: list[Json] = [_component(audit, card) for _, card in sorted(cards.items())]
    body: dict[str, Json] = {"components": components} if components else {}
    return document(audit, "component-definition", f"Instruments used on {audit.subject.name}", body)


def assessment_plan(audit: Audit) -> dict[str, Json]:
    """What was registered on this subject: one activity and one task per registration, its bars as steps.

    Raises:
        UsageError: no gate has decided on the subject.
    """
    registered = _registered(audit)
    system = uuid_of("system", audit.subject.digest())
    local: dict[str, Json] = {"components": [subject_component(audit)]}
    body: dict[str, Json] = {"import-ssp": {"href": f"#{system}"}, "local-definitions": local}
    body |= {"reviewed-controls": reviewed_controls(audit), "assessment-subjects": [_subject(audit)]}
    if registered:
        local["activities"] = [_activity(digest, r) for digest, r in registered]
        body["tasks"] = [_task(audit, digest, r) for digest, r in registered]
    description = "There is no system security plan: the subject is one model, pinned by its digest."
    body["back-matter"] = {"resources": [{"uuid": system, "title": line(audit.subject.name), "description": description}]}
    return document(audit, "assessment-plan", f"Registered plan for {audit.subject.name}", body)


def _registered(audit: Audit) -> list[tuple[Digest, Registration]]:
    decided(audit)
    return [(digest, r) for digest, r in audit.registrations.items() if r.subject == audit.subject.digest()]


def _component(audit: Audit, card: Card) -> dict[str, Json]:
    digests = {digest for digest, e in audit.evidence if (e.instrument, e.version) == (card.name, card.version)}
    bears = {control_of(audit, a): a for _, a in audit.assessments if digests & set(a.evidence)}
    component: dict[str, Json] = {
        "uuid": uuid_of("instrument", card.digest()),
        "type": "validation",
        "title": line(f"{card.name} {card.version}"),
        "description": line(card.hypothesis),
        "purpose": "Measures a model; its verdict is on the hypothesis in the description.",
        "props": [
            prop("version", card.version),
            prop("family", card.family),
            prop("needs-access", card.needs),
            prop("citation", card.citation),
            *(prop("failure-mode", mode) for mode in card.failure_modes),
            *(prop("control", name) for name in card.controls),
            *(prop("blind-spot", spot) for spot in card.blind_spots),
        ],
    }
    if bears:
        implemented: list[Json] = [
            {
                "uuid": uuid_of("bears-on", card.digest(), control),
                "control-id": control,
                "description": f"Its evidence is cited in the assessment; that says nothing of the result ({a.support}).",
            }
            for control, a in bears.items()
        ]
        source = {"uuid": uuid_of("bears", card.digest()), "source": file_name("catalog")}
        about = "Requirements and claims on which evidence of this instrument was assessed."
        component["control-implementations"] = [{**source, "description": about, "implemented-requirements": implemented}]
    return component


def _subject(audit: Audit) -> dict[str, Json]:
    chosen = {"subject-uuid": subject_uuid(audit.subject.digest()), "type": "component"}
    return {"type": "component", "include-subjects": [chosen]}


def _activity(digest: Digest, r: Registration) -> dict[str, Json]:
    data: list[Json] = [prop("data", f"{d.name}: {d.n_rows} rows, {d.content}, from {d.source}") for d in r.data]
    settings = ", ".join(f"{key} = {value!r}" for key, value in r.config.items()) or "defaults"
    activity: dict[str, Json] = {
        "uuid": uuid_of("activity", digest),
        "title": line(r.step),
        "description": f"{line(r.card.name)} {line(r.card.version)}: {line(r.card.hypothesis)}",
        "props": [
            prop("method", "TEST"),
            prop("registration", digest),
            prop("specification", r.spec()),
            prop("registered-at", iso(r.registered_at)),
            prop("seed", str(r.seed)),
            prop("settings", settings),
            *data,
        ],
    }
    if r.thresholds:
        activity["steps"] = [_step(digest, i, bar) for i, bar in enumerate(r.thresholds)]
    return activity


def _step(digest: Digest, index: int, bar: Threshold) -> dict[str, Json]:
    return {
        "uuid": uuid_of("bar", digest, str(index)),
        "title": line(f"{bar.measurement} {bar.comparator} {bar.value!r} on the {bar.bound} end"),
        "description": f"Registered bar. If it is not met: {line(bar.response)}",
    }


def _task(audit: Audit, digest: Digest, r: Registration) -> dict[str, Json]:
    activity = {"activity-uuid": uuid_of("activity", digest), "subjects": [_subject(audit)]}
    return {
        "uuid": uuid_of("task", digest),
        "type": "action",
        "title": line(r.step),
        "timing": {"on-date": {"date": iso(r.registered_at)}},
        "associated-activities": [activity],
    }
