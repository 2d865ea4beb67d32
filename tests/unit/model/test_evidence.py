from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.evidence import SHRINKAGE, NeighbourMemory, ShrunkGaussian, WindowMemory


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


def test_window_distance_is_euclidean_and_exact_for_near_ones() -> None:
    memory = WindowMemory(2, 2, neighbours=1)
    memory.remember(torch.tensor([[1000.0, 0.0], [0.0, 0.0]]))
    distance = memory.distance(torch.tensor([[1000.01, 0.0], [3.0, 4.0]]))
    assert distance.tolist() == pytest.approx([0.01, 5.0], rel=1e-2)


def test_mahalanobis_equals_the_formula_when_all_components_are_kept(digits: NDArray[np.uint8]) -> None:
    rows = digits[:500, 2:5].reshape(500, -1).astype(np.float64)
    gaussian = ShrunkGaussian(rows.shape[1], rows.shape[1])
    gaussian.fit(torch.from_numpy(rows).float())
    covariance = np.cov(rows.T)
    width = len(covariance)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / width * np.eye(width)
    centred = rows - rows.mean(axis=0)
    expected = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(shrunk), centred) / width
    found = gaussian.distance(*gaussian.coordinates(torch.from_numpy(rows).float()))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3)


def test_mahalanobis_with_fewer_components_stays_near_the_full_one(digits: NDArray[np.uint8]) -> None:
    rows = torch.from_numpy(digits.reshape(len(digits), -1)).float()
    full, few = ShrunkGaussian(64, 64), ShrunkGaussian(64, 24)
    full.fit(rows)
    few.fit(rows)
    first, second = (gaussian.distance(*gaussian.coordinates(rows)).numpy() for gaussian in (full, few))
    assert np.corrcoef(first, second)[0, 1] > 0.95


def test_mahalanobis_takes_fewer_records_than_dimensions(digits: NDArray[np.uint8]) -> None:
    rows = torch.from_numpy(digits.reshape(len(digits), -1)).float()
    gaussian = ShrunkGaussian(64, 48)
    gaussian.fit(rows[:20])
    distance = gaussian.distance(*gaussian.coordinates(rows))
    assert torch.isfinite(distance).all()
    assert distance.min() >= 0
