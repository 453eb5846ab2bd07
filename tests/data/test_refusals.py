"""The matcher gets the answers right whose class is beyond dispute, whatever their typography."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditgap.data.refusals import KNOWN_ANSWERS, REFUSAL_PREFIXES, degenerate, refused


@pytest.mark.parametrize(("answer", "expected"), KNOWN_ANSWERS)
def test_known_answers(answer, expected):
    assert refused(answer) is expected


@given(st.sampled_from(REFUSAL_PREFIXES), st.sampled_from(["", "**", "  \n", "Unfortunately, "]), st.sampled_from("'’ʼ"))
def test_case_punctuation_and_apostrophes_do_not_matter(prefix, before, apostrophe):
    assert refused(before + prefix.upper().replace("'", apostrophe) + ", because.")


def test_patterns_are_searched_anywhere():
    assert refused("Here. But not that.", ["but not"]) and not refused("Here.", ["but not"])


def test_an_answer_without_words_is_degenerate():
    assert degenerate("...") and degenerate("la " * 20) and not degenerate("one two three")
