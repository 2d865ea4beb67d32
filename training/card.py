"""The model card that lies beside the weights (M. Mitchell et al., Model cards for model reporting, FAT* 2019)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from model.config import Kind
from model.manifest import Manifest


def write_card(manifest: Manifest, raw: Mapping[str, NDArray[np.float32]]) -> str:
    """Markdown for people; `raw` is the evidence of the held-out normal records, `[n]` by name."""
    data = manifest.training_data
    shape = " × ".join(str(size) for size in manifest.input_shape)
    what = "pictures (H × W × C)" if manifest.kind is Kind.IMAGE else "windows (T × F)"
    figures = "\n".join(f"| {name} | {value:.6g} |" for name, value in manifest.metrics.items())
    used = manifest.calibration.evidence
    evidence = "\n".join(
        f"| {name} | {'yes' if name in used else 'no'} | {np.median(values):.4g} | {np.quantile(values, 0.99):.4g} |"
        for name, values in raw.items()
    )
    return f"""# {manifest.name}

GANomaly for {what} of {shape}, trained {manifest.created_at:%Y-%m-%d %H:%M} UTC
in {manifest.seconds:.0f} s, seed {manifest.seed}.

**For**: telling records unlike the normal ones of this source from them. A score s means that about 10^-s of the
held-out normal records score as high. **Not for**: other sources than this, or decisions about people.

Trained on the normal records of `{data.source}` ({data.rows}; SHA-256 `{data.sha256}`). Those held out from training
made the calibration; a score above the largest of them is extrapolated.

| measured | value |
| --- | --- |
{figures}

| evidence | part of the score | median of held-out | 99 % of held-out |
| --- | --- | --- | --- |
{evidence}
"""
