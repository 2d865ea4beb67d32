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
_WEEKDAY = re.compile(r"(?:\*|(?P<first>[0-7]|[a-z]{3})(?:-(?P<last>[0-7]|[a-z]{3}))?)(?:/(?P<step>[1-9]\d?))?")


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

    It is read as Vixie's cron reads it: where both the day and the weekday are restricted, either of them is enough.
    Where the clock is put back, a time of day that comes twice fires at the first, unless the hour is `*`; where it is
    put forward, one that is left out fires as long after midnight as ever, by the clock of the day before.
    """

    def __init__(self, expression: str, zone: str) -> None:
        """Raises SettingsError, with what is wrong, for an expression that can't be read or that never fires."""
        self.expression, self.zone = expression, zone
        try:
            fields = expression.split()
            self._triggers = [
                CronTrigger.from_crontab(" ".join(each), timezone=ZoneInfo(zone)) for each in _without_or(fields)
            ]
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
            each = (trigger.get_next_fire_time(None, at + timedelta(microseconds=1)) for trigger in self._triggers)
            # Instants: times of one zone compare by the clock on the wall, which is put back once a year.
            fires = min((one for one in each if one is not None), key=datetime.timestamp, default=None)
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
        return self._clock_due(now, known) or self._stream_due(now, known, seen)

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

    def drift_not_before(self, known: Remembered) -> float:
        """When drift may ask again: what was refused is learned from the same stream the next time.

        The pause doubles with each refusal in a row.
        """
        if not known.refusals or known.finished_at is None:
            return 0.0
        settings = self._settings
        pause = settings.retry_after_refusal * 2.0 ** min(known.refusals - 1, 60)
        return known.finished_at + min(pause, max(settings.max_retry_after, settings.retry_after_refusal))

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

    def _stream_due(self, now: float, known: Remembered, seen: Seen) -> Due | None:
        enough = self._settings.after_records
        if self._settings.on_drift and seen.drift is not None and now >= self.drift_not_before(known):
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


def _without_or(fields: list[str]) -> list[list[str]]:
    """The expression as such as are meant with "and" throughout: what fires is what any of them says."""
    if len(fields) != 5:
        return [fields]  # which is said to be wrong
    minute, hour, day, month, weekday = *fields[:4], _weekdays(fields[4].lower())
    if fields[2].startswith("*") or fields[4].startswith("*"):
        return [[minute, hour, day, month, weekday]]
    return [[minute, hour, day, month, "*"], [minute, hour, "*", month, weekday]]


def _weekdays(field: str) -> str:
    """Each day by its name: the library counts from Monday, takes steps from there, and knows no second Sunday."""
    if field == "*":
        return field
    days = {day % len(_DAYS) for part in field.split(",") for day in _days_of(part)}
    return ",".join(_DAYS[day] for day in sorted(days))


def _days_of(part: str) -> range:
    match = _WEEKDAY.fullmatch(part)
    if match is None:
        raise ValueError(f"weekday {part!r}: expected 0 to 7, sun to sat, a range like mon-fri, or a step like */2")
    step = int(match["step"] or 1)
    if match["first"] is None:
        return range(0, 7, step)
    first = _day(match["first"])
    last = _day(match["last"]) if match["last"] else 6 if match["step"] else first
    if match["last"] == "sun" and first:
        last = 7
    if last < first:
        raise ValueError(f"weekday {part!r}: the first day is after the last")
    return range(first, last + 1, step)


def _day(name: str) -> int:
    if name.isdigit():
        return int(name)
    if name not in _DAYS:
        raise ValueError(f"weekday {name!r}: the days are {', '.join(_DAYS)}")
    return _DAYS.index(name)


def _text(moment: float | None) -> str:
    return "?" if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"
