"""Adversarial objectives by name: what the discriminator learns, and what the generator is asked for by it.

Sources:
- `bce`: I. Goodfellow et al., Generative adversarial nets, NeurIPS 2014, eq. 1, with the generator's loss that does not
  saturate (end of section 3).
- `feature-matching`: S. Akcay, A. Atapour-Abarghouei, T. P. Breckon, GANomaly, ACCV 2018, eq. 1, after T. Salimans et
  al., Improved techniques for training GANs, NeurIPS 2016, section 3.1; the discriminator learns by `bce`.
- `lsgan`: X. Mao et al., Least squares generative adversarial networks, ICCV 2017, eq. 2 with the labels of eq. 9.
- `hinge`: J. H. Lim, J. C. Ye, Geometric GAN, 2017, eq. 19 and 20; T. Miyato et al., ICLR 2018, eq. 16 and 17.
- `mocc`, margin one-class classification: the squared distance to a centre of L. Ruff et al., Deep one-class
  classification, ICML 2018, eq. 4, with anomalies on the other side as in L. Ruff et al., Deep semi-supervised anomaly
  detection, ICLR 2020, section 3, and a margin to both sides of the sphere as in R. Hadsell, S. Chopra, Y. LeCun,
  Dimensionality reduction by learning an invariant mapping, CVPR 2006, eq. 4.
- `cd`, contrastive divergence: G. Hinton, Training products of experts by minimizing contrastive divergence, Neural
  Computation 14, 2002, eq. 5; the Langevin steps and the regularisation of Y. Du, I. Mordatch, Implicit generation and
  modeling with energy-based models, NeurIPS 2019, eq. 1 and algorithm 1. The chains begin at the generator's records as
  in J. Xie et al., Cooperative training of descriptor and generator networks, TPAMI 42, 2020, section 3.

A discriminator takes records `[B, …]` and gives logits `[B]` (real above 0) and features `[B, W]`. Losses are scalars.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from model.losses import discriminator_loss, feature_matching

Discriminator = Callable[[Tensor], tuple[Tensor, Tensor]]

RADIUS = 1.0  # of the sphere around normal features: a mean square, so that it does not depend on their number
MARGIN = 0.5
CENTRE_MEMORY = 0.95  # share of the centre that outlives a batch
LANGEVIN_STEPS = 8
LANGEVIN_RATE = 10.0  # λ
LANGEVIN_NOISE = 0.01  # standard deviation; eq. 1 asks for √λ, which only far longer chains than this could afford
LANGEVIN_CLIP = 0.01  # on each number of ∇E: no step moves a number by more than 0.05, of records that span −1…1
ENERGY_PENALTY = 1.0  # α of algorithm 1


class Objective(Protocol):
    """Two losses about the same game."""

    wants_anomalies: bool
    """Whether the discriminator learns from anomalies, made or labelled, in place of generated records."""

    def discriminator_loss(self, discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        """Of `real` records and, given as constants, `fake` ones `[B, …]`; teaches the discriminator."""
        ...

    def generator_loss(self, discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        """Of `real` records and of what the generator made of them `[B, …]`; teaches the generator."""
        ...


class BinaryCrossEntropy:
    """Real or generated, as a probability."""

    wants_anomalies = False

    def discriminator_loss(self, discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        """−½ log D(x) − ½ log(1 − D(x̂))."""
        return discriminator_loss(discriminator(real)[0], discriminator(fake)[0])

    def generator_loss(self, discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        """−log D(x̂)."""
        del real
        return functional.softplus(-discriminator(fake)[0]).mean()


class FeatureMatching(BinaryCrossEntropy):
    """The paper's: the generator is asked for the discriminator's features of the real record, not for its verdict."""

    def generator_loss(self, discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        """Mean (f(x) − f(x̂))²."""
        return feature_matching(discriminator(real)[1], discriminator(fake)[1])


class LeastSquares:
    """Real records at 1, generated ones at 0."""

    wants_anomalies = False

    def discriminator_loss(self, discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        """½ (D(x) − 1)² + ½ D(x̂)²."""
        return 0.5 * ((discriminator(real)[0] - 1.0).square().mean() + discriminator(fake)[0].square().mean())

    def generator_loss(self, discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        """½ (D(x̂) − 1)²."""
        del real
        return 0.5 * (discriminator(fake)[0] - 1.0).square().mean()


class Hinge:
    """Real records above 1, generated ones below −1; what is there already teaches no more."""

    wants_anomalies = False

    def discriminator_loss(self, discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        """max(0, 1 − D(x)) + max(0, 1 + D(x̂))."""
        return (
            functional.relu(1.0 - discriminator(real)[0]).mean() + functional.relu(1.0 + discriminator(fake)[0]).mean()
        )

    def generator_loss(self, discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        """−D(x̂)."""
        del real
        return -discriminator(fake)[0].mean()


class MarginOneClass:
    """Normal features within a sphere less a margin, anomalies beyond it plus the margin.

    The centre is a running mean of the normal features. Without the anomalies the features could all fall on it.
    """

    wants_anomalies = True

    def __init__(self, radius: float = RADIUS, margin: float = MARGIN) -> None:
        self.radius = radius
        self.margin = margin
        self.centre: Tensor | None = None

    def discriminator_loss(self, discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        """max(0, d(x) − (r − m)) + max(0, (r + m) − d(x̂)), with d the mean square from the centre."""
        normal, strange = discriminator(real)[1], discriminator(fake)[1]
        mean = normal.detach().mean(dim=0)
        self.centre = mean if self.centre is None else torch.lerp(mean, self.centre, CENTRE_MEMORY)
        return (
            self._inside(normal, self.centre)
            + functional.relu(self.radius + self.margin - _mean_square(strange, self.centre)).mean()
        )

    def generator_loss(self, discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        """max(0, d(x̂) − (r − m))."""
        centre = discriminator(real)[1].detach().mean(dim=0) if self.centre is None else self.centre
        return self._inside(discriminator(fake)[1], centre)

    def _inside(self, features: Tensor, centre: Tensor) -> Tensor:
        return functional.relu(_mean_square(features, centre) - (self.radius - self.margin)).mean()


class ContrastiveDivergence:
    """The logit is a negative energy: low for normal records, high where Langevin steps go from generated ones.

    The squared energies are added, as else both may run off together.
    """

    wants_anomalies = False

    def __init__(self, steps: int = LANGEVIN_STEPS, noise: float = LANGEVIN_NOISE) -> None:
        self.steps = steps
        self.noise = noise

    def discriminator_loss(self, discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        """E(x) − E(x⁻) + α (E(x)² + E(x⁻)²), with x⁻ where the chains from x̂ end."""
        negative = self.langevin(discriminator, fake)
        low, high = -discriminator(real)[0], -discriminator(negative)[0]
        return low.mean() - high.mean() + ENERGY_PENALTY * (low.square().mean() + high.square().mean())

    def generator_loss(self, discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        """E(x̂)."""
        del real
        return -discriminator(fake)[0].mean()

    def langevin(self, discriminator: Discriminator, x: Tensor) -> Tensor:
        """Records `[B, …]` after k steps x ← x − λ/2 ∇E(x) + ω, with ω normal, from torch's own random state."""
        for _ in range(self.steps):
            x = x.detach().requires_grad_()
            energy = -discriminator(x)[0].sum()
            (gradient,) = torch.autograd.grad(energy, x)
            gradient = gradient.clamp(-LANGEVIN_CLIP, LANGEVIN_CLIP)
            x = x - 0.5 * LANGEVIN_RATE * gradient + self.noise * torch.randn_like(x)
        return x.detach()


def _mean_square(features: Tensor, centre: Tensor) -> Tensor:
    return (features - centre).square().mean(dim=1)  # (B,)


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "bce": BinaryCrossEntropy,
    "feature-matching": FeatureMatching,
    "lsgan": LeastSquares,
    "hinge": Hinge,
    "mocc": MarginOneClass,
    "cd": ContrastiveDivergence,
}
DEFAULT_OBJECTIVE = "feature-matching"


def objective(name: str) -> Objective:
    """A fresh one. Raises ValueError for a name that is none of OBJECTIVES."""
    if name not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, not {name!r}")
    return OBJECTIVES[name]()
