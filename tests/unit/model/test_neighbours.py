from __future__ import annotations

import pytest
import torch

from model.neighbours import WindowMemory


def test_window_distance_is_euclidean_and_exact_for_near_ones() -> None:
    memory = WindowMemory(2, 2, neighbours=1)
    memory.remember(torch.tensor([[1000.0, 0.0], [0.0, 0.0]]))
    distance = memory.distance(torch.tensor([[1000.01, 0.0], [3.0, 4.0]]))
    assert distance.tolist() == pytest.approx([0.01, 5.0], rel=1e-2)


def test_fewer_points_than_neighbours_are_all_of_them() -> None:
    memory = WindowMemory(2, 1, neighbours=5)
    memory.remember(torch.tensor([[0.0], [4.0]]))
    assert memory.distance(torch.tensor([[1.0]])).tolist() == pytest.approx([2.0])
