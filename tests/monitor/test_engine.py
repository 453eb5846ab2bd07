"""Fed from outside, a monitor says what it says under Hugging Face; another engine is refused."""

from dataclasses import dataclass

import pytest
import torch

from auditgap.errors import CannotMeasure, UsageError
from auditgap.models import capture_tokens, tokenize
from auditgap.monitor import engine_of, watching
from auditgap.monitor.engine import FeatureFeed, Features
from auditgap.monitor.vllm_plugin import Action, MonitorPlugin, register
from auditgap.records.monitor import MonitorPolicy

PROMPTS = ["a b c d", "e f", "g h i j k l"]


def _features(model, request_id: str, values, **changes) -> Features:
    engine = engine_of(model)
    fields = {"request_id": request_id, "engine": engine.digest(), "dtype": engine.dtype, "values": values, "is_prompt": True}
    return Features(**(fields | {"ends_prompt": True} | changes))


def _states(model, prompt: str, sites: list[str]) -> dict[str, torch.Tensor]:
    return {site: x[0] for site, x in capture_tokens(model, tokenize(model, [prompt]), sites).items()}


def _feed(model, monitors, **options) -> FeatureFeed:
    return FeatureFeed(monitors, subject=model.subject, engine=engine_of(model), **options)


def test_interleaved_requests_in_pieces_equal_generation(model, make):
    monitors = [
        make("all", position="every_token", kind="ema"),
        make("end", position="prompt_end", kind="last", sites=("resid_post.0",)),
    ]
    with watching(model, monitors) as watch:
        for prompt in PROMPTS:
            model.hf(**tokenize(model, [prompt])._asdict(), use_cache=True)
    expected = {(w.request, w.monitor): w for w in watch.requests()}
    feed = _feed(model, monitors)
    states = [_states(model, prompt, feed.sites) for prompt in PROMPTS]
    cuts = [1, 1, 4]
    for i, cut in enumerate(cuts):
        feed.observe(_features(model, str(i), {s: x[:cut] for s, x in states[i].items()}, ends_prompt=False))
    for i, cut in enumerate(cuts):
        feed.observe(_features(model, str(i), {s: x[cut:] for s, x in states[i].items()}))
    assert len(feed) == 3
    for i in range(3):
        for seen in feed.finish(str(i)):
            assert seen.score == pytest.approx(expected[i, seen.monitor].score, abs=1e-5)
            assert seen.coverage == 1.0 and seen.n_tokens == expected[i, seen.monitor].n_tokens
    assert len(feed) == 0


def test_hidden_tokens_lower_the_coverage(model, make):
    feed = _feed(model, [make("all", position="every_token")])
    states = _states(model, PROMPTS[2], feed.sites)
    (seen,) = feed.observe(_features(model, "r", {s: x[4:] for s, x in states.items()}, n_hidden=4))
    assert (seen.n_scored, seen.n_due) == (2, 6)


def test_other_engines_are_refused(model, make):
    feed = _feed(model, [make()])
    states = _states(model, PROMPTS[0], feed.sites)
    for changes in ({"engine": "sha256:" + "0" * 64}, {"dtype": "bfloat16"}):
        with pytest.raises(CannotMeasure, match="the engine it was calibrated on"):
            feed.observe(_features(model, "r", states, **changes))
    vllm = engine_of(model).model_copy(update={"name": "vllm"})
    with pytest.raises(CannotMeasure, match="UNCALIBRATED: engine name"):
        FeatureFeed([make()], subject=model.subject, engine=vllm)
    passing = FeatureFeed([make()], subject=model.subject, engine=vllm, policy=MonitorPolicy(when_down="pass"))
    assert list(passing.down) == ["m"] and passing.sites == []


def test_bad_features_are_refused(model, make):
    feed = _feed(model, [make()])
    with pytest.raises(UsageError, match="got none at"):
        feed.observe(_features(model, "r", {}))
    with pytest.raises(UsageError, match="at least one"):
        feed.observe(_features(model, "r", {site: torch.zeros(0, model.d_model) for site in feed.sites}))
    with pytest.raises(UsageError, match="no open request"):
        feed.finish("r")


@dataclass
class Context:
    """As the engine describes one request of a flat batch."""

    request_id: str
    is_prefill: bool
    num_cached_tokens: int
    batch_offset: int
    num_tokens: int


