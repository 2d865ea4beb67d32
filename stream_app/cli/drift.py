"""How `models show` tells of drift: what the workers have told Redis, or why that can't be known."""

from __future__ import annotations

import asyncio

from rich.table import Table

from stream_app.cli.common import console
from stream_app.drift import DriftReport, read_drift
from stream_app.errors import RedisUnavailable
from stream_app.settings import Settings

SHOWN = 5  # of the worst streams; --json has all


def ask_drift(settings: Settings, detector: str, version: str) -> DriftReport | str:
    """What workers tell of the streams that this version scores, or why it can't be read."""
    reading = read_drift(settings.redis, settings.kafka.group_id, detector, settings.drift, version=version)
    try:
        return asyncio.run(reading)
    except RedisUnavailable as error:
        return str(error)


def drift_as_json(found: DriftReport | str) -> dict[str, object]:
    """The report, or `{"error": …}`."""
    return {"error": found} if isinstance(found, str) else found.model_dump(mode="json")


def print_drift(found: DriftReport | str, settings: Settings) -> None:
    """For people."""
    if isinstance(found, str):
        console.print(f"drift: unknown; {found}", markup=False, soft_wrap=True)
    elif not found.streams:
        console.print(
            f"drift: no worker has told of its streams within drift.keep={settings.drift.keep:g} seconds",
            markup=False,
            soft_wrap=True,
        )
    else:
        console.print(_statistics(found))
        for each in found.worst[:SHOWN]:
            where = f"{each.stream} ({each.topic}/{each.partition})"
            figures = f"PSI {each.psi:.2f}, KS {each.ks:.2f} over {each.records} records"
            console.print(f"{where}: {each.statistic}, {figures}", markup=False, soft_wrap=True)
        if reason := found.fires(settings.drift):
            console.print(f"asks for a new version: {reason}", markup=False, soft_wrap=True)


def _statistics(found: DriftReport) -> Table:
    title = f"drift: {found.drifting} of {found.judged} streams"
    if found.streams > found.judged:
        title += f"; {found.streams - found.judged} more have too few records"
    table = Table("", "streams", "PSI of all", "KS of all", "largest PSI", "largest KS", title=title)
    for name, each in found.statistics.items():
        figures = (each.psi, each.ks, each.psi_max, each.ks_max)
        table.add_row(name, str(each.drifting), *(f"{figure:.2f}" for figure in figures))
    return table
