"""Several processes at once, and a process that is killed in the middle."""

import signal
import subprocess
import sys
from pathlib import Path

from ledger_examples import registration

from auditgap.evidence import Store, verify

APPEND = """
import sys
sys.path.insert(0, sys.argv[1])
from ledger_examples import registration
from auditgap.evidence import Store
with Store.open(sys.argv[2]) as store:
    for i in range(int(sys.argv[4])):
        print(store.register(registration(f"{sys.argv[3]}-{i}")), flush=True)
        store.put_blob(f"{sys.argv[3]}-{i}".encode())
"""


def _appending(folder: Path, name: str, n: int) -> subprocess.Popen:
    command = [sys.executable, "-c", APPEND, str(Path(__file__).parent), str(folder), name, str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_make_one_valid_ledger(tmp_path):
    """From nothing: they also race for the folder, the tables and the first key."""
    running = [_appending(tmp_path / "s", name, 20) for name in ("a", "b")]
    said = [process.communicate(timeout=60) for process in running]
    assert [(process.returncode, err) for process, (_, err) in zip(running, said, strict=True)] == [(0, ""), (0, "")]
    verification = verify(tmp_path / "s")
    assert verification.problems == ()
    assert verification.n_statements == 41
    with Store.open(tmp_path / "s") as store:
        assert len(store.keys()) == 1
        assert {s.digest for s in store.registrations()} == {line for out, _ in said for line in out.split()}
        steps = [s.record.step for s in store.registrations()]
        for name in ("a", "b"):  # each process's own order is kept
            assert [step for step in steps if step.startswith(name)] == [f"{name}-{i}" for i in range(20)]


def test_two_processes_registering_the_same_run_write_it_once(tmp_path):
    running = [_appending(tmp_path / "s", "same", 5) for _ in range(2)]
    said = [process.communicate(timeout=60) for process in running]
    assert said[0] == said[1]
    assert len(Store.open(tmp_path / "s").registrations()) == 5


def test_killed_process_leaves_a_valid_store_that_goes_on(tmp_path):
    """kill -9 while it appends without pause: what it reported is there, and nothing is half there."""
    reported: list[str] = []
    for attempt in range(3):
        process = _appending(tmp_path / "s", f"run{attempt}", 100_000)
        for _ in range(4 + 3 * attempt):
            reported.append(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        reported += [line for line in rest.split("\n")[:-1] if line]
        verification = verify(tmp_path / "s")
        assert verification.problems == ()
        with Store.open(tmp_path / "s") as store:
            assert set(reported) <= {s.digest for s in store.registrations()}
    with Store.open(tmp_path / "s") as store:
        store.register(registration("after"))
    assert verify(tmp_path / "s").ok
