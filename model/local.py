"""Local evidence of pictures: where is something that a normal picture does not have?

Sources:
- S. Akcay, A. Atapour-Abarghouei, T. P. Breckon, GANomaly, ACCV 2018, section 3.1: the discriminator, here fully
  convolutional and with a second output.
- V. Zavrtanik, M. Kristan, D. Skocaj, DRAEM, ICCV 2021, section 3.2, and H. M. Schluter et al., Natural synthetic
  anomalies, ECCV 2022: per place, told from the normal picture by training on pseudo-anomalies. Network, anomalies and
  loss are others here.
- T.-Y. Lin et al., Feature pyramid networks, CVPR 2017, section 3: coarse maps are added to fine ones, top down.
- A. Sauer et al., Projected GANs converge faster, NeurIPS 2021, section 3: what judges real against generated reads
  maps that it does not change. Here those are the maps that find what is spoilt, which both losses at once would blur.

Of a small picture the worst places' logits are one evidence. A larger one gives four, for a defect may be a point or
run through all of it, and one texture looks stranger than another without being wrong: the logits of the few worst
places; the same relative to the rest of their own picture and to what is usual there; how far the worst sixteenth of
the places stands out of the others; and how far the worst sixteenth of the patches is from a memory of normal ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.patches import PatchMemory
from model.places import UsualPlaces
from model.smoothing import local_mean

SURROUNDINGS = 9  # pixels a side in which contrast is measured
FAINTEST = 0.03  # contrast that is taken as seen
CELLS = 4  # a side of the grid of features by which generated pictures are compared to real ones
SLOPE = 0.1
POINT = 8  # places that a defect has at least
EXTENDED = 16  # one place in so many that a larger one has
WORST, WORST_SHARE = 32, 8  # places of a small picture that count: so many, but not more than one in eight


class _Convolution(nn.Module):
    """Convolution, batch normalisation and rectifier; in evaluation mode the first two are one convolution."""

    def __init__(self, inputs: int, outputs: int, *, halve: bool = False, dilation: int = 1) -> None:
        super().__init__()
        size, stride, padding = (4, 2, 1) if halve else (3, 1, dilation)
        self.convolution = nn.Conv2d(inputs, outputs, size, stride, padding, dilation, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[B, inputs, h, w]` to `[B, outputs, h', w']`, halved where asked."""
        if self.training:
            return functional.leaky_relu(self.norm(self.convolution(x)), SLOPE, inplace=True)
        convolution, norm = self.convolution, self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight, bias = convolution.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale
        maps = functional.conv2d(x, weight, bias, convolution.stride, convolution.padding, convolution.dilation)
        return functional.leaky_relu(maps, SLOPE, inplace=True)


def _upsample(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, like.shape[2:], mode="bilinear")


class _Judge(nn.Module):
    """Coarse maps to the features by which pictures are compared, and to a logit."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.compare = nn.Sequential(nn.Linear(width * CELLS * CELLS, width), nn.LeakyReLU(SLOPE))
        self.decide = nn.Linear(width, 1)

    def forward(self, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Maps `[B, width, h, w]` to logits `[B]` and features `[B, width]`."""
        features = self.compare(functional.adaptive_avg_pool2d(coarse, CELLS).flatten(1))
        return self.decide(features).squeeze(1), features


