"""The report on a release: what broke is red and named, what was not tried is grey, and only what was shown is green."""

import datetime as dt
import re
from itertools import pairwise
from typing import get_args

import pytest
from example_release import (
    AFTER,
    NOW,
    ago,
    broken,
    case,
    count,
    criterion,
    delta,
    equivalence,
    parity,
    promotion,
    release,
    run,
    sound,
    waived,
)
from test_html import ALLOWED, HOSTILE, Page

from auditgap.errors import UsageError
from auditgap.governance.integrity import UNDISTURBED
from auditgap.records import digest_of
from auditgap.records.integrity import FaultKind
from auditgap.report import Release, render_release_html, render_release_markdown
from auditgap.report.parity_figure import describe_shift, shift_svg
from auditgap.report.release import cases, controls
from auditgap.report.release_summary import facts, standing, warnings

GREEN = ("is-passed", "is-met", "is-pass", "is-supported")


def part(html: str, section: str) -> str:
    return html.split(f'<section id="{section}"')[1].split("</section>")[0]


def row(html: str, named: str) -> str:
    """The table row whose head starts with these words."""
    found = [r for r in re.findall(r"<tr[^>]*>.*?</tr>", html, re.S) if re.search(rf'<th scope="row"[^>]*>{re.escape(named)}', r)]
    assert found, f"no row {named}"
    return found[0]


def green(html: str) -> bool:
    return any(word in html for word in GREEN)


# Planted truth found


def test_a_broken_case_is_red_named_and_first() -> None:
    shown = release(run(case(), broken()), promotion=promotion())
    html, words = render_release_html(shown), render_release_markdown(shown)
    assert 'class="pill is-failed"' in row(part(html, "cases"), "RIC-002-planted") and not green(
        row(part(html, "cases"), "RIC-002")
    )
    assert "RIC-002-planted: BROKEN" in part(html, "decision") and "is-failed" in part(html, "decision")
    assert cases(shown)[0].result.case == "RIC-002-planted"
    assert "| RIC-002-planted | **BROKEN** |" in words and "RIC-002-planted: BROKEN" in words.split("## Promotion criteria")[0]
    assert any("does not agree" in warning for warning in warnings(shown)), "the promotion passed all the same"
    assert standing(shown).standing == "inconclusive"


def test_the_cell_that_broke_is_red_and_all_that_were_not_tried_are_grey() -> None:
    html = render_release_html(release(run(case(), broken())))
    matrix = part(html, "matrix")
    rows = {state: row(matrix, f"{state}</th>") for state in (UNDISTURBED, *get_args(FaultKind))}
    assert "is-failed" in rows[UNDISTURBED] and "✗ 2" in rows[UNDISTURBED]
    assert rows["hang"].count('class="is-passed"') == 1 and "✓ 2" in rows["hang"]
    for state in set(rows) - {UNDISTURBED, "hang"}:
        assert not green(rows[state]) and rows[state].count('class="is-missing"') == 2 and rows[state].count("· 0") == 2
    assert "2 of 68 cells are filled" in matrix and "Mode live: nothing was run" in matrix
    detail = row(matrix.split("<details>")[1], "hang")
    assert digest_of(run(case(), broken()).canonical()) in detail and "fresh" in detail and "chosen, not drawn" in detail


def test_a_live_cell_has_its_bound() -> None:
    live = case(mode="live", n=149, upper=0.0199, level=0.95)
    live = live.model_copy(update={"expectations": (live.expectations[0].model_copy(update={"n": 149}),)})
    shown = release(run(live))
    assert "rate at most 0.0199 (95 %)" in part(render_release_html(shown), "matrix")
    assert "rate at most 0.0199 (95 %)" in render_release_markdown(shown)


def test_a_control_that_no_case_misses_is_red() -> None:
    removed = {
        "CTL-idempotency": {"RIC-001-once": "HELD"},
        "CTL-orphan": {"RIC-001-once": "BROKEN"},
        "CTL-idle": {},
    }
    (table,) = controls(release(run(case(), case("RIC-009-idle", control="CTL-idle"), removed=removed)))
    said = {seen.row.control: (seen.shown.standing, seen.shown.label) for seen in table.rows}
    assert said == {
        "CTL-idempotency": ("failed", "unnoticed"),
        "CTL-orphan": ("failed", "no case is about it"),
        "CTL-idle": ("missing", "not run"),
    }
    html = part(render_release_html(release(run(case(), removed=removed))), "controls")
    assert "unnoticed: HELD" in html and not green(row(html, "CTL-orphan"))


