"""Self-attention: what a place of a picture is like may depend on places far away.

Source: H. Zhang, I. Goodfellow, D. Metaxas, A. Odena, Self-attention generative adversarial networks, ICML 2019,
section 3: queries and keys of an eighth of the channels, and a learnt gate γ that is 0 at first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SQUEEZE = 8


class SelfAttention(nn.Module):
    """Adds to each place a mean of all places, weighted by how well they answer it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(1, channels // SQUEEZE)
        self.query = nn.Linear(channels, narrow, bias=False)
        self.key = nn.Linear(channels, narrow, bias=False)
        self.value = nn.Linear(channels, narrow, bias=False)
        self.widen = nn.Linear(narrow, channels, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Places `[B, N, C]` to places of the same shape."""
        answers = self.query(x) @ self.key(x).transpose(1, 2)  # (B, N, N)
        seen = answers.softmax(dim=2) @ self.value(x)  # (B, N, C / 8)
        added: Tensor = self.gate * self.widen(seen)  # (B, N, C)
        return x + added


class MapAttention(SelfAttention):
    """The same over the places of a map."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[B, C, H, W]` to maps of the same shape."""
        places = super().forward(x.flatten(2).transpose(1, 2))  # (B, H · W, C)
        return places.transpose(1, 2).reshape(x.shape)  # (B, C, H, W)
