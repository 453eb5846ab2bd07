"""Graphs as SVG: every node and edge is drawn where it belongs, and a graph with a loose end is refused."""

import xml.etree.ElementTree as ET

import pytest

from auditgap.errors import UsageError
from auditgap.records import Graph, GraphEdge, GraphNode
from auditgap.report import figure_svg
from auditgap.report.figures import describe
from auditgap.report.graphs import AGAINST, FOR


def node(label: str, column: int, row: int, weight: float = 1.0) -> GraphNode:
    return GraphNode(label=label, column=column, row=row, weight=weight)


def graph(**changes: object) -> Graph:
    base = Graph(
        name="graph",
        title="A graph",
        columns=("name", "end"),
        rows=("embedding", "heads 0", "target"),
        nodes=(node("emb", 0, 0), node("h0", 1, 1, 0.5), node("h1", 1, 1, -0.2), node("out", 1, 2)),
        edges=(GraphEdge(source=0, target=1, weight=0.6), GraphEdge(source=2, target=3, weight=-0.3)),
    )
    return base.model_copy(update=changes)


def test_nodes_edges_and_labels_are_drawn() -> None:
    svg = figure_svg(graph())
    texts = {element.text for element in ET.fromstring(svg).iter("text")}
    assert {"emb", "h0", "h1", "out", "name", "end", "heads 0"} <= texts
    lines = [p.get("style", "") for p in ET.fromstring(svg).iter("path") if "opacity" in p.get("style", "")]
    assert sum(FOR in style for style in lines) == 1, "one edge for"
    assert sum(AGAINST in style for style in lines) == 1, "one edge against"


def test_a_graph_without_edges_draws_none() -> None:
    svg = figure_svg(graph(edges=()))
    assert not [p for p in ET.fromstring(svg).iter("path") if FOR in p.get("style", "") and "opacity" in p.get("style", "")]
    assert "strongest: none" in describe(graph(edges=()))


def test_the_strongest_edge_is_said_first_and_the_drawing_is_the_same_twice() -> None:
    assert "2 edges; strongest: emb to h0 0.6" in describe(graph())
    assert figure_svg(graph()) == figure_svg(graph())


@pytest.mark.parametrize(
    "changes",
    [{"nodes": ()}, {"nodes": (node("far", 7, 0),)}, {"edges": (GraphEdge(source=0, target=9, weight=1.0),)}],
    ids=["empty", "outside", "loose"],
)
def test_a_graph_that_cannot_be_drawn_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="expected nodes inside"):
        figure_svg(graph(**changes))