def test_uncovered_changes_are_red_and_an_unshown_equivalence_is_amber() -> None:
    wide = equivalence(low=-0.09, high=0.04)
    shown = release(parity=parity(delta("prompt"), delta("style", coverage=equivalence()), delta("note", relevant=False)))
    html = part(render_release_html(shown), "parity")
    assert "is-failed" in row(html, "system_prompt prompt") and "is-passed" in row(html, "system_prompt style")
    assert (
        "is-neutral" in row(html, "system_prompt note")
        and html.count("<figure>") == 1
        and "pill is-passed" in html.split("<figure>")[1]
    )
    assert "held back" in dict(facts(shown))["Parity with the evaluated release"].label
    amber = render_release_html(release(parity=parity(delta("style", coverage=wide))))
    assert "equivalence not shown" in amber and not green(amber.split("<figure>")[1].split("</figure>")[0])
    assert f"- {describe_shift(wide)}".replace("_", r"\_") in render_release_markdown(
        release(parity=parity(delta("s", coverage=wide)))
    )


def test_a_waiver_that_has_lapsed_since_is_red() -> None:
    shown = release(parity=parity(delta("prompt", coverage=waived(ago(1).date())), delta("style", coverage=waived(NOW.date()))))
    html = part(render_release_html(shown), "parity")
    assert "is-failed" in row(html, "system_prompt prompt") and "is-passed" in row(html, "system_prompt style")


def test_criteria_stand_with_their_reasons() -> None:
    decided = promotion(
        criterion(), criterion("SC-1/parity", "missing", reason="No parity was brought.", response="Run the diff.")
    )
    shown = release(promotion=decided)
    html = render_release_html(shown)
    lacking = row(part(html, "criteria"), "SC-1/parity")
    assert "is-missing" in lacking and not green(lacking) and "No parity was brought." in lacking and "Run the diff." in lacking
    assert "is-met" in row(part(html, "criteria"), "SC-1/integrity")
    assert standing(shown).label == "Hold" and 'class="banner is-hold"' in html and "Run the diff." in part(html, "decision")
    assert "not checked: its origin" in html and "not checked: its origin" in render_release_markdown(shown)


@pytest.mark.parametrize(
    ("changed", "warning"),
    [
        (sound()._replace(runs=release(run(), signed=False).runs), "R1 (integrity run) came without a verified signature"),
        (sound()._replace(runs=release(run(manifest=None)).runs), "R1 names no release"),
        (sound()._replace(runs=release(run(manifest=digest_of(b"x"))).runs), "R1 tested another release"),
        (sound()._replace(parity=release(parity=parity(after=digest_of(b"x"))).parity), "P is about another release"),
        (sound()._replace(generated_at=NOW + dt.timedelta(days=14)), "The promotion expired on"),
        (sound()._replace(generated_at=NOW + dt.timedelta(days=13)), "The promotion expired on"),
        (sound()._replace(generated_at=ago(0.9)), "decided after this report"),
        (release(promotion=promotion(signatures_needed=2)), "needs 2 signatures, 1 were verified"),
        (release(parity=parity(delta(coverage=waived(ago(1).date())))), "Coverage of system_prompt main has lapsed"),
    ],
)
def test_what_weakens_a_release_is_said_first_and_takes_the_green_away(changed: Release, warning: str) -> None:
    assert any(warning in said for said in warnings(changed))
    html = render_release_html(changed)
    assert warning in part(html, "decision").split("<dl")[0] and 'class="banner is-pass"' not in html
    assert warning.split(" (")[0] in render_release_markdown(changed).split("## Promotion criteria")[0].replace("\\", "")


# Negative control silent


def test_a_sound_release_is_green_without_a_warning() -> None:
    shown = sound()
    assert warnings(shown) == [] and standing(shown).label == "Pass"
    assert {fact.standing for _, fact in facts(shown)} == {"passed"}
    html = render_release_html(shown)
    assert 'class="banner is-pass"' in html and 'class="warning"' not in html and "is-failed" not in html.split("</style>")[1]


@pytest.mark.parametrize(
    "result",
    [
        case(verdict="INCONCLUSIVE"),
        case(verdict="FAULT_NOT_FIRED"),
        case(verdict="CONTROL_NOT_ON_PATH"),
        case(verdict="NOT_RUN", n=0, expectations=()),
        case(verdict="DEGRADED"),
        case(sabotage=None),
        case(n=0),
        case(finished_at=ago(40)),
        case(without=("CTL-redaction",)),
    ],
    ids=lambda r: f"{r.verdict}-{r.sabotage}-{r.n}-{r.finished_at:%d}-{''.join(r.without)}",
)
def test_nothing_but_a_case_that_was_shown_is_green(result: object) -> None:
    html = render_release_html(release(run(result, removed={}, registered_at=ago(50), started_at=ago(50))))
    body = html.split("</style>")[1]
    assert (
        not green(row(part(body, "cases"), "RIC-001")) and not green(part(body, "matrix")) and not green(part(body, "decision"))
    )


