"""The shadow: a version that has passed the gate scores live records beside the champion, and that decides.

The workers do it (`stream_app.challengers`); here it is begun and ended, what they show is added up, and the rules of
the settings' section `shadow` are applied, until one refuses, all pass, or the time is up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from scipy import stats

from model.errors import RegistryError
from model.gate_report import RuleVerdict
from model.registry import Registry
from stream_app.clock import Clock
from stream_app.errors import BrokerUnavailable, RedisUnavailable, TopicUnavailable
from stream_app.events import rfc3339
from stream_app.log import get_logger
from stream_app.settings import Settings, ShadowSettings
from stream_app.shadow import Comparison, Tally, add_up, read_comparisons
from stream_app.updates import ModelUpdate, UpdateAction, publish_update

log = get_logger(__name__)

SIGNIFICANCE = 0.01  # how often chance alone may fail a version that raises as many alerts as it may

Publish = Callable[[Settings, ModelUpdate], Awaitable[None]]
Tell = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class ShadowOutcome:
    """What the shadow came to. `waits`: a person is to promote it, as `shadow.approve` asks or as somebody has put
    another version in service meanwhile.

    `rules` are the verdicts on what was seen last.
    """

    passed: bool
    waits: bool
    refused_by: tuple[str, ...]
    why: str
    rules: tuple[RuleVerdict, ...] = ()


def judge(comparisons: Sequence[Comparison], settings: ShadowSettings, target_rate: float) -> tuple[RuleVerdict, ...]:
    """The rules, on what all workers have seen of one challenger against one champion.

    That of the rows comes first among the figures: while it fails, it is too early to say anything by the others.
    """
    total = add_up(comparisons)
    sound = _sound(comparisons)
    rows = RuleVerdict(
        rule="rows",
        figure=total.rows,
        limit=settings.min_rows,
        passed=total.rows >= settings.min_rows,
        why=f"records scored by both; left out: {total.skipped_load} for load, {total.skipped_cost} for their cost",
    )
    if not total.rows:
        return sound, rows
    return (
        sound,
        rows,
        _alerts(total, settings, target_rate),
        _agreement(total, settings, target_rate),
        _cost(total, settings),
    )


def _sound(comparisons: Sequence[Comparison]) -> RuleVerdict:
    failed = [f"worker {each.worker}: {each.failed}" for each in comparisons if each.failed]
    why = failed[0] if failed else f"{len(comparisons)} workers score with it"
    return RuleVerdict(rule="sound", passed=not failed, why=why)


def _alerts(total: Tally, settings: ShadowSettings, target_rate: float) -> RuleVerdict:
    """No more than the champion's, or than the budget allows, by a factor.

    A champion that is itself past the budget is no measure by a factor: what replaces it may not raise more, but for
    what chance explains.
    """
    figure, reference = total.challenger_alerts / total.rows, total.champion_alerts / total.rows
    budget = _within_budget(total, settings, target_rate)
    limit = _no_more(total) if reference > budget else max(settings.alert_factor * reference, budget)
    return RuleVerdict(
        rule="alerts",
        figure=figure,
        reference=reference,
        limit=limit,
        passed=figure <= limit,
        why=f"share of {total.rows} records above a new stream's threshold; {total.both_alert} are above it for both",
    )


def _no_more(total: Tally) -> float:
    """The largest share of alerts of a challenger that is as likely as the champion to be the only one to raise one.

    The sign test of the records above the threshold for one of the two only (McNemar 1947, with exact probabilities).
    """
    either = total.champion_alerts + total.challenger_alerts - 2 * total.both_alert
    alone = float(stats.binom.ppf(1.0 - SIGNIFICANCE, either, 0.5))
    return (total.both_alert + alone) / total.rows


def _within_budget(total: Tally, settings: ShadowSettings, target_rate: float) -> float:
    """The largest share of alerts that the budget, times the factor, explains."""
    budget = min(settings.alert_factor * target_rate, 1.0)
    return float(stats.binom.ppf(1.0 - SIGNIFICANCE, total.rows, budget)) / total.rows


def _agreement(total: Tally, settings: ShadowSettings, target_rate: float) -> RuleVerdict:
    """Not asked for where the champion is past the budget: the stream has changed, and it is replaced for that."""
    figure, said = total.agreement(), f"rank correlation of the two's scores of {total.rows} records"
    if figure is None:
        return RuleVerdict(rule="agreement", passed=True, why=f"not judged: all scores of one of the two tie; {said}")
    if total.champion_alerts / total.rows > _within_budget(total, settings, target_rate):
        why = f"not asked for, as the champion raises more alerts than the budget allows; {said}"
        return RuleVerdict(rule="agreement", figure=figure, passed=True, why=why)
    limit = settings.agreement
    return RuleVerdict(rule="agreement", figure=figure, limit=limit, passed=figure >= limit, why=said)


def _cost(total: Tally, settings: ShadowSettings) -> RuleVerdict:
    figure, reference = total.challenger_seconds / total.rows, total.champion_seconds / total.rows
    limit = settings.cost_factor * reference
    return RuleVerdict(
        rule="cost", figure=figure, reference=reference, limit=limit, passed=figure <= limit, why="seconds per record"
    )


async def run_shadow(
    settings: Settings,
    name: str,
    version: str,
    clock: Clock,
    *,
    publish: Publish = publish_update,
    tell: Tell | None = None,
) -> ShadowOutcome:
    """Puts a version in shadow in all workers, and looks at what they show until that decides.

    Without a champion there is nothing to be held against, and it passes. Whatever happens, also when cancelled, the
    shadow is ended. `tell` gets the share of the records that are needed, and a line, whenever more was seen. Raises
    ModelNotFound where there is no such version, RegistryError, BrokerUnavailable or TopicUnavailable.
    """
    if settings.shadow.min_rows == 0:
        return ShadowOutcome(True, False, (), "not asked for: shadow.min_rows is 0")
    registry = Registry(settings.registry.url)
    champion = await asyncio.to_thread(registry.champion, name)
    if champion is None or champion == version:
        why = "there is no champion to be held against" if champion is None else "it is in service"
        return ShadowOutcome(True, False, (), why)
    manifest = await asyncio.to_thread(registry.manifest, name, version)
    begin = ModelUpdate(
        detector=name,
        version=version,
        sha256=manifest.sha256,
        action=UpdateAction.SHADOW,
        at=rfc3339(clock.time()),
        by="trainer",
        reason=f"in shadow beside {champion}",
    )
    await publish(settings, begin)
    try:
        return await _look(settings, registry, begin, champion, clock, tell or (lambda *_: None))
    finally:
        await asyncio.shield(_end(settings, begin, clock, publish))


async def _end(settings: Settings, begun: ModelUpdate, clock: Clock, publish: Publish) -> None:
    update = begun.model_copy(update={"action": UpdateAction.UNSHADOW, "at": rfc3339(clock.time()), "reason": ""})
    try:
        await publish(settings, update)
    except (BrokerUnavailable, TopicUnavailable) as error:
        log.warning("the end of a shadow can't be announced; workers end it by shadow.timeout", error=str(error))


async def _look(
    settings: Settings, registry: Registry, begun: ModelUpdate, champion: str, clock: Clock, tell: Tell
) -> ShadowOutcome:
    limits, rate = settings.shadow, settings.threshold.target_rate
    deadline = clock.monotonic() + limits.timeout
    rules = judge((), limits, rate)
    seen, unread = -1.0, ""
    while True:
        try:
            found = await read_comparisons(settings.redis, settings.kafka.group_id, begun.detector, begun.version)
        except RedisUnavailable as error:
            unread = f"; what the workers show can't be read: {error}"
        else:
            unread = ""
            rules = judge(_of_this(found, begun, champion), limits, rate)
            if (rows := rules[1].figure or 0.0) != seen:
                seen = rows
                tell(min(rows / limits.min_rows, 1.0), f"{rows:.0f} of {limits.min_rows} records scored by both")
        outcome = _decide(rules, limits, late=clock.monotonic() >= deadline, unread=unread)
        if outcome is not None:
            return outcome
        if (now := await _champion(registry, begun.detector)) not in (None, champion):
            why = f"{now} was put in service meanwhile, and nothing is held against {champion} any more"
            return ShadowOutcome(False, True, (), why, rules)
        await asyncio.sleep(limits.poll_interval)


async def _champion(registry: Registry, name: str) -> str | None:
    """The version in service; None where the registry does not say, which is no reason to end a shadow."""
    try:
        return await asyncio.to_thread(registry.champion, name)
    except RegistryError:
        return None


def _figures(rules: Sequence[RuleVerdict]) -> str:
    """What was found, in a line: of the challenger, and of the champion where that is a comparison."""
    return ", ".join(
        f"{rule.rule} {rule.figure:.3g}" + (f" (champion {rule.reference:.3g})" if rule.reference is not None else "")
        for rule in rules
        if rule.figure is not None
    )


def _of_this(found: Sequence[Comparison], begun: ModelUpdate, champion: str) -> list[Comparison]:
    """Those of this run, and of this champion; a worker that has seen no record, or couldn't load it, names none."""
    return [each for each in found if each.run == begun.at and each.champion in ("", champion)]


def _decide(
    rules: tuple[RuleVerdict, ...], settings: ShadowSettings, *, late: bool, unread: str
) -> ShadowOutcome | None:
    sound, rows, *others = rules
    if not sound.passed:
        return ShadowOutcome(False, False, (sound.rule,), str(sound), rules)
    if not rows.passed:
        if not late:
            return None
        why = f"{rows}; more did not come within shadow.timeout={settings.timeout:g} s{unread}"
        if rows.figure:
            needed = settings.timeout * settings.min_rows / rows.figure
            why += f". At this pace they take {needed:.0f} s: set shadow.timeout higher, or shadow.min_rows lower"
        return ShadowOutcome(False, False, (rows.rule,), why, rules)
    if failed := [rule for rule in others if not rule.passed]:
        return ShadowOutcome(False, False, tuple(rule.rule for rule in failed), "; ".join(map(str, failed)), rules)
    waits = settings.approve == "manual"
    why = f"{rows.figure:.0f} records scored by both: {_figures(others)}"
    if waits:
        why += "; shadow.approve=manual: `ganomaly-stream models promote` puts it in service"
    return ShadowOutcome(True, waits, (), why, rules)
