"""All settings: one tree, read from the environment (`GANOMALY_`, nested with `__`), then from an optional YAML file.

The environment wins over the file, options of a command over both. Sizes are bytes and times are seconds unless the
name says otherwise.
"""

from stream_app.settings.connections import (
    KafkaSettings,
    RedisSettings,
    RegistrySettings,
    SchemaRegistrySettings,
    TopicSettings,
)
from stream_app.settings.load import load_settings
from stream_app.settings.process import HttpSettings, LogSettings, WorkerSettings
from stream_app.settings.proof import GateSettings, ShadowSettings
from stream_app.settings.refresh import DriftSettings, SnapshotSettings, TrainerSettings
from stream_app.settings.stream import (
    AlertSettings,
    BatchSettings,
    DeadLetterSettings,
    LabelSettings,
    LimitSettings,
    ScoreSettings,
    SequenceSettings,
    StreamBudget,
    ThresholdSettings,
    target_rate,
)
from stream_app.settings.tree import PREFIX, Settings

__all__ = [
    "PREFIX",
    "AlertSettings",
    "BatchSettings",
    "DeadLetterSettings",
    "DriftSettings",
    "GateSettings",
    "HttpSettings",
    "KafkaSettings",
    "LabelSettings",
    "LimitSettings",
    "LogSettings",
    "RedisSettings",
    "RegistrySettings",
    "SchemaRegistrySettings",
    "ScoreSettings",
    "SequenceSettings",
    "Settings",
    "ShadowSettings",
    "SnapshotSettings",
    "StreamBudget",
    "ThresholdSettings",
    "TopicSettings",
    "TrainerSettings",
    "WorkerSettings",
    "load_settings",
    "target_rate",
]
