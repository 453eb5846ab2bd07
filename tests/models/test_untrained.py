"""The same architecture with fresh weights: drawn by the seed alone, and nothing of the trained model touched."""

import pytest
import torch
from tiny_families import COMMON_FIRST, PROMPTS

from auditgap.models import capture, validate_sites
from auditgap.models.untrained import untrained


@pytest.mark.parametrize("family", COMMON_FIRST)
def test_every_family_can_be_built_again(tiny, family, left_as_found):
    model = tiny(family)
    with left_as_found(model):
        fresh = untrained(model, seed=0)
    validate_sites(fresh)
    names = dict(model.hf.named_parameters())
    assert names.keys() == dict(fresh.hf.named_parameters()).keys()
    for name, parameter in fresh.hf.named_parameters():
        assert parameter.shape == names[name].shape
        assert parameter.dtype == names[name].dtype
        assert not parameter.requires_grad
        assert not torch.equal(parameter, names[name]), name
    before, after = (capture(each, PROMPTS, ["resid_post.2"])["resid_post.2"] for each in (model, fresh))
    assert before.shape == after.shape
    assert not torch.allclose(before, after)
    assert not any(module.training for module in fresh.hf.modules())


def test_the_seed_decides_and_the_global_state_does_not(tiny):
    model = tiny("llama")
    torch.manual_seed(1)
    one = untrained(model, seed=0)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    again, other = (untrained(model, seed=seed) for seed in (0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = list(zip(one.hf.parameters(), again.hf.parameters(), other.hf.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_the_dtype_is_kept(tiny):
    fresh = untrained(tiny("llama", "bfloat16"), seed=0)
    assert {parameter.dtype for parameter in fresh.hf.parameters()} == {torch.bfloat16}
