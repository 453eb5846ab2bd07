"""Stored figures as inline SVG: no script, no outside resource, the same bytes for the same figure.

1. Matplotlib draws on a `Figure` object of its own (never pyplot) with text kept as text.
2. The SVG is parsed, and all that HTML does not need is dropped: namespaces, metadata, style sheets, unreferenced ids.
3. Ids get a prefix, so that many figures fit on one page; black ink becomes `currentColor`, so that it follows the page.

Labels may hold model output: they are escaped, never parsed as mathematics, and unseen characters are spelled out.
"""

import io
import re
import threading
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from auditgap.errors import UsageError
from auditgap.records import Curve, Figure, Graph, Grid
from auditgap.report.graphs import check_graph, draw_graph
from auditgap.report.numbers import short, visible

__all__ = ["INK", "LINE", "describe", "drawn", "figure_svg", "standalone"]

INK, LINE = "#010203", "#2f7fc1"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "auditgap",
    "text.parse_math": False,
    "axes.unicode_minus": False,
    "font.size": 9,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
_MAX_LABELS, _MAX_PRINTED_CELLS = 24, 80
_drawing = threading.Lock()
"""Matplotlib's settings and font cache belong to the process, and web pages draw from many threads."""


def figure_svg(figure: Figure, *, prefix: str = "figure") -> str:
    """A stored figure as one `<svg>` element, to be placed inside HTML.

    Args:
        figure: a curve with its band and reference line, a heat map, or a graph.
        prefix: starts every id inside; give each figure of a page its own.

    Raises:
        UsageError: the figure's columns differ in length or it has no points, so there is nothing to draw.
    """
    return drawn(lambda: _canvas(figure), prefix=prefix, label=lambda: describe(figure))


def drawn(canvas: Callable[[], Canvas], *, prefix: str, label: Callable[[], str]) -> str:
    """A matplotlib canvas as one `<svg>` element in the style of the report.

    `label`, for readers who cannot see it, is asked once the canvas is drawn: drawing refuses what cannot be described.
    """
    with _drawing, style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # text stays text: the reader's fonts draw it
        svg = io.StringIO()
        canvas().savefig(svg, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(svg.getvalue(), prefix=prefix, label=label())


def standalone(svg: str) -> str:
    """An inline figure as a file that image viewers show: black on white, with its namespaces."""
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="640" style="background:#fff;color:#111" '
    return svg.replace("xlink:href", "href").replace("<svg ", head, 1)


def _canvas(figure: Figure) -> Canvas:
    match figure:
        case Curve():
            return _curve(figure)
        case Grid():
            return _grid(figure)
        case Graph():
            return _graph(figure)


def describe(figure: Figure) -> str:
    """A figure in words, for readers who cannot see it."""
    if isinstance(figure, Curve):
        if not figure.y:
            return f"{figure.title}: empty"
        low, high = int(np.argmin(figure.y)), int(np.argmax(figure.y))
        extremes = (("lowest", low), ("highest", high))
        ends = ", ".join(f"{word} {short(figure.y[i])} at {short(figure.x[i])}" for word, i in extremes)
        return f"{figure.title}: {figure.y_label} against {figure.x_label}, {len(figure.y)} points, {ends}."
    if isinstance(figure, Graph):
        strongest = sorted(figure.edges, key=lambda edge: -abs(edge.weight))[:3]
        pairs = ", ".join(
            f"{figure.nodes[e.source].label} to {figure.nodes[e.target].label} {short(e.weight)}" for e in strongest
        )
        return f"{figure.title}: graph of {len(figure.nodes)} nodes and {len(figure.edges)} edges; strongest: {pairs or 'none'}."
    cells = [
        (value, row, column)
        for row, line in zip(figure.rows, figure.values, strict=False)
        for column, value in zip(figure.columns, line, strict=False)
    ]
    if not cells:
        return f"{figure.title}: empty"
    low, high = min(cells, key=lambda c: c[0]), max(cells, key=lambda c: c[0])
    ends = ", ".join(f"{word} {short(c[0])} at {c[1]}, {c[2]}" for word, c in (("lowest", low), ("highest", high)))
    return f"{figure.title}: heat map of {figure.y_label} by {figure.x_label}, {len(cells)} cells, {ends}."


def _curve(curve: Curve) -> Canvas:
    columns = {"y": curve.y, "low": curve.low, "high": curve.high, "reference": curve.reference}
    wrong = {name: len(values) for name, values in columns.items() if values and len(values) != len(curve.x)}
    if not curve.y or wrong or bool(curve.low) != bool(curve.high):
        raise UsageError(
            f"figure '{curve.name}': expected y, and any low, high and reference, to have as many values as x ({len(curve.x)}), "
            f"got {wrong or {name: len(values) for name, values in columns.items()}}; correct the instrument that made it"
        )
    canvas = Canvas(figsize=(4.7, 2.7), layout="constrained")
    axes = canvas.add_subplot()
    if curve.low:
        axes.fill_between(curve.x, curve.low, curve.high, color=LINE, alpha=0.22, linewidth=0, label="interval")
    if curve.reference:
        axes.plot(curve.x, curve.reference, color=INK, alpha=0.65, linestyle=(0, (4, 3)), linewidth=1, label="reference")
    marker = "o" if len(curve.x) <= 40 else ""
    axes.plot(curve.x, curve.y, color=LINE, linewidth=1.6, marker=marker, markersize=3, label="measured")
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.5)
    if all(x == int(x) for x in curve.x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if curve.low or curve.reference:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, frameon=False, fontsize=8, borderaxespad=0.2)
    return _labelled(canvas, axes, curve.x_label, curve.y_label)


