from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from training.anomalies import spoil_pictures
from training.spoil_windows import spoil_windows
from training.views import picture_view

Change = Callable[[Tensor, torch.Generator], Tensor]


def pictures() -> Tensor:
    return torch.rand(12, 2, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def windows() -> Tensor:
    return torch.randn(200, 24, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("change", "records"), [(spoil_pictures, pictures()), (spoil_windows, windows()), (picture_view, pictures())]
)
def test_a_change_keeps_shape_and_input_and_follows_its_seed(change: Change, records: Tensor) -> None:
    before = records.clone()
    first, same, other = (change(records, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == records.shape
    assert not torch.isinf(first).any()
    assert torch.equal(records, before)
    torch.testing.assert_close(first, same, rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(first, other)
    assert not torch.equal(first, records)


def test_some_windows_lose_values_and_no_picture_does() -> None:
    lost = torch.isnan(spoil_windows(windows(), torch.Generator().manual_seed(1))).any(dim=(1, 2)).float().mean()
    assert 0.1 < lost < 0.3
    assert torch.isfinite(spoil_pictures(pictures(), torch.Generator().manual_seed(1))).all()


def test_damage_to_windows_stays_within_a_stretch_of_time_and_some_features() -> None:
    clean = windows()
    hit = (spoil_windows(clean, torch.Generator().manual_seed(3)) != clean).any(dim=2)
    assert hit.any(dim=1).float().mean() > 0.8
    assert hit.float().mean() < 0.6
    assert (spoil_windows(clean, torch.Generator().manual_seed(3)) == clean).all(dim=1).any()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_views_of_few_pictures_work(count: int) -> None:
    view = picture_view(pictures()[:count], torch.Generator().manual_seed(0))
    assert view.shape == (count, 2, 16, 16)
