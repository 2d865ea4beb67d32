"""Every error the product raises on purpose.

GanomalyError
├── ModelError                      (model.errors)
│   ├── TrainingError               training can't start, or led to nothing usable
│   ├── VersionRefused              a version that can't take over from the one in service
│   └── RegistryError
│       ├── ModelNotFound           no such detector, version or champion
│       ├── DigestMismatch          the weights are not those the manifest names
│       ├── ManifestError           a manifest or a lineage that can't be read
│       ├── StaleToken              a trainer that another one has taken over from
│       ├── RolledBack              a version that only a person puts in service again
│       └── ChampionChanged         another version is in service than the one that was to be replaced
├── UsageError                      the user asked for something impossible (exit code 2)
│   └── SettingsError               a setting has a wrong value
├── RecordError                     one record can't be scored: it is dead-lettered, the stream goes on
│   ├── ContentTypeError            a content type we don't read, or not without an extra or a setting
│   ├── DecodeError                 bytes that aren't what their content type says
│   ├── ShapeError                  an array of another shape or type than the detector's
│   ├── LimitError                  larger than a limit of the settings allows
│   ├── ValueRangeError             NaN, infinity, values outside their range, or too many missing
│   └── EventTimeError              an observation whose time can't be right, or that comes too late
├── DependencyError                 something outside can't be reached
│   ├── BrokerUnavailable           no Kafka broker answers
│   ├── TopicUnavailable            a topic doesn't exist, or the broker refused to make it
│   ├── RedisUnavailable            Redis does not answer
│   └── EmbeddedServerError         the embedded broker or Redis can't be started here
└── WorkerFault                     the worker must end and be started again; its records come again
    ├── FuseBlown                   too many dead letters: it's the worker or the topic that is wrong
    ├── ScorerFault                 the scorer raised, or hung beyond its limit
    ├── PublishFault                the broker did not acknowledge an event
    ├── SchemaRegistryFault         the schema registry can't be asked for a record's schema
    └── TransportMismatch           the installed Faust isn't one our transport is written for
"""

from __future__ import annotations

from enum import StrEnum

from model.errors import (
    ChampionChanged,
    DigestMismatch,
    GanomalyError,
    ManifestError,
    ModelError,
    ModelNotFound,
    RegistryError,
    RolledBack,
    StaleToken,
    TrainingError,
)

__all__ = [
    "BrokerUnavailable",
    "ChampionChanged",
    "ContentTypeError",
    "DecodeError",
    "DependencyError",
    "DigestMismatch",
    "EmbeddedServerError",
    "EventTimeError",
    "FuseBlown",
    "GanomalyError",
    "LimitError",
    "ManifestError",
    "ModelError",
    "ModelNotFound",
    "PublishFault",
    "RecordError",
    "RedisUnavailable",
    "Refusal",
    "RegistryError",
    "RolledBack",
    "SchemaRegistryFault",
    "ScorerFault",
    "SettingsError",
    "ShapeError",
    "StaleToken",
    "TopicUnavailable",
    "TrainingError",
    "TransportMismatch",
    "UsageError",
    "ValueRangeError",
    "VersionRefused",
    "WorkerFault",
]


class UsageError(GanomalyError):
    """The user asked for something impossible. Commands exit with 2."""


class SettingsError(UsageError):
    """A setting has a wrong value; the message names it, its value and what it may be."""


class Refusal(StrEnum):
    """Why a version can't take over."""

    MISSING = "missing"  # it, or a file of it, isn't there
    DIGEST = "digest"  # the weights were tampered with or cut off
    MANIFEST = "manifest"  # it can't be read, or the weights aren't of the network that it describes
    SHAPE = "shape"  # takes other records than the version in service
    NOT_FINITE = "not_finite"  # weights or scores are NaN or infinite
    FAILED = "failed"  # raised when it was loaded or tried


class VersionRefused(ModelError):
    """A version that can't take over: the one in service stays there. The message says why, and `reason` in a word."""

    def __init__(self, message: str, reason: Refusal) -> None:
        super().__init__(message)
        self.reason = reason


class RecordError(GanomalyError):
    """One record can't be scored. The message names the field, the limit and the value."""


class ContentTypeError(RecordError):
    """The `content-type` header names something we don't read, or not without an extra or a setting."""


class DecodeError(RecordError):
    """The bytes aren't what their content type says."""


class ShapeError(RecordError):
    """The array has another shape or dtype than the detector takes."""


class LimitError(RecordError):
    """The record is larger than a limit of the settings allows; nothing was allocated for it."""


class ValueRangeError(RecordError):
    """NaN, infinity, a value outside its range, or too many missing values."""


class EventTimeError(RecordError):
    """The time of an observation lies too far ahead, or too far back among those that were there before."""


class DependencyError(GanomalyError):
    """Something outside the process can't be reached or can't be started."""


class BrokerUnavailable(DependencyError):
    """No Kafka broker answers."""


class TopicUnavailable(DependencyError):
    """A topic doesn't exist, or the broker refused to make it."""


class RedisUnavailable(DependencyError):
    """Redis does not answer."""


class EmbeddedServerError(DependencyError):
    """The embedded broker or the embedded Redis can't be started on this machine."""


class WorkerFault(GanomalyError):
    """The worker can't go on and ends with `exit_code`; what it had not committed comes again."""

    exit_code = 1


class FuseBlown(WorkerFault):
    """Too many dead letters in a row or in all."""


class ScorerFault(WorkerFault):
    """The scorer raised on a batch, or did not come back within its limit."""


class PublishFault(WorkerFault):
    """An event was not acknowledged by the broker."""


class SchemaRegistryFault(WorkerFault):
    """The schema registry did not answer, or not with a schema: its fault, not that of the records that name it."""


class TransportMismatch(WorkerFault):
    """The installed Faust differs inside from the releases our transport is written for."""
