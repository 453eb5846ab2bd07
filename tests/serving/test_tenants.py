"""Tokens: only the right one lets anybody in, and a file that says anything odd lets nobody in."""

import time

import pytest

from auditgap.errors import PlanError, UsageError
from auditgap.serving.tenants import Tenant, Usage, authenticate, load_tenants, new_tenant


@pytest.fixture
def written(tmp_path):
    def write(text: str, mode: int = 0o600):
        path = tmp_path / "tokens"
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def test_a_token_is_known_by_its_hash_alone(written):
    (alice, of_alice), (bob, of_bob) = new_tenant("alice"), new_tenant("bob")
    tenants = load_tenants(written(f"# who may ask\n\n{of_alice} verdicts=yes requests_per_minute=7\n{of_bob}\n"))
    assert authenticate(tenants, f"Bearer {alice}") == tenants[0] and authenticate(tenants, f"bearer {bob}") == tenants[1]
    assert (tenants[0].verdicts, tenants[0].requests_per_minute, tenants[1].verdicts) == (True, 7, False)
    assert alice not in of_alice and len(alice) > 40 and new_tenant("alice")[1] != of_alice


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer x", "Basic {}", "{}", "Bearer {}x", "Bearer \udcff"])
def test_no_other_header_lets_anybody_in(header):
    token, line = new_tenant("alice")
    tenant = Tenant(name="alice", token=line.partition(":")[2])
    assert authenticate([tenant], header and header.format(token)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one tenant"),
        ("alice:secret", "line 1: token"),
        ("{line} verdict=yes", "line 1: verdict: Extra inputs"),
        ("{line} verdicts=maybe", "verdicts"),
        ("{line} requests_per_minute=0", "requests_per_minute"),
        ("{line}\n{line}", "line 2: the name 'alice' is given twice"),
    ],
)
def test_a_malformed_file_is_refused(written, text, message):
    line = new_tenant("alice")[1]
    with pytest.raises((PlanError, UsageError), match=message):
        load_tenants(written(text.format(line=line)))


def test_a_missing_file_and_one_that_others_may_write_are_refused(written, tmp_path):
    with pytest.raises(UsageError, match="auditgap monitor token NAME"):
        load_tenants(tmp_path / "none")
    with pytest.raises(UsageError, match="chmod 600"):
        load_tenants(written(new_tenant("alice")[1], 0o622))
    with pytest.raises(UsageError, match="expected a name"):
        new_tenant("a:b")


def test_a_bucket_gives_what_it_holds_and_fills_evenly(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    usage = Usage(Tenant(name="a", token=new_tenant("a")[1].partition(":")[2], requests_per_minute=6))
    assert [usage.wait_s() for _ in range(7)] == [0.0] * 6 + [10.0]
    clock[0] += 10
    assert (usage.wait_s(), usage.wait_s()) == (0.0, 10.0)
    clock[0] += 1e6
    assert [usage.wait_s() for _ in range(7)] == [0.0] * 6 + [10.0]
