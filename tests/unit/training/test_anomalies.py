from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

from training import corruptions
from training.anomalies import LIMIT, PSEUDO_ANOMALIES, spoil, spoil_pictures


def pieces(count: int = 16, side: int = 32, channels: int = 1) -> Tensor:
    """Pieces of a photograph, `[count, channels, side, side]` in −1…1."""
    picture = torch.from_numpy(load_sample_image("china.jpg")[220:].mean(axis=2, dtype=np.float32) / 127.5 - 1.0)
    corners = torch.randint(0, 207 - side, (count * channels, 2), generator=torch.Generator().manual_seed(0)).tolist()
    return torch.stack([picture[i : i + side, j : j + side] for i, j in corners]).view(count, channels, side, side)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", list(PSEUDO_ANOMALIES))
@pytest.mark.parametrize("shape", [(16, 32, 1), (1, 32, 1), (5, 8, 4), (3, 64, 3)])
def test_a_kind_keeps_shape_and_input_and_follows_its_seed(kind: str, shape: tuple[int, int, int]) -> None:
    count, side, channels = shape
    x = pieces(count, side, channels)
    before = x.clone()
    (first, where), (same, _) = (PSEUDO_ANOMALIES[kind](x, seeded(1)) for _ in range(2))
    assert first.shape == x.shape
    assert where.shape == (count, 1, side, side)
    assert torch.isfinite(first).all()
    assert 0.0 <= where.min() <= where.max() <= 1.0
    assert torch.equal(x, before)
    assert torch.equal(first, same)
    others = [PSEUDO_ANOMALIES[kind](x, seeded(seed))[0] for seed in (2, 3, 4)]
    assert any(not torch.equal(first, other) for other in others)


@pytest.mark.parametrize("kind", list(PSEUDO_ANOMALIES))
def test_a_kind_changes_a_picture_in_its_region_alone(kind: str) -> None:
    x = pieces(64)
    spoilt, where = PSEUDO_ANOMALIES[kind](x, seeded(5))
    change = (spoilt - x).abs().amax(dim=1, keepdim=True)
    assert (change.flatten(1).amax(dim=1) > 0.02).float().mean() > 0.7
    assert change[where < 1e-6].max() < 1e-4
    assert 0.005 < where.mean() < 0.5


def test_most_defects_are_small_and_some_are_large() -> None:
    _, change = spoil(pieces(400), seeded(6))
    covered = (change > 0.1).float().mean(dim=(1, 2, 3))
    assert covered.median() < 0.1
    assert covered.quantile(0.95) > 0.2


def test_spoiling_says_where_it_changed_something() -> None:
    x = pieces(40, channels=3)
    spoilt, change = spoil(x, seeded(7))
    torch.testing.assert_close(change, (spoilt - x).abs().amax(dim=1, keepdim=True))
    assert spoilt.abs().max() <= LIMIT
    assert (change.flatten(1).amax(dim=1) > 0.02).float().mean() > 0.8


def test_what_the_generator_is_to_undo_is_spoilt_twice() -> None:
    x = pieces(200)
    once, twice = spoil(x, seeded(8))[0], spoil_pictures(x, seeded(8))
    assert (twice != once).any()
    assert (twice - x).abs().mean() > (once - x).abs().mean()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_pictures_can_be_spoilt(count: int) -> None:
    assert spoil_pictures(pieces(count), seeded(0)).shape == (count, 1, 32, 32)


def test_nothing_that_detectors_are_tested_with_is_among_what_they_train_on() -> None:
    assert not set(PSEUDO_ANOMALIES) & set(corruptions.KINDS)
    trained_on = {kind.__code__.co_code for kind in PSEUDO_ANOMALIES.values()}
    assert not trained_on & {kind.__code__.co_code for kind in corruptions.KINDS.values()}
    assert {kind.__module__ for kind in PSEUDO_ANOMALIES.values()} == {"training.anomalies"}