def _grid(grid: Grid) -> Canvas:
    if (
        not grid.values
        or not grid.columns
        or {len(line) for line in grid.values} != {len(grid.columns)}
        or len(grid.values) != len(grid.rows)
    ):
        raise UsageError(
            f"figure '{grid.name}': expected {len(grid.rows)} rows of {len(grid.columns)} values, got rows of "
            f"{[len(line) for line in grid.values]}; correct the instrument that made it"
        )
    values = np.asarray(grid.values)
    canvas = Canvas(figsize=(4.7, min(6.0, 1.5 + 0.24 * len(grid.rows))), layout="constrained")
    axes = canvas.add_subplot()
    limit = float(np.abs(values).max())
    if values.min() < 0 < values.max():
        image = axes.imshow(values, aspect="auto", interpolation="none", cmap="PuOr", vmin=-limit, vmax=limit)
    else:
        image = axes.imshow(values, aspect="auto", interpolation="none", cmap="cividis")
    bar = canvas.colorbar(image, ax=axes, pad=0.02, fraction=0.05)
    bar.outline.set_linewidth(0)  # pyright: ignore[reportCallIssue]
    if values.size <= _MAX_PRINTED_CELLS and len(grid.columns) <= 10:
        for (row, column), value in np.ndenumerate(values):
            red, green, blue, _ = image.cmap(image.norm(value))
            ink = "#000000" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "#ffffff"
            axes.text(
                column,
                row,
                f"{value:.2f}" if limit >= 0.1 else short(float(f"{value:.2g}")),
                color=ink,
                fontsize=7,
                ha="center",
                va="center",
            )
    turned = 90 if max(len(name) for name in grid.columns) > 3 and len(grid.columns) > 8 else 0
    _ticks(axes.set_xticks, grid.columns, rotation=turned)
    _ticks(axes.set_yticks, grid.rows, rotation=0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return _labelled(canvas, axes, grid.x_label, grid.y_label)


def _graph(graph: Graph) -> Canvas:
    check_graph(graph)
    canvas = Canvas(
        figsize=(max(4.7, min(9.0, 0.9 * len(graph.columns))), min(6.0, 1.2 + 0.42 * len(graph.rows))), layout="constrained"
    )
    axes = draw_graph(graph, canvas, ink=INK)
    turned = {"rotation": 25, "ha": "right"} if len(graph.columns) > 4 else {}
    axes.set_xticks(range(len(graph.columns)), [visible(name) for name in graph.columns], fontsize=8, **turned)
    axes.set_yticks(range(len(graph.rows)), [visible(name) for name in graph.rows], fontsize=8)
    axes.tick_params(length=0)
    return canvas


def _ticks(place: Callable[..., object], names: tuple[str, ...], *, rotation: int) -> None:
    step = -(-len(names) // _MAX_LABELS)
    place(range(0, len(names), step), [_token(name) for name in names[::step]], rotation=rotation, fontsize=8)


def _token(name: str) -> str:
    shown = visible(name.replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣"))
    return shown if len(shown) <= 18 else f"{shown[:17]}…"


def _labelled(canvas: Canvas, axes: Axes, x_label: str, y_label: str) -> Canvas:
    axes.set_xlabel(visible(x_label))
    axes.set_ylabel(visible(y_label))
    return canvas


def _inline(svg: str, *, prefix: str, label: str) -> str:
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    used = set(re.findall(r"""(?:url\(#|href="#)([\w.-]+)""", svg))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        kept = {key: value for key, value in element.attrib.items() if key != "id" or value in used}
        element.attrib = {key.rpartition("}")[2]: _attribute(key, value, prefix) for key, value in kept.items()}
        if element.tag not in ("text", "tspan"):
            element.text = None
        element.tail = None
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.attrib |= {
        "role": "img",
        "aria-label": visible(label),
        "stroke-linejoin": "round",
        "font-family": "system-ui, sans-serif",
    }
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def _attribute(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return f"{prefix}-{value}"
    if key.endswith("href") and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    if key == "d":
        return re.sub(r"(\.\d{2})\d+", r"\1", value.replace("\n", "").strip())
    value = re.sub(r"font-family:[^;]*;?", "", value) if key == "style" else value
    return re.sub(r"url\(#", f"url(#{prefix}-", value).replace(INK, "currentColor")
