"""One step of training on pictures."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model import losses
from model.image import ImageGanomaly
from model.objectives import DEFAULT_OBJECTIVE, Objective, objective
from training.anomalies import spoil_pictures
from training.distributed import ALONE, Workers
from training.local_step import CROP, local_loss
from training.steps import ENCODER, LABELLED, RECONSTRUCTION, Optimisers, adversarial
from training.views import picture_view

BATCH = 128  # half as many of pictures that cost four times as much
PLACES_RATE = 4e-3
PLACES_STEPS = 6  # for each step of the generator
PLACES_STEPS_IN_DETAIL = 24  # of pictures that the generator sees only small
PLACES_PIXELS = 1 << 16  # of a batch, after large pictures were cropped …
PLACES_PICTURES = 64  # … but not more pictures than this, or small ones would be seen in few steps


class ImageStep:
    """A batch of pictures: two views of each for the encoder, and every second step the adversarial part."""

    def __init__(
        self,
        network: ImageGanomaly,
        pictures: NDArray[np.generic],
        device: torch.device,
        seed: int,
        batch: int | None = None,
        *,
        watched: NDArray[np.generic] | None = None,
        labelled: NDArray[np.generic] | None = None,
        adversary: Objective | None = None,
        workers: Workers = ALONE,
    ) -> None:
        """`pictures` and, to validate on, `watched` are normal, `labelled` anomalous; `[N, H, W, C]` as records are."""
        self.network = network
        self.pictures = torch.from_numpy(np.ascontiguousarray(pictures))
        self.watched = None if watched is None else torch.from_numpy(np.ascontiguousarray(watched))
        self.labelled = None if labelled is None else torch.from_numpy(np.ascontiguousarray(labelled))
        self.validates = watched is not None and len(watched) > 0
        self.adversary = adversary or objective(DEFAULT_OBJECTIVE)
        self.workers = workers
        self.device = device
        self.random = torch.Generator(device).manual_seed(seed)
        self.choose = torch.Generator().manual_seed(seed)
        self.batch = workers.whole(min(batch or (BATCH if network.config.side <= 32 else BATCH // 2), len(pictures)))
        self.steps = 0
        generator = (network.encoder, network.decoder, network.encoder2, network.head)
        self.optimisers = Optimisers(generator, network.discriminator.judge, 2e-3, workers)
        self.places = self.optimisers.add(network.discriminator, PLACES_RATE)

    def __call__(self, rate: float) -> dict[str, float]:
        """See `Step`."""
        self.optimisers.set_rate(rate)
        index = torch.randint(len(self.pictures), (self.batch,), generator=self.choose)
        x = self._whole(self.pictures[index])  # (B, C, S, S)
        strange = self._labelled()
        loss = self._contrastive(x if strange is None else torch.cat([x, strange]))
        values = {"contrastive": float(loss.detach())}
        self.steps += 1
        if self.steps % 2 == 0:
            self.optimisers.update(self.optimisers.generator, loss)
            return values | self._learn_places()
        clean = x[: self.batch // 2]
        made = spoil_pictures(clean[::2], self.random)
        target = self.workers.share(torch.cat([clean[::2], clean[1::2]]))
        z, output = self.network.generate(self.workers.share(torch.cat([made, clean[1::2]])))
        loss = loss + ENCODER * losses.encoder_loss(z, self.network.encoder2(output)[0])
        anomalies = self._anomalies(made, strange)
        discriminator = self.network.discriminator
        with discriminator.only_judging():
            return values | adversarial(discriminator, self.adversary, self.optimisers, target, output, anomalies, loss)

    def _learn_places(self) -> dict[str, float]:
        side = min(CROP, self.network.config.fine_side)
        count = self.workers.whole(min(len(self.pictures), PLACES_PICTURES, max(4, PLACES_PIXELS // side**2)))
        for _ in range(PLACES_STEPS_IN_DETAIL if self.network.is_fine else PLACES_STEPS):
            index = torch.randint(len(self.pictures), (count,), generator=self.choose)
            x = self.network.prepare(self.workers.share(self.pictures[index]).to(self.device))
            loss = local_loss(self.network.discriminator, x, self.random)
            self.optimisers.update(self.places, loss)
        return {"places": float(loss.detach())}

    def validate(self) -> float:
        """See `Step`. Spoilt records and views are the same each time."""
        assert self.watched is not None
        random = torch.Generator(self.device).manual_seed(0)
        total = 0.0
        for records in torch.split(self.watched, self.batch):
            x = self._whole(records)
            z, output = self.network.generate(spoil_pictures(x, random))
            loss = RECONSTRUCTION * losses.reconstruction(x, output)
            loss = loss + ENCODER * losses.encoder_loss(z, self.network.encoder2(output)[0])
            first, second = (self._project(picture_view(x, random)) for _ in range(2))
            total += len(records) * float(loss + losses.contrastive(first, second))
        return total / len(self.watched)

    def _whole(self, records: Tensor) -> Tensor:
        return self.network.whole(self.network.prepare(records.to(self.device)))

    def _contrastive(self, x: Tensor) -> Tensor:
        return losses.contrastive(self._view(x), self._view(x))

    def _view(self, x: Tensor) -> Tensor:
        return self.workers.gather(self._project(self.workers.share(picture_view(x, self.random))))

    def _project(self, x: Tensor) -> Tensor:
        return functional.normalize(self.network.head(self.network.encoder(x)[0]), dim=1)  # (B, projection)

    def _labelled(self) -> Tensor | None:
        """Some of the labelled anomalies, as the generator would see them."""
        if self.labelled is None:
            return None
        index = torch.randint(len(self.labelled), (self.workers.whole(LABELLED),), generator=self.choose)
        return self._whole(self.labelled[index])

    def _anomalies(self, made: Tensor, labelled: Tensor | None) -> Tensor:
        """Made ones `[B, C, S, S]`, and views of labelled ones where there are any."""
        if labelled is None or not self.adversary.wants_anomalies:
            return self.workers.share(made)
        return self.workers.share(torch.cat([made, picture_view(labelled, self.random)]))
