"""The Markdown forms: read by markdown-it, in the order that the sources ask for, with blanks where nothing was measured."""

import re
from itertools import pairwise

import pytest
from example_evidence import ATTACK
from markdown_it import MarkdownIt
from markdown_it.token import Token

from auditgap.exchange.export import annex_xi, model_card, model_report
from auditgap.records import Measured
from auditgap.report import Audit
from auditgap.report.numbers import short, visible

FORMS = [model_card, model_report, annex_xi]


def _tokens(text: str) -> list[Token]:
    return MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)


def _headings(text: str, tag: str) -> list[str]:
    tokens = _tokens(text)
    return [after.content for token, after in pairwise(tokens) if token.type == "heading_open" and token.tag == tag]


@pytest.mark.parametrize("form", FORMS)
def test_every_number_is_in_a_table_with_its_interval_and_what_is_missing_says_why(form, held: Audit) -> None:
    rows = [t.content for t in _tokens(form(held)) if t.type == "inline"]
    for _, evidence in held.evidence:
        for m in evidence.result.measurements:
            assert f"`{m.name}`" in rows
            if isinstance(m, Measured) and m.interval.method != "exact":
                assert any(
                    f"{short(m.interval.low)} to {short(m.interval.high)}" in row and f"n = {m.n:,}" in row for row in rows
                )
            elif not isinstance(m, Measured):
                assert any(row.startswith("not measured: ") and m.reason in row for row in rows)


def test_the_model_report_follows_measure_7(held: Audit) -> None:
    found = [re.findall(r"7\.\d", heading) for heading in _headings(model_report(held), "h2")]
    assert [number for numbers in found for number in numbers] == [f"7.{i}" for i in range(1, 8)]


def test_the_model_report_says_how_many_samples_are_missing(held: Audit) -> None:
    assert "2 stored; at least 5 are asked for. **To be completed by the provider:** 3 more samples." in model_report(held)


def test_annex_xi_has_every_point_and_fills_in_what_is_known(held: Audit) -> None:
    text = annex_xi(held)
    assert re.findall(r"^- ([12]\([a-f]\)):", text, re.M) == [f"1({c})" for c in "abcdef"] + [f"2({c})" for c in "abcde"]
    assert f"{held.subject.n_parameters:,} parameters" in text


def test_numbers_whose_control_failed_say_so(held: Audit) -> None:
    for form in FORMS:
        rows = [line for line in form(held).splitlines() if line.startswith("|")]
        assert all("Not to be relied on" in row for row in rows if "`cosine_shift" in row)
        assert not any("Not to be relied on" in row for row in rows if "`refusal_rate" in row)


# Negative control


@pytest.mark.parametrize("form", FORMS)
def test_text_of_models_and_names_becomes_no_markup(form, held: Audit) -> None:
    name = "a|b](javascript:alert(1)) <b>`x` [c]\n# head"
    evil = held._replace(subject=held.subject.model_copy(update={"name": name}))
    tokens = _tokens(form(evil))
    inside = [child for token in tokens for child in token.children or ()]
    assert not [t for t in (*tokens, *inside) if t.type in ("html_block", "html_inline", "link_open", "image")]
    assert "head" not in _headings(form(evil), "h1") and "\u202e" not in form(evil)


def test_samples_stand_whole_inside_a_fence(held: Audit) -> None:
    fences = [token.content for token in _tokens(model_report(held)) if token.type == "fence"]
    assert visible(ATTACK) + "\n" in fences
