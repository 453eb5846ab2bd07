"""A safety case as one self-contained SVG in GSN notation: the same bytes for the same case.

Goal rectangle, strategy parallelogram, solution circle, context rounded, assumption and justification ellipses marked A and J,
undeveloped a diamond below, defeater a purple octagon. Lines run below the boxes: filled heads for support, hollow ones for
context, dashed purple ones for what defeats. Places come from `gsn_layout`.

Texts are escaped and unseen characters spelled out. Colour never stands alone: every state is also written in words.
Source: GSN Community Standard v3 (SCSC-141C) (unverified); defeaters are drawn our way.
"""

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from auditgap.governance.safety_case import Case, JudgedCase
from auditgap.report.gsn_layout import DEFEATER, DIAMOND, FONT, GAP, INK, LINE, ROW, SLANT, At, Page, Text, lay_out, wrap
from auditgap.report.numbers import visible

__all__ = ["gsn_svg"]

_CUT = 10
"""Corner of a defeater's octagon."""


def gsn_svg(case: Case, judged: JudgedCase | None = None) -> str:
    """The case as one `<svg>` document; with `judged`, each part says its doubt, its health and whether it is in date."""
    page = lay_out(case, judged)
    title = [case.name, f"Setting: {case.setting}", *_summary(case, judged)]
    head = [line for text in title for line in wrap(text, max(page.width, 420))]
    top = len(head) * (LINE + 2) + 16
    width, height = math.ceil(max(page.width, 420) + 24), math.ceil(page.height + top + 60)
    svg = ET.Element(
        "svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {height}", width=f"{width}", height=f"{height}"
    )
    svg.set("font-family", "Helvetica, Arial, 'Liberation Sans', sans-serif")
    svg.set("font-size", f"{FONT}")
    ET.SubElement(svg, "title").text = visible(case.name)
    ET.SubElement(svg, "rect", width=f"{width}", height=f"{height}", fill="#ffffff")
    for i, line in enumerate(head):
        _text(svg, 12, 18 + i * (LINE + 2), Text(line, bold=i == 0), anchor="start")
    drawing = ET.SubElement(svg, "g", transform=f"translate(12 {top})")
    _lines(drawing, case, page)
    for at in page.placed.values():
        _draw(drawing, at)
    legend = (
        "Rectangle goal, parallelogram strategy, circle solution, rounded context, ellipse assumption (A) or justification (J), "
    )
    legend += "diamond undeveloped, purple octagon defeater (dashed: answered)."
    for i, line in enumerate(wrap(legend, width - 24)):
        _text(svg, 12, height - 34 + i * LINE, Text(line, colour="#555555"), anchor="start")
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


# Lines and shapes


def _lines(parent: ET.Element, case: Case, page: Page) -> None:
    placed = page.placed
    for name in page.tree:
        for child in case.below(name):
            aside = child in page.stacked
            row = placed[page.tree[name][0] if aside and child in page.tree[name] else child].y
            _support(parent, placed[name], placed[child], turn=row - ROW / 2, aside=aside)
        for note in case.beside(name):
            _link(parent, placed[name], placed[note], INK, hollow=True)
    for defeater in case.defeaters:
        _link(parent, placed[defeater.id], placed[defeater.defeats], DEFEATER, dashed=True)


def _support(parent: ET.Element, above: At, below: At, *, turn: float, aside: bool) -> None:
    """Down from the part, across just above the row below, and into the top of what supports it; into its side in a stack."""
    x, y = above.middle[0], above.y + above.box.height
    end, top = below.middle[0], below.y
    if aside:
        side, middle = below.x - GAP / 2, below.middle[1]
        _path(parent, [(x, y), (x, turn), (side, turn), (side, middle), (below.x, middle)])
        _head(parent, (below.x, middle), (1, 0), INK, hollow=False)
        return
    _path(parent, [(x, y), (x, turn), (end, turn), (end, top)])
    _head(parent, (end, top), (0, 1), INK, hollow=False)


def _link(parent: ET.Element, one: At, other: At, colour: str, *, hollow: bool = False, dashed: bool = False) -> None:
    """A straight line between the facing sides of two boxes."""
    right = one.middle[0] < other.middle[0]
    start, end = one.side(right=right), other.side(right=not right)
    _path(parent, [start, end], colour=colour, dashed=dashed)
    length = math.dist(start, end) or 1.0
    _head(parent, end, ((end[0] - start[0]) / length, (end[1] - start[1]) / length), colour, hollow=hollow)


