"""Logging: lines for people in a terminal, JSON for machines otherwise."""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

import structlog

from stream_app.settings import LogSettings

_FOREIGN_LOGGERS = ("abc", "faust", "mode", "aiokafka", "kafka", "aiohttp")  # `abc` is what mode calls some of its own


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger(name))


def configure(settings: LogSettings) -> None:
    """Sends our log and that of the libraries to standard error, in one format."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            exception_formatter=structlog.dev.plain_traceback  # no local variables: they hold people's records
        )
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    root.setLevel(level)
    for name in _FOREIGN_LOGGERS:  # their everyday news is of no use to an operator
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
