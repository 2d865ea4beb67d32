"""One step of training on windows."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import losses
from model.objectives import DEFAULT_OBJECTIVE, Objective, objective
from model.sequence import SequenceGanomaly
from training.distributed import ALONE, Workers
from training.spoil_windows import spoil_windows
from training.steps import ENCODER, LABELLED, RECONSTRUCTION, Optimisers, adversarial

RATE = 4e-3
BATCH = 64
PASSES = 50
FEWEST_STEPS = 200


def enough_steps(windows: int) -> int:
    """Steps after which a history of so many windows is known by heart, or will be: 50 passes, 200 steps at least.

    What is then rebuilt well is no longer what is normal, but whatever happened; and a short one is done in seconds.
    """
    return max(FEWEST_STEPS, PASSES * windows // BATCH)


class SequenceStep:
    """A batch of windows, half of them spoilt."""

    def __init__(
        self,
        network: SequenceGanomaly,
        windows: NDArray[np.generic],
        index: NDArray[np.int64],
        device: torch.device,
        seed: int,
        batch: int = BATCH,
        *,
        watched: NDArray[np.int64] | None = None,
        labelled: NDArray[np.generic] | None = None,
        adversary: Objective | None = None,
        workers: Workers = ALONE,
    ) -> None:
        """Of `windows` those of `index` and, to validate on, of `watched` are normal; `labelled` are anomalous.

        Both are `[N, T, F]`, as records are.
        """
        self.network = network
        self.windows = windows
        self.index = index
        self.device = device
        self.random = torch.Generator(device).manual_seed(seed)
        self.choose = np.random.default_rng(seed)
        self.batch = workers.whole(batch)
        self.watched = watched
        self.labelled = labelled
        self.validates = watched is not None and len(watched) > 0
        self.adversary = adversary or objective(DEFAULT_OBJECTIVE)
        self.workers = workers
        generator = (network.encoder, network.decoder, network.encoder2)
        self.optimisers = Optimisers(generator, network.discriminator, RATE, workers)

    def __call__(self, rate: float) -> dict[str, float]:
        """See `Step`."""
        self.optimisers.set_rate(rate)
        clean = self._draw()  # (B, T, F)
        half = len(clean) // 2
        made = spoil_windows(clean[:half], self.random)
        z, output = self.network.generate(self.workers.share(torch.cat([made, clean[half:]])))
        loss = ENCODER * losses.encoder_loss(z, self.network.encoder2(output)[0])
        clean = self.workers.share(clean)
        # What the record lacks is taken from the generator, so that it is neither right nor wrong.
        target = torch.where(torch.isnan(clean), output.detach(), clean)
        return adversarial(
            self.network.discriminator,
            self.adversary,
            self.optimisers,
            target,
            output,
            self._anomalies(made),
            loss,
            losses.robust_reconstruction,
        )

    def validate(self) -> float:
        """See `Step`."""
        assert self.watched is not None
        x = self.network.prepare(torch.from_numpy(self.windows[self.watched]).to(self.device))
        z, output = self.network.generate(x)
        target = torch.where(torch.isnan(x), output, x)
        loss = RECONSTRUCTION * losses.reconstruction(target, output)
        return float(loss + ENCODER * losses.encoder_loss(z, self.network.encoder2(output)[0]))

    def _anomalies(self, made: Tensor) -> Tensor:
        """Made ones `[B, T, F]`, and labelled ones where there are any."""
        if self.labelled is None or not self.adversary.wants_anomalies:
            return self.workers.share(made)
        chosen = self.choose.integers(len(self.labelled), size=self.workers.whole(LABELLED))
        seen = self.network.prepare(torch.from_numpy(self.labelled[chosen]).to(self.device))
        return self.workers.share(torch.cat([made, seen]))

    def _draw(self) -> Tensor:
        chosen = self.index[self.choose.integers(len(self.index), size=self.batch)]
        return self.network.prepare(torch.from_numpy(self.windows[chosen]).to(self.device))
