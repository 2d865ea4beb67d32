from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.evidence import NeighbourMemory


def test_cosine_distance_is_the_mean_over_the_nearest() -> None:
    memory = NeighbourMemory(3, 2, neighbours=2)
    memory.remember(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    # Cosines of (1, 1): 0.7071 with two of them, and of (0, −3): 0 with two of them.
    distance = memory.distance(torch.tensor([[1.0, 1.0], [0.0, -3.0]]))
    assert distance.tolist() == pytest.approx([1.0 - 0.5**0.5, 1.0])


def test_relative_distance_of_remembered_kind_is_about_one(digits: NDArray[np.uint8]) -> None:
    rows = torch.from_numpy(digits.reshape(len(digits), -1)).float()
    memory = NeighbourMemory(1000, 64, neighbours=5)
    memory.remember(rows[:1000])
    assert memory.relative_distance(*memory.nearest(rows[1000:], 9)).median().item() == pytest.approx(1.0, abs=0.3)
    assert memory.relative_distance(*memory.nearest(-rows[1000:], 9)).min() > 5.0
