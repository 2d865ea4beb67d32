"""GANomaly of windows: LSTM encoder, decoder and second encoder, and a discriminator.

Sources:
- S. Akcay, A. Atapour-Abarghouei, T. P. Breckon, GANomaly, ACCV 2018, section 3.1: the parts and how they are joined.
- P. Malhotra et al., LSTM-based encoder-decoder for multi-sensor anomaly detection, ICML 2016 workshop, section 2: the
  encoder's last state is the code, and the decoder writes the window from its newest step to its oldest.
- F. Hampel, The influence curve and its role in robust estimation, JASA 69, 1974: median and interquartile range.

What a score is made of: the angle between the two codes, the reconstruction error, the Mahalanobis distance of the
window, and its Euclidean distance to the nearest normal windows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import SequenceConfig
from model.evidence import ShrunkGaussian, WindowMemory
from model.losses import latent_distance

CLIP = 8.0  # scaled units: one broken sensor must not drown the other features
IQR_OF_NORMAL = 1.349  # interquartile range of a normal distribution, in standard deviations


class Encoder(nn.Module):
    """Window to code."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.recur = nn.LSTM(config.features, config.hidden, batch_first=True)
        self.code = nn.Linear(config.hidden, config.latent)

    def forward(self, x: Tensor) -> Tensor:
        """Prepared windows `[B, T, F]` to codes."""
        states, _ = self.recur(x)  # (B, T, hidden)
        code: Tensor = self.code(states[:, -1])  # (B, latent)
        return code


class Decoder(nn.Module):
    """Code to window."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.length = config.length
        self.recur = nn.LSTM(config.latent, config.hidden, batch_first=True)
        self.write = nn.Linear(config.hidden, config.features)

    def forward(self, z: Tensor) -> Tensor:
        """Codes `[B, latent]` to windows."""
        states, _ = self.recur(z.unsqueeze(1).expand(-1, self.length, -1))  # (B, T, hidden)
        window: Tensor = self.write(states).flip(1)  # (B, T, F)
        return window


class Discriminator(nn.Module):
    """Window to a logit (real above 0) and to the features that the generator is asked to match."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.recur = nn.LSTM(config.features, config.hidden, batch_first=True)
        self.judge = nn.Linear(config.hidden, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared windows `[B, T, F]` to logits and features."""
        states, _ = self.recur(x)
        return self.judge(states[:, -1]).squeeze(1), states[:, -1]  # (B,), (B, hidden)


class SequenceGanomaly(nn.Module):
    """The whole, with the scaling of the features and the memory of normal windows."""

    centre: Tensor
    scale: Tensor

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.config = config
        width = config.length * config.features
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.encoder2 = Encoder(config)
        self.discriminator = Discriminator(config)
        self.gaussian = ShrunkGaussian(width, config.components)
        self.windows = WindowMemory(config.memory, config.components + 1, config.neighbours)
        self.register_buffer("centre", torch.zeros(config.features))
        self.register_buffer("scale", torch.ones(config.features))

    @torch.no_grad()
    def fit_scaling(self, rows: Tensor) -> None:
        """Takes normal observations `[N, F]`: median and interquartile range of each feature.

        Where half of the values agree (a valve that is mostly shut), the standard deviation stands in; where all do, a
        thousandth of the value, so that the first change of a constant is seen but stays finite.
        """
        quartiles = torch.quantile(rows.double(), torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), dim=0)
        spread = (quartiles[2] - quartiles[0]) / IQR_OF_NORMAL
        spread = torch.where(spread > 0, spread, rows.double().std(dim=0))
        floor = quartiles[1].abs() * 1e-3 + 1e-6
        self.centre = quartiles[1].to(rows.dtype)
        self.scale = torch.where(spread > floor * 1e-3, spread, floor).to(rows.dtype)

    @torch.no_grad()
    def remember(self, x: Tensor) -> None:
        """Takes `[memory, T, F]` prepared normal windows: what later ones are compared to."""
        self.gaussian.fit(x.flatten(1))
        self.windows.remember(_points(*self.gaussian.coordinates(x.flatten(1))))

    def prepare(self, x: Tensor) -> Tensor:
        """Windows `[B, T, F]` in the units of their sensors to scaled ones, cut off at ±8."""
        return ((x.float() - self.centre) / self.scale).clamp(-CLIP, CLIP)

    def generate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared windows to the first code `[B, latent]` and the reconstruction `[B, T, F]`."""
        z = self.encoder(x)
        return z, self.decoder(z)

    def evidence(self, x: Tensor) -> dict[str, Tensor]:
        """Prepared windows to `[B]` per evidence; larger is stranger."""
        z, output = self.generate(x)
        along, beside = self.gaussian.coordinates(x.flatten(1))  # (B, components), (B,)
        return {
            "latent": latent_distance(z, self.encoder2(output)),
            "reconstruction": functional.l1_loss(output, x, reduction="none").mean(dim=(1, 2)),
            "mahalanobis": self.gaussian.distance(along, beside),
            "neighbours": self.windows.distance(_points(along, beside)),
        }

    def localize(self, x: Tensor) -> Tensor:
        """Prepared windows to how far each value is from its reconstruction: `[B, T, F]`, >= 0, in scaled units."""
        _, output = self.generate(x)
        return (x - output).abs()


def _points(along: Tensor, beside: Tensor) -> Tensor:
    """Coordinates with the length of what is left as the last: `[B, components + 1]`.

    Distances between such points are at most those of the windows, and equal where all components are kept.
    """
    return torch.cat([along, beside.sqrt().unsqueeze(1)], dim=1)