@pytest.mark.parametrize("shown", [release(run()), release(parity=parity()), release(promotion=promotion())])
def test_what_was_not_brought_is_grey_and_said(shown: Release) -> None:
    html, words = render_release_html(shown), render_release_markdown(shown)
    absent = {
        "run": "No integrity run was brought",
        "parity": "No parity record was brought",
        "promotion": "No promotion was brought",
    }
    brought = {"run": bool(shown.runs), "parity": shown.parity is not None, "promotion": shown.promotion is not None}
    for kind, said in absent.items():
        assert (said in html) == (said in words) == (not brought[kind])
    if not shown.promotion:
        assert 'class="banner is-none"' in html
    assert not re.findall(r"<t[dh][^>]*>\s*</t[dh]>", html), "no cell may be blank"


# Invariance


def test_equal_records_give_equal_bytes() -> None:
    assert render_release_html(sound()) == render_release_html(sound())
    assert render_release_markdown(sound()) == render_release_markdown(sound())


def test_the_order_of_cases_and_controls_moves_no_standing() -> None:
    results = (case(), broken(), case("RIC-003-twice", faults=("latency",)))
    one, other = release(run(*results)), release(run(*reversed(results)))
    assert facts(one) == facts(other)
    assert {(r.result.case, r.shown) for r in cases(one)} == {(r.result.case, r.shown) for r in cases(other)}


def test_both_forms_show_the_same_digests() -> None:
    shown = sound()
    digests = set(re.findall(r"sha256:[0-9a-f]{64}", render_release_html(shown)))
    assert digests == set(re.findall(r"sha256:[0-9a-f]{64}", render_release_markdown(shown))) and AFTER in digests


def test_the_page_is_self_contained_and_accessible() -> None:
    html = render_release_html(sound())
    page = Page(html)
    assert {tag for tag, _ in page.elements} <= ALLOWED and page.open == []
    assert html.count("<table") == html.count('<div class="scroll">')
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.all("th"))
    assert all(attrs.get("aria-hidden") == "true" or attrs.get("aria-label") for attrs in page.all("svg"))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {(a["href"] or "")[1:] for a in page.all("a")} <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert "default-src 'none'" in html and "<script" not in html and "http://" not in html.replace("http://www.w3.org", "")


# Bad input


def test_hostile_text_stays_text() -> None:
    evil = case(f"RIC{HOSTILE}", reason=HOSTILE, control=HOSTILE, faults=(HOSTILE,), layer=HOSTILE, severity=HOSTILE)
    tested = equivalence().model_copy(update={"behaviour": HOSTILE})
    decided = promotion(criterion(HOSTILE, reason=HOSTILE, claim=HOSTILE), name=HOSTILE, non_claims=(HOSTILE,))
    shown = release(
        run(evil, system=HOSTILE, removed={HOSTILE: {HOSTILE: "HELD"}}), parity=parity(delta(coverage=tested)), promotion=decided
    )
    page = Page(render_release_html(shown))
    assert {tag for tag, _ in page.elements} <= ALLOWED and page.open == []
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert page.text.count("<script>x</script>{{7*7}}⟨U+202E⟩") > 10 and "\u202e" not in page.text
    words = render_release_markdown(shown)
    assert "<" not in words.replace(r"\<", "") and "\u202e" not in words
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in words.splitlines() if line.startswith("|")]
    assert widths and all(width > 2 for width in widths)


def test_an_empty_report_and_a_limit_of_no_days_are_refused() -> None:
    for render in (render_release_html, render_release_markdown):
        with pytest.raises(UsageError, match="got none; give at least one"):
            render(release())
        with pytest.raises(UsageError, match="at least one day, got 0"):
            render(release(run(), max_age_days=0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"before": count(200, 200).model_copy(update={"hits": 201}), "shift": -7 / 200}, "at most n = 200 hits, got 201"),
        ({"shift": 0.2}, "expected a shift of -0.010000 from the counts, got 0.200000"),
    ],
    ids=["more hits than trials", "another shift"],
)
def test_a_test_that_contradicts_itself_is_not_drawn(changes: dict[str, object], message: str) -> None:
    wrong = equivalence().model_copy(update=changes)
    with pytest.raises(UsageError, match=message):
        shift_svg(wrong, prefix="s")
    shown = release(parity=parity(delta(coverage=wrong)))
    assert "This figure cannot be drawn" in render_release_html(shown)
    assert "This figure cannot be drawn" in render_release_markdown(shown)


# The figure


def test_the_figure_draws_rates_and_shift_where_they_are() -> None:
    svg = shift_svg(equivalence(), prefix="a")
    assert svg == shift_svg(equivalence(), prefix="a") and 'id="a-' in svg and "before" in svg and "shift" in svg
    assert "0.98 (" in svg.split("aria-label")[1] and "margin 0.06: within the margin." in svg
    assert shift_svg(equivalence(after=180, low=-0.12, high=-0.04), prefix="a") != svg
