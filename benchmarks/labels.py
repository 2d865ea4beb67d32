"""What a few labelled anomalies are worth: AUROC with 0, 5, 20 and 100 of them in the training file.

python -m benchmarks.labels                                  # digits that come with scikit-learn
python -m benchmarks.labels --data records.npz --kind image  # your own, with y: 1 for an anomaly

Half of the normal records and none of the anomalies but the labelled ones are trained on; the rest is measured on. Of
the digits, 1, 8 and 9 are anomalies but only of 8 and 9 are any labelled: the last column tells what labels of some
kinds do to the finding of another.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from model.registry import Registry
from stream_app.errors import UsageError
from training.data import from_arrays, load
from training.loop import train

COUNTS = (0, 5, 20, 100)
LABELLED_DIGITS, OTHER_DIGITS = (8, 9), (1,)


@dataclass(frozen=True, slots=True)
class Records:
    """Normal records, anomalies of kinds of which some get labels, and of kinds of which none does."""

    kind: str
    normal: NDArray[np.generic]
    anomalous: NDArray[np.generic]
    other: NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Row:
    """AUROC with so many labels; `other` is that of kinds never labelled, None where there are none."""

    labels: int
    seed: int
    auroc: float
    other: float | None


def digits() -> Records:
    """Handwritten digits 8×8; 1, 8 and 9 are anomalies."""
    bunch = load_digits()
    pictures, target = bunch.images.astype(np.uint8)[..., None], bunch.target
    labelled, other = np.isin(target, LABELLED_DIGITS), np.isin(target, OTHER_DIGITS)
    return Records("image", pictures[~labelled & ~other], pictures[labelled], pictures[other])


def from_file(path: Path, kind: str) -> Records:
    """Raises UsageError where there is nothing labelled anomalous."""
    data = load(path, kind)
    if data.y is None or not data.y.any():
        raise UsageError(f"--data {path}: y has no anomaly (1)")
    anomalous = data.x[data.y == 1]
    return Records(kind, data.x[data.clean], anomalous, anomalous[:0])


def curve(
    records: Records, counts: Sequence[int], seeds: Sequence[int], *, seconds: float, steps: int | None = None
) -> Iterator[Row]:
    """A row for each count of labels and seed, as each is done. The same seed has the same records to test on."""
    for seed in seeds:
        random = np.random.default_rng(seed)
        normal, anomalous = random.permutation(records.normal), random.permutation(records.anomalous)
        half, most = len(normal) // 2, min(max(counts), len(anomalous) // 2)
        for count in counts:
            x = np.concatenate([normal[:half], anomalous[: min(count, most)]])
            if records.kind == "image" and x.dtype != np.uint8:
                x = x / np.float32(255.0)  # of a dataset, but files have 0…1
            y = np.arange(len(x)) >= half
            with tempfile.TemporaryDirectory() as folder:
                registry = Registry(folder)
                data = from_arrays(x, records.kind, y=y)
                train(data, records.kind, registry, "labels", seconds, seed, "cpu", steps=steps)
                score = registry.load("labels", device="cpu").score
                known, fresh = score(normal[half:]).score, score(anomalous[most:]).score
                other = _auroc(known, score(records.other).score) if len(records.other) else None
            yield Row(min(count, most), seed, _auroc(known, fresh), other)


def _auroc(normal: NDArray[np.float32], anomalous: NDArray[np.float32]) -> float:
    labels = np.arange(len(normal) + len(anomalous)) >= len(normal)
    return float(roc_auc_score(labels, np.concatenate([normal, anomalous])))


def _table(rows: Sequence[Row]) -> str:
    lines = ["| labelled anomalies | AUROC | of kinds never labelled |", "| --- | --- | --- |"]
    for count in dict.fromkeys(row.labels for row in rows):
        some = [row for row in rows if row.labels == count]
        found = np.array([row.auroc for row in some])
        other = [row.other for row in some if row.other is not None]
        lines.append(
            f"| {count} | {found.mean():.3f} ± {found.std():.3f} | {f'{np.mean(other):.3f}' if other else '—'} |"
        )
    return "\n".join(lines)


def main() -> None:
    """The table on stdout; with `--json` a line a training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=".npz with x and y; the digits of scikit-learn without it")
    parser.add_argument("--kind", default="image", choices=("image", "sequence"))
    parser.add_argument("--seconds", type=float, default=20.0, help="of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    records = digits() if options.data is None else from_file(options.data, options.kind)
    rows = []
    for row in curve(records, options.counts, range(options.seeds), seconds=options.seconds):
        rows.append(row)
        print(json.dumps(asdict(row)), file=sys.stdout if options.json else sys.stderr, flush=True)
    if not options.json:
        print(_table(rows))


if __name__ == "__main__":
    main()
