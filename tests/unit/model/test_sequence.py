from __future__ import annotations

import pytest
import torch

from model.config import SequenceConfig
from model.sequence import CLIP, SequenceGanomaly


@pytest.mark.parametrize(("length", "features"), [(4, 1), (32, 8), (128, 40)])
def test_shapes_hold_for_every_length_and_feature_count(length: int, features: int) -> None:
    config = SequenceConfig.for_shape(length, features)
    network = SequenceGanomaly(config).eval()
    x = network.prepare(torch.randn(3, length, features))
    z, output = network.generate(x)
    assert z.shape == (3, config.latent)
    assert output.shape == x.shape
    logit, features_of = network.discriminator(x)
    assert logit.shape == (3,)
    assert features_of.shape == (3, config.hidden)
    assert network.localize(x).shape == x.shape
    assert network.localize(x).min() >= 0
    evidence = network.evidence(x)
    assert set(evidence) == {"latent", "reconstruction", "mahalanobis", "neighbours"}
    assert all(value.shape == (3,) for value in evidence.values())


def test_scaling_is_by_median_and_interquartile_range() -> None:
    network = SequenceGanomaly(SequenceConfig.for_shape(4, 1))
    network.fit_scaling(torch.tensor([[0.0], [10.0], [20.0], [30.0], [1e6]]))
    assert network.centre.tolist() == [20.0]
    assert network.scale.item() == pytest.approx((30.0 - 10.0) / 1.349)


def test_mostly_constant_and_constant_features_stay_finite_and_visible() -> None:
    network = SequenceGanomaly(SequenceConfig.for_shape(4, 3))
    rows = torch.zeros(100, 3)
    rows[:, 0] = 500.0
    rows[::10, 1] = 1.0
    network.fit_scaling(rows)
    assert network.scale[0].item() == pytest.approx(0.5, rel=1e-3)
    assert network.scale[1].item() == pytest.approx(rows[:, 1].std().item())
    window = torch.tensor([500.0, 0.0, 0.0]).expand(1, 4, 3)
    assert network.prepare(window).abs().max() == 0
    moved = network.prepare(window + torch.tensor([0.5, 0.0, 1e-6]))
    assert moved[0, 0].tolist() == pytest.approx([1.0, 0.0, 1.0], rel=1e-2)


def test_a_broken_sensor_is_cut_off() -> None:
    network = SequenceGanomaly(SequenceConfig.for_shape(4, 2))
    assert network.prepare(torch.full((1, 4, 2), 1e12)).max() == CLIP
    assert network.prepare(torch.full((1, 4, 2), -1e12)).min() == -CLIP
