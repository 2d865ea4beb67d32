"""What does a stream with anomalies in it teach the next version?

    python benchmarks/poison.py [--seeds N] [--steps N] [--markdown]

scikit-learn's handwritten digits: a version is trained on clean ones, then looks at a stream in which a share of the
records are two digits that it has not seen. The next version is trained on all of it, on what a fixed share of the
highest scores leaves, and on what a snapshot leaves. Prints how well each tells those digits (AUROC, of records in
neither) and how much poison was learned, as means over the seeds and the worst seed.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_digits

from model.registry import Registry
from stream_app.settings import SnapshotSettings, ThresholdSettings
from training.data import from_arrays
from training.loop import auroc, train
from training.refresh.suspects import stretches, suspects

SHARES = (0.0, 0.05, 0.2)
UNSEEN = ((4, 7), (3, 9), (1, 6), (0, 5), (2, 8))
CHAMPION, STREAM, POISON = 400, 640, 160  # pictures; the others are to test with
RULES = ("all of it", "fixed share", "snapshot")

Pictures = NDArray[np.uint8]


class Figures(NamedTuple):
    """Of one version: AUROC, the share of the stream that was left out, the share of poison in what was learned."""

    auroc: float
    left_out: float
    poison: float


class Case:
    """The pictures of one seed, and the versions trained on some of them."""

    def __init__(self, seed: int, steps: int, folder: Path) -> None:
        bunch, self.random = load_digits(), np.random.default_rng(seed)
        self.pictures: Pictures = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
        self.strange = np.isin(bunch.target, UNSEEN[seed % len(UNSEEN)])
        self.normal = self.random.permutation(np.flatnonzero(~self.strange))
        self.anomalous = self.random.permutation(np.flatnonzero(self.strange))
        self.seed, self.steps, self.registry = seed, steps, Registry(str(folder))
        self.champion = self.fit(self.normal[:CHAMPION])
        self.detector = self.registry.load("digits", device="cpu")

    def fit(self, index: NDArray[np.int64]) -> float:
        """Trains a version on pictures; its AUROC on those that no version was trained on."""
        dataset = from_arrays(self.pictures[index], "image")
        train(dataset, "image", self.registry, "digits", steps=self.steps, seed=self.seed, device="cpu")
        detector = self.registry.load("digits", device="cpu")
        test = self.normal[CHAMPION + STREAM :], self.anomalous[POISON:]
        return auroc(*(detector.score(self.pictures[some]).score for some in test))

    def run(self, share: float) -> dict[str, Figures]:
        """The next version by each rule, of a stream with this share of anomalies."""
        count = round(STREAM * share / (1.0 - share))
        stream = np.concatenate([self.normal[CHAMPION : CHAMPION + STREAM], self.anomalous[:count]])
        stream = self.random.permutation(stream)
        found = {}
        for rule in RULES:
            kept = stream[~self.left_out(stream, rule)]
            poison = float(self.strange[kept].mean())
            found[rule] = Figures(self.fit(kept), 1.0 - len(kept) / len(stream), poison)
        return found

    def left_out(self, stream: NDArray[np.int64], rule: str) -> NDArray[np.bool_]:
        """`[n]`, by the scores of the first version."""
        left_out = np.zeros(len(stream), np.bool_)
        if rule == "all of it":
            return left_out
        scores, threshold = self.detector.score(self.pictures[stream]).score, ThresholdSettings()
        most = threshold.shift_share if rule == "snapshot" else -1.0
        for some in stretches(np.zeros(len(stream), np.int64), threshold.shift_after):
            left_out[some] = suspects(scores[some], SnapshotSettings().leave_out, most)[0]
        return left_out


def main(
    seeds: Annotated[int, typer.Option(min=1)] = 2,
    steps: Annotated[int, typer.Option(min=1)] = 60,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
) -> None:
    """Trains the versions and prints the table."""
    torch.set_num_threads(1)
    found: defaultdict[tuple[float, str], list[Figures]] = defaultdict(list)
    champions = []
    for seed in track(range(seeds), "train", console=Console(stderr=True), disable=None):
        with TemporaryDirectory() as folder:
            case = Case(seed, steps, Path(folder))
            champions.append(case.champion)
            for share in SHARES:
                for rule, figures in case.run(share).items():
                    found[share, rule].append(figures)
    title = f"the version in service: {np.mean(champions):.3f}, worst {min(champions):.3f}"
    columns = ("anomalies in the stream", "learned from", "AUROC", "worst seed", "left out", "anomalies learned")
    rows = [
        (f"{share:.0%}", rule, f"{np.mean(each[0]):.3f}", f"{min(each[0]):.3f}",
         f"{np.mean(each[1]):.1%}", f"{np.mean(each[2]):.2%}")
        for (share, rule), figures in found.items()
        for each in [tuple(zip(*figures, strict=True))]
    ]  # fmt: skip
    if markdown:
        lines = [columns, ("---",) * len(columns), *rows]
        typer.echo("\n".join([title, "", *("| " + " | ".join(row) + " |" for row in lines)]))
        return
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
