"""The controls of the reference agent, outermost first."""

from auditgap.release.agent.controls.approval import Approval
from auditgap.release.agent.controls.audit import Audit
from auditgap.release.agent.controls.authorisation import Authorisation
from auditgap.release.agent.controls.chain_order import ChainOrder
from auditgap.release.agent.controls.idempotency import Idempotency
from auditgap.release.agent.controls.monitor import Monitor
from auditgap.release.agent.controls.pinning import Pinning, pin
from auditgap.release.agent.controls.rate_limit import RateLimit
from auditgap.release.agent.controls.redaction import Redaction
from auditgap.release.agent.controls.result_guard import ResultGuard
from auditgap.release.agent.controls.retry import Retry
from auditgap.release.agent.controls.rollback import Rollback
from auditgap.release.agent.controls.validator import Validator

__all__ = [
    "Approval",
    "Audit",
    "Authorisation",
    "ChainOrder",
    "Idempotency",
    "Monitor",
    "Pinning",
    "RateLimit",
    "Redaction",
    "ResultGuard",
    "Retry",
    "Rollback",
    "Validator",
    "pin",
]
