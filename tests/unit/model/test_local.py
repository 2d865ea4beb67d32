from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.local import SLOPE, LocalDiscriminator, _Convolution


def pictures(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0


@pytest.fixture(scope="module")
def network() -> LocalDiscriminator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LocalDiscriminator(1, width=8, patches=64).eval()
    network.remember(pictures(20, 1, 32, 32))
    return network


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 1), (11, 60, 3), (9, 255, 2), (256, 256, 4)])
def test_shapes_hold_for_every_size_and_channel_count(shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    network = LocalDiscriminator(channels, width=4, patches=16).eval()
    x = pictures(10, channels, height, width)
    network.remember(x)
    judge, features = network(x[:2])
    spoilt, _ = network.places(x[:2])
    assert judge.shape == (2,)
    assert spoilt.shape == (2, height // 2, width // 2)
    assert features.shape == (2, 4 * 4)
    evidence = network.details(x[:2]) if min(height, width) > 64 else {"spoilt": network.spoilt_places(x[:2])}
    assert all(value.shape == (2,) and bool(torch.isfinite(value).all()) for value in evidence.values())
    heat = network.heat(x[:2])
    assert heat.shape == (2, height, width)
    assert heat.min() >= 0.0
    assert torch.isfinite(heat).all()


def test_a_picture_is_scored_the_same_alone_and_in_a_batch(network: LocalDiscriminator) -> None:
    x = pictures(6, 1, 32, 32)
    torch.testing.assert_close(network.spoilt_places(x[2:3]), network.spoilt_places(x)[2:3], rtol=1e-4, atol=1e-4)
    together, alone = network.details(x), network.details(x[2:3])
    for name, value in alone.items():
        torch.testing.assert_close(value, together[name][2:3], rtol=1e-4, atol=1e-4)


def test_the_cheap_profile_leaves_the_patches_out(network: LocalDiscriminator) -> None:
    cheap = network.details(pictures(2, 1, 32, 32), patches=False)
    assert set(network.details(pictures(2, 1, 32, 32))) - set(cheap) == {"patches"}


def test_a_picture_without_any_contrast_has_finite_evidence(network: LocalDiscriminator) -> None:
    flat = torch.full((2, 1, 32, 32), 0.3)
    assert all(bool(torch.isfinite(value).all()) for value in network.details(flat).values())
    assert torch.isfinite(network.heat(flat)).all()


def test_what_was_remembered_is_in_the_state(network: LocalDiscriminator) -> None:
    other = LocalDiscriminator(1, width=8, patches=64).eval()
    other.load_state_dict(network.state_dict())
    x = pictures(3, 1, 32, 32)
    torch.testing.assert_close(other.details(x), network.details(x))
    torch.testing.assert_close(other.heat(x), network.heat(x))


def test_a_point_and_a_crack_each_stand_out_by_their_evidence(
    network: LocalDiscriminator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of maps as the discriminator would make them: nothing, one place far out, and a row of places a little."""
    maps = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps[1, 5, 5:9] += 8.0
    maps[2, 30:33] += 3.0
    monkeypatch.setattr(network, "places", lambda _: (maps, maps))
    found = network.details(pictures(3, 1, 128, 128), patches=False)
    assert found["spoilt"].argmax() == 1
    assert found["outlying"].argmax() == 1
    normal, _, crack = found["extended"].tolist()
    assert crack > 1.1 * normal


def test_normalisation_that_is_part_of_a_convolution_changes_nothing() -> None:
    x = pictures(4, 16, 16, 16)
    block = _Convolution(16, 8, halve=True)
    for _ in range(20):
        block(x)
    expected = functional.leaky_relu(block.eval().norm(block.convolution(x)), SLOPE)
    torch.testing.assert_close(block(x), expected)


def test_judging_teaches_the_judge_alone_and_counts_no_statistics() -> None:
    network = LocalDiscriminator(1, width=4, patches=16).train()
    counted = network.fine[0].norm.running_mean.clone()
    x = pictures(4, 1, 16, 16).requires_grad_()
    with network.only_judging():
        network(x)[0].sum().backward()
    taught = {name.split(".")[0] for name, weight in network.named_parameters() if weight.grad is not None}
    assert taught == {"judge"}
    assert x.grad is not None
    assert bool((x.grad != 0).any())
    assert torch.equal(network.fine[0].norm.running_mean, counted)
    assert network.training
    assert all(weight.requires_grad for weight in network.parameters())
