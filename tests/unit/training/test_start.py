"""Where training begins: fresh with the generator asked for, or from a version."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.registry import Registry
from stream_app.errors import UsageError
from training.data import Dataset, from_arrays
from training.loop import auroc, train


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path))


@pytest.mark.parametrize(("generator", "attention"), [("lstm", False), ("lstm", True), ("conv", True)])
def test_every_generator_learns_to_tell_a_digit_never_seen_from_the_others(
    generator: str, attention: bool, digit_split: tuple[Dataset, Dataset], registry: Registry
) -> None:
    learned, test = digit_split
    train(learned, "image", registry, "d", device="cpu", steps=40, generator=generator, attention=attention)
    detector = registry.load("d", device="cpu")
    assert (detector.network.config.generator, detector.network.config.attention) == (generator, attention)
    assert test.y is not None
    found = detector.score(test.x)
    assert auroc(found.score[test.y == 0], found.score[test.y == 1]) > 0.8
    assert auroc(found.raw["projection"][test.y == 0], found.raw["projection"][test.y == 1]) > 0.6


def test_training_goes_on_from_the_weights_of_a_version(calm_water: Dataset, registry: Registry) -> None:
    first = train(calm_water, "sequence", registry, "w", device="cpu", steps=60)
    other = train(calm_water, "sequence", registry, "w", device="cpu", steps=1, seed=1)
    warm = train(
        calm_water, "sequence", registry, "w", device="cpu", steps=5, seed=2, from_version=first.version, promote=False
    )
    cold = train(calm_water, "sequence", registry, "w", device="cpu", steps=5, seed=2, promote=False)
    assert warm.curve[0].losses["reconstruction"] < 0.8 * cold.curve[0].losses["reconstruction"]
    assert {manifest.version: manifest.parent for manifest in registry.versions("w")} == {
        first.version: None,
        other.version: first.version,
        warm.version: first.version,
        cold.version: other.version,
    }


def test_a_version_of_pictures_is_taken_over_with_its_generator_and_statistics(
    digit_split: tuple[Dataset, Dataset], registry: Registry
) -> None:
    learned, _ = digit_split
    few = from_arrays(learned.x[:200], "image")
    parent = train(learned, "image", registry, "d", device="cpu", steps=2, attention=True)
    warm = train(few, "image", registry, "d", device="cpu", steps=1, from_version=parent.version)
    before, after = (registry.load("d", version, "cpu").network for version in (parent.version, warm.version))
    assert after.config.attention
    assert after.config.memory == 160
    # The first step has a thirtieth of the learning rate.
    torch.testing.assert_close(after.head[0].weight, before.head[0].weight, atol=2e-4, rtol=0.0)
    assert int(after.encoder.blocks[-1][1].num_batches_tracked) > int(before.encoder.blocks[-1][1].num_batches_tracked)


def test_a_version_of_another_shape_or_generator_is_refused(
    digit_split: tuple[Dataset, Dataset], calm_water: Dataset, registry: Registry
) -> None:
    version = train(calm_water, "sequence", registry, "w", device="cpu", steps=1).version
    assert calm_water.series is not None
    shorter = from_arrays(calm_water.series, "sequence", window=16)
    with pytest.raises(UsageError, match=r"takes sequence records \[24, 1\]; memory holds sequence records \[16, 1\]"):
        train(shorter, "sequence", registry, "w", device="cpu", steps=1, from_version=version)
    with pytest.raises(UsageError, match=r"takes sequence records \[24, 1\]; digits holds image records \[8, 8, 1\]"):
        train(digit_split[0], "image", registry, "w", device="cpu", steps=1, from_version=version)
    pictures = train(digit_split[0], "image", registry, "d", device="cpu", steps=1).version
    with pytest.raises(UsageError, match=r"generator lstm can't be had from d .*, which has conv"):
        train(digit_split[0], "image", registry, "d", steps=1, from_version=pictures, generator="lstm")
    with pytest.raises(UsageError, match="are for pictures"):
        train(calm_water, "sequence", registry, "w", steps=1, generator="lstm")
    assert len(registry.versions("w")) == len(registry.versions("d")) == 1
