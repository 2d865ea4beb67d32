from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import SequenceConfig
from model.sequence import SequenceGanomaly

ALWAYS = {"latent", "reconstruction", "mahalanobis", "neighbours", "shape", "forecast_4", "forecast_60"}


def build(windows: Tensor) -> SequenceGanomaly:
    """Untrained networks that remember `[N, T, F]`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SequenceGanomaly(SequenceConfig(windows.shape[1], windows.shape[2], memory=len(windows))).eval()
    network.fit_scaling(windows.flatten(0, 1))
    network.remember(network.prepare(windows))
    return network


@pytest.fixture(scope="module")
def windows(digits: NDArray[np.uint8]) -> Tensor:
    """Rows of digits as steps, digit after digit, cut into windows of 32 steps and 8 features: `[1000, 32, 8]`."""
    rows = torch.from_numpy(digits[:300, ..., 0].reshape(-1, 8)).float()
    return rows.unfold(0, 32, 2)[:1000].transpose(1, 2)


@pytest.mark.parametrize(("length", "features"), [(4, 1), (8, 64), (32, 8), (100, 3), (512, 2)])
def test_shapes_hold_for_every_length_and_feature_count(length: int, features: int) -> None:
    windows = torch.randn(40, length, features, generator=torch.Generator().manual_seed(0))
    network = build(windows)
    x = network.prepare(windows[:3])
    z, output = network.generate(x)
    assert z.shape == (3, network.config.latent)
    assert output.shape == x.shape
    logit, features_of = network.discriminator(x)
    assert logit.shape == (3,)
    assert features_of.shape == (3, network.config.hidden)
    assert network.localize(x).shape == x.shape
    assert network.localize(x).min() >= 0
    evidence = network.evidence(x)
    shorter = {name for name, steps in (("shape_recent", 8), ("shape_96", 96)) if steps < length}
    assert set(evidence) == ALWAYS | shorter
    assert all(value.shape == (3,) and torch.isfinite(value).all() for value in evidence.values())


def test_a_window_does_not_depend_on_its_batch(windows: Tensor) -> None:
    network = build(windows[:500])
    x = network.prepare(windows[500:600])
    together = network.evidence(x)
    for name, alone in network.evidence(x[40:41]).items():
        torch.testing.assert_close(alone, together[name][40:41], rtol=1e-4, atol=1e-4)


def test_damage_raises_the_evidence_that_is_meant_for_it(windows: Tensor) -> None:
    network = build(windows[:500])
    normal = windows[600:700]
    burst, frozen = normal.clone(), normal.clone()
    burst[:, -3:, 2] += 40.0
    frozen[:, -8:] = frozen[:, -9:-8]
    usual = {name: value.median() for name, value in network.evidence(network.prepare(normal)).items()}
    for name in ("mahalanobis", "neighbours", "shape", "shape_recent", "forecast_4"):
        assert (network.evidence(network.prepare(burst))[name] > usual[name]).float().mean() > 0.9, name
    assert (network.evidence(network.prepare(frozen))["shape_recent"] > usual["shape_recent"]).float().mean() > 0.9


@pytest.mark.parametrize("step", [3, 20, 31])
def test_a_planted_fault_shows_at_its_step_and_feature(windows: Tensor, step: int) -> None:
    network = build(windows[:500])
    wrong = windows[600:700].clone()
    wrong[:, step, 5] += 60.0
    where = network.localize(network.prepare(wrong)).flatten(1).argmax(dim=1)
    assert (where == step * 8 + 5).float().mean() > 0.9


def test_missing_values_count_for_nothing(windows: Tensor) -> None:
    network = build(windows[:500])
    holes = torch.rand(100, 32, 8, generator=torch.Generator().manual_seed(1)) < 0.1
    x = network.prepare(windows[600:700].clone().masked_fill(holes, torch.nan))
    contributions = network.localize(x)
    assert torch.isfinite(contributions).all()
    assert (contributions[holes] == 0).all()
    usual, seen = network.evidence(network.prepare(windows[600:700])), network.evidence(x)
    for name in ("mahalanobis", "neighbours", "reconstruction"):
        assert (seen[name] - usual[name]).abs().median() < 0.5, name
    nothing = network.evidence(torch.full((1, 32, 8), torch.nan))
    assert all(torch.isfinite(value).all() for value in nothing.values())


def test_a_fault_is_seen_beside_a_sensor_that_is_missing(windows: Tensor) -> None:
    network = build(windows[:500])
    silent = windows[600:700].clone()
    silent[:, :, 1] = torch.nan
    wrong = silent.clone()
    wrong[:, -4:, 5] += 40.0
    usual = network.evidence(network.prepare(silent))
    for name, value in network.evidence(network.prepare(wrong)).items():
        if name in {"mahalanobis", "neighbours", "shape_recent", "forecast_4"}:
            assert (value > usual[name].median()).float().mean() > 0.9, name


def test_a_history_with_holes_can_be_remembered(windows: Tensor) -> None:
    holes = torch.rand(500, 32, 8, generator=torch.Generator().manual_seed(2)) < 0.2
    network = build(windows[:500].clone().masked_fill(holes, torch.nan))
    evidence = network.evidence(network.prepare(windows[600:700]))
    assert all(torch.isfinite(value).all() for value in evidence.values())
