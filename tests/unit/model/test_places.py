from __future__ import annotations

import torch
from torch import Tensor

from model.places import UsualPlaces


def maps(count: int, seed: int) -> Tensor:
    """Noise, stronger and higher in the top rows."""
    noise = torch.randn(count, 32, 32, generator=torch.Generator().manual_seed(seed))
    noise[:, :8] = 5.0 + 3.0 * noise[:, :8]
    return noise


def test_what_is_usual_for_its_place_is_alike_everywhere() -> None:
    usual = UsualPlaces()
    usual.fit(maps(50, seed=0))
    found = usual(maps(50, seed=1))
    for rows in (slice(0, 6), slice(12, 32)):
        assert abs(float(found[:, rows].mean())) < 0.2
        assert 0.7 < float(found[:, rows].std()) < 1.3


def test_the_same_value_is_stranger_where_it_is_rare() -> None:
    usual = UsualPlaces()
    usual.fit(maps(50, seed=0))
    found = usual(torch.full((1, 32, 32), 6.0))[0]
    assert found[20:].min() > 4.0 * found[:6].max()


def test_maps_of_few_places_fit() -> None:
    usual = UsualPlaces()
    usual.fit(torch.rand(10, 4, 3))
    assert torch.isfinite(usual(torch.rand(2, 4, 3))).all()
