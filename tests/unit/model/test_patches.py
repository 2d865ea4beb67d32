from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

from model.patches import PatchMemory, farthest_first


def pieces(count: int, side: int = 48) -> Tensor:
    """Pieces of a photograph, `[count, 1, side, side]` in −1…1."""
    picture = torch.from_numpy(load_sample_image("china.jpg")[220:].mean(axis=2, dtype=np.float32) / 127.5 - 1.0)
    corners = torch.randint(0, 207 - side, (count, 2), generator=torch.Generator().manual_seed(0)).tolist()
    return torch.stack([picture[i : i + side, j : j + side] for i, j in corners])[:, None]


@pytest.fixture(scope="module")
def memory() -> PatchMemory:
    memory = PatchMemory(1, rows=256)
    memory.remember(pieces(40))
    return memory


def test_normal_patches_are_about_as_strange_as_usual(memory: PatchMemory) -> None:
    strangeness = memory.strangeness(pieces(60)[40:])
    assert strangeness.shape == (20, 24, 24)
    assert abs(float(strangeness.mean())) < 0.3
    assert 0.5 < float(strangeness.std()) < 2.0


def test_the_strangest_patch_lies_where_a_picture_was_spoilt(memory: PatchMemory) -> None:
    spoilt = pieces(60)[40:].clone()
    spoilt[:, :, 10:18, 30:38] = torch.tensor([1.0, -1.0]).repeat(4)
    strangest = memory.strangeness(spoilt).flatten(1).argmax(dim=1)
    row, column = strangest // 24 * 2, strangest % 24 * 2
    assert ((row - 14).abs().le(8) & (column - 34).abs().le(8)).float().mean() > 0.9


def test_brightness_and_contrast_of_a_whole_picture_hardly_matter(memory: PatchMemory) -> None:
    pictures = pieces(60)[40:]
    change = memory.strangeness(0.5 * pictures + 0.2) - memory.strangeness(pictures)
    assert change.abs().mean() < 0.2


@pytest.mark.parametrize(("shape", "rows"), [((10, 3, 8, 8), 64), ((12, 4, 11, 40), 4096), ((10, 1, 64, 64), 16)])
def test_any_shape_and_any_number_of_rows_can_be_remembered(shape: tuple[int, ...], rows: int) -> None:
    pictures = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    memory = PatchMemory(shape[1], rows)
    before = {name: value.shape for name, value in memory.state_dict().items()}
    memory.remember(pictures)
    assert {name: value.shape for name, value in memory.state_dict().items()} == before
    assert torch.isfinite(memory.strangeness(pictures)).all()


def test_farthest_first_takes_the_corners_before_the_crowd() -> None:
    crowd = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) * 0.1
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    chosen = farthest_first(torch.cat([crowd, corners]), 5)
    assert {tuple(point) for point in corners.tolist()} < {tuple(point) for point in chosen.tolist()}


def test_too_few_points_are_taken_again() -> None:
    assert farthest_first(torch.tensor([[1.0], [2.0]]), 5).flatten().tolist() == [1.0, 2.0, 1.0, 2.0, 1.0]
