"""A detector in service: records in, calibrated scores out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.calibration import read_sketch
from model.config import ImageConfig, Kind, Profile, SequenceConfig
from model.errors import ModelError
from model.image import ImageGanomaly
from model.manifest import Manifest
from model.reference import Reference
from model.sequence import SequenceGanomaly

Network = ImageGanomaly | SequenceGanomaly
Floats = NDArray[np.float32]

FULL = 8  # windows; see `_filled_up`
SLICE = (
    256  # a multiple of it: records on the device at once, so that a large batch takes no more memory than a usual one
)


@dataclass(frozen=True, slots=True)
class Scores:
    """Of N records, in their order.

    `score` `[N]`: −log10 of the share of held-out normals that score as high; >= 0, finite. `raw`: `[N]` by evidence.
    """

    score: Floats
    raw: dict[str, Floats]


def build(config: ImageConfig | SequenceConfig) -> Network:
    """Untrained networks."""
    return ImageGanomaly(config) if isinstance(config, ImageConfig) else SequenceGanomaly(config)


def place(network: Network, device: torch.device) -> Network:
    """Moves a network to a device; pictures in the layout that convolutions are fastest in."""
    if isinstance(network, ImageGanomaly):
        return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
    return network.to(device)


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is any, else the CPU. Raises ModelError for a device that torch can't use here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {name!r} can't be used here: {str(error).splitlines()[0]}") from error
    return device


@torch.inference_mode()
def raw_evidence(
    network: Network, inputs: NDArray[np.generic], device: torch.device, profile: Profile = Profile.ACCURATE
) -> dict[str, Floats]:
    """Each evidence `[N]` of records `[N, …]`, from a network in evaluation mode on `device`."""
    slices = _slices(inputs, device)
    if not isinstance(network, ImageGanomaly):
        slices = map(_filled_up, slices)  # only the last one may lack any
    parts = [network.evidence(network.prepare(part), profile) for part in slices]
    return {name: torch.cat([part[name] for part in parts])[: len(inputs)].float().cpu().numpy() for name in parts[0]}


def _filled_up(windows: Tensor) -> Tensor:
    """Windows up to a multiple of eight, the last one again and again.

    A matrix product sums the rows that are left over in another order, so that the score of a window would depend, in
    its seventh digit, on how many others came with it; and so would what is learned from it, after a crash.
    """
    missing = -len(windows) % FULL
    return torch.cat([windows, windows[-1:].expand(missing, -1, -1)]) if missing else windows


def _slices(inputs: NDArray[np.generic], device: torch.device) -> Iterator[Tensor]:
    for start in range(0, len(inputs), SLICE):
        part = np.ascontiguousarray(inputs[start : start + SLICE])
        # torch warns about memory that it could write to but must not.
        yield torch.from_numpy(part if part.flags.writeable else part.copy()).to(device)


class Detector:
    """One version of one detector, resident on its device. Called from one thread.

    `profile` says how much a score may cost; it may be changed between two calls.
    """

    def __init__(
        self, manifest: Manifest, network: Network, device: torch.device, profile: Profile = Profile.ACCURATE
    ) -> None:
        self.manifest = manifest
        self.device = device
        self.profile = profile
        self._network = place(network, device).eval().requires_grad_(False)

    @property
    def network(self) -> Network:
        """What it scores with: in evaluation mode, without gradients."""
        return self._network

    @property
    def name(self) -> str:
        """Of the detector, the same for all its versions."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """As the registry named it."""
        return self.manifest.version

    @property
    def sha256(self) -> str:
        """Of the weights."""
        return self.manifest.sha256

    @cached_property
    def reference(self) -> Reference:
        """What drift is measured against; of a version from before references, the score's law alone."""
        return self.manifest.inputs or Reference.of_law(read_sketch(self.manifest.score_sketch).n)

    @property
    def kind(self) -> Kind:
        """What it takes."""
        return self.manifest.kind

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one record: (H, W, C) or (T, F)."""
        return self.manifest.input_shape

    def score(self, inputs: NDArray[np.generic]) -> Scores:
        """Scores N records.

        Pictures `[N, H, W, C]` uint8, or float32 in 0…255; windows `[N, T, F]` float32 in the units of training; all
        finite. A record's score does not depend on the others of its batch: that of a window not at all, that of a
        picture to about 1e-5. Raises ModelError for another shape.
        """
        self._check(inputs)
        if len(inputs) == 0:
            empty = np.zeros(0, dtype=np.float32)
            return Scores(empty, dict.fromkeys(self.manifest.calibration.joint[self.profile].evidence, empty))
        raw = raw_evidence(self._network, inputs, self.device, self.profile)
        return Scores(self.manifest.calibration.score(raw, self.profile), raw)

    @torch.inference_mode()
    def localize(self, inputs: NDArray[np.generic]) -> Floats:
        """Where a record is strange: pictures to heat maps `[N, H, W]`, windows to contributions `[N, T, F]`; >= 0.

        Takes what `score` takes. The unit is that of the prepared record: comparable within a detector, not across.
        """
        self._check(inputs)
        if len(inputs) == 0:
            return np.zeros((0, *self.input_shape[:2]), dtype=np.float32)
        maps = [self._network.localize(self._network.prepare(part)) for part in _slices(inputs, self.device)]
        return torch.cat(maps).float().cpu().numpy()

    def warm_up(self, batch: int) -> None:
        """Pays first-call costs (allocation, choice of algorithms) for batches of `batch` and of one."""
        for size in {1, max(1, batch)}:
            records = np.zeros((size, *self.input_shape), dtype=np.uint8 if self.kind is Kind.IMAGE else np.float32)
            self.score(records)
        self.localize(records[:1])

    def _check(self, inputs: NDArray[np.generic]) -> None:
        if inputs.shape[1:] != self.input_shape or inputs.ndim != len(self.input_shape) + 1:
            expected = ", ".join(str(size) for size in self.input_shape)
            raise ModelError(f"{self.name} takes records of shape [N, {expected}], not {list(inputs.shape)}")
