"""Whether the networks still tell records apart: a generator may end in making one thing of everything.

Source: I. Goodfellow, NIPS 2016 tutorial: Generative adversarial networks, section 5.1.1 (mode collapse).
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.detector import Network
from model.errors import TrainingError
from model.image import ImageGanomaly

# Of the records' variance, and of the codes' mean square. White noise, of which nothing can be learned, gives 4e-5
# after thirty steps and 4e-2 after a hundred; dead networks give 0.
LEAST = 1e-6


@torch.no_grad()
def check_alive(network: Network, records: Tensor) -> None:
    """Raises TrainingError when all `records` `[N, …]`, as they come, get one code or one reconstruction.

    The network is in evaluation mode. Records that are all alike tell nothing of it and are let through.
    """
    x = network.prepare(records)
    if isinstance(network, ImageGanomaly):
        x = network.whole(x)
    x = x.nan_to_num(0.0)
    z, output = network.generate(x)
    if not (torch.isfinite(z).all() and torch.isfinite(output).all()):
        raise TrainingError("training diverged: codes or reconstructions are not finite; nothing was saved")
    varied = _variance(x)
    if varied == 0.0:
        return
    for what, values, scale in (("code", z, float(z.square().mean())), ("reconstruction", output, varied)):
        if _variance(values) <= LEAST * scale:
            raise TrainingError(f"training collapsed: every record gets the same {what}; nothing was saved")


def check_finite(network: Network) -> None:
    """Raises TrainingError when a weight is NaN or infinite."""
    wrong = [name for name, weight in network.named_parameters() if not torch.isfinite(weight).all()]
    if wrong:
        raise TrainingError(f"training diverged: {', '.join(wrong[:3])} … are not finite; nothing was saved")


def _variance(values: Tensor) -> float:
    """Over records `[N, …]`, mean over their numbers."""
    return float(values.flatten(1).var(dim=0, correction=0).mean())
