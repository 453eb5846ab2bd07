"""A drawn safety case: every part once in its shape, nothing on top of anything else, the same bytes, nothing that could run."""

import datetime as dt
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditgap.governance import claims, licences
from auditgap.governance.safety_case import Case, JudgedCase, Leaf, doubt_table, judge_case, load_case
from auditgap.report.gsn import gsn_svg
from auditgap.report.gsn_layout import Box, lay_out, measure, wrap
from governance.safety_case.case_examples import argued

SVG = "{http://www.w3.org/2000/svg}"
EXAMPLES = Path(__file__).parents[2] / "examples" / "safety-case"
TODAY = dt.date(2026, 11, 21)
SHAPE = {
    "goal": "rect",
    "strategy": "polygon",
    "solution": "ellipse",
    "context": "rect",
    "assumption": "ellipse",
    "justification": "ellipse",
    "defeater": "polygon",
}


@pytest.fixture(scope="module")
def demo() -> Case:
    return load_case(EXAMPLES / "demo.yaml")


def judged(case: Case, today: dt.date = TODAY) -> JudgedCase:
    return judge_case(case, [], claims(), licences(), doubt_table(), subject=None, today=today)


def groups(svg: str) -> dict[str, ET.Element]:
    return {g.attrib["data-part"]: g for g in ET.fromstring(svg).iter(f"{SVG}g") if "data-part" in g.attrib}


def words(element: ET.Element) -> str:
    return " ".join(text.text or "" for text in element.iter(f"{SVG}text"))


@pytest.mark.parametrize("name", ["demo", "inability"])
def test_every_part_is_drawn_once_in_its_shape(name: str) -> None:
    case = load_case(EXAMPLES / f"{name}.yaml")
    drawn = groups(gsn_svg(case))
    assert sorted(drawn) == sorted(case.kinds())
    for part, kind in case.kinds().items():
        assert drawn[part][0].tag == SVG + SHAPE[kind], part
        for word in case.nodes()[part].text.split():
            assert word in words(drawn[part])


def test_marks_of_the_notation(demo: Case) -> None:
    drawn = groups(gsn_svg(demo))
    assert words(drawn["A1"]).split()[0] == "A" and words(drawn["J1"]).split()[0] == "J"
    assert len(drawn["G6"].findall(f"{SVG}polygon")) == 1 and not drawn["G5"].findall(f"{SVG}polygon")  # undeveloped, developed
    assert float(drawn["C1"][0].attrib["rx"]) > 0 and "rx" not in drawn["G1"][0].attrib
    stroke = {part: drawn[part][0].attrib["stroke"] for part in ("D1", "D2", "G1")}
    assert stroke["D1"] == stroke["D2"] != stroke["G1"]
    assert "stroke-dasharray" in drawn["D1"][0].attrib and "stroke-dasharray" not in drawn["D2"][0].attrib  # accepted, open


def test_states_are_written_in_words(demo: Case) -> None:
    drawn = groups(gsn_svg(demo, judged(demo)))
    assert "doubt ≤ 1.00 red, undated" in words(drawn["G1"])
    assert "doubt" not in words(groups(gsn_svg(demo))["G1"])
    assert "open" in words(drawn["D2"]) and "resolved" in words(drawn["D3"])
    assert "lapsed" in words(groups(gsn_svg(demo, judged(demo, dt.date(2027, 3, 1))))["D1"])


def test_the_same_case_gives_the_same_bytes(demo: Case) -> None:
    assert gsn_svg(demo, judged(demo)) == gsn_svg(load_case(EXAMPLES / "demo.yaml"), judged(demo))


def test_a_bound_is_rounded_up_never_down(demo: Case) -> None:
    low = [s.model_copy(update={"doubt": 0.301}) for s in judged(demo).standings]
    assert "doubt ≤ 0.31" in gsn_svg(demo, judged(demo).model_copy(update={"standings": tuple(low)}))


def test_hostile_text_stays_text(demo: Case) -> None:
    evil = "</text><script>alert(1)</script>\u202e<image href='http://x/'/>"
    goals = tuple(g.model_copy(update={"text": evil}) for g in demo.goals)
    svg = gsn_svg(demo.model_copy(update={"goals": goals, "name": evil}))
    root = ET.fromstring(svg)
    assert {e.tag.removeprefix(SVG) for e in root.iter()} <= {
        "svg",
        "title",
        "rect",
        "g",
        "polyline",
        "polygon",
        "ellipse",
        "text",
    }
    assert "\u202e" not in svg and "⟨U+202E⟩" in svg
    assert not any("href" in name for e in root.iter() for name in e.attrib)


@settings(max_examples=60, deadline=None)
@given(argued())
def test_no_part_lies_on_another_and_all_lie_on_the_page(made: tuple[Case, dict[str, Leaf]]) -> None:
    case, _ = made
    page = lay_out(case, None)
    assert sorted(page.placed) == sorted(case.kinds())
    for one, other in combinations(page.placed.values(), 2):
        apart = one.x + one.box.width <= other.x + 1e-6 or other.x + other.box.width <= one.x + 1e-6
        above = one.y + one.box.height <= other.y + 1e-6 or other.y + other.box.height <= one.y + 1e-6
        assert apart or above, (one, other)
    assert min(at.x for at in page.placed.values()) >= 0


@given(st.text(max_size=300), st.integers(60, 300))
def test_wrapped_lines_fit_and_lose_no_word(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(measure(line) <= width for line in lines)
    plain = "".join("".join(lines).split())
    assert sum(c.isalnum() for c in plain) >= sum(c.isalnum() for c in text if c.isascii())


@pytest.mark.parametrize("name", ["demo", "inability"])
def test_text_fits_its_shape(name: str) -> None:
    def room(box: Box, offset: float) -> float:
        if box.kind in ("solution", "assumption", "justification"):
            return box.width * max(0.0, 1 - (2 * offset / box.height) ** 2) ** 0.5
        return box.width

    for at in lay_out(load_case(EXAMPLES / f"{name}.yaml"), None).placed.values():
        for i, line in enumerate(at.box.lines):
            edge = max(abs(i - len(at.box.lines) / 2), abs(i + 1 - len(at.box.lines) / 2)) * 14
            assert measure(line.words) <= room(at.box, edge) + 1, (at.box.id, line.words)
