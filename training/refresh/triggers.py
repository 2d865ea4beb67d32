"""When a detector is trained anew: by the clock, after so many records, on drift, by hand, or because a run came to
nothing. Plain functions of what is known; time is passed in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from stream_app.errors import SettingsError
from stream_app.settings import TrainerSettings
from training.refresh.memory import Offsets, Outcome, Remembered

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NUMBERED = re.compile(r"([0-7])(?:-([0-7]))?(?:/(\d+))?")


@dataclass(frozen=True, slots=True)
class Due:
    """A run is due. `trigger`: clock, records, drift, hand, retry or takeover; `why` is for people."""

    trigger: str
    why: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen outside: records since the last run, why the stream has drifted, who asked for a run."""

    records: int = 0
    drift: str | None = None
    requested_by: str | None = None


class Cron:
    """A cron expression in a time zone: minute, hour, day, month, weekday (0 and 7 are Sunday, names are English).

    Where the clock is put back, a time of day that comes twice fires at the first, unless the hour is `*`; where it is
    put forward, one that is left out fires as long after midnight as ever, by the clock of the day before.
    """

    def __init__(self, expression: str, zone: str) -> None:
        """Raises SettingsError, with what is wrong, for an expression that can't be read or that never fires."""
        self.expression, self.zone = expression, zone
        try:
            fields = expression.split()
            if len(fields) == 5:
                fields[4] = _named_weekdays(fields[4])
            self._trigger = CronTrigger.from_crontab(" ".join(fields), timezone=ZoneInfo(zone))
        except ValueError as error:
            raise SettingsError(
                f"GANOMALY_TRAINER__CRON={expression!r}: {error}. Expected minute, hour, day, month and weekday, "
                "like '30 3 * * *' for every night at half past three"
            ) from None
        self._every_hour = fields[1].startswith("*")
        if self.after(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) is None:
            raise SettingsError(f"GANOMALY_TRAINER__CRON={expression!r} never fires: there is no such day")

    def after(self, moment: float) -> float | None:
        """The first firing later than `moment`; both in seconds since the Unix epoch."""
        at = datetime.fromtimestamp(moment, UTC)
        while True:
            fires = self._trigger.get_next_fire_time(None, at + timedelta(microseconds=1))
            if fires is None:
                return None
            if not fires.fold or self._every_hour:
                return float(fires.timestamp())
            at = fires.astimezone(UTC)


class Triggers:
    """Decides from the settings whether a run is due."""

    def __init__(self, settings: TrainerSettings) -> None:
        """Raises SettingsError for a cron expression that can't be used."""
        self._settings = settings
        self.cron = Cron(settings.cron, settings.timezone) if settings.cron else None

    def due(self, now: float, known: Remembered, seen: Seen) -> Due | None:
        """Why a run is due at `now` (seconds since the Unix epoch), if one is.

        A wish is granted at once. After a run that failed there is a pause, longer each time, and after any other
        `min_pause`; a run that nobody finished is begun anew. What fires in between is due afterwards, once.
        """
        if seen.requested_by is not None:
            return Due("hand", f"asked for by {seen.requested_by}")
        if now < self.not_before(known):
            return None
        recent = known.started_at is not None and now - known.started_at <= self._settings.make_up_within
        stopped_for_good = known.outcome is Outcome.STOPPED and known.trigger == "hand"
        if recent and known.outcome in (Outcome.RUNNING, Outcome.STOPPED) and not stopped_for_good:
            return Due("takeover", f"the run of {_text(known.started_at)} was not finished")
        if known.outcome is Outcome.FAILED:
            return Due("retry", f"the run of {_text(known.started_at)} failed, {known.attempts} in a row")
        return self._clock_due(now, known) or self._stream_due(seen)

    def not_before(self, known: Remembered) -> float:
        """When the pause after the last run is over (seconds since the Unix epoch)."""
        settings = self._settings
        ended = known.finished_at or known.started_at
        if ended is None or known.started_at is None:
            return 0.0
        failed = known.attempts if known.outcome is Outcome.FAILED else known.attempts - 1
        if known.outcome in (Outcome.FAILED, Outcome.RUNNING, Outcome.STOPPED):
            # Whoever dies in the middle may be dying of it: the first time is made good at once, the next ones wait.
            return ended + min(settings.retry_after * 2.0 ** min(failed - 1, 60), settings.max_retry_after) * (
                failed > 0
            )
        return ended + settings.min_pause

    def next_firing(self, now: float) -> float | None:
        """When the clock fires next, if it does."""
        return None if self.cron is None else self.cron.after(now)

    def _clock_due(self, now: float, known: Remembered) -> Due | None:
        """All firings that were missed are one."""
        if self.cron is None or known.handled is None:
            return None
        fired = self.cron.after(max(known.handled, now - self._settings.make_up_within))
        if fired is None or fired > now:
            return None
        return Due("clock", f"{self.cron.expression} ({self.cron.zone}) fired at {_text(fired)}")

    def _stream_due(self, seen: Seen) -> Due | None:
        enough = self._settings.after_records
        if self._settings.on_drift and seen.drift is not None:
            return Due("drift", seen.drift)
        if enough is not None and seen.records >= enough:
            return Due(
                "records", f"{seen.records} records since the last run (GANOMALY_TRAINER__AFTER_RECORDS={enough})"
            )
        return None


def count_new(bounds: dict[int, tuple[int, int]], seen: dict[int, int]) -> int:
    """Records of a topic above the offsets that were `seen` (partition → end).

    `bounds` are the first offset that the broker has, and the end, of each partition. A partition that ends below what
    was seen of it was made anew.
    """
    total = 0
    for partition, (first, end) in bounds.items():
        before = seen.get(partition, 0)
        total += end - max(first, before if before <= end else 0)
    return total


def ends_of(bounds: dict[str, dict[int, tuple[int, int]]]) -> Offsets:
    """Where each partition of each topic ends."""
    return {topic: {number: end for number, (_, end) in ranges.items()} for topic, ranges in bounds.items()}


def _named_weekdays(field: str) -> str:
    """Numbers of days as names: to cron 0 is a Sunday, to the library a Monday."""

    def names(part: str) -> str:
        match = _NUMBERED.fullmatch(part)
        if match is None:
            return part
        first, last, step = match[1], match[2], match[3]
        days = range(int(first), int(last or (6 if step else first)) + 1, int(step or 1))
        if not days:
            raise ValueError(f"weekday {part}: the first day is after the last")
        return ",".join(_DAYS[day % 7] for day in days)

    return ",".join(names(part) for part in field.split(","))


def _text(moment: float | None) -> str:
    return "?" if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"
