from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score

from model.clusters import Clusters, k_means, shrunk_covariance


def three_clouds() -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(0)
    centres = np.array([[0.0, 0, 0, 0], [20, 0, 0, 0], [0, 20, 0, 0]])
    scales = np.array([1.0, 0.2, 3.0])
    kind = random.integers(0, 3, 900)
    rows = centres[kind] + scales[kind, None] * random.normal(size=(900, 4))
    return torch.from_numpy(rows), torch.from_numpy(kind)


def test_shrinkage_is_that_of_ledoit_and_wolf() -> None:
    rows = load_digits().data[:120]
    expected, share = ledoit_wolf(rows)
    assert 0.01 < share < 0.99
    np.testing.assert_allclose(shrunk_covariance(torch.from_numpy(rows)).numpy(), expected, atol=1e-9)


def test_k_means_finds_clouds_that_are_apart() -> None:
    rows, kind = three_clouds()
    members = k_means(rows, 3, torch.Generator().manual_seed(0))
    assert adjusted_rand_score(kind.numpy(), members.numpy()) == 1.0


def test_k_means_of_fewer_different_rows_than_clusters_ends() -> None:
    rows = torch.tensor([[0.0], [0.0], [1.0]])
    members = k_means(rows, 3, torch.Generator().manual_seed(0))
    assert members[0] == members[1] != members[2]


def test_a_distance_is_in_the_nearest_clusters_own_shape() -> None:
    rows, kind = three_clouds()
    clusters = Clusters(3, 4)
    clusters.remember(rows.float())
    normal = clusters.distance(rows.float())
    assert [float(normal[kind == cloud].mean()) for cloud in range(3)] == pytest.approx([1.0] * 3, rel=0.1)
    asked = torch.tensor([[20.0, 0.0, 0.0, 2.0], [0.0, 20.0, 0.0, 2.0], [10.0, 10.0, 0.0, 0.0]])
    beside_narrow, beside_wide, between = clusters.distance(asked).tolist()
    assert beside_narrow == pytest.approx(2.0**2 / 0.2**2 / 4, rel=0.4)
    assert beside_wide < 0.5
    assert between > 10 * beside_wide


def test_clusters_that_are_not_needed_change_nothing() -> None:
    rows = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    same = rows[:1].expand(4, 3)
    clusters = Clusters(5, 3)
    clusters.remember(same)
    assert torch.isfinite(clusters.distance(rows)).all()
    assert clusters.distance(rows).argmin() == 0


def test_the_same_codes_give_the_same_clusters_and_survive_saving() -> None:
    rows, _ = three_clouds()
    first, second, loaded = (Clusters(4, 4) for _ in range(3))
    first.remember(rows.float())
    second.remember(rows.float())
    loaded.load_state_dict(first.state_dict())
    asked = rows[:20].float() + 1.0
    assert torch.equal(first.distance(asked), second.distance(asked))
    assert torch.equal(first.distance(asked), loaded.distance(asked))
