"""Runs to figures: medians, where the CPU went, and the page that shows them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detection.page import table
from streaming.run import Run

TARGET = 25_000  # observations a second and core
CLIENT, LOOP = "Kafka client", "event loop and rest"
STAGES = ("decode", "windows", "score", "threshold", "evidence", "publish", "drift", "commit", "Redis", CLIENT, LOOP)
_OWN_THREADS = ("MainThread", "decode", "scoring", "asyncio")
_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class RedisUse:
    """What Redis says a run asked of it: CPU seconds of the server, bytes it took and gave, commands."""

    cpu: float
    bytes_in: int
    bytes_out: int
    commands: int

    @classmethod
    def between(cls, before: Mapping[str, Any], after: Mapping[str, Any]) -> RedisUse:
        """From two answers to INFO."""

        def grown(*names: str) -> Any:
            return sum(after[name] - before[name] for name in names)

        return cls(
            grown("used_cpu_user", "used_cpu_sys"),
            grown("total_net_input_bytes"),
            grown("total_net_output_bytes"),
            grown("total_commands_processed"),
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """A run, and what it asked of Redis."""

    run: Run
    redis: RedisUse


def cpu_by_stage(run: Run) -> dict[str, float]:
    """CPU seconds of the worker by `STAGES`; each second is in one of them."""
    cpu = {name: stage.cpu for name, stage in run.stages.items()}
    spent = {
        "decode": cpu["decode"],
        "windows": cpu["streams"] - cpu["load"] + cpu["windows"],
        "score": cpu["score"],
        "threshold": cpu["threshold"],
        "evidence": cpu["evidence"],
        "publish": cpu["publish"],
        "drift": cpu["drift"],
        "commit": cpu["commit"] - cpu["save"],
        "Redis": cpu["load"] + cpu["save"],
        CLIENT: sum(time for name, time in run.threads.items() if not name.startswith(_OWN_THREADS)),
    }
    return {**spent, LOOP: run.cpu - sum(spent.values())}


def summarise(measured: Sequence[Measured]) -> dict[str, Any]:
    """Figures of several runs of one kind: medians, and by stage the microseconds of an observation."""
    runs = [each.run for each in measured]

    def median(figures: Sequence[float]) -> float:
        return float(statistics.median(figures))

    stages = [cpu_by_stage(run) for run in runs]
    rates = [run.records / run.seconds for run in runs]
    return {
        "observations": runs[0].records,
        "rounds": len(runs),
        "seconds": median([run.seconds for run in runs]),
        "cpu_seconds": median([run.cpu for run in runs]),
        "per_second": median(rates),
        "per_second_each_round": rates,
        "per_cpu_second": median([run.records / run.cpu for run in runs]),
        "per_cpu_second_each_round": [run.records / run.cpu for run in runs],
        "cpu_us": {
            name: median([of[name] / run.records * _MILLION for of, run in zip(stages, runs, strict=True)])
            for name in STAGES
        },
        "own_metrics_us": {
            name: median([run.own[name] / run.records * _MILLION for run in runs]) for name in runs[0].own
        },
        "states_loaded": median([run.loaded for run in runs]),
        "states_saved": median([run.saved for run in runs]),
        "load_seconds": median([run.stages["load"].seconds for run in runs]),
        "memory_bytes": median([run.memory for run in runs]),
        "redis": {
            "round_trips": median([run.round_trips for run in runs]),
            "commands": median([each.redis.commands for each in measured]),
            "bytes_in": median([each.redis.bytes_in for each in measured]),
            "bytes_out": median([each.redis.bytes_out for each in measured]),
            "server_cpu_seconds": median([each.redis.cpu for each in measured]),
        },
    }


def growth(sizes: Mapping[int, Mapping[str, Any]]) -> dict[str, float]:
    """CPU of an observation at each size as a multiple of that at the smallest: 1 where the cost is linear."""
    first = next(iter(sizes.values()))["per_cpu_second"]
    return {f"{streams:,}": first / of["per_cpu_second"] for streams, of in sizes.items()}


def render(figures: Mapping[str, Any]) -> str:
    """The page, from what the JSON holds."""
    sizes, restarts = figures["sizes"], figures["restarts"]
    origin = figures["origin"]
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    rounds = "one round" if figures["rounds"] == 1 else f"{figures['rounds']} rounds"
    return f"""# How many observations a second does a worker take?

