"""What a challenger in shadow is compared by: how it and the champion score the same live records.

Each worker adds up on its own and writes what it has, as JSON, to its field of the Redis hash
`{prefix}:{group}:shadow:{detector}:{version}`; the trainer adds up the workers'. Scores are counted in cells of a grid,
champion by challenger, so that sums of workers lose nothing: from it follow both histograms, and the rank correlation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis

from stream_app.log import get_logger
from stream_app.redis_client import connect, redis_errors, redis_key
from stream_app.settings import RedisSettings

log = get_logger(__name__)

# Of calibrated scores, fine where the bulk is: 0, 0.1, …, 3, 3.25, …, 6, 7, …, 12, and whatever is above.
EDGES = np.concatenate([np.arange(0.0, 3.0, 0.1), np.arange(3.0, 6.0, 0.25), np.arange(6.0, 13.0)])
CELLS = len(EDGES)

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Grid = NDArray[np.int64]


class Comparison(BaseModel):
    """What one worker has seen of one challenger, against one champion, since it began.

    `run` names the shadow it belongs to: the `at` of the update that began it. `failed` is why the challenger was
    given up, and empty where it wasn't.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    worker: str
    run: str
    detector: str
    challenger: str
    champion: str
    threshold: float = Field(gt=0, description="of a new stream: -log10 of threshold.target_rate")
    rows: Count = Field(0, description="records scored by both")
    skipped_load: Count = Field(0, description="records left out because others waited to be scored")
    skipped_cost: Count = Field(0, description="records left out because of shadow.max_cost")
    champion_seconds: Seconds = Field(0.0, description="for the rows scored by both")
    challenger_seconds: Seconds = Field(0.0, description="for the rows scored by both")
    champion_alerts: Count = Field(0, description="rows whose score is above the threshold")
    challenger_alerts: Count = 0
    both_alert: Count = 0
    grid: tuple[tuple[Count, Count, Count], ...] = Field(
        (), description="cell of the champion's score, of the challenger's, and how many rows"
    )
    failed: str = ""


@dataclass(slots=True)
class Tally:
    """Sums over rows that both have scored. Not thread-safe."""

    rows: int = 0
    skipped_load: int = 0
    skipped_cost: int = 0
    champion_seconds: float = 0.0
    challenger_seconds: float = 0.0
    champion_alerts: int = 0
    challenger_alerts: int = 0
    both_alert: int = 0
    grid: Grid = field(default_factory=lambda: np.zeros((CELLS, CELLS), dtype=np.int64))

    def add(self, champion: NDArray[np.floating], challenger: NDArray[np.floating], threshold: float) -> None:
        """Counts the scores `[n]` of the same rows, finite and >= 0."""
        above = champion > threshold, challenger > threshold
        self.rows += len(champion)
        self.champion_alerts += int(above[0].sum())
        self.challenger_alerts += int(above[1].sum())
        self.both_alert += int((above[0] & above[1]).sum())
        np.add.at(self.grid, (cell_of(champion), cell_of(challenger)), 1)

    def take(self, other: Comparison) -> None:
        """Adds what a worker has seen."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for champion, challenger, count in other.grid:
            if champion < CELLS and challenger < CELLS:
                self.grid[champion, challenger] += count

    def sums(self) -> dict[str, int | float | tuple[tuple[int, int, int], ...]]:
        """The fields of a Comparison that are sums."""
        cells = [(int(i), int(j), int(self.grid[i, j])) for i, j in zip(*np.nonzero(self.grid), strict=True)]
        return {name: getattr(self, name) for name in _SUMS} | {"grid": tuple(cells)}

    def histograms(self) -> tuple[Grid, Grid]:
        """Rows by cell of `EDGES`, `[CELLS]` each: of the champion's scores, and of the challenger's."""
        return self.grid.sum(axis=1), self.grid.sum(axis=0)

    def agreement(self) -> float | None:
        """Spearman's rank correlation of the two's scores, those of a cell tied; None where either has one cell."""
        histograms = self.histograms()
        # About the mean rank: of a cell, the ranks of all its rows are their mean.
        champion, challenger = (np.cumsum(counts) - 0.5 * counts - 0.5 * self.rows for counts in histograms)
        spread = float(histograms[0] @ champion**2) * float(histograms[1] @ challenger**2)
        return float(champion @ self.grid @ challenger / np.sqrt(spread)) if spread > 0.0 else None


_SUMS = (
    *("rows", "skipped_load", "skipped_cost", "champion_seconds", "challenger_seconds"),
    *("champion_alerts", "challenger_alerts", "both_alert"),
)


def cell_of(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """The cell `[n]` of each score `[n]`, >= 0."""
    return np.searchsorted(EDGES, scores, side="right").astype(np.int64) - 1


def add_up(comparisons: Iterable[Comparison]) -> Tally:
    """What several workers have seen, together."""
    total = Tally()
    for each in comparisons:
        total.take(each)
    return total


async def write_comparison(
    client: Redis, settings: RedisSettings, group: str, comparison: Comparison, keep: float
) -> None:
    """Puts it in the worker's field, for `keep` seconds. Raises RedisUnavailable."""
    key = _key(settings, group, comparison.detector, comparison.challenger)
    async with redis_errors(client, settings):
        pipeline = client.pipeline(transaction=False)
        pipeline.hset(key, comparison.worker, comparison.model_dump_json())
        pipeline.pexpire(key, max(1, int(keep * 1000.0)))
        await pipeline.execute()


async def read_comparisons(settings: RedisSettings, group: str, detector: str, challenger: str) -> list[Comparison]:
    """What every worker wrote of a challenger, whatever run it was of. Raises RedisUnavailable."""
    client = connect(settings)
    try:
        async with redis_errors(client, settings):
            fields = await client.hgetall(_key(settings, group, detector, challenger))
    finally:
        await client.aclose()
    found = []
    for worker, value in fields.items():
        try:
            found.append(Comparison.model_validate_json(value))
        except ValidationError as error:  # of another release
            log.warning("a worker's comparison can't be read", worker=str(worker), error=str(error))
    return found


def _key(settings: RedisSettings, group: str, detector: str, challenger: str) -> str:
    return redis_key(settings, group, "shadow", detector, challenger)
