"""One step of training: GANomaly's losses on a batch, and its two optimisers.

The recipe follows GANomaly (Akcay et al., ACCV 2018, section 3.2) with three changes, each for a fault of the plain
one: the generator sees spoilt records and is asked for the clean ones; the codes are compared by angle; and the first
encoder of pictures also learns which views are of the same picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from model import losses
from model.objectives import Objective
from training.distributed import ALONE, Workers

RECONSTRUCTION = 10.0
ENCODER = 1.0
ADVERSARIAL = 0.05
LABELLED = 16  # anomalies of a batch, for an objective that wants them


class Step(Protocol):
    """A batch learned from."""

    validates: bool
    """Whether there are records to validate on."""

    def __call__(self, rate: float) -> dict[str, float]:
        """Takes the share of the learning rate to use, 0…1, and returns the losses by name."""
        ...

    def validate(self) -> float:
        """The generator's loss on records that are not learned from, the same each time; in evaluation mode."""
        ...


class Optimisers:
    """Adam for the generator's side and, more slowly, for the discriminator."""

    def __init__(
        self, generator: Iterable[nn.Module], discriminator: nn.Module, rate: float, workers: Workers = ALONE
    ) -> None:
        self.workers = workers
        self.parameters = [weight for module in generator for weight in module.parameters()]
        self.generator = torch.optim.Adam(self.parameters, lr=rate, fused=True)
        self.discriminator = torch.optim.Adam(discriminator.parameters(), lr=rate / 2, betas=(0.5, 0.999), fused=True)
        self._full = [(self.generator, rate), (self.discriminator, rate / 2)]

    def add(self, module: nn.Module, rate: float) -> torch.optim.Optimizer:
        """One more, for another loss of a module."""
        optimiser = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=1e-3, fused=True)
        self._full.append((optimiser, rate))
        return optimiser

    def set_rate(self, share: float) -> None:
        """All learning rates to this share of their full ones."""
        for optimiser, full in self._full:
            for group in optimiser.param_groups:
                group["lr"] = full * share

    def update(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        """One of the two steps down its loss, the generator's with its gradient cut to a norm of 5."""
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.workers.average_gradients(weight for group in optimiser.param_groups for weight in group["params"])
        if optimiser is self.generator:
            nn.utils.clip_grad_norm_(self.parameters, 5.0)
        optimiser.step()


def adversarial(
    discriminator: nn.Module,
    adversary: Objective,
    optimisers: Optimisers,
    target: Tensor,
    output: Tensor,
    anomalies: Tensor,
    loss: Tensor,
    reconstruction: Callable[[Tensor, Tensor], Tensor] = losses.reconstruction,
) -> dict[str, float]:
    """Adds the reconstruction and what the adversary asks to the generator's `loss`; updates it and the discriminator.

    `anomalies` are made or labelled records, for an objective whose discriminator learns from those.
    """
    error = reconstruction(target, output)
    loss = loss + RECONSTRUCTION * error + ADVERSARIAL * adversary.generator_loss(discriminator, target, output)
    optimisers.update(optimisers.generator, loss)
    fake = anomalies if adversary.wants_anomalies else output
    judged = adversary.discriminator_loss(discriminator, target, fake.detach())
    optimisers.update(optimisers.discriminator, judged)
    return {
        "generator": float(loss.detach()),
        "reconstruction": float(error.detach()),
        "discriminator": float(judged.detach()),
    }
