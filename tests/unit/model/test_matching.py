import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.matching import CHUNK, FINALISTS, PictureMemory, worst_place, worst_tenth


def prepared(digits: NDArray[np.uint8], side: int) -> Tensor:
    x = torch.from_numpy(digits).permute(0, 3, 1, 2).float() / 8.0 - 1.0
    return functional.interpolate(x, (side, side), mode="bilinear")


@pytest.fixture(scope="module")
def memory(digits: NDArray[np.uint8]) -> PictureMemory:
    memory = PictureMemory(120, 1, 16)
    memory.remember(prepared(digits[:120], 16))
    return memory


def by_the_definition(memory: PictureMemory, asked: Tensor, known: Tensor) -> Tensor:
    """Of two pictures `[1, 16, 16]`, place by place and shift by shift: `[8, 8]`."""
    reach = memory.reach

    def features(x: Tensor) -> Tensor:
        edge = memory.margin + 2
        return functional.conv2d(functional.pad(x[None], (edge,) * 4, mode="replicate"), memory.kernel)[0]

    first, second = features(asked), features(known)

    def one_way(centre: Tensor, around: Tensor, row: int, column: int) -> float:
        y, x = row + memory.margin, column + memory.margin
        shifts = range(-reach, reach + 1)
        found = [
            float((centre[:, y, x] - around[:, y + down, x + right]).square().sum())
            for down in shifts
            for right in shifts
        ]
        return min(found)

    return torch.tensor(
        [
            [max(one_way(first, second, y, x), one_way(second, first, y, x)) for x in range(0, 16, 2)]
            for y in range(0, 16, 2)
        ]
    )


def test_distances_are_those_of_the_definition(memory: PictureMemory, digits: NDArray[np.uint8]) -> None:
    asked = prepared(digits[200:203], 16)
    near = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    found = memory.distances(asked, near)
    assert found.shape == (3, FINALISTS, 8, 8)
    remembered = memory.pictures.float() * (3.0 / 255.0) - 1.5
    for record, neighbour in ((0, 0), (1, 2), (2, 1)):
        expected = by_the_definition(memory, asked[record], remembered[near[record, neighbour]])
        torch.testing.assert_close(found[record, neighbour], expected, rtol=1e-3, atol=1e-4)


def test_the_finalists_are_the_best_matches_of_the_candidates(memory: PictureMemory, digits: NDArray[np.uint8]) -> None:
    asked = prepared(digits[5:6], 16)
    near = torch.tensor([[5, *range(0, 120, 12)]])
    found = memory.distances(asked, near)
    assert float(worst_place(found[:, :1])) < 0.05 * float(worst_place(memory.distances(asked, near[:, 1:4])))


def test_a_moved_picture_matches_and_a_broken_one_does_not(memory: PictureMemory, digits: NDArray[np.uint8]) -> None:
    x = prepared(digits[:64], 16)
    near = torch.arange(64).unsqueeze(1)
    moved = functional.pad(x, (1, 0, 0, 1), mode="replicate")[..., 1:, :-1]
    erased = x.clone()
    erased[..., 4:12, 6:10] = -1.0
    assert float(worst_place(memory.distances(moved, near)).median()) < 0.2 * float(
        worst_place(memory.distances(erased, near)).median()
    )


def test_a_record_does_not_depend_on_its_mates(memory: PictureMemory, digits: NDArray[np.uint8]) -> None:
    x = prepared(digits[200 : 200 + CHUNK + 9], 16)
    near = torch.arange(10).repeat(len(x), 1)
    together = memory.distances(x, near)
    alone = torch.cat([memory.distances(x[i : i + 1], near[i : i + 1]) for i in (0, 3, CHUNK, CHUNK + 8)])
    torch.testing.assert_close(together[[0, 3, CHUNK, CHUNK + 8]], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("channels", "side"), [(3, 16), (1, 32), (4, 64)])
def test_any_channels_and_sides_are_taken(channels: int, side: int) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.rand(12, channels, side, side, generator=random) * 2.0 - 1.0
    memory = PictureMemory(12, channels, side)
    memory.remember(x)
    again = memory.distances(x, torch.arange(12).repeat(12, 1))
    assert again.shape == (12, FINALISTS, min(side, 32) // 2, min(side, 32) // 2)
    assert again[:, 0].mean() < again[:, 1:].mean()


def test_a_worst_place_is_a_place_and_a_worst_tenth_the_tenth_of_them() -> None:
    flat = torch.ones(1, 3, 10, 10)
    spot = flat.clone()
    spot[..., 4, 4] = 26.0
    assert worst_place(flat).tolist() == pytest.approx([1.0])
    assert worst_place(spot).tolist() == pytest.approx([2.0])
    assert worst_tenth(spot).tolist() == pytest.approx([3.5])
