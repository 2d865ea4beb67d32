from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from model.config import ImageConfig
from model.errors import TrainingError
from model.image import ImageGanomaly
from model.registry import Registry
from stream_app.clock import ManualClock
from training import image_step
from training.collapse import check_alive
from training.data import Dataset
from training.distributed import ALONE
from training.learn import FEWEST_STEPS, PATIENCE, Budget, EarlyStopping, learn
from training.loop import train


class Valley:
    """A step whose validation loss falls until step `lowest` and then rises; it counts in the network's weights."""

    validates = True

    def __init__(self, network: ImageGanomaly, lowest: int) -> None:
        self.weight = network.encoder.code.bias
        self.lowest = lowest
        self.steps = 0

    def __call__(self, rate: float) -> dict[str, float]:
        self.steps += 1
        with torch.no_grad():
            self.weight.fill_(self.steps / 1024)
        return {"loss": 1.0}

    def validate(self) -> float:
        return float(abs(self.steps - self.lowest))


@pytest.fixture
def network() -> ImageGanomaly:
    return ImageGanomaly(ImageConfig.for_shape(8, 8, 1))


@pytest.fixture
def sample(digit_split: tuple[Dataset, Dataset]) -> torch.Tensor:
    return torch.from_numpy(digit_split[0].x[:64])


def test_learning_stops_when_the_validation_loss_rises_and_the_best_weights_come_back(
    network: ImageGanomaly, sample: torch.Tensor
) -> None:
    step = Valley(network, lowest=100)
    learned = learn(network, step, sample, Budget(1.0, 600, ManualClock()), ALONE, None)
    seen = [point.step for point in learned.curve if "validation" in point.losses]
    assert learned.kept == min(seen, key=lambda number: abs(number - 100))
    assert learned.stopped == f"the validation loss has not been lower since step {learned.kept}"
    assert learned.steps == seen[-1] == seen[seen.index(learned.kept) + PATIENCE]
    assert float(network.encoder.code.bias.detach()[0]) == learned.kept / 1024
    assert not network.training


def test_learning_that_still_gets_better_uses_its_budget_and_keeps_the_last_weights(
    network: ImageGanomaly, sample: torch.Tensor
) -> None:
    learned = learn(network, Valley(network, lowest=1000), sample, Budget(1.0, 200, ManualClock()), ALONE, None)
    assert (learned.steps, learned.kept, learned.stopped) == (200, 200, "200 steps were made")
    looked = [point.step for point in learned.curve if "validation" in point.losses]
    assert all(after - before >= FEWEST_STEPS for before, after in pairwise(looked))
    drawn = [point.step for point in learned.curve]
    assert (drawn[0], drawn[-1]) == (1, 200)
    assert all(1 <= after - before <= 2 for before, after in pairwise(drawn))


def test_statistics_of_batch_normalisation_come_back_with_the_weights() -> None:
    norm = nn.BatchNorm2d(2)
    best = EarlyStopping(norm)
    best.look(1.0, 1)
    norm.train()(torch.randn(8, 2, 3, 3, generator=torch.Generator().manual_seed(0)))
    assert not best.look(2.0, 2)
    best.restore()
    assert torch.equal(norm.running_mean, torch.zeros(2))
    assert int(norm.num_batches_tracked) == 0


@pytest.mark.parametrize("part", ["code", "reconstruction"])
def test_networks_that_make_one_thing_of_everything_are_refused(
    part: str, network: ImageGanomaly, sample: torch.Tensor
) -> None:
    check_alive(network.eval(), sample)
    dead = network.encoder.code if part == "code" else network.decoder.paint
    nn.init.zeros_(dead.weight)
    with pytest.raises(TrainingError, match=f"collapsed: every record gets the same {part}; nothing was saved"):
        check_alive(network, sample)


def test_networks_that_make_nan_are_refused(network: ImageGanomaly, sample: torch.Tensor) -> None:
    nn.init.constant_(network.encoder.code.bias, float("nan"))
    with pytest.raises(TrainingError, match="diverged: codes or reconstructions are not finite; nothing was saved"):
        check_alive(network.eval(), sample)


def test_a_training_that_collapses_saves_nothing(
    digit_split: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(str(tmp_path))

    class Killing(image_step.ImageStep):
        def __call__(self, rate: float) -> dict[str, float]:
            found = {"loss": 1.0}
            nn.init.zeros_(self.network.decoder.paint.weight)
            return found

    monkeypatch.setattr("training.start.ImageStep", Killing)
    with pytest.raises(TrainingError, match="collapsed: every record gets the same reconstruction"):
        train(digit_split[0], "image", registry, "digits", steps=40, device="cpu")
    assert registry.detectors() == []


def test_the_curve_of_a_training_is_in_its_result(calm_water: Dataset, tmp_path: Path) -> None:
    result = train(calm_water, "sequence", Registry(str(tmp_path)), "water", steps=10, device="cpu")
    assert [point.step for point in result.curve] == list(range(1, 11))
    assert all(set(point.losses) == {"generator", "reconstruction", "discriminator"} for point in result.curve)
    assert result.stopped == "10 steps were made"
