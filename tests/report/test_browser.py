"""The page in a real browser, where one is installed: nothing sticks out, on a phone or on a desk."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from example_release import sound

from auditgap.report import Audit, render_html, render_release_html

CHROMIUM = shutil.which("chromium")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width_px", [360, 768, 1280])
@pytest.mark.parametrize("page", ["audit", "release"])
def test_the_page_never_scrolls_sideways(held: Audit, tmp_path: Path, width_px: int, page: str) -> None:
    rendered = render_html(held) if page == "audit" else render_release_html(sound())
    opened = rendered.replace("<details", "<details open")
    frame = f'<iframe id="f" style="width:{width_px}px;height:900px;border:0" srcdoc="{html.escape(opened)}"></iframe>'
    script = (
        'onload = () => { document.body.textContent = document.getElementById("f").contentDocument.documentElement.scrollWidth }'
    )
    (tmp_path / "frame.html").write_text(f"<body>{frame}<script>{script}</script>")
    command = [CHROMIUM or "", *FLAGS.split(), "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=1400,1000", "--virtual-time-budget=3000", "--dump-dom", f"file://{tmp_path / 'frame.html'}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    match = re.search(r"<body>(\d+)</body>", shown)
    assert match and int(match[1]) <= width_px
