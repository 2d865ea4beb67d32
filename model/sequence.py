"""GANomaly of windows: LSTM encoder, decoder and second encoder, and a discriminator.

Sources:
- S. Akcay, A. Atapour-Abarghouei, T. P. Breckon, GANomaly, ACCV 2018, section 3.1: the parts and how they are joined.
- P. Malhotra et al., LSTM-based encoder-decoder for multi-sensor anomaly detection, ICML 2016 workshop, section 2: the
  encoder's last state is the code, and the decoder writes the window from its newest step to its oldest.
- Y. Nie et al., A time series is worth 64 words, ICLR 2023, section 3.1: steps are read in patches, which shortens what
  an LSTM has to carry, and its cost, by as much.

What a score is made of: the reconstruction error, the Mahalanobis distance of the window and its Euclidean distance to
the nearest normal ones, what the window and its newest steps are like, and how well its newest steps could be foretold.
All of it is on a logarithmic scale. The angle between the two codes is reported beside them.

A window is all that is looked at, so a score never depends on what comes later. NaN is a missing value: the networks
see a mark in its place, and the evidence counts what is there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import Profile, SequenceConfig
from model.forecast import Forecast
from model.gaussian import ShrunkGaussian
from model.labelled import LabelledEvidence
from model.losses import latent_distance
from model.missing import carry_forward, marked, mean_of_seen
from model.neighbours import WindowMemory
from model.scaling import RobustScaling
from model.shape import Shape

JUDGED_WHOLE = 96  # steps: a longer window differs from every other one somewhere, so that its distances tell little
RECENT = 8  # steps: the shortest stretch whose shape is judged
FORETOLD = (4, 60)  # steps over which errors of the forecast are averaged: a jolt, and a lasting change
FAINT = 1e-3  # added before a logarithm is taken: squared scaled units, far below what sensors repeat


class Encoder(nn.Module):
    """Window to code."""

    def __init__(self, config: SequenceConfig, outputs: int) -> None:
        super().__init__()
        self.patch = config.patch
        self.missing = -config.length % config.patch  # steps put before the oldest to fill its patch
        self.read = nn.Linear(2 * config.features * config.patch, config.hidden)
        self.recur = nn.LSTM(config.hidden, config.hidden, batch_first=True)
        self.code = nn.Linear(config.hidden, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared windows `[B, T, F]`, NaN where a value is missing, to codes and to the last state."""
        steps = functional.pad(marked(x), (0, 0, self.missing, 0))  # (B, P · patch, 2F)
        patches = steps.reshape(len(x), -1, self.patch * steps.shape[2])  # (B, P, patch · 2F)
        states, _ = self.recur(torch.tanh(self.read(patches)))  # (B, P, hidden)
        return self.code(states[:, -1]), states[:, -1]  # (B, outputs), (B, hidden)


class Decoder(nn.Module):
    """Code to window."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.config = config
        self.recur = nn.LSTM(config.latent, config.hidden, batch_first=True)
        self.write = nn.Linear(config.hidden, config.features * config.patch)

    def forward(self, z: Tensor) -> Tensor:
        """Codes `[B, latent]` to windows."""
        pieces = math.ceil(self.config.length / self.config.patch)
        states, _ = self.recur(z.unsqueeze(1).expand(-1, pieces, -1))  # (B, P, hidden)
        patches = self.write(states).flip(1)  # (B, P, patch · F)
        window: Tensor = patches.reshape(len(z), -1, self.config.features)  # (B, P · patch, F)
        return window[:, -self.config.length :]  # (B, T, F)


class Discriminator(nn.Module):
    """Window to a logit (real above 0) and to the features that the generator is asked to match."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.judge = Encoder(config, outputs=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared windows `[B, T, F]` to logits and features."""
        logit, features = self.judge(x)
        return logit.squeeze(1), features  # (B,), (B, hidden)


