"""The scoring thread: detectors stay resident, one batch at a time, and the event loop never waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.reference import Reference
from stream_app.batching import Batch, Job, MicroBatcher
from stream_app.clock import Clock
from stream_app.errors import ScorerFault
from stream_app.metrics import BATCH_ROWS, BATCH_SECONDS
from stream_app.settings import BatchSettings

FloatArray = NDArray[np.float32]

_CLOSING_SECONDS = 0.5


class Scores(Protocol):
    """What a detector says of `n` rows: calibrated `score` `[n]`, and the `raw` evidence behind it, each `[n]`."""

    @property
    def score(self) -> FloatArray:
        """Calibrated, `[n]`."""
        ...

    @property
    def raw(self) -> dict[str, FloatArray]:
        """By the evidence's name, each `[n]`."""
        ...


class Scorer(Protocol):
    """What the thread asks of a detector, and what events say of it."""

    @property
    def name(self) -> str:
        """The detector."""
        ...

    @property
    def version(self) -> str:
        """Its version in the registry."""
        ...

    @property
    def sha256(self) -> str:
        """The digest of its weights."""
        ...

    @property
    def reference(self) -> Reference:
        """What its scores and records were like at training."""
        ...

    def score(self, inputs: NDArray[Any]) -> Scores:
        """Scores of the rows `[n, …]`."""
        ...

    def localize(self, inputs: NDArray[Any]) -> FloatArray:
        """Where in each row the evidence is, of the rows' own height and width or steps and features."""
        ...


class Company(Protocol):
    """Looks at what a detector has scored, in the scoring thread: a challenger beside a champion."""

    def watch(
        self, rows: NDArray[Any], scores: Scores, scorer: Scorer, seconds: float, is_idle: Callable[[], bool]
    ) -> None:
        """Rows `[n, …]` that were scored in `seconds`, and answered for. Raises nothing.

        Called when nothing waits. Whoever takes long asks `is_idle` again and again, and returns once it is false:
        others wait. Where it is false at once, the next batch was scored before there was time for this one.
        """
        ...


@dataclass(slots=True)
class ScoredRows:
    """The scores of one job, whose rows may have been in several batches: `score` `[n]`, `raw` each `[n]`.

    All of them are by one version of the detector, the `scorer`.
    """

    score: FloatArray
    raw: dict[str, FloatArray]
    scorer: Scorer


@dataclass(slots=True, eq=False)
class _Pending(Job):
    future: asyncio.Future[ScoredRows] | None = None
    pieces: list[ScoredRows] = field(default_factory=list)


@dataclass(slots=True)
class _Call:
    function: Callable[[], Any]
    future: asyncio.Future[Any]


@dataclass(slots=True)
class _Watch:
    """A batch that was answered for, and that its detector's company has not looked at yet."""

    company: Company
    rows: NDArray[Any]
    scores: Scores
    scorer: Scorer
    seconds: float


