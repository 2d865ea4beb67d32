"""GANomaly of pictures.

Sources:
- S. Akcay, A. Atapour-Abarghouei, T. P. Breckon, GANomaly, ACCV 2018, section 3.1 and figure 2: the generator is an
  encoder and a decoder, a second encoder reads what the decoder made, a discriminator compares the two pictures.
- A. Radford, L. Metz, S. Chintala, DCGAN, ICLR 2016, section 3: strided convolutions with batch normalisation.
- T. Chen et al., SimCLR, ICML 2020, section 2.1: a small head on the encoder whose output is compared by angle.
- H. Zhang et al., SAGAN, ICML 2019, section 3: attention in the generator, where it is asked for (model/attention.py).

What a score is made of, cheapest first: the angle between the two codes, the distance of the head's output to its
nearest normal neighbours, the same for the last convolutional map relative to their density, what the discriminator
finds spoilt in it place by place (model/local.py), and how well a normal picture can be bent into this one
(model/matching.py) or, of pictures too large for that, its patches be found in normal ones (model/patches.py).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.attention import MapAttention
from model.clusters import Clusters
from model.config import ImageConfig, Profile
from model.evidence import NeighbourMemory
from model.labelled import LabelledEvidence
from model.local import LocalDiscriminator
from model.losses import latent_distance
from model.matching import CANDIDATES, PictureMemory, worst_place, worst_tenth
from model.recurrent import RowDecoder, RowEncoder

COARSEST = 4  # pixels a side of the last map
CLUSTERS = 10  # modes of what is normal, at most
WHOLE_BESIDE_DETAIL = 0.05  # weight of each evidence of the whole picture where there is detail to look at


def _down(inputs: int, outputs: int, *, norm: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def _widths(side: int, width: int) -> list[int]:
    """Channels of the maps from the finest to the coarsest; they double with each halving, up to four times."""
    halvings = (side // COARSEST).bit_length() - 1
    return [min(width << level, 4 * width) for level in range(halvings)]


class Encoder(nn.Module):
    """Picture to code."""

    def __init__(self, config: ImageConfig, width: int) -> None:
        super().__init__()
        widths = _widths(config.side, width)
        blocks: list[nn.Module] = [_down(config.channels, widths[0], norm=False)]
        blocks += [_down(a, b) for a, b in pairwise(widths)]
        if config.attention:
            blocks.insert(-1, MapAttention(widths[-2]))  # on the map of twice the coarsest side
        self.blocks = nn.Sequential(*blocks)
        self.features = widths[-1] * COARSEST * COARSEST
        self.code = nn.Linear(self.features, config.latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared pictures `[B, C, side, side]` to codes and flat last maps."""
        maps = self.blocks(x).flatten(1)  # (B, 16 · 4w)
        return self.code(maps), maps  # (B, latent), (B, 16 · 4w)


