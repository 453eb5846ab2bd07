"""Where everything of a safety case goes on the page: boxes sized to their wrapped text, then rows and columns.

1. Every part becomes a box of the size of its shape; a letter's width is an estimate on the wide side.
2. A goal, strategy or solution makes a block with what stands beside it: context and assumptions left, its defeaters right.
3. Rows are depths; a subtree is as wide as its widest row. Leaves of one parent are stacked, so that the page stays narrow.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from auditgap.governance.safety_case import Case, Defeater, Goal, JudgedCase, Kind, Strategy
from auditgap.report.numbers import visible

__all__ = [
    "DEFEATER",
    "DIAMOND",
    "FONT",
    "GAP",
    "INK",
    "LINE",
    "ROW",
    "SLANT",
    "At",
    "Box",
    "Page",
    "Text",
    "lay_out",
    "measure",
    "wrap",
]

FONT, LINE, _PAD, GAP, ROW = 11, 14, 9, 26, 44
_WIDTH: dict[Kind, int] = {"goal": 190, "strategy": 190, "context": 140, "assumption": 170, "justification": 170, "defeater": 160}
SLANT, DIAMOND = 16, 8
INK, DEFEATER = "#1a1a1a", "#7b1fa2"
_HEALTH = {"green": "#2e7d32", "amber": "#9a5b00", "red": "#b3261e"}
_NARROW, _WIDE = "iljtfrI.,;:'|!()[] ", "mwMW@%—"


class Text(NamedTuple):
    words: str
    bold: bool = False
    colour: str = INK


@dataclass(frozen=True)
class Box:
    """One part with its shape's size and its lines of text; the origin is the top left corner."""

    id: str
    kind: Kind
    lines: tuple[Text, ...]
    width: float
    height: float
    undeveloped: bool = False
    dashed: bool = False


class At(NamedTuple):
    x: float
    y: float
    box: Box

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.box.width / 2, self.y + self.box.height / 2

    def side(self, *, right: bool) -> tuple[float, float]:
        """The middle of one side of the shape."""
        inset = SLANT / 2 if self.box.kind == "strategy" else 0
        return (self.x + self.box.width - inset if right else self.x + inset), self.middle[1]


@dataclass(frozen=True)
class _Block:
    """A goal, strategy or solution with what is beside it: columns from left to right, the part itself in column `main`."""

    columns: tuple[tuple[Box, ...], ...]
    main: int

    @property
    def width(self) -> float:
        return sum(_column_width(c) for c in self.columns) + GAP * (len(self.columns) - 1)

    @property
    def height(self) -> float:
        return max(_column_height(c) for c in self.columns)

    @property
    def before(self) -> float:
        """From the block's left edge to the middle of its part."""
        return sum(_column_width(c) + GAP for c in self.columns[: self.main]) + _column_width(self.columns[self.main]) / 2

    def placed(self, x: float, y: float) -> Iterator[At]:
        for column in self.columns:
            width, below = _column_width(column), y
            for box in column:
                yield At(x + (width - box.width) / 2, below, box)
                below += box.height + _PAD
            x += width + GAP


class Page(NamedTuple):
    """Every part in its place, and the tree that was drawn: each part below the parent that is reached first."""

    placed: dict[str, At]
    tree: dict[str, tuple[str, ...]]
    stacked: set[str]
    """Parts below the first of a stack: what supports them enters from the side."""

    @property
    def width(self) -> float:
        return max(at.x + at.box.width for at in self.placed.values())

    @property
    def height(self) -> float:
        return max(at.y + at.box.height for at in self.placed.values())


def lay_out(case: Case, judged: JudgedCase | None) -> Page:
    """Sizes and places of every part; the same for the same case."""
    blocks, tree = _blocks(case, judged)
    later = {child for name in tree if _stacks(name, blocks, tree) for child in tree[name][1:]}
    return Page(_layout(case, blocks, tree), tree, later)