def _path(parent: ET.Element, points: Sequence[tuple[float, float]], *, colour: str = INK, dashed: bool = False) -> None:
    line = ET.SubElement(parent, "polyline", points=_points(points), fill="none", stroke=colour)
    if dashed:
        line.set("stroke-dasharray", "5 3")


def _head(parent: ET.Element, tip: tuple[float, float], way: tuple[float, float], colour: str, *, hollow: bool) -> None:
    (x, y), (dx, dy) = tip, way
    corners = [(x, y), (x - 8 * dx + 4 * dy, y - 8 * dy - 4 * dx), (x - 8 * dx - 4 * dy, y - 8 * dy + 4 * dx)]
    ET.SubElement(parent, "polygon", points=_points(corners), fill="#ffffff" if hollow else colour, stroke=colour)


def _draw(parent: ET.Element, at: At) -> None:
    x, y, box = at
    width, height = box.width, box.height - (2 * DIAMOND if box.undeveloped else 0)
    group = ET.SubElement(parent, "g", {"data-part": box.id, "data-kind": box.kind})
    look = {"fill": "#ffffff", "stroke": INK}
    if box.kind == "defeater":
        look = {"fill": "#f8effb", "stroke": DEFEATER} | ({"stroke-dasharray": "5 3"} if box.dashed else {})
    frame = {"x": _n(x), "y": _n(y), "width": _n(width), "height": _n(height)}
    match box.kind:
        case "solution" | "assumption" | "justification":
            cx, cy = at.middle
            ET.SubElement(group, "ellipse", look | {"cx": _n(cx), "cy": _n(cy), "rx": _n(width / 2), "ry": _n(height / 2)})
        case "context":
            ET.SubElement(group, "rect", look | frame | {"rx": "14"})
        case "goal":
            ET.SubElement(group, "rect", look | frame)
        case "strategy":
            corners = [(x + SLANT, y), (x + width, y), (x + width - SLANT, y + height), (x, y + height)]
            ET.SubElement(group, "polygon", look | {"points": _points(corners)})
        case "defeater":
            ET.SubElement(group, "polygon", look | {"points": _points(_octagon(x, y, width, height))})
    if box.kind in ("assumption", "justification"):
        _text(group, x + width - 14, y + height - 6, Text(box.kind[0].upper(), bold=True))
    if box.undeveloped:
        cx, cy = x + width / 2, y + height + DIAMOND
        diamond = [(cx, cy - DIAMOND), (cx + DIAMOND, cy), (cx, cy + DIAMOND), (cx - DIAMOND, cy)]
        ET.SubElement(group, "polygon", points=_points(diamond), fill="#ffffff", stroke=INK)
    first = y + (height - len(box.lines) * LINE) / 2 + FONT
    for i, line in enumerate(box.lines):
        _text(group, x + width / 2, first + i * LINE, line)


def _octagon(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    right, bottom, c = x + width, y + height, _CUT
    upper = [(x + c, y), (right - c, y), (right, y + c), (right, bottom - c)]
    return [*upper, (right - c, bottom), (x + c, bottom), (x, bottom - c), (x, y + c)]


def _text(parent: ET.Element, x: float, y: float, text: Text, *, anchor: str = "middle") -> None:
    element = ET.SubElement(parent, "text", {"x": _n(x), "y": _n(y), "text-anchor": anchor, "fill": text.colour})
    if text.bold:
        element.set("font-weight", "bold")
    element.text = text.words


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _summary(case: Case, judged: JudgedCase | None) -> list[str]:
    review = (
        f"Prepared by {case.prepared_by}; reviewed independently by {case.reviewed_by or 'nobody'}; review by {case.review_by}."
    )
    if judged is None:
        return [review, "No store was given: the structure only."]
    on = f"On {judged.today}, subject {judged.subject}. " if judged.subject else f"On {judged.today}, no store. "
    numbers = f"Doubts from the table entered by {judged.doubt_entered_by}; "
    n = judged.n_assumptions
    return [review, on + numbers + f"the bound holds given {n} assumption{'' if n == 1 else 's'}."]
