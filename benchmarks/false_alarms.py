"""Does a stream's threshold keep its false-alarm budget?

    python benchmarks/false_alarms.py [--records N] [--seeds N]

Simulated scores of normal records: calibrated ones (-log10 p is exponential with the rate ln 10), and ones of a model
whose calibration doesn't fit the stream. Then the same with real anomalies mixed in, and scores that depend on those
before, as windows that overlap give them. Prints the false alarms as a share of what the budget allows: 1 is as asked
for. Also counts how far two runs over the same scores are apart with the REQ sketch, which compacts by coin flips, and
with the t-digest that the threshold uses.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import numpy as np
import typer
from datasketches import req_floats_sketch, tdigest_float
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.signal import lfilter
from scipy.stats import norm

from stream_app.settings import ThresholdSettings
from stream_app.threshold import StreamThreshold

BUDGETS = (0.01, 0.001)


class Stream(NamedTuple):
    """How the scores of a stream come about; `correlation` is that of a score's normal quantile with the last one's."""

    scale: float = 1.0
    shift: float = 0.0
    anomalies: float = 0.0
    correlation: float = 0.0
    share: float = 1.0  # of the scores that a run has; so many more are the runs


STREAMS = {
    "calibrated": Stream(),
    "scores × 0.5": Stream(scale=0.5),
    "scores × 2": Stream(scale=2.0),
    "scores + 0.5": Stream(shift=0.5),
    "calibrated, 1 % anomalies": Stream(anomalies=0.01),
    "calibrated, 5 % anomalies": Stream(anomalies=0.05),
    "dependent, 0.9": Stream(correlation=0.9),
    "dependent, 0.98": Stream(correlation=0.98),
    "dependent, 0.98, first hundredth": Stream(correlation=0.98, share=0.01),
}


def autoregressive(correlation: float, count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Standard normal numbers `[count]`, each correlated with the one before it."""
    rest = math.sqrt(1.0 - correlation**2)
    noise = random.normal(size=count)
    noise[0] /= rest
    numbers: NDArray[np.float64] = lfilter([rest], [1.0, -correlation], noise)
    return numbers


def simulate(stream: Stream, records: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores `[records]` and which of them are anomalies: those score from 4 to 10, evenly."""
    random = np.random.default_rng(seed)
    log10_p = norm.logsf(autoregressive(stream.correlation, records, random)) / math.log(10.0)
    scores = -log10_p * stream.scale + stream.shift
    anomalous = random.random(records) < stream.anomalies
    scores[anomalous] = random.uniform(4.0, 10.0, int(anomalous.sum()))
    return scores, anomalous


def run(stream: Stream, budget: float, records: int, seed: int) -> tuple[float, float]:
    """False alarms as a share of the budget, and the share of the anomalies found (NaN without any)."""
    scores, anomalous = simulate(stream, round(records * stream.share), seed)
    threshold = StreamThreshold(ThresholdSettings(target_rate=budget))
    alarms = np.array([threshold.judge(score, 0.0).is_anomaly for score in scores.tolist()])
    false_share = alarms[~anomalous].mean() / budget
    return float(false_share), float(alarms[anomalous].mean()) if anomalous.any() else math.nan


def spread_of_repeated_runs(records: int) -> dict[str, float]:
    """The largest difference of the .999 quantile over eight sketches of the same scores, in one order."""
    scores = simulate(STREAMS["calibrated"], records, seed=0)[0].astype(np.float32)
    quantiles: dict[str, list[float]] = {"REQ": [], "t-digest": []}
    for _ in range(8):
        for name, sketch in (("REQ", req_floats_sketch(12, True)), ("t-digest", tdigest_float(100))):
            sketch.update(scores)
            quantiles[name].append(sketch.get_quantile(0.999))
    return {name: max(values) - min(values) for name, values in quantiles.items()}


def main(
    records: Annotated[int, typer.Option(help="Scores in a run.")] = 200_000,
    seeds: Annotated[int, typer.Option(help="Runs of each row.")] = 3,
) -> None:
    """Measure the false-alarm rate against the budget."""
    table = Table(
        title=f"false alarms / budget: mean (least–most) of {seeds} runs of {records:,} scores; found anomalies"
    )
    table.add_column("stream")
    for budget in BUDGETS:
        table.add_column(f"budget {budget:.1%}", justify="right")
    for name, stream in track(STREAMS.items(), description="simulating", transient=True):
        cells, runs = [], round(seeds / stream.share)
        for budget in BUDGETS:
            shares, found = zip(*(run(stream, budget, records, seed) for seed in range(runs)), strict=True)
            text = f"{np.mean(shares):.2f} ({min(shares):.2f}–{max(shares):.2f})"
            cells.append(text if math.isnan(found[0]) else f"{text}; {np.mean(found):.3f}")
        table.add_row(name, *cells)
    console = Console(width=110)
    console.print(table)
    for name, spread in spread_of_repeated_runs(records).items():
        console.print(f".999 quantile of the same scores, eight {name} sketches: largest difference {spread:.3g}")


if __name__ == "__main__":
    typer.run(main)
