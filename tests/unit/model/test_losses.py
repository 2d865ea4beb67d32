from __future__ import annotations

import math

import pytest
import torch

from model import losses


def test_reconstruction_is_l1_plus_twice_the_square() -> None:
    target, output = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, -1.0]])
    l1, square = (0.5 + 2.0) / 2, (0.25 + 4.0) / 2
    assert losses.reconstruction(target, output).item() == pytest.approx(l1 + 2 * square)


def test_latent_distance_is_one_minus_the_cosine() -> None:
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 4.0]])
    second = torch.tensor([[0.0, 5.0], [-1.0, 0.0], [7.0, 0.0], [1.0, 0.0]])
    assert losses.latent_distance(first, second).tolist() == pytest.approx([1.0, 2.0, 0.0, 0.4])


def test_latent_distance_ignores_the_length_of_the_codes() -> None:
    first, second = torch.tensor([[0.3, -0.1, 0.2]]), torch.tensor([[0.1, 0.4, -0.3]])
    scaled = losses.latent_distance(100.0 * first, second)
    assert scaled.item() == pytest.approx(losses.latent_distance(first, second).item(), abs=1e-6)


def test_encoder_loss_teaches_the_second_encoder_only() -> None:
    first = torch.tensor([[1.0, 0.0]], requires_grad=True)
    second = torch.tensor([[0.6, 0.8]], requires_grad=True)
    loss = losses.encoder_loss(first, second)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(0.4)
    assert first.grad is None
    assert second.grad is not None
    assert second.grad.abs().sum() > 0


def test_feature_matching_is_the_mean_square_and_teaches_the_generated_side_only() -> None:
    real = torch.tensor([[1.0, 2.0]], requires_grad=True)
    fake = torch.tensor([[0.0, 4.0]], requires_grad=True)
    loss = losses.feature_matching(real, fake)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx((1.0 + 4.0) / 2)
    assert real.grad is None
    assert fake.grad is not None
    assert fake.grad.tolist() == [[-1.0, 2.0]]


def test_discriminator_loss_is_binary_cross_entropy() -> None:
    real, fake = torch.tensor([2.0]), torch.tensor([-1.0])
    expected = 0.5 * (math.log1p(math.exp(-2.0)) + math.log1p(math.exp(-1.0)))
    assert losses.discriminator_loss(real, fake).item() == pytest.approx(expected)


def test_contrastive_finds_the_twin_among_all_others() -> None:
    first = second = torch.eye(2)
    # Each of the four rows sees its twin at cosine 1 and two strangers at cosine 0, over a temperature of 0.5.
    expected = -math.log(math.exp(2.0) / (math.exp(2.0) + 2.0))
    assert losses.contrastive(first, second, temperature=0.5).item() == pytest.approx(expected)


def test_a_burst_pulls_a_robust_reconstruction_no_harder_than_a_step() -> None:
    target = torch.zeros(2)
    output = torch.tensor([0.5, 100.0], requires_grad=True)
    loss = losses.robust_reconstruction(target, output)
    loss.backward()
    assert loss.item() == pytest.approx((0.5 + 100.0) / 2 + 2 * (0.125 + 99.5) / 2)
    assert output.grad is not None
    assert output.grad.tolist() == pytest.approx([0.5 + 0.5, 0.5 + 1.0])
