"""Detectors in service: loaded and warmed up off the event loop, then given to the scoring thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from model.detector import Detector
from model.errors import ModelError, ModelNotFound
from model.registry import Registry
from stream_app import metrics
from stream_app.announce import Announcer, Degradable
from stream_app.clock import Clock
from stream_app.decode import Decoder, InputSpec
from stream_app.lane import Route
from stream_app.log import get_logger
from stream_app.records import Kind
from stream_app.scoring import ScoringThread
from stream_app.settings import Settings

log = get_logger(__name__)


class DetectorService:
    """Opens a route as soon as its detector has a champion.

    `open_route` is called with each route whose detector has come into service. A champion that can't be loaded
    leaves its topics waiting, and the others running.
    """

    def __init__(
        self,
        settings: Settings,
        scoring: ScoringThread,
        store: Degradable,
        clock: Clock,
        open_route: Callable[[Route], None],
    ) -> None:
        self._settings = settings
        self._registry = Registry(settings.registry.url)
        self._scoring = scoring
        self._store = store
        self._clock = clock
        self._open_route = open_route
        self._waiting = dict(settings.routes)
        self._detectors: dict[str, Detector] = {}
        self._said: set[str] = set()

    @property
    def waiting(self) -> list[str]:
        """Topics whose detector isn't in service."""
        return sorted(self._waiting)

    @property
    def versions(self) -> dict[str, str]:
        """The version in service of each detector."""
        return {name: detector.version for name, detector in self._detectors.items()}

    async def open_routes(self) -> None:
        """Opens every waiting route whose detector has a champion that can be loaded."""
        for topic, name in list(self._waiting.items()):
            try:
                detector = self._detectors.get(name) or await self._put_in_service(name)
            except ModelNotFound:
                continue
            except ModelError as error:
                self._say_once(topic, str(error))
                continue
            self._open_route(self._route(topic, detector))
            del self._waiting[topic]

    async def watch(self) -> None:
        """Looks for champions until no route waits."""
        while self._waiting:
            await asyncio.sleep(self._settings.registry.poll_interval)
            await self.open_routes()

    async def _put_in_service(self, name: str) -> Detector:
        detector = await asyncio.to_thread(self._load, name)
        self._scoring.use(name, detector)
        self._detectors[name] = detector
        metrics.MODEL_INFO.labels(name, detector.version).set(1)
        log.info("detector in service", detector=name, version=detector.version, device=str(detector.device))
        return detector

    def _load(self, name: str) -> Detector:
        detector = self._registry.load(name, device=self._settings.worker.device, profile=self._settings.worker.profile)
        detector.warm_up(self._settings.batch.max_batch)
        return detector

    def _route(self, topic: str, detector: Detector) -> Route:
        spec = InputSpec(Kind(detector.kind), tuple(detector.input_shape))
        announcer = Announcer(spec.kind, self._settings, self._store, self._clock)
        return Route(topic, detector.name, Decoder(spec, self._settings.limits), announcer)

    def _say_once(self, topic: str, error: str) -> None:
        if error not in self._said:
            self._said.add(error)
            log.error("a detector can't be put in service; its topic waits", topic=topic, error=error)
