"""Every objective trains to a working detector, of pictures and of windows."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.objectives import OBJECTIVES
from model.registry import Registry
from stream_app.errors import UsageError
from training.data import Dataset
from training.loop import auroc, train


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_digit_never_seen_is_told_from_the_others(
    name: str, digit_split: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    learned, test = digit_split
    registry = Registry(str(tmp_path))
    train(learned, "image", registry, "digits", device="cpu", steps=40, objective=name)
    assert test.y is not None
    scores = registry.load("digits", device="cpu").score(test.x).score
    assert auroc(scores[test.y == 0], scores[test.y == 1]) > 0.8


@pytest.mark.parametrize("name", OBJECTIVES)
def test_incidents_of_a_water_main_are_told_from_calm_hours(
    name: str, calm_water: Dataset, water: Dataset, tmp_path: Path
) -> None:
    registry = Registry(str(tmp_path))
    train(calm_water, "sequence", registry, "water", device="cpu", steps=20, objective=name)
    assert water.y is not None
    scores = registry.load("water", device="cpu").score(water.x).score
    assert auroc(scores[water.clean], scores[water.y == 1]) > 0.8


def test_an_objective_that_there_is_not_is_refused(calm_water: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="objective must be one of bce"):
        train(calm_water, "sequence", Registry(str(tmp_path)), "water", steps=1, objective="wgan")
