from __future__ import annotations

import math

import pytest
import torch

from model.scaling import LINEAR_UP_TO, RobustScaling


def fitted(rows: torch.Tensor) -> RobustScaling:
    scaling = RobustScaling(rows.shape[1])
    scaling.fit(rows)
    return scaling


def test_scaling_is_by_median_and_interquartile_range() -> None:
    scaling = fitted(torch.tensor([[0.0], [10.0], [20.0], [30.0], [1e6]]))
    assert scaling.centre.tolist() == [20.0]
    assert scaling.scale.item() == pytest.approx((30.0 - 10.0) / 1.349)


def test_missing_values_are_left_out_and_stay_missing() -> None:
    rows = torch.tensor([[0.0], [torch.nan], [10.0], [20.0], [torch.nan], [30.0], [1e6]])
    scaling = fitted(rows)
    assert scaling.centre.tolist() == [20.0]
    assert torch.equal(torch.isnan(scaling(rows)), torch.isnan(rows))
    never = fitted(torch.full((5, 1), torch.nan))
    assert (never.centre.item(), never.scale.item()) == (0.0, pytest.approx(1.0))


def test_mostly_constant_and_constant_features_stay_finite_and_visible() -> None:
    rows = torch.zeros(100, 3)
    rows[:, 0] = 500.0
    rows[::10, 1] = 1.0
    scaling = fitted(rows)
    assert scaling.scale[0].item() == pytest.approx(0.5, rel=1e-3)
    assert scaling.scale[1].item() == pytest.approx(rows[:, 1].std(correction=0).item())
    row = torch.tensor([500.0, 0.0, 0.0])
    assert scaling(row).abs().max() == 0
    assert scaling(row + torch.tensor([0.5, 0.0, 1e-6])).tolist() == pytest.approx([1.0, 0.0, 1.0], rel=1e-2)


def test_a_burst_is_compressed_but_a_larger_one_stays_larger() -> None:
    scaling = fitted(torch.linspace(-1, 1, 101).unsqueeze(1))
    scaling.scale = torch.ones(1)
    values = torch.tensor([[1.0], [LINEAR_UP_TO], [10.0 * LINEAR_UP_TO], [1e12], [3e38]])
    scaled = scaling(values).squeeze(1)
    assert scaled[:3].tolist() == pytest.approx([1.0, LINEAR_UP_TO, LINEAR_UP_TO * (1 + math.log(10.0))])
    assert (scaled.diff() > 0).all()
    assert scaled[-1] < 300
    torch.testing.assert_close(scaling(-values).squeeze(1), -scaled)
