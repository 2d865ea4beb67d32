from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model import losses
from model.config import Profile
from model.errors import TrainingError
from model.registry import WEIGHTS, Registry
from stream_app.clock import ManualClock
from tests.unit.training.conftest import Trained
from training.data import Dataset, from_arrays
from training.learn import Progress
from training.loop import auroc, train


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path))


def test_a_digit_never_seen_is_told_from_the_others(image_trained: Trained) -> None:
    test = image_trained.test
    assert test.y is not None
    scores = image_trained.detector.score(test.x).score
    assert auroc(scores[test.y == 0], scores[test.y == 1]) > 0.8


def test_incidents_of_a_water_main_are_told_from_calm_hours(sequence_trained: Trained) -> None:
    test = sequence_trained.test
    assert test.y is not None
    scores = sequence_trained.detector.score(test.x).score
    assert auroc(scores[test.clean], scores[test.y == 1]) > 0.9


def test_scores_of_fresh_normal_pictures_are_calibrated(image_trained: Trained) -> None:
    test = image_trained.test
    assert test.y is not None
    normal = image_trained.detector.score(test.x[test.y == 0]).score
    assert (normal >= 1.0).mean() == pytest.approx(0.1, abs=0.06)
    assert (normal >= 2.0).mean() < 0.04


def test_a_trained_score_does_not_depend_on_the_batch(image_trained: Trained, sequence_trained: Trained) -> None:
    for trained in (image_trained, sequence_trained):
        records = trained.test.x[:64]
        whole = trained.detector.score(records).score
        single = np.concatenate([trained.detector.score(records[i : i + 1]).score for i in range(len(records))])
        np.testing.assert_allclose(single, whole, atol=3e-5)


def test_a_heat_map_is_hottest_where_the_picture_was_damaged(image_trained: Trained) -> None:
    test = image_trained.test
    assert test.y is not None
    normal = test.x[test.y == 0][:100]
    damaged = normal.copy()
    damaged[:, 5:8, 0:3] = 16
    change = image_trained.detector.localize(damaged) - image_trained.detector.localize(normal)
    assert change[:, 5:8, 0:3].mean() > 2 * np.abs(change[:, 0:4, 4:8]).mean()


def test_the_first_version_is_champion_and_says_so(image_trained: Trained) -> None:
    result, registry = image_trained.result, image_trained.registry
    assert result.champion
    assert result.replaced is None
    assert registry.champion("digits") == result.version
    assert result.path == registry.path("digits", result.version)
    manifest = registry.versions("digits")[0]
    assert manifest.metrics == result.metrics
    assert manifest.parent is None
    assert (Path(result.path) / "card.md").read_text().startswith("# digits\n")
    assert json.loads((Path(result.path) / "manifest.json").read_text())["training_data"]["rows"] == 1295


def test_a_version_keeps_what_its_records_and_scores_were_like(image_trained: Trained) -> None:
    inputs = image_trained.registry.versions("digits")[0].inputs
    assert inputs is not None
    assert inputs == image_trained.detector.reference
    assert sum(inputs.inputs["brightness"].counts) == 1295
    assert inputs.score.records == pytest.approx(image_trained.result.metrics["held_out_records"], abs=5)


def test_a_later_version_replaces_the_champion_unless_told_otherwise(calm_water: Dataset, registry: Registry) -> None:
    first = train(calm_water, "sequence", registry, "water", steps=2, device="cpu")
    second = train(calm_water, "sequence", registry, "water", steps=2, device="cpu", seed=1, promote=False)
    assert not second.champion
    assert registry.champion("water") == first.version
    third = train(calm_water, "sequence", registry, "water", steps=2, device="cpu", seed=2, by="ada")
    assert third.replaced == first.version
    assert third.promotion is not None
    assert (third.promotion.by, third.promotion.reason) == ("ada", f"trained on {calm_water.source}")
    assert registry.champion("water") == third.version
    assert len(registry.versions("water")) == 3


def test_the_same_seed_gives_the_same_weights_and_calibration(
    digit_split: tuple[Dataset, Dataset], calm_water: Dataset, tmp_path: Path
) -> None:
    for data in (digit_split[0], calm_water):
        found = []
        for number, seed in enumerate((3, 3, 4)):
            registry = Registry(str(tmp_path / f"{data.kind}{number}"))
            torch.rand(number)
            result = train(data, data.kind, registry, "same", steps=3, seed=seed, device="cpu")
            found.append(((Path(result.path) / WEIGHTS).read_bytes(), registry.versions("same")[0].calibration))
        assert found[0] == found[1]
        assert found[0][0] != found[2][0]


