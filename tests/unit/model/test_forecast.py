from __future__ import annotations

import numpy as np
import pytest
import torch
from river.datasets import WaterFlow
from torch import Tensor

from model.forecast import Forecast


@pytest.fixture(scope="module")
def water() -> Tensor:
    """Windows of 24 hours from 520 hours of flow in a water main without an incident: `[497, 24, 1]`, scaled."""
    flow = torch.tensor([flow for _, flow in WaterFlow()][340:860], dtype=torch.float32)
    return ((flow - flow.mean()) / flow.std()).unfold(0, 24, 1).unsqueeze(2)


def test_it_equals_ridge_regression(water: Tensor) -> None:
    forecast = Forecast(24, 1)
    forecast.fit(water)
    series = np.concatenate([water[0, :-1, 0], water[:, -1, 0]]).astype(np.float64)
    stretches = np.lib.stride_tricks.sliding_window_view(series, 5)
    past, next_ = stretches[:, :-1], stretches[:, -1]
    centred = past - past.mean(axis=0)
    ridge = len(past) / len(water) * np.eye(4)
    weight = np.linalg.solve(centred.T @ centred + ridge, centred.T @ (next_ - next_.mean()))
    np.testing.assert_allclose(forecast.weight[0, 0].numpy(), weight, rtol=1e-3, atol=1e-4)
    expected = next_[-1] - next_.mean() - centred[-1] @ weight
    scale = float(forecast.scale)
    assert forecast.errors(water[-1:])[0, -1, 0].item() == pytest.approx((expected / scale) ** 2, rel=1e-2)


def test_its_errors_are_smaller_than_those_of_the_last_value(water: Tensor) -> None:
    forecast = Forecast(24, 1)
    forecast.fit(water[:300])
    own = forecast.errors(water[330:])[:, -1].mean() * forecast.scale.square()
    assert own < water[330:].diff(dim=1)[:, -1].square().mean()
    assert own < 0.3 * water[330:].var()


def test_few_observations_of_many_features_get_fewer_weights() -> None:
    random = torch.Generator().manual_seed(0)
    forecast = Forecast(32, 30)
    forecast.fit(torch.randn(130, 32, 30, generator=random))
    assert (forecast.weight[:, :, :-1] == 0).all()
    assert (forecast.weight[:, :, -1] != 0).all()


def test_a_missing_value_has_no_error_and_a_jolt_has(water: Tensor) -> None:
    forecast = Forecast(24, 1)
    forecast.fit(water)
    x = water[:1].clone()
    x[0, -1] = torch.nan
    errors = forecast.errors(x)
    assert torch.isnan(errors[0, -1, 0])
    assert torch.isfinite(errors[0, :-1]).all()
    assert torch.isfinite(forecast.surprise(errors, 4)).all()
    assert forecast.surprise(torch.full((1, 16, 1), torch.nan), 4).item() == 0.0
    x[0, -1] = 9.0
    assert forecast.surprise(forecast.errors(x), 4) > forecast.surprise(forecast.errors(water[:1]), 4) + 0.5
