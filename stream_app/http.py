"""The worker's HTTP server: is it alive, is it ready, its metrics, and its page."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from stream_app import metrics
from stream_app.errors import WorkerFault
from stream_app.health import Health
from stream_app.settings import HttpSettings


class HttpServer:
    """Serves `/livez`, `/readyz`, `/metrics` and `/`. `port` is the one it listens on, once started."""

    def __init__(self, settings: HttpSettings, health: Callable[[], Health]) -> None:
        self._settings = settings
        self._health = health
        self._runner: web.AppRunner | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Begins to listen. Raises WorkerFault when the port is taken."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/", self._page),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.host, self._settings.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise WorkerFault(
                f"GANOMALY_HTTP__PORT={self._settings.port}: can't listen on {self._settings.host}: {error.strerror}. "
                "Give another port, or 0 for a free one"
            ) from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Closes the connections and ends."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readyz(self, request: web.Request) -> web.Response:
        health = self._health()
        return web.json_response(health.as_dict(), status=200 if health.ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        self._health()
        return web.Response(body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _page(self, request: web.Request) -> web.Response:
        health = self._health()
        rows = "\n".join(f"{name}: {value}" for name, value in health.as_dict().items())
        text = f"ganomaly-stream worker\n\n{rows}\n\n/livez /readyz /metrics\n"
        return web.Response(text=text, headers={"Content-Security-Policy": "default-src 'none'"})
