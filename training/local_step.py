"""What the local discriminator learns from a batch of normal pictures: to find what was spoilt in them.

A place counts as spoilt where it changed by more than can be missed: in a rough texture that is more than in a smooth
one. What changed less, but did change, is neither. Each picture's spoilt places count together as much as another's, or
large anomalies would be all that is learnt, and the worst of the clean places once more, as they make false alarms
(A. Shrivastava et al., Training region-based object detectors with online hard example mining, CVPR 2016).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from model.local import LocalDiscriminator
from model.smoothing import local_mean
from training.anomalies import spoil

CROP = 64  # pixels a side, of larger pictures
SPOILT = 0.75  # of a batch
VISIBLE = 0.05  # change of brightness, in half the range of the training pictures …
VISIBLE_CONTRAST = 0.5  # … and in addition this share of the contrast around the place
DOUBTFUL = 0.25  # of what is visible; below it a place counts as clean
POSITIVES = 0.5
HARDEST = 10
HARD = 0.2
COARSE = 0.3


def local_loss(network: LocalDiscriminator, x: Tensor, random: torch.Generator) -> Tensor:
    """A scalar for prepared normal pictures `[B, C, h, w]`, B >= 2, in training mode. `random` is on their device."""
    clean = random_crops(x, CROP, random)
    count = max(1, round(SPOILT * len(clean)))
    spoilt, change = spoil(clean[:count], random)
    shown = torch.cat([spoilt, clean[count:]])
    change = functional.pad(change, (0, 0, 0, 0, 0, 0, 0, len(clean) - count))  # (B, 1, h, w)
    visible = change / (VISIBLE + VISIBLE_CONTRAST * _contrast(clean))
    logits, coarse = network.places(shown)
    return _by_place(logits, visible) + COARSE * _by_place(coarse, visible)


def random_crops(x: Tensor, side: int, random: torch.Generator) -> Tensor:
    """A random square of `[B, C, h, w]` pictures, not larger than `side`: `[B, C, min(h, side), min(w, side)]`."""
    height, width = (min(side, size) for size in x.shape[2:])
    if (height, width) == tuple(x.shape[2:]):
        return x
    spare = torch.tensor([x.shape[2] - height + 1, x.shape[3] - width + 1], device=x.device)
    corners = (torch.rand(len(x), 2, generator=random, device=x.device) * spare).long().tolist()
    crops = [
        picture[:, top : top + height, left : left + width] for picture, (top, left) in zip(x, corners, strict=True)
    ]
    return torch.stack(crops)


def _contrast(x: Tensor) -> Tensor:
    """Standard deviation around each pixel, `[B, 1, h, w]`."""
    detail = (x - local_mean(x, 9)).square().mean(dim=1, keepdim=True)
    return local_mean(local_mean(detail, 9), 5).clamp(min=0.0).sqrt()


def _by_place(logits: Tensor, visible: Tensor) -> Tensor:
    """Cross-entropy of logits `[B, h', w']`, weighed as the head of this file says."""
    visible = functional.adaptive_max_pool2d(visible, logits.shape[1:])[:, 0]  # (B, h', w')
    spoilt, clean = (visible > 1.0).float().flatten(1), (visible <= DOUBTFUL).float().flatten(1)
    loss = functional.binary_cross_entropy_with_logits(logits.flatten(1), spoilt, reduction="none")  # (B, h' · w')
    pictures = (spoilt.sum(dim=1) > 0).sum().clamp(min=1)
    positives = ((loss * spoilt).sum(dim=1) / (spoilt.sum(dim=1) + 2.0)).sum() / pictures
    negatives = ((loss * clean).sum(dim=1) / (clean.sum(dim=1) + 1.0)).mean()
    hardest = (loss * clean).topk(min(HARDEST, loss.shape[1]), dim=1).values.mean()
    return POSITIVES * positives + negatives + HARD * hardest
