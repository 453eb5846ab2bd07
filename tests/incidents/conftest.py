"""Shared by the tests of incidents."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from auditgap.evidence import Store


@pytest.fixture(autouse=True, scope="module")
def effects_in_memory() -> Iterator[None]:
    """Put the effect ledgers of hundreds of runs where a commit does not wait for a disk."""
    with pytest.MonkeyPatch.context() as patch:
        if Path("/dev/shm").is_dir():
            patch.setattr(tempfile, "tempdir", "/dev/shm")
        yield


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened
