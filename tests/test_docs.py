"""Docs are tests: what is generated is up to date, what is named exists, what is shown runs."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from auditgap import errors
from auditgap.instruments import registered

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_what_is_generated_is_up_to_date() -> None:
    """In a process of its own: click keeps the help option of a command from its first use, whoever that was."""
    code = "import json, generate; print(json.dumps({str(path): text for path, text in generate.files().items()}))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=DOCS, capture_output=True, text=True, check=True)
    files = {Path(path): text for path, text in json.loads(ran.stdout).items()}
    stale = [path.name for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    assert not stale, f"run 'make docs': {', '.join(stale)}"


@pytest.mark.parametrize("name", sorted(registered()))
def test_every_instrument_has_a_page_that_names_its_settings_and_controls(name: str) -> None:
    page = (DOCS / "instruments" / f"{name}.md").read_text(encoding="utf-8")
    cls = registered()[name]
    missing = [word for word in (*cls.model_fields, *cls.card.controls) if f"`{word}`" not in page]
    assert not missing, f"docs/instruments/{name}.md does not mention {', '.join(missing)}"


@pytest.mark.parametrize("name", sorted(name for name, cls in registered().items() if cls.card.family != "behavioural"))
def test_every_page_of_what_reads_the_inside_has_its_figure(name: str) -> None:
    page = (DOCS / "instruments" / f"{name}.md").read_text(encoding="utf-8")
    assert f"(../figures/{name}.svg)" in page
    svg = (DOCS / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg ") and ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_explained(name: str) -> None:
    if name != "nearest":
        assert f"`{name}`" in (DOCS / "errors.md").read_text(encoding="utf-8")


def test_every_link_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def run(command: list[str], folder: Path) -> str:
    """Standard output of a command that must succeed, run in `folder` with one thread."""
    env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    return done.stdout


def test_the_tutorial_runs(tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(DOCS)
    # the audit's exit code is its decision; the twin passes, so every command must exit 0
    shown = run(["bash", "-euo", "pipefail", "-c", "".join(blocks(DOCS / "tutorial.md", "sh"))], tmp_path)
    assert "PASS-WITH-DISCLOSED-GAP" in shown and "decision: FAIL" in shown
    (python,) = blocks(DOCS / "tutorial.md", "python")
    said = run([sys.executable, "-c", python], tmp_path)
    assert "supported 1 this audit would have caught trigger-backdoor" in said and "with probability >= 0.8" in said
