"""The networks to begin with, fresh or those of a version, and the step that teaches them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from model.config import ImageConfig, Kind, SequenceConfig
from model.detector import Network, build, place
from model.errors import TrainingError
from model.image import ImageGanomaly
from model.objectives import DEFAULT_OBJECTIVE, OBJECTIVES, objective
from model.registry import Registry
from model.sequence import SequenceGanomaly
from stream_app.errors import UsageError
from training.data import Dataset
from training.distributed import Workers
from training.image_step import ImageStep
from training.parts import Parts
from training.sequence_step import SequenceStep
from training.steps import Step

Config = ImageConfig | SequenceConfig


@dataclass(frozen=True, slots=True)
class Recipe:
    """What may be chosen of how a detector is made; None is the default, or what the version to start from has.

    `objective`: one of model.objectives.OBJECTIVES. `generator` (`conv` or `lstm`) and `attention` are of pictures.
    `from_version`: its weights are where training starts.
    """

    objective: str = DEFAULT_OBJECTIVE
    generator: str | None = None
    attention: bool | None = None
    from_version: str | None = None

    def check(self, kind: Kind) -> None:
        """Raises UsageError for what there is not."""
        if self.objective not in OBJECTIVES:
            raise UsageError(f"objective must be one of {', '.join(OBJECTIVES)}, not {self.objective!r}")
        if kind is not Kind.IMAGE and not (self.generator is None and self.attention is None):
            raise UsageError("generator and attention are for pictures; windows have an LSTM generator")


def start(
    dataset: Dataset,
    parts: Parts,
    recipe: Recipe,
    registry: Registry,
    name: str,
    device: torch.device,
    seed: int,
    workers: Workers,
) -> tuple[Network, Step]:
    """Networks on their device, and the step that teaches them.

    Raises TrainingError where there is nothing to learn, and UsageError where the version to start from differs.
    """
    parent = None if recipe.from_version is None else registry.load(name, recipe.from_version, "cpu").network
    config = _fresh(dataset, recipe) if parent is None else _inherited(parent.config, dataset, recipe, name)
    most = len(parts.train) if dataset.kind is Kind.IMAGE else int(dataset.clean.sum())
    network = build(replace(config, memory=min(config.memory, most), labelled=len(parts.labelled) > 0))
    if parent is not None:
        _take_over(network, parent)
    if isinstance(network, ImageGanomaly):
        _fit_range(network, dataset, parts)
    else:
        _fit_scaling(network, dataset)
    place(network, device)
    return network, _step(network, dataset, parts, recipe, device, seed, workers)


def _step(
    network: Network,
    dataset: Dataset,
    parts: Parts,
    recipe: Recipe,
    device: torch.device,
    seed: int,
    workers: Workers,
) -> Step:
    x, labelled = dataset.x, dataset.x[parts.labelled] if len(parts.labelled) else None
    adversary = objective(recipe.objective)
    if isinstance(network, ImageGanomaly):
        return ImageStep(
            network,
            x[parts.fit],
            device,
            seed,
            watched=x[parts.watched],
            labelled=labelled,
            adversary=adversary,
            workers=workers,
        )
    return SequenceStep(
        network,
        x,
        parts.fit,
        device,
        seed,
        watched=parts.watched,
        labelled=labelled,
        adversary=adversary,
        workers=workers,
    )


def _fresh(dataset: Dataset, recipe: Recipe) -> Config:
    if dataset.kind is Kind.SEQUENCE:
        length, features = dataset.input_shape
        return SequenceConfig.for_shape(length, features)
    height, width, channels = dataset.input_shape
    config = ImageConfig.for_shape(height, width, channels)
    try:
        return replace(config, generator=recipe.generator or config.generator, attention=bool(recipe.attention))
    except ValueError as error:
        raise UsageError(str(error)) from error


def _inherited(config: Config, dataset: Dataset, recipe: Recipe, name: str) -> Config:
    """The parent's, with a memory of the usual size."""
    version = f"{name} {recipe.from_version}"
    kind = Kind.IMAGE if isinstance(config, ImageConfig) else Kind.SEQUENCE
    if (kind, config.input_shape) != (dataset.kind, dataset.input_shape):
        raise UsageError(
            f"{version} takes {kind} records {list(config.input_shape)}; {dataset.source} holds {dataset.kind} records "
            f"{list(dataset.input_shape)}"
        )
    for option in ("generator", "attention"):
        wanted = getattr(recipe, option)
        if wanted is not None and wanted != getattr(config, option):
            raise UsageError(f"{option} {wanted} can't be had from {version}, which has {getattr(config, option)}")
    usual = _fresh(dataset, Recipe())
    return replace(config, memory=usual.memory)


@torch.no_grad()
def _take_over(network: Network, parent: Network) -> None:
    """Weights and what batch normalisation has counted; memories and the like are made anew."""
    theirs = parent.state_dict()
    learned = {name for name, _ in network.named_parameters()}
    learned |= {name for name in theirs if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    for name, tensor in network.state_dict().items():
        if name in learned:
            tensor.copy_(theirs[name])


def _fit_range(network: ImageGanomaly, dataset: Dataset, parts: Parts) -> None:
    pictures = dataset.x[parts.train]
    low, high = np.percentile(pictures[:: max(1, len(pictures) // 1000)], [0.1, 99.9])
    if high <= low:
        raise TrainingError(f"{dataset.source}: the normal pictures are all of one brightness, {low:g}")
    network.low, network.high = torch.tensor(float(low)), torch.tensor(float(high))


def _fit_scaling(network: SequenceGanomaly, dataset: Dataset) -> None:
    windows = dataset.x[dataset.clean]
    # Windows of a series overlap, so that the newest observation of each gives nearly every observation once.
    rows = windows.reshape(-1, windows.shape[2])
    if dataset.spans is not None:
        rows = np.concatenate([windows[0, :-1], windows[:, -1]])
    if float(np.ptp(rows, axis=0).max()) == 0.0:
        raise TrainingError(f"{dataset.source}: no feature of the normal observations ever changes")
    network.fit_scaling(torch.from_numpy(np.ascontiguousarray(rows)))
