"""Telling drift of the model from drift of the tool layer: how far unsafe actions get, which incidents, which layer."""

from auditgap.release.diagnostics.adherence import (
    AdherenceShift,
    Cut,
    Finding,
    Match,
    ScriptedMove,
    StateShare,
    Vectors,
    compare_adherence,
    compare_scripted,
    vectors_of_run,
    vectors_of_sessions,
)
from auditgap.release.diagnostics.attribution import (
    LAYERS,
    LayerEffect,
    StateEffects,
    SwapEffects,
    attribute,
    mixtures,
    swap_effects,
)
from auditgap.release.diagnostics.clusters import (
    Category,
    Cluster,
    ClusterShift,
    Occupancy,
    category,
    compare_clusters,
    orders_of,
)
from auditgap.release.diagnostics.contrasts import Contrast, contrast
from auditgap.release.diagnostics.diagnosing import Diagnosis, diagnose, diagnose_files, read_run_or_stream
from auditgap.release.diagnostics.signatures import Signature, read_signature, sessions, signatures

__all__ = [
    "AdherenceShift",
    "Category",
    "Cluster",
    "ClusterShift",
    "Contrast",
    "Cut",
    "Diagnosis",
    "Finding",
    "LAYERS",
    "LayerEffect",
    "Match",
    "Occupancy",
    "ScriptedMove",
    "Signature",
    "StateEffects",
    "StateShare",
    "SwapEffects",
    "Vectors",
    "attribute",
    "category",
    "compare_adherence",
    "compare_clusters",
    "compare_scripted",
    "contrast",
    "diagnose",
    "diagnose_files",
    "mixtures",
    "orders_of",
    "read_run_or_stream",
    "read_signature",
    "sessions",
    "signatures",
    "swap_effects",
    "vectors_of_run",
    "vectors_of_sessions",
]
