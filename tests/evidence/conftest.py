"""A filled store, made once and copied for each test that alters it."""

import shutil
from pathlib import Path

import pytest
from ledger_examples import fill

from auditgap.evidence import Store, bundle


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled store that nobody writes to, with its bundle beside it as `bundle.zip`."""
    folder = tmp_path_factory.mktemp("pristine") / "store"
    with Store.open(folder) as store:
        fill(store)
        bundle(store, folder.parent / "bundle.zip")
    return folder


@pytest.fixture
def filled(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the filled store, to be altered."""
    return Path(shutil.copytree(pristine, tmp_path / "store"))
