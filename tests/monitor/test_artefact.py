"""What was saved is what is loaded, bit for bit, or nothing is."""

import json

import pytest
import torch

from auditgap.errors import EvidenceInvalid, PlanError, UsageError
from auditgap.monitor import Monitor, engine_of, load, save, uncalibrated
from auditgap.monitor.artefact import CARD


def test_a_monitor_survives_the_disk(make, tmp_path):
    monitor = make(sites=("resid_post.0", "resid_post.2"))
    save(monitor, tmp_path / "m")
    found = load(tmp_path / "m", digest=monitor.card.digest())
    assert found.card == monitor.card
    for ours, theirs in zip(monitor.weights, found.weights, strict=True):
        assert torch.equal(ours.direction, theirs.direction) and ours.bias == theirs.bias
    assert sorted(path.suffix for path in (tmp_path / "m").iterdir()) == [".json", ".safetensors"]


def test_it_speaks_where_it_was_calibrated(model, make):
    card = make().card
    assert uncalibrated(card, model.subject, engine_of(model), template=model.subject.chat_template) is None
    renamed = model.subject.model_copy(update={"name": "copy", "revision": "abc"})
    assert uncalibrated(card, renamed, engine_of(model), template=model.subject.chat_template) is None


def test_every_other_place_is_named(model, make):
    card, engine, digest = make().card, engine_of(model), "sha256:" + "0" * 64
    other = model.subject.weights[0].model_copy(update={"content": digest})
    subjects = {
        "another weights": {"weights": (other,)},
        "another tokenizer": {"tokenizer": (other,)},
        "another dtype": {"dtype": "bfloat16"},
        "another adapter": {"adapter": (other,)},
        "another architecture": {"architecture": "GPT2LMHeadModel"},
    }
    for words, update in subjects.items():
        found = uncalibrated(card, model.subject.model_copy(update=update), engine, template=None)
        assert found is not None and words in str(found) and str(found).startswith("UNCALIBRATED")
    engines = {
        "engine name: calibrated on transformers, here vllm": {"name": "vllm"},
        "engine version": {"version": "0"},
        "engine flag attention: calibrated on sdpa, here eager": {"flags": engine.flags | {"attention": "eager"}},
        "engine flag quantisation: calibrated on not set, here int4": {"flags": engine.flags | {"quantisation": "int4"}},
    }
    for words, update in engines.items():
        found = uncalibrated(card, model.subject, engine.model_copy(update=update), template=None)
        assert found is not None and words in str(found)
    assert "chat template in use" in str(uncalibrated(card, model.subject, engine, template=digest))


def test_altered_files_are_refused(make, tmp_path):
    monitor = make()
    save(monitor, tmp_path)
    weights = next(tmp_path.glob("*.safetensors"))
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(EvidenceInvalid, match="the card names"):
        load(tmp_path)
    weights.unlink()
    with pytest.raises(EvidenceInvalid, match="expected the weights"):
        load(tmp_path)
    weights.write_bytes(data)
    card = json.loads((tmp_path / CARD).read_text())
    card["operating_points"][0]["threshold"] = -1.0
    (tmp_path / CARD).write_text(json.dumps(card))
    with pytest.raises(EvidenceInvalid, match="it was altered"):
        load(tmp_path, digest=monitor.card.digest())
    (tmp_path / CARD).write_text(json.dumps(card | {"surprise": 1}))
    with pytest.raises(PlanError, match="surprise"):
        load(tmp_path)


def test_bad_calls_are_refused(make, tmp_path):
    with pytest.raises(UsageError, match="fit one first"):
        load(tmp_path)
    save(make(), tmp_path / "m")
    with pytest.raises(UsageError, match="holds one"):
        save(make(), tmp_path / "m")
    monitor = make()
    swapped = Monitor(monitor.card, tuple(w._replace(bias=3.0) for w in monitor.weights))
    with pytest.raises(EvidenceInvalid, match="not those that its card names"):
        save(swapped, tmp_path / "n")


def test_damaged_numbers_are_refused(make, tmp_path):
    from auditgap.monitor.artefact import weights_bytes
    from auditgap.records import digest_of

    monitor = make()
    broken = [w._replace(direction=w.direction * float("nan")) for w in monitor.weights]
    data = weights_bytes(["p0"], broken)
    card = monitor.card.model_copy(update={"weights": digest_of(data)})
    save(Monitor(card, tuple(broken)), tmp_path)
    with pytest.raises(EvidenceInvalid, match="finite"):
        load(tmp_path)
