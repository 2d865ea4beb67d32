"""Can a normal picture be bent into this one? Distance to remembered pictures that forgives small displacements.

Sources:
- D. Keysers, T. Deselaers, C. Gollan, H. Ney, Deformation models for image recognition, IEEE PAMI 29, 2007, section
  3.4: the image distortion model. Each place takes the best match within a few pixels, and is compared by its gradients
  in a 3×3 context; with it the nearest neighbour of a handwritten digit is right in 99.5 % of the cases.
- K. Roth et al., Towards total recall in industrial anomaly detection (PatchCore), CVPR 2022, section 3.3: the worst
  place decides, not the mean, as a defect is small.

Here the match goes both ways (what is too much in either picture counts), features are the strongest directions of the
gradients in context as one convolution, and a coarse pass on half of the pixels picks whom the fine pass looks at.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 32  # finer pictures are shrunk to it: the cost grows with the fourth power
REACH = 0.1  # of a side: how far a place may have moved
CANDIDATES = 10
FINALISTS = 3
FEATURES = 6
PIXEL_WEIGHT = 0.35  # of the brightness beside its gradients
CONTEXT = 5  # pixels a feature depends on: a gradient's 3 in a context of 3
CHUNK = 64  # records at once: what is in work then fits the processor's cache
LOWEST, HIGHEST = -1.5, 1.5  # of a prepared picture


class PictureMemory(nn.Module):
    """Remembered normal pictures, `rows` of `[channels, side, side]`, and the features they are compared by."""

    pictures: Tensor
    kernel: Tensor

    def __init__(self, rows: int, channels: int, side: int) -> None:
        super().__init__()
        self.side = min(side, SIDE)
        self.reach = max(1, round(REACH * self.side))
        self.margin = self.reach + self.reach % 2  # even, so that a shift by it falls on the same of two pixels
        self.register_buffer("pictures", torch.zeros(rows, channels, self.side, self.side, dtype=torch.uint8))
        self.register_buffer("kernel", torch.zeros(FEATURES, channels, CONTEXT, CONTEXT))

    @torch.no_grad()
    def remember(self, x: Tensor) -> None:
        """Takes `[rows, C, S, S]` prepared normal pictures; forgets those before."""
        small = self._shrink(x)
        self.pictures = ((small - LOWEST) * (255.0 / (HIGHEST - LOWEST))).round().clamp(0, 255).to(torch.uint8)
        self.kernel = _strongest(small[:300], _gradients_in_context(x.shape[1]).to(x.device))

    def distances(self, x: Tensor, near: Tensor) -> Tensor:
        """How far each place is from matching its record's three best of the pictures `near`, `[N, k]` indices.

        Prepared pictures `[N, C, S, S]` to squared distances `[N, 3, P, P]` on every second pixel; in arbitrary units.
        """
        small = self._shrink(x)
        chunks = zip(torch.split(small, CHUNK), torch.split(near, CHUNK), strict=True)
        return torch.cat([self._fine(part, self._finalists(part, some)) for part, some in chunks])

    def _shrink(self, x: Tensor) -> Tensor:
        if x.shape[-1] == self.side:
            return x.contiguous()
        return functional.adaptive_avg_pool2d(x, self.side)  # (N, C, side, side)

    def _recall(self, index: Tensor) -> Tensor:
        return self.pictures[index.flatten()].float() * ((HIGHEST - LOWEST) / 255.0) + LOWEST  # (N · k, C, side, side)

    def _finalists(self, x: Tensor, near: Tensor) -> Tensor:
        """The three of `near` that match best on every second pixel, give or take two: `[N, 3]`."""
        if near.shape[1] <= FINALISTS:
            return near
        asked = self._every_second(x, 1)  # (D, 1, P, P, N)
        known = self._every_second(self._recall(near), near.shape[1])  # (D, k, P, P, N)
        known = _grown(known)  # (D, k, P + 2, P + 2, N)
        places = asked.shape[2]
        asked_square, known_square = _squared(asked), _squared(known)
        here = asked.new_full((known.shape[1], places, places, len(x)), float("inf"))  # (k, P, P, N)
        there = known.new_full(known.shape[1:], float("inf"))  # (k, P + 2, P + 2, N)
        distance = torch.empty_like(here)
        for down in range(3):
            for right in range(3):
                rows, columns = slice(down, down + places), slice(right, right + places)
                torch.add(asked_square, known_square[:, rows, columns], out=distance)
                _minus_twice_product(distance, asked, known[:, :, rows, columns])
                torch.minimum(here, distance, out=here)
                torch.minimum(there[:, rows, columns], distance, out=there[:, rows, columns])
        both = torch.maximum(here, there[:, 1:-1, 1:-1]).permute(3, 0, 1, 2)  # (N, k, P, P)
        worst = functional.avg_pool2d(both, 3, stride=1, padding=1, count_include_pad=False).amax(dim=(2, 3))  # (N, k)
        return near.gather(1, worst.topk(FINALISTS, largest=False).indices)

    def _every_second(self, x: Tensor, each: int) -> Tensor:
        padded = functional.pad(x, (CONTEXT // 2,) * 4, mode="replicate")
        features = functional.conv2d(padded, self.kernel, stride=2)  # (N · each, D, P, P)
        by_record = features.reshape(-1, each, *features.shape[1:])  # (N, each, D, P, P)
        return by_record.permute(2, 1, 3, 4, 0).contiguous()  # (D, each, P, P, N)

    def _fine(self, x: Tensor, finalists: Tensor) -> Tensor:
        asked = self._phases(x, 1)  # (2, 2, D, 1, Q, Q, N)
        known = self._phases(self._recall(finalists), finalists.shape[1])  # (2, 2, D, 3, Q, Q, N)
        both = torch.maximum(self._nearest(asked, known), self._nearest(known, asked))  # (3, P, P, N)
        return both.permute(3, 0, 1, 2)

    def _phases(self, x: Tensor, each: int) -> Tensor:
        """Features of each pixel and a margin around, by whether row and column are even: `[2, 2, D, each, Q, Q, N]`.

        Sorted so, and with the records last, a step over every second pixel runs along memory.
        """
        padded = functional.pad(x, (self.margin + CONTEXT // 2,) * 4, mode="replicate")
        shifted = [
            functional.pad(self.kernel, (right, 1 - right, down, 1 - down)) for down in range(2) for right in range(2)
        ]
        features = functional.conv2d(padded, torch.cat(shifted), stride=2)  # (N · each, 4 · D, Q, Q)
        by_record = features.reshape(-1, each, 2, 2, FEATURES, *features.shape[2:])  # (N, each, 2, 2, D, Q, Q)
        return by_record.permute(2, 3, 4, 1, 5, 6, 0).contiguous()

    def _nearest(self, centre: Tensor, around: Tensor) -> Tensor:
        """Of each even pixel of `centre` to the best within reach of `around`: `[3, P, P, N]`."""
        places, margin = self.side // 2, self.margin
        middle = slice(margin // 2, margin // 2 + places)
        fixed = centre[0, 0][:, :, middle, middle].contiguous()  # (D, ·, P, P, N)
        squares = around.square().sum(dim=2)  # (2, 2, ·, Q, Q, N)
        pictures = max(centre.shape[3], around.shape[3])
        best = fixed.new_full((pictures, places, places, fixed.shape[-1]), float("inf"))  # (3, P, P, N)
        distance = torch.empty_like(best)
        for down in range(margin - self.reach, margin + self.reach + 1):
            for right in range(margin - self.reach, margin + self.reach + 1):
                rows, columns = slice(down // 2, down // 2 + places), slice(right // 2, right // 2 + places)
                phase = down % 2, right % 2
                distance.copy_(squares[phase][:, rows, columns])
                _minus_twice_product(distance, fixed, around[phase][:, :, rows, columns])
                torch.minimum(best, distance, out=best)
        return (best + _squared(fixed)).clamp_(min=0.0)


def worst_place(distances: Tensor) -> Tensor:
    """`[N, k, P, P]` to the largest mean over 5×5 places, averaged over the k pictures: `[N]`."""
    size = min(5, distances.shape[-1])
    pooled = functional.avg_pool2d(distances, size, stride=1, padding=size // 2, count_include_pad=False)
    return pooled.amax(dim=(2, 3)).mean(dim=1)


def worst_tenth(distances: Tensor) -> Tensor:
    """`[N, k, P, P]` to the mean of the tenth of the places that match worst, averaged over the k pictures: `[N]`."""
    flat = distances.flatten(2)
    return flat.topk(max(1, flat.shape[2] // 10), dim=2).values.mean(dim=(1, 2))


def _squared(features: Tensor) -> Tensor:
    """Squared length along the first dimension."""
    return features.square().sum(dim=0)


def _minus_twice_product(total: Tensor, first: Tensor, second: Tensor) -> None:
    """Subtracts twice the inner product along the first dimension: squared lengths become squared distances.

    Plane by plane and into memory that is there already: what is as large as the cache is dear to allocate, and this
    is most of what a match costs.
    """
    for one, other in zip(first, second, strict=True):
        total.addcmul_(one, other, value=-2.0)


def _grown(features: Tensor) -> Tensor:
    """`[D, k, P, P, N]` with the border repeated once: `[D, k, P + 2, P + 2, N]`."""
    rows = torch.cat([features[:, :, :1], features, features[:, :, -1:]], dim=2)
    return torch.cat([rows[:, :, :, :1], rows, rows[:, :, :, -1:]], dim=3)


def _gradients_in_context(channels: int) -> Tensor:
    """Brightness and both Sobel gradients of each of 3×3 neighbours, as kernels: `[27 · C, C, 5, 5]`."""
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8.0
    pixel = torch.zeros(3, 3)
    pixel[1, 1] = PIXEL_WEIGHT
    kernels = torch.zeros(channels, 3, 3, 3, channels, CONTEXT, CONTEXT)
    for channel in range(channels):
        for number, base in enumerate((pixel, sobel, sobel.T)):
            for down in range(3):
                for right in range(3):
                    kernels[channel, number, down, right, channel, down : down + 3, right : right + 3] = base
    return kernels.flatten(0, 3)


def _strongest(x: Tensor, kernels: Tensor) -> Tensor:
    """The kernels' strongest joint directions over pictures `[N, C, S, S]`: `[6, C, 5, 5]`."""
    responses = functional.conv2d(functional.pad(x, (CONTEXT // 2,) * 4, mode="replicate"), kernels)
    rows = responses.permute(0, 2, 3, 1).flatten(0, 2)  # (N · S · S, 27 · C)
    centred = rows - rows.mean(dim=0)
    _, axes = torch.linalg.eigh((centred.T @ centred).double())  # ascending
    strongest = axes[:, -FEATURES:].flip(1).T.to(x.dtype)  # (6, 27 · C)
    return torch.einsum("dk,kcyx->dcyx", strongest, kernels).contiguous()
