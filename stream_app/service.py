"""Detectors in service: which version of each, from when on, and what becomes of one that is no good."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from model.detector import Detector
from model.errors import ModelError, RegistryError
from stream_app import metrics
from stream_app.announce import Announcer, Degradable
from stream_app.clock import Clock
from stream_app.decode import Decoder
from stream_app.errors import VersionRefused
from stream_app.lane import Route
from stream_app.log import get_logger
from stream_app.scoring import ScoringThread
from stream_app.settings import Settings
from stream_app.updates import SHADOW_ACTIONS, ModelUpdate
from stream_app.versions import Versions, limit_torch_to_one_thread, spec_of

log = get_logger(__name__)

T = TypeVar("T")

_LONGEST_PAUSE = 300.0  # seconds until a refused version is tried again: somebody may have mended it


@dataclass(slots=True)
class _Refused:
    error: VersionRefused
    version: str
    pause: float
    again_at: float  # monotonic seconds


class DetectorService:
    """Puts the champion of each detector in service, and every champion after it, between two batches.

    `open_route` is called with each route whose detector has come into service. A version that can't be used leaves
    the one before in service, or the topic waiting where there is none; the other routes run.
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
        self._versions = Versions(settings)
        self._scoring = scoring
        self._store = store
        self._clock = clock
        self._open_route = open_route
        self._waiting = dict(settings.routes)
        self._detectors: dict[str, Detector] = {}
        self._refused: dict[str, _Refused] = {}
        self._from_cache: set[str] = set()
        self._said: set[str] = set()
        self._asked: dict[str, asyncio.Task[str | None]] = {}
        self._look_now = asyncio.Event()
        self._loading = ThreadPoolExecutor(1, "loading", limit_torch_to_one_thread)
        self.registry_error: str | None = None

    @property
    def waiting(self) -> list[str]:
        """Topics whose detector isn't in service."""
        return sorted(self._waiting)

    @property
    def versions(self) -> dict[str, str]:
        """The version in service of each detector."""
        return {name: detector.version for name, detector in self._detectors.items()}

    @property
    def refused(self) -> dict[str, dict[str, str]]:
        """The champion that can't be used, by detector, and why."""
        return {
            name: {"version": each.version, "reason": each.error.reason.value, "error": str(each.error)}
            for name, each in self._refused.items()
        }

    @property
    def from_cache(self) -> tuple[str, ...]:
        """Detectors whose version is the last one known on this machine: the registry has not said that it still is."""
        return tuple(sorted(self._from_cache))

    def close(self) -> None:
        """Begins no loading any more; doesn't wait for one that goes on."""
        self._loading.shutdown(wait=False, cancel_futures=True)

    async def look(self) -> None:
        """Puts in service what the registry says, as far as it can be used, and opens the routes that waited for it."""
        errors = [await self._look_at(name) for name in dict.fromkeys(self._settings.routes.values())]
        self._note_reachability(next((error for error in errors if error is not None), None))
        for topic, name in list(self._waiting.items()):
            if name in self._detectors:
                self._open_route(self._route(topic, self._detectors[name]))
                del self._waiting[topic]

    async def watch(self) -> None:
        """Looks again and again, as long as the worker runs."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), self._settings.registry.poll_interval)
            self._look_now.clear()
            await self.look()

    def take(self, update: ModelUpdate) -> None:
        """Has `watch` look at once when an update says that a champion has changed.

        What is champion the registry says: an update may be old, and doesn't come while the broker is away.
        """
        if update.detector in self._settings.routes.values() and update.action not in SHADOW_ACTIONS:
            self._look_now.set()

    def load_challenger(self, name: str, version: str) -> Detector:
        """A version to score beside the one in service, warmed up. It blocks. Raises ModelError."""
        return self._versions.load(name, version, self._detectors.get(name))

    async def _look_at(self, name: str) -> RegistryError | None:
        """Returns why the registry can't be reached, if it can't."""
        old = self._detectors.get(name)
        try:
            champion = await self._ask(name)
            if champion is not None and old is not None and champion == old.version:
                self._refused.pop(name, None)
                self._set_from_cache(name, False)
            elif champion is not None and self._is_due(name, champion):
                await self._take_over(name, champion, old)
        except RegistryError as error:
            if old is None:
                await self._start_from_cache(name, str(error))
            return error
        return None

    async def _ask(self, name: str) -> str | None:
        """The champion. Raises RegistryError, also when no answer comes in time; the next call waits for the same."""
        if name not in self._asked:
            asking = asyncio.to_thread(self._versions.champion, name, name in self._detectors)
            self._asked[name] = asyncio.create_task(asking)
        limit = self._settings.registry.timeout
        done, _ = await asyncio.wait({self._asked[name]}, timeout=limit)
        if not done:
            raise RegistryError(f"no answer within registry.timeout={limit:g} s")
        return self._asked.pop(name).result()

    async def _take_over(self, name: str, version: str, old: Detector | None) -> None:
        started = self._clock.monotonic()
        try:
            detector = await self._in_loading_thread(self._versions.load, name, version, old)
        except VersionRefused as error:
            self._refuse(name, version, error)
            if old is None:
                await self._start_from_cache(name, str(error))
            return
        self._refused.pop(name, None)
        self._put_in_service(detector, started)
        try:
            await self._in_loading_thread(self._versions.keep, name, version)
        except ModelError as error:
            self._say_once("versions can't be kept on this machine for a start without the registry", error)

    async def _start_from_cache(self, name: str, why: str) -> None:
        version = await asyncio.to_thread(self._versions.cached_champion, name)
        if version is None:
            return
        started = self._clock.monotonic()
        try:
            detector = await self._in_loading_thread(self._versions.load_cached, name, version)
        except ModelError as error:
            self._say_once("what was kept on this machine can't be used", error)
            return
        log.warning("started from what was kept on this machine", detector=name, version=version, reason=why)
        self._put_in_service(detector, started)
        self._set_from_cache(name, True)

    async def _in_loading_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._loading, function, *arguments)

    def _put_in_service(self, detector: Detector, started: float) -> None:
        name, old = detector.name, self._detectors.get(detector.name)
        self._scoring.use(name, detector)
        self._detectors[name] = detector
        self._set_from_cache(name, False)
        seconds = self._clock.monotonic() - started
        if old is not None:
            metrics.SWAPS.labels(name).inc()
            metrics.SWAP_SECONDS.labels(name).observe(seconds)
            metrics.MODEL_INFO.remove(name, old.version)
        metrics.MODEL_INFO.labels(name, detector.version).set(1)
        log.info(
            "detector in service",
            detector=name,
            version=detector.version,
            replaced=old.version if old else None,
            device=str(detector.device),
            seconds=round(seconds, 3),
        )

    def _is_due(self, name: str, version: str) -> bool:
        """Whether a version may be tried: it was not refused before, or that is a while ago."""
        refused = self._refused.get(name)
        return refused is None or refused.version != version or self._clock.monotonic() >= refused.again_at

    def _refuse(self, name: str, version: str, error: VersionRefused) -> None:
        before = self._refused.get(name)
        pause, known = self._settings.registry.poll_interval, False
        if before is not None and before.version == version:
            pause, known = min(2 * before.pause, _LONGEST_PAUSE), before.error.reason == error.reason
        self._refused[name] = _Refused(error, version, pause, self._clock.monotonic() + pause)
        if known:
            return
        metrics.SWAPS_FAILED.labels(name, error.reason.value).inc()
        stays = self._detectors[name].version if name in self._detectors else None
        log.error(
            "a version is refused" + ("" if stays else "; its topics wait"),
            detector=name,
            version=version,
            in_service=stays,
            reason=error.reason.value,
            error=str(error),
        )

    def _set_from_cache(self, name: str, is_so: bool) -> None:
        (self._from_cache.add if is_so else self._from_cache.discard)(name)
        metrics.MODEL_FROM_CACHE.labels(name).set(is_so)

    def _note_reachability(self, error: RegistryError | None) -> None:
        url, before = self._settings.registry.url, self.registry_error
        self.registry_error = str(error) if error else None
        metrics.REGISTRY_REACHABLE.set(error is None)
        if error and before is None:
            log.error("the registry can't be reached; versions stay as they are", registry=url, error=str(error))
        elif before is not None and error is None:
            log.info("the registry can be reached again", registry=url)

    def _say_once(self, what: str, error: ModelError) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning(what, error=str(error))

    def _route(self, topic: str, detector: Detector) -> Route:
        settings, spec = self._settings, spec_of(detector)
        announcer = Announcer(spec.kind, settings, self._store, self._clock)
        decoder = Decoder(spec, settings.limits, settings.sequence, settings.schema_registry, self._clock)
        return Route(topic, detector.name, decoder, announcer)
