"""Gaps and fragile reasons gathered: nothing is lost, nothing is there twice, and the order of statements does not matter."""

import pytest

from auditgap.exchange.export.open_points import fragile_points, gap_points, name_of
from auditgap.report import Audit


@pytest.mark.parametrize("name", ["held", "real"])
def test_every_gap_and_every_fragile_reason_is_in_exactly_one_point(name: str, request: pytest.FixtureRequest) -> None:
    audit: Audit = request.getfixturevalue(name)
    points = gap_points(audit)
    assert len({(p.axis, p.kind) for p in points}) == len(points)
    for kind in ("execution", "structural"):
        gaps = {(g.axis, name_of(a)) for _, a in audit.assessments for g in a.gaps if getattr(g, kind)}
        assert gaps == {(p.axis, name) for p in points if p.kind == kind for name in p.on}
    reasons = {(r.code, a.claim, r.detail) for _, a in audit.assessments for r in a.fragile}
    assert reasons == {(p.code, p.claim, detail) for p in fragile_points(audit) for detail in p.details}


def test_the_widest_gap_is_the_one_shown(held: Audit) -> None:
    point = next(p for p in gap_points(held) if p.axis == "time")
    assert point.n_steps == max(g.execution for _, a in held.assessments for g in a.gaps if g.axis == "time") == 12
    assert "needs 20 business days; had 8 business days" in point.said()


def test_every_point_has_the_size_of_its_widest_gap(real: Audit) -> None:
    sizes: dict[tuple[str, str], set[int]] = {}
    for gap in (gap for _, a in real.assessments for gap in a.gaps):
        sizes.setdefault((gap.axis, "execution"), set()).add(gap.execution)
        sizes.setdefault((gap.axis, "structural"), set()).add(gap.structural)
    assert {(p.axis, p.kind): p.n_steps for p in gap_points(real)} == {key: max(n) for key, n in sizes.items() if max(n)}
    assert len(sizes["information", "execution"] - {0}) > 1, "or the test could not fail"


def test_without_gaps_there_is_no_point(held: Audit) -> None:
    clean = [(d, a.model_copy(update={"gaps": (), "fragile": ()})) for d, a in held.assessments]
    assert gap_points(held._replace(assessments=clean)) == fragile_points(held._replace(assessments=clean)) == []


def test_the_order_of_the_assessments_moves_no_size(real: Audit) -> None:
    backwards = real._replace(assessments=real.assessments[::-1])
    sizes = [(p.axis, p.kind, p.n_steps, sorted(p.on)) for p in gap_points(real)]
    assert [(p.axis, p.kind, p.n_steps, sorted(p.on)) for p in gap_points(backwards)] == sizes
