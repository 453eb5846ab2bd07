"""From a model to signed evidence, the gap per requirement and a release decision.

    import auditgap

    model = auditgap.open_model("path/to/model")
    auditgap.run("linear-probe", model, data="shipped:harmful-harmless")     # one instrument, shown as tables and figures
    auditgap.audit(model, "plan.yaml", store="out/store")                    # registered, signed, decided
    auditgap.gap("out/store")                                                # what the evidence cannot carry
    auditgap.gate("out/store", "policy.yaml")                                # ship, or stop and why

Names are loaded when they are first used: reading evidence needs no torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from auditgap.auditing import audit, run
    from auditgap.judge import gap, gate, write_report
    from auditgap.models import open_model

__all__ = ["audit", "gap", "gate", "open_model", "run", "write_report"]

_HOME = {
    "audit": "auditgap.auditing",
    "gap": "auditgap.judge",
    "gate": "auditgap.judge",
    "open_model": "auditgap.models",
    "run": "auditgap.auditing",
    "write_report": "auditgap.judge",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'auditgap' has no attribute '{name}'; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
