"""One step of training: GANomaly's losses on a batch, and its two optimisers.

The recipe follows GANomaly (Akcay et al., ACCV 2018, section 3.2) with three changes, each for a fault of the plain
one: the generator sees spoilt records and is asked for the clean ones; the codes are compared by angle; and the first
encoder of pictures also learns which views are of the same picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from model import losses
from model.image import ImageGanomaly
from model.sequence import SequenceGanomaly
from training.anomalies import spoil_pictures, spoil_windows
from training.views import picture_view

RECONSTRUCTION = 10.0
ENCODER = 1.0
MATCHING = 0.05


class Step(Protocol):
    """A batch learned from."""

    def __call__(self, rate: float) -> dict[str, float]:
        """Takes the share of the learning rate to use, 0…1, and returns the losses by name."""
        ...


class _Optimisers:
    """Adam for the generator's side and, more slowly, for the discriminator."""

    def __init__(self, generator: Iterable[nn.Module], discriminator: nn.Module, rate: float) -> None:
        self.rate = rate
        self.parameters = [weight for module in generator for weight in module.parameters()]
        self.generator = torch.optim.Adam(self.parameters, lr=rate)
        self.discriminator = torch.optim.Adam(discriminator.parameters(), lr=rate / 2, betas=(0.5, 0.999))

    def set_rate(self, share: float) -> None:
        for optimiser, full in ((self.generator, self.rate), (self.discriminator, self.rate / 2)):
            for group in optimiser.param_groups:
                group["lr"] = full * share

    def update(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if optimiser is self.generator:
            nn.utils.clip_grad_norm_(self.parameters, 5.0)
        optimiser.step()


class ImageStep:
    """A batch of pictures: two views of each for the encoder, and every second step the adversarial part."""

    def __init__(
        self, network: ImageGanomaly, pictures: NDArray[np.generic], device: torch.device, seed: int, batch: int = 128
    ) -> None:
        self.network = network
        self.pictures = torch.from_numpy(np.ascontiguousarray(pictures))
        self.device = device
        self.random = torch.Generator(device).manual_seed(seed)
        self.choose = torch.Generator().manual_seed(seed)
        self.batch = min(batch, len(pictures))
        self.steps = 0
        generator = (network.encoder, network.decoder, network.encoder2, network.head)
        self.optimisers = _Optimisers(generator, network.discriminator, 2e-3)

    def __call__(self, rate: float) -> dict[str, float]:
        """See `Step`."""
        self.optimisers.set_rate(rate)
        index = torch.randint(len(self.pictures), (self.batch,), generator=self.choose)
        x = self.network.prepare(self.pictures[index].to(self.device))  # (B, C, S, S)
        loss = self._contrastive(x)
        values = {"contrastive": float(loss.detach())}
        self.steps += 1
        if self.steps % 2 == 0:
            self.optimisers.update(self.optimisers.generator, loss)
            return values
        clean = x[: max(2, self.batch // 2)]
        spoilt = torch.cat([spoil_pictures(clean[::2], self.random), clean[1::2]])
        target = torch.cat([clean[::2], clean[1::2]])
        z, output = self.network.generate(spoilt)
        second, _ = self.network.encoder2(output)
        return values | adversarial(
            self.network.discriminator, self.optimisers, target, output, loss + ENCODER * losses.encoder_loss(z, second)
        )

    def _contrastive(self, x: Tensor) -> Tensor:
        first, second = (
            functional.normalize(self.network.head(self.network.encoder(picture_view(x, self.random))[0]), dim=1)
            for _ in range(2)
        )
        return losses.contrastive(first, second)


class SequenceStep:
    """A batch of windows, half of them spoilt."""

    def __init__(
        self,
        network: SequenceGanomaly,
        windows: NDArray[np.generic],
        index: NDArray[np.int64],
        device: torch.device,
        seed: int,
        batch: int = 128,
    ) -> None:
        self.network = network
        self.windows = windows
        self.index = index
        self.device = device
        self.random = torch.Generator(device).manual_seed(seed)
        self.choose = np.random.default_rng(seed)
        self.batch = min(batch, len(index))
        generator = (network.encoder, network.decoder, network.encoder2)
        self.optimisers = _Optimisers(generator, network.discriminator, 3e-3)

    def __call__(self, rate: float) -> dict[str, float]:
        """See `Step`."""
        self.optimisers.set_rate(rate)
        chosen = self.index[self.choose.integers(len(self.index), size=self.batch)]
        clean = self.network.prepare(torch.from_numpy(self.windows[chosen]).to(self.device))  # (B, T, F)
        spoilt = torch.cat([spoil_windows(clean[::2], self.random), clean[1::2]])
        target = torch.cat([clean[::2], clean[1::2]])
        z, output = self.network.generate(spoilt)
        loss = ENCODER * losses.encoder_loss(z, self.network.encoder2(output))
        return adversarial(self.network.discriminator, self.optimisers, target, output, loss)


def adversarial(
    discriminator: nn.Module, optimisers: _Optimisers, target: Tensor, output: Tensor, loss: Tensor
) -> dict[str, float]:
    """Adds reconstruction and feature matching to the generator's `loss`, then updates it and the discriminator."""
    error = losses.reconstruction(target, output)
    _, real = discriminator(target)
    _, fake = discriminator(output)
    loss = loss + RECONSTRUCTION * error + MATCHING * losses.feature_matching(real, fake)
    optimisers.update(optimisers.generator, loss)
    judged = losses.discriminator_loss(discriminator(target)[0], discriminator(output.detach())[0])
    optimisers.update(optimisers.discriminator, judged)
    return {
        "generator": float(loss.detach()),
        "reconstruction": float(error.detach()),
        "discriminator": float(judged.detach()),
    }