def test_the_callers_random_state_is_left_alone(calm_water: Dataset, registry: Registry) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(calm_water, "sequence", registry, "water", steps=1, device="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_labelled_incidents_teach_an_evidence_and_others_are_measured(water: Dataset, registry: Registry) -> None:
    result = train(water, "sequence", registry, "water", steps=5, device="cpu")
    assert result.metrics["auroc"] > 0.8
    assert result.metrics["labelled_records"] > 0
    assert "labelled" in registry.versions("water")[0].calibration.joint[Profile.ACCURATE].evidence
    assert registry.versions("water")[0].training_data.rows == int(water.clean.sum()) < len(water)


class _Ticking(ManualClock):
    """A clock on which each look costs a tenth of a second."""

    def monotonic(self) -> float:
        self.advance(0.1)
        return super().monotonic()


def test_the_time_budget_ends_training_and_progress_reaches_the_end(calm_water: Dataset, registry: Registry) -> None:
    seen: list[Progress] = []
    result = train(
        calm_water, "sequence", registry, "water", 2.0, device="cpu", on_progress=seen.append, clock=_Ticking()
    )
    assert 15 <= result.metrics["steps"] <= 25
    shares = [progress.share for progress in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(seen) < result.metrics["steps"]
    assert seen[-1].losses["reconstruction"] > 0


def test_training_that_diverges_saves_nothing(
    digit_split: tuple[Dataset, Dataset], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "encoder_loss", lambda first, second: (first - second).mean() * float("inf"))
    with pytest.raises(TrainingError, match="diverged at step 1"):
        train(digit_split[0], "image", registry, "digits", steps=3, device="cpu")
    assert registry.detectors() == []
    assert registry.champion("digits") is None


def test_data_without_anything_to_learn_is_refused(registry: Registry) -> None:
    with pytest.raises(TrainingError, match="no feature of the normal observations ever changes"):
        train(from_arrays(np.ones((500, 3)), "sequence"), "sequence", registry, "flat", steps=1)
    with pytest.raises(TrainingError, match="all of one brightness, 7"):
        train(from_arrays(np.full((80, 8, 8), 7, np.uint8), "image"), "image", registry, "flat", steps=1)
    alike = np.tile(np.arange(64, dtype=np.uint8).reshape(1, 8, 8), (80, 1, 1))
    with pytest.raises(TrainingError, match="can't be told apart"):
        train(from_arrays(alike, "image"), "image", registry, "flat", steps=1, device="cpu")
    assert registry.detectors() == []


def test_a_constant_feature_beside_a_living_one_is_no_obstacle(calm_water: Dataset, registry: Registry) -> None:
    assert calm_water.series is not None
    both = np.concatenate([calm_water.series, np.full_like(calm_water.series, 3.0)], axis=1)
    train(from_arrays(both, "sequence", window=32), "sequence", registry, "pair", steps=3, device="cpu")
    detector = registry.load("pair", device="cpu")
    normal = both[-32:][None].astype(np.float32)
    moved = normal.copy()
    moved[:, -8:, 1] = 3.1
    assert detector.score(moved).score[0] > detector.score(normal).score[0] + 1.0


@pytest.mark.parametrize(("height", "width", "channels"), [(8, 12, 3), (30, 20, 1), (70, 64, 1)])
def test_pictures_of_any_shape_train(registry: Registry, height: int, width: int, channels: int) -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (60, height, width, channels), dtype=np.uint8)
    train(from_arrays(pictures, "image"), "image", registry, "any", steps=2, device="cpu")
    detector = registry.load("any", device="cpu")
    assert detector.input_shape == (height, width, channels)
    assert np.isfinite(detector.score(pictures).score).all()
    assert detector.localize(pictures[:2]).shape == (2, height, width)


def test_what_cannot_be_asked_is_refused(calm_water: Dataset, registry: Registry) -> None:
    with pytest.raises(TrainingError, match="holds sequence records, not image"):
        train(calm_water, "image", registry, "water")
    with pytest.raises(TrainingError, match="seconds must be above 0"):
        train(calm_water, "sequence", registry, "water", seconds=0.0)


def test_auroc_counts_pairs_and_halves_of_ties() -> None:
    normal, anomalous = np.array([1, 2, 3], np.float32), np.array([2, 4], np.float32)
    assert auroc(normal, anomalous) == pytest.approx((1.5 + 3) / 6)
