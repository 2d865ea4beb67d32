"""The simple methods on the same split: the product's baselines, and two that the protocols' data is known to suit.

A series is scored by windows of 32 steps and of the product's own length; `/32` after a method's name says which. Of
variants, the page counts the better one. `pca_residual_calm` is PCA's residual under a causal mean of 30 scores;
`patch_knn` the distance of each 9×9 patch to its nearest of 8,000 normal ones, and a picture's score is its worst
patch: `centred` has each patch less its own mean, `contrast` the picture less its local mean and over its local
deviation, in squares of 31 pixels, before patches are cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from detection.measure import Figures, pixels, quality
from detection.protocols import Material
from model.config import Kind
from training.baselines import BASELINES, flat
from training.data import default_window, from_arrays

WINDOWS = (32, 64)  # besides the product's own
CALM = 30  # scores
PATCH, STRIDE = 9, 2
REMEMBERED = 8000
AROUND = 31  # pixels: what contrast is measured in
LEAST_DEVIATION = 5.0  # of 255: what is of one level has no contrast to be divided by
SOME_PICTURES = 1000  # of the normal ones

Floats = NDArray[np.floating]


def baselines(material: Material, seed: int = 0, remembered: int = REMEMBERED) -> dict[str, Figures]:
    """Figures by method; `remembered` is how many patches are."""
    if material.kind is Kind.SEQUENCE:
        return _series(material, seed)
    found: dict[str, Figures] = {}
    prepare = flat(material.kind, material.train)
    normal = material.train if material.train_y is None else material.train[material.train_y == 0]
    rows, asked = prepare(normal), prepare(material.test)
    for name, fit in BASELINES.items():
        started = time.process_time()
        found[name] = quality(fit(rows, seed)(asked), material.y, material.part)
        found[name]["seconds"] = time.process_time() - started
    if material.masks is not None:
        for variant in ("centred", "contrast"):
            found[f"patch_knn/{variant}"] = _patch_neighbours(material, variant, seed, remembered)
    return found


def _series(material: Material, seed: int) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    y, part = material.y[material.history :], material.part[material.history :]
    for window in sorted({*WINDOWS, default_window(material.history)}):
        windows = from_arrays(material.test, material.kind, window=window).x
        normal, asked = windows[: material.history - window + 1], windows[material.history - window + 1 :]
        prepare = flat(material.kind, normal)
        rows, queries = prepare(normal), prepare(asked)
        for name, fit in BASELINES.items():
            started = time.process_time()
            scores = fit(rows, seed)(queries)
            found[f"{name}/{window}"] = quality(scores, y, part) | {"seconds": time.process_time() - started}
            if name == "pca_residual":
                found[f"{name}_calm/{window}"] = quality(causal_mean(scores, CALM), y, part)
    return found


def causal_mean(scores: Floats, length: int) -> Floats:
    """Mean of each score `[N]` and of the up to `length` − 1 before it."""
    total = np.concatenate([[0.0], np.cumsum(scores)])
    end = np.arange(1, len(scores) + 1)
    start = np.maximum(0, end - length)
    return (total[end] - total[start]) / (end - start)


def _patch_neighbours(material: Material, variant: str, seed: int, remembered: int) -> Figures:
    distances = patch_distances(material.train, variant, seed, remembered)
    found = np.concatenate([distances(some) for some in np.array_split(material.test, 20)])
    maps = _whole_maps(found[material.y == 1], material.test.shape[1:3])
    return quality(found.max(axis=(1, 2)), material.y, material.part) | {"pixels": pixels(maps, material)}


def _whole_maps(distances: NDArray[np.float32], size: tuple[int, ...]) -> Floats:
    """Distances of patches `[N, h, w]` at the pixels of the picture `[N, H, W]`: between the middles of the patches."""
    inner = [side - PATCH + 1 for side in size]
    maps = functional.interpolate(torch.from_numpy(distances)[:, None], inner, mode="bilinear", align_corners=True)
    before, after = PATCH // 2, PATCH - 1 - PATCH // 2
    return functional.pad(maps, (before, after, before, after), mode="replicate")[:, 0].numpy()


def patch_distances(
    normal: NDArray[Any], variant: str, seed: int, remembered: int = REMEMBERED
) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """From normal pictures `[n, H, W]` to a function from pictures `[N, H, W]` to distances `[N, h, w]` of patches."""
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(normal))[:SOME_PICTURES]
    known = _patches(normal[chosen], variant)[0]
    memory = known[torch.from_numpy(random.permutation(len(known))[:remembered])]
    half = memory.square().sum(dim=1) / 2.0

    def distances(pictures: NDArray[Any]) -> NDArray[np.float32]:
        patches, (height, width) = _patches(pictures, variant)
        nearest = [
            (some.square().sum(dim=1) - 2.0 * (some @ memory.T - half).amax(dim=1)).clamp(min=0.0).sqrt()
            for some in patches.split(4096)
        ]
        return torch.cat(nearest).view(len(pictures), height, width).numpy()

    return distances


def _patches(pictures: NDArray[Any], variant: str) -> tuple[torch.Tensor, tuple[int, int]]:
    """Patches `[n, 81]`, and how many a picture has down and across."""
    levels = torch.from_numpy(np.ascontiguousarray(pictures)).float().unsqueeze(1)  # (N, 1, H, W)
    if variant == "contrast":
        levels = levels - _local_mean(levels)
        levels = levels / (_local_mean(levels.square()).sqrt() + LEAST_DEVIATION)
    cut = functional.unfold(levels, PATCH, stride=STRIDE).transpose(1, 2)  # (N, h · w, 81)
    grid = [(side - PATCH) // STRIDE + 1 for side in pictures.shape[1:3]]
    patches = cut.reshape(-1, PATCH * PATCH)  # (N · h · w, 81)
    if variant == "centred":
        patches = patches - patches.mean(dim=1, keepdim=True)
    return patches, (grid[0], grid[1])


def _local_mean(levels: torch.Tensor) -> torch.Tensor:
    return functional.avg_pool2d(functional.pad(levels, (AROUND // 2,) * 4, mode="replicate"), AROUND, stride=1)
