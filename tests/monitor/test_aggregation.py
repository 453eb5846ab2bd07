"""The stream equals the definition, for every kind, whatever the batch and whatever is masked."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auditgap.monitor.aggregation import aggregate, start, update, value
from auditgap.records.monitor import Aggregation, AggregationKind

KINDS = get_args(AggregationKind)


def _streamed(how: Aggregation, scores: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
    state = start(how, scores.shape[0], scores.shape[1])
    for t in range(scores.shape[2]):
        state = update(how, state, scores[..., t], torch.ones(len(scores), dtype=torch.bool) if seen is None else seen[:, t])
    return value(how, state)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 24),
    window=st.integers(1, 9),
    decay=st.floats(0.0, 0.99),
    temperature=st.floats(0.05, 20.0),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from((1e-3, 1.0, 1e3)),
)
def test_stream_equals_definition(kind, n, window, decay, temperature, seed, scale):
    how = Aggregation(kind=kind, window=window, decay=decay, temperature=temperature)
    scores = scale * torch.randn(3, 2, n, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(_streamed(how, scores), aggregate(how, scores), rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_that_are_not_seen_change_nothing(kind):
    how, generator = Aggregation(kind=kind, window=3), torch.Generator().manual_seed(1)
    scores, seen = torch.randn(4, 2, 12, generator=generator), torch.rand(4, 12, generator=generator) < 0.6
    seen[:, 0] = True
    found = _streamed(how, scores, seen)
    for row in range(4):
        alone = aggregate(how, scores[row : row + 1, :, seen[row]])
        torch.testing.assert_close(found[row : row + 1], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_is_no_score(kind):
    how = Aggregation(kind=kind)
    assert value(how, start(how, 2, 1)).eq(-torch.inf).all()


def test_known_values():
    scores = torch.tensor([[[0.0, 4.0, 2.0, 0.0]]])
    expected = {"last": 0.0, "mean": 1.5, "max": 4.0, "multi_max": 4.0, "rolling_mean_max": 3.0, "ema": 0.5 * (0.5 * 2.0 + 1.0)}
    for kind, number in expected.items():
        assert aggregate(Aggregation(kind=kind, window=2, decay=0.5), scores).item() == pytest.approx(number)
    nearly_max = Aggregation(kind="softmax", temperature=0.01)
    assert aggregate(nearly_max, scores).item() == pytest.approx(4.0)
    assert aggregate(Aggregation(kind="softmax", temperature=1e6), scores).item() == pytest.approx(1.5, abs=1e-4)


def test_a_state_is_never_changed():
    how = Aggregation(kind="rolling_mean_max", window=2)
    before = start(how, 1, 1)
    update(how, before, torch.ones(1, 1), torch.ones(1, dtype=torch.bool))
    assert value(how, before).item() == -torch.inf and before.n.item() == 0


def test_bad_settings_are_refused():
    for bad in (
        {"kind": "median"},
        {"kind": "ema", "decay": 1.0},
        {"kind": "softmax", "temperature": 0.0},
        {"kind": "max", "window": 0},
    ):
        with pytest.raises(ValueError):
            Aggregation.model_validate(bad)
