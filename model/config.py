"""The shape of a detector's networks: all that is needed to build them again before weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, Self

IMAGE_SIDES = (16, 32, 64)
SIDE_LIMITS = (8, 256)
CHANNEL_LIMITS = (1, 4)
REMEMBERED_VALUES = 1 << 26  # of pictures in the memory while they are read: 256 MiB
LENGTH_LIMITS = (4, 4096)
FEATURE_LIMITS = (1, 512)
GENERATORS = ("conv", "lstm")


class Kind(StrEnum):
    """What a detector takes."""

    IMAGE = "image"
    SEQUENCE = "sequence"


class Profile(StrEnum):
    """How much a score may cost: all evidence, or only what is nearly free beside the networks' forward pass."""

    ACCURATE = "accurate"
    FAST = "fast"


def _check(name: str, value: object, limits: tuple[int, int]) -> None:
    low, high = limits
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number in {low}..{high}, not {value!r}")


class _Json:
    """To and from a JSON object; unknown or missing fields are errors, so that no setting is dropped unseen."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # every subclass is a dataclass

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises ValueError for fields that are unknown, missing, or out of their limits."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        if unknown := sorted(set(data) - known):
            raise ValueError(f"unknown fields {', '.join(unknown)}")
        try:
            return cls(**data)
        except TypeError as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True, slots=True)
class ImageConfig(_Json):
    """GANomaly of pictures.

    `height`, `width`, `channels` are a record's; `side` is the square that the generator sees the whole picture in;
    `neighbours` of `memory` remembered normal pictures answer how common a picture is. `generator` is how pictures are
    read and written: `conv` or, row by row, `lstm`; with `attention` every place sees all others. `labelled`: whether
    there were labelled anomalies to learn from.
    """

    height: int
    width: int
    channels: int
    side: int
    encoder_width: int = 24
    decoder_width: int = 16
    latent: int = 128
    projection: int = 64
    sketch: int = 128
    memory: int = 4096
    neighbours: int = 5
    generator: str = "conv"
    attention: bool = False
    labelled: bool = False

    def __post_init__(self) -> None:
        _check("height", self.height, SIDE_LIMITS)
        _check("width", self.width, SIDE_LIMITS)
        _check("channels", self.channels, CHANNEL_LIMITS)
        if self.side not in IMAGE_SIDES:
            raise ValueError(f"side must be one of {IMAGE_SIDES}, not {self.side!r}")
        if self.generator not in GENERATORS:
            raise ValueError(f"generator must be one of {', '.join(GENERATORS)}, not {self.generator!r}")
        for name in ("encoder_width", "decoder_width"):
            _check(name, getattr(self, name), (4, 256))
        for name in ("latent", "projection", "sketch"):
            _check(name, getattr(self, name), (4, 2048))
        _check("memory", self.memory, (1, 65536))
        _check("neighbours", self.neighbours, (1, 64))

    @classmethod
    def for_shape(cls, height: int, width: int, channels: int) -> ImageConfig:
        """The defaults for records `[height, width, channels]`.

        The generator sees the next larger of 16, 32 and 64 pixels a side: beyond 64 the cost of a score would grow
        fourfold with each doubling. What is smaller than that is looked for in the picture's own resolution.
        """
        side = next((side for side in IMAGE_SIDES if side >= max(height, width)), IMAGE_SIDES[-1])
        config = cls(height=height, width=width, channels=channels, side=side)
        memory = max(256, REMEMBERED_VALUES // (config.fine_side**2 * channels))
        return replace(config, memory=min(config.memory, memory))

    @property
    def fine_side(self) -> int:
        """Of the square in which local evidence is looked for: the picture's own, up to a multiple of 8."""
        longest = max(self.height, self.width)
        return self.side if longest <= self.side else longest + -longest % 8

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one record: (H, W, C)."""
        return (self.height, self.width, self.channels)


@dataclass(frozen=True, slots=True)
class SequenceConfig(_Json):
    """GANomaly of windows `[length, features]` with LSTM encoder, decoder and second encoder.

    The networks read a window in at most `reads` patches. `components` is how many axes of their variance are kept;
    `neighbours` of `memory` remembered normal windows answer how common a window is. `labelled`: whether there were
    labelled anomalies to learn from.
    """

    length: int
    features: int
    hidden: int = 48
    latent: int = 16
    reads: int = 16
    components: int = 256
    memory: int = 2048
    neighbours: int = 5
    labelled: bool = False

    def __post_init__(self) -> None:
        _check("length", self.length, LENGTH_LIMITS)
        _check("features", self.features, FEATURE_LIMITS)
        _check("hidden", self.hidden, (4, 1024))
        _check("latent", self.latent, (2, 1024))
        _check("reads", self.reads, (1, 4096))
        _check("components", self.components, (1, 1024))
        _check("memory", self.memory, (1, 65536))
        _check("neighbours", self.neighbours, (1, 64))

    @classmethod
    def for_shape(cls, length: int, features: int) -> SequenceConfig:
        """The defaults for windows `[length, features]`."""
        return cls(length=length, features=features, components=min(256, length * features))

    @property
    def input_shape(self) -> tuple[int, int]:
        """Of one record: (T, F)."""
        return (self.length, self.features)

    @property
    def patch(self) -> int:
        """Steps that the networks read at once."""
        return -(-self.length // self.reads)
