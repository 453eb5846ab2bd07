"""Packed probes score as they do one by one."""

import pytest
import torch

from auditgap.errors import UsageError
from auditgap.monitor.packing import Readout, Stacked, Weights, pack


def test_packed_scores_equal_one_by_one():
    generator = torch.Generator().manual_seed(0)
    sites = ["resid_post.0", "resid_post.2", "resid_post.0", "mlp_out.1", "resid_post.2"]
    readouts = [Readout(site, Weights(torch.randn(8, generator=generator), float(i))) for i, site in enumerate(sites)]
    packed = pack(readouts)
    assert list(packed) == ["resid_post.0", "resid_post.2", "mlp_out.1"]
    x = {site: torch.randn(3, 5, 8, generator=generator) for site in packed}
    for site, part in packed.items():
        together = part.scores(x[site])
        for column, i in enumerate(part.columns.tolist()):
            alone = x[site] @ readouts[i].weights.direction + readouts[i].weights.bias
            torch.testing.assert_close(together[..., column], alone)


def test_half_precision_activations_are_scored_in_float32():
    readout = Readout("resid_post.0", Weights(torch.full((8,), 1e-3), 0.0))
    scores = pack([readout])["resid_post.0"].scores(torch.full((1, 8), 2.0, dtype=torch.bfloat16))
    assert scores.dtype == torch.float32 and scores.item() == pytest.approx(0.016)


def test_bad_input_is_refused():
    with pytest.raises(UsageError, match="at least one probe"):
        pack([])
    with pytest.raises(UsageError, match="one width"):
        pack([Readout("resid_post.0", Weights(torch.zeros(n), 0.0)) for n in (4, 5)])


def test_sites_stacked_score_as_each_on_its_own():
    generator = torch.Generator().manual_seed(0)
    sites = ["resid_post.0", "resid_post.2", "resid_post.0", "mlp_out.1", "resid_post.2"]
    readouts = [Readout(site, Weights(torch.randn(8, generator=generator), float(i))) for i, site in enumerate(sites)]
    packed = pack(readouts)
    stacked = Stacked.of(list(packed.values()))
    assert stacked is not None
    x = stacked.room(3).copy_(torch.randn(3, 3, 8, generator=generator))
    alone = [x[list(packed).index(each.site)] @ each.weights.direction + each.weights.bias for each in readouts]
    torch.testing.assert_close(stacked.scores(x), torch.stack(alone, 1))


def test_sites_that_cannot_be_stacked_are_not():
    wide = Readout("mlp_out.1", Weights(torch.zeros(9), 0.0))
    narrow = Readout("resid_post.0", Weights(torch.zeros(8), 0.0))
    assert Stacked.of(list(pack([wide, narrow]).values())) is None
    assert Stacked.of(list(pack([narrow]).values())) is None