class LocalDiscriminator(nn.Module):
    """Discriminator of whole pictures and of places, and a memory of normal patches.

    Takes prepared pictures `[B, channels, h, w]`, float in −1.5…1.5, of 8 to 256 pixels a side.
    """

    level: Tensor
    spread: Tensor

    def __init__(self, channels: int, width: int = 16, patches: int = 1024) -> None:
        super().__init__()
        self.fine = nn.Sequential(_Convolution(2 * channels, width, halve=True), _Convolution(width, width))
        self.middle = nn.Sequential(_Convolution(width, 2 * width, halve=True), _Convolution(2 * width, 2 * width))
        self.coarse = nn.Sequential(
            _Convolution(2 * width, 4 * width, halve=True),
            _Convolution(4 * width, 4 * width),
            _Convolution(4 * width, 4 * width, dilation=2),
        )
        self.to_middle, self.mix_middle = nn.Conv2d(4 * width, 2 * width, 1), _Convolution(2 * width, 2 * width)
        self.to_fine, self.mix_fine = nn.Conv2d(2 * width, width, 1), _Convolution(width, width)
        self.spoilt = nn.ModuleList([nn.Conv2d(width << level, 1, 1) for level in range(3)])
        self.judge = _Judge(4 * width)
        self.patches = PatchMemory(channels, patches)
        self.usual = UsualPlaces()
        self.register_buffer("level", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared pictures to logits `[B]` (real above 0) and features `[B, 4 · width]` to match."""
        logits, features = self.judge(self._maps(x)[-1])
        return logits, features

    @contextmanager
    def only_judging(self) -> Iterator[None]:
        """Within it gradients reach the judge alone, and other pictures than records change no statistics."""
        fixed = [weight for name, weight in self.named_parameters() if not name.startswith("judge.")]
        training = self.training
        self.eval()
        for weight in fixed:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            self.train(training)
            for weight in fixed:
                weight.requires_grad_(True)

    def places(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits by place (spoilt above 0): `[B, h/2, w/2]`, and the coarse part of them `[B, h/8, w/8]`."""
        return self._places(*self._maps(x))

    def _maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        detail = x - local_mean(x, SURROUNDINGS)
        contrast = local_mean(local_mean(detail.square(), SURROUNDINGS), SURROUNDINGS)
        relative = 0.5 * detail / (contrast + FAINTEST**2).sqrt()
        both = torch.cat([x, relative], dim=1).contiguous(memory_format=torch.channels_last)  # (B, 2C, h, w)
        fine = self.fine(both)  # (B, width, h/2, w/2)
        middle = self.middle(fine)  # (B, 2 · width, h/4, w/4)
        return fine, middle, self.coarse(middle)  # (B, 4 · width, h/8, w/8)

    def _places(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        middle = self.mix_middle(middle + _upsample(self.to_middle(coarse), middle))
        mixed = self.mix_fine(fine + _upsample(self.to_fine(middle), fine))
        logits = [head(maps) for head, maps in zip(self.spoilt, (mixed, middle, coarse), strict=True)]
        total = logits[0] + _upsample(logits[1], fine) + _upsample(logits[2], fine)
        return total[:, 0], logits[2][:, 0]  # (B, h/2, w/2), (B, h/8, w/8)

    @torch.no_grad()
    def remember(self, x: Tensor) -> None:
        """Takes prepared normal pictures `[N, C, h, w]`, N >= 10, in evaluation mode; forgets those before."""
        logits = torch.cat([self.places(some)[0] for some in torch.split(x[:512], 32)])
        self.level, self.spread = logits.mean(), logits.std()
        self.usual.fit(_centred(logits))
        self.patches.remember(x[:1024])

    def spoilt_places(self, x: Tensor) -> Tensor:
        """Small prepared pictures to how spoilt their worst places look: `[B]`."""
        logits = self.places(x)[0]
        return _worst(logits, min(WORST, -(-logits[0].numel() // WORST_SHARE)))

    def details(self, x: Tensor, *, patches: bool = True) -> dict[str, Tensor]:
        """Large prepared pictures to `[B]` per evidence; larger is stranger. `patches` are half of the cost."""
        logits = self.places(x)[0]
        centred = _centred(logits)
        extent = -(-logits[0].numel() // EXTENDED)
        evidence = {
            "spoilt": _worst(logits, POINT),
            "outlying": _worst(self.usual(centred), POINT),
            "extended": _worst(self._outlying(logits), extent),
        }
        if patches:
            evidence["patches"] = _worst(self.patches.strangeness(x), extent)
        return evidence

    def heat(self, x: Tensor) -> Tensor:
        """Prepared pictures to how strange each pixel is: `[B, h, w]`, >= 0.

        The logit as it is, relative to its own picture's, and the patches' distance alike, each in standard deviations.
        """
        logits, strangeness = self.places(x)[0], self.patches.strangeness(x)
        spread = strangeness.std(dim=(1, 2), keepdim=True)
        relative = (strangeness - strangeness.mean(dim=(1, 2), keepdim=True)) / (spread + 0.1)
        total = (logits - self.level) / self.spread + self._outlying(logits)
        maps = [functional.interpolate(part[:, None], x.shape[2:], mode="bilinear") for part in (total, relative)]
        return functional.softplus(maps[0] + maps[1])[:, 0]  # (B, h, w)

    def _outlying(self, logits: Tensor) -> Tensor:
        """In standard deviations from the mean of their own picture."""
        spread = logits.std(dim=(1, 2), keepdim=True) + 0.1 * self.spread
        return _centred(logits) / spread


def _centred(maps: Tensor) -> Tensor:
    return maps - maps.mean(dim=(1, 2), keepdim=True)


def _worst(maps: Tensor, count: int) -> Tensor:
    """The mean of the `count` largest of `[B, h', w']`: `[B]`."""
    return maps.flatten(1).topk(count, dim=1).values.mean(dim=1)
