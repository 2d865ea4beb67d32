from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

from model.local import LocalDiscriminator
from training.local_step import local_loss, random_crops


def pieces(count: int, side: int) -> Tensor:
    """Pieces of a photograph, `[count, 1, side, side]` in −1…1."""
    picture = torch.from_numpy(load_sample_image("china.jpg")[220:].mean(axis=2, dtype=np.float32) / 127.5 - 1.0)
    corners = torch.randint(0, 207 - side, (count, 2), generator=torch.Generator().manual_seed(0)).tolist()
    return torch.stack([picture[i : i + side, j : j + side] for i, j in corners])[:, None]


def trained(pictures: Tensor, steps: int) -> tuple[LocalDiscriminator, list[float]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LocalDiscriminator(1, width=8, patches=64)
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3)
    random, losses = torch.Generator().manual_seed(0), []
    for step in range(steps):
        loss = local_loss(network, pictures.roll(step * 16, dims=0)[:16], random)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    return network.eval(), losses


def test_a_few_steps_find_a_blemish_that_was_never_shown() -> None:
    pictures = pieces(120, 32)
    network, losses = trained(pictures[:80], 300)
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])
    network.remember(pictures[:80])
    clean, spoilt = pictures[80:], pictures[80:].clone()
    spoilt[:, :, 10:16, 18:24] = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0, 1.0])
    heat = network.heat(spoilt)
    assert heat[:, 10:16, 18:24].mean() > 1.5 * heat.mean()
    assert network.spoilt_places(spoilt).median() > network.spoilt_places(clean).median()


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 3, 11, 60), (2, 4, 72, 130)])
def test_the_loss_of_any_shape_has_finite_gradients(shape: tuple[int, ...]) -> None:
    network = LocalDiscriminator(shape[1], width=4, patches=16)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2.0 - 1.0
    loss = local_loss(network, x, torch.Generator().manual_seed(0))
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    gradients = [weight.grad for part in (network.fine, network.spoilt) for weight in part.parameters()]
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_a_constant_picture_is_learned_from_without_harm() -> None:
    network = LocalDiscriminator(1, width=4, patches=16)
    assert torch.isfinite(local_loss(network, torch.zeros(4, 1, 32, 32), torch.Generator().manual_seed(0)))


def test_crops_are_pieces_of_their_pictures() -> None:
    x = pieces(6, 96)
    crops = random_crops(x, 64, torch.Generator().manual_seed(0))
    assert crops.shape == (6, 1, 64, 64)
    for picture, crop in zip(x, crops, strict=True):
        windows = picture[0].unfold(0, 64, 1).unfold(1, 64, 1)  # (33, 33, 64, 64)
        assert bool((windows == crop[0]).all(dim=(2, 3)).any())
    assert random_crops(x, 96, torch.Generator().manual_seed(0)) is x
    assert random_crops(x[:, :, :40], 64, torch.Generator().manual_seed(0)).shape == (6, 1, 40, 64)