def wrap(text: str, width: float) -> list[str]:
    """Text in lines no wider than `width` pixels at the font's size, by a wide estimate of each letter; long words are broken."""
    lines, line = [], ""
    for word in visible(text).split():
        while measure(word) > width:
            cut = next(i for i in range(len(word), 0, -1) if i == 1 or measure(word[:i]) <= width)
            lines, line, word = [*lines, *([line] if line else []), word[:cut]], "", word[cut:]
        joined = f"{line} {word}".strip()
        if line and measure(joined) > width:
            lines, line = [*lines, line], word
        else:
            line = joined
    return [*lines, line] if line else lines


def measure(text: str) -> float:
    """Pixels: on the wide side for Helvetica and what stands in for it."""
    return (
        sum(0.36 if c in _NARROW else 1.0 if c in _WIDE or ord(c) > 0x2E80 else 0.74 if c.isupper() else 0.6 for c in text) * FONT
    )


# Boxes


def _blocks(case: Case, judged: JudgedCase | None) -> tuple[dict[str, _Block], dict[str, tuple[str, ...]]]:
    """Blocks by id of their part, and the tree: each part below the parent that is reached first."""
    nodes, kinds = case.nodes(), case.kinds()
    seen: set[str] = set()
    tree: dict[str, tuple[str, ...]] = {}
    blocks: dict[str, _Block] = {}

    def visit(name: str) -> None:
        beside = [note for note in case.beside(name) if note not in seen]
        seen.update((name, *beside))
        against = {target: [d for d in case.defeaters if d.defeats == target] for target in (name, *beside)}
        columns = [
            tuple(_defeater(d, judged) for note in beside for d in against[note]),
            tuple(_box(note, kinds[note], [Text(note, bold=True), *_body(nodes[note].text, kinds[note])]) for note in beside),
            (_main(case, name, judged),),
            tuple(_defeater(d, judged) for d in against[name]),
        ]
        kept = [column for column in columns if column]
        blocks[name] = _Block(tuple(kept), kept.index(columns[2]))
        children = []
        for child in case.below(name):
            if child not in seen:
                children.append(child)
                visit(child)
        tree[name] = tuple(children)

    visit(case.top())
    return blocks, tree


def _body(text: str, kind: Kind) -> list[Text]:
    inner = {"solution": 0, "assumption": 0.72, "justification": 0.72}.get(kind)
    width = _WIDTH[kind] * inner if inner else _WIDTH[kind] - 2 * _PAD - (2 * SLANT if kind == "strategy" else 0)
    return [Text(line) for line in wrap(text, width)]


def _main(case: Case, name: str, judged: JudgedCase | None) -> Box:
    node, kind = case.nodes()[name], case.kinds()[name]
    label = name if not isinstance(node, Strategy) or node.argument is None else f"{name} ({node.argument})"
    state: list[Text] = []
    if judged is not None:
        standing = judged.standing(name)
        words = (f"doubt ≤ {standing.at_most}", f"{standing.health}, {standing.timeliness}")
        state = [Text(said, bold=i == 1, colour=_HEALTH[standing.health]) for i, said in enumerate(words)]
    head = [Text(line, bold=True) for line in wrap(label, 130)]
    if kind == "solution":
        return _circle(name, head, node.text, state)
    undeveloped = isinstance(node, Goal | Strategy) and node.undeveloped is not None
    return _box(name, kind, [*head, *_body(node.text, kind), *state], undeveloped=undeveloped)


def _defeater(defeater: Defeater, judged: JudgedCase | None) -> Box:
    stands = defeater.status == "open" if judged is None else defeater.id in judged.open_defeaters
    status = "lapsed" if stands and defeater.status == "accepted" else defeater.status
    if status == "accepted":
        status = f"accepted until {defeater.until}"
    said = [
        Text(line, bold=True, colour=DEFEATER) for line in wrap(f"{defeater.id} ({defeater.kind})", _WIDTH["defeater"] - 2 * _PAD)
    ]
    said += [*_body(defeater.text, "defeater"), Text(status, bold=True, colour=DEFEATER)]
    return _box(defeater.id, "defeater", said, dashed=not stands)


