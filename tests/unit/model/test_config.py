from __future__ import annotations

from typing import Any

import pytest

from model.config import ImageConfig, SequenceConfig


@pytest.mark.parametrize(("shape", "side"), [((8, 8, 1), 16), ((28, 28, 1), 32), ((20, 50, 3), 64), ((256, 9, 4), 64)])
def test_the_networks_side_is_the_next_larger_one(shape: tuple[int, int, int], side: int) -> None:
    config = ImageConfig.for_shape(*shape)
    assert config.side == side
    assert config.input_shape == shape


@pytest.mark.parametrize(
    "change",
    [
        {"height": 7},
        {"width": 257},
        {"channels": 0},
        {"channels": 5},
        {"side": 48},
        {"latent": 10**9},
        {"memory": 0},
        {"height": 8.5},
        {"height": True},
    ],
)
def test_an_image_config_out_of_its_limits_is_refused(change: dict[str, Any]) -> None:
    good = ImageConfig.for_shape(28, 28, 1).to_json()
    with pytest.raises(ValueError, match=next(iter(change))):
        ImageConfig.from_json({**good, **change})


@pytest.mark.parametrize("change", [{"length": 3}, {"length": 4097}, {"features": 0}, {"features": 513}, {"hidden": 1}])
def test_a_sequence_config_out_of_its_limits_is_refused(change: dict[str, Any]) -> None:
    good = SequenceConfig.for_shape(32, 2).to_json()
    with pytest.raises(ValueError, match=next(iter(change))):
        SequenceConfig.from_json({**good, **change})


def test_configs_survive_json_and_refuse_what_they_do_not_know() -> None:
    for config in (ImageConfig.for_shape(28, 30, 3), SequenceConfig.for_shape(32, 8)):
        assert type(config).from_json(config.to_json()) == config
        with pytest.raises(ValueError, match="unknown fields depth"):
            type(config).from_json({**config.to_json(), "depth": 3})
        with pytest.raises(ValueError, match="missing"):
            type(config).from_json({})
