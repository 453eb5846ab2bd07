"""The example audit as fixtures."""

import pytest
from example_audit import make_audit

from auditgap.report import Audit


@pytest.fixture(scope="session")
def held() -> Audit:
    return make_audit("hold")


@pytest.fixture(scope="session")
def disclosed() -> Audit:
    return make_audit("pass-with-disclosed-gap")


@pytest.fixture(scope="session")
def bare(held: Audit) -> Audit:
    """No decision, no assessment, no evidence: the least there can be."""
    return held._replace(
        decision=None,
        decision_digest=None,
        assessments=[],
        evidence=[],
        registrations={},
        claims={},
        requirements={},
        n_statements=0,
    )
