"""Sections: the processes themselves – their HTTP server, device, threads, patience and log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from model.config import Profile
from stream_app.settings.fields import PositiveSeconds, Section


class HttpSettings(Section):
    """The worker's own HTTP server."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = Field(6066, description="0 takes a free one")
    stalled_after: PositiveSeconds = Field(30.0, description="not ready when records wait and none is done for so long")


class WorkerSettings(Section):
    """Device, threads, and how long things may take before the process ends."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, …")
    profile: Profile = Field(
        Profile.ACCURATE, description="accurate: all evidence of a picture; fast: a third of the cost and less to go by"
    )
    torch_threads: Annotated[int, Field(ge=0)] = Field(0, description="0 leaves it to torch")
    decode_threads: Annotated[int, Field(ge=1, le=64)] = 1
    score_timeout: PositiveSeconds = Field(60.0, description="a batch that takes longer ends the worker (exit code 1)")
    publish_timeout: PositiveSeconds = Field(30.0, description="an unacknowledged event ends the worker (exit code 1)")
    shutdown_timeout: PositiveSeconds = Field(9.0, description="from SIGTERM to the exit")


class LogSettings(Section):
    """Logging."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console in a terminal, JSON otherwise"
    )
