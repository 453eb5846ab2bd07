"""What came out of a registered run."""

from typing import Annotated, Literal

from pydantic import Field

from auditgap.records.access import Access
from auditgap.records.base import Date, Digest, Number, Record, UtcTime
from auditgap.records.claim import Verdict
from auditgap.records.measurement import Control, Measured, Measurement
from auditgap.records.subject import FileDigest, Subject

__all__ = [
    "Curve",
    "Environment",
    "Evidence",
    "Figure",
    "Graph",
    "GraphEdge",
    "GraphNode",
    "Grid",
    "Imported",
    "Property",
    "Result",
    "Sample",
]

Property = Literal[
    "intervention",
    "necessity",
    "sufficiency",
    "specificity",
    "consistency",
    "held-out",
    "out-of-distribution",
    "control-task",
    "random-baseline",
    "two-ablations",
    "search-null",
]
"""What the evidence was shown to have; an instrument lists a property only if the control that proves it passed."""


class Curve(Record):
    """A line, with an optional band: layer sweeps, ROC curves, dose-response."""

    kind: Literal["curve"] = "curve"
    name: str
    title: str
    x_label: str
    y_label: str
    x: tuple[Number, ...]
    y: tuple[Number, ...]
    low: tuple[Number, ...] = ()
    high: tuple[Number, ...] = ()
    reference: tuple[Number, ...] = ()
    """The null or chance line at the same x; empty if there is none."""


class Grid(Record):
    """A heat map: layers by positions."""

    kind: Literal["grid"] = "grid"
    name: str
    title: str
    x_label: str
    y_label: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    values: tuple[tuple[Number, ...], ...]
    """`values[row][column]`."""


class GraphNode(Record):
    """One node, placed in a column (usually a token position) and a row (usually a depth, counted from the bottom)."""

    label: str
    column: int = Field(ge=0)
    row: int = Field(ge=0)
    weight: Number
    """Signed size of what the node does; in the units of the title."""


class GraphEdge(Record):
    """What one node brings directly to another."""

    source: int = Field(ge=0)
    target: int = Field(ge=0)
    weight: Number


class Graph(Record):
    """Nodes and directed edges: attribution graphs."""

    kind: Literal["graph"] = "graph"
    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    """`source` and `target` are indices of `nodes`."""


Figure = Annotated[Curve | Grid | Graph, Field(discriminator="kind")]


class Sample(Record):
    """One input and what the model did with it, drawn at random by the run's seed."""

    prompt: str
    output: str
    note: str = ""


class Result(Record):
    """What an instrument returns: everything that depends on model, data, config and seed, and nothing that does not."""

    measurements: tuple[Measurement, ...] = Field(min_length=1)
    controls: tuple[Control, ...]
    properties: tuple[Property, ...] = ()
    verdict: Verdict
    """On the hypothesis of the instrument's card."""
    summary: str
    """One sentence a person can quote, with its number and its limits."""
    figures: tuple[Figure, ...] = ()
    samples: tuple[Sample, ...] = ()
    flip_rate: Measured | None = None
    """Share of pairs of reasonable specifications whose conclusions differ; None if only one was run."""

    def measurement(self, name: str) -> Measurement | None:
        """The measurement of that name, or None."""
        return next((m for m in self.measurements if m.name == name), None)


class Environment(Record):
    """What else could have moved the numbers."""

    python: str
    platform: str
    packages: dict[str, str]
    """Version of each library that computes."""
    device: str
    dtype: str
    attention: str
    """Attention kernel, e.g. `sdpa`."""
    threads: int


class Imported(Record):
    """Where results come from that existed before anything was registered: another tool's log."""

    registered: Literal[False] = False
    """Always false: a bar that is set after the results is no registered bar."""
    files: tuple[FileDigest, ...] = Field(min_length=1)
    """The log as it was read. The files are not kept; the scores read from them are, as the registered data."""
    claims: tuple[str, ...] = ()
    """Ids of the claims that whoever imported it says it bears on; the verdict `supported` speaks for them."""


class Evidence(Record):
    """A registration's result. Signed, append-only."""

    schema_version: Literal["auditgap.dev/evidence/v1"] = "auditgap.dev/evidence/v1"
    registration: Digest
    """Digest of the signed registration statement."""
    spec: Digest
    """`Registration.spec()`: equal for independent re-runs of the same measurement."""
    step: str
    instrument: str
    version: str
    subject: Subject
    granted: Access
    """Measured by trying, never typed in."""
    result: Result
    environment: Environment
    started_at: UtcTime
    finished_at: UtcTime
    expires: Date
    non_claims: tuple[str, ...]
    """What this evidence does not show: the instrument's blind spots."""
    imported: Imported | None = Field(default=None, exclude_if=lambda imported: imported is None)
    """None for what was run as registered."""
