"""The whole tree of settings, and where its values come from."""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from stream_app.settings.connections import (
    KafkaSettings,
    RedisSettings,
    RegistrySettings,
    SchemaRegistrySettings,
    TopicSettings,
)
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
    ThresholdSettings,
)

PREFIX = "GANOMALY_"
config_file: ContextVar[Path | None] = ContextVar("config_file", default=None)


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    routes: dict[str, str] = Field(
        {"records.images": "images", "records.sequences": "sequences"},
        min_length=1,
        description="which detector scores which topic",
    )
    topics: TopicSettings = TopicSettings()
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    registry: RegistrySettings = RegistrySettings()
    schema_registry: SchemaRegistrySettings = SchemaRegistrySettings()
    batch: BatchSettings = BatchSettings()
    limits: LimitSettings = LimitSettings()
    threshold: ThresholdSettings = ThresholdSettings()
    labels: LabelSettings = LabelSettings()
    alerts: AlertSettings = AlertSettings()
    scores: ScoreSettings = ScoreSettings()
    dead_letter: DeadLetterSettings = DeadLetterSettings()
    sequence: SequenceSettings = SequenceSettings()
    http: HttpSettings = HttpSettings()
    worker: WorkerSettings = WorkerSettings()
    log: LogSettings = LogSettings()
    trainer: TrainerSettings = TrainerSettings()
    gate: GateSettings = GateSettings()
    shadow: ShadowSettings = ShadowSettings()
    drift: DriftSettings = DriftSettings()
    snapshot: SnapshotSettings = SnapshotSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options first, then the environment, then the file."""
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        path = config_file.get()
        return (*sources, _File(settings_cls, yaml_file=path)) if path else sources


class _File(YamlConfigSettingsSource):
    """The file of settings, the last source that is asked.

    Sources are merged with the last one's keys in front. Of budgets by pattern the first that fits holds, so those of
    the sources before come first here; and whole, as one of a rate and one of alerts a day would make no budget.
    """

    def __call__(self) -> dict[str, Any]:
        data = super().__call__()
        before, own = _budgets(self.current_state), _budgets(data)
        if not before or not own:
            return data
        return {**data, "threshold": {**data["threshold"], "streams": {**before, **own, **before}}}


def _budgets(state: dict[str, Any]) -> dict[str, Any]:
    """The budgets by pattern in a state of the tree that nobody has checked yet."""
    threshold = state.get("threshold")
    streams = threshold.get("streams") if isinstance(threshold, dict) else None
    return streams if isinstance(streams, dict) else {}
