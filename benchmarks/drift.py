"""How often is a stream that has not changed called drifting, how soon is one that has, and what does counting cost?

    python benchmarks/drift.py [--streams 20000] [--trials 200]

Unchanged: simulated streams of independent records against references of several sizes, at several numbers of records,
and handwritten digits (scikit-learn) drawn from those that the reference was not made from. Changed: the same digits,
dimmed, brightened or blurred, and a digit that was not there before; records until the change is seen, by the first
statistic that sees it. Cost: CPU of a record, with nothing passed over, and of PSI and KS for 10,000 streams. Writes
benchmarks/results/drift.json and .md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from sklearn.datasets import load_digits

from command import run
from detection.page import table
from model.config import Kind
from model.divergence import expected_shares
from model.reference import BINS, Reference
from model.summary import summarize
from origin import ROOT, origin
from stream_app.cli.main import exit_code
from stream_app.clock import SystemClock
from stream_app.drift import Allowance, DriftMonitor
from stream_app.drift.assess import assess, diverge
from stream_app.records import TopicPartition
from stream_app.settings import DriftSettings

RESULTS = ROOT / "benchmarks" / "results"
RECORDS, HELD_OUT = (200, 500, 1000), (100, 300, 1500)
NEW_DIGIT = 4
SHAPES: dict[str, tuple[Kind, tuple[int, ...], str]] = {
    "windows of 16 × 1": (Kind.SEQUENCE, (16, 1), "f4"),
    "windows of 64 × 4": (Kind.SEQUENCE, (64, 4), "f4"),
    "windows of 64 × 32": (Kind.SEQUENCE, (64, 32), "f4"),
    "pictures of 8 × 8": (Kind.IMAGE, (8, 8, 1), "u1"),
    "pictures of 64 × 64": (Kind.IMAGE, (64, 64, 1), "u1"),
    "pictures of 128 × 128 × 3": (Kind.IMAGE, (128, 128, 3), "u1"),
}
CHUNK = 256
COUNTED = 20_000  # records
MOST_BYTES = 64 << 20

Pictures = NDArray[np.uint8]

console = Console(stderr=True, highlight=False)


def main(
    streams: Annotated[int, typer.Option("--streams", min=100, help="Unchanged, of each kind.")] = 20_000,
    trials: Annotated[int, typer.Option("--trials", min=10, help="Of each change.")] = 200,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="For drift.json and drift.md.")] = RESULTS,
) -> None:
    """Measure."""
    settings, random = DriftSettings(), np.random.default_rng(0)
    digits = Digits.load(random)
    figures: dict[str, Any] = {
        "origin": origin("numpy", "scikit-learn"),
        "settings": settings.model_dump(),
        "streams": streams,
        "trials": trials,
        "simulated": simulate(settings, streams, random),
        "digits": draw_unchanged(settings, digits, streams // 10, random),
        "changes": find_changes(settings, digits, trials, random),
        "cost": {name: measure_cost(*SHAPES[name]) for name in track(SHAPES, "counting", console=console)},
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "drift.json").write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")
    (out / "drift.md").write_text(page(figures), encoding="utf-8")
    console.print(f"{out}/drift.json and drift.md are written", markup=False)


@dataclass(frozen=True)
class Digits:
    """Pictures `[N, 8, 8, 1]` uint8: those that the reference is made of, others, and those of the new digit."""

    reference: Reference
    fresh: Pictures
    new: Pictures

    @classmethod
    def load(cls, random: np.random.Generator) -> Digits:
        """Mixed, as they come sorted by writers, who differ."""
        data = load_digits()
        pictures = np.round(data.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
        usual = pictures[data.target != NEW_DIGIT]
        usual = usual[random.permutation(len(usual))]
        half = len(usual) // 2
        reference = Reference.fit(Kind.IMAGE, usual[:half], scores(half // 5, random))
        return cls(reference, usual[half:], pictures[data.target == NEW_DIGIT])


def scores(count: int, random: np.random.Generator) -> NDArray[np.float32]:
    """As calibration makes them."""
    return random.exponential(1.0 / math.log(10.0), count).astype(np.float32)


def simulate(settings: DriftSettings, streams: int, random: np.random.Generator) -> list[dict[str, float]]:
    """Streams of independent records in ten equal bins; each tenth of them has a reference of its own."""
    law = np.full(BINS, 1.0 / BINS)
    found = []
    for held_out in HELD_OUT:
        for records in RECORDS:
            beyond, psis = 0, []
            for _ in range(10):
                shares = expected_shares(random.multinomial(held_out, law))
                counts = random.multinomial(records, law, streams // 10)
                each = diverge(counts, shares, held_out, 1.0, settings)
                beyond += int((each.excess > 1.0).sum())
                psis.append(each.psi)
            figures = {"held_out": held_out, "records": records, "drifting": beyond / (streams // 10 * 10)}
            found.append({**figures, "psi_99_9": float(np.quantile(np.concatenate(psis), 0.999))})
    return found


def draw_unchanged(
    settings: DriftSettings, digits: Digits, streams: int, random: np.random.Generator
) -> list[dict[str, float]]:
    """Streams that draw from pictures of the same source."""
    summary = summarize(Kind.IMAGE, digits.fresh)
    found = []
    for records in RECORDS:
        drawn = random.integers(0, len(summary), (streams, records))
        beyond = np.zeros(streams, np.bool_)
        for bins, values in zip(digits.reference.inputs.values(), summary.T, strict=True):
            beyond |= excess_of(bins.find(values)[drawn], bins, settings) > 1.0
        found.append({"records": records, "drifting": float(beyond.mean())})
    return found


def excess_of(bins_of: NDArray[np.intp], bins: Any, settings: DriftSettings) -> NDArray[np.float64]:
    """Of streams whose records fall into these bins, `[S, n]`."""
    size = len(bins.counts)
    flat = bins_of + size * np.arange(len(bins_of))[:, np.newaxis]
    counts = np.bincount(flat.ravel(), minlength=size * len(bins_of)).reshape(len(bins_of), size)
    return diverge(counts, bins.shares, bins.records, bins.design_effect, settings).excess


def blur(pictures: Pictures) -> Pictures:
    """Each pixel the mean of itself and three neighbours."""
    x = pictures.astype(np.float32)
    mean = (x + np.roll(x, 1, 1) + np.roll(x, 1, 2) + np.roll(x, (1, 1), (1, 2))) / 4
    return np.round(mean).astype(np.uint8)


CHANGES: dict[str, Callable[[Pictures], Pictures]] = {
    "10 % darker": lambda x: (x * 0.9).astype(np.uint8),
    "20 % darker": lambda x: (x * 0.8).astype(np.uint8),
    "30 % darker": lambda x: (x * 0.7).astype(np.uint8),
    "20 grey levels brighter": lambda x: np.minimum(x.astype(np.int64) + 20, 255).astype(np.uint8),
    "blurred": blur,
}


def find_changes(
    settings: DriftSettings, digits: Digits, trials: int, random: np.random.Generator
) -> list[dict[str, Any]]:
    """Half a window of unchanged records, then changed ones: how many until it is seen, up to a window of them."""
    changed = {name: change(digits.fresh) for name, change in CHANGES.items()}
    changed[f"the digit {NEW_DIGIT}, not seen before"] = digits.new
    found = []
    for name, pictures in track(changed.items(), "changing", console=console):
        after = [
            until_seen(settings, digits, pictures, np.random.default_rng(int(seed)))
            for seed in random.integers(0, 1 << 31, trials)
        ]
        seen = [count for count in after if count is not None]
        share = len(seen) / trials
        quantiles = np.quantile(seen, [0.5, 0.9]).tolist() if seen else [None, None]
        found.append({"change": name, "seen": share, "records": quantiles})
    return found


def until_seen(settings: DriftSettings, digits: Digits, changed: Pictures, random: np.random.Generator) -> int | None:
    monitor = DriftMonitor(settings, Kind.IMAGE, 1, Allowance(1.0, SystemClock()))
    scorer = Version(digits.reference)
    before, step = settings.window // 2, 20
    for first in range(0, before + settings.window, step):
        source = digits.fresh if first < before else changed
        rows = source[random.integers(0, len(source), step)]
        monitor.observe(scorer, ["camera"] * step, scores(step, random), rows)  # type: ignore[arg-type]
        if first >= before and drifts(monitor, settings):
            return first + step - before
    return None


def drifts(monitor: DriftMonitor, settings: DriftSettings) -> bool:
    counted = monitor.counted({"camera"})
    assert counted is not None
    return assess(counted, TopicPartition("t", 0), settings, 0.0).drifting > 0


@dataclass(frozen=True)
class Version:
    """What the monitor asks of a scorer."""

    reference: Reference
    name: str = "benchmark"
    version: str = "1"


def measure_cost(kind: Kind, shape: tuple[int, ...], dtype: str) -> dict[str, float]:
    """CPU microseconds of a record, and milliseconds of PSI and KS, both of 10,000 streams; the least of 3 runs."""
    random = np.random.default_rng(0)
    count = int(min(2000, max(CHUNK, MOST_BYTES // math.prod(shape))))
    rows = (random.random((count, *shape), np.float32) * 255).astype(dtype)
    scorer, settings = Version(Reference.fit(kind, rows, scores(500, random))), DriftSettings(min_records=20, window=40)
    names = [f"stream-{number}" for number in range(10_000)]
    score = scores(CHUNK, random)
    spent, worked_out = math.inf, math.inf
    for _ in range(3):
        monitor = DriftMonitor(settings, kind, len(names), Allowance(1e9, SystemClock()))
        for first in range(0, len(names), CHUNK):  # so that no stream is new to it
            some = names[first : first + CHUNK]
            monitor.observe(scorer, some, score[: len(some)], rows[: len(some)])  # type: ignore[arg-type]
        started = time.process_time()
        for first in range(0, COUNTED, CHUNK):
            at, of = first % (len(names) - CHUNK), first % (len(rows) - CHUNK + 1)
            monitor.observe(scorer, names[at : at + CHUNK], score, rows[of : of + CHUNK])  # type: ignore[arg-type]
        spent = min(spent, (time.process_time() - started) / COUNTED)
        started = time.process_time()
        counted = monitor.counted(set(names))
        assert counted is not None
        assess(counted, TopicPartition("t", 0), settings, 0.0)
        worked_out = min(worked_out, time.process_time() - started)
    return {"us_per_record": 1e6 * spent, "ms_per_assessment": 1e3 * worked_out}


def page(figures: dict[str, Any]) -> str:
    """Markdown."""
    settings, made = figures["settings"], figures["origin"]
    simulated = [
        [str(of["held_out"]), str(of["records"]), f"{of['drifting']:.3%}", f"{of['psi_99_9']:.3f}"]
        for of in figures["simulated"]
    ]
    digits = [[str(of["records"]), f"{of['drifting']:.3%}"] for of in figures["digits"]]
    changes = [
        [of["change"], f"{of['seen']:.0%}", *("–" if q is None else f"{q:.0f}" for q in of["records"])]
        for of in figures["changes"]
    ]
    cost = [
        [name, f"{of['us_per_record']:.2f}", f"{of['ms_per_assessment']:.1f}"] for name, of in figures["cost"].items()
    ]
    return f"""# Drift: false alarms, delay, cost

Measured by `benchmarks/drift.py` on {made["date"]}, {made["machine"]}, commit {made["commit"]}.
Limits as they are by default: PSI {settings["psi"]:g}, KS {settings["ks"]:g}, and a significance of
{settings["significance"]:g}.

## Streams that have not changed

{figures["streams"]:,} simulated streams of independent records: those called drifting, and the PSI that one in a
thousand exceeds.

{table(["records of the reference", "records of the stream", "drifting", "PSI, 99.9 %"], simulated)}

Digits drawn from those that the reference was not made from ({figures["streams"] // 10:,} streams; drifting in any of
four figures):

{table(["records of the stream", "drifting"], digits)}

## Streams that have

Half a window of unchanged digits, then changed ones, {figures["trials"]} times: whether it is seen within a window
({settings["window"]} records), and after how many changed records. What doesn't change a score is seen in the inputs
alone: the scores here are those of normal records throughout.

{table(["change", "seen", "records, median", "90 %"], changes)}

## Cost

CPU of a record when nothing is passed over, and of PSI and KS of 10,000 streams, which is off the event loop but for
the copy of the counts.

{table(["records", "µs of a record", "ms of 10,000 streams"], cost)}
"""


if __name__ == "__main__":
    run(main, console, exit_code)
