"""The HTML report: everything is there, nothing is loaded, nothing untrusted becomes markup."""

import datetime as dt
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from example_audit import make_audit
from example_evidence import ATTACK, SUBJECT

from auditgap.governance import CODES
from auditgap.records import Evidence, Measured
from auditgap.report import Audit, render_html, words
from auditgap.report.numbers import full, short

HTML = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "header",
    "main",
    "section",
    "nav",
    "article",
    "footer",
    "h1",
    "h2",
    "h3",
}
HTML |= {"h4", "p", "a", "b", "br", "ul", "li", "dl", "dt", "dd", "div", "span"}
HTML |= {"code", "pre", "details", "summary", "figure", "figcaption", "table", "thead", "tbody", "tr", "th", "td"}
SVG = {"svg", "defs", "pattern", "g", "path", "rect", "circle", "line", "text", "use", "image", "clippath"}
ALLOWED = HTML | SVG


class Page(HTMLParser):
    """Every element with its attributes, the text outside of style, and whether elements close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(held: Audit) -> Page:
    return Page(render_html(held))


# Planted truth found


def test_the_decision_comes_first_in_words_with_reasons_responses_and_gaps(page: Page, held: Audit) -> None:
    assert held.decision is not None
    heads = [
        page.text.index(word) for word in ("Hold", "Why", "Disclosed gaps", "What follows", "Criteria", "Claims", "Requirements")
    ]
    assert heads == sorted(heads)
    banner = page.text[: page.text.index("Decided")]
    for c in held.decision.criteria:
        assert c.id in page.text
        assert banner.count(c.response) == (c.status != "met")
    for gap in held.decision.disclosed:
        assert gap in page.text


@pytest.mark.parametrize("outcome", ["pass", "pass-with-disclosed-gap", "hold", "fail"])
def test_every_outcome_has_its_own_words_and_shape(outcome: str) -> None:
    banner = render_html(make_audit(outcome)).split('<section id="decision"')[1].split("</section>")[0]
    others = [w.label for key, w in words.OUTCOME.items() if key != outcome]
    title = re.search(r'<h2 id="decision-title">(.*?)</h2>', banner)
    assert title and title[1] == words.OUTCOME[outcome].label
    assert not any(title[1] == other for other in others)
    shapes = {key: _icon(render_html(make_audit(key))) for key in words.OUTCOME}
    assert len(set(shapes.values())) == 4


def _icon(html: str) -> str:
    return re.search(r'<div class="verdict">\s*(<svg.*?</svg>)', html, re.S)[1]


def test_every_number_of_the_evidence_is_there_and_links_to_its_digest(held: Audit) -> None:
    html = render_html(held)
    for i, (digest, evidence) in enumerate(held.evidence, 1):
        section = html.split(f'id="E{i}"')[1].split("</article>")[0]
        assert f'id="E{i}-digest"' in section and digest in section
        for m in (m for m in evidence.result.measurements if isinstance(m, Measured)):
            for number in (m.value, *([m.interval.low, m.interval.high] if m.interval.method != "exact" else [])):
                assert f'<a class="num" href="#E{i}-digest" title="{full(number)}">{short(number)}</a>' in section
            assert f'<a class="num" href="#E{i}-digest">{m.n:,}</a>' in section


def test_all_digests_appear_in_full(page: Page, held: Audit) -> None:
    assert held.decision is not None
    digests = [held.root, held.decision.policy, held.decision_digest, held.subject.digest(), *(d for d, _ in held.assessments)]
    digests += [d for digest, e in held.evidence for d in (digest, e.registration, e.spec)]
    digests += [f.content for f in (*held.subject.weights, *held.subject.tokenizer)]
    assert all(d and d in page.text for d in digests)


def test_what_was_not_measured_is_grey_with_its_reason_and_never_green(held: Audit) -> None:
    html = render_html(held)
    reason = "too few organisms with such triggers (3, at least 10 needed)"
    row = next(part for part in html.split("<tr") if reason in part)
    assert 'class="absent"' in row and "is-met" not in row and "is-passed" not in row
    for c in re.findall(r'<tr id="criterion-[^"]*" class="is-missing">.*?</tr>', html, re.S):
        assert "is-missing" in c and "is-met" not in c and "pill is-missing" in c
    assert not re.findall(r"<t[dh][^>]*>\s*</t[dh]>", html), "no cell may be blank"


def test_a_passed_control_without_an_observation_is_not_green(held: Audit) -> None:
    row = next(part for part in render_html(held).split("<tr") if "<code>clean-twin</code>" in part)
    assert "pill is-missing" in row and "is-passed" not in row


def test_the_compared_end_of_the_interval_stands_beside_the_bar(held: Audit) -> None:
    row = next(part for part in render_html(held).split("<tr") if 'id="criterion-probe-ood"' in part)
    compared = row.split('data-label="Compared"')[1].split("</td>")[0]
    assert "0.861244" in compared and "0.951877" not in compared
    assert "≥" in row.split('data-label="Bar"')[1] and "on the lower end" in row


def test_gaps_show_what_the_team_can_close_and_what_nobody_can(held: Audit) -> None:
    card = render_html(held).split('id="claim-no-hidden-objective"')[1].split("</article>")[0]
    assert "2 levels nobody can close today" in card and 'fill="url(#hatch)"' in card
    assert "12 business days the team can close" in card and 'class="execution"' in card
    assert words.fragility("F2.power-below-limit") in card


def test_every_assessed_requirement_is_there_under_its_framework(held: Audit) -> None:
    section = render_html(held).split('<section id="requirements">')[1].split("</section>")[0]
    for _, assessment in held.assessments:
        if assessment.requirement:
            requirement = held.requirements[assessment.requirement]
            group = next(part for part in section.split('<details class="framework">') if requirement.framework in part)
            assert requirement.title in group and requirement.text_ref in group
    assert "1 no hook" in section and "That is not the same as covered." in section


def test_a_claim_that_nothing_assessed_says_so(page: Page) -> None:
    assert "Not assessed: a criterion of the policy names this claim" in page.text


def test_each_fragility_code_of_the_governance_half_has_its_sentence() -> None:
    assert set(words.FRAGILE) == set(CODES)


@pytest.mark.parametrize(
    ("label", "warning"),
    [
        ("E4", "Registered after the run had started"),
        ("E5", "Measured on another subject"),
        ("E5", "Invalid: a control that this instrument owes"),
    ],
)
def test_what_weakens_evidence_is_said_above_its_numbers(held: Audit, label: str, warning: str) -> None:
    section = render_html(held).split(f'id="{label}"')[1].split("</article>")[0]
    assert warning in section.split("<h4>Measurements</h4>")[0]


def test_expired_evidence_and_a_decision_on_another_subject_are_said(held: Audit) -> None:
    late = render_html(held._replace(generated_at=dt.datetime(2028, 1, 1, tzinfo=dt.UTC)))
    assert late.count("Expired on 2027-05-19") == len(held.evidence)
    other = render_html(held._replace(subject=SUBJECT.model_copy(update={"dtype": "float32"})))
    assert "This decision was taken about another subject" in other


# Negative control silent


def test_sound_evidence_carries_no_warning(held: Audit) -> None:
    section = render_html(held).split('id="E1"')[1].split("</article>")[0]
    assert 'class="warning"' not in section


def test_no_resource_is_loaded_and_no_script_can_run(held: Audit) -> None:
    html = render_html(held)
    page = Page(html)
    assert {tag for tag, _ in page.elements} <= ALLOWED, {tag for tag, _ in page.elements} - ALLOWED
    assert page.open == []
    for tag, attrs in page.elements:
        for name, value in attrs.items():
            assert not name.startswith("on") and name not in (
                "src",
                "srcset",
                "srcdoc",
                "action",
                "formaction",
                "ping",
                "background",
            )
            if name in ("href", "xlink:href"):
                allowed = {"a": ("#", "https://"), "use": ("#",), "image": ("data:image/png;base64,",)}[tag]
                assert (value or "").startswith(allowed), (tag, value)
            elif name not in ("content", "title", "aria-label", "data-label"):
                assert "//" not in (value or ""), (tag, name, value)
            assert "url(" not in (value or "").replace("url(#", "")
    css = re.search(r"<style>(.*?)</style>", html, re.S)
    assert css and "url(" not in css[1] and "@import" not in css[1]
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and "default-src 'none'" in policy and "script" not in policy


def test_model_output_stays_text(held: Audit) -> None:
    page = Page(render_html(held))
    for harmless in ('<script>alert("owned")</script>', "<img src=https://evil.example/x", "{{ 7*7 }}", "{% include", "${7*7}"):
        assert harmless in page.text
    assert "\u202e" not in page.text and "\u200b" not in page.text and "⟨U+202E⟩txt.exe⟨U+200B⟩" in page.text


HOSTILE = '"><script>x</script>{{7*7}}\u202e'


def test_hostile_text_in_any_field_stays_text(held: Audit) -> None:
    evidence = held.evidence[0][1].model_dump(mode="json")
    poisoned = Evidence.model_validate_json(json.dumps(_poison(evidence)))
    page = Page(render_html(held._replace(evidence=[(held.evidence[0][0], poisoned)])))
    assert {tag for tag, _ in page.elements} <= ALLOWED and page.open == []
    assert page.text.count("<script>x</script>{{7*7}}⟨U+202E⟩") > 20
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)


def _poison(value: object) -> object:
    """The same JSON with hostile text behind every free string."""
    closed = r"sha256:.*|\d{4}-\d\d-\d\d.*|auditgap\.dev/.*|M\d|measured|not_measured|curve|grid"
    closed += "|supported|deployed|docs|bare|second-line"
    if isinstance(value, dict):
        return {k: v if k == "properties" else _poison(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_poison(v) for v in value]
    return value + HOSTILE if isinstance(value, str) and not re.fullmatch(closed, value) else value


def test_a_citation_that_is_not_a_plain_https_address_is_no_link(held: Audit) -> None:
    digest, registration = next(iter(held.registrations.items()))
    for citation in ("javascript:alert(1)", "data:text/html,x", "Smith 2026, https://example.org"):
        card = registration.card.model_copy(update={"citation": citation})
        changed = held.registrations | {digest: registration.model_copy(update={"card": card})}
        links = [a["href"] for a in Page(render_html(held._replace(registrations=changed))).all("a")]
        assert not any(link and ("javascript" in link or "data:" in link or "example.org" in link) for link in links)


# Invariance


def test_equal_audits_give_equal_bytes(held: Audit) -> None:
    assert render_html(held) == render_html(make_audit("hold"))


def test_the_order_of_the_catalogues_does_not_matter(held: Audit) -> None:
    turned = held._replace(
        claims=dict(reversed(held.claims.items())),
        requirements=dict(reversed(held.requirements.items())),
        registrations=dict(reversed(held.registrations.items())),
    )
    assert render_html(turned) == render_html(held)


def test_six_pieces_of_evidence_stay_small(held: Audit) -> None:
    six = [*held.evidence, held.evidence[0]]
    assert len(render_html(held._replace(evidence=six)).encode()) < 1_500_000


def test_the_page_is_accessible_in_structure(held: Audit) -> None:
    html = render_html(held)
    page = Page(html)
    assert page.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.all("th"))
    assert all(attrs.get("aria-hidden") == "true" or attrs.get("aria-label") for attrs in page.all("svg"))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {(a["href"] or "")[1:] for a in page.all("a") if (a["href"] or "").startswith("#")}
    assert targets <= set(ids), targets - set(ids)


def test_it_prints_and_fits_a_phone(held: Audit) -> None:
    html = render_html(held)
    assert "@media print" in html and "size: A4" in html and "details-content" in html and "break-inside: avoid" in html
    assert 'content="width=device-width, initial-scale=1"' in html
    assert html.count("<table") == html.count('<div class="scroll">'), "a wide table scrolls inside its own box"


# Bad input


def test_the_least_audit_says_what_is_missing(bare: Audit) -> None:
    text = Page(render_html(bare)).text
    for said in ("No decision", "No policy has been applied", "No claim was assessed", "No requirement", "held no evidence"):
        assert said in text


def test_evidence_whose_registration_or_label_is_missing_is_shown_as_such(held: Audit) -> None:
    text = Page(render_html(held._replace(registrations={}))).text
    assert text.count("Its registration is not in this report") == len(held.evidence)
    assert "none registered; see the reason" in text
    assert "not in this report" in Page(render_html(held._replace(evidence=[]))).text


def test_a_figure_that_cannot_be_drawn_says_why(held: Audit) -> None:
    digest, evidence = held.evidence[0]
    broken = evidence.result.figures[0].model_copy(update={"y": (0.5,)})
    result = evidence.result.model_copy(update={"figures": (broken,)})
    html = render_html(held._replace(evidence=[(digest, evidence.model_copy(update={"result": result}))]))
    assert "This figure cannot be drawn: figure &#39;auroc-by-layer&#39;: expected" in html


def test_the_example_holds_the_attack(held: Audit) -> None:
    assert any(s.output == ATTACK for _, e in held.evidence for s in e.result.samples)
