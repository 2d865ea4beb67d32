from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from model.smoothing import local_mean


@pytest.mark.parametrize("size", [1, 3, 9, 15])
def test_a_local_mean_is_that_of_the_pixels_there_are(size: int, digits: NDArray[np.uint8]) -> None:
    x = torch.from_numpy(digits[:3]).permute(0, 3, 1, 2).float()[:, :, :, :6]
    expected = (
        functional.avg_pool2d(x, size, stride=1, padding=size // 2, count_include_pad=False) if size < 9 else None
    )
    if expected is None:
        expected = torch.stack([_by_hand(picture[0], size) for picture in x])[:, None]
    torch.testing.assert_close(local_mean(x, size), expected)


def test_what_was_first_asked_for_while_scoring_can_be_trained_through() -> None:
    with torch.inference_mode():
        local_mean(torch.rand(1, 1, 37, 41), 7)
    x = torch.rand(1, 1, 37, 41, requires_grad=True)
    local_mean(x, 7).sum().backward()
    assert x.grad is not None
    assert bool((x.grad > 0).all())


def _by_hand(picture: torch.Tensor, size: int) -> torch.Tensor:
    reach, (height, width) = size // 2, picture.shape
    means = [
        picture[max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1].mean()
        for i in range(height)
        for j in range(width)
    ]
    return torch.stack(means).view(height, width)
