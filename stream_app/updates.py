"""The topic of model updates: which version came into service, so that workers need not wait to look for it.

It is compacted: of each key, a detector or what it has in shadow, the broker keeps the newest message. The registry's
champion file decides; a message only says that there is something to look at.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydantic import ValidationError

from model.errors import first_fault
from model.lineage import Promotion
from stream_app import metrics
from stream_app.events import ModelUpdate, UpdateAction, rfc3339
from stream_app.history import follow
from stream_app.kafka import broker_errors, producing
from stream_app.log import get_logger
from stream_app.records import RawRecord
from stream_app.settings import Settings
from stream_app.topics import ensure_topics

__all__ = ["SHADOW_ACTIONS", "ModelUpdate", "UpdateAction", "follow_updates", "publish_update", "update_of"]

log = get_logger(__name__)

SHADOW_ACTIONS = (UpdateAction.SHADOW, UpdateAction.UNSHADOW)


def update_of(detector: str, promotion: Promotion, sha256: str) -> ModelUpdate:
    """What is published of a promotion or of a rollback; `sha256` is that of the version's weights."""
    return ModelUpdate(
        detector=detector,
        version=promotion.version,
        sha256=sha256,
        action=UpdateAction(promotion.action),
        at=rfc3339(promotion.at.timestamp()),
        by=promotion.by,
        reason=promotion.reason,
    )


def key_of(update: ModelUpdate) -> bytes:
    """The message's key: what is in shadow does not replace what is in service when the topic is compacted."""
    return f"{update.detector}/shadow".encode() if update.action in SHADOW_ACTIONS else update.detector.encode()


async def publish_update(settings: Settings, update: ModelUpdate) -> None:
    """Publishes an update and waits for the broker's acknowledgement; topics that are missing are made.

    Raises BrokerUnavailable or TopicUnavailable.
    """
    await ensure_topics(settings)
    async with producing(settings.kafka) as producer:
        with broker_errors(settings.kafka):
            await producer.send_and_wait(
                settings.topics.model_updates, update.model_dump_json().encode(), key_of(update)
            )


async def follow_updates(settings: Settings) -> AsyncIterator[ModelUpdate]:
    """Every update that the topic holds, the oldest of a detector first, and then each that comes, for ever.

    It joins no group. A broker that is away is waited for; what came meanwhile is not missed. What is no update is
    skipped, said and counted.
    """
    async for records in follow(settings, settings.topics.model_updates):
        for record in records:
            update = _parse(record)
            if update is not None:
                yield update


def _parse(record: RawRecord) -> ModelUpdate | None:
    if record.value is None:  # whoever deletes a key by hand
        return None
    try:
        return ModelUpdate.model_validate_json(record.value)
    except ValidationError as error:
        place = f"{record.topic}/{record.partition}/{record.offset}"
        metrics.UPDATES_UNREADABLE.inc()
        log.warning("not a model update; it is skipped", place=place, error=first_fault(error, "value"))
        return None