class Decoder(nn.Module):
    """Code to picture, in −1…1."""

    def __init__(self, config: ImageConfig, width: int) -> None:
        super().__init__()
        widths = _widths(config.side, width)[::-1]
        self.top = widths[0]
        self.spread = nn.Linear(config.latent, self.top * COARSEST * COARSEST)
        blocks: list[nn.Module] = [_up(a, b) for a, b in pairwise(widths)]
        if config.attention:
            blocks.insert(1, MapAttention(widths[1]))
        self.blocks = nn.Sequential(*blocks)
        self.paint = nn.ConvTranspose2d(widths[-1], config.channels, 4, stride=2, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Codes `[B, latent]` to pictures."""
        maps = functional.relu(self.spread(z)).view(-1, self.top, COARSEST, COARSEST)  # (B, 4w, 4, 4)
        return torch.tanh(self.paint(self.blocks(maps)))  # (B, C, side, side)


class ImageGanomaly(nn.Module):
    """The whole: generator, second encoder, discriminator, head, and the memory of normal pictures.

    `low` and `high` are the training pictures' own range, so that a dark camera is seen as well as a bright one.
    """

    low: Tensor
    high: Tensor
    mix: Tensor

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        self.config = config
        encoder, decoder = (RowEncoder, RowDecoder) if config.generator == "lstm" else (Encoder, Decoder)
        self.encoder = encoder(config, config.encoder_width)
        self.decoder = decoder(config, config.decoder_width)
        self.encoder2 = encoder(config, config.decoder_width)
        self.discriminator = LocalDiscriminator(config.channels, config.decoder_width)
        self.head = nn.Sequential(
            nn.Linear(config.latent, config.latent), nn.ReLU(), nn.Linear(config.latent, config.projection)
        )
        self.projections = NeighbourMemory(config.memory, config.projection, config.neighbours)
        self.maps = NeighbourMemory(config.memory, config.sketch, config.neighbours)
        self.clusters = Clusters(CLUSTERS, config.latent)
        self.pictures = PictureMemory(config.memory, config.channels, config.side)
        self.labelled = LabelledEvidence(config.projection, config.sketch) if config.labelled else None
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.full((), 255.0))
        self.register_buffer("mix", torch.zeros(self.encoder.features, config.sketch))

    @property
    def profiles(self) -> dict[Profile, dict[str, float]]:
        """The evidence that makes the score of each profile, and how much each weighs.

        The reconstruction error is reported but makes none: it falls where an anomaly is simpler than what is normal.
        Where a picture has more detail than is seen of it as a whole, what is found in the detail decides, and the
        whole only has a say where it is strange beyond doubt.
        """
        # Four readings of one encoder, two of them of its code, would outvote what looks at the picture's parts.
        weights = {"latent": 0.25, "clusters": 0.25, "projection": 0.5, "map": 0.5}
        if self.is_fine:
            weights = dict.fromkeys(weights, WHOLE_BESIDE_DETAIL) | {"spoilt": 1.0, "outlying": 1.0, "extended": 1.0}
        if self.labelled is not None:
            weights["labelled"] = 1.0
        more = {"patches": 1.0} if self.is_fine else {"spoilt": 1.25, "match_place": 1.0, "match_tenth": 1.0}
        return {Profile.FAST: weights, Profile.ACCURATE: weights | more}

    @property
    def is_fine(self) -> bool:
        """Whether a picture has details that are lost where it is seen whole."""
        return self.config.fine_side > self.config.side

    def prepare(self, x: Tensor) -> Tensor:
        """Records `[B, H, W, C]`, uint8 or float in 0…255, to pictures `[B, C, fine_side, fine_side]` in −1.5…1.5."""
        config, fine = self.config, self.config.fine_side
        pixels = x.permute(0, 3, 1, 2).float()  # (B, C, H, W)
        pixels = ((pixels - self.low) / (self.high - self.low) * 2.0 - 1.0).clamp(-1.5, 1.5)
        longest = max(config.height, config.width)
        square = longest if longest <= config.side else fine
        if (config.height, config.width) != (square, square):
            pad = (0, square - config.width, 0, square - config.height)
            pixels = functional.pad(pixels, pad, mode="replicate")  # (B, C, square, square)
        if square != fine:
            pixels = functional.interpolate(pixels, (fine, fine), mode="bilinear")
        return pixels.contiguous(memory_format=torch.channels_last)  # (B, C, fine, fine)

    def whole(self, x: Tensor) -> Tensor:
        """Prepared pictures as the generator sees them: `[B, C, side, side]`."""
        side = self.config.side
        if x.shape[-1] == side:
            return x
        small = functional.interpolate(x, (side, side), mode="bilinear", antialias=True)
        return small.contiguous(memory_format=torch.channels_last)  # (B, C, side, side)

    def generate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Whole pictures to the first code `[B, latent]` and the reconstruction `[B, C, side, side]`."""
        z, _ = self.encoder(x)
        return z, self.decoder(z)

    @torch.no_grad()
    def remember(self, x: Tensor) -> None:
        """Takes `[memory, C, fine_side, fine_side]` prepared normal pictures, in evaluation mode."""
        whole = torch.cat([self.whole(some) for some in torch.split(x, 256)])
        seen = [self.encoder(some) for some in torch.split(whole, 256)]
        codes, maps = (torch.cat(parts) for parts in zip(*seen, strict=True))
        # The strongest directions of the maps, uncentred, as the maps are compared by angle.
        axes = torch.linalg.svd(maps, full_matrices=False).Vh[: self.config.sketch]
        self.mix = functional.pad(axes.T, (0, self.config.sketch - len(axes))).contiguous()
        self.projections.remember(self.head(codes))
        self.maps.remember(self.sketch(maps))
        self.clusters.remember(codes)
        self.pictures.remember(whole)
        self.discriminator.remember(x)

    def sketch(self, maps: Tensor) -> Tensor:
        """The last map in fewer numbers: `[B, sketch]`, along their strongest directions."""
        return maps @ self.mix

    def two_views(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Whole pictures to two ways to see them, both by angle: the head's output, the last map in fewer numbers."""
        z, maps = self.encoder(x)
        return self._two_views(z, maps)

    def _two_views(self, z: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        return functional.normalize(self.head(z), dim=1), functional.normalize(self.sketch(maps), dim=1)

    def evidence(self, x: Tensor, profile: Profile = Profile.ACCURATE) -> dict[str, Tensor]:
        """Prepared pictures to `[B]` per evidence; larger is stranger."""
        whole = self.whole(x)
        z, maps = self.encoder(whole)
        output = self.decoder(z)
        second, _ = self.encoder2(output)
        cosines, near = self.maps.nearest(self.sketch(maps), max(CANDIDATES, self.config.neighbours))
        evidence = {
            "latent": latent_distance(z, second),
            "reconstruction": (whole - output).abs().mean(dim=(1, 2, 3)),
            "projection": self.projections.distance(self.head(z)),
            "map": self.maps.relative_distance(cosines, near),
            "clusters": self.clusters.distance(z),
        }
        if self.labelled is not None:
            evidence["labelled"] = self.labelled(*self._two_views(z, maps))
        if self.is_fine:
            return evidence | self.discriminator.details(x, patches=profile is Profile.ACCURATE)
        if profile is Profile.FAST:
            return evidence
        distances = self.pictures.distances(whole, near[:, :CANDIDATES])  # (B, 3, P, P)
        matching = {"match_place": worst_place(distances), "match_tenth": worst_tenth(distances)}
        return evidence | matching | {"spoilt": self.discriminator.spoilt_places(x)}

    def localize(self, x: Tensor) -> Tensor:
        """Prepared pictures to how strange each pixel of the record is: `[B, H, W]`, >= 0."""
        config = self.config
        heat = self.discriminator.heat(x)  # (B, fine_side, fine_side)
        longest = max(config.height, config.width)
        if longest < config.fine_side and not self.is_fine:
            heat = functional.interpolate(heat[:, None], (longest, longest), mode="bilinear", antialias=True)[:, 0]
        return heat[:, : config.height, : config.width]  # (B, H, W)