class ScoringThread:
    """Scores rows for any number of detectors, in one thread, oldest batch first.

    `submit` and `localize` are for the event loop's thread; results come back to it. A detector that raises fails
    every future of its batch with ScorerFault. One that hangs is seen by `busy_for`; `on_fault` is called when the
    thread itself can't go on.
    """

    def __init__(
        self,
        settings: BatchSettings,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._loop = loop
        self._on_fault = on_fault
        self._scorers: dict[str, Scorer] = {}
        self._coming: dict[str, Scorer] = {}  # take over when no job is half scored by the one before
        self._batchers: dict[str, MicroBatcher] = {}
        self._calls: list[_Call] = []
        self._company: dict[str, Company] = {}
        self._unwatched: dict[str, _Watch] = {}
        self._wake = threading.Condition()
        self._closed = False
        self._busy_since: float | None = None
        # A daemon, so that a device that hangs can't keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="scoring", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Asks the thread to end after the batch in hand; doesn't wait for one that takes long."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(_CLOSING_SECONDS)

    def use(self, detector: str, scorer: Scorer) -> None:
        """Puts a scorer in service for a detector: from the next batch on that begins with a new job.

        The one before is let go of as soon as the batch in hand, and a job that it has half scored, are done.
        """
        with self._wake:
            batcher = self._batchers.setdefault(detector, MicroBatcher(self._settings.max_batch, self._settings.linger))
            if batcher.begun:
                self._coming[detector] = scorer
            else:
                self._coming.pop(detector, None)
                self._scorers[detector] = scorer

    def accompany(self, detector: str, company: Company | None) -> None:
        """Lets it look at each batch of a detector from now on, in place of who did; None ends that."""
        with self._wake:
            if company is None:
                self._company.pop(detector, None)
                self._unwatched.pop(detector, None)
            else:
                self._company[detector] = company

    def submit(self, detector: str, rows: NDArray[Any]) -> asyncio.Future[ScoredRows]:
        """Puts rows `[n, …]`, n at least 1, in line for a detector that is in service."""
        future: asyncio.Future[ScoredRows] = self._loop.create_future()
        future.add_done_callback(_look_at)
        job = _Pending(rows, self._clock.monotonic(), future=future)
        with self._wake:
            self._batchers[detector].add(job)
            self._wake.notify()
        return future

    def localize(self, scorer: Scorer, rows: NDArray[Any]) -> asyncio.Future[FloatArray]:
        """Where in each of the rows the evidence is, by whoever scored them.

        Goes ahead of the batches that wait, since alerts are rare.
        """
        future: asyncio.Future[FloatArray] = self._loop.create_future()
        with self._wake:
            self._calls.append(_Call(lambda: scorer.localize(rows), future))
            self._wake.notify()
        return future

    def busy_for(self) -> float:
        """Seconds that the batch in hand has taken so far; 0 when there is none."""
        since = self._busy_since
        return 0.0 if since is None else self._clock.monotonic() - since

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # a thread that dies silently would leave its rows waiting for ever
            fault = ScorerFault(f"the scoring thread ended: {error!r}")
            fault.__cause__ = error
            self._tell_loop(lambda: self._on_fault(fault))

    def _serve(self) -> None:
        while self._serve_next():
            pass

    def _serve_next(self) -> bool:
        """False when the thread shall end. Nothing of the work outlives this call: it holds on to a scorer."""
        work = self._next()
        if work is None:
            return False
        self._busy_since = self._clock.monotonic()
        try:
            if isinstance(work, _Call):
                self._answer(work)
            elif isinstance(work, _Watch):
                work.company.watch(work.rows, work.scores, work.scorer, work.seconds, self._is_idle)
            else:
                self._score(*work)
        finally:
            self._busy_since = None
        return True

    def _next(self) -> _Call | _Watch | tuple[str, Scorer, Batch] | None:
        """Waits for the next thing to do; None when the thread shall end."""
        with self._wake:
            while not self._closed:
                if self._calls:
                    return self._calls.pop(0)
                now = self._clock.monotonic()
                waiting = [(due, name) for name, each in self._batchers.items() if (due := each.due_at()) is not None]
                if not waiting and self._unwatched:
                    return self._unwatched.popitem()[1]
                if not waiting:
                    self._wake.wait()
                    continue
                first_due, name = min(waiting)
                batcher = self._batchers[name]
                if name in self._coming and not batcher.begun:
                    self._scorers[name] = self._coming.pop(name)
                batch = batcher.take(now, only_begun=name in self._coming)
                if batch is not None:
                    return name, self._scorers[name], batch
                self._wake.wait(timeout=first_due - now)
            return None

    def _score(self, name: str, scorer: Scorer, batch: Batch) -> None:
        started = self._clock.monotonic()
        try:
            scores = scorer.score(batch.rows)
        except Exception as error:
            fault = ScorerFault(f"detector {name} raised on a batch of {batch.rows.shape}: {error!r}")
            fault.__cause__ = error
            self._settle([(part[0], fault) for part in batch.parts])
            return
        seconds = self._clock.monotonic() - started
        BATCH_SECONDS.labels(name).observe(seconds)
        BATCH_ROWS.labels(name).observe(len(batch.rows))
        first, finished = 0, []
        for job, _, count in batch.parts:
            assert isinstance(job, _Pending)
            job.pieces.append(_cut(scores, first, first + count, scorer))
            first += count
            if not job.left:
                finished.append((job, _merge(job.pieces)))
        self._settle(finished)
        self._leave_to_company(name, batch.rows, scores, scorer, seconds)

    def _leave_to_company(self, name: str, rows: NDArray[Any], scores: Scores, scorer: Scorer, seconds: float) -> None:
        """For when nothing waits: an anomaly's place is asked for as soon as its batch is answered for."""
        with self._wake:
            company, missed = self._company.get(name), self._unwatched.pop(name, None)
            if company is not None:
                self._unwatched[name] = _Watch(company, rows, scores, scorer, seconds)
        if missed is not None:
            missed.company.watch(missed.rows, missed.scores, missed.scorer, missed.seconds, lambda: False)

    def _is_idle(self) -> bool:
        with self._wake:
            return not (self._closed or self._calls or any(each.rows_waiting for each in self._batchers.values()))

    def _answer(self, call: _Call) -> None:
        try:
            result = call.function()
        except Exception as error:
            fault = ScorerFault(f"a detector raised while looking for the place of an anomaly: {error!r}")
            fault.__cause__ = error
            result = fault
        self._tell_loop(lambda: _resolve(call.future, result))

    def _settle(self, results: Sequence[tuple[Job, Any]]) -> None:
        def resolve_all() -> None:
            for job, result in results:
                if isinstance(job, _Pending) and job.future is not None:
                    _resolve(job.future, result)

        if results:
            self._tell_loop(resolve_all)

    def _tell_loop(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop was closed while the detector hung: nobody waits any more
            if not self._loop.is_closed():
                raise


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():  # cancelled with its partition
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)


def _look_at(future: asyncio.Future[Any]) -> None:
    """Keeps asyncio from complaining when nobody waits for the rows of a batch that raised: the worker has ended."""
    if not future.cancelled():
        future.exception()


def _cut(scores: Scores, first: int, end: int, scorer: Scorer) -> ScoredRows:
    raw = {name: values[first:end] for name, values in scores.raw.items()}
    return ScoredRows(scores.score[first:end], raw, scorer)


def _merge(pieces: list[ScoredRows]) -> ScoredRows:
    if len(pieces) == 1:
        return pieces[0]
    raw = {name: np.concatenate([piece.raw[name] for piece in pieces]) for name in pieces[0].raw}
    return ScoredRows(np.concatenate([piece.score for piece in pieces]), raw, pieces[0].scorer)