Measured by `benchmarks/streams.py` on {origin["date"]}, {origin["machine"]}, commit {origin["commit"]}; {versions}.
Medians of {rounds}. The load average of the machine was {figures["load_average"]:.1f} when it began:
what other processes take of the core is missing from the rate on the clock, and what they take of caches and of a
shared core's units from both.

One worker on one core; broker, Redis and publisher on another. The detector costs nothing: its score is the newest
value of a window. {figures["observations"]} observations of each stream, raw float32, window of {figures["window"]},
{figures["partitions"]} partitions, stream after stream in turn, published before the worker starts. A run goes from the
first fetch until everything is committed.

## Rate

The target is {TARGET:,} a second of CPU: {_verdict(sizes)}.

{_rates(figures)}

## Where the CPU goes

Microseconds of the worker's CPU for an observation. "{CLIENT}" is the thread that fetches and reads record batches;
"{LOOP}" holds Faust, asyncio, the producer and the bookkeeping of chunks.

{_stages(sizes)}

The same on the clock, as the worker's own metrics tell (`ganomaly_stage_seconds`, `ganomaly_commit_seconds`). Chunks of
{figures["partitions"]} partitions overlap and waiting counts, so that the sum is more than the time of the run.

{_own(sizes)}

## Redis

{_redis(sizes)}

## Restart

A worker of the same group starts anew, and the next observation of each stream comes: its state is read from Redis with
the first chunk that holds one.

{_restarts(sizes, restarts)}
"""


def _verdict(sizes: Mapping[Any, Mapping[str, Any]]) -> str:
    below = [f"{int(streams):,}" for streams, of in sizes.items() if of["per_cpu_second"] < TARGET]
    if len(below) == len(sizes):
        return "**not reached**"
    return f"reached, but **not with {' and '.join(below)} streams**" if below else "reached"


def _rates(figures: Mapping[str, Any]) -> str:
    return table(
        ["streams", "observations", "a second", "a second of CPU", "CPU of an observation, relative", "memory, MiB"],
        [
            [
                f"{int(streams):,}",
                f"{of['observations']:,}",
                f"{of['per_second']:,.0f}",
                f"**{of['per_cpu_second']:,.0f}**",
                f"{figures['growth'][f'{int(streams):,}']:.2f}",
                f"{of['memory_bytes'] / (1 << 20):.0f}",
            ]
            for streams, of in figures["sizes"].items()
        ],
    )


def _stages(sizes: Mapping[Any, Mapping[str, Any]]) -> str:
    spent = [of["cpu_us"] for of in sizes.values()]
    totals = [sum(of.values()) for of in spent]
    rows = [[stage, *(f"{of[stage]:.1f}" for of in spent), f"{spent[-1][stage] / totals[-1]:.0%}"] for stage in STAGES]
    rows.append(["sum", *(f"{total:.1f}" for total in totals), ""])
    return table(["stage", *(f"{int(streams):,} streams" for streams in sizes), "share, of the last"], rows)


def _own(sizes: Mapping[Any, Mapping[str, Any]]) -> str:
    stages = next(iter(sizes.values()))["own_metrics_us"]
    return table(
        ["stage", *(f"{int(streams):,} streams" for streams in sizes)],
        [[stage, *(f"{of['own_metrics_us'][stage]:.0f}" for of in sizes.values())] for stage in stages],
    )


def _redis(sizes: Mapping[Any, Mapping[str, Any]]) -> str:
    return table(
        ["streams", "round trips", "states saved", "bytes to Redis, of an observation", "Redis's own CPU, µs of one"],
        [
            [
                f"{int(streams):,}",
                f"{of['redis']['round_trips']:.0f}",
                f"{of['states_saved']:,.0f}",
                f"{of['redis']['bytes_in'] / of['observations']:.0f}",
                f"{of['redis']['server_cpu_seconds'] / of['observations'] * _MILLION:.1f}",
            ]
            for streams, of in sizes.items()
        ],
    )


def _restarts(sizes: Mapping[Any, Mapping[str, Any]], restarts: Mapping[Any, Mapping[str, Any]]) -> str:
    return table(
        ["streams", "until all are judged and saved, s", "CPU, s", "the same without restoring, s", "states read"],
        [
            [
                f"{int(streams):,}",
                f"{of['seconds']:.2f}",
                f"{of['cpu_seconds']:.2f}",
                f"{of['observations'] / sizes[streams]['per_cpu_second']:.2f}",
                f"{of['states_loaded']:,.0f} in {of['redis']['bytes_out'] / (1 << 20):.1f} MiB",
            ]
            for streams, of in restarts.items()
        ],
    )
