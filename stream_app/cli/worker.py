"""`worker`: the Faust app."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_app.cli.common import ConfigOption, DeviceOption, RegistryOption
from stream_app.errors import UsageError
from stream_app.settings import load_settings


def worker(
    route: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOPIC=DETECTOR", help="Which detector scores which topic; repeats.", show_default="GANOMALY_ROUTES"
        ),
    ] = None,
    registry: RegistryOption = None,
    device: DeviceOption = None,
    http_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="0 takes a free one.", show_default="GANOMALY_HTTP__PORT"),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Score what is published, until SIGTERM or Ctrl-C.

    A route whose detector has no champion yet waits for its first publication; the others run.

    Example: ganomaly-stream worker --route records.images=images
    """
    settings = load_settings(
        config,
        {
            "routes": _parse_routes(route) if route else None,
            "registry.url": registry,
            "worker.device": device,
            "http.port": http_port,
        },
    )
    from stream_app.log import configure
    from stream_app.worker import run

    configure(settings.log)
    run(settings)


def _parse_routes(routes: list[str]) -> dict[str, str]:
    parsed = {}
    for route in routes:
        topic, separator, detector = route.partition("=")
        if not (topic and separator and detector):
            raise UsageError(f"--route {route}: expected TOPIC=DETECTOR, like records.images=images")
        parsed[topic] = detector
    return parsed
