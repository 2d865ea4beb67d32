from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.config import ImageConfig, Profile
from model.image import ImageGanomaly


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (11, 60, 3), (256, 256, 4), (8, 256, 2)])
def test_shapes_hold_for_every_size_and_channel_count(shape: tuple[int, int, int]) -> None:
    config = ImageConfig.for_shape(*shape)
    network = ImageGanomaly(config).eval()
    x = network.prepare(torch.randint(0, 256, (2, *shape), dtype=torch.uint8))
    assert x.shape == (2, shape[2], config.fine_side, config.fine_side)
    assert config.fine_side >= max(shape[:2])
    assert config.fine_side == config.side or config.fine_side < max(shape[:2]) + 8
    whole = network.whole(x)
    assert whole.shape == (2, shape[2], config.side, config.side)
    z, output = network.generate(whole)
    assert z.shape == (2, config.latent)
    assert output.shape == whole.shape
    assert output.abs().max() <= 1.0
    logit, features = network.discriminator(whole)
    assert logit.shape == (2,)
    assert features.shape == (2, 4 * config.decoder_width)
    heat = network.localize(x)
    assert heat.shape == (2, shape[0], shape[1])
    assert heat.min() >= 0
    evidence = network.evidence(x)
    assert set(evidence) == {"reconstruction", *network.profiles[Profile.ACCURATE]}
    assert set(network.evidence(x, Profile.FAST)) == {"reconstruction", *network.profiles[Profile.FAST]}
    assert all(value.shape == (2,) for value in evidence.values())


def test_bytes_and_the_same_values_as_floats_are_the_same_picture(digits: NDArray[np.uint8]) -> None:
    network = ImageGanomaly(ImageConfig.for_shape(8, 8, 1))
    pictures = torch.from_numpy(digits[:4])
    assert torch.equal(network.prepare(pictures), network.prepare(pictures.float()))


def test_the_training_range_becomes_minus_one_to_one() -> None:
    network = ImageGanomaly(ImageConfig.for_shape(16, 16, 1))
    network.low, network.high = torch.tensor(10.0), torch.tensor(20.0)
    levels = torch.tensor([10, 15, 20, 255], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 16, 16, 1)
    assert network.prepare(levels).amax(dim=(1, 2, 3)).tolist() == [-1.0, 0.0, 1.0, 1.5]


def test_a_wide_picture_keeps_its_proportions() -> None:
    network = ImageGanomaly(ImageConfig.for_shape(8, 16, 1))
    picture = torch.zeros(1, 8, 16, 1, dtype=torch.uint8)
    picture[0, 2, 5, 0] = 255
    prepared = network.prepare(picture)
    assert prepared.shape == (1, 1, 16, 16)
    assert int(prepared.argmax()) == 2 * 16 + 5
    assert (prepared > 0).sum() == 1


def test_a_picture_from_memory_is_nearer_than_its_negative(digits: NDArray[np.uint8]) -> None:
    network = ImageGanomaly(ImageConfig(8, 8, 1, side=16, memory=300)).eval()
    network.high = torch.tensor(16.0)
    network.remember(network.prepare(torch.from_numpy(digits[:300])))
    known = network.evidence(network.prepare(torch.from_numpy(digits[:300])))
    strange = network.evidence(network.prepare(torch.from_numpy(16 - digits[:300])))
    for name in ("projection", "map", "match_place", "match_tenth"):
        assert strange[name].median() > known[name].median()
