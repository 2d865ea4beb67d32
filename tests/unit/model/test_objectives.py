"""Each objective against its formula, computed with NumPy from the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.objectives import (
    LANGEVIN_CLIP,
    LANGEVIN_RATE,
    OBJECTIVES,
    ContrastiveDivergence,
    MarginOneClass,
    objective,
)

Floats = NDArray[np.float64]

RANDOM = np.random.default_rng(0)
REAL, FAKE = RANDOM.normal(size=(6, 4)), 0.5 + RANDOM.normal(size=(6, 4))
MIX, JUDGE = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=3)


def linear(x: Tensor) -> tuple[Tensor, Tensor]:
    features = x @ torch.from_numpy(MIX)
    return features @ torch.from_numpy(JUDGE), features


def sigmoid(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))


def losses_of(name: str, real: Floats = REAL, fake: Floats = FAKE) -> tuple[float, float]:
    chosen = objective(name)
    x, made = torch.from_numpy(real), torch.from_numpy(fake)
    return chosen.discriminator_loss(linear, x, made).item(), chosen.generator_loss(linear, x, made).item()


def test_bce_is_the_cross_entropy_and_the_generators_that_does_not_saturate() -> None:
    real, fake = sigmoid(REAL @ MIX @ JUDGE), sigmoid(FAKE @ MIX @ JUDGE)
    expected = -0.5 * np.log(real).mean() - 0.5 * np.log(1.0 - fake).mean(), -np.log(fake).mean()
    assert losses_of("bce") == pytest.approx(expected)


def test_feature_matching_is_the_square_of_the_features_difference_beside_bce() -> None:
    assert losses_of("feature-matching")[0] == losses_of("bce")[0]
    assert losses_of("feature-matching")[1] == pytest.approx(((REAL @ MIX - FAKE @ MIX) ** 2).mean())


def test_lsgan_is_the_square_from_one_and_from_zero() -> None:
    real, fake = REAL @ MIX @ JUDGE, FAKE @ MIX @ JUDGE
    expected = 0.5 * ((real - 1.0) ** 2).mean() + 0.5 * (fake**2).mean(), 0.5 * ((fake - 1.0) ** 2).mean()
    assert losses_of("lsgan") == pytest.approx(expected)


def test_hinge_stops_at_one_to_both_sides() -> None:
    real, fake = REAL @ MIX @ JUDGE, FAKE @ MIX @ JUDGE
    expected = np.maximum(0.0, 1.0 - real).mean() + np.maximum(0.0, 1.0 + fake).mean(), -fake.mean()
    assert losses_of("hinge") == pytest.approx(expected)
    assert (real > 1.0).any()
    assert (real < 1.0).any()


def test_mocc_has_a_margin_to_both_sides_of_the_sphere_around_the_normal_features() -> None:
    centre = (REAL @ MIX).mean(axis=0)
    inside, beyond = ((REAL @ MIX - centre) ** 2).mean(axis=1), ((FAKE @ MIX - centre) ** 2).mean(axis=1)
    expected = np.maximum(0.0, inside - 0.5).mean() + np.maximum(0.0, 1.5 - beyond).mean()
    assert losses_of("mocc") == pytest.approx((expected, np.maximum(0.0, beyond - 0.5).mean()))


def test_the_centre_of_mocc_follows_the_normal_features_slowly() -> None:
    chosen = MarginOneClass()
    first, second = torch.from_numpy(REAL), torch.from_numpy(REAL + 1.0)
    chosen.discriminator_loss(linear, first, first)
    chosen.discriminator_loss(linear, second, second)
    assert chosen.centre is not None
    expected = 0.95 * (REAL @ MIX).mean(axis=0) + 0.05 * ((REAL + 1.0) @ MIX).mean(axis=0)
    np.testing.assert_allclose(chosen.centre.numpy(), expected)


def test_langevin_steps_go_down_the_energy_by_a_bounded_amount() -> None:
    uphill = np.clip(-MIX @ JUDGE, -LANGEVIN_CLIP, LANGEVIN_CLIP)  # of the energy, which is minus the logit
    found = ContrastiveDivergence(steps=3, noise=0.0).langevin(linear, torch.from_numpy(FAKE))
    np.testing.assert_allclose(found.numpy(), FAKE - 3 * 0.5 * LANGEVIN_RATE * uphill)
    noisy = ContrastiveDivergence(steps=1, noise=0.5).langevin(linear, torch.zeros(4000, 4, dtype=torch.float64))
    assert float(noisy.std()) == pytest.approx(0.5, rel=0.05)


def test_cd_lowers_the_energy_of_real_records_and_raises_it_where_the_chains_end() -> None:
    chosen = ContrastiveDivergence(steps=3, noise=0.0)
    uphill = np.clip(-MIX @ JUDGE, -LANGEVIN_CLIP, LANGEVIN_CLIP)
    low, high = -REAL @ MIX @ JUDGE, -(FAKE - 1.5 * LANGEVIN_RATE * uphill) @ MIX @ JUDGE
    expected = low.mean() - high.mean() + (low**2).mean() + (high**2).mean()
    x, made = torch.from_numpy(REAL), torch.from_numpy(FAKE)
    assert chosen.discriminator_loss(linear, x, made).item() == pytest.approx(expected)
    assert chosen.generator_loss(linear, x, made).item() == pytest.approx((-FAKE @ MIX @ JUDGE).mean())


def test_langevin_steps_teach_the_discriminator_nothing() -> None:
    layer = torch.nn.Linear(4, 1)
    ContrastiveDivergence().langevin(lambda x: (layer(x).squeeze(1), x), torch.zeros(2, 4))
    assert layer.weight.grad is None


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_generator_is_pulled_towards_real_records(name: str) -> None:
    chosen = objective(name)
    real = torch.from_numpy(REAL)
    fake = torch.from_numpy(FAKE + 3.0).requires_grad_()
    chosen.discriminator_loss(linear, real, fake.detach())
    before = chosen.generator_loss(linear, real, fake)
    before.backward()  # type: ignore[no-untyped-call]
    assert fake.grad is not None
    after = chosen.generator_loss(linear, real, fake.detach() - 1e-3 * fake.grad)
    assert after.item() < before.item()


def test_an_unknown_objective_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="one of bce, feature-matching, lsgan, hinge, mocc, cd, not 'wgan'"):
        objective("wgan")
