"""From a canary run through the model proxy to a promotion that holds where the same release runs, and nowhere else."""

import json
from pathlib import Path

import httpx
import pytest
from promotion_examples import key_files, need, policy
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from auditgap.release import read_observations
from auditgap.release.capture import capture_declared, capture_observed, write_manifest
from auditgap.release.cases.suite import load_suite, register, run_suite
from auditgap.release.injection.hosting import hosted
from auditgap.release.injection.model_serving import proxying
from auditgap.release.promotion import Brought, attest_file, gate_release, register_policy, verify_files

MODEL = "m-2026-11-01"


async def _answer(request: Request) -> JSONResponse:
    message = {"role": "assistant", "content": "Shall I?"}
    return JSONResponse({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


def _canary(folder: Path, name: str, system: str) -> Path:
    """What the proxy sees of an agent with this prompt, as a manifest."""
    seen = folder / f"{name}.jsonl"
    with (
        hosted(Starlette(routes=[Route("/v1/chat/completions", _answer, methods=["POST"])])) as upstream,
        proxying(upstream, observe=seen) as (url, _),
        httpx.Client(trust_env=False) as client,
    ):
        for said in ("Pay Alice 3.", "What is my balance?"):
            messages = [{"role": "system", "content": system}, {"role": "user", "content": said}]
            asked = {"model": MODEL, "temperature": 0.0, "max_tokens": 64, "messages": messages}
            assert client.post(f"{url}/v1/chat/completions", json=asked).status_code == 200
    write_manifest(capture_observed(read_observations(seen), name=name), folder / f"{name}.json")
    return folder / f"{name}.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    (folder / "system.txt").write_text("Ask before you move money.")
    release = {
        "format": "auditgap.dev/release/v1",
        "name": "payments 1.4.0",
        "model": {"id": MODEL},
        "system_prompt": {"file": "system.txt"},
        "sampling": {"temperature": 0.0, "max_tokens": 64},
        "middleware": [{"id": "authorise", "config": {"on_error": "deny"}}],
    }
    (folder / "release.yaml").write_text(json.dumps(release))
    for name in ("owner", "evaluator"):
        key_files(folder, name)
    return folder


def test_from_a_canary_run_to_the_deploying_side(folder: Path) -> None:
    manifest = capture_declared(folder / "release.yaml")
    write_manifest(manifest, folder / "manifest.json")
    suite = load_suite().only("RIC-002")
    requires = [need("integrity", mode="scripted", min_cases=1, cases=list(suite.digests()))]
    claims = [{"id": "SC-1", "statement": "A payment is made once.", "requires": requires}]
    (folder / "policy.yaml").write_text(policy(claims=claims, suite=suite.digest()).model_dump_json())
    register_policy(folder / "policy.yaml", folder / "owner.pem", folder / "registration.dsse.json")

    run = run_suite(suite, register(suite, manifest=manifest.fingerprint()))
    (folder / "run.json").write_text(run.model_dump_json())
    attest_file(folder / "run.json", folder / "evaluator.pem", folder / "run.dsse.json")
    brought = Brought(
        manifest=folder / "manifest.json",
        observed=_canary(folder, "evaluation", "Ask before you move money."),
        registration=folder / "registration.dsse.json",
        evidence=(folder / "run.dsse.json",),
        evaluation_keys=(folder / "evaluator.pub",),
    )
    gated = gate_release(folder / "policy.yaml", brought, keys=[folder / "owner.pem"], out=folder / "out")
    assert gated.promotion.outcome == "pass", [c.reason for c in gated.promotion.criteria if c.status != "met"]

    attestation, keys = folder / "out/promotion.dsse.json", [folder / "owner.pub"]
    same = _canary(folder, "production", "Ask before you move money.")
    assert not verify_files(attestation, same, keys, stage="production").refused
    other = _canary(folder, "drifted", "Move money at once.")
    (refused,) = verify_files(attestation, other, keys, stage="production").refused
    assert "fingerprint" in refused

    drifted = gate_release(
        folder / "policy.yaml", brought._replace(observed=other), keys=[folder / "owner.pem"], out=folder / "out2"
    )
    (line,) = [c for c in drifted.promotion.criteria if c.status != "met"]
    assert (drifted.exit_code, line.id) == (1, "manifest:observed") and "system_prompt" in line.reason