class FakeEngine:
    """Runs prompts through the model and hands the flat batch to the plugin, as vLLM's worker does; caches prefixes."""

    def __init__(self, model, plugin: MonitorPlugin) -> None:
        self.model, self.plugin = model, plugin

    def step(self, prompts: dict[str, str], *, cached: int = 0, decode: tuple[str, ...] = ()):
        sites = [f"mlp_out.{layer}" for layer in self.plugin.get_observation_layers()]
        flat: dict[int, list] = {int(site.split(".")[1]): [] for site in sites}
        contexts, offset = [], 0
        for request_id in decode:
            contexts.append(Context(request_id, False, 5, offset, 1))
            for parts in flat.values():
                parts.append(torch.full((1, self.model.d_model), 1e6))
            offset += 1
        for request_id, prompt in prompts.items():
            states = _states(self.model, prompt, sites)
            n = len(next(iter(states.values()))) - cached
            self.plugin.on_request_start(request_id)
            contexts.append(Context(request_id, True, cached, offset, n))
            for site, x in states.items():
                flat[int(site.split(".")[1])].append(x[cached:])
            offset += n
        results = self.plugin.on_step_batch({layer: torch.cat(parts) for layer, parts in flat.items()}, contexts)
        return dict(zip([context.request_id for context in contexts], results, strict=True))


def _plugin(model, monitors, **options) -> MonitorPlugin:
    return MonitorPlugin(monitors, subject=model.subject, engine=engine_of(model), **options)


def test_the_plugin_aborts_what_is_flagged(model, make):
    def monitor(threshold: float):
        return make(position="prompt_end", kind="last", sites=("mlp_out.1",), threshold=threshold)

    with watching(model, monitor(1e9)) as watch:
        for prompt in PROMPTS:
            model.hf(**tokenize(model, [prompt])._asdict(), use_cache=True)
    scores = [w.score for w in watch.requests()]
    middle = sorted(scores)[1] - 1e-4
    plugin = _plugin(model, [monitor(middle)], policy=MonitorPolicy(action="stop"))
    found = FakeEngine(model, plugin).step(dict(zip("xyz", PROMPTS, strict=True)), decode=("old",))
    assert [found[r].action for r in "xyz"] == [Action.ABORT if s > middle else Action.CONTINUE for s in scores]
    assert found["old"].action == Action.CONTINUE
    for request_id in "xyz":
        plugin.on_request_complete(request_id)
    plugin.on_request_complete("never seen")
    assert [plugin.watched[r][0].score for r in "xyz"] == pytest.approx(scores, abs=1e-5)


def test_the_end_of_a_prompt_is_seen_behind_a_prefix_cache(model, make):
    plugin = _plugin(model, [make(position="prompt_end", kind="last", sites=("mlp_out.1",))])
    engine = FakeEngine(model, plugin)
    engine.step({"whole": PROMPTS[2]})
    engine.step({"cached": PROMPTS[2]}, cached=4)
    for request_id in ("whole", "cached"):
        plugin.on_request_complete(request_id)
    whole, cached = plugin.watched["whole"][0], plugin.watched["cached"][0]
    assert whole.score == pytest.approx(cached.score) and whole.n_tokens == cached.n_tokens == 6 and cached.coverage == 1.0


def test_the_plugin_claims_no_more_than_it_gets(model, make, monkeypatch):
    end = {"position": "prompt_end", "kind": "last"}
    for monitor, policy, match in (
        (make(sites=("resid_post.1",), **end), MonitorPolicy(), "expected probes at mlp_out"),
        (make(sites=("mlp_out.1",)), MonitorPolicy(), "observes prefill only"),
        (make(sites=("mlp_out.1",), **end), MonitorPolicy(action="refuse", text="no"), "can abort"),
    ):
        with pytest.raises(UsageError, match=match):
            _plugin(model, [monitor], policy=policy)
    monkeypatch.delenv("AUDITGAP_MONITORS", raising=False)
    with pytest.raises(UsageError, match="AUDITGAP_MONITORS"):
        MonitorPlugin()
    assert (
        register().rpartition(".")[2] == MonitorPlugin.__name__
        and not _plugin(model, [make(sites=("mlp_out.1",), **end)]).observe_decode()
    )
