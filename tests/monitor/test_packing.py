"""Packed probes score as they do one by one."""

import pytest
import torch

from auditgap.errors import UsageError
from auditgap.monitor.packing import Readout, Weights, pack


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
