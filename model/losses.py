"""The losses of GANomaly, and the two it needs beside them to be useful.

Sources:
- S. Akcay, A. Atapour-Abarghouei, T. P. Breckon, GANomaly, ACCV 2018, section 3.2: contextual (eq. 2, L1), encoder
  (eq. 3, L2) and adversarial loss as feature matching (eq. 1).
- T. Salimans et al., Improved techniques for training GANs, NeurIPS 2016, section 3.1: feature matching.
- I. Goodfellow et al., Generative adversarial nets, NeurIPS 2014, section 3: the discriminator's loss.
- A. van den Oord et al., Representation learning with contrastive predictive coding, 2018, section 2.3: InfoNCE; in the
  symmetric form of T. Chen et al., SimCLR, ICML 2020, eq. 1.
All take and return float tensors; every result is a scalar unless said otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def reconstruction(target: Tensor, output: Tensor) -> Tensor:
    """Mean |x − x̂| + 2 · mean (x − x̂)².

    The paper's L1 keeps edges sharp; the square keeps a small but strong error from being averaged away.
    """
    error = output - target
    return error.abs().mean() + 2.0 * error.square().mean()


def robust_reconstruction(target: Tensor, output: Tensor) -> Tensor:
    """Mean |x − x̂| + 2 · mean Huber loss, whose square turns linear at 1 (P. Huber, Ann. Math. Statist. 35, 1964).

    For series, whose bursts are as many units high as they like: squared, they would be all that is learned.
    """
    return functional.l1_loss(output, target) + 2.0 * functional.smooth_l1_loss(output, target)


def latent_distance(first: Tensor, second: Tensor) -> Tensor:
    """1 − cosine of the two codes, `[N]` in 0…2, of `[N, D]` each.

    The paper takes ‖z − ẑ‖₂; its size follows the norm of z, which is small for simple pictures, so that an anomaly
    simpler than the normal ones scores low. The angle does not have that fault.
    """
    return 1.0 - functional.cosine_similarity(first, second, dim=-1, eps=1e-6)


def encoder_loss(first: Tensor, second: Tensor) -> Tensor:
    """Mean latent distance. The first code is held fixed: else both encoders could agree on a constant."""
    return latent_distance(first.detach(), second).mean()


def feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """Mean squared distance of the discriminator's features of real and of generated records; only the latter learn."""
    return functional.mse_loss(fake, real.detach())


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Binary cross-entropy of logits, half for real records (1), half for generated ones (0)."""
    return 0.5 * (functional.softplus(-real).mean() + functional.softplus(fake).mean())


def contrastive(first: Tensor, second: Tensor, temperature: float = 0.2) -> Tensor:
    """InfoNCE of two views `[N, D]` of the same N records, rows of unit length: each must find its twin."""
    count = first.shape[0]
    views = torch.cat([first, second])  # (2N, D)
    similarity = views @ views.T / temperature  # (2N, 2N)
    similarity.fill_diagonal_(float("-inf"))
    twins = torch.arange(2 * count, device=views.device).roll(count)
    return functional.cross_entropy(similarity, twins)
