from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.shape import Shape, summaries


def test_summaries_are_level_spread_roughness_extremes_and_slope() -> None:
    ramp = torch.arange(4.0).view(1, 4, 1)
    level, spread, roughness, top, bottom, slope = summaries(ramp)[0].tolist()
    assert (level, top, bottom) == (1.5, 3.0, 0.0)
    assert spread == pytest.approx(np.log(np.sqrt(1.25)), abs=1e-2)
    assert roughness == pytest.approx(0.0, abs=1e-2)
    assert slope == pytest.approx(4.0)


def test_only_the_newest_steps_are_judged(digits: NDArray[np.uint8]) -> None:
    windows = torch.from_numpy(digits[..., 0]).float()
    shape = Shape(4, 8, 64)
    shape.fit(windows[:1000])
    changed = windows[1000:].clone()
    changed[:, :4] += 50.0
    assert torch.equal(shape.distance(windows[1000:]), shape.distance(changed))


@pytest.mark.parametrize("fault", ["frozen", "shaken"])
def test_what_is_too_still_and_what_is_too_rough_are_both_strange(digits: NDArray[np.uint8], fault: str) -> None:
    windows = torch.from_numpy(digits[..., 0]).float() / 16
    shape = Shape(8, 8, 64)
    shape.fit(windows[:1000])
    wrong = windows[1000:].clone()
    wrong[:, :, 3] = wrong[:, :1, 3] if fault == "frozen" else wrong[:, :, 3] * torch.tensor([1.0, -1.0]).repeat(4)
    usual, strange = shape.distance(windows[1000:]), shape.distance(wrong)
    assert (strange > usual.median()).float().mean() > 0.9
