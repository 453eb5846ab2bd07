"""Open a model, read and edit its activations, patch between its runs: plain hooks on the model that ships."""

from auditgap.models.capture import Positions, capture, capture_tokens, stream
from auditgap.models.edit import Ablation, Edit, ablating, add, editing, project_out, replace
from auditgap.models.generate import generate, log_likelihood, next_logits
from auditgap.models.gradients import integrated_gradients, site_gradients
from auditgap.models.model import Model
from auditgap.models.next_token import behaviour_score, kl_nats
from auditgap.models.open import open_model
from auditgap.models.orthogonalise import Writer, orthogonalising, residual_writers
from auditgap.models.parameters import ParameterCount, count_parameters
from auditgap.models.patch import HeadSweep, Sweep, head_sweep, patching_sweep
from auditgap.models.sites import BlockSites, Site, SiteMap, SiteRow, Write
from auditgap.models.tokens import Tokens, token_id, tokenize
from auditgap.models.validate import Validity, validate_sites

__all__ = [
    "Ablation",
    "BlockSites",
    "Edit",
    "HeadSweep",
    "Model",
    "ParameterCount",
    "Positions",
    "Site",
    "SiteMap",
    "SiteRow",
    "Sweep",
    "Tokens",
    "Validity",
    "Write",
    "Writer",
    "ablating",
    "add",
    "behaviour_score",
    "capture",
    "capture_tokens",
    "count_parameters",
    "editing",
    "generate",
    "head_sweep",
    "integrated_gradients",
    "kl_nats",
    "log_likelihood",
    "next_logits",
    "open_model",
    "orthogonalising",
    "patching_sweep",
    "project_out",
    "replace",
    "residual_writers",
    "site_gradients",
    "stream",
    "token_id",
    "tokenize",
    "validate_sites",
]
