"""How far each patch of a picture is from the patches of normal pictures, and whether that is far for its place.

Sources:
- K. Roth et al., Towards total recall in industrial anomaly detection (PatchCore), CVPR 2022, section 3: a memory of
  normal patches, thinned out to those that cover them best, and the distance to the nearest. Here of the pixels.
- O. Sener, S. Savarese, Active learning for convolutional neural networks: a core-set approach, ICLR 2018, section 4.1:
  farthest first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.places import UsualPlaces
from model.smoothing import local_mean

SIZE = 9  # pixels a side of a patch
STRIDE = 2
SURROUNDINGS = 15  # pixels a side, whose mean is no part of what a patch looks like
FAINTEST = 0.02  # contrast of a picture that is taken as seen; below it noise would be made large
CANDIDATES = 16  # patches looked at for each one that is remembered
EVERY = 5  # one in so many pictures is kept out of the memory to measure how far normal patches are from it


class PatchMemory(nn.Module):
    """Distance of patches to the nearest of `rows` remembered ones, along the `components` strongest directions."""

    filters: Tensor
    offset: Tensor
    points: Tensor

    def __init__(self, channels: int, rows: int = 1024, components: int = 24) -> None:
        super().__init__()
        self.register_buffer("filters", torch.zeros(components, channels, SIZE, SIZE))
        self.register_buffer("offset", torch.zeros(components))
        self.register_buffer("points", torch.zeros(rows, components))
        self.usual = UsualPlaces()

    @torch.no_grad()
    def remember(self, x: Tensor) -> None:
        """Takes at least 10 prepared normal pictures `[N, C, h, w]`; forgets those before."""
        kept_out = torch.arange(len(x), device=x.device) % EVERY == 0
        self._learn_directions(x[~kept_out])
        self.points = farthest_first(self._candidates(x[~kept_out]), len(self.points))
        self.usual.fit(torch.cat([self._distances(some) for some in torch.split(x[kept_out], 16)]))

    def strangeness(self, x: Tensor) -> Tensor:
        """Prepared pictures `[B, C, h, w]` to `[B, h', w']`: distances, in spreads from what is usual for the place."""
        strangeness: Tensor = self.usual(self._distances(x))
        return strangeness  # (B, h', w')

    def _distances(self, x: Tensor) -> Tensor:
        codes = self._codes(x)  # (B, d, h', w')
        count, width, rows, columns = codes.shape
        asked = codes.permute(0, 2, 3, 1).reshape(-1, width)  # (B · h' · w', d)
        nearest = torch.addmm(self.points.square().sum(1), asked, self.points.T, alpha=-2.0).amin(dim=1)
        squares = (nearest + asked.square().sum(1)).clamp(min=0.0)
        return squares.sqrt().view(count, rows, columns)

    def _codes(self, x: Tensor) -> Tensor:
        return functional.conv2d(_framed(x), self.filters, -self.offset, stride=STRIDE)  # (B, d, h', w')

    def _learn_directions(self, x: Tensor) -> None:
        patches = _sample(functional.unfold(_framed(x), SIZE).transpose(1, 2).flatten(0, 1), 8192)  # (n, C · 81)
        mean = patches.mean(dim=0)
        axes = torch.linalg.svd(patches - mean, full_matrices=False).Vh[: len(self.offset)]
        axes = functional.pad(axes, (0, 0, 0, len(self.offset) - len(axes)))
        self.filters = axes.view_as(self.filters).contiguous()
        self.offset = axes @ mean

    def _candidates(self, x: Tensor) -> Tensor:
        wanted = CANDIDATES * len(self.points)
        each = -(-wanted // len(x))
        codes = [_sample(self._codes(picture[None])[0].flatten(1).T, each) for picture in x]
        return torch.cat(codes)


def farthest_first(points: Tensor, count: int) -> Tensor:
    """`count` of `[N, D]` points, each the farthest from those before it; again from the first where N is smaller."""
    chosen = [0]
    nearest = (points - points[0]).square().sum(dim=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).square().sum(dim=1))
    return points[chosen].repeat(-(-count // len(chosen)), 1)[:count]


def _framed(x: Tensor) -> Tensor:
    return functional.pad(_contrast(x), (SIZE // 2,) * 4, mode="replicate")  # (B, C, h + 8, w + 8)


def _contrast(x: Tensor) -> Tensor:
    """Prepared pictures without their slow changes of brightness, and with the same contrast each."""
    fine = x - local_mean(x, SURROUNDINGS)
    return fine / (fine.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() + FAINTEST)


def _sample(rows: Tensor, most: int) -> Tensor:
    """At most so many of the rows, evenly spread but for a shuffle that is the same each time."""
    if len(rows) <= most:
        return rows
    random = torch.Generator().manual_seed(len(rows))
    return rows[torch.randperm(len(rows), generator=random)[:most].to(rows.device)]
