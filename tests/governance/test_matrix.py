"""The framework x failure-mode matrix: total, right on planted frameworks, and never silent about what was not read."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditgap.governance import (
    Framework,
    Naming,
    Row,
    claims,
    failure_matrix,
    failure_modes,
    framework,
    frameworks,
    matrix_markdown,
    shipped_matrix,
    with_matrix,
)
from auditgap.governance.failure_mode import Citation
from auditgap.records import AXES, Access, Claim, Date, ModelAccess, Pin, Requirement, Variants
from governance.test_gap import ACCESS

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"
MODES = failure_modes()
BACKDOOR = claims()["no-trigger-backdoor"]
DEEP = Access(model=ModelAccess.M4)


def made(*rows: tuple[tuple[str, ...], Access], depth: str = "text", names: tuple[str, ...] = ()) -> Framework:
    """A framework with one duty per (claims, required access)."""
    pins = {axis: Pin(source="s", paragraph="p", reading="inferred") for axis in AXES}
    duties = tuple(
        Requirement(
            id=f"D{i}",
            framework="made",
            edition="1",
            title="t",
            text_ref="p",
            claims=names_of,
            required=required,
            pins=pins,
            verified="read",
        )
        for i, (names_of, required) in enumerate(rows, 1)
    )
    return Framework(
        id="made",
        title="Made",
        issuer="I",
        edition="1",
        kind="law",
        depth=depth,  # type: ignore[arg-type]
        dated=None,
        applies_to=None,
        sources=(Citation(ref="s", verified="read"),),
        review_date=Date(2027, 1, 1),
        numbers=(),
        names=tuple(Naming(failure_mode=n, words="w", text_ref="p", reading="explicit", verified="read") for n in names),
        requirements=duties,
        rows=tuple(Row(duty=r.id, claims=(), no_hook="made", required=Access()) for r in duties),
    )


def sight(found: Framework, mode: str, known: dict[str, Claim] | None = None) -> str:
    (row,) = failure_matrix([found], MODES.values(), claims() if known is None else known)
    return row.cells[mode].sight


def test_the_matrix_is_total_and_the_counts_add_up():
    rows = shipped_matrix()
    assert [row.framework for row in rows] == list(frameworks()) and len(rows) == 21
    for row in rows:
        assert list(row.cells) == list(MODES)
        sights = [cell.sight for cell in row.cells.values()]
        assert row.blind == (None if row.depth in ("ids", "listed") else sights.count("silent"))
        assert row.asked <= sights.count("silent") and ("unread" in sights) <= (row.blind is None)
        for cell in row.cells.values():
            assert bool(cell.named) == (cell.sight == "named")
            assert cell.reached or cell.sight != "reached"


def test_named_reached_short_and_silent_are_told_apart():
    asks = made((("no-trigger-backdoor",), DEEP))
    assert sight(asks, "trigger-backdoor") == "reached" and sight(asks, "sandbagging") == "silent"
    assert sight(made((("no-trigger-backdoor",), DEEP), names=("sandbagging",)), "sandbagging") == "named"
    shallow = made((("no-trigger-backdoor",), Access(model=ModelAccess.M1)))
    (row,) = failure_matrix([shallow], MODES.values(), claims())
    cell = row.cells["trigger-backdoor"]
    assert (cell.sight, cell.short, cell.reached, cell.mark) == ("silent", ("D1",), (), "-!")
    assert (row.blind, row.asked) == (len(MODES), 1)


def test_access_required_by_two_duties_for_one_claim_counts_together():
    split = made(
        (("bounded-capability",), Access(model=ModelAccess.M5)),
        (("bounded-capability",), Access(variants=Variants("fewest-mitigations"))),
    )
    assert sight(split, "sandbagging") == "reached"
    other = made(
        (("bounded-capability",), Access(model=ModelAccess.M5)),
        (("no-trigger-backdoor",), Access(variants=Variants("fewest-mitigations"))),
    )
    assert sight(other, "sandbagging") == "silent", "access asked for something else does not help"


def test_that_something_can_be_read_off_does_not_reach_a_failure_mode():
    reads = made((("concept-represented", "behaviour-localised"), Access.top()))
    assert {cell.sight for cell in failure_matrix([reads], MODES.values(), claims())[0].cells.values()} == {"silent"}


@pytest.mark.parametrize("depth", ["ids", "listed"])
def test_what_was_not_read_is_not_called_silent(depth):
    (row,) = failure_matrix([made(depth=depth)], MODES.values(), claims())
    assert {cell.sight for cell in row.cells.values()} == {"unread"} and row.blind is None
    assert sight(made((("no-trigger-backdoor",), DEEP), depth="ids"), "trigger-backdoor") == "reached"


@settings(deadline=None)
@given(ACCESS, ACCESS, st.lists(st.sampled_from(sorted(claims())), unique=True, max_size=6))
def test_more_required_access_never_blinds(access, more, presupposed):
    before, after = (made((tuple(presupposed), required)) for required in (access, access.join(more)))
    (one,), (other,) = (failure_matrix([f], MODES.values(), claims()) for f in (before, after))
    assert other.blind is not None and one.blind is not None and other.blind <= one.blind
    assert all(other.cells[m].sight == "reached" for m, cell in one.cells.items() if cell.sight == "reached")


@settings(deadline=None)
@given(st.permutations(list(claims())))
def test_the_order_of_claims_does_not_matter(order):
    one = failure_matrix([framework("gpai-cop")], MODES.values(), claims())[0].cells
    other = failure_matrix([framework("gpai-cop")], MODES.values(), {name: claims()[name] for name in order})[0].cells
    assert {m: (c.sight, set(c.reached)) for m, c in one.items()} == {m: (c.sight, set(c.reached)) for m, c in other.items()}


def test_the_code_of_practice_sees_most_and_the_article_that_it_details_is_blind_to_what_is_hidden():
    rows = {row.framework: row for row in shipped_matrix()}
    blind = {name: row.blind for name, row in rows.items() if row.blind is not None}
    assert min(blind, key=lambda name: blind[name]) == "gpai-cop"
    assert rows["gpai-cop"].cells["sandbagging"].sight == "named"
    assert rows["gpai-cop"].cells["trigger-backdoor"].reached == ("M3.2",)
    hidden = rows["eu-ai-act-art-55"].cells["deceptive-alignment"]
    assert (hidden.sight, hidden.short) == ("silent", ("AIA 55(1)(a)",))
    assert rows["nist-ai-600-1"].cells["deceptive-alignment"].sight == "silent"


# The page


def test_the_page_holds_the_matrix_of_today():
    page = PAGE.read_text(encoding="utf-8")
    assert with_matrix(page, shipped_matrix()) == page, "run 'make docs'"


def test_the_matrix_replaces_only_what_stands_between_its_lines():
    page = PAGE.read_text(encoding="utf-8")
    (row,) = failure_matrix([made()], MODES.values(), claims())
    other = with_matrix(page, [row])
    assert "| 1 | `made` |" in other and "`gpai-cop` | text |" not in other
    assert with_matrix(other, shipped_matrix()) == page
    with pytest.raises(ValueError, match="expected a page with the lines"):
        with_matrix("# no matrix here", [row])


def test_the_markdown_has_a_row_per_framework_and_per_failure_mode():
    lines = matrix_markdown(shipped_matrix()).splitlines()
    assert sum(line.startswith("| `") for line in lines) == len(MODES)
    widths = {line.count("|") for line in lines if line.startswith("| `")}
    assert widths == {21 + 2}