def _box(name: str, kind: Kind, lines: Sequence[Text], *, undeveloped: bool = False, dashed: bool = False) -> Box:
    text = len(lines) * LINE
    height = text / 0.64 + _PAD if kind in ("assumption", "justification") else text + 2 * _PAD
    return Box(name, kind, tuple(lines), _WIDTH[kind], height + (2 * DIAMOND if undeveloped else 0), undeveloped, dashed)


def _circle(name: str, head: Sequence[Text], text: str, state: Sequence[Text]) -> Box:
    """The smallest circle whose inner rectangle holds the text."""
    for diameter in range(110, 1000, 10):
        lines = [*head, *(Text(line) for line in wrap(text, 0.76 * diameter)), *state]
        if len(lines) * LINE <= 0.64 * diameter:
            return Box(name, "solution", tuple(lines), diameter, diameter)
    return Box(name, "solution", (*head, *(Text(line) for line in wrap(text, 760)), *state), 1000, 1000)


def _column_width(column: Sequence[Box]) -> float:
    return max(box.width for box in column)


def _column_height(column: Sequence[Box]) -> float:
    return sum(box.height for box in column) + _PAD * (len(column) - 1)


# Places


def _layout(case: Case, blocks: Mapping[str, _Block], tree: Mapping[str, tuple[str, ...]]) -> dict[str, At]:
    depths = _depths(case, tree)
    stacked = {child for name in tree for child in tree[name] if _stacks(name, blocks, tree)}
    tallest = [
        max((b.height for name, b in blocks.items() if depths[name] == d and name not in stacked), default=0)
        for d in range(max(depths.values()) + 1)
    ]
    rows = [sum(tallest[:d]) + ROW * d for d in range(len(tallest))]
    placed: dict[str, At] = {}

    def width(name: str) -> float:
        children = [width(child) for child in tree[name]]
        below = max(children, default=0) + GAP if _stacks(name, blocks, tree) else sum(children) + GAP * (len(children) - 1)
        return max(blocks[name].width, below)

    def place(name: str, x: float) -> None:
        room, block = width(name), blocks[name]
        children = tree[name]
        put(block, x + (room - block.width) / 2, rows[depths[name]])
        if _stacks(name, blocks, tree):
            middle, y = placed[name].middle[0], rows[depths[children[0]]]
            left = min(
                max(x, middle - max(blocks[c].width for c in children) / 2), x + room - max(blocks[c].width for c in children)
            )
            for child in children:
                put(blocks[child], max(left, x + GAP), y)
                y += blocks[child].height + _PAD
            return
        used = sum(width(child) for child in children) + GAP * (len(children) - 1)
        x += (room - used) / 2
        for child in children:
            place(child, x)
            x += width(child) + GAP

    def put(block: _Block, x: float, y: float) -> None:
        placed.update({at.box.id: at for at in block.placed(x, y)})

    place(case.top(), 0)
    return placed


def _depths(case: Case, tree: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Longest way from the top, so that every line of support runs downwards."""
    parents: dict[str, list[str]] = {name: [] for name in tree}
    for name in tree:
        for child in case.below(name):
            parents[child].append(name)
    depths: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in depths:
            depths[name] = max((depth(parent) + 1 for parent in parents[name]), default=0)
        return depths[name]

    return {name: depth(name) for name in tree}


def _stacks(name: str, blocks: Mapping[str, _Block], tree: Mapping[str, tuple[str, ...]]) -> bool:
    """True if the children stand below one another: several leaves with nothing to their left."""
    children = tree[name]
    return len(children) > 1 and all(not tree[child] and blocks[child].main == 0 for child in children)
