"""The loop of training: steps until the budget is used, watched on records that are not learned from.

Sources: L. Prechelt, Early stopping — but when?, Neural networks: tricks of the trade, 1998, section 2: patience, and
the weights of the lowest validation loss. I. Loshchilov, F. Hutter, SGDR, ICLR 2017, eq. 5: the rate falls as a cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.detector import Network
from model.errors import TrainingError
from stream_app.clock import Clock
from training.collapse import check_alive
from training.distributed import Workers
from training.steps import Step

WARM_UP_STEPS = 30
REPORT_EVERY = 0.25  # seconds
CURVE_POINTS = 200
CHECKS = 12  # of the validation loss over the budget
PATIENCE = 5  # checks without a lower loss: it often pauses, and falls again as the rate does
FEWEST_STEPS = 20  # between two checks, so that they don't cost more than the learning


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training is. `share` runs from 0 to 1; `losses` are those of the last step.

    `rate` is in steps a second; `remaining` is the time left in seconds, None as long as nothing tells it.
    """

    share: float
    step: int
    elapsed: float
    losses: dict[str, float]
    rate: float = 0.0
    remaining: float | None = None


class CurvePoint(NamedTuple):
    """Losses at a step; `validation` is among them where it was looked at."""

    step: int
    seconds: float
    losses: dict[str, float]


@dataclass(frozen=True, slots=True)
class Learned:
    """How it went. `stopped` says why it ended, `kept` of which step the weights are."""

    steps: int
    kept: int
    stopped: str
    curve: list[CurvePoint]


@dataclass(slots=True)
class Budget:
    """So many seconds on a clock, or so many steps however long they take.

    After `enough` steps there is nothing left to learn, whatever time there is.
    """

    seconds: float
    steps: int | None
    clock: Clock
    enough: int | None = None
    started: float = 0.0

    def start(self) -> None:
        """Time runs from now on."""
        self.started = self.clock.monotonic()

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock.monotonic() - self.started

    def share(self, elapsed: float, taken: int) -> float:
        """How much of it is used, 1 and more when it is used up."""
        if self.steps is not None:
            return taken / self.steps
        used = elapsed / self.seconds
        return used if self.enough is None else max(used, taken / self.enough)

    def reason(self, taken: int) -> str:
        """Why learning ends after `taken` steps when the budget is used up."""
        if self.steps is not None:
            return f"{self.steps} steps were made"
        if self.enough is not None and taken >= self.enough:
            return f"{taken} steps had shown every record often enough"
        return f"{self.seconds:g} seconds were used"


class EarlyStopping:
    """The weights of the lowest validation loss, and whether it is time to stop."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.lowest = math.inf
        self.step = 0
        self.waited = 0
        self._kept: list[tuple[Tensor, Tensor]] = []

    def look(self, loss: float, step: int) -> bool:
        """Takes a validation loss; true when it has not been lower for too long."""
        if loss < self.lowest:
            self.lowest, self.step, self.waited = loss, step, 0
            self._kept = [(tensor, tensor.detach().clone()) for tensor in _learned(self.network)]
        else:
            self.waited += 1
        return self.waited >= PATIENCE

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the best weights back."""
        for tensor, kept in self._kept:
            tensor.copy_(kept)


def learn(
    network: Network,
    step: Step,
    sample: Tensor,
    budget: Budget,
    workers: Workers,
    on_progress: Callable[[Progress], None] | None,
) -> Learned:
    """Learns until the budget is used or the validation loss no longer falls; leaves the best weights, ready to score.

    `sample` are a few records as they come: once warmed up, what the networks make of them must not all be the same.
    Raises TrainingError when it is, or when a loss is not finite.
    """
    best = EarlyStopping(network)
    curve: list[CurvePoint] = []
    taken, reported, drawn, checked, looked = 0, 0.0, 0.0, 0.0, 0
    network.train()
    budget.start()
    while True:
        elapsed, share = workers.agree(_now(budget, taken))
        if share >= 1.0:
            stopped = budget.reason(taken)
            break
        losses = workers.average(step(_rate(share, taken)))
        taken += 1
        if not all(math.isfinite(value) for value in losses.values()):
            raise TrainingError(f"training diverged at step {taken}: {losses}; nothing was saved")
        if step.validates and share >= checked and taken - looked >= FEWEST_STEPS:
            checked, looked = share + 1.0 / CHECKS, taken
            losses["validation"] = _validate(network, step, workers)
            if best.look(losses["validation"], taken):
                stopped = f"the validation loss has not been lower since step {best.step}"
        if taken == 1 or share >= drawn or "validation" in losses:
            drawn = share + 1.0 / CURVE_POINTS
            curve.append(CurvePoint(taken, round(elapsed, 3), losses))
        if on_progress and (elapsed - reported >= REPORT_EVERY or taken == 1):
            reported = elapsed
            on_progress(_progress(share, taken, elapsed, losses))
        if best.waited >= PATIENCE:
            break
    kept = _finish(network, step, workers, best, taken)
    if taken >= WARM_UP_STEPS:
        check_alive(network, sample)
    if on_progress:
        on_progress(_progress(1.0, taken, budget.elapsed(), losses))
    return Learned(taken, kept, stopped, curve)


def _finish(network: Network, step: Step, workers: Workers, best: EarlyStopping, taken: int) -> int:
    """Leaves the best weights; returns of which step they are."""
    workers.average_statistics(network)
    if best.step and best.step < taken:
        best.look(_validate(network, step, workers), taken)
        best.restore()
    network.eval()
    return best.step or taken


def _now(budget: Budget, taken: int) -> tuple[float, float]:
    elapsed = budget.elapsed()
    return elapsed, budget.share(elapsed, taken)


def _rate(share: float, taken: int) -> float:
    return min(1.0, (taken + 1) / WARM_UP_STEPS) * (0.5 + 0.5 * math.cos(math.pi * share))


def _progress(share: float, taken: int, elapsed: float, losses: dict[str, float]) -> Progress:
    remaining = elapsed * (1.0 - share) / share if share > 0.0 else None
    return Progress(share, taken, elapsed, losses, taken / elapsed if elapsed > 0.0 else 0.0, remaining)


def _validate(network: Network, step: Step, workers: Workers) -> float:
    workers.average_statistics(network)
    network.eval()
    with torch.no_grad():
        loss = workers.agree(step.validate())
    network.train()
    return loss


def _learned(network: nn.Module) -> list[Tensor]:
    """What steps change: weights, and what batch normalisation counts."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    return [*network.parameters(), *(buffer for norm in norms for buffer in norm.buffers())]
