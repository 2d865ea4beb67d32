"""Encoder and decoder of pictures that read and write them row by row, as a hand does: the shape as a sequence.

Sources:
- S. Hochreiter, J. Schmidhuber, Long short-term memory, Neural Computation 9, 1997; M. Schuster, K. Paliwal,
  Bidirectional recurrent neural networks, IEEE Trans. Signal Processing 45, 1997 (read from both ends).
- Q. Le, N. Jaitly, G. Hinton, A simple way to initialize recurrent networks of rectified linear units, 2015, section
  4.2: a picture as a sequence.
- S. Akcay, A. Atapour-Abarghouei, T. P. Breckon, GANomaly, ACCV 2018, section 3.1: what they stand in for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.attention import SelfAttention
from model.config import ImageConfig

BANDS = 4  # of rows, in which what was read is kept apart
HIDDEN = 4  # times the width: as many numbers a step as the convolutional networks have channels in the end


class RowEncoder(nn.Module):
    """Picture to code, in place of `model.image.Encoder`."""

    def __init__(self, config: ImageConfig, width: int) -> None:
        super().__init__()
        hidden = HIDDEN * width
        self.recur = nn.LSTM(config.channels * config.side, hidden, batch_first=True, bidirectional=True)
        self.attend = SelfAttention(2 * hidden) if config.attention else nn.Identity()
        self.features = BANDS * 2 * hidden
        self.code = nn.Linear(self.features, config.latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Whole pictures `[B, C, side, side]` to codes and flat states, the mean of each band of rows."""
        rows = x.transpose(1, 2).flatten(2)  # (B, side, C · side)
        states = self.attend(self.recur(rows)[0])  # (B, side, 2 · hidden)
        bands = states.reshape(len(x), BANDS, -1, states.shape[2]).mean(dim=2).flatten(1)  # (B, 4 · 2 · hidden)
        return self.code(bands), bands  # (B, latent), (B, features)


class RowDecoder(nn.Module):
    """Code to picture, in −1…1, in place of `model.image.Decoder`."""

    def __init__(self, config: ImageConfig, width: int) -> None:
        super().__init__()
        self.config = config
        hidden = HIDDEN * width
        self.recur = nn.LSTM(config.latent, hidden, batch_first=True, bidirectional=True)
        self.attend = SelfAttention(2 * hidden) if config.attention else nn.Identity()
        self.write = nn.Linear(2 * hidden, config.channels * config.side)

    def forward(self, z: Tensor) -> Tensor:
        """Codes `[B, latent]` to pictures."""
        side = self.config.side
        states = self.attend(self.recur(z.unsqueeze(1).expand(-1, side, -1))[0])  # (B, side, 2 · hidden)
        rows = torch.tanh(self.write(states))  # (B, side, C · side)
        return rows.view(len(z), side, self.config.channels, side).transpose(1, 2)  # (B, C, side, side)
