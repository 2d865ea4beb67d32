"""How `models show` tells of the trainer: what became of the detector's last run."""

from __future__ import annotations

import asyncio
from typing import Any

from stream_app.cli.common import console
from stream_app.errors import RedisUnavailable
from stream_app.redis_client import connect
from stream_app.settings import Settings

LastRun = dict[str, Any]


def ask_last_run(settings: Settings, detector: str) -> LastRun | str | None:
    """The last run as Redis has it, None where there was none, or why it can't be read."""
    from training.refresh.memory import Memory

    async def read() -> LastRun | None:
        client = connect(settings.redis)
        try:
            return await Memory(client, settings.redis, settings.kafka.group_id, detector).last_run()
        finally:
            await client.aclose()

    try:
        return asyncio.run(read())
    except RedisUnavailable as error:
        return str(error)


def last_run_as_json(found: LastRun | str | None) -> LastRun | None:
    """The run, null for none, or `{"error": …}`."""
    return {"error": found} if isinstance(found, str) else found


def print_last_run(found: LastRun | str | None) -> None:
    """For people."""
    if found is None:
        told = "no run of `ganomaly-stream schedule` has ended yet"
    elif isinstance(found, str):
        told = f"unknown; {found}"
    else:
        began = found["started_at"][:16].replace("T", " ")
        what = f"{found['outcome']}, {found['version'] or 'no version'}"
        told = f"{began} UTC, {found['trigger']}: {what}: {found['why']}"
    console.print(f"last training: {told}", markup=False, soft_wrap=True)
