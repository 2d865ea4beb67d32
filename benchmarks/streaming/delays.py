"""Delays of records with and without swaps: quantiles, how they compare, and the page that shows them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detection.page import table

CALM, SWAPS = "undisturbed", "a swap each second"
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
LIMIT_MS = 50.0  # that a swap may delay a record


@dataclass(frozen=True, slots=True)
class Phase:
    """Records published from `first` to `last`, milliseconds of the Unix epoch, and their delays in milliseconds."""

    name: str
    first: int
    last: int
    records: int
    delays: Sequence[float]

    def holds(self, at: int) -> bool:
        """Whether a record of that time is of this phase."""
        return self.first <= at <= self.last


def summarise(phases: Sequence[Phase]) -> dict[str, Any]:
    """Of each kind of phase: records, quantiles over all its rounds, and p99 in each round.

    `ratio` is that of the quantiles with swaps to those without, `p99_ratio_each_round` within a round, and
    `p99_added_ms` the median over the rounds of what swaps add to p99.
    """
    kinds = {name: [phase for phase in phases if phase.name == name] for name in (CALM, SWAPS)}
    delays = {name: np.concatenate([phase.delays for phase in some]) for name, some in kinds.items()}
    p99 = {name: [_quantile(phase.delays, 0.99) for phase in some] for name, some in kinds.items()}
    of = {
        name: {
            "records": len(delays[name]),
            "ms": {label: _quantile(delays[name], share) for label, share in QUANTILES.items()},
            "p99_each_round": p99[name],
        }
        for name in kinds
    }
    pairs = list(zip(p99[SWAPS], p99[CALM], strict=True))
    return {
        "phases": of,
        "ratio": {label: of[SWAPS]["ms"][label] / of[CALM]["ms"][label] for label in QUANTILES},
        "p99_ratio_each_round": [with_swaps / without for with_swaps, without in pairs],
        "p99_added_ms": statistics.median(with_swaps - without for with_swaps, without in pairs),
    }


def _quantile(values: Sequence[float] | Any, share: float) -> float:
    return float(np.quantile(values, share))


def render(figures: Mapping[str, Any]) -> str:
    """The page."""
    origin = figures["origin"]
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    added = figures["p99_added_ms"]
    verdict = f"within {LIMIT_MS:.0f} ms" if added <= LIMIT_MS else f"**above {LIMIT_MS:.0f} ms**"
    rows = [
        [name, f"{of['records']:,}", *(f"{of['ms'][label]:.0f}" for label in QUANTILES)]
        for name, of in figures["phases"].items()
    ]
    rows.append(["ratio", "", *(f"{figures['ratio'][label]:.2f}" for label in QUANTILES)])
    rounds = ", ".join(f"{ratio:.2f}" for ratio in figures["p99_ratio_each_round"])
    return f"""# What does a new version each second cost the records that come meanwhile?

Measured by `benchmarks/swaps.py` on {origin["date"]}, {origin["machine"]}, commit {origin["commit"]}; {versions}.
The load average of the machine was {figures["load_average"]:.1f} when it began, and all of this ran at niceness
{figures["niceness"]}: whatever else runs takes its share of both kinds of phases.

One worker on one core, on which it also loads the versions; broker, Redis and publisher on another. {figures["rate"]}
pictures of 8×8 a second on 4 partitions, in {figures["rounds"]} rounds of two phases of {figures["seconds"]} s, one
undisturbed and one with another version promoted each second; which of them leads changes from round to round. Every
record was scored exactly once, or there would be no page.

Milliseconds from a record's publication to that of its score:

{table(["", "records", *QUANTILES], rows)}

p99 with swaps over p99 without, round by round: {rounds}. At the median of the rounds swaps add {added:.0f} ms to p99,
{verdict}. The worker took over {figures["swaps"]:.0f} versions; from noticing one to having it in service were
{figures["swap_seconds"]:.2f} s on average, in which the version before went on scoring.
"""
