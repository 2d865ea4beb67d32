"""Trains on digits and on a water main as torchrun calls it, and writes what came of it: `folder/rank.json`."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from river.datasets import WaterFlow
from sklearn.datasets import load_digits

from model.registry import Registry
from training.data import from_arrays
from training.loop import train

STEPS = 12


def main(folder: Path) -> None:
    """Every process has the same data, and its own file to write to."""
    faulthandler.dump_traceback_later(240, exit=True)  # which of the two waits for what
    torch.set_num_threads(1)
    flow = np.array([flow for _, flow in WaterFlow()])[330:860, None]
    data = (from_arrays(load_digits().images.astype(np.uint8), "image"), from_arrays(flow, "sequence", window=24))
    registry = Registry(str(folder / "models"))
    found = {}
    for dataset in data:
        result = train(dataset, dataset.kind, registry, dataset.kind, device="cpu", steps=STEPS)
        found[dataset.kind] = {"version": result.version, "curve": [point.losses for point in result.curve]}
    (folder / f"{os.environ.get('RANK', 'alone')}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
