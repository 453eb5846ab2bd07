"""The Markdown report: the same order and numbers as the HTML, and untrusted text never becomes markup."""

import re

from example_audit import make_audit
from example_evidence import ATTACK

from auditgap.records import Measured
from auditgap.report import Audit, render_html, render_markdown
from auditgap.report.numbers import short, visible

# Planted truth found


def test_the_same_parts_in_the_same_order_as_the_page(held: Audit) -> None:
    headings = re.findall(r"^## (.*)$", render_markdown(held), re.M)
    assert headings == ["Decision: Hold", "Criteria", "Claims", "Coverage", "Requirements", "Evidence", "How to check this"]
    page = render_html(held)
    places = [
        page.index(f'id="{name}"') for name in ("decision", "criteria", "claims", "coverage", "requirements", "evidence", "check")
    ]
    assert places == sorted(places)


def test_every_number_and_digest_of_the_evidence_is_there(held: Audit) -> None:
    text = render_markdown(held)
    sections = re.split(r"^### E\d+ ", text, flags=re.M)[1:]
    assert len(sections) == len(held.evidence)
    for section, (digest, evidence) in zip(sections, held.evidence, strict=True):
        assert digest in section and evidence.registration in section and evidence.spec in section
        for m in evidence.result.measurements:
            row = next(line for line in section.splitlines() if line.startswith(f"| `{m.name}`"))
            if isinstance(m, Measured):
                assert short(m.value) in row and f"n = {m.n:,}" in row
            else:
                assert f"not measured: {m.reason}" in row


def test_unmet_criteria_print_their_response_and_missing_ones_their_reason(held: Audit) -> None:
    text = render_markdown(held)
    assert held.decision is not None
    first = text.split("## Criteria")[0]
    for c in held.decision.criteria:
        assert (c.response in first) == (c.status != "met")
    row = next(line for line in text.splitlines() if line.startswith("| missing") and "agent-injection" in line)
    assert "no evidence" in row and "nothing to compare" in row


# Negative control silent


def test_model_output_is_fenced_and_everything_else_is_escaped(held: Audit) -> None:
    text = render_markdown(held)
    fence = re.search(r"^(`{4,})text\nSure!.*?^\1$", text, re.S | re.M)
    assert fence and visible(ATTACK) in fence[0], "a fence longer than any run of backticks inside"
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.S | re.M)
    assert "<" not in outside.replace("\\<", "") and "\u202e" not in text


def test_hostile_names_cannot_break_a_table_or_become_a_link(held: Audit) -> None:
    name = "a|b](javascript:alert(1)) <b>`x` [c]\n# head"
    evil = held._replace(subject=held.subject.model_copy(update={"name": name}))
    title = render_markdown(evil).splitlines()[0]
    assert title == r"# Audit report: a\|b\](javascript:alert(1)) \<b\>\`x\` \[c\] \# head"
    digest, assessment = held.assessments[0]
    poisoned = held._replace(assessments=[(digest, assessment.model_copy(update={"power": name}))])
    assert r"Power: a\|b\]" in render_markdown(poisoned)


def test_every_table_has_as_many_cells_as_columns(held: Audit) -> None:
    widths = []
    for line in re.sub(r"^(`{3,})text\n.*?^\1$", "", render_markdown(held), flags=re.S | re.M).splitlines():
        if not line.startswith("|"):
            widths = []
            continue
        widths.append(len(re.findall(r"(?<!\\)\|", line)))
        assert len(set(widths)) == 1, line


# Invariance


def test_equal_audits_give_equal_text(held: Audit) -> None:
    assert render_markdown(held) == render_markdown(make_audit("hold"))


# Bad input


def test_the_least_audit_says_what_is_missing(bare: Audit) -> None:
    text = render_markdown(bare)
    for said in ("No decision", "No policy has been applied", "No claim was assessed", "No requirement", "held no evidence"):
        assert said in text


def test_missing_registrations_and_evidence_are_named(held: Audit) -> None:
    assert render_markdown(held._replace(registrations={})).count("Its registration is not in this report") == len(held.evidence)
    assert "not in this report" in render_markdown(held._replace(evidence=[]))