class SequenceGanomaly(nn.Module):
    """The whole, with the scaling of the features and what is known of normal windows."""

    error: Tensor

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.config = config
        self.judged = min(config.length, JUDGED_WHOLE)
        width = self.judged * config.features
        components = min(config.components, width)
        self.encoder = Encoder(config, config.latent)
        self.decoder = Decoder(config)
        self.encoder2 = Encoder(config, config.latent)
        self.discriminator = Discriminator(config)
        self.scaling = RobustScaling(config.features)
        self.gaussian = ShrunkGaussian(width, components)
        self.windows = WindowMemory(config.memory, components + 1, config.neighbours)
        self.forecast = Forecast(config.length, config.features)
        self.shapes = nn.ModuleDict(
            {
                name: Shape(steps, config.features, config.components)
                for name, steps in _stretches(config.length).items()
            }
        )
        self.labelled = LabelledEvidence(config.hidden, config.hidden) if config.labelled else None
        self.register_buffer("error", torch.ones(config.features))

    @property
    def profiles(self) -> dict[Profile, dict[str, float]]:
        """The evidence that makes the score, and how much each weighs; all of it is cheap, whatever the profile.

        The angle between the codes is reported but makes none: on short histories it was near chance. A single feature
        has no others that its newest steps could be at odds with: what they are like tells less, and how near the
        whole window is to normal ones tells more.
        """
        weights = dict.fromkeys(("reconstruction", "mahalanobis", "neighbours", *self._shapes()), 1.0)
        weights |= {f"forecast_{steps}": 1.0 for steps in FORETOLD}
        if self.config.features == 1:
            weights["neighbours"] = 2.0
            if "shape_recent" in weights:
                weights["shape_recent"] = 0.5
        if self.labelled is not None:
            weights["labelled"] = 1.0
        return {Profile.FAST: weights, Profile.ACCURATE: weights}

    @torch.no_grad()
    def fit_scaling(self, rows: Tensor) -> None:
        """Takes normal observations `[N, F]` in their units; NaN is a missing value."""
        self.scaling.fit(rows)

    @torch.no_grad()
    def remember(self, x: Tensor) -> None:
        """Takes `[memory, T, F]` prepared normal windows in the order of time: what later ones are compared to."""
        whole = carry_forward(x)
        newest = whole[:, -self.judged :].flatten(1)  # (memory, judged · F)
        self.gaussian.fit(newest)
        self.windows.remember(_points(*self.gaussian.coordinates(newest)))
        self.forecast.fit(x)
        for shape in self._shapes().values():
            shape.fit(whole)
        errors = torch.cat([(part - self.generate(part)[1]).square() for part in torch.split(x, 256)])
        self.error = mean_of_seen(errors.nan_to_num(0.0), ~torch.isnan(errors), (0, 1)) + FAINT

    def prepare(self, x: Tensor) -> Tensor:
        """Windows `[B, T, F]` in the units of their sensors to scaled ones; NaN stays NaN."""
        scaled: Tensor = self.scaling(x)
        return scaled

    def generate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared windows to the first code `[B, latent]` and the reconstruction `[B, T, F]`, nothing missing."""
        z, _ = self.encoder(x)
        return z, self.decoder(z)

    def two_views(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared windows to two ways to see them, `[B, hidden]` each: the encoder's and the discriminator's."""
        return self.encoder(x)[1], self.discriminator(x)[1]

    def evidence(self, x: Tensor, profile: Profile = Profile.ACCURATE) -> dict[str, Tensor]:
        """Prepared windows to `[B]` per evidence; larger is stranger."""
        z, output = self.generate(x)
        second, _ = self.encoder2(output)
        errors = (x - output).square()
        found = {
            "latent": latent_distance(z, second),
            "reconstruction": _log(mean_of_seen(errors.nan_to_num(0.0), ~torch.isnan(x), (1, 2))),
            **self._distances(x),
        }
        whole = carry_forward(x)
        for name, shape in self._shapes().items():
            found[name] = _log(shape.distance(whole))
        wrong = self.forecast.errors(x)
        for steps in FORETOLD:
            found[f"forecast_{steps}"] = self.forecast.surprise(wrong, steps)
        if self.labelled is not None:
            found["labelled"] = self.labelled(*self.two_views(x))
        return found

    def localize(self, x: Tensor) -> Tensor:
        """Prepared windows to how strange each value is, `[B, T, F]`, >= 0, about 1 where it is normal.

        The mean of what the values add to the Mahalanobis distance, to the squared error of the reconstruction and to
        that of the forecast, each relative to a normal value's; 0 where a value is missing.
        """
        _, output = self.generate(x)
        total = (x - output).square() / self.error
        newest = self.gaussian.fill(x[:, -self.judged :].flatten(1))
        shares = self.gaussian.shares(newest).view(len(x), self.judged, -1)  # (B, judged, F)
        total[:, -self.judged :] += shares
        total[:, self.forecast.back :] += self.forecast.errors(x)
        return total.nan_to_num(0.0) / 3.0

    def _shapes(self) -> dict[str, Shape]:
        return {name: shape for name, shape in self.shapes.items() if isinstance(shape, Shape)}

    def _distances(self, x: Tensor) -> dict[str, Tensor]:
        """Of the newest steps from all normal ones, and from the nearest."""
        rows = x[:, -self.judged :].flatten(1)
        along, beside = self.gaussian.coordinates(self.gaussian.fill(rows))  # (B, components), (B,)
        # What is missing adds nothing; per number that is seen, so that a window with holes is not thought normal.
        seen = (~torch.isnan(rows)).float().mean(dim=1).clamp(min=1.0 / rows.shape[1])  # (B,)
        return {
            "mahalanobis": _log(self.gaussian.distance(along, beside) / seen),
            "neighbours": _log(self.windows.distance(_points(along, beside)) / seen.sqrt()),
        }


def _stretches(length: int) -> dict[str, int]:
    """Names and lengths, in steps, of the stretches whose shape is judged: the whole window, and shorter ones of it."""
    shorter = {"shape_recent": RECENT, f"shape_{JUDGED_WHOLE}": JUDGED_WHOLE}
    return {"shape": length} | {name: steps for name, steps in shorter.items() if steps < length}


def _log(values: Tensor) -> Tensor:
    return torch.log(values + FAINT)


def _points(along: Tensor, beside: Tensor) -> Tensor:
    """Coordinates with the length of what is left as the last: `[B, components + 1]`.

    Distances between such points are at most those of the windows, and equal where all components are kept.
    """
    return torch.cat([along, beside.sqrt().unsqueeze(1)], dim=1)
