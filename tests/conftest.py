"""Shared fixtures: real data, one thread, and shape checking of every tensor function under test."""

import os
from pathlib import Path

for _library in (
    "OMP",
    "OPENBLAS",
    "MKL",
):  # read when NumPy and torch load; more threads only fight over the test runner's cores
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import pytest  # noqa: E402
import torch  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

install_import_hook(["auditgap.models", "auditgap.instruments", "auditgap.organisms"], "beartype.beartype")
torch.set_num_threads(1)
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real files; tests that need it skip, and say so, where it is absent."""
    folder = Path(os.environ.get("AUDITGAP_SHARED_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set AUDITGAP_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def stories(shared_data: Path) -> Path:
    """stories260K, a real pretrained Llama-architecture model of 260,032 parameters."""
    return shared_data / "models" / "stories260K"
